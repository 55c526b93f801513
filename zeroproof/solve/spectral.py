"""Spectral readout: the projective head in closed form, an extreme singular vector.

Rows are checked and brought to unit tuples, slice by slice; a reading of all of them leaves small
triangular factors; the answer is an extreme singular vector of those; it weighs the rows of the
next reading. A reading may be spread over processes, and the rows need never be in memory at once.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, positive, whole
from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.projective.angle import norm
from zeroproof.projective.tuples import rescaled
from zeroproof.solve.tall_qr import TallQR, buffer_rows, from_first, gathered, stacked

__all__ = ["Readout", "ReadoutOptions", "spectral_readout", "streamed_readout"]

Item = TypeVar("Item")
RowIndex: TypeAlias = slice | Tensor | Sequence[int]
Parts: TypeAlias = (
    tuple[Tensor, Tensor | None, Tensor, Tensor]
    | tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None]
)

_PER_OCTAVE, _OCTAVES = 32, 64  # of the histogram of |p|, on either side of 1
_STEPS = 6  # of inverse iteration for each ρ of a path, warm from the one before
_COMMON_ZERO = 1e-4  # clearance: with n rows, a zero between them leaves some 1/n


class ReadoutOptions(TypedDict, total=False):
    r"""Options of a spectral readout.

    Attributes:
        rho: ρ, penalty on the squared weights, default 1e-12; above 0. It keeps N and D from
            vanishing together. Clean data want 1e-30, noise of 1 % some 1e-5: `choose_rho` finds
            it. What the precision cannot resolve is raised to it: about 5e-32 in float64, 1e-14
            in float32.
        sweeps: How often the rows are weighed by 1/‖(N, D)‖ and solved, default 5, at least 1;
            the first weighs all alike, the best chordal distance is kept.
        shared_denominator: One D for all outputs (default), or one for each.
        dtype: `torch.float64` (default; other precisions are converted) or `torch.float32`, in
            which then everything runs, for devices without float64.
    """

    rho: float
    sweeps: int
    shared_denominator: bool
    dtype: torch.dtype


class Readout(NamedTuple):
    r"""A projective head in closed form: N = H_N a, D = H_D b.

    Attributes:
        a: Weights of N, `(k_N,)`, or `(k_N, m)` where the targets are `(n, m)`.
        b: Weights of D, `(k_D,)`, or `(k_D, 1)` if shared, `(k_D, m)` if not. The gauge is that
            of unit mean square of (N, D), the largest weight of b positive.
        objective: Weighted mean of the squared chordal distance, in [0, 1].
        rho: The ρ asked for.
        clearance: min\|p\| / median\|p\| over the rows, p the modulus of (N, D): near 0 where N
            and D have a common zero. Of separate denominators, the smallest.
        condition: Larger condition number of H_N and H_D (their factors are never inverted).
    """

    a: Tensor
    b: Tensor
    objective: float
    rho: float
    clearance: float
    condition: float


class Block(NamedTuple):
    """Rows as they were given."""

    H_N: Tensor
    H_D: Tensor | None
    Y_n: Tensor
    Y_d: Tensor
    weight: Tensor | None = None

    def cut(self, at: RowIndex) -> "Block":
        """Return the rows `at`."""
        H_D = None if self.H_D is None or self.H_D is self.H_N else self.H_D[at]
        weight = None if self.weight is None else self.weight[at]
        return Block(self.H_N[at], H_D, self.Y_n[at], self.Y_d[at], weight)

    def given(self) -> dict[str, Tensor]:
        """Return what is not None, by name."""
        return {name: x for name, x in self._asdict().items() if x is not None}


class Spec(NamedTuple):
    """What all blocks have in common."""

    k_n: int  # features of N
    k_d: int
    outputs: int
    one_basis: bool
    is_complex: bool
    flat: bool  # targets are `(n,)`, not `(n, m)`

    def said(self) -> str:
        kind = "complex" if self.is_complex else "real"
        bases = "one basis" if self.one_basis else "two bases"
        return f"{kind}, {bases}, H_N {self.k_n}, H_D {self.k_d}, {self.outputs} outputs"


class UnitRows(NamedTuple):
    """Rows ready to be reduced; tuples are of unit size, `(n, m)`."""

    H_N: Tensor  # (n, k_N)
    H_D: Tensor  # (n, k_D), the same object as H_N where the bases are one
    Y_n: Tensor
    Y_d: Tensor
    weight: Tensor  # (n, m), 0 where a tuple is ⟨0, 0⟩: it states nothing


def re_iterable(blocks: Iterable[Item]) -> Iterable[Item]:
    """Return `blocks` if it can be read more than once; an iterator is used up by one sweep."""
    if isinstance(blocks, Iterator):
        raise DataError(
            "blocks must be iterable more than once, since every sweep reads them again; pass a "
            f"list, a DataLoader or an object with __iter__, got {type(blocks).__name__}"
        )
    return blocks


def slices(
    blocks: Iterable[Parts], dtype: torch.dtype, *, check: bool
) -> Iterator[tuple[Spec, UnitRows]]:
    """Yield slices of bounded memory in the working dtype; values are looked at if `check`."""
    first, offset = None, 0
    for parts in blocks:
        H_N, H_D, Y_n, Y_d, *weight = parts
        block = Block(H_N, H_D, Y_n, Y_d, *weight)
        spec = checked_spec(block)
        first = first or spec
        if spec != first:
            raise ShapeError(f"all blocks must be alike, got {first.said()} and then {spec.said()}")
        step = buffer_rows(spec.k_n + spec.k_d)
        for start in range(0, len(block.H_N), step):
            part = block.cut(slice(start, start + step))
            if check:
                _check_values(part, offset + start)
            yield spec, _rows(part, spec, dtype)
        offset += len(block.H_N)


def checked_spec(block: Block) -> Spec:
    """Return what a block is made of, if its parts belong together."""
    H_N, Y_n = block.H_N, block.Y_n
    H_D = H_N if block.H_D is None else block.H_D
    for H, name in ((H_N, "H_N"), (H_D, "H_D")):
        if H.ndim != 2 or H.shape[1] == 0:
            raise ShapeError(f"{name} must be (rows, features), got {tuple(H.shape)}")
    if Y_n.ndim not in {1, 2} or 0 in Y_n.shape[1:]:
        raise ShapeError(f"Y_n must be (rows,) or (rows, outputs), got {tuple(Y_n.shape)}")
    if block.weight is not None and block.weight.ndim != 1:
        raise ShapeError(f"weight must be (rows,), got {tuple(block.weight.shape)}")
    given = block.given()
    lengths = {name: len(x) for name, x in given.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ShapeError(f"all arguments must have the same number of rows, got {listed}")
    pair_shapes(Y_n, block.Y_d, "Y_n and Y_d")
    is_complex = any(x.is_complex() for x in given.values())
    outputs = 1 if Y_n.ndim == 1 else Y_n.shape[1]
    return Spec(H_N.shape[1], H_D.shape[1], outputs, H_D is H_N, is_complex, Y_n.ndim == 1)


def _check_values(block: Block, offset: int) -> None:
    for name, x in block.given().items():
        fine = torch.isfinite(x)
        fine = fine.all(1) if x.ndim == 2 else fine
        if not fine.all():
            hint = "; lift targets to tuples first" if name in {"Y_n", "Y_d"} else ""
            raise DataError(
                f"{name} must be finite, got otherwise in {listed(~fine, offset)}{hint}"
            )
    if block.weight is not None and (block.weight < 0).any():
        raise RangeError(
            f"weight must be at least 0, got otherwise in {listed(block.weight < 0, offset)}"
        )


def listed(wrong: Tensor, offset: int = 0) -> str:
    """Name the rows of a mask: "row 3", "rows 1, 2, 5"; at most five."""
    where = torch.nonzero(wrong)[:, 0] + offset
    shown = ", ".join(str(row) for row in where[:5].tolist())
    more = f" and {len(where) - 5} more" if len(where) > 5 else ""
    return f"row{'s' * (len(where) > 1)} {shown}{more}"


def _rows(block: Block, spec: Spec, dtype: torch.dtype) -> UnitRows:
    working = dtype.to_complex() if spec.is_complex else dtype
    H_N = block.H_N.to(working)
    H_D = H_N if block.H_D is None else block.H_D.to(working)
    Y_n, Y_d = (Y.reshape(len(Y), -1).to(working) for Y in (block.Y_n, block.Y_d))
    Y_n, Y_d, _ = rescaled(Y_n, Y_d.expand_as(Y_n))
    weight = ((Y_n != 0) | (Y_d != 0)).to(dtype)
    if block.weight is not None:
        weight = weight * block.weight.to(dtype)[:, None]
    size = norm(Y_n, Y_d)
    return UnitRows(H_N, H_D, Y_n / size, Y_d / size, weight)


class Settings(NamedTuple):
    """Options that were checked."""

    rho: float = 1e-12
    sweeps: int = 5
    shared_denominator: bool = True
    dtype: torch.dtype = torch.float64


class Factors(NamedTuple):
    """Everything that the small algebra needs about the rows."""

    R: Tensor  # (m, k, k), k = k_N + k_D: factors of √(w/Σw) t_j [Y_d,j H_N, -Y_n,j H_D]
    R_N: Tensor  # (k_N, k_N), factor of √(w/Σw) H_N
    R_D: Tensor


class Scores(NamedTuple):
    """How well a solution did; sums over rows and outputs."""

    outputs: list[int]
    rows: int
    weight: float
    error: float  # Σ w chordal²
    finite: list[bool]  # does the output have a finite target?
    smallest: float  # of |p|, the modulus of the whole tuple of a row
    histogram: Tensor  # of log₂|p|, counted by the mean weight of a row

    @property
    def clearance(self) -> float:
        r"""min|p| / median|p|, the weighted median to 1 %."""
        below = self.histogram.cumsum(0)
        at = int(torch.searchsorted(below, below[-1:] / 2))
        return self.smallest / 2 ** ((at + 0.5) / _PER_OCTAVE - _OCTAVES)


class SweepTotals(NamedTuple):
    """What one process found for one problem."""

    residual: list[Tensor]
    features: list[Tensor]
    scores: Scores


class Problem(NamedTuple):
    """Outputs that share one denominator, and the solution that weighs their rows."""

    outputs: list[int]
    pair: tuple[Tensor, Tensor] | None = None  # a, (k_N, m), and b, (k_D, 1), of unit mean square


def read(
    blocks: Iterable[Parts],
    problems: list[Problem] | None,
    settings: Settings,
    *,
    distributed: bool,
    features: bool = True,
    residual: bool = True,
) -> tuple[Spec, list[SweepTotals]]:
    """Read all rows once, on all processes; without problems, all rows weigh alike.

    With `features` their factors are collected and values are checked, with `residual` R.
    """
    collectors, spec, own, raised = [], None, None, None
    try:
        for now, rows in slices(blocks, settings.dtype, check=features):
            if spec is None:
                spec, every = now, range(now.outputs)
                shared = settings.shared_denominator
                alike = [Problem(list(every))] if shared else [Problem([j]) for j in every]
                collectors = [
                    _Collector(problem, spec, rows.H_N, features=features, residual=residual)
                    for problem in problems or alike
                ]
            for collector in collectors:
                collector.add(rows)
        own = spec and (spec, [collector.totals() for collector in collectors])
    except Exception as error:  # noted, so that no other process waits for ever
        raised = error
    parts = [p for p in gathered(own, raised, distributed=distributed) if p is not None]
    if not parts:
        raise DataError("blocks must hold at least one row, got none")
    spec = parts[0][0]
    for other, _ in parts:
        if other != spec:
            raise ShapeError(f"all processes must have alike blocks, got {spec} and {other}")
    return spec, [_merged(list(totals)) for totals in zip(*(p[1] for p in parts), strict=True)]


def _merged(parts: list[SweepTotals]) -> SweepTotals:
    scores = [part.scores for part in parts]
    return SweepTotals(
        [stacked(list(R)) for R in zip(*(part.residual for part in parts), strict=True)],
        [stacked(list(R)) for R in zip(*(part.features for part in parts), strict=True)],
        scores[0]._replace(
            rows=sum(s.rows for s in scores),
            weight=sum(s.weight for s in scores),
            error=sum(s.error for s in scores),
            finite=[any(of_output) for of_output in zip(*(s.finite for s in scores), strict=True)],
            smallest=min(s.smallest for s in scores),
            histogram=torch.stack([s.histogram for s in scores]).sum(0),
        ),
    )


class _Collector:
    def __init__(
        self, problem: Problem, spec: Spec, H: Tensor, *, features: bool, residual: bool
    ) -> None:
        self._outputs = problem.outputs
        self._pair = None if problem.pair is None else tuple(x.to(H) for x in problem.pair)
        count = len(self._outputs) if residual else 0
        self._residual = [TallQR(spec.k_n + spec.k_d, like=H) for _ in range(count)]
        widths = [spec.k_n] if spec.one_basis else [spec.k_n, spec.k_d]
        self._features = [TallQR(k, like=H) for k in widths] if features else []
        self._sums = torch.zeros(2, dtype=torch.float64)  # on the host, whatever the device
        self._finite = torch.zeros(len(self._outputs), dtype=torch.bool)
        self._smallest, self._rows = float("inf"), 0
        self._histogram = torch.zeros(2 * _OCTAVES * _PER_OCTAVE, dtype=torch.float64)

    def add(self, rows: UnitRows) -> None:
        Y_n, Y_d = rows.Y_n[:, self._outputs], rows.Y_d[:, self._outputs]
        weight = rows.weight[:, self._outputs]
        t = weight.sqrt()
        if self._pair is not None:
            N, D = (H @ z for H, z in zip((rows.H_N, rows.H_D), self._pair, strict=True))
            t = t * self._scored(N, D, Y_n, Y_d, weight)
        for j, qr in enumerate(self._residual):
            qr.add(rows.H_N * (t * Y_d)[:, j, None], rows.H_D * (-t * Y_n)[:, j, None])
        # a row without any statement counts for nothing, in the gauge too
        root = weight.mean(1, keepdim=True).sqrt()
        for H, qr in zip((rows.H_N, rows.H_D), self._features, strict=False):
            qr.add(H * root)
        self._sums[0] += weight.sum(dtype=_wide(weight)).item()
        self._finite |= ((Y_d != 0) & (weight > 0)).any(0).cpu()
        self._rows += len(weight)

    def _scored(self, N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, weight: Tensor) -> Tensor:
        """Take the scores of (N, D) and return the Sanathanan-Koerner weights, 1/‖(N, D)‖."""
        n2, d2 = N.abs().square(), D.abs().square()
        size = (n2 + d2).sqrt().clamp_min(torch.finfo(weight.dtype).eps)
        chordal = ((N * Y_d - D * Y_n).abs() / size).square()
        self._sums[1] += (weight * chordal).sum(dtype=_wide(weight)).item()
        p, of_row = (n2.mean(1) + d2[:, 0]).sqrt(), weight.mean(1)
        if (of_row > 0).any():
            self._smallest = min(self._smallest, p[of_row > 0].amin().item())
        bins = (p.clamp_min(torch.finfo(p.dtype).tiny).log2() + _OCTAVES) * _PER_OCTAVE
        bins = bins.clamp(0, len(self._histogram) - 1).long()
        self._histogram += torch.bincount(bins, of_row, len(self._histogram)).cpu()
        return 1 / size

    def totals(self) -> SweepTotals:
        residual, features = ([qr.factor() for qr in of] for of in (self._residual, self._features))
        weight, error = self._sums.tolist()
        found = self._finite.tolist(), self._smallest, self._histogram
        scores = Scores(self._outputs, self._rows, weight, error, *found)
        return SweepTotals(residual, features, scores)


def _wide(x: Tensor) -> torch.dtype:
    return x.dtype if x.device.type == "mps" else torch.float64


def best_pair(factors: Factors, rho: float) -> tuple[Tensor, Tensor]:
    """Return (a, b) minimising (‖A z‖² + ρ‖z‖²) / ‖M z‖², in a fixed gauge.

    With T the triangular factor of [A; √ρ I] the answer is T⁻¹v, v the leading right singular
    vector of M T⁻¹. The inverse of M is never formed: M is numerically singular for any rich set
    of features.
    """
    T = _augmented(factors, _resolved(factors, rho))
    M = _normaliser(factors)
    at = T.shape[1] - M.shape[1]  # M is 0 before: so is v, and the rest is back substitution
    S = torch.linalg.solve_triangular(T[at:, at:], M, upper=True, left=False)
    v = torch.linalg.svd(S).Vh[0].conj()
    v = torch.cat([v.new_zeros(at), v])[:, None]
    return _split(factors, torch.linalg.solve_triangular(T, v, upper=True)[:, 0])


def path_pairs(factors: Factors, rhos: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (a, b) for each ρ, given largest first, after one singular value decomposition.

    With A = U diag(g) Vᴴ and f² = 1/(g² + ρ), u ← f² (MV)ᴴ(MV) u is inverse iteration on the same
    quotient for every ρ; each starts from the answer before, the first from `best_pair`.
    """
    a, b = best_pair(factors, rhos[0])
    R, k_N = factors.R, len(factors.R_N)
    # of the rows of all outputs together: their a_j have nothing in common but b
    corner = torch.linalg.qr(R[:, k_N:, k_N:].flatten(0, 1), mode="r").R
    g, Vh = torch.linalg.svd(_arrow(R[:, :k_N], corner))[1:]
    M = _normaliser(factors)
    M = M @ Vh.mH[-M.shape[1] :]
    u = Vh @ torch.cat([a.T.flatten(), b.flatten()])
    for rho in rhos:
        f2 = 1 / (g.square() + _resolved(factors, rho))
        for _ in range(_STEPS):
            u = f2 * (M.mH @ (M @ u))
            u = u / torch.linalg.vector_norm(M @ u)
        yield _split(factors, Vh.mH @ u)


