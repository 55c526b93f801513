import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.scm import SCM, cos, exp, log, power, sin, sqrt, tan, weak_sign
from zeroproof.testing import assert_valid_scm

NAN = float("nan")
Unary = Callable[[SCM], SCM]
Binary = Callable[[SCM, SCM], SCM]

UNARY: dict[str, Unary] = {
    "neg": operator.neg,
    "inv": SCM.inv,
    "square": lambda x: x**2,
    "power 0": lambda x: x**0,
    "power -1": lambda x: x**-1,
    "power 1.5": lambda x: x**1.5,
    "2 to the x": lambda x: 2**x,
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    "sin": sin,
    "cos": cos,
    "tan": tan,
    "sign": weak_sign,
}
BINARY: dict[str, Binary] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "power": power,
}
# operation -> (operands, in float32) whose result overflows
OVERFLOW: dict[str, Callable[[], SCM]] = {
    "add": lambda: SCM(torch.tensor([3e38])) + 3e38,
    "sub": lambda: SCM(torch.tensor([-3e38])) - 3e38,
    "mul": lambda: SCM(torch.tensor([1e30])) * 1e30,
    "div": lambda: SCM(torch.tensor([1e30])) / 1e-30,
    "inv": lambda: SCM(torch.tensor([1e-40])).inv(),
    "square": lambda: SCM(torch.tensor([1e30])) ** 2,
    "power -2": lambda: SCM(torch.tensor([1e-30])) ** -2,
    "power": lambda: SCM(torch.tensor([1e30])) ** 1.5,
    "exp": lambda: exp(torch.tensor([1000.0])),
    "float16 mul": lambda: SCM(torch.tensor([300.0], dtype=torch.float16)) * 300,
    "complex mul": lambda: SCM(torch.tensor([1e30j])) * 1e30,
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_bottom_absorbs_in_unary_operations(name: str, dtype: torch.dtype) -> None:
    y = UNARY[name](SCM(torch.tensor([NAN, 2.0], dtype=dtype)))
    assert y.bottom.tolist() == [True, False]
    assert_valid_scm(y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_bottom_absorbs_in_binary_operations(name: str, dtype: torch.dtype) -> None:
    x = SCM(torch.tensor([NAN, 2.0, NAN, 2.0, 0.0], dtype=dtype))
    y = SCM(torch.tensor([3.0, NAN, NAN, 3.0, NAN], dtype=dtype))
    z = BINARY[name](x, y)
    assert z.bottom.tolist() == [True, True, True, False, True]
    assert_valid_scm(z)


@pytest.mark.parametrize("name", OVERFLOW)
def test_overflow_becomes_bottom(name: str) -> None:
    y = OVERFLOW[name]()
    assert y.bottom.all()
    assert_valid_scm(y)


def test_zero_times_bottom_is_bottom_and_zero_times_number_is_zero() -> None:
    y = 0 * SCM(torch.tensor([NAN, 5.0]))
    assert y.bottom.tolist() == [True, False]
    assert y.payload[1] == 0


def test_only_zero_has_no_inverse() -> None:
    x = torch.tensor([0.0, -0.0, 1e-30, -2.0])
    assert SCM(x).inv().bottom.tolist() == [True, True, False, False]
    assert (1 / SCM(x)).bottom.tolist() == [True, True, False, False]


ABSORBING: dict[str, tuple[Callable[[Tensor], SCM], float]] = {
    "add": (lambda t: SCM(t) + 1, 1.0),
    "sub": (lambda t: 1 - SCM(t), -1.0),
    "mul": (lambda t: 7 * SCM(t), 7.0),
    "neg": (lambda t: -SCM(t), -1.0),
    "square": (lambda t: SCM(t) ** 2, 4.0),
    "cube": (lambda t: SCM(t) ** 3, 12.0),
    "exp": (exp, 7.38905609893065),
    "construction": (SCM, 1.0),
}


@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda p: p.name)
@pytest.mark.parametrize("name", ABSORBING)
def test_absorbing_operations_only_mask_gradients(name: str, policy: GradientPolicy) -> None:
    make, slope = ABSORBING[name]
    t = torch.tensor([2.0, NAN], dtype=torch.float64, requires_grad=True)
    y = make(t)
    with gradient_policy(policy):
        y.payload.backward(torch.tensor([10.0, 10.0], dtype=torch.float64))
    assert t.grad is not None
    assert t.grad[0].item() == pytest.approx(10 * slope)
    if policy is GradientPolicy.PASSTHROUGH:
        assert t.grad[1] != 0  # what IEEE gives: a number where the slope is constant, else nan
    else:
        assert t.grad[1] == 0


@pytest.mark.parametrize(
    "make",
    [lambda t: SCM(t) + 1, lambda t: 7 * SCM(t), lambda t: -SCM(t)],
    ids=["add", "mul", "neg"],
)
def test_passthrough_goes_through_bottom(make: Callable[[Tensor], SCM]) -> None:
    t = torch.tensor([NAN], requires_grad=True)
    with gradient_policy(GradientPolicy.PASSTHROUGH):
        make(t).payload.sum().backward()
    assert t.grad is not None
    assert torch.isfinite(t.grad).all()
    assert t.grad.abs() >= 1


def test_gradient_is_zero_where_the_result_overflowed() -> None:
    x = torch.tensor([1e30, 1.0], requires_grad=True)
    y = SCM(x) * SCM(x)
    y.payload.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 2.0]


def test_same_tensor_twice_gets_both_gradients() -> None:
    x = torch.tensor([3.0], requires_grad=True)
    value = SCM(x)
    (value * value + value / value).payload.sum().backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(6.0)


def test_gradient_of_a_broadcast_operand_is_summed() -> None:
    x = torch.tensor([[1.0], [NAN]], requires_grad=True)
    y = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (SCM(x) * SCM(y)).payload.sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.tolist() == [[6.0], [0.0]]
    assert y.grad.tolist() == [1.0, 1.0, 1.0]


def test_real_operand_of_a_complex_product_gets_a_real_gradient() -> None:
    x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    z = torch.tensor([3 + 4j], dtype=torch.complex128)
    assert torch.autograd.gradcheck(lambda t: (SCM(t) * SCM(z)).payload, (x,))
    assert torch.autograd.gradcheck(lambda t: (SCM(z) / SCM(t)).payload, (x,)) is True
