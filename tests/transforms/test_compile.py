"""`torch.compile(fullgraph=True)`: one graph each way, the same numbers, every policy."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from tests.transforms.functions import Function, Input, layer
from tests.transforms.table import BY_NAME, assert_same, each_in, gradients, tried
from zeroproof.autodiff import GradientPolicy
from zeroproof.layers import ProjectiveHead, Rational
from zeroproof.projective import decode
from zeroproof.scm import SCM
from zeroproof.training import SCMTrainingLoss

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy
KNOWN, SINGULAR = Input(signed=True, learns=False), Input(0.0, 0.4, learns=False)
# one for each kind of code the compiler meets: what an autograd function is made of, masks, layers
KINDS = (
    "x / y",  # a division with its policy
    "sqrt at 0",  # finite with an infinite slope
    "masked_mean(dim=-1)",
    "decode, shared D",  # a gate of tuples
    "renormalize",
    "strict_inference by angle",  # masks as operators of their own
    "implicit_loss, none",  # a gradient that is narrowed
    "margin_loss by angle",
    "SCMTrainingLoss, oriented, sign by angle",  # value and slopes in one graph each
    "Rational of an SCM value",
    "ProjectiveRational",
    "StrictModule",  # a head and what follows it
)


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


@each_in("compile", among=KINDS)
def test_one_graph_in_each_direction_serves_every_policy(function, cell):
    tried(_compiled, function, cell)


def test_torch_refuses_second_derivatives_of_compiled_graphs():
    compiled = torch.compile(BY_NAME["decode"].build(torch.float32), backend="aot_eager")
    N, D = (x.requires_grad_() for x in BY_NAME["decode"].sound())
    first = torch.autograd.grad(compiled(N, D)[0].sum(), D, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        torch.autograd.grad(first[0].sum(), D)


class Whole(torch.nn.Module):
    """All that a training step and an answer are made of, in one function."""

    def __init__(self) -> None:
        super().__init__()
        self.rational = Rational((3, 2), init=([0.3, -1.0, 0.5, 0.2], [1.0, -0.4, 0.9]))
        self.head = ProjectiveHead(2, 2)
        self.loss_fn = SCMTrainingLoss(tau_sing=0.5)

    def forward(self, x: torch.Tensor, Y_n: torch.Tensor, Y_d: torch.Tensor) -> Any:
        N, D = self.head(self.rational(x).payload.nan_to_num())
        value, _ = decode(N, D)
        return self.loss_fn(outputs=(N, D), targets=(Y_n, Y_d)), SCM(value) / SCM(x)


WHOLE = layer(
    "all in one", "", (), lambda _: Whole(), Input(signed=True, bottom=0.0), KNOWN, SINGULAR
)
INDUCED = [  # tests/speed/test_kernels.py has the parts of the whole, one by one
    pytest.param(WHOLE, marks=pytest.mark.slow),
    *(BY_NAME[name] for name in ("sqrt at 0", "renormalize", "margin_loss by angle")),
]


@pytest.mark.parametrize("function", INDUCED, ids=lambda function: function.name)
def test_generated_kernels_give_the_same(function):
    call = function.build(torch.float32)
    compiled = torch.compile(call, fullgraph=True, backend="inductor")
    with torch._dynamo.config.patch(error_on_recompile=True):
        _agree(function, call, compiled, (PROJECT, CLAMP, REJECT))
