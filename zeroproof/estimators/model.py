"""What a closed-form fit leaves behind: a few arrays that give tuples for any row."""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from zeroproof.layers.features import Features, feature_matrix
from zeroproof.projective.pair import Pair
from zeroproof.solve.centres import distances
from zeroproof.solve.forms import Form, evaluate
from zeroproof.solve.recipe import answers

__all__ = ["FormModel", "Model", "ReadoutModel", "cancelled", "head", "inputs", "tuples", "widths"]

_CANCELLED = 50 * torch.finfo(torch.float64).eps
_ENTRIES = 2**22  # of a feature matrix at a time: 32 MB


class FormModel(NamedTuple):
    """y / scale as one rational form for each output; a single input."""

    forms: tuple[Form, ...]
    scale: float


class ReadoutModel(NamedTuple):
    """T(y / scale) = H_N a / H_D b."""

    H_N: Features
    H_D: Features
    a: Tensor  # (k_N, m)
    b: Tensor  # (k_D, 1) if shared, else (k_D, m)
    target: str  # T, one of zeroproof.solve.recipe.TARGETS
    scale: float
    centres: Tensor | None = None  # (c, d): distances to them are further columns


Model: TypeAlias = FormModel | ReadoutModel


def tuples(model: Model, X: Tensor) -> Pair:
    """Return ⟨N, D⟩ for rows, in the units of y: N `(n, m)`, D `(n, m)` or `(n, 1)`.

    Args:
        model: Either kind.
        X: `(n, d)`, float64; rows that are not finite give tuples that are not.
    """
    parts = [_tuples(model, rows) for rows in _slices(model, X)]
    N, D = (torch.cat(part) for part in zip(*parts, strict=True))
    return Pair(N, D)


def inputs(model: ReadoutModel, X: Tensor) -> Tensor:
    """Return the columns that the features of a model see."""
    return X if model.centres is None else distances(X, model.centres)


def head(model: ReadoutModel, X: Tensor) -> Pair:
    """Return the tuples of T(y / scale), differentiable by autograd."""
    X = inputs(model, X)
    H_N, H_D = feature_matrix(model.H_N, X), feature_matrix(model.H_D, X)
    return Pair(H_N.to(model.a.dtype) @ model.a, H_D.to(model.b.dtype) @ model.b)


def widths(model: ReadoutModel) -> tuple[int, int]:
    """Return the number of features of N and of D."""
    return len(model.a), len(model.b)


@torch.no_grad()
def cancelled(model: Model, X: Tensor) -> Tensor:
    """Tell where N and D are both rounding errors of their terms: ⟨0, 0⟩, `(n, m)`.

    Coefficients are known to about ε of the largest, so that a sum over features h is known to
    ε ‖h‖₁ max|a|.
    """
    if isinstance(model, FormModel):
        return torch.zeros(len(X), len(model.forms), dtype=torch.bool)
    small = []
    for rows in _slices(model, X):
        part = inputs(model, rows)
        sums = []
        for features, z in ((model.H_N, model.a), (model.H_D, model.b)):
            H = feature_matrix(features, part)
            known = _CANCELLED * H.abs().sum(1, keepdim=True) * z.abs().amax(0)
            sums.append((H.to(z.dtype) @ z).abs() <= known)
        small.append(sums[0] & sums[1])
    return torch.cat(small)


@torch.no_grad()
def _tuples(model: Model, X: Tensor) -> Pair:
    if isinstance(model, FormModel):
        pairs = [evaluate(form, X[:, 0]) for form in model.forms]
        N, D = (torch.stack(part, 1) for part in zip(*pairs, strict=True))
        return Pair(model.scale * N, D)
    N, D = answers(model.target, *head(model, X))
    return Pair(model.scale * N, D)


def _slices(model: Model, X: Tensor) -> Iterator[Tensor]:
    wide = 16 if isinstance(model, FormModel) else sum(widths(model))
    yield from X.split(max(1, _ENTRIES // wide))
