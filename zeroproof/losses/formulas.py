"""Every loss of one entry and its slopes, once: torch runs them on tensors, Numba on numbers.

A formula is plain Python over the ten helpers below. Torch runs it on tensors, in eager mode, in
compiled graphs and under every transform, complex numbers too; `loops.py` hands the same code
objects to Numba, with helpers for numbers in their place.

Everything comes at unit size, so that squares stay in the range of any type: (n, d) is (N, D) / m
with m = max(|N|, |D|), (a, b) is (Y_n, Y_d) / M with their own M, and g is γ in these units,
(√γ / m / M)². A slope by n is one by N times m. What is not finite never comes here; ⟨0, 0⟩ does.
`o` is an `Options`. Its first four are Python values that choose a formula while a kernel or a
graph is made.

A root is taken of what is above 0 (its slope at 0 is infinite, and 0 · ∞ is nan, which a `where`
behind it would let through), and what ⟨0, 0⟩ is divided by is 1, not a tiny number.
"""

# the formulas take tensors and numbers alike; a type would be wrong for one of them
# ruff: noqa: D103
# pyright: reportMissingParameterType=false

from typing import NamedTuple

import torch

__all__ = [
    "ATTACHED",
    "CHORDAL",
    "DETACHED",
    "ORIENTED",
    "Options",
    "covered",
    "covered_slope",
    "fit",
    "fit_slopes",
    "margin",
    "margin_slope",
    "score",
    "score_slopes",
    "separation",
    "sign",
    "sign_slopes",
]

DETACHED, ATTACHED, CHORDAL, ORIENTED = range(4)

# --- helpers, of which `loops.py` has the twins for numbers -------------------------------------

where, sqrt, exp, atan2 = torch.where, torch.sqrt, torch.exp, torch.atan2
softplus = torch.nn.functional.softplus  # of `separation` alone, which no loop runs


def sg(x):  # a constant to autograd
    return x.detach()


def abs2(x):  # |x|², without a root
    return x.real * x.real + x.imag * x.imag if x.is_complex() else x * x


def real_dot(x, y, u, v):  # Re(x·ȳ + u·v̄)
    z = x * y.conj() + u * v.conj()
    return z.real if z.is_complex() else z


def modulus(x):  # at 0 its slope is that of x → 0+, where that of `abs` is 0
    return where(x == 0, x.real, abs(x))


def side(x):  # x / |x|, 1 at 0, a constant
    x = x.detach()
    if x.is_complex():
        return where(x == 0, 1.0, x / where(x == 0, 1.0, abs(x)))
    return where(x < 0, -1.0, 1.0)


def conj(x):
    return x.conj()


class Options(NamedTuple):
    """What the formulas of a loss depend on besides its tuples."""

    fit: int  # DETACHED, ATTACHED, CHORDAL or ORIENTED
    angle_score: bool
    angle_sign: bool
    relative: bool
    to_side: bool  # sign targets are turned to the side of D
    tau: float
    root_scale: float  # √s, by which N is divided and D multiplied: N / s alone could overflow
    temperature: float
    least: float  # S + γ is not taken for less
    largest: float  # where a loss saturates, a quarter of the end of the range


def saturated(x, largest):  # no larger, and yet with the slope of x
    return sg(where(x < largest, x, largest)) + (x - sg(x))


def lost(n, d, a, b):  # either tuple is ⟨0, 0⟩
    return (abs2(n) + abs2(d)) * (abs2(a) + abs2(b)) == 0


def cross(n, d, a, b):  # 0 exactly where both tuples are the same
    return n * b - d * a


def squares(n, d, a, b):  # |(n, d)|² and |(a, b)|², 1 at ⟨0, 0⟩
    size, Y_size = abs2(n) + abs2(d), abs2(a) + abs2(b)
    return where(size > 0, size, 1.0), where(Y_size > 0, Y_size, 1.0)


# --- the fit: E / (sg(S) + γ), E / (S + γ), E / (|(N, D)|² |Y|²) or 2(1 - cos) -------------------


def attenuation(n, d, a, b, g, o):  # S + γ
    S = abs2(d) * abs2(b) + abs2(n) * abs2(a) + g
    return where(o.least < S, S, o.least)


def turned(n, d, a, b):  # 1 - cos: half the squared distance of unit vectors keeps its digits at 0
    size, Y_size = squares(n, d, a, b)
    by, Y_by = 1.0 / sqrt(size), 1.0 / sqrt(Y_size)
    half = (abs2(n * by - a * Y_by) + abs2(d * by - b * Y_by)) / 2
    return where(lost(n, d, a, b), 1.0, half)


def fit(n, d, a, b, g, o):
    if o.fit == ORIENTED:
        return 2 * turned(n, d, a, b)
    E = abs2(cross(n, d, a, b))
    if o.fit == DETACHED:
        return E / sg(attenuation(n, d, a, b, g, o))
    if o.fit == CHORDAL:
        size, Y_size = squares(n, d, a, b)
        # rounding may pass 1; the slope stays, which a clamp would cut off near the opposite
        return where(lost(n, d, a, b), 1.0, saturated(E / (size * Y_size), 1.0))
    return where(lost(n, d, a, b), 1.0, saturated(E / attenuation(n, d, a, b, g, o), o.largest))


