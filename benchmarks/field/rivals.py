"""What others make of the same rows, each as its user would choose it: by folds, without truth."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.field.case import Array, Case, Predict

RIVAL_SECONDS = 15  # of the processor, for each rival
PENALTIES = np.logspace(-6, 6, 25)
TOLERANCES = (1e-13, 1e-11, 1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
MANY = 100  # rows; beyond, fewer tolerances and one fold
ORDERS = (1, 2, 3, 4, 5, 6, 8, 10)


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


# --- rational: AAA with its tolerance chosen by folds, vector fitting with its order
def _held_error(predicted: Array, y: Array) -> float:
    size = np.linalg.norm(y.reshape(len(y), -1), axis=1)
    miss = np.linalg.norm((predicted - y).reshape(len(y), -1), axis=1)
    relative = miss / (size + 1e-2 * np.median(size) + np.finfo(float).tiny)
    relative = np.where(np.isfinite(relative), relative, np.inf)
    return float(np.mean(np.log(np.minimum(relative, 1e3) + 1e-16)))


def _chosen(x: Array, y: Array, settings: Any, fit: Callable[[Array, Array, Any], Predict]) -> Any:
    """Return the setting of the smallest mean logarithm of relative errors on held-out inputs."""
    folds = np.random.default_rng(0).permutation(len(x)) % 5
    used = range(1 if len(x) > MANY else 5)
    scores = []
    for setting in settings:
        errors = []
        for fold in used:
            held = folds == fold
            try:
                answer = fit(x[~held], y[~held], setting)(x[held])
                errors.append(_held_error(answer, y[held]))
            except (np.linalg.LinAlgError, ValueError):
                errors.append(np.inf)
        scores.append(np.mean(errors))
    return settings[int(np.argmin(scores))]


def aaa(x: Array, y: Array) -> Predict:
    """Return AAA of the means over replicates."""
    x, first = np.unique(x, return_inverse=True)
    y = (
        np.array([y[first == i].mean(0) for i in range(len(x))])
        if len(x) < len(first)
        else y[np.argsort(first)]
    )
    settings = TOLERANCES[::2] if len(x) > MANY else TOLERANCES
    rtol = _chosen(x, y, settings, _aaa)
    answer = _aaa(x, y, rtol)
    return lambda T: answer(T[:, 0])


def _aaa(x: Array, y: Array, rtol: float) -> Predict:
    import warnings

    from scipy.interpolate import AAA

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AAA(x, y, rtol=rtol, max_terms=min(len(x) // 2, max(40, min(100, len(x) // 5))))
    return lambda t: np.asarray(model(t))


def vector_fitting(x: Array, y: Array) -> Predict:
    """Return vector fitting with common poles and a constant; its order is chosen by folds."""
    order = _chosen(x, y, ORDERS, _fitted_poles)
    answer = _fitted_poles(x, y, order)
    return lambda T: answer(T[:, 0])


def _fitted_poles(x: Array, y: Array, order: int) -> Predict:
    wide = x.min() > 0 and x.max() > 30 * x.min()
    centre, unit = (0.0, 1.0) if wide else (x.mean(), np.ptp(x) / 2)
    u = (x - centre) / unit
    w = 1 / (np.abs(y) + 0.1 * np.median(np.abs(y)))
    grid = np.linspace(0, 1, order + 2)[1:-1]
    p = 1j * x.min() * (x.max() / x.min()) ** grid if wide else 2 * grid - 1 + 0.05j
    for _ in range(15):
        B = 1 / (u[:, None] - p)
        A = np.hstack([B, np.ones((len(u), 1)), -y[:, None] * B]) * w[:, None]
        size = np.linalg.norm(A, axis=0)
        c = np.linalg.lstsq(A / size, y * w, rcond=None)[0] / size
        p = np.linalg.eigvals(np.diag(p) - np.outer(np.ones(order), c[-order:]))
        p = np.where(np.abs(p.imag) < 1e-12, p + 1e-12j, p)
    design = _basis(u, p)
    size = np.linalg.norm(design * w[:, None], axis=0)
    c = np.linalg.lstsq(design * w[:, None] / size, y * w, rcond=None)[0] / size
    return lambda t: _basis((t - centre) / unit, p) @ c


def _basis(u: Array, p: Array) -> Array:
    return np.hstack([1 / (u[:, None] - p), np.ones((len(u), 1))])


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
