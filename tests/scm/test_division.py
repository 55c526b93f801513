import pytest
import torch
from torch import Tensor

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.scm.division import divide

NAN, INF = float("nan"), float("inf")
both_ways = pytest.mark.usefixtures("both_ways")


def test_value_is_nan_exactly_at_bottom() -> None:
    N, D = torch.tensor([1.0, 1.0, 3.0]), torch.tensor([4.0, 0.0, 2.0])
    value, bottom = divide(N, D, torch.tensor([False, True, True]))
    assert value[0] == 0.25
    assert value.isnan().tolist() == bottom.tolist() == [False, True, True]


@both_ways
def test_overflow_is_bottom_and_has_no_gradient() -> None:
    N = torch.tensor([1e30], requires_grad=True)
    D = torch.tensor([1e-30], requires_grad=True)
    value, bottom = divide(N, D, torch.zeros(1, dtype=torch.bool))
    assert bottom.item()
    value.sum().backward()
    assert N.grad == 0
    assert D.grad == 0


def _gradients(policy: GradientPolicy, fixed: int = -1) -> tuple[list[float], list[float]]:
    N = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
    D = torch.tensor([0.5, 0.0, 0.0], requires_grad=True)
    value, _ = divide(N, D, D.detach() == 0, fixed)
    with gradient_policy(policy):
        value.backward(torch.ones(3))
    assert N.grad is not None
    assert D.grad is not None
    return N.grad.tolist(), D.grad.tolist()


@both_ways
@pytest.mark.parametrize(
    ("policy", "g_N", "g_D"),
    [
        (GradientPolicy.CLAMP, [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]),
        (GradientPolicy.PROJECT, [2.0, 0.0, 0.0], [-8.0, 0.0, 0.0]),
        (GradientPolicy.REJECT, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        (GradientPolicy.PASSTHROUGH, [2.0, INF, INF], [-8.0, -INF, NAN]),
    ],
    ids=lambda x: x.name if isinstance(x, GradientPolicy) else "",
)
def test_policies(policy: GradientPolicy, g_N: list[float], g_D: list[float]) -> None:
    expected = tuple(torch.tensor(g) for g in (g_N, g_D))
    for other, fixed in ((policy, -1), (GradientPolicy.PROJECT, int(policy))):
        actual = tuple(torch.tensor(g) for g in _gradients(other, fixed))
        torch.testing.assert_close(actual, expected, equal_nan=True)


@both_ways
def test_clamp_acts_on_the_sum_over_a_shared_denominator() -> None:
    N = torch.tensor([[0.25, 0.25, NAN]], requires_grad=True)
    D = torch.tensor([[1.0]], requires_grad=True)
    value, _ = divide(N, D, N.detach().isnan())
    value.sum().backward()
    assert D.grad is not None
    assert D.grad.item() == -0.5
    D.grad = None
    value, _ = divide(4 * N, D, N.detach().isnan())
    value.sum().backward()
    assert D.grad is not None
    assert D.grad.item() == -1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_first_and_second_derivatives(dtype: torch.dtype) -> None:
    N = torch.tensor([1.0, 2.0, 3.0], dtype=dtype, requires_grad=True)
    D = torch.tensor([2.0, -0.5, 1.5], dtype=dtype, requires_grad=True)
    bottom = torch.zeros(3, dtype=torch.bool)
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.autograd.gradcheck(lambda n, d: divide(n, d, bottom)[0], (N, D))
        assert torch.autograd.gradgradcheck(lambda n, d: divide(n, d, bottom)[0], (N, D))


@pytest.mark.parametrize("policy", list(GradientPolicy)[:3], ids=lambda p: p.name)
def test_derivatives_stay_zero_at_bottom_whatever_comes_in(policy: GradientPolicy) -> None:
    N = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    D = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)
    incoming = torch.tensor([NAN, INF], dtype=torch.float64, requires_grad=True)
    value, _ = divide(N, D, D.detach() == 0)
    with gradient_policy(policy):
        first = torch.autograd.grad(value, (N, D), incoming, create_graph=True)
        assert all(not g.any() for g in first)
        if policy is not GradientPolicy.REJECT:
            total = sum(g.sum() for g in first)
            assert isinstance(total, Tensor)
            second = torch.autograd.grad(total, (N, D, incoming))
            assert all(not g.any() for g in second)


def test_half_precision_keeps_its_type_and_does_not_overflow_at_bottom() -> None:
    N = torch.ones(2, dtype=torch.float16, requires_grad=True)
    D = torch.tensor([0.0, 2.0], dtype=torch.float16)
    value, _ = divide(N, D, D == 0)
    value.nan_to_num().sum().backward()
    assert value.dtype == torch.float16
    assert N.grad is not None
    assert N.grad.tolist() == [0.0, 0.5]


@both_ways
def test_small_denominators_keep_their_gradient() -> None:
    D = torch.tensor([1e-25], requires_grad=True)
    N = torch.tensor([1e-25])
    value, _ = divide(N, D, torch.zeros(1, dtype=torch.bool))
    with gradient_policy(GradientPolicy.PROJECT):
        value.sum().backward()
    assert D.grad is not None
    assert D.grad.item() == pytest.approx(-1e25)