def _normaliser(factors: Factors) -> Tensor:
    """Return what acts on the last entries of z, so that z = 0 is no answer.

    One output: the mean square of (N, D), which treats y and 1/y alike. Several that share D: the
    mean square of D alone, or else the best answer to rows that do not fit is to serve one output
    with D = 0 and leave ⟨0, 0⟩ to the others.
    """
    if len(factors.R) > 1:
        return factors.R_D
    return torch.block_diag(factors.R_N, factors.R_D)


def _arrow(tops: Tensor, corner: Tensor) -> Tensor:
    """Return the triangle [A_1 . B_1; . A_2 B_2; . . corner] from tops [A_j B_j] of each output."""
    m, k_N = tops.shape[:2]
    above = torch.cat([torch.block_diag(*tops[:, :, :k_N]), tops[:, :, k_N:].flatten(0, 1)], 1)
    return torch.cat([above, torch.cat([corner.new_zeros(len(corner), m * k_N), corner], 1)])


def _resolved(factors: Factors, rho: float) -> float:
    """Return ρ, or the smallest that the precision of the factors resolves if that is larger."""
    R = factors.R
    return max(rho, (torch.finfo(R.dtype).eps * R.abs().max().item()) ** 2)


def _condition(factors: Factors) -> float:
    found = [torch.linalg.svdvals(R) for R in (factors.R_N, factors.R_D)]
    return max((g[0] / g[-1]).item() if g[-1] > 0 else math.inf for g in found)


