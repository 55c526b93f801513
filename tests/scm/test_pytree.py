from typing import NamedTuple

import torch
from torch.utils import _pytree as pytree

from zeroproof.autodiff.compiled import register_namedtuple
from zeroproof.scm import SCM


def test_scm_flattens_to_its_fields_and_back() -> None:
    x = SCM(torch.tensor([1.0, float("nan")]))
    leaves, spec = pytree.tree_flatten({"x": x})
    assert [leaf is field for leaf, field in zip(leaves, x, strict=True)] == [True, True]
    back = pytree.tree_unflatten(leaves, spec)["x"]
    assert isinstance(back, SCM)
    assert back.payload is x.payload


def test_leaves_carry_the_names_of_the_fields() -> None:
    paths, _ = pytree.tree_flatten_with_path(SCM(torch.ones(1)))
    assert [pytree.keystr(path) for path, _ in paths] == [".payload", ".bottom"]


def test_structure_survives_serialisation() -> None:
    _, spec = pytree.tree_flatten([SCM(torch.ones(1)), Point(torch.ones(1))])
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec


class Point(NamedTuple):
    x: torch.Tensor


register_namedtuple(Point)
