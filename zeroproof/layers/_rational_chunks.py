"""Rational functions in eager mode on a CPU: chunk by chunk, so that a chunk stays in the cache.

In each chunk the basis is evaluated once. Polynomials, their slopes and the gradients of the
coefficients are then small matrix products with it. A chunk in which something is ⊥, or so large
that a power might overflow, goes through the plain formulas instead.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof.autodiff.eager import full_precision
from zeroproof.autodiff.gate import Ruling
from zeroproof.layers._rational_plain import Form, plain_backward, plain_forward
from zeroproof.layers.basis import derivative, reach_bounds

__all__ = ["chunked_backward", "chunked_forward"]

CHUNK = 20_000  # entries, of no power of two, whose rows would meet in few lines of the cache


def _padded(*columns: Tensor) -> Tensor:
    width = max(2, *(len(c) for c in columns))
    return torch.stack([nn.functional.pad(c, (0, width - len(c))) for c in columns])


def _tame(columns: tuple[Tensor, ...], form: Form) -> float:
    """Return how large |t| may be so that neither the polynomials nor the basis overflow."""
    degree = max(len(c) for c in columns) - 1
    bounds = [reach_bounds(c).amin().item() for c in columns]
    if any(math.isnan(bound) for bound in bounds):
        return -1.0
    largest = torch.finfo(columns[0].dtype).max
    # half of it: the sum of squares it is compared with is rounded
    tame = min(*bounds, (largest / 4) ** (1 / max(degree, 1)), largest**0.5) / 2
    return tame if form.basis == "monomial" else (tame - 1) / 2


class Basis:
    """Rows B_0(x) … B_d(x) of chunks of one length, in one buffer; the views are made once."""

    def __init__(self, n: int, columns: tuple[Tensor, ...], form: Form) -> None:
        self.n, self._form, self._tame = n, form, _tame(columns, form)
        self.matrix = columns[0].new_ones(max(2, *(len(c) for c in columns)), n)
        self._rows = self.matrix.unbind()

    def fill(self, x: Tensor) -> bool:
        """Evaluate at `x`; false where the chunk has to be taken with care."""
        t = _unit_into(x, self._form, self._rows[1])
        if not _is_tame(t, self._tame):
            return False
        if t is not self._rows[1]:
            self._rows[1].copy_(t)
        for before, last, row in zip(self._rows, self._rows[1:], self._rows[2:], strict=False):
            torch.mul(last, t, out=row)
            if self._form.basis == "chebyshev":
                row.mul_(2).sub_(before)
        return True


def _unit_into(x: Tensor, form: Form, out: Tensor) -> Tensor:
    low, high = form.domain
    if form.basis == "monomial" or (low, high) == (-1.0, 1.0):
        return x
    return torch.sub(x, (low + high) / 2, out=out).div_((high - low) / 2)


def _is_tame(t: Tensor, tame: float) -> bool:
    return tame > 0 and torch.dot(t, t).item() <= tame**2  # false for nan


def _flat(x: Tensor | None, P: Tensor) -> Any:
    return None if x is None else x.reshape(-1, *P.shape[1:])


def _split(P: Tensor, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Cut flat tensors into chunks; what is `None` stays so."""
    step = max(CHUNK // P[0].numel(), 1)
    cut = [itertools.repeat(None) if x is None else x.split(step) for x in tensors]
    return zip(*cut, strict=False)


def chunked_forward(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (value, ⊥, which chunks are free of ⊥)."""
    value = x.new_empty(x.shape)
    lost = x.new_zeros(x.shape, dtype=torch.bool)
    flats = [_flat(z, P) for z in (x, value, lost, bottom)]
    with full_precision():
        clean = _forward_chunks(_split(P, *flats), P, Q, form)
    return value, lost, torch.tensor(clean, dtype=torch.bool, device=x.device)


@torch.inference_mode()
def _forward_chunks(
    chunks: Iterator[tuple[Any, ...]], P: Tensor, Q: Tensor, form: Form
) -> list[bool]:
    work, clean = None, []
    for part, out, flags, known in chunks:
        if P.ndim == 1 and (work is None or work.n != len(part)):
            work = _Values(len(part), P, Q, form)
        free = known is None or not known.any()
        clean.append(work is not None and bool(free) and work.write(part, out))
        if not clean[-1]:
            careful, sound = plain_forward(part, P, Q, known, form)
            out.copy_(careful)
            torch.logical_not(sound, out=flags)
    return clean


class _Values:
    """P / Q on chunks of one length, by Horner's or Clenshaw's rule in place."""

    def __init__(self, n: int, P: Tensor, Q: Tensor, form: Form) -> None:
        self.n, self._form, self._tame = n, form, _tame((P, Q), form)
        self._columns = [c.unbind() for c in (P, Q)]
        self._t, *self._buffers = P.new_empty(5, n).unbind()

    def write(self, x: Tensor, out: Tensor) -> bool:
        """Write the quotients; false where one is not a number, or the chunk needs care."""
        t = _unit_into(x, self._form, self._t)
        if not _is_tame(t, self._tame):
            return False
        rule = _horner if self._form.basis == "monomial" else _clenshaw
        p, q = (rule(t, c, self._buffers[k : k + 3]) for k, c in enumerate(self._columns))
        torch.div(p, q, out=out)
        # a finite sum of squares: every quotient is finite, so that no Q was 0
        return torch.dot(out, out).item() < math.inf


def _horner(t: Tensor, c: Sequence[Tensor], buffers: Sequence[Tensor]) -> Tensor:
    value = buffers[0]
    if len(c) == 1:
        return value.copy_(c[0])
    torch.addcmul(c[-2], t, c[-1], out=value)
    for c_k in c[-3::-1]:
        torch.addcmul(c_k, value, t, out=value)
    return value


def _clenshaw(t: Tensor, c: Sequence[Tensor], buffers: Sequence[Tensor]) -> Tensor:
    value, ahead, spare = buffers[0].copy_(c[-1]), buffers[1].zero_(), buffers[2]
    for k in range(len(c) - 2, -1, -1):
        torch.sub(c[k], ahead, out=spare)
        spare.addcmul_(value, t, value=2 if k else 1)
        value, ahead, spare = spare, value, ahead
    return buffers[0].copy_(value) if value is not buffers[0] else value


def chunked_backward(
    g: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor],
    form: Form,
    ruling: Ruling,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, P and Q; `wanted` are that of x and those of the coefficients."""
    x, P, Q, bottom, clean = saved
    g_x = x.new_empty(x.shape) if wanted[0] else None
    flats = [_flat(z, P) for z in (x, g, bottom, g_x)]
    sums = [c.new_zeros(c.shape, dtype=torch.float64) for c in (P, Q)]
    chunks = zip(_split(P, *flats), clean.tolist(), strict=False)
    with full_precision():
        _backward_chunks(chunks, (P, Q), sums if wanted[1] else [], form, ruling)
    g_P, g_Q = (total.to(P.dtype) if wanted[1] else None for total in sums)
    return g_x, g_P, g_Q


@torch.inference_mode()
def _backward_chunks(
    chunks: Iterator[tuple[tuple[Any, ...], bool]],
    coefficients: tuple[Tensor, Tensor],
    sums: list[Tensor],
    form: Form,
    ruling: Ruling,
) -> None:
    work = None
    for (part, g, known, out), is_clean in chunks:
        if is_clean and (work is None or work.n != len(part)):
            work = _Pullback(len(part), *coefficients, form, ruling)
        if is_clean and work is not None and work.prepare(part, g):
            if out is not None:
                work.write_slopes(out)
            addends = work.moments() if sums else ()
        else:
            careful, *addends = plain_backward(g, part, *coefficients, known, form, ruling)
            if out is not None:
                out.copy_(careful)
        for total, addend in zip(sums, addends, strict=False):
            total.add_(addend)


class _Pullback:
    """dL/dP, dL/dQ and what follows from them, on chunks of one length without ⊥."""

    def __init__(self, n: int, P: Tensor, Q: Tensor, form: Form, ruling: Ruling) -> None:
        self.n, self._ruling, self._lengths = n, ruling, (len(P), len(Q))
        self._basis = Basis(n, (P, Q), form)
        # dL/dQ carries a minus sign, kept outside of the loop: in the slope of Q and in the sums
        slopes = (derivative(c, form.basis, form.domain) for c in (P, -Q))
        self._coefficients = _padded(P, Q, *slopes)
        self._series, self._g = P.new_empty(4, n), P.new_empty(2, n)
        self._rows, self._pair = self._series.unbind(), self._g.unbind()

    def prepare(self, x: Tensor, g: Tensor) -> bool:
        """Compute dL/dP and -dL/dQ; false where an intermediate is not finite."""
        if not self._basis.fill(x):
            return False
        torch.mm(self._coefficients, self._basis.matrix, out=self._series)
        p, q, *_ = self._rows
        g_P, g_Q = self._pair
        torch.div(g, q, out=g_P)
        torch.mul(g_P, torch.div(p, q, out=p), out=g_Q)
        if not torch.dot(g_Q, g_Q).item() < math.inf:
            return False
        if self._ruling.closed:
            self._g.zero_()
        elif self._ruling.bound < math.inf:
            self._g.clamp_(-self._ruling.bound, self._ruling.bound)
        return True

    def write_slopes(self, out: Tensor) -> None:
        """Write dL/dx."""
        torch.mul(self._pair[0], self._rows[2], out=out)
        out.addcmul_(self._pair[1], self._rows[3])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the gradients of the coefficients."""
        p, q = self._lengths
        by_P, by_Q = torch.mm(self._g, self._basis.matrix.t()).unbind()
        return by_P[:p], by_Q[:q].neg_()