def _augmented(factors: Factors, rho: float) -> Tensor:
    R, k_N = factors.R, len(factors.R_N)
    m, k = R.shape[0], R.shape[-1]
    root = math.sqrt(rho) * torch.eye(k, dtype=R.dtype, device=R.device)
    # √ρ b appears once, not once for each output
    above = torch.linalg.qr(torch.cat([R, root[:k_N].expand(m, -1, -1)], 1), mode="r").R
    corner = torch.cat([*above[:, k_N:, k_N:], root[k_N:, k_N:]])
    T = _arrow(above[:, :k_N], torch.linalg.qr(corner, mode="r").R)
    # no pivot can be below √ρ, but for rounding
    pivots = T.diagonal()
    pivots.copy_(torch.where(pivots.abs() < math.sqrt(rho) / 2, math.sqrt(rho), pivots))
    return T


def _split(factors: Factors, z: Tensor) -> tuple[Tensor, Tensor]:
    """Cut z into a, `(k_N, m)`, and b, `(k_D, 1)`: mean square of (N, D) 1, leading b positive."""
    m, k_N = len(factors.R), len(factors.R_N)
    squares = torch.linalg.vector_norm(factors.R_N @ z[: m * k_N].reshape(m, k_N).T).square() / m
    squares = squares + torch.linalg.vector_norm(factors.R_D @ z[m * k_N :]).square()
    z = z / squares.sqrt()
    b = z[m * k_N :]
    leading = b[b.abs().argmax()]
    z = z * (leading.conj() / leading.abs()) if leading != 0 else z
    return z[: m * k_N].reshape(m, k_N).T, z[m * k_N :, None]


