"""`zeroproof fit`: from a CSV file to a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroproof._extras import require
from zeroproof.cli.columns import answer_columns, column_names
from zeroproof.errors import DataError, RangeError, RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

    from zeroproof.estimators import TrainedFit

__all__ = ["fit"]

_FILES = {"model.safetensors", "run.json", "history.json", "rows.csv", "fit.png"}
_ADVICE = "; write it as a number, or choose other columns with --features"
_TARGET_ADVICE = "; a target is a number, inf, -inf, or nan for ⊥"


def fit(
    data: str,
    *,
    target: str,
    out: str,
    features: str = "",
    hidden: str = "64,64",
    steps: int = 5000,
    epochs: int | None = None,
    batch_size: int = 512,
    learning_rate: float = 2e-2,
    held_out: float = 0.2,
    shared_denominator: bool = True,
    tau_infer: float | None = None,
    tau_train: float | None = None,
    seed: int = 0,
) -> None:
    """Fit a model to a table and write it to a run folder.

    Args:
        data: CSV file; its first line names the columns.
        target: Column to predict, or several: a,b. Cells may be numbers, inf, -inf, or nan for ⊥.
        out: Folder to write; a run that is there already is replaced.
        features: Columns to predict from; all others by default.
        hidden: Widths of the hidden layers, in their order: 64,64.
        steps: Optimiser steps.
        epochs: Passes over the data, instead of steps.
        batch_size: Rows per step.
        learning_rate: Largest step of Adam; it falls along a cosine.
        held_out: Share of rows that chooses epoch and thresholds and is never trained on.
        shared_denominator: Give all targets one denominator, as one system has the same poles.
        tau_infer: Below this score an answer is ⊥; read off held-out rows by default.
        tau_train: Below this score an answer is in the gap; read off held-out rows by default.
        seed: Same seed, same answer.
    """
    from zeroproof._files import folder_in_place
    from zeroproof.estimators import FitOptions, fit_table

    folder = Path(out)
    _check_place(folder)
    rows = _read(data, target, features)
    options = FitOptions(
        hidden=_widths(hidden),
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        held_out=held_out,
        shared_denominator=shared_denominator,
        tau_infer=tau_infer,
        tau_train=tau_train,
        seed=seed,
    )
    _require_writers()
    with folder_in_place(folder) as fresh:
        fitted = fit_table(*rows, options)
        _write(fresh, fitted, rows.X, rows.y)
    _report(fitted, folder)


class _Rows(NamedTuple):
    X: "Tensor"
    y: "Tensor"
    features: tuple[str, ...]
    targets: tuple[str, ...]


def _read(data: str, target: str, features: str | None) -> _Rows:
    from zeroproof.data import numbers, read_csv

    targets = column_names(target, "--target")
    _check_answers(targets)
    table = read_csv(data)
    rest = tuple(name for name in table.columns if name not in targets)
    names = column_names(features, "--features") if features else rest
    if set(names) & set(targets):
        raise DataError(f"--features must not name a target, got {features!r}")
    y = numbers(table, targets, advice=_TARGET_ADVICE)
    if not names:
        raise DataError(f"{data} must have a column besides the targets to predict from, got none")
    return _Rows(numbers(table, names, finite=True, advice=_ADVICE), y, names, targets)


def _require_writers() -> None:
    """Miss what writes a run before the work rather than after it."""
    require("safetensors.torch", extra="train")
    require("matplotlib.figure", extra="plots")


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.strip(" []()").split(",") if width.strip())
    except ValueError:
        raise RangeError(f"--hidden must list whole numbers, such as 64,64, got {text!r}") from None


def _check_answers(targets: tuple[str, ...]) -> None:
    written = [name for target in targets for name in answer_columns(target)]
    twice = [name for name in written if written.count(name) > 1]
    if twice:
        raise DataError(
            f"targets must not be named as the answers for others are, TARGET_bottom or "
            f"TARGET_gap, got {twice[0]!r}"
        )


def _check_place(folder: Path) -> None:
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        if names and ("run.json" not in names or names - _FILES):
            foreign = sorted(names - _FILES)[:3] or ["no run.json"]
            raise RunFolderError(
                f"{folder} must be new, empty or an earlier run, but holds {', '.join(foreign)}"
            )
        if Path.cwd().is_relative_to(folder.resolve()):
            raise RunFolderError(f"{folder} must not be the current folder or one above it")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} must be a folder, got a file")
    parent = next(place for place in folder.absolute().parents if place.exists())
    if not parent.is_dir():
        raise RunFolderError(f"{folder} must lie in a folder, but {parent} is a file")


def _write(folder: Path, fitted: "TrainedFit", X: "Tensor", y: "Tensor") -> None:
    from zeroproof.cli.picture import picture
    from zeroproof.data import write_csv
    from zeroproof.export import save_run

    save_run(fitted.run, folder)
    fitted.history.save_json(folder / "history.json")
    write_csv(
        folder / "rows.csv",
        {
            "row": range(1, len(X) + 1),
            "score": fitted.view.score.tolist(),
            "distance_to_pole": fitted.view.distance.tolist(),
            "held_out": fitted.held_out.int().tolist(),
        },
    )
    picture(fitted, X, y).savefig(folder / "fit.png", dpi=150)


def _report(fitted: "TrainedFit", folder: Path) -> None:
    facts, config = fitted.run.facts, fitted.run.config
    found, errors = facts["diagnosis"], facts["errors"]
    print(
        f"fitted {facts['rows']} rows in {facts['seconds']:.1f} s; "
        f"{facts['held_out_rows']} held out"
    )
    for part, label in (("all", "all rows"), ("held_out", "held-out rows")):
        if f"{part}_rms" in errors:
            print(
                f"  {label}: RMS error {errors[f'{part}_rms']:.4g}, "
                f"median relative error {errors[f'{part}_median_relative']:.2g}"
            )
    print(
        f"  thresholds on the angle score: tau_infer {config.tau_infer:.3g}, "
        f"tau_train {config.tau_train:.3g}"
    )
    print(f"  smallest score {found['smallest_score']:.3g}; {_distance(found['nearest_pole'])}")
    print(f"  {found['verdict']}")
    _compare(facts)
    print(f"files: {', '.join(str(folder / path.name) for path in sorted(folder.iterdir()))}")


def _distance(nearest: float | None) -> str:
    if nearest is None:
        return "the model has no pole"
    return f"nearest pole {nearest:.3g} standard deviations of the inputs from a row"


def _compare(facts: dict[str, Any]) -> None:
    """Say how the plain network did that was trained beside the projective one, if it was."""
    if "plain" in facts["unexplained"]:
        plain, projective = (
            "none" if facts["unexplained"][name] is None else f"{facts['unexplained'][name]:.3g}"
            for name in ("plain", "projective")
        )
        part = "held-out" if facts["held_out_rows"] else "all"
        print(
            f"  error over standard deviation, {part} rows: {projective} with poles allowed, "
            f"{plain} for a plain network (D = 1); kept: {facts['kept']}"
        )
