"""P(x) / Q(x) and ⟨P(x), Q(x)⟩ in Numba's loops, one pass over memory each.

Coefficients come as tuples, whose length is known when a kernel is compiled, so that the loops over
them unroll.
"""

# Numba takes arrays and numbers, no objects of ours, and finds their types itself
# ruff: noqa: PLR0913, PLR0917
# pyright: reportMissingParameterType=false

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import zeroproof.layers.rational_formulas as F  # noqa: N812 - as torch names its own
from zeroproof.autodiff.policies import Ruling
from zeroproof.native import array, empty, for_numbers, in_parts, kernel, summing
from zeroproof.scm.division_loops import bounded, slopes

__all__ = ["pull_tuples", "pullback", "quotient", "tuples"]

_BLOCK = 1024  # entries whose work space stays in the first cache
_LARGEST = torch.finfo(torch.float32).max

_formulas = for_numbers([F.value, F.next_row], {})
_value, _next_row = _formulas["value"], _formulas["next_row"]


# --- kernels --------------------------------------------------------------------------------------


@kernel
def _inside(x, known, where):
    """Return (t, whether no polynomial overflows there); t is 0 where one might."""
    centre, half, limit, chebyshev = where
    t = (x - centre) / half if chebyshev else x
    sound = (abs(t) <= limit) & (known == 0)
    return (t if sound else centre - centre), sound


@kernel
def _quotient(x, known, P, Q, where, value, bottom):
    """Write P / Q and where it is ⊥: beyond reach, known so, or not finite."""
    nan, inf, chebyshev = x.dtype.type(np.nan), x.dtype.type(np.inf), where[3]
    for i in range(x.shape[0]):
        t, sound = _inside(x[i], False if known is None else known[i], where)
        y = _value(t, P, chebyshev) / _value(t, Q, chebyshev)
        sound = sound & (abs(y) < inf)
        value[i] = y if sound else nan
        bottom[i] = not sound


@kernel
def _pullback(x, g, known, P, Q, slope_P, slope_Q, where, bound, g_x, g_P, g_Q):
    """Write dL/dx, and add the gradients of the coefficients; 0 where P / Q is ⊥."""
    zero, inf, chebyshev = x.dtype.type(0), x.dtype.type(np.inf), where[3]
    work = np.empty((3, _BLOCK), x.dtype)
    for start in range(0, x.shape[0], _BLOCK):
        n = min(_BLOCK, x.shape[0] - start)
        # slices: an index that is a sum might be negative, and would be looked at every time
        at, g_in, g_out = x[start : start + n], g[start : start + n], g_x[start : start + n]
        flags = known if known is None else known[start : start + n]
        u, v, ts = work[0, :n], work[1, :n], work[2, :n]
        for i in range(n):
            t, sound = _inside(at[i], False if flags is None else flags[i], where)
            p, q = _value(t, P, chebyshev), _value(t, Q, chebyshev)
            sound = sound & (abs(p / q) < inf)
            by_p, by_q = slopes(g_in[i], p, q)
            by_p = bounded(by_p, bound) if sound else zero
            by_q = bounded(by_q, bound) if sound else zero
            slope = by_p * _value(t, slope_P, chebyshev)
            g_out[i] = slope + by_q * _value(t, slope_Q, chebyshev)
            u[i], v[i], ts[i] = by_p, by_q, t
        _add_moments(u, ts, g_P, chebyshev)
        _add_moments(v, ts, g_Q, chebyshev)


@kernel
def _polynomial(x, c, where, value):
    """Write Σ c_k B_k, nan where one of the polynomials could overflow."""
    nan = x.dtype.type(np.nan)
    for i in range(x.shape[0]):
        t, sound = _inside(x[i], False, where)
        y = _value(t, c, where[3])
        value[i] = y if sound else nan