class Found(NamedTuple):
    """The best solution of the sweeps, for outputs that share one denominator."""

    a: Tensor  # (k_N, m)
    b: Tensor  # (k_D, 1)
    error: float
    clearance: float
    factors: Factors  # weighed as for this solution


def checked_options(options: ReadoutOptions) -> Settings:
    """Return the options with their defaults if all are legal."""
    settings = Settings(**options)
    positive(settings.rho, "rho")
    whole(settings.sweeps, "sweeps", low=1)
    one_of(settings.dtype, (torch.float64, torch.float32), "dtype")
    return settings


def clearance_warning(clearance: float) -> None:
    """Warn where N and D come close to vanishing together."""
    if clearance < _COMMON_ZERO:
        warnings.warn(
            f"N and D nearly vanish together: min|p| / median|p| is {clearance:.1e}; "
            "raise rho, or choose it on held-out rows with choose_rho",
            stacklevel=4,
        )


@torch.no_grad()
def sweep(
    blocks: Iterable[Parts], settings: Settings, *, distributed: bool = False
) -> tuple[bool, list[Found]]:
    """Return (are the targets flat?, what was found for each denominator)."""
    spec, totals = read(blocks, None, settings, distributed=distributed)
    _check_totals(spec, totals)
    factors = [_normalised(part) for part in totals]
    best: list[Found | None] = [None] * len(totals)
    for left in reversed(range(settings.sweeps)):
        pairs = [best_pair(f, settings.rho) for f in factors]
        pairs = [from_first(pair, distributed=distributed) for pair in pairs]
        problems = [Problem(t.scores.outputs, pair) for t, pair in zip(totals, pairs, strict=True)]
        _, again = read(
            blocks, problems, settings, distributed=distributed, features=False, residual=left > 0
        )
        held, now = totals[0].scores.rows, again[0].scores.rows
        if held != now:
            raise DataError(
                f"blocks must hold the same rows in every sweep, got {held}, then {now}"
            )
        for j, part in enumerate(again):
            error, kept = part.scores.error / part.scores.weight, best[j]
            if kept is None or error < kept.error:
                best[j] = Found(*pairs[j], error, part.scores.clearance, factors[j])
        if left:
            factors = [_normalised(now, f) for now, f in zip(again, factors, strict=True)]
    return spec.flat, [found for found in best if found is not None]


