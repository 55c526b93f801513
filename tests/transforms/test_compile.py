"""`torch.compile(fullgraph=True)`: one graph each way, the same numbers, every policy."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from tests.transforms.functions import Function
from tests.transforms.table import FUNCTIONS, assert_same, each_in, gradients, tried
from zeroproof.autodiff import GradientPolicy

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy
BY_NAME = {function.name: function for function in FUNCTIONS}
INDUCED = ("x / y", "decode", "SCMTrainingLoss", "Rational", "ProjectiveRational")  # one a family


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


class Counted:
    """A backend that runs graphs as they are, and counts those of each direction."""

    def __init__(self) -> None:
        self.graphs = {"forward": 0, "backward": 0}
        self.backend = aot_autograd(
            fw_compiler=self._compiler("forward"), bw_compiler=self._compiler("backward")
        )

    def _compiler(self, direction: str) -> Callable[..., Any]:
        def count(graph: Any, _: Any) -> Any:
            self.graphs[direction] += 1
            return make_boxed_func(graph)

        return count


def _agree(function: Function, call: Any, compiled: Any, policies: Any) -> None:
    for inputs in (function.sound(), function.bottom()):
        for policy in policies:
            expected = gradients(call, inputs, function.learning, policy)
            got = gradients(compiled, inputs, function.learning, policy)
            assert_same(got, expected, rtol=1e-4, atol=1e-5)


def _compiled(function: Function) -> None:
    call, counted = function.build(torch.float32), Counted()
    compiled = torch.compile(call, fullgraph=True, backend=counted.backend)
    _agree(function, call, compiled, (PROJECT, CLAMP, REJECT))
    assert counted.graphs == {"forward": 1, "backward": 1}


@each_in("compile")
def test_one_graph_in_each_direction_serves_every_policy(function, cell):
    tried(_compiled, function, cell)


def test_torch_refuses_second_derivatives_of_compiled_graphs():
    compiled = torch.compile(BY_NAME["decode"].build(torch.float32), backend="aot_eager")
    N, D = (x.requires_grad_() for x in BY_NAME["decode"].sound())
    first = torch.autograd.grad(compiled(N, D)[0].sum(), D, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        torch.autograd.grad(first[0].sum(), D)


@pytest.mark.parametrize("name", INDUCED)
def test_generated_kernels_give_the_same(name):
    function = BY_NAME[name]
    call = function.build(torch.float32)
    compiled = torch.compile(call, fullgraph=True, backend="inductor")
    with torch._dynamo.config.patch(error_on_recompile=True):
        _agree(function, call, compiled, (PROJECT, CLAMP, REJECT))