@kernel
def _pull(x, g, slope, where, g_x, sums):
    """Add to dL/dx and to the gradients of the coefficients."""
    zero = x.dtype.type(0)
    work = np.empty((2, _BLOCK), x.dtype)
    for start in range(0, x.shape[0], _BLOCK):
        n = min(_BLOCK, x.shape[0] - start)
        at, g_in, g_out = x[start : start + n], g[start : start + n], g_x[start : start + n]
        u, ts = work[0, :n], work[1, :n]
        for i in range(n):
            t, sound = _inside(at[i], False, where)
            by = g_in[i] if sound else zero
            g_out[i] += by * _value(t, slope, where[3])
            u[i], ts[i] = by, t
        _add_moments(u, ts, sums, where[3])


@kernel
def _add_moments(g, t, sums, chebyshev):
    """Add Σ g · B_k(t) to every sum; g is used up."""
    if not chebyshev:
        for k in range(0, len(sums), 6):
            _six_powers(g, t, sums, k)
    else:
        before = np.zeros_like(g)
        for k in range(len(sums)):
            _one_row(g, before, t, sums, k)


@summing
def _six_powers(g, t, sums, k):
    s0 = g.dtype.type(0)
    s1, s2, s3, s4, s5 = s0, s0, s0, s0, s0
    for i in range(g.shape[0]):
        x = t[i]
        y = g[i]
        s0 += y
        y *= x
        s1 += y
        y *= x
        s2 += y
        y *= x
        s3 += y
        y *= x
        s4 += y
        y *= x
        s5 += y
        g[i] = y * x
    for j, s in enumerate((s0, s1, s2, s3, s4, s5)):
        if k + j < len(sums):
            sums[k + j] += s


@summing
def _one_row(g, before, t, sums, k):
    """Add Σ of row k, and go on to row k + 1."""
    total = g.dtype.type(0)
    for i in range(g.shape[0]):
        y = g[i]
        total += y
        g[i] = _next_row(y, before[i], t[i], k == 0, True)
        before[i] = y
    sums[k] += total


# --- from tensors to arrays and back --------------------------------------------------------------


class _Column(NamedTuple):
    """One polynomial as kernels take it."""

    c: tuple[np.float32, ...]
    slope: tuple[np.float32, ...]  # the coefficients of its derivative by x
    reach: float  # how large |x| may be, or 2|t| + 1


def _columns(coefficients: Tensor, form: Any) -> list[_Column]:
    c = coefficients.detach()
    chebyshev = form.basis == "chebyshev"
    by_x = 2 / (form.domain[1] - form.domain[0]) if chebyshev else 1.0
    found = []
    for column in (c.unsqueeze(0) if c.ndim == 1 else c.t()).tolist():
        steep = [by_x * s for s in F.slope(column, chebyshev)]
        found.append(_Column(_numbers(column), _numbers(steep), _reach(column)))
    return found


def _numbers(c: Sequence[float]) -> tuple[np.float32, ...]:
    return tuple(map(np.float32, c))


def _reach(c: Sequence[float]) -> float:
    """Return how large u may be so that no term overflows; see `basis.reach_bounds`."""
    if not all(map(math.isfinite, c)) or abs(c[0]) > _LARGEST / 2:
        return -1.0
    share = _LARGEST / (2 * len(c))
    bounds = ((share / abs(c_k)) ** (1 / k) for k, c_k in enumerate(c) if k and c_k)
    return min(min(bounds, default=_LARGEST), _LARGEST)


def _where(columns: Sequence[_Column], form: Any) -> tuple[Any, ...]:
    """Return how x becomes t, and how large a sound |t| is."""
    low, high = form.domain
    chebyshev = form.basis == "chebyshev"
    reach = min(column.reach for column in columns)
    limit = (reach - 1) / 2 if chebyshev else reach
    return *_numbers([(low + high) / 2, (high - low) / 2, limit]), chebyshev


def _rows(x: Tensor, coefficients: Tensor) -> Any:
    """Return the entries as an array, one row for every channel."""
    if coefficients.ndim == 1:
        return array(x).reshape(1, -1)
    columns = x.reshape(-1, coefficients.shape[1]).t()
    return array(columns).reshape(columns.shape)


def _shaped(rows: Tensor, shape: torch.Size) -> Tensor:
    return (rows if len(rows) == 1 else rows.t()).reshape(shape)


