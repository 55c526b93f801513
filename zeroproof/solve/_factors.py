"""One reading of the rows: triangular factors for the next solution, scores of the present one."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.errors import DataError, ShapeError
from zeroproof.solve._rows import Parts, Rows, Spec, slices
from zeroproof.solve.tall_qr import TallQR, gathered, stacked

_PER_OCTAVE, _OCTAVES = 32, 64  # of the histogram of |p|, on either side of 1


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


class Totals(NamedTuple):
    """What one process found for one problem."""

    residual: list[Tensor]
    features: list[Tensor]
    scores: Scores


class Problem(NamedTuple):
    """Outputs that share one denominator, and the solution that weighs their rows."""

    outputs: list[int]
    pair: tuple[Tensor, Tensor] | None = None  # a, (k_N, m), and b, (k_D, 1), of unit mean square


class Task(NamedTuple):
    """What a reading has to collect."""

    dtype: torch.dtype
    distributed: bool
    shared: bool  # one denominator for all outputs?
    features: bool = True  # factors of H_N and H_D; values are checked in the same reading
    residual: bool = True


def read(
    blocks: Iterable[Parts], problems: list[Problem] | None, task: Task
) -> tuple[Spec, list[Totals]]:
    """Read all rows once, on all processes; without problems, all rows weigh alike."""
    own, error = None, None
    try:
        own = _read_own(blocks, problems, task)
    except Exception as raised:  # noted, so that no other process waits for ever
        error = raised
    parts = [p for p in gathered(own, error, distributed=task.distributed) if p is not None]
    if not parts:
        raise DataError("blocks must hold at least one row, got none")
    spec = parts[0][0]
    for other, _ in parts:
        if other != spec:
            raise ShapeError(f"all processes must have alike blocks, got {spec} and {other}")
    return spec, [_merged(list(totals)) for totals in zip(*(p[1] for p in parts), strict=True)]


def _read_own(
    blocks: Iterable[Parts], problems: list[Problem] | None, task: Task
) -> tuple[Spec, list[Totals]] | None:
    collectors, spec = [], None
    for now, rows in slices(blocks, task.dtype, check=task.features):
        if spec is None:
            spec = now
            problems = problems or _alike(spec.outputs, shared=task.shared)
            collectors = [_Collector(problem, spec, task, rows) for problem in problems]
        for collector in collectors:
            collector.add(rows)
    return None if spec is None else (spec, [collector.totals() for collector in collectors])


def _alike(outputs: int, *, shared: bool) -> list[Problem]:
    every = list(range(outputs))
    return [Problem(every)] if shared else [Problem([j]) for j in every]


def _merged(parts: list[Totals]) -> Totals:
    scores = [part.scores for part in parts]
    return Totals(
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
    def __init__(self, problem: Problem, spec: Spec, task: Task, like: Rows) -> None:
        H = like.H_N
        self._outputs = problem.outputs
        self._pair = None if problem.pair is None else tuple(x.to(H) for x in problem.pair)
        count = len(self._outputs) if task.residual else 0
        self._residual = [TallQR(spec.k_n + spec.k_d, like=H) for _ in range(count)]
        widths = [spec.k_n] if spec.one_basis else [spec.k_n, spec.k_d]
        self._features = [TallQR(k, like=H) for k in widths] if task.features else []
        self._sums = torch.zeros(2, dtype=torch.float64)  # on the host, whatever the device
        self._finite = torch.zeros(len(self._outputs), dtype=torch.bool)
        self._smallest, self._rows = float("inf"), 0
        self._histogram = torch.zeros(2 * _OCTAVES * _PER_OCTAVE, dtype=torch.float64)

    def add(self, rows: Rows) -> None:
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
        self._place((n2.mean(1) + d2[:, 0]).sqrt(), weight.mean(1))
        return 1 / size

    def _place(self, p: Tensor, weight: Tensor) -> None:
        counted = p[weight > 0]
        if counted.numel():
            self._smallest = min(self._smallest, counted.amin().item())
        bins = (p.clamp_min(torch.finfo(p.dtype).tiny).log2() + _OCTAVES) * _PER_OCTAVE
        bins = bins.clamp(0, len(self._histogram) - 1).long()
        self._histogram += torch.bincount(bins, weight, len(self._histogram)).cpu()

    def totals(self) -> Totals:
        residual, features = ([qr.factor() for qr in of] for of in (self._residual, self._features))
        weight, error = self._sums.tolist()
        found = self._finite.tolist(), self._smallest, self._histogram
        scores = Scores(self._outputs, self._rows, weight, error, *found)
        return Totals(residual, features, scores)


def _wide(x: Tensor) -> torch.dtype:
    return x.dtype if x.device.type == "mps" else torch.float64