def _normalised(totals: SweepTotals, before: Factors | None = None) -> Factors:
    """Return factors of means: neither the number of rows nor the size of weights counts."""
    root = totals.scores.weight**-0.5
    R = torch.stack(totals.residual) * root
    if before is not None:
        return before._replace(R=R)
    root *= len(totals.residual) ** 0.5  # features carry the mean weight of a row's outputs
    return Factors(R, totals.features[0] * root, totals.features[-1] * root)


def _check_totals(spec: Spec, totals: list[SweepTotals]) -> None:
    for scores in (part.scores for part in totals):
        if not scores.weight > 0:
            raise DataError("a row with weight above 0 and a target other than ⟨0, 0⟩ is needed")
        for j, has_finite in zip(scores.outputs, scores.finite, strict=True):
            if not has_finite:
                raise DataError(
                    f"every output needs a finite target, but all Y_d of output {j} are 0"
                )
    for R in (R for part in totals for R in part.features):
        largest = torch.finfo(R.dtype).max ** 0.5
        if not R.abs().max() < largest:
            raise DataError(f"features must stay below {largest:.0e}, their squares overflow")
    rows, weights = totals[0].scores.rows, spec.k_n + spec.k_d
    if rows < weights:
        warnings.warn(
            f"{rows} rows do not determine {weights} weights; use fewer features", stacklevel=5
        )


