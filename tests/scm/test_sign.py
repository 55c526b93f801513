import pytest
import torch

from zeroproof.scm import SCM, weak_sign
from zeroproof.testing import assert_close_scm

NAN = float("nan")


def test_real_sign_is_four_valued() -> None:
    x = torch.tensor([-3.0, -0.0, 0.0, 1e-45, 1e38, NAN])
    s = weak_sign(x)
    assert s.payload[:5].tolist() == [-1, 0, 0, 1, 1]
    assert s.bottom.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_complex_sign_lies_on_the_circle_at_every_size(size: float) -> None:
    angle = torch.linspace(-3.1, 3.1, 17)
    unit = torch.polar(torch.ones(17), angle)
    assert_close_scm(weak_sign(size * unit), SCM(unit), rtol=1e-6, atol=0)


def test_complex_sign_of_zero_and_bottom() -> None:
    s = weak_sign(torch.tensor([0j, complex(NAN, 1.0)]))
    assert s.bottom.tolist() == [False, True]
    assert s.payload[0] == 0


def test_real_gradient_is_zero() -> None:
    x = torch.tensor([2.0, 0.0, NAN], requires_grad=True)
    weak_sign(x).payload.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


def test_complex_gradient_against_finite_differences() -> None:
    z = torch.tensor([1 + 2j, -0.5 + 0.1j], dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: weak_sign(t).payload, (z,))
    assert torch.autograd.gradgradcheck(lambda t: weak_sign(t).payload, (z,))


def test_complex_gradient_is_zero_at_zero_and_bottom() -> None:
    z = torch.tensor([0j, complex(NAN, 0.0)], requires_grad=True)
    weak_sign(z).payload.abs().sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [0, 0]
