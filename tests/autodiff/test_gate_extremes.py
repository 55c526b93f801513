"""Where a derivative leaves the range of its dtype, the policy still gives no NaN."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.scm import SCM, tan

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy


def scm_division(N: Tensor, D: Tensor) -> Tensor:
    return (SCM(N) / SCM(D)).payload


@pytest.mark.parametrize("policy", [CLAMP, PROJECT], ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.complex64])
def test_no_nan_where_the_value_is_finite(policy: GradientPolicy, dtype: torch.dtype) -> None:
    N = torch.randn(4000).relu().to(dtype).requires_grad_()
    D = (10 ** (5 * torch.rand(4000) - 3)).to(dtype).requires_grad_()
    x = SCM(N) / SCM(D)
    g = torch.full_like(x.payload, 1024)
    with gradient_policy(policy, loss_scale=1024.0):
        x.payload.backward(g)
    for leaf in (N, D):
        assert not leaf.grad[~x.bottom].isnan().any()


@pytest.mark.parametrize("policy", [CLAMP, PROJECT], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("act", "at"), [(tan, 1.5703), (lambda x: x ** torch.tensor(-2.0), 0.01)], ids=["tan", "power"]
)
def test_steep_slopes_in_half_precision_meet_a_zero(
    act: Callable[..., SCM], at: float, policy: GradientPolicy
) -> None:
    x = torch.tensor([at], dtype=torch.float16, requires_grad=True)
    y = act(SCM(x))
    assert not y.bottom.any()
    with gradient_policy(policy):
        (0 * y).payload.sum().backward()
    assert x.grad.tolist() == [0.0]


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_clamp_keeps_the_direction_of_an_overflowed_complex_gradient(*, compiled: bool) -> None:
    run = torch.compile(scm_division, fullgraph=True, backend="aot_eager")
    D = torch.tensor([1e-25 + 0j, -1e-25j, 1e-25 + 1e-25j, 2], requires_grad=True)
    value = (run if compiled else scm_division)(torch.ones_like(D).detach(), D)
    value.real.sum().backward()
    torch.testing.assert_close(D.grad, torch.tensor([-1, 1, -1j, -0.25]))
