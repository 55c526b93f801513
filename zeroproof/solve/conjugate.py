"""Signals of a real system over frequency: poles in s = iω that are real or come in pairs.

Starts come from vector fitting (Gustavsen & Semlyen, IEEE Trans. Power Delivery 14:1052, 1999):
σ H = N with σ = 1 + Σ c_j / (s - p_j) is linear in N and c, and the zeros of σ are better poles
than the p_j. Noise biases them, so least squares in the poles follow (`zeroproof.solve.system`).
Several signals share their poles.
"""

from typing import Any, NamedTuple

import numpy as np

from zeroproof.solve.line import LineEntry
from zeroproof.solve.race import (
    NOISES,
    SIGNIFICANT,
    Held,
    RaceFit,
    deviation,
    fewest_seen,
    folds_of,
    inner_rows,
    likeliest,
    ties,
    winner,
    with_all_groups,
)
from zeroproof.solve.system import (
    Poles,
    System,
    Systems,
    columns,
    covariance_root,
    stacked,
    state_space,
)
from zeroproof.solve.varpro import State, linear, refined

__all__ = ["race_conjugate"]

Array = Any  # of NumPy, real or complex: its types do not tell one from the other
EPS = float(np.finfo(float).eps)

ORDERS = (*range(9), 10, 12, 14, 16, 20, 24, 28, 32)
WIDE = 30.0  # max ω / min ω from which starting poles are spread evenly in log ω
_QUICK = (0, 1, 2, 3, 5, 8)  # orders that tell the noise
_PATIENCE = 4  # orders without progress on unseen rows that end the ladder
_PROGRESS = 0.8  # of the held-out error
_NEAR = 1.2  # times the least held-out error
_EXACT = 20.0  # typical error in units of the rounding floor
_MOST_ROWS = 1000  # of the race; all of them fit the winner
_SEARCHED = 300  # rows that tell where one more pole helps
_UNSTABLE = 0.25  # of the squared error: so much better must a system be that is not stable
_CLOSE, _APART = 1.3, 4.0  # ratios of real poles that are one factor, or two


class Order(NamedTuple):
    """What a fit has: k poles, a constant, and a linear term if `tail` is 2."""

    k: int
    tail: int

    @property
    def q(self) -> int:
        """Return the number of poles."""
        return self.k

    @property
    def free(self) -> float:
        """Return the coefficients of one output."""
        return float(2 * self.k + self.tail)

    @property
    def name(self) -> str:
        """Say what it is."""
        if not self.k:
            return "constant" if self.tail == 1 else "constant and s"
        poles = f"{self.k} pole{'s' * (self.k > 1)} in s"
        return f"real system with {poles}{', linear in s' * (self.tail == 2)}"


class _PairRows(NamedTuple):
    """Rows, real parts over imaginary ones; ω over the largest, each output over its size."""

    s: Array  # (n,)
    y: Array  # (m, 2n)
    w: Array  # (F, m, 2n)

    def some(self, fits: slice, step: int = 1) -> "_PairRows":
        n = len(self.s)
        at = np.r_[np.arange(0, n, step), n + np.arange(0, n, step)]
        return _PairRows(self.s[::step], self.y[:, at], self.w[fits][:, :, at])


def race_conjugate(
    x: Array,
    y: Array,
    *,
    weight: Array | None = None,
    group: Array | None = None,
    noise: str = "",
    seed: int = 0,
) -> tuple[RaceFit, System, Array]:
    """Choose the number of poles by rows held out, and fit them.

    Args:
        x: Frequencies ω, `(n,)`, finite, not constant.
        y: Signals, `(n, m)`, complex, finite; they share the poles.
        weight: Row weights, `(n,)`.
        group: Of each row, `(n,)`; a fold holds whole groups.
        noise: One of `NOISES`; chosen by rows held out if not given.
        seed: Of the folds.

    Returns:
        What was chosen, the function, and the rows that took part in the race.
    """
    weight = np.ones(len(x)) if weight is None else weight
    with np.errstate(all="ignore"):  # what is not finite drops out by its errors
        race = _PairRace(x, y, weight, group, seed)
        errors = {}
        for name in () if noise else NOISES:
            race.begin(name)
            race.ladder(_QUICK)
            best = min(race.entries, key=lambda e: float(np.sqrt(e.held.error).mean()))
            errors[name] = np.maximum(np.abs(best.answers - race.y), best.floor)[race.inner]
        noise = noise or likeliest(errors, race.y[race.inner])
        race.begin(noise)
        race.ladder(ORDERS)
        race.around()
        return race.finished(x, y, weight)


