"""Tables of several columns: shipped with packages, exact laws, heavy tails and noise."""

from collections.abc import Callable
from importlib import import_module
from math import comb
from typing import Any

import numpy as np

from benchmarks.field.case import Array, Case, Draw, drawn, error_line, least, most, over, told
from benchmarks.field.measures import (
    NO_BOTTOM,
    NO_POLES,
    all_right,
    cpu_seconds,
    relative_error,
    spread_error,
)
from benchmarks.field.rivals import PLAIN, TABLES

# --- regular: none of the targets is singular anywhere
ROWS = 600  # drawn from larger tables
# name: where it is; the target; the features, all others if none is named
SETS = {
    "diabetes": "sklearn; target;",
    "wine": "sklearn; proline;",
    "iris": "sklearn; petal width (cm);",
    "breast_cancer": "sklearn; mean radius; mean texture, mean smoothness, mean compactness",
    "linnerud": "sklearn; Pulse; Chins, Situps, Jumps",
    "engel": "statsmodels; foodexp; income",
    "grunfeld": "statsmodels; invest; value, capital, year",
    "fair": "statsmodels; yrs_married; age, children, religious, educ, affairs",
    "macrodata": "statsmodels; infl; tbilrate, unemp, realgdp",
    "nile": "statsmodels; volume; year",
    "sunspots": "statsmodels; SUNACTIVITY; YEAR",
    "statecrime": "statsmodels; murder; violent, hs_grad, poverty, single, white, urban",
    "ccard": "statsmodels; AVGEXP; AGE, INCOME, OWNRENT",
    "star98": "statsmodels; NABOVE; NBELOW, LOWINC, PERASIAN, PERBLACK, PERHISP",
    "heart": "statsmodels; survival; age, censors",
    "stackloss": "statsmodels; STACKLOSS; AIRFLOW, WATERTEMP, ACIDCONC",
    "copper": "statsmodels; WORLDCONSUMPTION; COPPERPRICE, INCOMEINDEX, ALUMPRICE, TIME",
    "cars": "vega; Miles_per_Gallon; Displacement, Horsepower, Weight_in_lbs, Acceleration",
    "airports": "vega; latitude; longitude",
    "seattle_weather": "vega; temp_max; precipitation, temp_min, wind",
}


def _frame(name: str, source: str) -> Any:
    if source == "sklearn":
        import sklearn.datasets as sets

        frame = getattr(sets, f"load_{name}")(as_frame=True).frame
        return frame if name == "diabetes" else frame.drop(columns="target", errors="ignore")
    if source == "statsmodels":
        return import_module(f"statsmodels.datasets.{name}").load_pandas().data
    return getattr(import_module("vega_datasets").local_data, name)()


