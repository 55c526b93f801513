"""One seed of one case, and the row that many seeds make."""

import math
import sys
import warnings
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.field.case import Bound, Case, Draw, Measure
from benchmarks.field.cases import CASES
from benchmarks.field.measures import ours
from benchmarks.field.rivals import RIVAL_SECONDS, TimeLimitError, limited, rival

SECONDS = 60  # of the processor, for a fit of ours


class Run(NamedTuple):
    """The figures of one seed; a measure the model does not tell is None."""

    values: dict[str, float | None]
    others: dict[str, dict[str, float]]  # by measure and rival
    seconds: float
    size: str
    failure: str = ""


class Row(NamedTuple):
    """One line of the table."""

    case: Case
    size: str
    measure: Measure
    values: list[float]
    others: dict[str, float]  # medians
    seconds: float
    seeds: int
    failure: str

    @property
    def verdict(self) -> str:
        """Return MET, missed, `not told`, or nothing where there is no bound."""
        if not self.measure.bounds:
            return ""
        if not self.values:
            return "not told"
        kept = all(_kept(bound, self.values) for bound in self.measure.bounds)
        return "MET" if kept else "missed"


def run(name: str, seed: int, with_rivals: bool) -> Run:
    """Fit ours and the rivals to the rows of one seed; an error is a figure, not a crash."""
    torch.set_num_threads(1)
    case, others, size = CASES[name], {}, ""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            draw = case.draw(seed)
            size = f"{len(draw.X)} x {draw.X.shape[1]}"
            errors = _errors(case, draw, with_rivals)
            for measure in case.measures:
                if (scaled := measure.scaled) is not None:
                    others[measure.name] = {each: scaled(errors[each], errors) for each in errors}
            with limited(SECONDS):
                values, seconds = _answers(case, draw, errors)
        except (Exception, TimeLimitError) as failure:
            lost: dict[str, float | None] = {each.name: _worst(each) for each in case.measures}
            return Run(lost, others, math.nan, size, type(failure).__name__)
    return Run(values, others, seconds, size)


def _answers(
    case: Case, draw: Draw, errors: dict[str, float]
) -> tuple[dict[str, float | None], float]:
    fit = ours(case, draw)
    values: dict[str, float | None] = {}
    for measure in case.measures:
        if measure.scaled is not None:
            values[measure.name] = measure.scaled(fit.error, errors)
        elif measure.of is not None:
            values[measure.name] = measure.of(draw, fit)
    return values, fit.seconds


def _worst(measure: Measure) -> float:
    return 0.0 if any(bound.least for bound in measure.bounds) else math.inf


def _errors(case: Case, draw: Draw, with_rivals: bool) -> dict[str, float]:
    """Return the errors of the rivals; one that fails, or takes too long, is infinitely wrong."""
    errors = {}
    for name in (*case.references, *(case.rivals if with_rivals else ())):
        if name in errors:
            continue
        try:
            with limited(RIVAL_SECONDS):
                predict = rival(name, case, draw.X, draw.y)
                errors[name] = case.error(np.asarray(predict(draw.T)), draw)
        except (Exception, TimeLimitError) as failure:
            errors[name] = math.inf
            print(f"{case.name}: {name}: {failure!r:.200}", file=sys.stderr)
    return errors


def rows(case: Case, runs: list[Run]) -> list[Row]:
    """Gather the seeds of a case, a row for each measure."""
    failures = [each.failure for each in runs if each.failure]
    note = f"{len(failures)} x {failures[0]}" if failures else ""
    seconds = [each.seconds for each in runs if math.isfinite(each.seconds)]
    found = []
    for measure in case.measures:
        values = [value for each in runs if (value := each.values[measure.name]) is not None]
        others = {
            name: median(each.others.get(measure.name, {}).get(name, math.inf) for each in runs)
            for name in runs[0].others.get(measure.name, {})
        }
        cost = median(seconds) if seconds else math.nan
        found.append(Row(case, runs[0].size, measure, values, others, cost, len(runs), note))
    return found


def figure(name: str, values: list[float], least: bool = False) -> float:
    """Return one figure of the values over the seeds."""
    ordered = sorted(values, reverse=least)
    if name == "median":
        return median(values)
    if name == "mean":
        return mean(values)
    if name == "p90":  # nine of ten are no worse
        return ordered[math.ceil(0.9 * len(ordered)) - 1]
    return ordered[-1]


def _kept(bound: Bound, values: list[float]) -> bool:
    value = figure(bound.figure, values, bound.least)
    return value >= bound.limit if bound.least else value <= bound.limit