def fit_slopes(n, d, a, b, g, o):
    E = cross(n, d, a, b)
    if o.fit == DETACHED:
        steep = 2 * E / attenuation(n, d, a, b, g, o)
        return steep * b, -steep * a
    if o.fit == ATTACHED:
        # d(E²/S)/dn = 2E(b·S - E·n·a²) / S² cancels where g is small; collected by the
        # terms of S = d²b² + n²a² + g it is 2E(b·g + d(b³d + a³n)) / S², in which little does
        S = attenuation(n, d, a, b, g, o)
        steep = where(lost(n, d, a, b), 0.0, 2 * E / S)
        common, rest = (b * b * b * d + a * a * a * n) / S, where(g < S, g / S, 1.0)  # g may be ∞
        return steep * (rest * b + d * common), -steep * (rest * a + n * common)
    # both others depend on the angle alone: their slopes are along (d, -n); 0 at ⟨0, 0⟩
    size, Y_size = squares(n, d, a, b)
    if o.fit == CHORDAL:
        steep = 2 * E * (n * a + d * b) / (size * size * Y_size)
    else:
        steep = 2 * E / (size * sqrt(size * Y_size))
    return steep * d, -steep * n


# --- the sign: 1 - cos θ, or θ² / 2 ---------------------------------------------------------------


def facing(a, b, d, o):  # the tuple of the same value whose denominator lies on the side of D
    turn = side(d) * conj(side(b)) if o.to_side else 1.0
    return a * turn, b * turn


def angle(n, d, a, b):  # a right angle at ⟨0, 0⟩, set before atan2, whose slope there is nan
    bad = lost(n, d, a, b)
    return atan2(where(bad, 1.0, cross(n, d, a, b)), where(bad, 0.0, n * a + d * b))


def sign(n, d, a, b, o):
    a, b = facing(a, b, d, o)
    if not o.angle_sign:
        return turned(n, d, a, b)
    theta = angle(n, d, a, b)
    return theta * theta / 2


def sign_slopes(n, d, a, b, o):
    a, b = facing(a, b, d, o)
    size, Y_size = squares(n, d, a, b)
    if o.angle_sign:
        turn = where(lost(n, d, a, b), 0.0, angle(n, d, a, b) / size)
    else:
        turn = cross(n, d, a, b) / (size * sqrt(size * Y_size))
    return turn * d, -turn * n


# --- the score |D| or |D| / √(|N / s|² + |D|²), and what is made of it ----------------------------


def score(n, d, D, o, kink):  # at D = 0 its slope is that of D → 0+, or 0 if it has a `kink` there
    if not o.angle_score:
        return abs(D) if kink else modulus(D)
    u, v = n / o.root_scale, d * o.root_scale
    size = abs2(u) + abs2(v)
    return modulus(v) / sqrt(where(size > 0, size, 1.0))


def score_slopes(n, d, D, o, kink):  # by n and d for an angle, by N and D for |D|
    if not o.angle_score:
        return 0.0 * D, where(D == 0, 0.0, side(D)) if kink else side(D)
    u, v = n / o.root_scale, d * o.root_scale
    size = abs2(u) + abs2(v)
    by = 1.0 / sqrt(where(size > 0, size, 1.0))
    common = side(D) * (u * by) * by
    by_d = where(size > 0, common * (u * by), 1.0) * o.root_scale
    return -common * (v * by) / o.root_scale, by_d


def gap(s, o):  # how far below τ, in units of τ if `relative`
    return where(s < o.tau, o.tau - s, 0.0) / (o.tau if o.relative else 1.0)


def margin(s, o):
    size = saturated(gap(s, o), sqrt_of(o.largest))
    return size * size


def margin_slope(s, o):
    size, longest = gap(s, o), sqrt_of(o.largest)
    return -2 * where(size < longest, size, longest) / (o.tau if o.relative else 1.0)


def sqrt_of(x):  # of a Python number
    return x**0.5


def missing(s, o):  # exp((τ - s) / T), which is nothing beside 1 below e⁻⁴⁰ in float64 too
    z = (o.tau - s) / o.temperature
    return exp(where(z < 80, where(z > -40, z, -40.0), 80.0))


def covered(s, o):  # σ((s - τ) / T)
    return 1.0 / (1.0 + missing(s, o))


def covered_slope(s, o):  # σ·(1 - σ) / T, without the digits that 1 - σ would lose
    rest = missing(s, o)
    share = 1.0 / (1.0 + rest)
    near = o.tau - s < 80 * o.temperature  # beyond, the share no longer moves
    return where(near, share * (share * rest) / o.temperature, 0.0)


# --- separation: finite and singular targets on their sides of an angle of 0.1 --------------------


def separation(s, wanted, o):  # softplus of how far the angle score s is on the wrong side
    return softplus((0.1 - s) * where(wanted, 1.0, -1.0) / 0.05)
