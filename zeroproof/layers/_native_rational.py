"""Rational functions by native kernels: from tensors to arrays and back."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from zeroproof.autodiff.gate import Ruling
from zeroproof.layers import rational_loops as kernels
from zeroproof.native import array, empty, in_parts

__all__ = ["backward", "forward"]

_LARGEST = torch.finfo(torch.float32).max


class _Column(NamedTuple):
    """What kernels know of the polynomials of a channel; `limit` is how large a sound |t| is."""

    P: tuple[np.float32, ...]
    Q: tuple[np.float32, ...]
    centre: np.float32
    half: np.float32
    limit: np.float32


class Form(Protocol):
    """What a rational function is apart from its coefficients."""

    @property
    def basis(self) -> str: ...

    @property
    def domain(self) -> tuple[float, float]: ...


def _column(P: Sequence[float], Q: Sequence[float], form: Form) -> _Column:
    low, high = form.domain
    limit = min(_reach(P, form.basis), _reach(Q, form.basis))
    numbers = map(np.float32, ((low + high) / 2, (high - low) / 2, limit))
    return _Column(tuple(map(np.float32, P)), tuple(map(np.float32, Q)), *numbers)


def _reach(coefficients: Sequence[float], basis: str) -> float:
    """Return how large |t| may be so that no polynomial overflows; see `basis.reach_bounds`."""
    if not all(map(math.isfinite, coefficients)) or abs(coefficients[0]) > _LARGEST / 2:
        return -1.0
    share = _LARGEST / (2 * len(coefficients))
    bounds = ((share / abs(c)) ** (1 / k) for k, c in enumerate(coefficients) if k and c)
    limit = min(bounds, default=_LARGEST)
    return min(limit, _LARGEST) if basis == "monomial" else (min(limit, _LARGEST) - 1) / 2


def _columns(P: Tensor, Q: Tensor, form: Form) -> list[_Column]:
    pairs = zip(_by_channel(P).tolist(), _by_channel(Q).tolist(), strict=True)
    return [_column(p, q, form) for p, q in pairs]


def _by_channel(c: Tensor) -> Tensor:
    return c.detach().unsqueeze(0) if c.ndim == 1 else c.detach().t()


def _rows(x: Tensor, P: Tensor) -> Any:
    """Return the entries as an array, one row for every channel."""
    if P.ndim == 1:
        return array(x).reshape(1, -1)
    columns = x.reshape(-1, P.shape[1]).t()
    return array(columns).reshape(columns.shape)


def _shaped(rows: Tensor, shape: torch.Size) -> Tensor:
    return (rows if len(rows) == 1 else rows.t()).reshape(shape)


def _kind(form: Form) -> int | None:
    return None if form.basis == "monomial" else 1


def forward(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form
) -> tuple[Tensor, Tensor]:
    """Return (P(x) / Q(x), ⊥), nan at ⊥.

    Args:
        x: Points.
        P: Coefficients of P, `(p + 1,)` or `(p + 1, channels)`.
        Q: Coefficients of Q, likewise.
        bottom: Where x is ⊥, if that is known.
        form: Basis and domain.
    """
    rows = _rows(x, P)
    known = None if bottom is None else _rows(bottom, P)
    value, lost = (empty(rows.shape, kind) for kind in (x.dtype, torch.bool))
    values, masks = value.numpy(), lost.numpy()
    for k, column in enumerate(_columns(P, Q, form)):

        def run(start: int, stop: int, k: int = k, column: _Column = column) -> None:
            cut = k, slice(start, stop)
            flags = None if known is None else known[cut]
            kernels.quotient(rows[cut], flags, *column, _kind(form), values[cut], masks[cut])

        in_parts(run, rows.shape[1])
    return _shaped(value, x.shape), _shaped(lost, x.shape)


def backward(
    g: Tensor, x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form, ruling: Ruling
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, P and Q, under a policy that masks ⊥."""
    if ruling.closed:
        return torch.zeros_like(x), torch.zeros_like(P), torch.zeros_like(Q)
    rows, slopes = _rows(x, P), _rows(g, P)
    known = None if bottom is None else _rows(bottom, P)
    g_x, bound = empty(rows.shape, x.dtype), np.float32(ruling.bound)
    out, sums = g_x.numpy(), []
    for k, column in enumerate(_columns(P, Q, form)):

        def run(start: int, stop: int, k: int = k, column: _Column = column) -> Any:
            cut = k, slice(start, stop)
            flags = None if known is None else known[cut]
            found = np.zeros(len(column.P)), np.zeros(len(column.Q))
            operands = rows[cut], slopes[cut], flags
            kernels.pullback(*operands, *column, bound, _kind(form), out[cut], *found)
            return found

        parts = in_parts(run, rows.shape[1])
        sums.append([np.sum(found, 0) for found in zip(*parts, strict=True)])
    g_P, g_Q = (_coefficients(found, P) for found in zip(*sums, strict=True))
    return _shaped(g_x, x.shape), g_P, g_Q


def _coefficients(sums: Sequence[Any], like: Tensor) -> Tensor:
    rows = torch.from_numpy(np.stack(sums)).to(like.dtype)
    return rows[0] if like.ndim == 1 else rows.t().contiguous()
