"""Points of a curve that are no poles: steps, kinks, logarithms and powers with a broken exponent.

A rational fit puts a row of poles and zeros along the cut of a branch point, closer and closer to
it (Trefethen, Nakatsukasa & Weideman 2021). None of them means anything. So the rows around such a
point are fitted by a polynomial plus one singular term, a pole or |x - x0|^α, log |x - x0| or a
step, each with an amplitude for either side: the smallest residual tells what it is.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

__all__ = ["Branch", "branch_points"]

Array = NDArray[Any]
_SIDE = 20  # rows on either side of the point
_FEWEST = 7
_BESIDE = 2  # rows
_ROWS_OF_FIVE = 30  # from which the smooth part is of degree 5
_CLEARLY = 10.0  # times smaller must the squares be than those of a pole or of a smooth curve
_HARDLY_ANYTHING = 1e-4  # of those squares
_EPS = float(np.finfo(float).eps)
_ZERO = 1e-3  # of an exponent
_NEAR = 0.04  # of an exponent: log and step are nearer than that to 0, a kink to 1
_POWERS = (-0.9, -0.7, -0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9)


class Branch(NamedTuple):
    """A point where a curve is not analytic, and no pole."""

    position: float  # x0, in the units of x
    exponent: float  # α of |x - x0|^α; 0 for a step and for a logarithm
    what: str  # "step", "kink", "logarithm" or "branch point"
    reach: float  # so near to it a pole of the fit is one of its row

    def __str__(self) -> str:
        """Say what is there."""
        place = f"{self.position:.6g}"
        if self.what == "branch point":
            grows = "where it diverges like" if self.exponent < 0 else "like"
            return f"a branch point at {place}, {grows} |x - {place}|^{self.exponent:.2g}"
        if self.what == "logarithm":
            return f"a logarithm at {place}, where it diverges like log |x - {place}|"
        return f"a {self.what} at {place}"


def branch_points(
    x: Array, y: Array, size: Array, places: Array, held: Array, *, large: bool = False
) -> tuple[Branch, ...]:
    """Return the branch points among rows of one column.

    Args:
        x: `(n,)`.
        y: Real targets, `(n,)`.
        size: Of the noise of each, up to a factor.
        places: Where a fit has poles near the real line, in the units of x; the largest jumps of y
            and of its slope are looked at too.
        held: Errors of the fit on rows held out, `(n,)`: a term that does no better is none.
        large: Has the fit dozens of terms? They may imitate such a point to rounding between rows
            that lie well, and then a term that leaves hardly anything is one all the same.
    """
    order = np.argsort(x, kind="stable")
    held = np.nan_to_num(np.abs(held), nan=1e150, posinf=1e150)
    x, y, size, held = (part[order] for part in (x, y, size, np.minimum(held / size, 1e150)))
    kept = np.diff(x, prepend=-np.inf) > 0  # of replicates the first
    x, y, size, held = x[kept], y[kept], size[kept], held[kept]
    if len(x) < 3 * _FEWEST:
        return ()
    slope = np.diff(y) / np.diff(x)
    jump, bend = int(np.abs(np.diff(y)).argmax()), 1 + int(np.abs(np.diff(slope)).argmax())
    gaps = {jump, min(bend, len(x) - 2), bend - 1}
    gaps |= {int(k) - 1 for k in np.searchsorted(x, places) if 0 < k < len(x)}
    found = []
    for gap in sorted({g + step for g in gaps for step in (-1, 0, 1)}):  # poles stand beside it
        first, last = max(0, gap + 1 - _SIDE), min(len(x), gap + 1 + _SIDE)
        if gap + 1 - first < _FEWEST or last - gap - 1 < _FEWEST:
            continue
        rows = slice(first, last)
        if not _may_be(x[rows], y[rows], size[rows], gap + 1 - first):
            continue
        one = _told(x[rows], y[rows], size[rows], (x[gap], x[gap + 1]))
        if one is not None and (
            one[0] < (held[rows] ** 2).sum() or (large and one[1] < _HARDLY_ANYTHING)
        ):
            found.append(one[1:])
    clear: list[Branch] = []
    for _, one in sorted(found):
        if all(abs(one.position - other.position) > other.reach for other in clear):
            clear.append(one)
    return tuple(sorted(clear))


def _may_be(x: Array, y: Array, size: Array, left: int) -> bool:
    """Tell whether either side by itself is smoother than both together: else nothing is there.

    Rows next to the point are left out of the sides, for there a power or a logarithm is steep.
    """
    sides = [slice(0, left - _BESIDE), slice(left + _BESIDE, len(x))]
    squares = []
    for rows in (slice(0, len(x)), *sides):
        u = x[rows] - x[rows].mean()
        degree = min(5 if len(x) >= _ROWS_OF_FIVE else 3, len(u) - 2)
        A, z = np.vander(u / np.abs(u).max(), degree + 1) / size[rows, None], y[rows] / size[rows]
        squares.append(float(((A @ np.linalg.lstsq(A, z)[0] - z) ** 2).sum()))
    return sum(squares[1:]) * _CLEARLY < squares[0]


def _told(
    x: Array, y: Array, size: Array, gap: tuple[float, float]
) -> tuple[float, float, Branch] | None:
    """Return the squares left, over those of a smooth curve or of a pole too, and what is there."""
    half = max(gap[0] - x[0], x[-1] - gap[1])
    degree = 5 if len(x) >= _ROWS_OF_FIVE else 3

    def fitted(place: float, *terms: Any) -> tuple[float, Array]:
        """Return the squares left by smooth terms and those of (|d|, sign d), and all factors."""
        d = (x - place) / half
        with np.errstate(all="ignore"):
            further = (t(np.abs(d), np.sign(d)) for t in terms)
            A = np.stack([*(d**k for k in range(degree + 1)), *further], 1)
        A = A / size[:, None]
        if not np.isfinite(A).all():
            return np.inf, np.zeros(A.shape[1])
        length = np.linalg.norm(A, axis=0)
        c = np.linalg.lstsq(A / length, y / size)[0] / length
        return float((np.abs(A @ c - y / size) ** 2).sum()), c

    def square(place: float, *terms: Any) -> float:
        return fitted(place, *terms)[0]

    def power(alpha: float) -> tuple[Any, Any]:
        return (lambda t, s: t**alpha), (lambda t, s: s * t**alpha)

    log = (lambda t, s: np.log(t)), (lambda t, s: s * np.log(t))
    step, kink = ((lambda t, s: s), (lambda t, s: t)), (lambda t, s: t,)
    inside = np.linspace(*gap, 9)[1:-1]

    def best(*terms: Any) -> tuple[float, float]:
        """Return the smallest squares and the place between the rows where they are."""
        start = min(inside, key=lambda at: square(at, *terms))
        reach = (gap[1] - gap[0]) / 8
        bounds = (max(gap[0], start - reach), min(gap[1], start + reach))
        end: Any = optimize.minimize_scalar(
            lambda at: square(at, *terms), bounds=bounds, method="bounded", options={"xatol": 0}
        )
        return float(end.fun), float(end.x)

    def pair(v: Any) -> float:
        """Return what a conjugate pair leaves, no nearer than the rows are to each other."""
        g = max(np.exp(v[1]), (gap[1] - gap[0]) / half) ** 2
        return square(v[0], (lambda t, s: 1 / (t**2 + g)), (lambda t, s: s * t / (t**2 + g)))

    poles = (lambda t, s: s / t), (lambda t, s: 1 / t**2)
    widths = np.log([0.1, 0.3, 1.0])
    plain = min(
        square(
            (gap[0] + gap[1]) / 2,
            (lambda t, s: t ** (degree + 1)),
            (lambda t, s: s * t ** (degree + 2)),
        ),
        best(*poles)[0],
        _smallest(pair, [(at, g) for at in np.linspace(x[0], x[-1], 15) for g in widths])[0],
    )
    width = gap[1] - gap[0]

    def singular(v: Any) -> float:
        return square(gap[0] + width * v[1], *power(v[0]))

    shares = np.linspace(0.1, 0.9, 5)
    least, (alpha, part) = _smallest(
        singular, [min(((a, share) for share in shares), key=singular) for a in _POWERS],
        most=3, bounds=((-0.97, 1.97), (1e-9, 1 - 1e-9)),
    )  # fmt: skip
    told = ("branch point", float(alpha), gap[0] + width * float(part))
    if abs(alpha) < _ZERO:  # |d|^α - 1 is α log |d| then: a logarithm or a step
        least = np.inf
    rounding = len(x) * (50 * _EPS) ** 2 * float(((y / size) ** 2).max())
    for kind, exponent, terms in (
        ("logarithm", 0.0, log),
        ("step", 0.0, step),
        ("kink", 1.0, kink),
    ):
        squares, at = best(*terms)
        if kind == "kink":  # |d - δ| = |d| - δ sign d: a step this small is where the kink lies
            *_, jump, bend = fitted(at, *step)[1]
            at = float(np.clip(at - half * jump / (bend or 1e-300), *gap))
            squares = min(squares, square(at, *kink))
        near = abs(alpha - exponent) < _NEAR and squares < _CLEARLY * least
        if near or squares < 2 * least + rounding:
            told, least = (kind, exponent, at), squares
    if not least * _CLEARLY + rounding < plain:
        return None
    kind, exponent, place = told
    return least, least / plain, Branch(float(place), exponent, kind, half / 2)


def _smallest(f: Any, starts: Any, most: int = 1, **options: Any) -> tuple[float, Array]:
    """Return the smallest value from the best starts, and where it is."""
    fine = {"xatol": 1e-14, "fatol": 0.0, "maxiter": 1000}
    ends: list[Any] = [
        optimize.minimize(f, start, method="Nelder-Mead", options=fine, **options)
        for start in sorted(starts, key=f)[:most]
    ]
    end = min(ends, key=lambda end: end.fun)
    return float(end.fun), end.x
