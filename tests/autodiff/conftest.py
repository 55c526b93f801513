from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from zeroproof.autodiff import GradientPolicy
from zeroproof.projective import decode
from zeroproof.scm import SCM

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy
INF = float("inf")
Divide = Callable[[Tensor, Tensor], Tensor]
Table = dict[GradientPolicy, tuple[list[float], list[float]]]

GRADIENTS: Table = {  # dL/dN and dL/dD for L = sum of N / D over all three entries of leaves()
    CLAMP: ([1.0, 0.0, -0.5], [-1.0, 0.0, -0.75]),
    PROJECT: ([10.0, 0.0, -0.5], [-100.0, 0.0, -0.75]),
    REJECT: ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    PASSTHROUGH: ([10.0, INF, -0.5], [-100.0, -INF, -0.75]),
}


def scm_division(N: Tensor, D: Tensor) -> Tensor:
    return (SCM(N) / SCM(D)).payload


def decoding(N: Tensor, D: Tensor) -> Tensor:
    return decode(N, D)[0]


@pytest.fixture(params=[scm_division, decoding], ids=lambda act: act.__name__)
def act(request: pytest.FixtureRequest) -> Divide:
    """Both places where a quotient meets the gate."""
    return request.param


@pytest.fixture(name="EXPECTED")
def expected_gradients() -> Table:
    return GRADIENTS


@pytest.fixture
def leaves() -> Callable[..., tuple[Tensor, Tensor]]:
    def build(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        N = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float32)
        D = torch.tensor([0.1, 0.0, -2.0], dtype=torch.float32)
        return N.to(dtype).requires_grad_(), D.to(dtype).requires_grad_()

    return build


@pytest.fixture
def assert_gradients() -> Callable[[Tensor, Tensor, GradientPolicy], None]:
    def check(N: Tensor, D: Tensor, policy: GradientPolicy) -> None:
        g_N, g_D = GRADIENTS[policy]
        torch.testing.assert_close(N.grad, torch.tensor(g_N))
        torch.testing.assert_close(D.grad, torch.tensor(g_D))

    return check


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
