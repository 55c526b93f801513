"""The race of several columns: constant, linear, ridge, and rational functions of low degree."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroproof.solve.race import (
    BEND,
    NOISES,
    POLE,
    Entry,
    Held,
    RaceFit,
    deviation,
    fewest_seen,
    folds_of,
    likeliest,
    ties,
    winner,
)
from zeroproof.solve.rational import fit_rational

__all__ = ["Linear", "Quotient", "race_space", "total_degree"]

Array = NDArray[Any]
FeaturesAt: TypeAlias = Callable[[slice], Array]  # features of some rows
EPS = float(np.finfo(float).eps)

EXACT = 1e-10  # median relative error of unseen rows at which a law is found
_PENALTIES = 10.0 ** np.arange(-8, 4.5, 0.5)
_SPARE = 3.0  # rows for each free coefficient of a quotient
_MOST_RATIONAL = 160  # features of a quotient that noisy rows are asked for
_ENTRIES = 2**21  # of the features of a block
_SWEEPS, _PROGRESS, _RESOLVED = 8, 1e-9, 1e-12  # of Gauss-Newton; of the gauge, beside the largest
_BLOCK = 20  # rows beyond 1.3 for each coefficient that a law of total degree is solved on


class Linear:
    """y = H a; a penalty, if any, is chosen by leave-one-out errors of the rows fitted."""

    q = 0

    def __init__(self, name: str, features: int, *, ridge: bool) -> None:
        self.name, self.features, self.ridge, self.free = name, features, ridge, float(features)

    def fit(self, H: Array, y: Array, w: Array) -> tuple[Array, Array]:
        """Return a, `(k, m)`, and b = 1, given square roots w of the row weights, `(n, m)`."""
        return self.on_all(lambda at: H[at], y, w)

    def on_all(
        self, features: FeaturesAt, y: Array, w: Array, start: Any = None
    ) -> tuple[Array, Array]:
        """Fit rows whose features are there block by block."""
        k, blocks = self.features - 1, _blocks(len(y), self.features)
        a, freedom = np.zeros((k + 1, y.shape[1])), 0.0
        for j, root in enumerate(w.T):
            total = float((root**2).sum())
            share = root**2 / total
            mean = sum(share[at] @ features(at)[:, 1 : k + 1] for at in blocks)
            level = float(share @ y[:, j])
            z, R = root * (y[:, j] - level), np.zeros((0, k + 1))
            for at in blocks:
                Z = (features(at)[:, 1 : k + 1] - mean) * root[at, None]
                R = np.asarray(np.linalg.qr(np.vstack([R, np.c_[Z, z[at]]]), mode="r"))
            size = np.linalg.norm(R[:, :k], axis=0) / np.sqrt(total)
            size = np.where(size > 0, size, 1)
            U, s, Vt = np.linalg.svd(R[:, :k] / size, full_matrices=False)
            c, shrink = U.T @ R[:, k], (s > 1e-10 * max(s.max(initial=0), 1e-300)).astype(float)
            inverse = np.divide(1, s, out=np.zeros_like(s), where=s > 0)
            turn = Vt.T * inverse / size[:, None]
            if self.ridge and len(s):
                # leave-one-out in closed form: residual over 1 - h; the mean costs root²/Σ root²
                shrinks = s**2 / (s**2 + _PENALTIES[:, None] * total)
                square = np.zeros(len(shrinks))
                for at in blocks:
                    U = ((features(at)[:, 1 : k + 1] - mean) * root[at, None]) @ turn
                    h = np.minimum((U**2) @ shrinks.T + share[at, None], 0.999)
                    square += (((z[at, None] - U @ (shrinks * c).T) / (1 - h)) ** 2).sum(0)
                shrink = shrinks[int(square.argmin())]
            a[1:, j] = turn @ (shrink * c)
            a[0, j] = level - mean @ a[1:, j]
            freedom += 1 + float(shrink.sum())
        self.free = freedom / y.shape[1]
        return a, np.ones(1)


class Quotient:
    """y = H_N a / (H_D b), N and D of total degrees p and q; all outputs share D."""

    def __init__(self, p: int, q: int, features: tuple[int, int]) -> None:
        self.p, self.q, self.widths = p, q, features
        self.free = float(sum(features) - 1)
        self.name = f"rational function of total degrees ({p}, {q})"

    def fit(self, H: Array, y: Array, w: Array, warm: Array | None = None) -> tuple[Array, Array]:
        """Return a, `(k_N, m)`, and b, `(k_D,)`."""
        k_N, k_D = self.widths
        fits = fit_rational(
            H[:, :k_N], H[:, :k_D], y.T, w.T[None], warm=None if warm is None else warm[None],
            cold=warm is None, steps=30 if warm is None else 8, resolved=1e-5,
        )  # fmt: skip
        return fits.a[0], fits.b[0]

    def on_all(
        self, features: FeaturesAt, y: Array, w: Array, start: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        """Go on from a fit of some rows, by Gauss-Newton steps on all of them, block by block."""
        (k, _), m = self.widths, y.shape[1]
        best, least, step = start, np.inf, np.zeros(m * k + len(start[1]))
        (a, b), blocks = start, _blocks(len(y), m * (len(step) + 1))
        for _ in range(_SWEEPS):
            R = np.zeros((0, len(step) + 1))  # of the slopes and of what is left
            for at in blocks:
                H = features(at)
                D = (H[:, : len(b)] @ b)[:, None]
                H_N, H_D = H[:, :k] / D, H[:, : len(b)] / D
                J, answer = np.zeros((m, len(H_N), R.shape[1])), H_N @ a
                for j in range(m):
                    J[j, :, j * k : (j + 1) * k] = H_N
                    J[j, :, m * k : -1] = -answer[:, j, None] * H_D
                    J[j, :, -1] = y[at, j] - answer[:, j]
                J *= w[at].T[..., None]
                R = np.asarray(np.linalg.qr(np.vstack([R, *J]), mode="r"))
            square = float((R[:, -1] ** 2).sum())
            if square > (1 - _PROGRESS) * least and square <= least:
                return a, b
            if square < least:
                best, least = (a, b), square
                step = np.linalg.lstsq(R[:, :-1], R[:, -1], rcond=_RESOLVED)[0]
            else:
                step = step / 4
            a, b = best[0] + step[: m * k].reshape(m, k).T, best[1] + step[m * k :]
        return best


def _blocks(rows: int, wide: int) -> list[slice]:
    step = max(1, _ENTRIES // wide)
    return [slice(first, first + step) for first in range(0, rows, step)]


def values(H: Array, fit: tuple[Array, ...]) -> Array:
    """Return answers, `(n, m)`."""
    a, b = fit
    return (H[:, : len(a)] @ a) / (H[:, : len(b)] @ b)[:, None]


def race_space(
    X: Array,
    H: Array,
    widths: tuple[int, ...],
    y: Array,
    weight: Array,
    seed: int = 0,
    group: Array | None = None,
) -> RaceFit:
    """Choose a model of several columns.

    Args:
        X: Rows, `(n, d)`.
        H: Their features in rising total degree, `(n, K)`.
        widths: How many features have total degree 0, 1, 2, … at most.
        y: Finite targets, `(n, m)`.
        weight: Row weights, `(n,)`.
        seed: Of the folds.
        group: Of each row, `(n,)`; a fold holds whole groups.
    """
    fold, distinct = folds_of(X, seed, group)
    inner = np.ones(len(X), bool)  # in many columns most rows are extreme in one of them
    floor = 50 * EPS * np.abs(y) + 1e-100
    cap = fewest_seen(X, fold) - 1
    plain: list[Any] = [Linear("constant", 1, ridge=False)]
    if distinct >= 5 and (np.ptp(y, axis=0) > floor.max(0)).any():
        if widths[1] < cap:
            plain.append(Linear("linear", widths[1], ridge=False))
        plain.append(Linear("ridge", widths[1], ridge=True))
        if len(widths) > 2:
            plain.append(Linear("ridge with squares and products", widths[2], ridge=True))
    quotients = [
        Quotient(p, q, (widths[p], widths[q]))
        for p, q in ((1, 1), (2, 1), (2, 2))
        if max(p, q) < len(widths)
        and _SPARE * (widths[p] + widths[q] - 1) <= cap
        and widths[p] + widths[q] <= _MOST_RATIONAL
    ]

    def entered(candidates: list[Any], noise: str) -> list[Entry]:
        found, g = [], deviation(y, noise)
        w = np.sqrt(weight)[:, None] / g
        for c in candidates:
            try:
                full = c.fit(H, y, w)
                free = c.free
                answers = np.empty_like(y)
                for f in np.unique(fold):
                    own = fold == f
                    more = (full[1],) if c.q else ()
                    answers[own] = values(H[own], c.fit(H[~own], y[~own], w[~own], *more))
                c.free = free
            except np.linalg.LinAlgError:
                continue
            error = np.abs(answers - y)
            error = np.where(np.isfinite(error), np.maximum(error, floor), 1e150)
            square = np.minimum((error / g) ** 2, 1e300).mean(1)
            entry = Entry(c, full, answers, floor)
            entry.held = Held(square, fold, noise)
            D = H[:, : len(full[1])] @ full[1]
            # curves of several columns run away beyond the data, and most rows are close to that
            curved = c.q or c.name.endswith("products")
            crosses = (D > 0).any() and (D < 0).any()
            entry.price = entry.level = POLE if crosses else BEND if curved else 0.0
            found.append(entry)
        return found

    with np.errstate(all="ignore"):
        errors = {}
        for noise in NOISES if distinct >= 5 else ("additive",):
            tried = entered(plain[-1:] + quotients[:1], noise)
            best = min(tried, key=lambda e: float(np.sqrt(e.held.error).mean()))
            errors[noise] = np.maximum(np.abs(best.answers - y), floor)
        noise = likeliest(errors, y)
        entries = entered(plain + quotients, noise)
        low, high = y.min(0), y.max(0)
        admitted = [
            e for e in entries
            if e.price == POLE or _within(values(H, e.fit), low, high)
        ]  # fmt: skip
        # of plain models the best: a ridge pays itself for what it does not need
        flat = [e for e in admitted if not e.level]
        best = min(flat, key=lambda e: float(e.held.error.mean()), default=entries[0])
        chosen: Any = winner([best, *(e for e in admitted if e.level)])
        tied = (chosen, *ties(chosen, admitted))
    return RaceFit(chosen, tuple(entries), tied, noise, deviation(y, noise), fold, inner, distinct)


def _within(answer: Array, low: Array, high: Array) -> bool:
    half = (high - low) / 2
    return bool(((answer <= high + half) & (answer >= low - half)).all())


def total_degree(
    H: Array, width: int, y: Array, *, held: int = 0, sweeps: int = 3
) -> tuple[Array, Array, float] | None:
    """Solve N / D of one total degree from a part of the rows and test it on the others.

    Args:
        H: Features of rows in random order, `(n, K)`.
        width: How many of them have this total degree at most; N and D have the same.
        y: Targets over their scale, `(n,)`.
        held: How many rows at the end only test it; by default all that are not needed.
        sweeps: Of Sanathanan and Koerner.

    Returns:
        a, b and the median relative error of unseen rows; None where rows are too few.
    """
    n, free = len(y), 2 * width - 1
    core = min(max(int(1.3 * free) + _BLOCK, 300), n - held if held else int(0.9 * n))
    if free > core - 2:
        return None
    H = H[:, :width]
    train, t = H[:core], 1 / np.hypot(1, y[:core])
    best = (np.inf, np.zeros(2 * width))
    for _ in range(sweeps):
        A = np.hstack([train, -y[:core, None] * train]) * t[:, None]
        v = np.linalg.svd(np.linalg.qr(A, mode="r"))[2][-1]
        N, D = train @ v[:width], train @ v[width:]
        size = np.hypot(N, D)
        size = np.maximum(size, 1e-14 * size.max())  # N and D may share zeros
        error = float(np.sqrt(np.mean(((N - y[:core] * D) / np.hypot(1, y[:core]) / size) ** 2)))
        if error < best[0]:
            best = error, v
        if error < 1e-14:
            break
        t = np.median(size) / size / np.hypot(1, y[:core])
    rest = n - held if held else core
    v, H, y = best[1], H[rest:], y[rest:]
    with np.errstate(all="ignore"):
        answer = (H @ v[:width]) / (H @ v[width:])
        relative = np.abs(answer - y) / np.maximum(np.abs(y), 1e-100)
    relative = np.where(np.isfinite(relative), relative, np.inf)
    return v[:width], v[width:], float(np.median(relative))
