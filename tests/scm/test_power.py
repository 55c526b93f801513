from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.scm import SCM, power
from zeroproof.testing import Exact, assert_close_scm, exact_to_scm, exact_values

NAN = float("nan")


@given(x=st.lists(exact_values(), min_size=4, max_size=4), n=st.integers(-5, 5))
def test_whole_powers_agree_with_the_oracle(x: list[Exact], n: int) -> None:
    expected = exact_to_scm(value**n for value in x)
    assert_close_scm(exact_to_scm(x) ** n, expected, rtol=1e-13, atol=0)
    assert_close_scm(exact_to_scm(x) ** float(n), expected, rtol=1e-13, atol=0)


@given(x=st.lists(exact_values(complex_values=True), min_size=4, max_size=4), n=st.integers(-5, 5))
def test_whole_complex_powers_agree_with_the_oracle(x: list[Exact], n: int) -> None:
    actual = exact_to_scm(x, torch.complex128) ** n
    expected = exact_to_scm((value**n for value in x), torch.complex128)
    assert_close_scm(actual, expected, atol=1e-13 * expected.payload.abs().nan_to_num())


@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_whole_powers_of_small_integers_are_exact(n: int) -> None:
    x = SCM(torch.tensor([-3.0, 5.0], dtype=torch.float64))
    assert (x**n).payload.tolist() == [(-3.0) ** n, 5.0**n]
    assert ((SCM(torch.tensor([1 + 1j])) ** 4).payload == -4).all()


@given(x=st.lists(exact_values(bottom=True), min_size=4, max_size=4), n=st.integers(-4, 4))
def test_tensor_exponents_agree_with_whole_ones(x: list[Exact], n: int) -> None:
    base = exact_to_scm(x)
    exponent = torch.full((4,), float(n), dtype=torch.float64)
    assert_close_scm(base**exponent, base**n, rtol=1e-12, atol=0)


# base, exponent, value (None: ⊥)
TABLE = [
    (0.0, 0.0, 1.0),
    (0.0, 2.0, 0.0),
    (0.0, -1.0, None),
    (0.0, -0.5, None),
    (-8.0, 2.0, 64.0),
    (-8.0, -1.0, -0.125),
    (-8.0, 1 / 3, None),
    (4.0, 0.5, 2.0),
    (NAN, 0.0, None),
    (1.0, NAN, None),
    (1e300, 2.0, None),
    (1e-300, 2.0, 0.0),
]


@pytest.mark.parametrize(("x", "y", "value"), TABLE)
@pytest.mark.parametrize("kind", [torch.float64, torch.complex128], ids=str)
def test_general_powers(x: float, y: float, value: float | None, kind: torch.dtype) -> None:
    if kind.is_complex and x < 0 and y == 1 / 3:
        value = None
        expected = complex(-8) ** (1 / 3)  # the principal branch has every power
    else:
        expected = value
    base, exponent = torch.tensor([x], dtype=kind), torch.tensor([y], dtype=kind)
    result = SCM(base) ** exponent
    assert result.bottom.item() is (expected is None)
    if expected is not None:
        assert abs(complex(result.payload.item()) - expected) <= 1e-12 * max(1, abs(expected))


def test_complex_zero_to_complex_exponents() -> None:
    y = torch.tensor([2 + 1j, 1j, -1 + 1j, 0j])
    result = SCM(torch.zeros(4, dtype=torch.complex64)) ** y
    assert result.bottom.tolist() == [False, True, True, False]
    assert result.payload[[0, 3]].tolist() == [0, 1]


def test_real_base_and_complex_exponent() -> None:
    result = SCM(torch.tensor([2.0], dtype=torch.float64)) ** 1j
    assert result.payload.item() == pytest.approx(2**1j)


def test_gradients_of_base_and_exponent() -> None:
    x = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([-1.5, 3.0], dtype=torch.float64, requires_grad=True)
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.autograd.gradcheck(lambda a, b: (SCM(a) ** b).payload, (x, y))
        assert torch.autograd.gradgradcheck(lambda a, b: (SCM(a) ** b).payload, (x, y))


def test_exponent_has_no_gradient_where_powers_are_isolated_or_constant() -> None:
    x = torch.tensor([0.0, 0.0, -2.0, 2.0], requires_grad=True)
    y = torch.tensor([2.0, -1.0, 3.0, 1.0], requires_grad=True)
    with gradient_policy(GradientPolicy.PROJECT):
        (SCM(x) ** SCM(y)).payload.sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 12.0, 1.0]
    torch.testing.assert_close(
        y.grad, torch.tensor([0.0, 0.0, 0.0, 2 * torch.log(torch.tensor(2.0))])
    )


def test_passthrough_gives_the_raw_gradients() -> None:
    start = [0.0, -8.0, 2.0, 0.0], [-1.0, 0.5, 3.0, 2.0]
    x, y, a, b = (torch.tensor(v, requires_grad=True) for v in (*start, *start))
    with gradient_policy(GradientPolicy.PASSTHROUGH):
        (SCM(x) ** SCM(y)).payload.sum().backward()
    torch.pow(a, b).sum().backward()
    torch.testing.assert_close(x.grad, a.grad, equal_nan=True)
    torch.testing.assert_close(y.grad, b.grad, equal_nan=True)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_whole_powers_follow_multiplication_which_no_policy_clamps(n: int) -> None:
    x = torch.tensor([3.0, NAN], requires_grad=True)
    (SCM(x) ** n).payload.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [n * 3.0 ** (n - 1), 0.0]


def test_function_and_operator_agree() -> None:
    assert_close_scm(power(2, SCM(torch.tensor([3.0]))), SCM(torch.tensor([8.0])))
    assert_close_scm(power(torch.tensor([2.0]), 3), SCM(torch.tensor([8.0])))
    assert Exact.of(2) ** 3 == Exact.of(Fraction(8))
