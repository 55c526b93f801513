"""Group 1: tables that packages ship, none of whose targets is singular anywhere."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.field.case import Case, Draw, error_line, most, over
from benchmarks.field.measures import NO_BOTTOM, NO_POLES, spread_error
from benchmarks.field.rivals import PLAIN, TABLES

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
MANY = ERROR, over(PLAIN, most("median", 1.03), most("worst", 1.2)), NO_POLES, NO_BOTTOM
FEW = ERROR, over(PLAIN, most("median", 1.1)), NO_POLES, NO_BOTTOM
SMALL = ("linnerud", "stackloss", "copper")  # below 50 rows
CASES = [
    Case(name, "regular", _split(name), spread_error, FEW if name in SMALL else MANY, TABLES, PLAIN)
    for name in SETS
]
