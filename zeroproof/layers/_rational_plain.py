"""P(x) / Q(x) and its pullback in plain tensor operations: for compilers, transforms, any device.

The compiled kernels follow from how the formulas are written:

- A vectorised loop stores and loads bool slowly, so the mask leaves it as bytes, and inside it no
  bool is used twice where it would be kept.
- The recomputation hangs on the policy's scalars, which exist in backward alone. Otherwise the
  compiler would find it equal to the forward pass and keep masks instead of computing them anew.
- Long sums go row by row, so that one row stays in the cache and needs no compensated sum.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import compiling, finite, row_length
from zeroproof.autodiff.gate import Ruling, shielded, submit
from zeroproof.layers.basis import derivative, polynomial, reach_bounds, unit

__all__ = ["Form", "moments", "plain_backward", "plain_forward"]

_LONGEST = 4096  # terms that float32 may sum one after the other


class Form(NamedTuple):
    """What a rational function is apart from its coefficients."""

    basis: str
    domain: tuple[float, float]
    fixed: int  # policy code, -1 to follow the context


def _inside(x: Tensor, bottom: Tensor | None, limit: Tensor, form: Form) -> Tensor:
    x = x.detach()
    u = x.abs() if form.basis == "monomial" else 2 * unit(x, form.domain).abs() + 1
    inside = u <= limit  # false where x is not finite
    return inside if bottom is None else inside & (bottom == 0)


def plain_forward(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form
) -> tuple[Tensor, Tensor]:
    """Return (value, where it is a number); nan elsewhere.

    Within reach P and Q are finite, so that P / Q is not finite exactly where Q = 0 or the quotient
    overflows.
    """
    limit = torch.cat([reach_bounds(P), reach_bounds(Q)]).amin(0)
    # of x as it is, since no derivative goes this way: a mask ahead of the polynomials would have
    # every one of their steps wait for it
    value = polynomial(x, P, form.basis, form.domain) / polynomial(x, Q, form.basis, form.domain)
    sound = _inside(x, bottom, limit, form) & finite(value)
    return torch.where(sound, value, math.nan), sound


def _with_slope(x: Tensor, coefficients: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Return a polynomial and its derivative."""
    options = (form.basis, form.domain)
    if form.basis != "monomial":
        return polynomial(x, coefficients, *options), polynomial(
            x, derivative(coefficients, *options), *options
        )
    *rest, value = coefficients.unbind()
    value, slope = value + torch.zeros_like(x), torch.zeros_like(x)
    for k, c in enumerate(reversed(rest)):  # the rule of Horner, differentiated step by step
        slope = slope * x + value if k else value
        value = value * x + c
    return value, slope


def moments(g: Tensor, x: Tensor, like: Tensor, form: Form, rows: bool = False) -> Tensor:
    """Return Σ g · B_k(x) for each row of coefficients, in the shape of `like`."""
    t = x if form.basis == "monomial" else unit(x, form.domain)
    t, terms = t.conj() if t.is_complex() else t, [g]
    for k in range(1, len(like)):  # g goes first: 0 times an overflowing power would be nan
        if k == 1 or form.basis == "monomial":
            terms.append(terms[-1] * t)
        else:
            terms.append(2 * t * terms[-1] - terms[-2])
    return torch.stack([_total(term, like, rows) for term in terms])


def _total(term: Tensor, like: Tensor, rows: bool) -> Tensor:
    if not term.is_complex() and not like.is_complex() and rows:
        return term.sum(1).sum().to(like.dtype)
    wide = torch.complex128 if term.is_complex() else torch.float64
    shape = like.shape[1:]
    if term.numel() <= _LONGEST:
        total = term.sum_to_size(shape)
    else:
        total = term.sum(tuple(range(term.ndim - len(shape))), dtype=wide).sum_to_size(shape)
    return (total if like.is_complex() or not total.is_complex() else total.real).to(like.dtype)


def _row_length(x: Tensor, coefficients: Tensor) -> int | None:
    return row_length(x.numel()) if compiling() and coefficients.ndim == 1 else None


class _Operands(NamedTuple):
    safe: Tensor  # x, 0 where P and Q must not be taken
    q: Tensor
    value: Tensor  # P / Q
    slopes: tuple[Tensor, Tensor]  # of P and Q
    lost: Tensor  # ⊥


def _compiled_operands(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form, ruling: Ruling
) -> _Operands:
    """Return what backward needs, the value nan at ⊥, as one loop; see the head of this file."""
    never = ruling.closed & ~ruling.masked
    bounds = torch.where(never, 0, torch.cat([reach_bounds(P), reach_bounds(Q)]))
    blocked = P.ndim == 1 and x.ndim == 2 and _row_length(x, P) == x.shape[1]
    if blocked:  # a limit for each row keeps the loop over rows apart from that within a row
        bounds = bounds.unsqueeze(-1).expand(-1, x.shape[0])
    limit = bounds.amin(0)
    limit = limit.unsqueeze(-1) if blocked else limit
    inside = _inside(x, bottom, limit, form)
    safe = torch.where(inside, x, 0)
    (p, slope_P), (q, slope_Q) = (_with_slope(safe, c, form) for c in (P, Q))
    value = torch.where(inside, p / q, math.nan)
    return _Operands(safe, q, value, (slope_P, slope_Q), ~(value.abs() < limit + math.inf))


def _plain_operands(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form, ruling: Ruling
) -> _Operands:
    """Return the same with Q and P / Q safe where the policy masks, for further derivatives."""
    limit = torch.cat([reach_bounds(P), reach_bounds(Q)]).amin(0)
    inside = _inside(x, bottom, limit, form)
    safe = torch.where(inside, x, 0)
    (p, slope_P), (q, slope_Q) = (_with_slope(safe, c, form) for c in (P, Q))
    lost = ~(inside & torch.isfinite((p / q).detach()))
    unsafe = shielded(ruling, lost)
    q = torch.where(unsafe, 1, q)
    return _Operands(safe, q, torch.where(unsafe, 0, p) / q, (slope_P, slope_Q), lost)


def plain_backward(
    g: Tensor, x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form, ruling: Ruling
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dL/dx, dL/dP's coefficients, dL/dQ's coefficients)."""
    shape = x.shape
    row = _row_length(x, P)
    if row is not None:
        x, g = x.reshape(-1, row), g.reshape(-1, row)
        bottom = None if bottom is None else bottom.reshape(-1, row)
    operands = _compiled_operands if compiling() and not x.is_complex() else _plain_operands
    safe, q, value, slopes, lost = operands(x, P, Q, bottom, form, ruling)
    if operands is _plain_operands:
        # g goes first: 0 times a finite slope stays 0 in every further derivative
        g = torch.where(shielded(ruling, lost), 0, g)
    g_P = submit(g / q.conj(), lost, ruling)
    g_Q = submit(-(g * value.conj()) / q.conj(), lost, ruling)
    g_x = g_P * slopes[0].conj() + g_Q * slopes[1].conj()
    return (
        g_x.reshape(shape),
        moments(g_P, safe, P, form, row is not None),
        moments(g_Q, safe, Q, form, row is not None),
    )
