"""The race of one column: plain curves, a sigmoid, rational functions and AAA, on equal folds."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev
from scipy import linalg

from zeroproof.errors import RangeError
from zeroproof.solve.forms import (
    BarycentricForm,
    CoefficientForm,
    ExponentialForm,
    Form,
    FractionForm,
    InverseForm,
    SigmoidForm,
)
from zeroproof.solve.fractions import (
    fit_fractions,
    fraction_values,
    move_fractions,
    with_conjugates,
)
from zeroproof.solve.race import (
    BEND,
    LEAVE_ONE_OUT,
    NOISES,
    POLE,
    SIGNIFICANT,
    TYPICAL,
    Budget,
    Entry,
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
from zeroproof.solve.rational import Fits, fit_rational
from zeroproof.solve.varpro import adjoint, linear, refined

__all__ = [
    "Exponential",
    "Fraction",
    "InversePowers",
    "Polynomial",
    "Sigmoid",
    "Sum",
    "Support",
    "race_line",
]

Array = Any  # of NumPy, real or complex: its types do not tell one from the other
EPS = float(np.finfo(float).eps)

DEGREES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48)
WIDE = 30.0  # max x / min x from which log x takes part
_BEYOND = 0.5  # of a step
_LOST = 0.01  # of the rows: a fit may answer ⊥ there
_QUICK = (1, 2, 3, 5, 8, 12)  # degrees that tell the noise
_SMALL = 12  # degree up to which coefficients are the first choice; beyond, poles are
_CLEAN = 1e-10  # of the targets: a smaller residual needs no more poles
_FAR = 1e3  # half widths: poles beyond are a polynomial
_SIZES = (16, 24, 32, 48, 64, 100)  # of AAA, from whose poles sums start
_SPLIT, _DOUBLE = 3.0, 1e-6  # standard errors, and half widths, between the halves of one pole
_EXACT = 20.0  # typical error in units of the rounding floor
_NOISE_ROWS = 400
_FEWEST_WHITE, _LARGE = 200, 8.0  # rows that tell; times the median error
_MOST_AROUND = 24  # poles that are kept while N grows
_MOST_TERMS = 100  # of AAA
_LEAST = 8  # candidates that are fitted whatever the clock says
_THERE: dict[str, Any] = {"identity": lambda x: x, "log": np.log, "inverse": np.reciprocal}
_BACK: dict[str, Any] = {"identity": lambda t: t, "log": np.exp, "inverse": np.reciprocal}
_IN = {"identity": "", "log": " in log x", "inverse": " in 1/x"}


class Axis(NamedTuple):
    """u = (t(x) - middle) / half, in [-1, 1] on the rows."""

    transform: str
    middle: float
    half: float

    @classmethod
    def of(cls, x: Array, transform: str) -> "Axis":
        """Scale to the rows."""
        t = _THERE[transform](x)
        return cls(transform, float(t.max() + t.min()) / 2, max(float(np.ptp(t)) / 2, 1e-300))

    def __call__(self, x: Array) -> Array:
        """Return u."""
        return (_THERE[self.transform](x) - self.middle) / self.half

    @property
    def domain(self) -> tuple[float, float]:
        """Return the range of t(x)."""
        return self.middle - self.half, self.middle + self.half

    def inverse(self, u: Array) -> Array:
        """Return x."""
        return _BACK[self.transform](self.middle + self.half * u)


class Polynomial:
    """Chebyshev polynomial of degree p; a ridge penalises all degrees above 1."""

    q, kind = 0, "polynomials of higher degree"

    def __init__(self, axis: Axis, p: int, ridge: float = 0.0) -> None:
        self.axis, self.p, self.ridge, self.free = axis, p, ridge, float(p + 1)
        kind = "constant" if p == 0 else "line" if p == 1 else f"polynomial of degree {p}"
        self.name = kind + (f", ridge {ridge:g}" if ridge else "") + _IN[axis.transform]

    def fit(self, u: Array, y: Array, w: Array, cold: bool) -> tuple[Array, ...]:
        """Return (a, b) for each weighting."""
        A, z = w[..., None] * self.basis(u), (w * y)[..., None]
        if self.ridge:
            penalty = np.sqrt(self.ridge * len(u)) * np.median(w[0])
            P = penalty * np.diag(np.r_[0, 0, np.ones(self.p - 1)][: self.p + 1])
            P = np.broadcast_to(P, (*A.shape[:2], *P.shape))
            whole = np.concatenate([A, P], 2)
            # effective degrees of freedom: the trace of the matrix from targets to answers
            R = np.asarray(np.linalg.qr(whole[0, 0], mode="r"))
            self.free = float((np.abs(np.linalg.solve(R.T.conj(), A[0, 0].T)) ** 2).sum())
            A, z = whole, np.concatenate([z, np.zeros((*P.shape[:3], 1))], 2)
        Q, R = np.linalg.qr(A)
        a = np.linalg.solve(R, adjoint(Q) @ z)[..., 0]
        return np.moveaxis(a, 1, 2), np.ones((len(w), 1))

    def value(self, fit: tuple[Array, ...], u: Array) -> Array:
        """Return answers, `(F, n, m)`."""
        return self.basis(u) @ fit[0]

    def basis(self, u: Array) -> Array:
        """Return T_0(u) … T_p(u)."""
        return chebyshev.chebvander(u, self.p)

    def forms(self, fit: tuple[Array, ...], x: Array) -> list[Form]:
        """Return the function of x for each output, of the first weighting; none in log x."""
        return _quotients(self.axis, fit)


class InversePowers(Polynomial):
    """Polynomial of 1/x, as potentials are: beside the data a pole of many powers.

    In powers of u, which is in (0, 1]: Chebyshev polynomials would cancel where y is small, by all
    the decades that y spans.
    """

    def basis(self, u: Array) -> Array:
        """Return 1, u, … u^p."""
        return np.vander(u, self.p + 1, increasing=True)

    def forms(self, fit: tuple[Array, ...], x: Array) -> list[Form]:
        """Return the function of x for each output."""
        domain, unit = (float(x.min()), float(x.max())), 1 / self.axis.half
        return [InverseForm(c, unit, domain) for c in _tensor(fit[0][0].T)]


class Fraction:
    """N / D, Chebyshev polynomials of degrees p and q."""

    kind = "rational functions of higher degree"

    def __init__(self, axis: Axis, p: int, q: int, start: Array = None) -> None:
        self.axis, self.p, self.q, self.free = axis, p, q, float(p + q + 1)
        self.start = start  # coefficients of D to start from too, (1, q + 1)
        self.name = f"rational function of degrees ({p}, {q})" + _IN[axis.transform]

    def fit(self, u: Array, y: Array, w: Array, cold: bool) -> tuple[Array, ...]:
        """Return (a, b) for each weighting; folds start from the fit of all rows, and cold."""
        H_N, H_D = chebyshev.chebvander(u, self.p), chebyshev.chebvander(u, self.q)
        full = fit_rational(H_N, H_D, y, w[:1], warm=self.start)
        folds = fit_rational(H_N, H_D, y, w[1:], warm=full.b, cold=cold, steps=10, resolved=1e-4)
        both = Fits(*(np.concatenate(pair) for pair in zip(full, folds, strict=True)))
        return both.a, both.b

    def value(self, fit: tuple[Array, ...], u: Array) -> Array:
        """Return answers, `(F, n, m)`; not finite where D = 0."""
        N = chebyshev.chebvander(u, self.p) @ fit[0]
        D = fit[1] @ chebyshev.chebvander(u, self.q).T
        with np.errstate(all="ignore"):
            return N / D[..., None]

    def forms(self, fit: tuple[Array, ...], x: Array) -> list[Form]:
        """Return the function of x for each output; none in log x."""
        return _quotients(self.axis, fit)


def _quotients(axis: Axis, fit: tuple[Array, ...]) -> list[Form]:
    if axis.transform != "identity":
        return []
    a, b = (_tensor(part[0]) for part in fit)
    return [CoefficientForm(each, b, "chebyshev", axis.domain) for each in a.T.contiguous()]


def _tensor(x: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


class Sigmoid:
    """a + (b - a) / (1 + exp(-h (u - c))): Fermi's step, and in log x Hill's law, without a pole.

    Where exp(h u) is written x^h it is the rational function of degrees (1, 1) of x^h.
    """

    p = q = 0
    free, kind = 4.0, "a sigmoid"
    slopes, middles = 2.0 ** np.arange(9), np.linspace(-1.1, 1.1, 23)

    def __init__(self, axis: Axis) -> None:
        self.axis, self.name = axis, "sigmoid" + _IN[axis.transform]

    def fit(self, u: Array, y: Array, w: Array, cold: bool) -> tuple[Array, ...]:
        """Return (a, b, h, c) for each weighting, from the best of a grid of (h, c)."""
        curve, best = _SigmoidBasis(u), (np.inf, np.zeros(2))
        for h in self.slopes:
            grid = np.stack([np.full(len(self.middles), h), self.middles], 1)
            square = linear(curve, y, np.repeat(w[:1], len(grid), 0), grid).objective
            best = min(best, (square.min(), grid[square.argmin()]), key=lambda pair: pair[0])
        start = np.repeat(best[1][None], len(w), 0)
        theta, at = refined(curve, y, w, start, steps=100, resolved=1e-10)
        return (np.concatenate([at.c[:, 0], theta], 1),)

    def value(self, fit: tuple[Array, ...], u: Array) -> Array:
        """Return answers, `(F, n, 1)`."""
        return _SigmoidBasis(u).basis(fit[0][:, 2:]) @ fit[0][:, :2, None]

    def forms(self, fit: tuple[Array, ...], x: Array) -> list[Form]:
        """Return the function of x."""
        low, high, h, middle = _tensor(fit[0][0])
        axis, log = self.axis, self.axis.transform == "log"
        at = axis.middle + axis.half * middle
        return [SigmoidForm(low, high, h / axis.half, at, log, axis.domain)]


class _SigmoidBasis(NamedTuple):
    """The model of a sigmoid: points are (h, c), their coefficients (a, b)."""

    u: Array

    def basis(self, theta: Array) -> Array:
        """Return 1 - z and z."""
        h, c = theta.T[..., None]
        z = 1 / (1 + np.exp(-np.clip(h * (self.u - c), -700, 700)))
        return np.stack([1 - z, z], -1)

    def slopes(self, theta: Array, c: Array) -> Array:
        """Return the slopes by h and c."""
        z = self.basis(theta)[..., 1]
        k = (c[:, 0, 1] - c[:, 0, 0])[:, None] * z * (1 - z)
        return np.stack([k * (self.u - theta[:, 1:]), -k * theta[:, :1]], -1)[:, None]

    def moved(self, theta: Array, step: Array) -> Array:
        """Return the sum; h changes fourfold at most."""
        h = theta[:, 0]
        return np.stack([np.clip(h + step[:, 0], h / 4, 4 * h), theta[:, 1] + step[:, 1]], 1)


class Exponential:
    """a + b exp(h u): decay and growth, and in log x a power law; the tail of a sigmoid."""

    p = q = 0
    free, kind = 3.0, "an exponential"
    rates = np.outer([1, -1], 2.0 ** np.arange(-3, 7)).ravel()

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.name = "exponential" if axis.transform == "identity" else "power law"

    def fit(self, u: Array, y: Array, w: Array, cold: bool) -> tuple[Array, ...]:
        """Return (a, b, h) for each weighting, from the best of some rates."""
        tail, grid = _Tail(u), self.rates[:, None]
        square = linear(tail, y, np.repeat(w[:1], len(grid), 0), grid).objective
        start = np.repeat(grid[square.argmin()][None], len(w), 0)
        theta, at = refined(tail, y, w, start, steps=50, resolved=1e-10)
        return (np.concatenate([at.c[:, 0], theta], 1),)

    def value(self, fit: tuple[Array, ...], u: Array) -> Array:
        """Return answers, `(F, n, 1)`."""
        return _Tail(u).basis(fit[0][:, 2:]) @ fit[0][:, :2, None]

    def forms(self, fit: tuple[Array, ...], x: Array) -> list[Form]:
        """Return the function of x."""
        a, b, h = _tensor(fit[0][0])
        axis, log = self.axis, self.axis.transform == "log"
        start = axis.middle + axis.half * torch.sign(h)
        return [ExponentialForm(a, b, h / axis.half, start, log, axis.domain)]


class _Tail(NamedTuple):
    """The model of an exponential, 1 at the end of [-1, 1] where it is largest; points are h."""

    u: Array

    def basis(self, h: Array) -> Array:
        """Return 1 and exp(h (u ∓ 1))."""
        tail = np.exp(np.clip(h * (self.u - np.sign(h)), -700, 700))
        return np.stack([np.ones_like(tail), tail], -1)

    def slopes(self, h: Array, c: Array) -> Array:
        """Return the slopes by h."""
        slope = c[:, 0, 1:] * self.basis(h)[..., 1] * (self.u - np.sign(h))
        return slope[:, None, :, None]

    def moved(self, h: Array, step: Array) -> Array:
        """Return the sum; h changes fourfold at most and keeps its sign."""
        return np.sign(h) * np.clip(np.abs(h) + np.sign(h) * step, np.abs(h) / 4, 4 * np.abs(h))


class Sum:
    """A sum of simple poles and a polynomial, started from poles near the true ones."""

    kind = "sums of poles"

    def __init__(self, axis: Axis, start: Array, degree: int) -> None:
        self.axis, self.start, self.degree = axis, start, degree
        upper = int((start.imag > 0).sum())
        self.q = len(start) + upper
        self.p = self.q + degree
        self.free = float(2 * self.q + degree + 1)
        self.name = (
            f"sum of {self.q} poles and a polynomial of degree {degree}" + _IN[axis.transform]
        )

    def fit(self, u: Array, y: Array, w: Array, cold: bool) -> tuple[Array, ...]:
        """Return (poles, residues, polynomial) for each weighting; folds start from all rows."""
        full = fit_fractions(u, y, w[0], self.start, self.degree)
        self.se, self.clear = full.position_se, full.significance
        folds = move_fractions(u, y, w[1:], full.poles, self.degree, steps=6)
        return tuple(np.r_[one[None], many] for one, many in zip(full[:3], folds[:3], strict=True))

    def value(self, fit: tuple[Array, ...], u: Array) -> Array:
        """Return answers, `(F, n, m)`."""
        real = not np.iscomplexobj(fit[2])
        answers = []
        for poles, residues, a in zip(*fit, strict=True):
            whole = with_conjugates(poles, residues) if real else (poles, residues)
            answer = fraction_values(*whole, a, u)
            answers.append(answer.real if real else answer)
        return np.stack(answers)

    def forms(self, fit: tuple[Array, ...], x: Array) -> list[Form]:
        """Return the function of x for each output."""
        axis, (p, sums, a), found = self.axis, (part[0] for part in fit), []
        for residues, tail in zip(sums, a, strict=True):
            whole = (p, residues) if np.iscomplexobj(tail) else with_conjugates(p, residues)
            places, r = (_tensor(axis.half * part + 0j) for part in whole)
            found.append(FractionForm(axis.middle + places, r, _tensor(tail), axis.domain))
        return found


class Support:
    """AAA: N / D in barycentric form through m rows (Nakatsukasa, Sète & Trefethen 2018).

    All outputs share the support points and weights, and so their poles.
    """

    kind = "AAA"

    def __init__(self, axis: Axis, terms: int) -> None:
        self.axis, self.terms = axis, terms
        self.p = self.q = terms - 1
        self.free = 2.0 * terms - 1
        self.name = f"AAA with {terms} support points" + _IN[axis.transform]

    def fit(self, u: Array, y: Array, w: Array, cold: bool) -> tuple[Array, ...]:
        """Return (points, values, weights), padded with weights of 0, for each weighting."""
        F, m = len(w), len(y)
        z, f, v = np.zeros((F, self.terms)), np.zeros((F, m, self.terms), y.dtype), None
        v = np.zeros((F, self.terms), y.dtype)
        for i, weight in enumerate(w):
            used = np.flatnonzero(weight.max(0) > 0)
            path = list(_greedy(u[used], y[:, used], weight[:, used], self.terms))
            if not path:
                raise np.linalg.LinAlgError("AAA needs rows that differ")
            support, weights = path[-1]
            k = len(support)
            z[i, :k], f[i, :, :k], v[i, :k] = u[used][support], y[:, used][:, support], weights
        return z, f, v

    def value(self, fit: tuple[Array, ...], u: Array) -> Array:
        """Return answers, `(F, n, m)`."""
        return np.stack([_barycentric(u, *one) for one in zip(*fit, strict=True)])

    def forms(self, fit: tuple[Array, ...], x: Array) -> list[Form]:
        """Return the function of x for each output."""
        z, f, v = (_tensor(part[0]) for part in fit)
        used = v != 0  # a point without weight would be ⟨0, 0⟩
        at, v = self.axis.middle + self.axis.half * z[used], v[used]
        return [BarycentricForm(at, each[used], v) for each in f]


def _greedy(u: Array, y: Array, w: Array, most: int) -> Iterator[tuple[Any, Array]]:
    """Yield support rows and weights of rising size: the worst row becomes the next point."""
    taken: list[int] = []
    answer = np.repeat(y.mean(1, keepdims=True), len(u), 1)
    C = np.empty((len(u), 0))
    for _ in range(min(most, len(u) - 1)):
        error = (np.abs(y - answer) * w).max(0)
        error[taken] = -1
        worst = int(error.argmax())
        if error[worst] <= 0:
            return
        taken.append(worst)
        with np.errstate(divide="ignore"):
            C = np.c_[C, 1 / (u - u[worst])]
        rest = np.isfinite(C).all(1)  # neither the support nor its replicates
        f = y[:, taken]
        A = [(w[j, rest, None] * (y[j, rest, None] - f[j])) * C[rest] for j in range(len(y))]
        A = np.concatenate(A)
        if A.shape[0] < A.shape[1]:
            return
        try:
            v = np.linalg.svd(np.linalg.qr(A, mode="r"))[2][-1].conj()
        except np.linalg.LinAlgError:
            return
        with np.errstate(all="ignore"):
            answer = y.copy()
            answer[:, rest] = (C[rest] @ (v * f).T).T / (C[rest] @ v)
        answer = np.where(np.isfinite(answer), answer, 0)
        yield np.array(taken), v


def _barycentric(u: Array, z: Array, f: Array, v: Array) -> Array:
    used = v != 0
    z, f, v = z[used], f[:, used], v[used]
    with np.errstate(all="ignore"):
        C = 1 / (u[:, None] - z)
        answer = (C @ (v * f).T) / (C @ v)[:, None]
    row, point = np.nonzero(u[:, None] == z)
    answer[row] = f[:, point].T
    return answer


def _zeros(z: Array, v: Array) -> Array:
    """Return the zeros of Σ v / (u - z): eigenvalues of an arrowhead pencil."""
    z, v = z[v != 0], v[v != 0]
    k = len(z)
    E, B = np.zeros((k + 1, k + 1), v.dtype), np.eye(k + 1)
    E[0, 1:], E[1:, 0], E[1:, 1:] = v, 1, np.diag(z)
    B[0, 0] = 0
    zeros: Any = linalg.eigvals(E, B)
    zeros = zeros[np.isfinite(zeros)]
    real = np.abs(zeros.imag) < 1e-9 * (1 + np.abs(zeros))
    return np.where(real, zeros.real, zeros)


class Pole(NamedTuple):
    """A zero of D in u, with standard errors by the delta method."""

    u: complex
    se: float
    significance: float  # |N| over its standard error there
    inside: bool


class LineEntry(Entry):
    """A candidate of one column, with its poles."""

    def __init__(
        self, candidate: Any, fit: tuple[Array, ...], answers: Array, floor: Array
    ) -> None:
        super().__init__(candidate, fit, answers, floor)
        self.poles: list[Pole] = []
        self.inside = 0  # poles among the rows
        self.few = self.doubtful = False

    def zeros(self) -> Array:
        """Return the zeros of D in u."""
        if isinstance(self.candidate, Support):
            return _zeros(self.fit[0][0], self.fit[2][0])
        return np.array([pole.u for pole in self.poles], complex)

    @property
    def price(self) -> float:
        """Return the standard errors it must win by."""
        if self.inside:
            return POLE
        return 0.0 if self.name == "constant" else BEND

    @property
    def level(self) -> float:
        """Return how far from plain it is: constant, line, curve, one pole among the rows, two."""
        plain = {"constant": 0, "line": 2 if self.few else 1}  # few rows tell no line from a curve
        return 2 + self.inside if self.inside else plain.get(self.name, 2)


def race_line(  # noqa: PLR0913 - rows, and what was asked
    x: Array,
    y: Array,
    *,
    weight: Array | None = None,
    group: Array | None = None,
    seed: int = 0,
    clock: Budget | None = None,
    degrees: tuple[int, int] | None = None,
    plain: bool = False,
    affine: bool = False,
) -> RaceFit:
    """Choose a model of one column.

    Args:
        x: `(n,)`, finite, not constant.
        y: Finite targets, `(n, m)`, real or complex; all outputs share D.
        weight: Row weights, `(n,)`.
        group: Of each row, `(n,)`; a fold holds whole groups.
        seed: Of the folds.
        clock: Of the whole fit: at its end larger candidates are not tried.
        degrees: (p, q) of N and D; found by default.
        plain: Only rational functions of x itself take part.
        affine: D keeps its sign on the rows: no pole lies among them.

    Raises:
        RangeError: Nothing that was asked for can be fitted.
    """
    weight = np.ones(len(x)) if weight is None else weight
    asked = _Asked(seed, clock or Budget(), degrees, plain, affine)
    with np.errstate(all="ignore"):  # what is not finite drops out by its errors
        return _raced(x, y, weight, group, asked)


class _Asked(NamedTuple):
    seed: int
    clock: Budget
    degrees: tuple[int, int] | None
    plain: bool
    affine: bool


def _raced(x: Array, y: Array, weight: Array, group: Array | None, asked: _Asked) -> RaceFit:
    race = _LineRace(x, y, weight, group, asked)
    part = race
    if len(x) > _NOISE_ROWS:
        drawn = np.random.default_rng(asked.seed).permutation(len(x))
        drawn = with_all_groups(drawn, group)[:_NOISE_ROWS]
        part = _LineRace(
            x[drawn], y[drawn], weight[drawn], None if group is None else group[drawn], asked
        )
    errors = {}
    for noise in NOISES if part.distinct >= 5 else ("additive",):
        part.begin(noise)
        part.ladder(quick=True)
        if not part.entries:
            continue
        best = min(part.entries, key=lambda e: float(np.sqrt(e.held.error).mean()))
        errors[noise] = np.maximum(np.abs(best.answers - part.y), best.floor)[part.inner]
    race.begin(likeliest(errors, part.y[part.inner]) if errors else "additive")
    race.ladder()
    admitted = race.admitted()
    if not admitted:
        raise RangeError(
            "degrees, rows and topology must allow at least one candidate, got "
            f"{asked.degrees} and {len(x)} rows"
        )
    best = min(race.entries, key=lambda e: e.held.typical)
    if isinstance(best.candidate, Sum):  # quick degrees took poles for noise
        error = np.maximum(np.abs(best.answers - race.y), best.floor)[race.inner]
        again = likeliest(dict.fromkeys(errors, error), race.y[race.inner])
        if again != race.noise:
            race.begin(again)
            race.ladder()
            admitted = race.admitted()
    chosen: Any = winner(admitted, slack=0.0 if race.replicated else 1.0)
    tied = (chosen, *ties(chosen, admitted))
    return RaceFit(
        chosen, tuple(race.entries), tied, race.noise, race.g, race.fold, race.inner,
        race.distinct,
    )  # fmt: skip


class _LineRace:
    def __init__(
        self, x: Array, y: Array, weight: Array, group: Array | None, asked: _Asked
    ) -> None:
        self.x, self.y, self.weight, self.asked = x, y, weight, asked
        self.fold, self.distinct = folds_of(x[:, None], asked.seed, group)
        self.count = int(self.fold.max()) + 1
        self.inner = inner_rows(x[:, None], self.fold)
        # poles of a function of log x would not be those of a complex signal
        wide = bool(x.min() > 0 and x.max() > WIDE * x.min()) and not np.iscomplexobj(y)
        wide &= not asked.plain
        self.axes = [Axis.of(x, name) for name in ("identity", "log")[: 1 + wide]]
        # replicates show the noise: then all rows tell by Akaike's corrected criterion, for an
        # input left out of so few is mostly a matter of where it lies; of groups the noise is not
        # that of rows alone
        few = self.distinct <= LEAVE_ONE_OUT
        self.replicated = group is None and few and len(x) >= 2 * self.distinct
        self.cap = fewest_seen(x, self.fold) - 1 + self.replicated  # coefficients
        if self.replicated or self.distinct > LEAVE_ONE_OUT:
            self.inner[:] = True  # only of few inputs one in ten or more lies at an end

    def begin(self, noise: str) -> None:
        """Forget all entries and weigh rows for a noise."""
        self.noise, self.g = noise, deviation(self.y, noise)
        root = np.sqrt(self.weight)[None] / self.g.T
        self.w = np.repeat(root[None], self.count + 1, 0)
        for f in range(self.count):
            self.w[f + 1][:, self.fold == f] = 0
        self.entries: list[LineEntry] = []

    def ladder(self, *, quick: bool = False) -> None:
        """Enter candidates from the smallest on."""
        first = self.axes[0]
        if self.asked.degrees is not None:
            p, q = self.asked.degrees
            self.enter(Fraction(first, p, q) if q else Polynomial(first, p))
            if not quick:
                self.enter(Polynomial(first, 0))  # to compare with
            return
        constant = self.enter(Polynomial(first, 0))
        if constant is not None and constant.exact:
            return
        self.enter(Polynomial(first, 1))
        if self.distinct < 5:
            return
        for axis in self.axes:
            self._plain(axis, quick=quick)
            if self.distinct >= 7:
                self._rational(axis, quick=quick)
        if self.distinct < 7:
            self.enter(Fraction(first, 0, 1))
            self.enter(Fraction(first, 1, 1))
            return
        self._support(first)
        if not quick:
            for axis in self.axes:
                self._around(axis)
            self._inverse_powers()

    def _plain(self, axis: Axis, *, quick: bool) -> None:
        if axis is not self.axes[0]:
            self.enter(Polynomial(axis, 1))
        self.enter(Polynomial(axis, 2))
        real = self.y.shape[1] == 1 and not np.iscomplexobj(self.y) and not self.asked.plain
        if self.cap >= 3 and real:
            self.enter(Exponential(axis))
        if self.cap >= 4 and real:
            self.enter(Sigmoid(axis))
        if self.distinct < 7:
            return
        for p in range(3, min(self.cap, 4 if quick else 12)):
            self.enter(Polynomial(axis, p))
        for ridge in (1e-3, 1e-2, 1e-1):
            self.enter(Polynomial(axis, min(7, self.distinct - 1), ridge))

    def _inverse_powers(self) -> None:
        low, high = self.x.min(), self.x.max()
        if self.asked.plain or low <= 0 or high < 1.5 * low or self.distinct < LEAVE_ONE_OUT:
            return
        axis = Axis("inverse", 0.0, 1 / float(low))
        for p in range(1, min(self.cap, 13)):
            self.enter(InversePowers(axis, p))

    def _rational(self, axis: Axis, *, quick: bool) -> None:
        """Enter diagonal degrees until two in a row are at rounding, with neighbours at first."""
        exact = 0
        for k in _QUICK if quick else DEGREES:
            if k > _SMALL and self._white():
                return
            plain = axis is self.axes[0]  # a sum of poles in log x is none in x
            if plain and k == next(d for d in DEGREES if d > _SMALL) and self._sums(axis):
                return
            pairs = ((k - 1, k), (k, k), (k + 1, k)) if k <= 4 and not quick else ((k, k),)
            entries = [self.enter(Fraction(axis, *pair)) for pair in pairs]
            exact += any(e is not None and e.exact for e in entries)
            if exact > 1 or 2 * k + 1 > self._most():
                return

    def _white(self) -> bool:
        """Tell whether errors of neighbours have nothing to do with each other, and none is large.

        Then nothing is left to find. Errors are ranked, so that a few large ones do not decide.
        """
        best = min(self.entries, key=lambda e: e.held.body)
        if len(self.x) < _FEWEST_WHITE or best.exact or np.iscomplexobj(self.y):
            return False
        left = (best.answers - self.y) / self.g
        size = np.abs(left)
        if not size.max() < _LARGE * np.median(size):
            return False
        rank = left[np.argsort(self.x)].argsort(0).argsort(0) / len(left) - 0.5
        r = 12 * (rank[1:] * rank[:-1]).mean(0)  # over the variance of a rank
        return bool((np.abs(r) < 2 / np.sqrt(len(left))).all())

    def _sums(self, axis: Axis) -> bool:
        """Enter sums of poles, and tell whether larger denominators have nothing to add.

        AAA with more terms than there are poles has the true ones among its own. Those that noise
        could have made are taken out, half of them at a time, while the others are fitted again.
        """
        if self.cap < 4 * _SMALL:
            return False
        u, y, w = axis(self.x), self.y.T, self.w[0]
        found, real = [], not np.iscomplexobj(y)
        path = list(_greedy(u, y, w, min(_MOST_TERMS, self.cap // 2)))
        for rows, v in (one for one in path if len(one[0]) in (*_SIZES, len(path))):
            start = _zeros(u[rows], v)
            start = start[np.abs(start) < _FAR]
            fit = self._significant(u, start[start.imag >= 0] if real else start)
            if fit is None:
                continue
            # Schwarz's criterion: what a pole takes off has to be worth its two numbers
            size = np.log(fit.objective + 1e-300)
            size += 2 * len(fit.poles) * np.log(w.size) / w.size
            found.append((size, len(found), fit.poles))
            if fit.objective < _CLEAN**2 * float((np.abs(w * y) ** 2).sum()):
                break
        poles = min(found)[2] if found else np.zeros(0)
        before = min((e.held.typical for e in self.entries), default=np.inf)
        inside = poles[(poles.imag == 0) & (np.abs(poles) <= 1)]
        tried = [(poles, 0), (poles, 1), *((inside, d) for d in (0, 2, 4, 8, 12))]
        after = np.inf
        for each, d in tried:
            entry = self.enter(Sum(axis, each, d)) if len(each) > _SMALL else None
            if entry is not None:
                after = min(after, entry.held.typical)
                if entry.exact:
                    break
        return after * TYPICAL < before

    def _significant(self, u: Array, start: Array) -> Any:
        while len(start):
            try:
                fit = fit_fractions(u, self.y.T, self.w[0], start, 0, steps=10)
            except np.linalg.LinAlgError:
                return None
            doubtful = int((fit.significance < SIGNIFICANT).sum())
            if not doubtful:
                return fit
            start = fit.poles[np.argsort(fit.significance)[max(1, doubtful // 2) :]]
        return None

    def _support(self, axis: Axis) -> None:
        """Enter AAA of the size that does best on the first fold."""
        u, y, own = axis(self.x), self.y.T, self.fold == 0
        if not own.any() or self.cap < 5:
            return
        w, rest, sizes, errors = self.w[1], np.flatnonzero(~own), [], []
        most = min(_MOST_TERMS, (self.cap + 1) // 2)
        for support, v in _greedy(u[rest], y[:, rest], w[:, rest], most):
            f = y[:, rest][:, support]
            error = np.abs(_barycentric(u[own], u[rest][support], f, v) - self.y[own])
            error = np.where(np.isfinite(error), error, 1e150) / self.g[own]
            sizes.append(len(support))
            errors.append(float(np.median(error)) + 1e-15)
        if not errors:
            return
        good = np.flatnonzero(np.array(errors) <= 3 * min(errors))
        if sizes[good[0]] > 2:
            self.enter(Support(axis, sizes[good[0]]))

    def _around(self, axis: Axis) -> None:
        """Enter the neighbours of the best, then as many poles as matter, N longer."""
        top = self._best(axis)
        if top is not None and top.candidate.q:
            p, q = top.candidate.p, top.candidate.q
            for pair in ((p - 1, q), (p + 1, q), (p, q - 1), (p, q + 1)):
                self.enter(Fraction(axis, *pair))
        for top in {self._best(axis), self._best(axis, doubtful=True)}:
            if top is None:
                continue
            clear = [pole for pole in top.poles if pole.significance > SIGNIFICANT]
            beside = [pole for pole in top.poles if not pole.inside]
            kept = (
                clear,
                [pole for pole in clear if pole.inside],
                list(dict.fromkeys([*clear, *beside])),
            )
            for some in kept:
                q = len(some)
                if 0 < q <= min(top.candidate.q, _MOST_AROUND):
                    b = chebyshev.chebfromroots([pole.u for pole in some])
                    start = (b if np.iscomplexobj(self.y) else b.real)[None]
                    for p in range(max(q - 1, 0), min(q + 12, self.cap - q)):
                        self.enter(Fraction(axis, p, q, start))

    def _best(self, axis: Axis, *, doubtful: bool = False) -> LineEntry | None:
        mine = [e for e in self.entries if isinstance(e.candidate, Polynomial | Fraction)]
        mine = [e for e in mine if e.candidate.axis is axis and e.doubtful <= doubtful]
        return min(mine, key=lambda e: e.held.body, default=None)

    def enter(self, candidate: Any) -> LineEntry | None:
        """Fit to all rows and to all but each fold; nothing, if that has no finite answer."""
        too_large = candidate.free > self._most() and candidate.q and self.asked.degrees is None
        if candidate.p < 0 or too_large or any(e.name == candidate.name for e in self.entries):
            return None
        if len(self.entries) > _LEAST and not self.asked.clock.allows(candidate.kind):
            return None
        u = candidate.axis(self.x)
        few = len(u) <= min(400, 60 * candidate.free)  # more rows: the fit of all is a good start
        try:
            fits = candidate.fit(u, self.y.T, self.w, few)
        except np.linalg.LinAlgError:
            return None
        held = np.full(self.y.shape, np.nan, self.y.dtype)
        for f in range(self.count):
            own = self.fold == f
            held[own] = candidate.value(tuple(part[f + 1 : f + 2] for part in fits), u[own])[0]
        full = tuple(part[:1] for part in fits)
        # what rounding of x and of y alone can do: below, all candidates are equal
        with np.errstate(all="ignore"):
            up, down = (
                candidate.value(full, candidate.axis(self.x * (1 + d)))[0] for d in (1e-7, -1e-7)
            )
            slope = np.abs(up - down) / 2e-7
        floor = 50 * EPS * (np.abs(self.y) + np.where(np.isfinite(slope), slope, 0)) + 1e-100
        entry = LineEntry(candidate, full, held, floor)
        entry.few = self.distinct <= LEAVE_ONE_OUT
        error = self.score(entry, floor)
        if isinstance(candidate, Support):
            zeros = entry.zeros()
            entry.inside = int(((zeros.imag == 0) & (np.abs(zeros) <= 1)).sum())
        if isinstance(candidate, Sum):
            entry.poles = [
                Pole(z, se, clear, bool(z.imag == 0 and abs(z) <= 1))
                for z, se, clear in zip(full[0][0], candidate.se, candidate.clear, strict=True)
            ]
            entry.inside = sum(pole.inside for pole in entry.poles)
        entry.exact = float(np.median((error / floor)[self.inner])) < _EXACT
        fitted = np.abs(candidate.value(full, u)[0] - self.y)
        worst = 10 * np.median(error[self.inner]) + np.median(floor)
        if not np.median(fitted) <= worst or np.mean(~np.isfinite(fitted)) > _LOST:
            return None  # all rows together led elsewhere than parts of them
        if isinstance(candidate, Fraction) and candidate.q:
            try:
                self._judge(entry, u)
            except np.linalg.LinAlgError:  # a row on a zero of D
                return None
        self.entries.append(entry)
        return entry

    def _most(self) -> float:
        """Return how many coefficients can win: no more than take y to rounding without a pole."""
        exact = (e.free for e in self.entries if e.exact and not e.inside and not e.doubtful)
        return min([self.cap, *exact])

    def score(self, entry: LineEntry, floor: Array) -> Array:
        """Score held-out answers; errors below the floor are equal."""
        error = np.abs(entry.answers - self.y)
        error = np.where(np.isfinite(error), np.maximum(error, floor), 1e150)
        square = np.minimum((error / self.g) ** 2, 1e300).mean(1)
        if self.replicated:
            c, n, k = entry.candidate, len(self.x), entry.free + 1
            error = np.abs(c.value(entry.fit, c.axis(self.x))[0] - self.y)
            error = np.where(np.isfinite(error), np.maximum(error, floor), 1e150)
            square = np.minimum((error / self.g) ** 2, 1e300).mean(1)
            square *= np.exp(2 * k / max(n - k - 1, 0.5))
        entry.held = Held(square[self.inner], self.fold[self.inner], self.noise)
        return error

    def _judge(self, entry: LineEntry, u: Array) -> None:
        """Find the zeros of D and how well they are known."""
        c, a, b = entry.candidate, entry.fit[0][0], entry.fit[1][0]
        cov = covariance(c, a, b, u, self.y, self.w[0], entry.floor)
        for z in chebyshev.chebroots(b):
            h_N, h_D = (chebyshev.chebvander(np.array([z]), d)[0] for d in (c.p, c.q))
            turn = chebyshev.chebval(z, chebyshev.chebder(b)) or 1e-300
            moves = np.r_[np.zeros(a.size), -h_D / turn]  # of the zero, with the coefficients
            clear = 0.0
            for j in range(a.shape[1]):
                rise = chebyshev.chebval(z, chebyshev.chebder(a[:, j])) if c.p else 0.0
                g = rise * moves
                g[j * (c.p + 1) : (j + 1) * (c.p + 1)] += h_N
                clear = max(clear, abs(h_N @ a[:, j]) / max(_root(g, cov), 1e-300))
            real = abs(z.imag) < 1e-9 * (1 + abs(z))
            entry.poles.append(Pole(z, _root(moves, cov), clear, real and abs(z.real) <= 1))
        entry.inside = _distinct([pole for pole in entry.poles if pole.inside])
        entry.doubtful = any(
            pole.inside and pole.significance < SIGNIFICANT for pole in entry.poles
        )

    def admitted(self) -> list[LineEntry]:
        """Return entries without doubtful poles that do not leave the range between rows."""
        exact = [e for e in self.entries if e.exact]
        for e in exact:  # rounding is no reason to choose between them
            self.score(e, _EXACT * np.max([other.floor for other in exact], 0))
        grid = np.concatenate([axis.inverse(_between(axis(self.x))) for axis in self.axes])
        if self.x.min() >= 0:  # amounts, of which there are none below 0
            grid = grid[grid > 0]
        parts = [part(self.y) for part in (np.real, np.imag)[: 1 + np.iscomplexobj(self.y)]]

        places = np.unique(self.axes[0](self.x))
        step = float(np.median(np.diff(places)))

        def peak(pole: Pole) -> bool:
            """Is it a resonance that rows resolve, or a double pole that noise has split?"""
            width = abs(pole.u.imag)
            clear = pole.significance > SIGNIFICANT and abs(pole.u.real) <= 1
            return clear and (width >= step or width < 3 * pole.se)

        def wild(entry: LineEntry) -> bool:
            if entry.inside or entry.exact or any(map(peak, entry.poles)):
                return False
            answer = entry.candidate.value(entry.fit, entry.candidate.axis(grid))[0]
            for part, y in zip((np.real, np.imag), parts, strict=False):
                low, high, f = y.min(0), y.max(0), part(answer)
                if not ((f <= high + (high - low) / 2) & (f >= low - (high - low) / 2)).all():
                    return True
            return False

        entries = [e for e in self.entries if not (self.asked.affine and e.inside)]
        if self.asked.degrees is not None:  # whatever they make of the rows
            return [e for e in entries if (e.candidate.p, e.candidate.q) == self.asked.degrees]
        return [e for e in entries if not e.doubtful and not wild(e)] or entries[:1]


def _distinct(poles: list[Pole]) -> int:
    """Count real poles; two that are no farther apart than their errors are a double one."""
    ordered = sorted(poles, key=lambda pole: pole.u.real)
    apart = (
        abs(two.u - one.u) > _SPLIT * (one.se + two.se) + _DOUBLE for one, two in pairwise(ordered)
    )
    return bool(ordered) + sum(apart)


def _between(u: Array) -> Array:
    """Return points between neighbouring places, and half the last step beyond both ends."""
    places = np.unique(u)
    first, last = _BEYOND * np.diff(places)[[0, -1]]
    places = np.r_[places[0] - first, places, places[-1] + last]
    if len(places) > 400:
        return np.linspace(places[0], places[-1], 4000)
    inside = [np.linspace(*pair, 9)[1:-1] for pair in pairwise(places)]
    return np.concatenate([places[:1], *inside, places[-1:]])


def covariance(
    c: Fraction, a: Array, b: Array, u: Array, y: Array, w: Array, floor: Array
) -> Array:
    """Return the covariance of (a of each output, b), by the delta method; never below rounding."""
    H_N, H_D = chebyshev.chebvander(u, c.p), chebyshev.chebvander(u, c.q)
    D, k = H_D @ b, c.p + 1
    blocks, square = [], 0.0
    for j in range(y.shape[1]):
        answer = H_N @ a[:, j] / D
        J = np.zeros((len(u), a.size + len(b)), np.result_type(a, b))
        J[:, j * k : (j + 1) * k] = H_N / D[:, None]
        J[:, a.size :] = -(answer / D)[:, None] * H_D
        blocks.append(J * w[j][:, None])
        square += float((np.hypot(np.abs(answer - y[:, j]), floor[:, j]) ** 2 * w[j] ** 2).sum())
    J = np.concatenate(blocks)
    freedom = max(len(J) - a.size - len(b) + 1, 1)
    return np.linalg.pinv(adjoint(J) @ J, rcond=1e-15, hermitian=True) * (square / freedom)


def _root(g: Array, cov: Array) -> float:
    variance: Any = g @ cov @ g.conj()
    return float(np.sqrt(max(variance.real, 0.0)))
