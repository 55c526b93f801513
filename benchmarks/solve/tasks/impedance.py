"""Complex answers of one frequency: two resonances by formula, and scikit-rf's measured files."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.solve.baselines import baselines
from benchmarks.solve.measure import (
    Array,
    Effort,
    Problem,
    Row,
    by_place,
    errors,
    fit,
    fit_rows,
)

GHZ = 1e9
POLES = np.array([-0.04 + 8.1j, -0.015 + 9.3j])  # in 1e9 rad/s, each with its conjugate
RESIDUES = np.array([0.05 + 0.01j, -0.02 + 0.03j])
FILES = ("ring slot measured.s1p", "ro,1.s1p", "ro,2.s1p", "ro,3.s1p")
ORDERS = (4, 8)  # poles, those at negative frequencies included


def response(X: Array) -> Array:
    """Return a response with two resonances near 1.29 and 1.48 GHz, at X in GHz."""
    s = 2j * np.pi * X[:, :1]
    pairs = RESIDUES / (s - POLES) + RESIDUES.conj() / (s - POLES.conj())
    return 0.3 + pairs.sum(1)


def resonances(effort: Effort) -> Iterator[Row]:
    """400 clean points at random frequencies from 1.1 to 1.7 GHz."""

    def sample(seed: int) -> tuple[Array, Array]:
        X = np.sort(np.random.default_rng(seed).uniform(1.1, 1.7, 400))[:, None]
        return X, response(X)

    even = {"everywhere": np.linspace(1.1, 1.7, 4001)[:, None]}
    problem = Problem("two resonances", sample, response, lambda seed: even)
    fits = [fit(problem, seed) for seed in range(effort.seeds)]
    ours = [errors(problem, each.model.predict, seed) for seed, each in enumerate(fits)]
    others = baselines(problem, effort)
    fitted = [vector_fit(*sample(seed), (0, 2)) for seed in range(effort.seeds)]
    theirs = [
        errors(problem, lambda X, v=v: v.get_model_response(0, 0, X[:, 0] * GHZ), seed)
        for seed, v in enumerate(fitted)
    ]
    named = {"vector fitting": [run["everywhere"] for run in theirs]}
    named |= by_place(others, "everywhere")
    note = f"{median(each.seconds for each in fits):.1f} s"
    values = [run["everywhere"] for run in ours]
    yield Row("two complex resonances", "everywhere", values, 1e-10, named, note=note)


def measured(effort: Effort) -> Iterator[Row]:
    """Measured reflection: the root mean square error at the same number of poles.

    A complex rational function has more freedom than vector fitting's, whose poles come in
    conjugate pairs: with half the degree it has about as many real numbers to fit.
    """
    folder = Path(str(_skrf().__file__)).parent / "data"
    for name in FILES:
        if not (folder / name).is_file():
            continue
        network = _skrf().Network(str(folder / name))
        X, y = network.f[:, None] / GHZ, network.s[:, 0, 0]
        degrees = sorted({degree for order in ORDERS for degree in (order, order // 2)})
        ours = {
            degree: [rms(_rational(X, y, degree, s).predict(X), y) for s in range(effort.seeds)]
            for degree in degrees
        }
        for order in ORDERS:
            splits = [(order - 2 * pairs, pairs) for pairs in range(order // 2 + 1)]
            fitted = (vector_fit(X, y, split) for split in splits)
            theirs = min(rms(v.get_model_response(0, 0, network.f), y) for v in fitted)
            named = {f"vector fitting, {order} poles": [theirs]}
            for degree, bound, note in (
                (order, theirs, "of equal order"),
                (order // 2, None, "as many real numbers"),
            ):
                yield Row(name, f"rms, degree {degree}", ours[degree], bound, named, note=note)


def _rational(X: Array, y: Array, degree: int, seed: int) -> Any:
    return fit_rows(X, y, seed, features="chebyshev", degrees=(degree, degree)).model


def vector_fit(X: Array, y: Array, poles: tuple[int, int]) -> Any:
    """Fit scikit-rf's vector fitting with so many real poles and conjugate pairs."""
    network = _skrf().Network(f=X[:, 0] * GHZ, f_unit="Hz", s=y[:, None, None])
    fitted = _skrf().vectorFitting.VectorFitting(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may not converge, and need not be passive
        fitted.vector_fit(n_poles_real=poles[0], n_poles_cmplx=poles[1], enforce_dc=False)
    return fitted


def rms(found: Array, y: Array) -> float:
    """Return the root mean square of the modulus of the error."""
    return float(np.sqrt(np.mean(np.abs(np.asarray(found).reshape(y.shape) - y) ** 2)))


def _skrf() -> Any:
    import skrf  # the group `bench`
    import skrf.vectorFitting

    logging.getLogger("skrf").setLevel(logging.ERROR)
    return skrf
