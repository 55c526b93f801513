"""The formulas in Numba's loops, over blocks of rows in float64; only the helpers are others here.

A block of rows is brought into work space that stays in the first cache; each part of a loss then
goes over it in a loop of its own, which the compiler turns into vectors. In float64 all of float32
is exact enough, and its fourth power in range: no row needs special care.
"""

# Numba takes arrays and numbers, no objects of ours, and finds their types itself; a kernel goes
# over a block part after part, which a reader wants to see in one place
# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917
# pyright: reportMissingParameterType=false

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from zeroproof.losses import formulas
from zeroproof.native import array, empty, for_numbers, in_parts, kernel, summing

__all__ = ["gradients", "sums"]

_BLOCK = 512  # entries
_LARGEST = float(np.finfo(np.float32).max)


@njit(inline="always")
def _where(condition, x, y):
    return x if condition else y


@njit(inline="always")
def _abs2(x):
    return x * x


@njit(inline="always")
def _real_dot(x, y, u, v):
    return x * y + u * v


@njit(inline="always")
def _modulus(x):
    return abs(x)


@njit(inline="always")
def _side(x):
    return -1.0 if x < 0 else 1.0


@njit(inline="always")
def _constant(x):  # and the conjugate
    return x


_scalar = for_numbers(
    [f for f in vars(formulas).values() if getattr(f, "__module__", "") == formulas.__name__],
    {
        **{name: n for name, n in vars(formulas).items() if isinstance(n, int)},
        "where": _where,
        "sqrt": math.sqrt,
        "exp": math.exp,
        "atan2": math.atan2,
        "abs2": _abs2,
        "real_dot": _real_dot,
        "modulus": _modulus,
        "side": _side,
        "sg": _constant,
        "conj": _constant,
        "abs": abs,
    },
    exact=["cross"],  # a product and a difference that round once would not cancel
)
_fit, _fit_slopes = _scalar["fit"], _scalar["fit_slopes"]
_sign, _sign_slopes = _scalar["sign"], _scalar["sign_slopes"]
_score, _score_slopes = _scalar["score"], _scalar["score_slopes"]
_margin, _margin_slope = _scalar["margin"], _scalar["margin_slope"]
_covered, _covered_slope = _scalar["covered"], _scalar["covered_slope"]


@kernel
def _views(work, count):
    """Return rows as arrays of their own, whose entries are known to be neighbours."""
    return (
        work[0][:count],
        work[1][:count],
        work[2][:count],
        work[3][:count],
        work[4][:count],
        work[5][:count],
        work[6][:count],
        work[7][:count],
        work[8][:count],
        work[9][:count],
        work[10][:count],
        work[11][:count],
        work[12][:count],
    )


@kernel
def _spread(x, size, width, start, out):
    """Write a block with one entry per output, of an array with that or one entry per row."""
    # slices: an index that is a sum might be negative, and would be looked at every time
    if x.shape[0] == size:
        part = x[start : start + out.shape[0]]
        for i in range(out.shape[0]):
            out[i] = part[i]
    else:
        part = x[start // width : (start + out.shape[0]) // width]
        for row in range(part.shape[0]):
            out[row * width : (row + 1) * width] = part[row]


@kernel
def _load(N, D, Y_n, Y_d, known, weight, width, start, numbers, x):
    """Fill a block, as `gradients.entries` does it for torch; `unit` is 1 / m."""
    n, d, a, b, g, raw, unit, fits, held, singular, asked, entry, spare = x
    root_gamma, tau_sing, oriented = numbers
    inf, size, count = np.inf, N.shape[0], n.shape[0]
    _spread(N, size, width, start, n)
    _spread(D, size, width, start, d)
    _spread(Y_n, size, width, start, a)
    _spread(Y_d, size, width, start, b)
    for i in range(count):
        here = (abs(n[i]) < inf) & (abs(d[i]) < inf)
        there = (abs(a[i]) < inf) & (abs(b[i]) < inf)
        fits[i] = 1.0 if here & there else 0.0
        asked[i] = 1.0 if there & (b[i] != 0) else 0.0
        entry[i] = asked[i] if here else 0.0
        singular[i] = 1.0 if abs(b[i]) < tau_sing else 0.0
        n[i] = n[i] if here else 1.0
        d[i] = d[i] if here else 1.0
        a[i] = a[i] if there else 1.0
        b[i] = b[i] if there else 1.0
    for i in range(count):
        m, M = max(abs(n[i]), abs(d[i])), max(abs(a[i]), abs(b[i]))
        by, Y_by = 1.0 / (m if m > 0 else 1.0), 1.0 / (M if M > 0 else 1.0)
        root = root_gamma * by * Y_by
        raw[i], unit[i], g[i] = d[i], by, root * root
        n[i] *= by
        d[i] *= by
        a[i] *= Y_by
        b[i] *= Y_by
    if width > 1:  # a row counts if all of its outputs do
        for row in range(0, count, width):
            fits[row : row + width] = fits[row : row + width].min()
    if weight is not None:
        _spread(weight, size, width, start, spare)
        for i in range(count):
            fits[i] *= spare[i]
            entry[i] *= spare[i]
    for i in range(count):
        singular[i] *= fits[i]
        held[i] = fits[i] if asked[i] > 0 else 0.0
    if weight is not None:
        for i in range(count):
            asked[i] *= spare[i]
    if known is not None:
        _spread(known, size, width, start, spare)
        for i in range(count):
            singular[i] *= spare[i]
        if oriented:  # either sign will do where none is known
            for i in range(count):
                turn = -1.0 if (spare[i] == 0) & (n[i] * a[i] + d[i] * b[i] < 0) else 1.0
                a[i] *= turn
                b[i] *= turn


@summing
def _dot(a, b):
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@summing
def _total(a):
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i]
    return total