def _split(name: str) -> Callable[[int], Draw]:
    source, target, features = (part.strip() for part in SETS[name].split(";"))

    def draw(seed: int) -> Draw:
        frame = _frame(name, source)
        columns = features.split(", ") if features else [*frame.columns.drop(target)]
        frame = frame[[*columns, target]].dropna()
        X, y = frame[columns].to_numpy(float), frame[target].to_numpy(float)
        order = np.random.default_rng(seed).permutation(len(X))[:ROWS]
        held, kept = np.split(order, [len(order) // 3])
        return Draw(X[kept], y[kept], X[held], y[held])

    return draw


ERROR = error_line("RMSE / std")
PLAINLY = over(PLAIN, most("median", 1.03), most("worst", 1.2))
SMALL = ("linnerud", "stackloss", "copper")  # below 50 rows


def _regular(name: str) -> Case:
    ratio = over(PLAIN, most("median", 1.1)) if name in SMALL else PLAINLY
    measures = (ERROR, ratio, NO_POLES, NO_BOTTOM)
    return Case(name, "regular", _split(name), spread_error, measures, TABLES, PLAIN)


# --- laws of three to eight columns, rational of a total degree up to four
def _plane(a: Array, b: Array, c: Array, d: Array, e: Array, f: Array, g: Array, h: Array) -> Array:
    return (a * b + c) / (d * e - f + g * h)


def _fourth(x: Array, y: Array, z: Array) -> Array:
    return (1 + x**3 * y) / (x**4 + y**2 * z**2 - z - 0.5)


def _box(columns: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (-1.0,) * columns, (1.0,) * columns


# name, law, lowest and highest inputs, total degree
LAWS: list[tuple[str, Any, Any, Any, int]] = [
    (
        "oscillator",
        lambda q, E, m, w0, w: q * E / (m * (w0**2 - w**2)),
        (1, 1, 1, 0.5, 0.5),
        (3, 3, 3, 2, 2),
        3,
    ),
    ("lens 1/(1/f - 1/u)", lambda f, u, m: m / (1 / f - 1 / u), (1, 1, 1), (3, 3, 2), 3),
    ("parallel resistors", lambda a, b, c: a * b * c / (a * b + b * c + a * c), *_box(3), 3),
    ("(1 + xy)/(z - xy)", lambda x, y, z: (1 + x * y) / (z - x * y), *_box(3), 2),
    ("determinant", lambda a, b, c, d, u, v: (d * u - b * v) / (a * d - b * c), *_box(6), 2),
    ("plane", _plane, *_box(8), 2),
    ("velocities", lambda u, v, c: (u + v) / (1 + u * v / c**2), (-2, -2, 0.5), (2, 2, 2), 3),
    ("Coulomb", lambda q, p, x, y: q * p / (x**2 - y**2), (1, 1, -1, -1), (2, 2, 1, 1), 2),
    ("sums", lambda a, b, c, d: (a + b * c) / (a * b - c * d), *_box(4), 2),
    ("degree four", _fourth, *_box(3), 4),
]


def _law(name: str, law: Any, low: Any, high: Any, degree: int, rows: int = 0) -> Case:
    coefficients = 2 * comb(len(low) + degree, degree)
    rows = rows or int(1.4 * coefficients) + 1
    seconds = told("CPU seconds", cpu_seconds, most("median", 5 if coefficients <= 700 else 10))
    measures = (error_line("relative error", most("median", 1e-12)), seconds)
    name, rivals = f"{name}, {rows} rows", ("boosting", "ridge, squares")
    return Case(
        name, "laws", drawn(law, low, high, rows), relative_error, measures, rivals, seeds=2
    )


# --- heavy tails, noise of the inputs, and noisy tables
def _line(heavy: float, inputs: float) -> Callable[[int], Draw]:
    clean = drawn(lambda x: 1 / (x - 0.3) - 0.5 / (x + 0.6) + x, -1, 1, 300, poles=[-0.6, 0.3])

    def draw(seed: int) -> Draw:
        random = np.random.default_rng(seed)
        rows = clean(random)
        y = rows.y * (1 + heavy * random.standard_t(2, len(rows.y)))
        X = rows.X + inputs * random.standard_normal(rows.X.shape)
        return rows._replace(X=X, y=y)

    return draw


def _friedman(which: int, rows: int = 400) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        import sklearn.datasets as sets

        noise = {1: 1.0, 2: 125.0, 3: 0.1}[which]
        make = getattr(sets, f"make_friedman{which}")
        X, y = make(n_samples=rows, noise=noise, random_state=seed)
        T, truth = make(n_samples=500, noise=0.0, random_state=1000 + seed)
        return Draw(X, y, T, truth)

    return draw


def _dummies(seed: int) -> Draw:
    random = np.random.default_rng(seed)

    def rows(count: int) -> tuple[Array, Array]:
        kind, x = random.integers(0, 4, count), random.uniform(0, 1, (count, 2))
        y = np.array([0.0, 2.0, -1.0, 0.5])[kind] + (x[:, 0] > 0.4) * 1.5 - (x[:, 1] > 0.7)
        return np.c_[np.eye(4)[kind], x], y

    (X, y), (T, truth) = rows(500), rows(500)
    return Draw(X, y + 0.3 * random.standard_normal(500), T, truth)


def _student_line(seed: int) -> Draw:
    random = np.random.default_rng(seed)
    X, T = random.standard_normal((200, 5)), random.standard_normal((500, 5))
    b = np.array([1.0, -2.0, 0.5, 0.0, 0.0])
    return Draw(X, X @ b + random.standard_t(2, 200), T, T @ b)


def _poles(name: str, draw: Any) -> Case:
    right = told("all poles right", all_right, least("mean", 0.9))
    measures = (over(("AAA",), most("median", 1)), right)
    return Case(name, "heavy", draw, relative_error, measures, ("boosting",), ("AAA",), seeds=3)


def _table(name: str, draw: Any) -> Case:
    measures = (ERROR, PLAINLY, NO_BOTTOM)
    return Case(name, "heavy", draw, spread_error, measures, TABLES, PLAIN, seeds=3)


HILL = drawn(
    lambda c, half, power: c**power / (half**power + c**power),
    (0.1, 0.5, 1),
    (5, 2, 4),
    400,
    0.03,
    of="spread",
)
CASES = [
    *map(_regular, SETS),
    *(_law(*each) for each in LAWS),
    _law(*LAWS[0], rows=3000),
    _law(*LAWS[5], rows=3000),
    _poles("two poles, t(2) noise of 3 %", _line(0.03, 0)),
    _poles("two poles, x noise of 0.2 %", _line(0, 0.002)),
    _table("friedman 1, 10 columns", _friedman(1)),
    _table("friedman 2, 4 columns", _friedman(2)),
    _table("Hill of 3 columns, 3 %", HILL),
    _table("friedman 3, 4 columns", _friedman(3)),
    _table("dummies and steps", _dummies),
    _table("linear, t(2) noise", _student_line),
    _table("friedman 1, 60 rows", _friedman(1, 60)),
]
