"""Sanathanan-Koerner sweeps: solve, weigh the rows by 1/‖(N, D)‖, read them again."""

import warnings
from collections.abc import Iterable
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from zeroproof._checks import one_of, positive, whole
from zeroproof.errors import DataError
from zeroproof.solve._algebra import best_pair
from zeroproof.solve._factors import Factors, Problem, Scores, Task, Totals, read
from zeroproof.solve._rows import Parts, Spec
from zeroproof.solve.tall_qr import from_first

_COMMON_ZERO = 1e-4  # clearance: with n rows, a zero between them leaves some 1/n
_DTYPES = (torch.float64, torch.float32)


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


class Settings(NamedTuple):
    """Options that were checked."""

    rho: float = 1e-12
    sweeps: int = 5
    shared_denominator: bool = True
    dtype: torch.dtype = torch.float64


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
    one_of(settings.dtype, _DTYPES, "dtype")
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
    task = Task(settings.dtype, distributed, settings.shared_denominator)
    spec, totals = read(blocks, None, task)
    _check_totals(spec, totals)
    factors = [normalised(part) for part in totals]
    best: list[Found | None] = [None] * len(totals)
    for left in reversed(range(settings.sweeps)):
        pairs = [best_pair(f, settings.rho) for f in factors]
        pairs = [from_first(pair, distributed=distributed) for pair in pairs]
        problems = [Problem(t.scores.outputs, pair) for t, pair in zip(totals, pairs, strict=True)]
        again = read(blocks, problems, task._replace(features=False, residual=left > 0))[1]
        held, now = totals[0].scores.rows, again[0].scores.rows
        if held != now:
            raise DataError(
                f"blocks must hold the same rows in every sweep, got {held}, then {now}"
            )
        for j, part in enumerate(again):
            best[j] = _better(best[j], pairs[j], factors[j], part.scores)
        if left:
            factors = [normalised(now, f) for now, f in zip(again, factors, strict=True)]
    return spec.flat, [found for found in best if found is not None]


def normalised(totals: Totals, before: Factors | None = None) -> Factors:
    """Return factors of means: neither the number of rows nor the size of weights counts."""
    root = totals.scores.weight**-0.5
    R = torch.stack(totals.residual) * root
    if before is not None:
        return before._replace(R=R)
    root *= len(totals.residual) ** 0.5  # features carry the mean weight of a row's outputs
    return Factors(R, totals.features[0] * root, totals.features[-1] * root)


def _better(
    best: Found | None, pair: tuple[Tensor, Tensor], factors: Factors, scores: Scores
) -> Found:
    error = scores.error / scores.weight
    if best is not None and best.error <= error:
        return best
    return Found(*pair, error, scores.clearance, factors)


def _check_totals(spec: Spec, totals: list[Totals]) -> None:
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
