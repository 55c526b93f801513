"""Group 1: tables that packages ship, none of whose targets is singular anywhere."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.field.case import Array, Case, Draw, error_line, most, over, told
from benchmarks.field.measures import bottom, poles_claimed, spread_error
from benchmarks.field.rivals import PLAIN, TABLES

ROWS = 600  # drawn from larger tables

# name: where it is, target, features
SETS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "diabetes": ("sklearn", "target", ()),
    "wine, proline": ("sklearn", "proline", ()),
    "iris, petal width": ("sklearn", "petal width (cm)", ()),
    "breast cancer, radius": (
        "sklearn",
        "mean radius",
        ("mean texture", "mean smoothness", "mean compactness", "mean concavity", "mean symmetry"),
    ),
    "linnerud, pulse": ("sklearn", "Pulse", ("Chins", "Situps", "Jumps")),
    "engel": ("statsmodels", "foodexp", ("income",)),
    "grunfeld": ("statsmodels", "invest", ("value", "capital", "year")),
    "fair, years married": (
        "statsmodels",
        "yrs_married",
        ("age", "children", "religious", "educ", "affairs"),
    ),
    "macrodata, consumption": ("statsmodels", "infl", ("tbilrate", "unemp", "realint", "realgdp")),
    "nile": ("statsmodels", "volume", ("year",)),
    "sunspots": ("statsmodels", "SUNACTIVITY", ("YEAR",)),
    "statecrime": (
        "statsmodels",
        "murder",
        ("violent", "hs_grad", "poverty", "single", "white", "urban"),
    ),
    "ccard": ("statsmodels", "AVGEXP", ("AGE", "INCOME", "OWNRENT")),
    "star98": ("statsmodels", "NABOVE", ("NBELOW", "LOWINC", "PERASIAN", "PERBLACK", "PERHISP")),
    "anes96": ("statsmodels", "income", ("age", "educ", "PID", "selfLR")),
    "heart": ("statsmodels", "survival", ("age", "censors")),
    "stackloss": ("statsmodels", "STACKLOSS", ("AIRFLOW", "WATERTEMP", "ACIDCONC")),
    "copper": (
        "statsmodels",
        "WORLDCONSUMPTION",
        ("COPPERPRICE", "INCOMEINDEX", "ALUMPRICE", "INVENTORYINDEX", "TIME"),
    ),
    "cars": (
        "vega",
        "Miles_per_Gallon",
        ("Displacement", "Horsepower", "Weight_in_lbs", "Acceleration"),
    ),
    "airports": ("vega", "latitude", ("longitude",)),
    "seattle-weather": ("vega", "temp_max", ("precipitation", "temp_min", "wind")),
}
OF_SKLEARN = {
    "diabetes": "diabetes",
    "wine": "wine",
    "iris": "iris",
    "breast": "breast_cancer",
    "linnerud": "linnerud",
}


def _frame(name: str, source: str) -> Any:
    first = name.split(",", maxsplit=1)[0].split(maxsplit=1)[0]
    if source == "sklearn":
        import sklearn.datasets as sets

        loaded = getattr(sets, "load_" + OF_SKLEARN[first])(as_frame=True)
        return loaded.frame.drop(columns=[] if first == "diabetes" else ["target"], errors="ignore")
    if source == "statsmodels":
        from importlib import import_module

        return import_module(f"statsmodels.datasets.{first}").load_pandas().data
    from vega_datasets import local_data

    return getattr(local_data, first.replace("-", "_"))()


def _split(name: str) -> Callable[[int], Draw]:
    source, target, features = SETS[name]

    def draw(seed: int) -> Draw:
        frame = _frame(name, source)
        columns = list(features) or [each for each in frame.columns if each != target]
        frame = frame[[*columns, target]].dropna()
        X, y = frame[columns].to_numpy(float), frame[target].to_numpy(float)
        return _third(X, y, seed)

    return draw


def _third(X: Array, y: Array, seed: int) -> Draw:
    order = np.random.default_rng(seed).permutation(len(X))[:ROWS]
    cut = len(order) // 3
    held, kept = order[:cut], order[cut:]
    return Draw(X[kept], y[kept], X[held], y[held])


MANY = (
    error_line("RMSE / std"),
    over(PLAIN, most("median", 1.03), most("worst", 1.2)),
    told("poles claimed", poles_claimed, most("worst", 0)),
    told("⊥ or inf", bottom, most("worst", 0)),
)
FEW = (MANY[0], over(PLAIN, most("median", 1.1)), *MANY[2:])
SMALL = ("linnerud, pulse", "stackloss", "copper")  # below 50 rows
CASES = [
    Case(name, "regular", _split(name), spread_error, FEW if name in SMALL else MANY, TABLES, PLAIN)
    for name in SETS
]
