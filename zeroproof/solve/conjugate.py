"""Signals of a real system over frequency: poles in s = iω that are real or come in pairs.

    H(s) = Σ r / (s - p) + Σ (a (s - c) + g) / ((s - c)² + h) + d + e s,    all coefficients real

The second sum holds pairs c ± i√h, or close real ones where h < 0: through a double pole, h = 0,
the function stays smooth. Against free complex coefficients their number is halved. Starts come
from vector fitting (Gustavsen & Semlyen, IEEE Trans. Power Delivery 14:1052, 1999): σ H = N with
σ = 1 + Σ c_j / (s - p_j) is linear in N and c, and the zeros of σ are better poles than the p_j.
Noise biases them, so Levenberg-Marquardt follows, in log(-p) and log(-c) so that poles over eight
decades are equally well scaled, with residues solved for at every step (variable projection).
Several signals share their poles.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from zeroproof.solve.line import LineEntry
from zeroproof.solve.race import (
    NOISES,
    SIGNIFICANT,
    Held,
    RaceFit,
    deviation,
    folds_of,
    inner_rows,
    likeliest,
    ties,
    winner,
)

__all__ = ["Poles", "System", "covariance_root", "race_conjugate"]

Array = Any  # of NumPy, real or complex: its types do not tell one from the other
EPS = float(np.finfo(float).eps)

ORDERS = (*range(9), 10, 12, 14, 16, 20, 24, 28, 32)
WIDE = 30.0  # max ω / min ω from which starting poles are spread evenly in log ω
_QUICK = (0, 1, 2, 3, 5, 8)  # orders that tell the noise
_PATIENCE = 4  # orders without progress on unseen rows that end the ladder
_PROGRESS = 0.8  # of the held-out error
_NEAR = 1.2  # times the least held-out error
_EXACT = 20.0  # typical error in units of the rounding floor
_ROUNDING = 4 * EPS  # of a measured value
_MOST_ROWS = 1000  # of the race; all of them fit the winner
_SEARCHED = 300  # rows that tell where one more pole helps
_UNSTABLE = 0.25  # of the squared error: so much better must a system be that is not stable
_CLOSE, _APART = 1.3, 4.0  # ratios of real poles that are one factor, or two
_DOUBLE = 1e-6  # of |c|: nearer poles are one double pole


class Poles(NamedTuple):
    """Zeros of D for F fits: real p, `(F, a)`, and factors (s - c)² + h, `(F, b)` each."""

    real: Array
    centre: Array
    square: Array

    @property
    def k(self) -> int:
        """Return their number."""
        return self.real.shape[1] + 2 * self.centre.shape[1]

    def at(self, index: Any) -> "Poles":
        """Return those of some fits."""
        return Poles(*(part[index] for part in self))

    def places(self) -> Array:
        """Return all poles, `(F, k)`; of a factor the upper one first."""
        gap = np.sqrt(-self.square.astype(complex))
        return np.concatenate([self.real, self.centre + gap, self.centre - gap], 1)


class System(NamedTuple):
    """A function of s = ix for each of m outputs, in the units of x and y."""

    poles: Poles  # of one fit
    c: Array  # (k + 1 or k + 2, m): r, a, g, d, and e if there is a linear term

    def __call__(self, x: Array) -> Array:
        """Return H(ix), `(n, m)`."""
        return _basis(1j * x, self.poles, len(self.c) - self.poles.k)[0] @ self.c

    def slopes(self, x: Array) -> tuple[Array, Array]:
        """Return how H moves with (p, c, h), `(m, n, k)`, and with the other ones, `(n, …)`."""
        moves = _moves(1j * x, self.poles, self.c.T[None])[0]
        return moves, _basis(1j * x, self.poles, len(self.c) - self.poles.k)[0]

    def table(self, output: int = 0) -> tuple[Array, Array, Array, Array]:
        """Return distinct poles, residues, strengths and multiplicities of one output."""
        found: Array = np.array(self._told(output)[0], complex).reshape(-1, 4)
        return *found.T[:3], found[:, 3].real.astype(int)

    def errors(self, root: Array, output: int = 0) -> tuple[Array, Array, Array]:
        r"""Return standard errors of poles and residues, and \|N(p)\| over its own.

        Args:
            root: Of the covariance, see `covariance_root`.
            output: Which output.
        """
        k, own = self.poles.k, len(self.c)
        L = np.concatenate([root[:k], root[k + output * own :][:own]])
        _, moves = self._told(output)
        rows = np.zeros((3 * len(moves), len(L)), complex)
        sizes = np.zeros(len(moves))
        for i, (of_place, of_residue, of_value, value) in enumerate(moves):
            for j, move in enumerate((of_place, of_residue, of_value)):
                for place, slope in move.items():
                    rows[3 * i + j, place] = slope
            sizes[i] = abs(value)
        place, residue, value = np.linalg.norm(rows @ L, axis=1).reshape(-1, 3).T
        return place, residue, sizes / np.maximum(value, 1e-300)

    def zeros(self, output: int = 0) -> Array:
        """Return the zeros of one output: u s = -d u - yᵀ x / e, s x = M x + v u has one each."""
        M, v, scale = _state_space(self.poles)
        k, y = self.poles.k, self.c[:, output]
        own = y[:k] / scale
        A = np.block([[M, v[:, None]], [-own[None], -y[k : k + 1, None]]])
        B = np.diag(np.r_[np.ones(k), y[k + 1] if len(y) > k + 1 else 0.0])
        found = linalg.eigvals(A, B)
        return found[np.isfinite(found)]

    def _told(self, output: int) -> tuple[list[Any], list[Any]]:
        """Return (p, residue, strength, multiplicity), and the slopes of p, residue and N(p)."""
        a, b, k = self.poles.real.shape[1], self.poles.centre.shape[1], self.poles.k
        y, found, moves = self.c[:, output], [], []
        for i, p in enumerate(self.poles.real[0]):
            found.append((complex(p), complex(y[i]), complex(y[i]), 1))
            moves.append(({i: 1}, {k + i: 1}, {k + i: 1}, y[i]))
        for i, (c, h) in enumerate(zip(self.poles.centre[0], self.poles.square[0], strict=True)):
            at_c, at_h = a + i, a + b + i
            slope, value = y[at_c], y[at_h]
            if abs(h) <= (_DOUBLE * c) ** 2:
                found.append((complex(c), complex(slope), complex(value), 2))
                moves.append(({at_c: 1}, {k + at_c: 1}, {k + at_h: 1}, value))
                continue
            for gap in (np.sqrt(complex(-h)), -np.sqrt(complex(-h))):
                # p = c + gap has the residue (a gap + g) / (2 gap), and d gap = -dh / (2 gap)
                residue, turn = slope / 2 + value / (2 * gap), -1 / (2 * gap)
                found.append((c + gap, residue, residue, 1))
                moves.append((
                    {at_c: 1, at_h: turn},
                    {k + at_c: 0.5, k + at_h: 0.5 / gap, at_h: -value / (2 * gap**2) * turn},
                    {k + at_c: gap, k + at_h: 1, at_h: slope * turn},
                    slope * gap + value,
                ))  # fmt: skip
        return found, moves


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


class _State(NamedTuple):
    Q: Array  # (F, m, 2n, c), orthonormal columns of the weighted basis
    c: Array  # (F, m, c), coefficients
    residual: Array  # (F, m, 2n), weighted
    objective: Array  # (F,)


class _Rows(NamedTuple):
    """Rows, real parts over imaginary ones; ω over the largest, each output over its size."""

    s: Array  # (n,)
    y: Array  # (m, 2n)
    w: Array  # (F, m, 2n)

    def some(self, fits: slice, step: int = 1) -> "_Rows":
        n = len(self.s)
        at = np.r_[np.arange(0, n, step), n + np.arange(0, n, step)]
        return _Rows(self.s[::step], self.y[:, at], self.w[fits][:, :, at])


def race_conjugate(
    x: Array, y: Array, *, weight: Array | None = None, noise: str = "", seed: int = 0
) -> tuple[RaceFit, System, Array]:
    """Choose the number of poles by rows held out, and fit them.

    Args:
        x: Frequencies ω, `(n,)`, finite, not constant.
        y: Signals, `(n, m)`, complex, finite; they share the poles.
        weight: Row weights, `(n,)`.
        noise: One of `NOISES`; chosen by rows held out if not given.
        seed: Of the folds.

    Returns:
        What was chosen, the function, and the rows that took part in the race.
    """
    weight = np.ones(len(x)) if weight is None else weight
    with np.errstate(all="ignore"):  # what is not finite drops out by its errors
        race = _Race(x, y, weight, seed)
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


class _Race:
    def __init__(self, x: Array, y: Array, weight: Array, seed: int) -> None:
        order = np.argsort(x, kind="stable")
        self.used = np.sort(order[:: -(-len(x) // _MOST_ROWS)])
        self.x, self.weight = x[self.used], weight[self.used]
        self.unit = float(np.abs(x).max())
        self.size = np.sqrt((np.abs(y) ** 2).mean(0))
        self.size[self.size == 0] = 1.0
        self.y = y[self.used] / self.size
        self.fold, self.distinct = folds_of(self.x[:, None], seed)
        self.inner = inner_rows(self.x[:, None], self.fold)
        count = np.unique(np.c_[self.x, self.fold], axis=0)[:, 1].astype(int)
        self.cap = 2 * (self.distinct - int(np.bincount(count).max())) - 1  # equations less one

    def begin(self, noise: str) -> None:
        """Forget all entries and weigh rows for a noise."""
        self.noise, self.g = noise, deviation(self.y, noise)
        root = np.sqrt(self.weight) / self.g.T
        w = np.repeat(root[None], int(self.fold.max()) + 2, 0)
        for f in range(len(w) - 1):
            w[f + 1][:, self.fold == f] = 0
        self.rows = _Rows(1j * self.x / self.unit, _stacked(self.y.T), np.concatenate([w, w], -1))
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

    def _entry(self, order: Order, poles: Poles, state: _State) -> "_Entry":
        folds = self.rows.some(slice(1, None))
        many = Poles(*(np.repeat(part, len(folds.w), 0) for part in poles))
        many, fits = _refined(folds, many, order.tail, steps=10, resolved=1e-4)
        answer = _basis(self.rows.s, many, order.tail) @ np.swapaxes(fits.c, 1, 2)
        own = np.arange(len(self.x))
        held = answer[self.fold, own]
        # what rounding of x and of y alone can do: below, all orders are equal
        full, s = state.c[0].T, self.rows.s
        up, down = (_basis(s * (1 + d), poles, order.tail)[0] @ full for d in (1e-7, -1e-7))
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
            tame = min(_state(one, poles, order.tail).objective[0] for poles in starts)
            if _state(one, wild, order.tail).objective[0] < _UNSTABLE * tame:
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
        rows = _Rows(1j * x / self.unit, _stacked((y / self.size).T), w)
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
        self, order: Order, poles: Poles, state: _State, answers: Array, floor: Array
    ) -> None:
        super().__init__(order, (), answers, floor)
        self.order = order
        self.objective = float(state.objective[0])
        self.system = System(poles, state.c[0].T)
        self.significance = np.zeros(0)  # of each pole, the largest over outputs


def _stacked(z: Array, axis: int = -1) -> Array:
    return np.concatenate([z.real, z.imag], axis)


def _factors(s: Array, poles: Poles) -> Array:
    """Return 1 / ((s - c)² + h), `(F, n, b)`, exact beside a sharp resonance."""
    gap = np.sqrt(-poles.square.astype(complex))[:, None]
    z = s[:, None]
    return 1 / ((z - (poles.centre[:, None] + gap)) * (z - (poles.centre[:, None] - gap)))


def _basis(s: Array, poles: Poles, tail: int) -> Array:
    """Return the columns of r, a, g, d and e, `(F, n, k + tail)`."""
    D = _factors(s, poles)
    rest = np.broadcast_to(s[:, None] ** np.arange(tail), (len(D), len(s), tail))
    simple = 1 / (s[:, None] - poles.real[:, None])
    return np.concatenate([simple, (s[:, None] - poles.centre[:, None]) * D, D, rest], -1)


def _moves(s: Array, poles: Poles, y: Array) -> Array:
    """Return the slopes of H by p, c and h, `(F, m, n, k)`, for coefficients `(F, m, …)`."""
    a, b = poles.real.shape[1], poles.centre.shape[1]
    z, D = s[:, None], _factors(s, poles)[:, None]
    z_c = z - poles.centre[:, None, None]
    simple = y[:, :, None, :a] / ((z - poles.real[:, None]) ** 2)[:, None]
    slope, value = y[:, :, None, a : a + b], y[:, :, None, a + b : a + 2 * b]
    part = (slope * z_c + value) * D
    return np.concatenate([simple, (2 * z_c * part - slope) * D, -part * D], -1)


def _state(rows: _Rows, poles: Poles, tail: int) -> _State:
    """Solve for the other coefficients, given poles."""
    A = rows.w[..., None] * _stacked(_basis(rows.s, poles, tail), 1)[:, None]
    bad: Array = ~np.isfinite(A).all((1, 2, 3))
    A[bad] = 0
    bad |= (-poles.square >= poles.centre**2).any(1)  # one pole on either side
    Q, R = np.linalg.qr(A)
    z = rows.w * rows.y
    b = (np.swapaxes(Q, -1, -2) @ z[..., None])[..., 0]
    residual = (Q @ b[..., None])[..., 0] - z
    # columns are of very different sizes, which QR bears; poles that meet make one of rounding
    least = 1e-15 * np.linalg.norm(A, axis=-2) + 1e-300
    diagonal = np.abs(np.diagonal(R, axis1=-2, axis2=-1))
    bad |= ~(diagonal > least).all((1, 2))
    at = np.arange(R.shape[-1])
    R[..., at, at] += np.where(diagonal > least, 0, least)
    y = np.linalg.solve(R, b[..., None])[..., 0]
    return _State(Q, y, residual, np.where(bad, np.inf, (residual**2).sum((1, 2))))


def _moved(poles: Poles, step: Array) -> Poles:
    """Move poles by steps in log p, log c and h; one in a logarithm is cut at 2."""
    a, b = poles.real.shape[1], poles.centre.shape[1]
    real, centre = (
        part * np.exp(np.clip(move, -2, 2))
        for part, move in ((poles.real, step[:, :a]), (poles.centre, step[:, a : a + b]))
    )
    return Poles(real, centre, poles.square + step[:, a + b :])


def _refined(
    rows: _Rows, poles: Poles, tail: int, *, steps: int, resolved: float = 1e-9
) -> tuple[Poles, _State]:
    """Levenberg-Marquardt in the poles; fits that have ended drop out of the batch."""
    poles = Poles(*(part.copy() for part in poles))
    state = _state(rows, poles, tail)
    k = poles.k
    live = np.isfinite(state.objective) & (k > 0)
    damping = np.full(len(live), 1e-3)
    floor = 1e-32 * ((rows.w * rows.y) ** 2).sum((1, 2))
    for _ in range(steps):
        at = np.flatnonzero(live)
        if not len(at):
            break
        here = poles.at(at)
        logs = np.concatenate([here.real, here.centre, np.ones_like(here.square)], 1)
        moves = _moves(rows.s, here, state.c[at]) * logs[:, None, None]
        J = rows.w[at][..., None] * _stacked(moves, 2)
        J = J - state.Q[at] @ (np.swapaxes(state.Q[at], -1, -2) @ J)
        J = np.concatenate([J, state.residual[at][..., None]], -1).reshape(len(at), -1, k + 1)
        fine: Array = np.isfinite(J).all((1, 2))
        J = np.where(fine[:, None, None], J, 0)
        if J.shape[1] > k + 1:
            J = np.asarray(np.linalg.qr(J, mode="r"))
        size = np.linalg.norm(J[..., :k], axis=1) + 1e-300
        U, sv, Vh = np.linalg.svd(J[..., :k] / size[:, None], full_matrices=False)
        slope = (np.swapaxes(U, -1, -2) @ J[..., k:])[..., 0]
        pending, ended = fine.copy(), np.ones(len(at), bool)
        for _ in range(6):
            j = np.flatnonzero(pending)
            if not len(j):
                break
            i = at[j]
            gain = sv[j] / (sv[j] ** 2 + damping[i][:, None] ** 2 + 1e-300)
            step = (np.swapaxes(Vh[j], -1, -2) @ (gain * slope[j])[..., None])[..., 0] / size[j]
            trial = _moved(poles.at(i), -step)
            new = _state(_Rows(rows.s, rows.y, rows.w[i]), trial, tail)
            ok = new.objective < state.objective[i]
            damping[i] = np.where(ok, np.maximum(damping[i] / 10, 1e-12), damping[i] * 10)
            j, i = j[ok], i[ok]
            fall = state.objective[i] - new.objective[ok]
            ended[j] = (fall < resolved * state.objective[i]) | (new.objective[ok] <= floor[i])
            for part, value in zip((*poles, *state), (*trial, *new), strict=True):
                part[i] = value[ok]
            pending[j] = False
        live[at] = ~ended
    return poles, state


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


def _state_space(poles: Poles) -> tuple[Array, Array, Array]:
    """Return M, v and scales with Σ y φ(s) = (y / scale)ᵀ (s - M)⁻¹ v, φ the basis, of one fit.

    Of a factor, (s - M)⁻¹ (1, 0) = (s - c, scale) / D; the scale keeps both entries of one size.
    """
    a, b = poles.real.shape[1], poles.centre.shape[1]
    c, h = poles.centre[0], poles.square[0]
    size = np.sqrt(np.abs(h)) + 1e-3 * np.abs(c) + 1e-300
    M, at = np.diag(np.r_[poles.real[0], c, c]), a + np.arange(b)
    M[at, at + b], M[at + b, at] = -h / size, size
    return M, np.r_[np.ones(a + b), np.zeros(b)], np.r_[np.ones(a + b), size]


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
    rows: _Rows, poles: Poles, tail: int, *, stable: bool = True, sweeps: int = 10
) -> Poles:
    """Return the best poles of some sweeps of vector fitting; one fit."""
    best, least = poles, np.inf
    n, k = len(rows.s), poles.k
    H = (rows.y[:, :n] + 1j * rows.y[:, n:])[..., None]
    smallest = 1e-13 * float(np.abs(rows.s[rows.s != 0]).min())
    for _ in range(sweeps):
        state = _state(rows, poles, tail)
        if state.objective[0] < least:
            best, least = poles, float(state.objective[0])
        Q = state.Q[0]
        A = -rows.w[0][..., None] * _stacked(H * _basis(rows.s, poles, 0), 1)
        z = (rows.w * rows.y)[0][..., None]
        A, z = (part - Q @ (np.swapaxes(Q, -1, -2) @ part) for part in (A, z))
        A, z = A.reshape(-1, k), z.ravel()
        size = np.linalg.norm(A, axis=0) + 1e-300
        if not np.isfinite(A).all():
            break
        y = np.linalg.lstsq(A / size, z, rcond=None)[0] / size
        M, v, scale = _state_space(poles)
        try:
            zeros: Array = np.asarray(np.linalg.eigvals(M - np.outer(v, y / scale)), complex)
        except np.linalg.LinAlgError:
            break
        size = np.maximum(np.abs(zeros.real), 1e-10 * np.abs(zeros) + smallest)
        poles = _grouped(np.where(stable | (zeros.real < 0), -size, size) + 1j * zeros.imag)
    return poles if _state(rows, poles, tail).objective[0] < least else best


def _with_one_more(rows: _Rows, poles: Poles, tail: int, *, pair: bool) -> Poles:
    """Return the poles and the one more, or the pair, that lowers the error most."""
    rows = rows.some(slice(1), -(-len(rows.s) // _SEARCHED))
    w = np.abs(rows.s)
    low, high = float(w[w > 0].min()), float(w.max())
    wide = high > WIDE * low
    if pair:
        square = _state(rows, poles, tail).residual[0] ** 2
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
    objective = _state(_Rows(rows.s, rows.y, np.repeat(rows.w, F, 0)), many, tail).objective
    return many.at(slice(int(objective.argmin()), int(objective.argmin()) + 1))


def covariance_root(system: System, x: Array, y: Array, w: Array) -> Array:
    """Return a root L of the covariance L Lᵀ of (p, c, h) and the other coefficients by output.

    The residual variance is never below that of rounding; what rows do not determine has errors
    without bound.

    Args:
        system: The function.
        x: Frequencies, `(n,)`.
        y: Signals, `(n, m)`.
        w: Square roots of weights, `(n, m)`; real and imaginary part count as two rows.
    """
    moves, own = system.slopes(x)
    m, k, width = len(moves), system.poles.k, own.shape[1]
    J = np.zeros((m, 2 * len(x), k + m * width))
    for j in range(m):
        J[j, :, :k] = _stacked(moves[j] * w[:, j, None], 0)
        J[j, :, k + j * width : k + (j + 1) * width] = _stacked(own * w[:, j, None], 0)
    J = J.reshape(-1, J.shape[-1])
    size = np.linalg.norm(J, axis=0)
    size[size == 0] = 1
    _, sv, Vh = np.linalg.svd(np.linalg.qr(J / size, mode="r"))
    sv = np.maximum(sv, 1e-15 * sv[0])
    moved = np.abs(system(x * (1 + 1e-7)) - system(x)) * 1e7
    floor = _ROUNDING * (np.abs(y) + moved)
    square = float(((np.abs(system(x) - y) ** 2 + floor**2) * w**2).sum())
    sigma = np.sqrt(square / max(len(J) - len(size), 1))
    return Vh.T / sv / size[:, None] * sigma


def _in_units(poles: Poles, c: Array, unit: float, size: Array) -> System:
    """Return the function in the units of x and y."""
    a, b = poles.real.shape[1], poles.centre.shape[1]
    scale = np.r_[np.full(a + b, unit), np.full(b, unit**2), 1, 1 / unit][: len(c)]
    scaled = Poles(poles.real * unit, poles.centre * unit, poles.square * unit**2)
    return System(scaled, c * scale[:, None] * size)