def spectral_readout(
    H_N: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    *,
    H_D: Tensor | None = None,
    weight: Tensor | None = None,
    **options: Unpack[ReadoutOptions],
) -> Readout:
    r"""Solve for the projective head on given features: N = H_N a, D = H_D b.

    Formula: minimise (Σ w t² \|Y_d H_N a - Y_n H_D b\|² / Σw + ρ(‖a‖² + ‖b‖²)) over the mean of
    \|N\|² + \|D\|² (of \|D\|² where several outputs share D), with tuples of unit size and
    t = 1/‖(N, D)‖ of the sweep before (Sanathanan & Koerner, IEEE Trans. Autom. Control 8, 1963).
    Each sweep is the global optimum of its problem, the extreme singular vector of triangular
    factors, and no start is needed.

    Args:
        H_N: Features of N, `(n, k_N)`, real or complex.
        Y_n: Numerators of the targets, `(n,)` or `(n, m)`; a complex one makes a and b complex.
        Y_d: Denominators, the same shape, or `(n, 1)`. Lift targets as everywhere: finite y →
            ⟨y / s, 1⟩ with s the scale of y, ±inf → ⟨±1, 0⟩, nan → ⟨1, 0⟩. A row ⟨0, 0⟩ states
            nothing and is left out.
        H_D: Features of D, `(n, k_D)`, if they are not those of N.
        weight: Row weights, `(n,)`, at least 0; 2 is a row twice. (1 + (y / s)²)^p with p = 1
            suits noise in proportion to y.
        **options: See `ReadoutOptions`.

    Returns:
        A `Readout` on the device of H_N. The objective is computed on the rows given.

    Raises:
        ShapeError: Arguments that do not belong together.
        DataError: No row, a row that is not finite, or an output without a finite target.
        RangeError: A negative weight, or an option that is not legal.

    Warns:
        UserWarning: Fewer rows than weights, or N and D vanish together (raise ρ).

    Examples:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> H = torch.stack([torch.ones_like(x), x], 1)
        >>> fit = spectral_readout(H, torch.ones_like(x), x - 0.25)  # 1 / (x - 0.25)
        >>> print(f"pole at {-fit.b[0] / fit.b[1]:.6f}")
        pole at 0.250000
    """
    blocks = [(H_N, H_D, Y_n, Y_d, weight)]
    return _readout(blocks, options, distributed=False)


