"""Powers, total on (payload, bottom): by repeated multiplication for integer exponents."""

import torch
from torch import Tensor

from zeroproof.scm.arithmetic import add, inv, mul
from zeroproof.scm.operation import Operation, evaluate

__all__ = ["complex_dtype", "integer_power", "real_power"]


_COMPLEX = {torch.float16: torch.complex32, torch.float64: torch.complex128}


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the complex type that holds a floating-point type (bfloat16: complex64)."""
    return _COMPLEX.get(dtype, torch.complex64)


def _complex(x: Tensor) -> Tensor:
    return x if x.is_complex() else x.to(complex_dtype(x.dtype))


def _undefined(x: Tensor, y: Tensor) -> Tensor:
    if x.is_complex():
        return (x == 0) & (torch.real(y) <= 0) & (y != 0)
    return ((x == 0) & (y < 0)) | ((x < 0) & (y != torch.round(y)))


def _value(x: Tensor, y: Tensor) -> Tensor:
    # 0^y is taken out: autograd would find its slope nan, and torch calls the complex 0^0 nan
    zero = (x == 0) & (torch.real(y) >= 0)
    value = torch.pow(torch.where(zero, 1, x), y)
    return torch.where(zero, (y == 0).to(value.dtype), value)


def _pullback(g: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope_x = torch.where(y == 0, 0, y * _value(x, torch.where(y == 0, 1, y - 1)))
    # no slope in y: 0^y does not vary, and a real x^y with x < 0 exists at isolated exponents only
    flat = (x == 0 if x.is_complex() else x <= 0) & ~_undefined(x, y)
    base = torch.where(flat, 1, x)
    slope_y = torch.where(flat, 0, torch.pow(base, y) * torch.log(base))
    return g * slope_x.conj(), g * slope_y.conj()


def _steep(x: Tensor, y: Tensor) -> Tensor:
    return (x == 0) & (y != 0) & (torch.real(y) < 1)


_POWER = Operation(_value, _pullback, safe=(1, 1), partial=True, steep=_steep)


def real_power(x: Tensor, y: Tensor, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return x^y; ⊥ for 0^negative, and for a fractional power of a real x < 0; 0⁰ = 1."""
    if x.is_complex() != y.is_complex():
        x, y = _complex(x), _complex(y)
    return evaluate(_POWER, bottom | _undefined(x, y), x, y, fixed=fixed)


def integer_power(x: Tensor, n: int, bottom: Tensor, fixed: int = -1) -> tuple[Tensor, Tensor]:
    """Return xⁿ by repeated multiplication, (x⁻¹)⁻ⁿ for n < 0; x⁰ = 1 + 0x."""
    if n < 0:
        x, bottom = inv(x, bottom, fixed)
        n = -n
    if n == 0:
        zero, bottom = mul(x, torch.zeros_like(x), bottom, fixed)
        return add(zero, torch.ones_like(x), bottom, fixed)
    return _natural_power(x, n, bottom, fixed)


def _natural_power(x: Tensor, n: int, bottom: Tensor, fixed: int) -> tuple[Tensor, Tensor]:
    if n == 1:
        return x, bottom
    root, bottom = _natural_power(x, n // 2, bottom, fixed)
    value, bottom = mul(root, root, bottom, fixed)
    return mul(value, x, bottom, fixed) if n % 2 else (value, bottom)
