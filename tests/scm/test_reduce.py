import pytest
import torch
from hypothesis import given

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.scm import SCM, coverage, masked_mean, masked_sum
from zeroproof.testing import assert_close_scm, scm_values

NAN = float("nan")
GRID = torch.tensor([[1.0, NAN, 3.0], [NAN, NAN, NAN]])


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, 1, -1, (0, 1)], ids=repr)
def test_against_nan_reductions_of_torch(dim: int | tuple[int, ...] | None, keepdim: bool) -> None:
    x = SCM(GRID)
    axes = (0, 1) if dim is None else dim
    expected_sum = GRID.nansum(axes, keepdim=keepdim)
    expected_mean = GRID.nanmean(axes, keepdim=keepdim)
    expected_share = (~GRID.isnan()).float().mean(axes, keepdim=keepdim)
    assert_close_scm(masked_sum(x, dim, keepdim=keepdim), SCM(expected_sum))
    assert_close_scm(masked_mean(x, dim, keepdim=keepdim), SCM(expected_mean))
    torch.testing.assert_close(coverage(x, dim, keepdim=keepdim), expected_share)


def test_over_nothing() -> None:
    for x in (SCM(torch.tensor([NAN, NAN])), SCM(torch.empty(0))):
        assert_close_scm(masked_sum(x), SCM(0.0))
        assert masked_mean(x).bottom.item()
    assert coverage(SCM(torch.tensor([NAN]))).item() == 0
    assert coverage(SCM(torch.empty(0))).isnan()


def test_scalar_value() -> None:
    assert masked_mean(SCM(2.0)).payload.item() == 2
    assert coverage(SCM(2.0), keepdim=True).item() == 1


def test_sum_that_overflows_is_bottom_and_the_mean_is_not() -> None:
    x = SCM(torch.tensor([3e38, 3e38, NAN]))
    assert masked_sum(x).bottom.item()
    assert masked_mean(x).payload.item() == pytest.approx(3e38)


@given(x=scm_values(8))
def test_mean_times_count_is_the_sum(x: SCM) -> None:
    count = (~x.bottom).sum()
    mean, total = masked_mean(x), masked_sum(x)
    assert mean.bottom.item() is (count == 0).item()
    scale = x.payload.abs().nansum()
    assert ((mean.payload.nan_to_num() * count - total.payload).abs() <= 1e-14 * scale).item()


def test_complex_values() -> None:
    x = SCM(torch.tensor([1 + 2j, complex(NAN, 0), 3 - 4j]))
    assert masked_sum(x).payload.item() == 4 - 2j
    assert masked_mean(x).payload.item() == 2 - 1j


@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda p: p.name)
def test_no_gradient_reaches_bottom(policy: GradientPolicy) -> None:
    payload = torch.tensor([1.0, NAN, 4.0], requires_grad=True)
    x = SCM(payload)
    with gradient_policy(policy):
        (masked_mean(x) + masked_sum(x)).payload.backward()
    assert payload.grad is not None
    assert payload.grad.tolist() == [1.5, 0.0, 1.5]
