"""`torch.export`, `torch.jit.trace` and `torch.jit.script`."""

import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.jit.frontend import FrontendError

from tests.transforms.functions import Function
from tests.transforms.table import BY_NAME, assert_same, each_in, gradients, tensors, tried
from zeroproof.inference import StrictResult
from zeroproof.projective import Pair
from zeroproof.scm import SCM

STORED = {  # one function for each type of result
    "x / y": SCM,
    "decode": tuple,
    "renormalize": Pair,
    "StrictModule": StrictResult,
    "Rational, tensor, at a pole": torch.Tensor,
}
# one for each type of result and each family
KINDS = (
    "x / y",
    "sqrt at 0",
    "masked_mean",
    "encode",
    "decode",
    "renormalize, shared D",
    "strict_inference",
    "StrictModule",
    "SCMTrainingLoss, chordal, by angle",
    "Rational",
    "ProjectiveRational, separate D, monomial",
    "feature_matrix, graded",
)
quiet = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # of torch, about TorchScript
    "ignore::torch.jit.TracerWarning",  # checks of shapes are made once
)


class Calling(nn.Module):
    """A module around any callable, as export and trace want it; flat where trace wants that."""

    def __init__(self, call: Any, flat: bool = False) -> None:
        super().__init__()
        self.call, self.flat = call, flat

    def forward(self, *inputs: Any) -> Any:
        output = self.call(*inputs)
        return tuple(tensors(output)) if self.flat else output


def _differentiated(function: Function, call: Any, module: nn.Module) -> None:
    """Compare gradients by the inputs with those of eager mode; at ⊥ they are finite."""
    _, expected = gradients(module, function.sound(), function.learning)
    _, got = gradients(call, function.sound(), function.learning)
    count = len(function.learning)  # gradients of parameters follow
    assert_same(got[:count], expected[:count])
    _, got = gradients(call, function.bottom(), function.learning)
    assert all(torch.isfinite(x).all() for x in got)


def _exported(function: Function) -> None:
    module = Calling(function.build(torch.float32)).eval()
    program = torch.export.export(module, function.sound())
    operators = {node.target for node in program.graph.nodes if node.op == "call_function"}
    names = {getattr(operator, "namespace", operator.__module__) for operator in operators}
    assert names <= {"aten", "_operator"}
    for inputs in (function.sound(), function.bottom()):
        got, expected = program.module()(*inputs), module(*inputs)
        assert type(got) is type(expected)
        assert_same(tensors(got), tensors(expected))
    _differentiated(function, program.module(), module)


@each_in("export", among=KINDS)
def test_an_exported_program_holds_plain_operations_and_gives_the_same(function, cell):
    tried(_exported, function, cell)


@pytest.mark.parametrize(("name", "kind"), STORED.items(), ids=STORED.keys())
def test_an_exported_program_survives_a_file_for_any_type_of_result(name, kind):
    function = BY_NAME[name]
    module = Calling(function.build(torch.float32)).eval()
    batch = torch.export.Dim("batch")
    shapes = (tuple({0: batch} for _ in function.inputs),)
    program = torch.export.export(module, function.sound(), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for inputs in (function.bottom(), function.sound(batch=(7,))):
        got = loaded(*inputs)
        assert type(got) is kind
        assert_same(tensors(got), tensors(module(*inputs)))


def _traced(function: Function) -> None:
    module = Calling(function.build(torch.float32), flat=True).eval()
    leaves = (x.requires_grad_(k in function.learning) for k, x in enumerate(function.sound()))
    traced = torch.jit.trace(module, tuple(leaves))
    for inputs in (function.sound(), function.bottom(), function.sound(batch=(7,))):
        assert_same(traced(*inputs), module(*inputs))
    _differentiated(function, traced, module)


@quiet
@each_in("trace", among=KINDS)
def test_a_trace_passes_its_own_check_and_gives_the_same(function, cell):
    tried(_traced, function, cell)


def _scripted(function: Function) -> None:
    call = function.build(torch.float32)
    scripted = torch.jit.script(call)
    for inputs in (function.sound(), function.bottom()):
        assert_same(tensors(scripted(*inputs)), tensors(call(*inputs)))


@quiet
@each_in("script")
def test_a_script_gives_the_same(function, cell):
    tried(_scripted, function, cell, (RuntimeError, OSError, FrontendError))