@kernel
def _sums(N, D, Y_n, Y_d, known, weight, width, o, numbers, wanted, out):
    """Add sum and weight of fit, margin, sign and coverage to eight numbers."""
    step = max(_BLOCK // width, 1) * width
    work, values = np.empty((13, step)), np.empty(step)
    for start in range(0, N.shape[0], step):
        count = min(step, N.shape[0] - start)
        x, v = _views(work, count), values[:count]
        _load(N, D, Y_n, Y_d, known, weight, width, start, numbers, x)
        n, d, a, b, g, raw, _, fits, held, singular, asked, entry, _ = x
        if wanted[0]:
            for i in range(count):
                v[i] = _fit(n[i], d[i], a[i], b[i], g[i], o)
            out[0] += _dot(v, fits)
            out[1] += _total(fits)
        if wanted[1] or wanted[3]:
            near = 0  # counted: a loop that may end early is not made of vectors
            for i in range(count):
                v[i] = _score(n[i], d[i], raw[i], o, False)
                near += v[i] < o.tau
            if wanted[1]:
                if near:
                    for i in range(count):
                        out[2] += held[i] * _margin(v[i], o)
                out[3] += _total(held)
        if wanted[2]:
            for i in range(count):
                if singular[i] > 0:
                    out[4] += singular[i] * _sign(n[i], d[i], a[i], b[i], o)
            out[5] += _total(singular)
        if wanted[3]:
            far = o.tau + 40 * o.temperature
            for i in range(count):
                out[6] += entry[i] * (_covered(v[i], o) if v[i] < far else 1.0)
            out[7] += _total(asked)


@kernel
def _settle(by_n, by_d, bound, width, g_n, g_d):
    """Bound what one part contributes and add it; a shared denominator gets the sum of outputs."""
    for i in range(by_n.shape[0]):
        g_n[i] += min(max(by_n[i], -bound), bound)
    if g_d.shape[0] == by_d.shape[0]:
        for i in range(by_d.shape[0]):
            g_d[i] += min(max(by_d[i], -bound), bound)
    else:
        for row in range(g_d.shape[0]):
            total = _total(by_d[row * width : (row + 1) * width])
            g_d[row] += min(max(total, -bound), bound)


@kernel
def _gradients(
    N, D, Y_n, Y_d, known, weight, width, o, numbers, kink, factors, bound, masked, out_N, out_D
):
    """Write dL/dN and dL/dD: what every part contributes, each within the bound of the policy."""
    step = max(_BLOCK // width, 1) * width
    shared = width if D.shape[0] != N.shape[0] else 1
    work, values = np.empty((13, step)), np.empty((5, step))
    for start in range(0, N.shape[0], step):
        count = min(step, N.shape[0] - start)
        x, p, q = _views(work, count), values[0][:count], values[1][:count]
        s, g_n, g_d = values[2][:count], values[3][:count], values[4][: count // shared]
        _load(N, D, Y_n, Y_d, known, weight, width, start, numbers, x)
        n, d, a, b, g, raw, unit, fits, held, singular, _, entry, _ = x
        g_n[:] = 0.0
        g_d[:] = 0.0
        if factors[0] != 0:
            for i in range(count):
                u, v = _fit_slopes(n[i], d[i], a[i], b[i], g[i], o)
                by = factors[0] * fits[i] * unit[i]
                p[i], q[i] = u * by, v * by
            _settle(p, q, bound, width, g_n, g_d)
        if factors[2] != 0:
            found = 0
            for i in range(count):
                p[i] = q[i] = 0.0
                if singular[i] > 0:
                    u, v = _sign_slopes(n[i], d[i], a[i], b[i], o)
                    by = factors[2] * singular[i] * unit[i]
                    p[i], q[i], found = u * by, v * by, 1
            if found:
                _settle(p, q, bound, width, g_n, g_d)
        near = steep = 0
        far = o.tau + 40 * o.temperature
        if factors[1] != 0 or factors[3] != 0:
            for i in range(count):
                s[i] = _score(n[i], d[i], raw[i], o, False)
                near += s[i] < o.tau
                steep += s[i] < far
        if factors[1] != 0 and near:
            for i in range(count):
                u, v = _score_slopes(n[i], d[i], raw[i], o, kink)
                by = factors[1] * held[i] * _margin_slope(s[i], o)
                by *= unit[i] if o.angle_score else 1.0
                p[i], q[i] = u * by, v * by
            if masked and not kink:
                for row in range(0, count, shared):
                    if not (d[row : row + shared].any() or n[row : row + shared].any()):
                        p[row : row + shared] = 0.0
                        q[row : row + shared] = 0.0
            _settle(p, q, bound, width, g_n, g_d)
        if factors[3] != 0 and steep:
            for i in range(count):
                p[i] = q[i] = 0.0
                if s[i] < far:
                    u, v = _score_slopes(n[i], d[i], raw[i], o, False)
                    by = factors[3] * entry[i] * _covered_slope(s[i], o)
                    by *= unit[i] if o.angle_score else 1.0
                    p[i], q[i] = u * by, v * by
            _settle(p, q, np.inf, width, g_n, g_d)
        to_N = out_N[start : start + count]
        to_D = out_D[start // shared : (start + count) // shared]
        for i in range(count):
            to_N[i] = min(max(g_n[i], -_LARGEST), _LARGEST)
        for i in range(count // shared):
            to_D[i] = min(max(g_d[i], -_LARGEST), _LARGEST)


class _Arrays:
    """Tuples, known signs and weights as arrays, cut at rows."""

    def __init__(self, *tensors: Tensor | None) -> None:
        N = tensors[0]
        assert N is not None
        self.width = N.shape[-1] if N.ndim > 1 else 1
        self.count = math.prod(N.shape)
        self._arrays = [None if x is None else array(x) for x in tensors]

    def cut(self, start: int, stop: int) -> list[Any]:
        return [None if x is None else self.part(x, start, stop) for x in self._arrays]

    def part(self, x: Any, start: int, stop: int) -> Any:
        """Return entries from `start` to `stop`, or the rows to which they belong."""
        step = 1 if x.size == self.count else self.width
        return x[start // step : stop // step]


def _numbers(r: Any, o: formulas.Options) -> tuple[formulas.Options, tuple[float, float, bool]]:
    """Return what kernels want to know, of types that do not depend on what a user wrote."""
    o = o._replace(tau=float(o.tau), temperature=float(o.temperature))
    # targets are compared with τ_sing in their own type
    tau_sing = float(np.float32(min(r.tau_sing, _LARGEST)))
    return o, (math.sqrt(r.gamma), tau_sing, r.fit == "oriented")


def sums(
    x: tuple[Tensor, ...], known: Tensor | None, weight: Tensor | None, r: Any, o: formulas.Options
) -> list[float]:
    """Return sum and weight of the losses of fit, margin, sign and coverage; 0 where one is off.

    Args:
        x: N, D, Y_n, Y_d of float32; N and Y_n `(*batch, k)`, the others so or `(*batch, 1)`.
        known: True where the sign of the target is known, the shape of N or `(*batch, 1)`.
        weight: Of every entry, float64, at least 0, shaped as `known`.
        r: The `gradients.LossRecipe`.
        o: Its options.
    """
    rows, (o, numbers) = _Arrays(*x, known, weight), _numbers(r, o)
    wanted = tuple(factor != 0 for factor in r.factors)

    def run(start: int, stop: int) -> Any:
        totals = np.zeros(8)
        _sums(*rows.cut(start, stop), rows.width, o, numbers, wanted, totals)
        return totals

    return np.sum(in_parts(run, rows.count, rows.width), axis=0).tolist()


def gradients(
    x: tuple[Tensor, ...],
    known: Tensor | None,
    weight: Tensor | None,
    r: Any,
    o: formulas.Options,
    factors: Sequence[float],
    ruling: Any,
) -> tuple[Tensor, Tensor]:
    """Return dL/dN and dL/dD.

    Args:
        x: As in `sums`.
        known: As in `sums`.
        weight: As in `sums`.
        r: As in `sums`.
        o: As in `sums`.
        factors: dL / d(loss of one entry) of fit, margin, sign and coverage.
        ruling: What the policy in force asks for.
    """
    rows, (o, numbers) = _Arrays(*x, known, weight), _numbers(r, o)
    found = [empty(z.shape, z.dtype) for z in x[:2]]
    arrays = [z.numpy().reshape(-1) for z in found]
    asked = tuple(map(float, factors))
    bound, masked = float(ruling.bound), bool(ruling.masked) and r.masks

    def run(start: int, stop: int) -> None:
        out = (rows.part(z, start, stop) for z in arrays)
        given = (rows.width, o, numbers, r.kink, asked, bound, masked)
        _gradients(*rows.cut(start, stop), *given, *out)

    in_parts(run, rows.count, rows.width)
    return found[0], found[1]