def _over(n: int, kernel: Callable[..., Any], *given: Any, sums: Sequence[int] = ()) -> list[Any]:
    """Run a kernel on parts of arrays; return the sums, so many of each kind, that it adds to."""

    def run(start: int, stop: int) -> list[Any]:
        found = [np.zeros(count) for count in sums]
        kernel(*(x[start:stop] if isinstance(x, np.ndarray) else x for x in given), *found)
        return found

    return [sum(parts) for parts in zip(*in_parts(run, n), strict=True)]


def _stacked(sums: Sequence[Any], like: Tensor) -> Tensor:
    if like.ndim == 1:
        return torch.from_numpy(sums[0]).to(like.dtype)
    return torch.from_numpy(np.stack(sums, -1)).to(like.dtype)


def quotient(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Any
) -> tuple[Tensor, Tensor]:
    """Return (P(x) / Q(x), ⊥), nan at ⊥; arguments as in `rational_gradients.quotient`."""
    rows = _rows(x, P)
    known = [None] * len(rows) if bottom is None else _rows(bottom, P)
    value, lost = (empty(rows.shape, kind) for kind in (x.dtype, torch.bool))
    pairs = zip(_columns(P, form), _columns(Q, form), strict=True)
    for k, (p, q) in enumerate(pairs):
        given = rows[k], known[k], p.c, q.c, _where((p, q), form)
        _over(rows.shape[1], _quotient, *given, value.numpy()[k], lost.numpy()[k])
    return _shaped(value, x.shape), _shaped(lost, x.shape)


def pullback(
    g: Tensor, x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Any, ruling: Ruling
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, P and Q, under a policy that masks ⊥."""
    if ruling.closed:
        return torch.zeros_like(x), torch.zeros_like(P), torch.zeros_like(Q)
    rows, slopes = _rows(x, P), _rows(g, P)
    known = [None] * len(rows) if bottom is None else _rows(bottom, P)
    g_x, bound, sums = empty(rows.shape, x.dtype), np.float32(ruling.bound), []
    pairs = zip(_columns(P, form), _columns(Q, form), strict=True)
    for k, (p, q) in enumerate(pairs):
        given = p.c, q.c, p.slope, q.slope, _where((p, q), form), bound, g_x.numpy()[k]
        counts = len(P), len(Q)
        sums.append(
            _over(rows.shape[1], _pullback, rows[k], slopes[k], known[k], *given, sums=counts)
        )
    g_P, g_Q = (_stacked(found, P) for found in zip(*sums, strict=True))
    return _shaped(g_x, x.shape), g_P, g_Q


def tuples(x: Tensor, P: Tensor, Q: Tensor, form: Any) -> tuple[Tensor, Tensor]:
    """Return (P(x), Q(x)), nan where one of them could overflow; x is `(*batch, 1)`."""
    at, columns = array(x), (_columns(P, form), _columns(Q, form))
    where = _where([*columns[0], *columns[1]], form)
    found = []
    for polynomials in columns:
        values = empty((len(polynomials), len(at)), x.dtype)
        for row, column in zip(values.numpy(), polynomials, strict=True):
            _over(len(at), _polynomial, at, column.c, where, row)
        found.append(_shaped(values, torch.Size((*x.shape[:-1], len(polynomials)))))
    return found[0], found[1]


def pull_tuples(
    g: tuple[Tensor, Tensor], x: Tensor, P: Tensor, Q: Tensor, form: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, P and Q."""
    at, columns = array(x), (_columns(P, form), _columns(Q, form))
    where = _where([*columns[0], *columns[1]], form)
    g_x, totals = torch.zeros_like(x, memory_format=torch.contiguous_format), []
    for part, c, polynomials in zip(g, (P, Q), columns, strict=True):
        sums = []
        for row, column in zip(_rows(part, c), polynomials, strict=True):
            given = at, row, column.slope, where, g_x.numpy().reshape(-1)
            sums += _over(len(at), _pull, *given, sums=[len(c)])
        totals.append(_stacked(sums, c))
    return g_x, totals[0], totals[1]
