"""`zeroproof fit`: from a CSV file to a run folder."""

from pathlib import Path
from typing import Any

from zeroproof._checks import one_of
from zeroproof._extras import require
from zeroproof.errors import RangeError

__all__ = ["COMMON", "OWN", "fit", "own_options"]

OWN = {
    "solve": (
        "features_family",
        "degrees",
        "topology",
        "linear_in",
        "weight_power",
        "time_budget",
        "complex",
        "symmetry",
        "nan",
    ),
    "train": ("hidden", "steps", "epochs", "batch_size", "learning_rate", "held_out"),
}
COMMON = ("shared_denominator", "tau_infer", "tau_train", "seed")


def fit(
    data: str,
    *,
    out: str,
    target: str = "",
    method: str = "solve",
    features: str = "",
    shared_denominator: bool | None = None,
    tau_infer: float | None = None,
    tau_train: float | None = None,
    seed: int = 0,
    features_family: str = "",
    degrees: str = "",
    topology: str = "",
    linear_in: str = "",
    weight_power: float | None = None,
    time_budget: float | None = None,
    complex: str = "",  # noqa: A002
    symmetry: str = "",
    nan: str = "",
    hidden: str = "",
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    held_out: float | None = None,
) -> None:
    """Fit a model to a table and write it to a run folder.

    Args:
        data: CSV file; its first line names the columns.
        target: Column to predict, or several: a,b. Cells may be numbers, inf, -inf, or nan for ⊥.
        out: Folder to write; a run that is there already is replaced.
        method: "solve", a closed form with its poles, or "train", a network.
        features: Columns to predict from; all others by default.
        shared_denominator: One for all targets? solve: found by default; train: true.
        tau_infer: Below this score an answer is ⊥; read off the data by default.
        tau_train: Below this score an answer is in the gap; read off the data by default.
        seed: Same seed, same answer.
        features_family: solve: auto, chebyshev, polynomial, random or fourier.
        degrees: solve: of N and D, p,q or one number for both; found by default.
        topology: solve: projective, or affine where +inf and -inf differ.
        linear_in: solve: columns in which N is linear and of which D is free; found by default.
        weight_power: solve: least squares are weighted by 1 / (1 + y²/s²)^weight_power; 0.
        time_budget: solve: seconds for the search; 10.
        complex: solve: real and imaginary part of a signal over one feature, a frequency, instead
            of a target: re,im; of several signals re1,im1,re2,im2.
        symmetry: solve: of complex signals: conjugate, the response of a real system, poles in s =
            i times the feature; none; auto, conjugate unless none does better; auto.
        nan: solve: what nan in a target says: "bottom", there is no finite answer, or "missing", it
            was not measured, and the row is left out; bottom.
        hidden: train: widths of the hidden layers, in their order; 64,64.
        steps: train: optimiser steps; 5000.
        epochs: train: passes over the data, instead of steps.
        batch_size: train: rows per step; 512.
        learning_rate: train: largest step of Adam, which falls along a cosine; 0.02.
        held_out: train: share of rows that chooses epoch and thresholds; 0.2.
    """
    _fit({name: value for name, value in locals().items() if value not in (None, "")})


def _fit(given: dict[str, Any]) -> None:
    from zeroproof._files import folder_in_place
    from zeroproof.cli.rows import read_rows, read_signals
    from zeroproof.cli.runs import check_folder
    from zeroproof.cli.solving import solve
    from zeroproof.cli.training import train
    from zeroproof.estimators import FitOptions
    from zeroproof.estimators.options import check_options

    method = given.get("method", "")
    own = own_options(method, given)
    common = {name: given[name] for name in COMMON if name in given}
    check_options(FitOptions(**common))
    folder = Path(given.get("out", ""))
    check_folder(folder)
    signals = own.pop("complex", "")
    columns = given.get("target", ""), given.get("features", "")
    rows = (
        read_signals(given["data"], signals, *columns)
        if signals
        else read_rows(given["data"], *columns)
    )
    _require_writers(method)
    with folder_in_place(folder) as fresh:
        report = (solve if method == "solve" else train)(rows, fresh, common, own)
    print("\n".join(report))
    print(f"files: {', '.join(str(folder / path.name) for path in sorted(folder.iterdir()))}")


def own_options(method: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of this method that were given.

    Raises:
        RangeError: There is no such method, or one belongs to the other method.
    """
    one_of(method, tuple(OWN), "--method")
    for other, names in OWN.items():
        foreign = [name for name in names if name in given]
        if other != method and foreign:
            raise RangeError(f"--{foreign[0]} must come with --method {other}, got {method}")
    return {name: given[name] for name in OWN[method] if name in given}


def _require_writers(method: str) -> None:
    """Miss what a fit needs before the work rather than after it."""
    require("safetensors.torch", extra="train")
    require("matplotlib.figure", extra="plots")
    if method == "solve":
        require("sklearn", extra="sklearn")
