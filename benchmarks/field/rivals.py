"""What others make of the same rows, each as its user would choose it: by folds, without truth."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.field.case import Array, Case, Predict
from benchmarks.field.rational import aaa, vector_fitting

RIVAL_SECONDS = 15  # of the processor, for each rival
PENALTIES = np.logspace(-6, 6, 25)


class TimeLimitError(BaseException):
    """A fit took longer than it may; a fit that goes on after errors does not catch it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End what takes longer, in seconds of the processor; only in a main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeLimitError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def rival(name: str, case: Case, X: Array, y: Array) -> Predict:
    """Fit a rival to the rows whose target is finite."""
    use = np.isfinite(y.reshape(len(y), -1)).all(1)
    return RIVALS[name](case, X[use], y[use])


def _mean(case: Case, X: Array, y: Array) -> Predict:
    return lambda T: np.broadcast_to(y.mean(0), (len(T), *y.shape[1:]))


def _linear(case: Case, X: Array, y: Array) -> Predict:
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit(X, y).predict


def _ridge(case: Case, X: Array, y: Array, degree: int = 1) -> Predict:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    powers = PolynomialFeatures(degree, include_bias=False)
    steps = (StandardScaler(), powers, StandardScaler(), RidgeCV(PENALTIES))
    return make_pipeline(*steps).fit(X, y).predict


def _squares(case: Case, X: Array, y: Array) -> Predict:
    return _ridge(case, X, y, 2)


def _boosting(case: Case, X: Array, y: Array) -> Predict:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.multioutput import MultiOutputRegressor

    model: Any = HistGradientBoostingRegressor(random_state=0)
    return (model if y.ndim == 1 else MultiOutputRegressor(model)).fit(X, y).predict


def _network(case: Case, X: Array, y: Array) -> Predict:
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mean, spread = y.mean(0), y.std(0)
    way = {"early_stopping": True} if len(y) >= 50 else {"solver": "lbfgs", "alpha": 0.1}
    net: Any = MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=300, random_state=0, **way)
    model = make_pipeline(StandardScaler(), net).fit(X, (y - mean) / spread)
    return lambda T: model.predict(T) * spread + mean


def _formula(case: Case, X: Array, y: Array) -> Predict:
    from scipy.optimize import curve_fit

    assert case.formula is not None
    f, starts, relative = case.formula
    sigma = np.abs(y) if relative else None
    columns = X[:, 0] if X.shape[1] == 1 else X.T
    best, found = np.inf, None
    for start in starts:
        try:
            p, _ = curve_fit(f, columns, y, start, sigma=sigma, maxfev=5000)
        except RuntimeError:
            continue
        miss = (f(columns, *p) - y) / (1 if sigma is None else sigma)
        if (value := float(np.sum(miss**2))) < best:
            best, found = value, p
    if found is None:
        raise RuntimeError("curve_fit found nothing from its starts")
    return lambda T: f(T[:, 0] if T.shape[1] == 1 else T.T, *found)


RIVALS: dict[str, Callable[[Case, Array, Array], Predict]] = {
    "mean": _mean,
    "linear": _linear,
    "ridge": _ridge,
    "ridge, squares": _squares,
    "boosting": _boosting,
    "network": _network,
    "curve_fit": _formula,
    "AAA": lambda case, X, y: aaa(X[:, 0], y),
    "vector fitting": lambda case, X, y: vector_fitting(X[:, 0], y),
}
PLAIN = ("linear", "ridge")
TABLES = ("linear", "ridge", "ridge, squares", "boosting", "network")
