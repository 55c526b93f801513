"""A resonator seen up to Q = 30, asked at Q of 100 to 200: extrapolation in the quality factor."""

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.solve.baselines import baselines
from benchmarks.solve.measure import (
    Array,
    Effort,
    Problem,
    Row,
    asked,
    by_place,
    fit,
)

SAMPLES, TESTS = 4000, 2000
PLACES = ("Q 100-200", "Q 100-200, at resonance")
LIMIT = 0.05  # with noise


def amplitude(X: Array) -> Array:
    """Return 1 / √((1 - r²)² + (r / Q)²) at X = (r, Q), r the frequency over the resonance's."""
    r, Q = X.T
    return 1 / np.sqrt((1 - r**2) ** 2 + (r / Q) ** 2)


def _problem(noise: float) -> Problem:
    def sample(seed: int) -> tuple[Array, Array]:
        random = np.random.default_rng(seed)
        r, Q = random.uniform(0.5, 1.5, SAMPLES), 10 ** random.uniform(0.3, math.log10(30), SAMPLES)
        X = np.stack([r, Q], 1)
        return X, amplitude(X) * (1 + noise * random.standard_normal(SAMPLES))

    def points(seed: int) -> dict[str, Array]:
        random = np.random.default_rng(1000 + seed)
        Q = random.uniform(100, 200, TESTS)
        wide, narrow = random.uniform(0.5, 1.5, TESTS), 1 + random.uniform(-1, 1, TESTS) / Q
        return dict(zip(PLACES, (np.stack([r, Q], 1) for r in (wide, narrow)), strict=True))

    return Problem("resonator", sample, amplitude, points)


def resonator(effort: Effort) -> Iterator[Row]:
    """Clean samples, then 1 % noise, where a warning is as good as the right answer."""
    for noise, bound in ((0.0, 1e-6), (0.01, LIMIT)):
        problem = _problem(noise)
        models = [fit(problem, seed).model for seed in range(effort.seeds)]
        runs = [asked(problem, model.predict, seed) for seed, model in enumerate(models)]
        others = baselines(problem, effort)
        for place in PLACES:
            values = [run[place][0] for run in runs]
            warned = [_disagree(run[place][1]) for run in runs]
            pairs = zip(values, warned, strict=True)
            met = all(value <= bound or told for value, told in pairs) if noise else None
            note = f"{sum(warned)} of {len(runs)} warn" if noise else ""
            name = "resonator, Q ≤ 30" + (", 1 % noise" if noise else "")
            yield Row(name, place, values, bound, by_place(others, place), note=note, met=met)


def _disagree(warned: list[str]) -> bool:
    """Return whether the model warned that fits which serve the data equally well differ."""
    return any("fits" in text and "differ" in text for text in warned)