def streamed_readout(
    blocks: Iterable[Parts], *, distributed: bool = True, **options: Unpack[ReadoutOptions]
) -> Readout:
    """Solve for the projective head on rows that arrive in blocks, in O(k² + block) memory.

    The answer is that of `spectral_readout` on all rows together. The blocks are read once more
    than there are sweeps.

    Args:
        blocks: `(H_N, H_D, Y_n, Y_d)` or `(H_N, H_D, Y_n, Y_d, weight)`, as in `spectral_readout`;
            H_D may be None, and a block may have no row. They must come again in every sweep: a
            list, a DataLoader, any object with `__iter__`, but not a generator.
        distributed: Where `torch.distributed` is initialised (as under Accelerate), every process
            passes its own blocks, perhaps none; all have to call, and all get the same answer, on
            the CPU.
        **options: See `ReadoutOptions`.

    Raises:
        ShapeError, DataError, RangeError: As `spectral_readout`; also for a one-shot iterator.

    Examples:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> H = torch.stack([torch.ones_like(x), x], 1)
        >>> blocks = [(H[i::5], None, torch.ones(10), x[i::5] - 0.25) for i in range(5)]
        >>> fit = streamed_readout(blocks)
        >>> print(f"pole at {-fit.b[0] / fit.b[1]:.6f}")
        pole at 0.250000
    """
    return _readout(re_iterable(blocks), options, distributed=distributed)


def _readout(blocks: Iterable[Parts], options: ReadoutOptions, *, distributed: bool) -> Readout:
    settings = checked_options(options)
    flat, found = sweep(blocks, settings, distributed=distributed)
    a = torch.cat([each.a for each in found], 1)
    b = torch.cat([each.b for each in found], 1)
    clearance = min(each.clearance for each in found)
    clearance_warning(clearance)
    return Readout(
        a[:, 0] if flat else a,
        b[:, 0] if flat else b,
        sum(each.error for each in found) / len(found),
        settings.rho,
        clearance,
        max(_condition(each.factors) for each in found),
    )
