"""Trained trunks as candidates: for many inputs, where no fixed features serve."""

import math

import torch
from torch import Tensor, nn

from zeroproof.estimators.candidates import Candidate, Request, Rows, of_features, scored
from zeroproof.layers.features import Column, ModuleFeatures
from zeroproof.solve.recipe import lift
from zeroproof.solve.search import Split
from zeroproof.training.trunk import METHODS, default_trunk, fit_trunk

__all__ = ["trunk_candidates", "trunk_seconds", "trunks_asked"]

_LEAST, _MOST = 0.1, 0.6  # share of the time budget
_SEARCH_FIRST = 9.0  # seconds that the search gets before trunks get more than the least
_FEWEST_COLUMNS = 5  # with fewer, random waves cover the inputs
_FEWEST_STEPS = 15  # fewer leave a trunk as it was drawn
_GOOD = 1e-10  # score below which a trunk, trained in float32, is not tried
_MOST_ROWS = 20_000
_STEP = 0.01  # seconds; a count of steps, unlike a clock, gives the same answer again


def trunks_asked(request: Request, columns: int) -> bool:
    """Tell whether trunks belong to the candidates."""
    enough = columns >= _FEWEST_COLUMNS and _steps(request) >= _FEWEST_STEPS
    return request.features == "auto" and enough


def trunk_seconds(budget: float) -> float:
    """Return the part of a time budget that trunks get: structure that a search finds is better."""
    return max(_LEAST * budget, min(_MOST * budget, budget - _SEARCH_FIRST))


def _steps(request: Request) -> int:
    return int(trunk_seconds(request.budget) / len(METHODS) / _STEP)


def trunk_candidates(
    rows: Rows, request: Request, parts: Split, power: int, best: float
) -> list[Candidate]:
    """Train a trunk by each method and score its closed-form head; none if `best` is good."""
    steps = _steps(request)
    if best < _GOOD or not len(parts.held):
        return []
    found = []
    for method in METHODS:
        if not request.clock.allows("trained trunks", steps * _STEP):
            break
        module = _trained(rows, request, parts, method, steps)
        columns = tuple(Column(i, "identity", 0.0, 1.0) for i in range(rows.X.shape[1]))
        candidate = of_features(ModuleFeatures(columns, module), f"{method} trunk", request)
        found.append(scored(candidate, rows, request, parts, power))
    return [each for each in found if each.score < math.inf]


def _trained(rows: Rows, request: Request, parts: Split, method: str, steps: int) -> nn.Module:
    """Train on all rows but the shell, the held-out ones aside; standardisation goes inside."""
    used = rows.at(_used(len(rows.X), parts, request.seed))
    mean, std = used.X.mean(0), used.X.std(0).clamp(min=1e-300)
    trunk = default_trunk(rows.X.shape[1], seed=request.seed)
    fitted = fit_trunk(
        trunk,
        (used.X - mean) / std,
        *lift("y", used.y),
        method=method,
        steps=steps,
        time_budget=4 * steps * _STEP,
        held=torch.arange(len(used.X)) < len(parts.held),
        weight=used.weight,
        seed=request.seed,
    ).trunk
    first = next(layer for layer in fitted.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        first.bias.sub_(first.weight @ (mean / std))
        first.weight.div_(std)
    return fitted.eval().requires_grad_(False)


def _used(count: int, parts: Split, seed: int) -> Tensor:
    """Return the rows held out, those of the core and others by chance, none of the shell."""
    first = torch.cat([parts.held, parts.core])
    left = torch.ones(count, dtype=torch.bool)
    left[torch.cat([first, parts.shell])] = False
    others = torch.nonzero(left)[:, 0]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    return torch.cat([first, others[drawn]])[:_MOST_ROWS]