class _PairRace:
    def __init__(self, x: Array, y: Array, weight: Array, group: Array | None, seed: int) -> None:
        order = np.argsort(x, kind="stable")
        self.used = np.sort(order[:: -(-len(x) // _MOST_ROWS)])
        if group is not None:  # which may take turns along x
            order = with_all_groups(np.random.default_rng(seed).permutation(order), group)
            self.used = np.sort(order[:_MOST_ROWS])
            group = group[self.used]
        self.x, self.weight = x[self.used], weight[self.used]
        self.unit = float(np.abs(x).max())
        self.size = np.sqrt((np.abs(y) ** 2).mean(0))
        self.size[self.size == 0] = 1.0
        self.y = y[self.used] / self.size
        self.fold, self.distinct = folds_of(self.x[:, None], seed, group)
        self.inner = inner_rows(self.x[:, None], self.fold)
        self.cap = 2 * fewest_seen(self.x, self.fold) - 1  # equations less one

    def begin(self, noise: str) -> None:
        """Forget all entries and weigh rows for a noise."""
        self.noise, self.g = noise, deviation(self.y, noise)
        root = np.sqrt(self.weight) / self.g.T
        w = np.repeat(root[None], int(self.fold.max()) + 2, 0)
        for f in range(len(w) - 1):
            w[f + 1][:, self.fold == f] = 0
        self.rows = _PairRows(
            1j * self.x / self.unit, stacked(self.y.T), np.concatenate([w, w], -1)
        )
        self.entries: list[_Entry] = []

    def ladder(self, orders: tuple[int, ...]) -> None:
        """Enter rising numbers of poles until unseen rows gain nothing any more."""
        waited = exact = 0
        for k in orders:
            if 2 * k + 1 > self.cap and k:
                return
            entry = self.enter(Order(k, 1))
            before = [e.held.body for e in self.entries if e is not entry]
            better = not before or entry.held.body < _PROGRESS * min(before)
            waited, exact = 0 if better else waited + 1, exact + entry.exact
            if exact > 1 or (waited >= _PATIENCE and k > 4):
                return

    def around(self) -> None:
        """Enter neighbours of the best, with a linear term too, and what is clear of noise."""
        known = 0
        while len(self.entries) > known:
            known = len(self.entries)
            top = self._top()
            places, *_, twice = top.system.table()
            clear = top.significance > SIGNIFICANT
            if not clear.all():
                kept = _grouped(np.repeat(places[clear], twice[clear]))
                for tail in (1, 2):
                    self.enter(Order(kept.k, tail), kept)
            k = self._top().order.k
            for order in range(max(k - 2, 0), k + 2):
                self.enter(Order(order, 1))
                self.enter(Order(order, 2))

    def _top(self) -> "_Entry":
        """Return the smallest of those that come near the best on unseen rows."""
        least = min(e.held.body for e in self.entries)
        near = [e for e in self.entries if e.held.body <= _NEAR * least]
        return min(near, key=lambda e: e.free)

    def enter(self, order: Order, start: Poles | None = None) -> "_Entry":
        """Fit all rows, from the best of some starts, and from there all but each fold."""
        known = next((e for e in self.entries if e.order == order), None)
        if (known is not None and start is None) or (order.free > self.cap and self.entries):
            return known or self.entries[-1]
        one = self.rows.some(slice(1))
        starts = [] if start is None else [start]
        starts += self._starts(order) if known is None else []
        ends = [_refined(one, poles, order.tail, steps=12) for poles in starts]
        poles, state = min(ends, key=lambda end: float(end[1].objective[0]))
        if order.k:
            poles, state = _refined(one, _regrouped(poles), order.tail, steps=40)
        if known is not None and known.objective <= state.objective[0]:
            return known
        try:
            entry = self._entry(order, poles, state)
        except np.linalg.LinAlgError:  # no start had a finite error: this order drops out
            return self.entries[-1]
        self.entries = [*(e for e in self.entries if e is not known), entry]
        return entry

    def _entry(self, order: Order, poles: Poles, state: State) -> "_Entry":
        folds = self.rows.some(slice(1, None))
        many = Poles(*(np.repeat(part, len(folds.w), 0) for part in poles))
        many, fits = _refined(folds, many, order.tail, steps=10, resolved=1e-4)
        answer = columns(self.rows.s, many, order.tail) @ np.swapaxes(fits.c, 1, 2)
        own = np.arange(len(self.x))
        held = answer[self.fold, own]
        # what rounding of x and of y alone can do: below, all orders are equal
        full, s = state.c[0].T, self.rows.s
        up, down = (columns(s * (1 + d), poles, order.tail)[0] @ full for d in (1e-7, -1e-7))
        floor = 50 * EPS * (np.abs(self.y) + np.abs(up - down) / 2e-7) + 1e-100
        entry = _Entry(order, poles, state, held, floor)
        self.score(entry, floor)
        error = np.abs(held - self.y) / floor
        entry.exact = float(np.median(error[self.inner])) < _EXACT
        if order.k:
            root = np.sqrt(self.weight)[:, None] / self.g
            L = covariance_root(entry.system, self.x / self.unit, self.y, root)
            all_errors = [entry.system.errors(L, j) for j in range(self.y.shape[1])]
            entry.significance = np.max([errors[2] for errors in all_errors], 0)
        entry.doubtful = not (entry.significance > SIGNIFICANT).all()
        return entry

    def score(self, entry: "_Entry", floor: Array) -> None:
        """Score held-out answers; errors below the floor are equal."""
        error = np.abs(entry.answers - self.y)
        error = np.where(np.isfinite(error), np.maximum(error, floor), 1e150)
        square = np.minimum((error / self.g) ** 2, 1e300).mean(1)
        entry.held = Held(square[self.inner], self.fold[self.inner], self.noise)

    def _starts(self, order: Order) -> list[Poles]:
        """Return poles to begin with: of smaller fits with one more, and by vector fitting."""
        if not order.k:
            return [Poles(*np.zeros((3, 1, 0)))]
        one, starts = self.rows.some(slice(1)), []
        for fewer in (1, 2):
            smaller = [e for e in self.entries if e.order == Order(order.k - fewer, order.tail)]
            smaller += [e for e in self.entries if e.order == Order(order.k - fewer, 1)]
            if smaller:
                pair = fewer == 2
                starts.append(_with_one_more(one, smaller[0].system.poles, order.tail, pair=pair))
        same = [e.system.poles for e in self.entries if e.order.k == order.k]
        spread = _spread_poles(np.abs(one.s), order.k)
        starts += [_relocated(one, poles, order.tail) for poles in spread]
        wild = _relocated(one, spread[0], order.tail, stable=False)
        if (wild.places().real > 0).any():
            tame = min(_solved(one, poles, order.tail).objective[0] for poles in starts)
            if _solved(one, wild, order.tail).objective[0] < _UNSTABLE * tame:
                starts.append(wild)
        return starts + same

    def finished(self, x: Array, y: Array, weight: Array) -> tuple[RaceFit, System, Array]:
        """Return the winner, fitted to all rows."""
        exact = [e for e in self.entries if e.exact]
        for e in exact:  # rounding is no reason to choose between them
            self.score(e, _EXACT * np.max([other.floor for other in exact], 0))
        admitted = [e for e in self.entries if not e.doubtful] or self.entries[:1]
        chosen: Any = winner(admitted)
        root = np.sqrt(weight) / deviation(y / self.size, self.noise).T
        w = np.concatenate([root, root], -1)[None]
        rows = _PairRows(1j * x / self.unit, stacked((y / self.size).T), w)
        tail = chosen.order.tail
        poles, state = _refined(rows, chosen.system.poles, tail, steps=60, resolved=1e-14)
        system = _in_units(poles, state.c[0].T, self.unit, self.size)
        tied = (chosen, *ties(chosen, admitted))
        for e in self.entries:
            e.answers, e.floor = e.answers * self.size, e.floor * self.size
        found = RaceFit(
            chosen, tuple(self.entries), tied, self.noise, self.g * self.size, self.fold,
            self.inner, self.distinct,
        )  # fmt: skip
        return found, system, self.used


class _Entry(LineEntry):
    """An order that was fitted."""

    def __init__(
        self, order: Order, poles: Poles, state: State, answers: Array, floor: Array
    ) -> None:
        super().__init__(order, (), answers, floor)
        self.order = order
        self.objective = float(state.objective[0])
        self.system = System(poles, state.c[0].T)
        self.significance = np.zeros(0)  # of each pole, the largest over outputs


def _solved(rows: _PairRows, poles: Poles, tail: int) -> State:
    """Solve for the other coefficients, given poles."""
    model = Systems(rows.s, poles.real.shape[1], tail)
    return linear(model, rows.y, rows.w, np.concatenate(poles, 1))


def _refined(
    rows: _PairRows, poles: Poles, tail: int, *, steps: int, resolved: float = 1e-9
) -> tuple[Poles, State]:
    """Move the poles."""
    model = Systems(rows.s, poles.real.shape[1], tail)
    theta = np.concatenate(poles, 1)
    theta, state = refined(model, rows.y, rows.w, theta, steps=steps, resolved=resolved)
    return model.poles(theta), state


def _grouped(places: Array) -> Poles:
    """Return real poles and factors of poles, conjugate ones among them, of one fit."""
    upper = places[places.imag > 0]
    real, centre, square = [], list(upper.real), list(upper.imag**2)
    rest = sorted(places[places.imag == 0].real)
    while rest:
        p = rest.pop()
        if rest and p * rest[-1] > 0 and max(p / rest[-1], rest[-1] / p) < _CLOSE:
            other = rest.pop()
            centre.append((p + other) / 2)
            square.append(-(((p - other) / 2) ** 2))
        else:
            real.append(p)
    return Poles(*(np.array(part, float)[None] for part in (real, centre, square)))


def _regrouped(poles: Poles) -> Poles:
    """Split factors whose real poles have moved apart, and join real poles that have met."""
    gap = np.sqrt(np.maximum(-poles.square[0], 0))
    low, high = (poles.centre[0] + gap, poles.centre[0] - gap)
    apart = (poles.square[0] < 0) & (np.maximum(low / high, high / low) > _APART)
    joined = _grouped(np.r_[poles.real[0], low[apart], high[apart]].astype(complex))
    kept = (part[0][~apart] for part in poles[1:])
    rest = (np.concatenate([own, new[0]])[None] for own, new in zip(kept, joined[1:], strict=True))
    return Poles(joined.real, *rest)


def _spread_poles(w: Array, k: int) -> list[Poles]:
    """Return starting poles over the frequencies: real, and pairs, even in ω and in log ω."""
    low, high = float(w[w > 0].min()), float(w.max())
    wide = high > WIDE * low
    real = np.geomspace(low, high, k + 2)[1:-1]
    if not wide:
        real = (high - low or high) * np.geomspace(0.1, 10, k + 2)[1:-1]
    found, half = [-real + 0j], k // 2
    if half:
        gap = (high - low) / half
        even = -gap / 4 + 1j * (low + gap * (np.arange(half) + 0.5))
        log = np.geomspace(low, high, 2 * half + 1)[1::2] * (-0.1 + 1j)
        odd = -real[k // 2 : k // 2 + k % 2]
        found += [np.r_[odd, pairs, pairs.conj()] for pairs in (even, log)[: 1 + wide]]
    return [_grouped(places) for places in found]


def _relocated(
    rows: _PairRows, poles: Poles, tail: int, *, stable: bool = True, sweeps: int = 10
) -> Poles:
    """Return the best poles of some sweeps of vector fitting; one fit."""
    best, least = poles, np.inf
    n, k = len(rows.s), poles.k
    H = (rows.y[:, :n] + 1j * rows.y[:, n:])[..., None]
    smallest = 1e-13 * float(np.abs(rows.s[rows.s != 0]).min())
    for _ in range(sweeps):
        state = _solved(rows, poles, tail)
        if state.objective[0] < least:
            best, least = poles, float(state.objective[0])
        Q = state.Q[0]
        A = -rows.w[0][..., None] * stacked(H * columns(rows.s, poles, 0), 1)
        z = (rows.w * rows.y)[0][..., None]
        A, z = (part - Q @ (np.swapaxes(Q, -1, -2) @ part) for part in (A, z))
        A, z = A.reshape(-1, k), z.ravel()
        size = np.linalg.norm(A, axis=0) + 1e-300
        if not np.isfinite(A).all():
            break
        y = np.linalg.lstsq(A / size, z, rcond=None)[0] / size
        M, v, scale = state_space(poles)
        try:
            zeros: Array = np.asarray(np.linalg.eigvals(M - np.outer(v, y / scale)), complex)
        except np.linalg.LinAlgError:
            break
        size = np.maximum(np.abs(zeros.real), 1e-10 * np.abs(zeros) + smallest)
        poles = _grouped(np.where(stable | (zeros.real < 0), -size, size) + 1j * zeros.imag)
    return poles if _solved(rows, poles, tail).objective[0] < least else best


def _with_one_more(rows: _PairRows, poles: Poles, tail: int, *, pair: bool) -> Poles:
    """Return the poles and the one more, or the pair, that lowers the error most."""
    rows = rows.some(slice(1), -(-len(rows.s) // _SEARCHED))
    w = np.abs(rows.s)
    low, high = float(w[w > 0].min()), float(w.max())
    wide = high > WIDE * low
    if pair:
        square = _solved(rows, poles, tail).residual[0] ** 2
        worst = np.argsort(-square.reshape(len(square), 2, -1).sum((0, 1)))[:6]
        even = np.linspace(low, high, 12)
        beta = np.r_[even, np.geomspace(low, high, 12)] if wide else even
        ordered = np.unique(w)
        near = np.gradient(ordered)[np.searchsorted(ordered, w[worst])]
        width = np.r_[0.3 * beta, 0.03 * beta, 0 * beta + (high - low) / 20, near, 0.3 * near]
        beta = np.r_[np.tile(beta, 3), np.tile(w[worst], 2)]
        new = np.zeros((len(beta), 0)), -width[:, None], beta[:, None] ** 2
    else:
        span = (low / 10, 10 * high) if wide else (0.03 * (high - low), 30 * (high - low))
        new = -np.geomspace(*span, 32)[:, None], np.zeros((32, 0)), np.zeros((32, 0))
    F = len(new[0])
    parts = (np.c_[np.repeat(old, F, 0), more] for old, more in zip(poles, new, strict=True))
    many = Poles(*parts)
    objective = _solved(_PairRows(rows.s, rows.y, np.repeat(rows.w, F, 0)), many, tail).objective
    return many.at(slice(int(objective.argmin()), int(objective.argmin()) + 1))


def _in_units(poles: Poles, c: Array, unit: float, size: Array) -> System:
    """Return the function in the units of x and y."""
    a, b = poles.real.shape[1], poles.centre.shape[1]
    scale = np.r_[np.full(a + b, unit), np.full(b, unit**2), 1, 1 / unit][: len(c)]
    scaled = Poles(poles.real * unit, poles.centre * unit, poles.square * unit**2)
    return System(scaled, c * scale[:, None] * size)
