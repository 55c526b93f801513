"""`zeroproof fit`: from a table to a run folder.

In the order of the work: what was asked for, the rows, a closed form (`solve`) or a network
(`train`), and what is written. Sections make a run of the trainer instead: `sections.py`.
"""

import csv
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroproof._checks import one_of
from zeroproof._extras import require
from zeroproof.errors import DataError, RangeError, RunFolderError

if TYPE_CHECKING:  # torch takes a second, which `--help` shall not
    from torch import Tensor

    from zeroproof.estimators import TrainedFit
    from zeroproof.estimators.fitted import Fitted
    from zeroproof.inference import InferenceConfig
    from zeroproof.plots import Answers

__all__ = [
    "DESCRIPTIONS",
    "RUN_FILES",
    "TableRows",
    "answer_columns",
    "check_answers",
    "check_folder",
    "column_names",
    "fit",
    "fit_lines",
    "picture",
    "print_report",
    "read_rows",
    "solve",
    "train",
    "write_fit",
]

_FITTING = ("shared_denominator", "tau_infer", "tau_train", "seed")  # what both methods hand on


def fit(given: Mapping[str, Any], own: dict[str, Any]) -> None:
    """Fit a model to a table and write it to a run folder.

    Args:
        given: Options of `zeroproof fit`, `data`, `out` and `method` among them.
        own: Those of them that belong to the method alone.

    Raises:
        ZeroProofError: Data, a folder or an option cannot be used, or training failed.
    """
    from zeroproof._files import folder_in_place
    from zeroproof.estimators import FitOptions
    from zeroproof.estimators.options import check_options

    common = {name: given[name] for name in _FITTING if name in given}
    check_options(FitOptions(**common))
    folder = Path(given["out"])
    check_folder(folder)
    columns = given.get("target", ""), given.get("features", "")
    signals = own.pop("complex", "")
    rows = (
        read_signals(given["data"], signals, *columns)
        if signals
        else read_rows(given["data"], *columns)
    )
    # miss what a fit needs before the work rather than after it
    require("safetensors.torch", extra="train")
    require("matplotlib.figure", extra="plots")
    if given["method"] == "solve":
        require("sklearn", extra="sklearn")
    with folder_in_place(folder) as fresh:
        report = (solve if given["method"] == "solve" else train)(rows, fresh, common, own)
    print_report(report, folder)


def print_report(report: Iterable[str], folder: Path) -> None:
    """Print a report, and which files were written."""
    print("\n".join(report))
    print(f"files: {', '.join(str(path) for path in sorted(folder.iterdir()))}")


_ADVICE = "; write it as a number, or choose other columns with --features"
_TARGET_ADVICE = "; a target is a number, inf, -inf, or nan for ⊥"


class TableRows(NamedTuple):
    """Numbers of a table with the names of their columns."""

    X: "Tensor"  # (rows, features), finite
    y: "Tensor"  # (rows, targets), or complex with half as many columns
    features: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return a name for each output: that of a target, or of real and imaginary part."""
        each = len(self.targets) // self.y.shape[1]
        return tuple(
            ",".join(self.targets[i : i + each]) for i in range(0, len(self.targets), each)
        )


def read_rows(data: str, target: str, features: str) -> TableRows:
    """Read the columns that were asked for; all but the targets if no features are named.

    Raises:
        DataError: The table or a name cannot be used, or a target is ⊥ in all rows.
    """
    from zeroproof.data import numbers, read_csv

    targets = column_names(target, "--target")
    check_answers(targets)
    table = read_csv(data)
    rest = tuple(name for name in table.columns if name not in targets)
    names = column_names(features, "--features") if features else rest
    if set(names) & set(targets):
        raise DataError(f"--features must not name a target, got {features!r}")
    y = numbers(table, targets, advice=_TARGET_ADVICE)
    if not names:
        raise DataError(f"{data} must have a column besides the targets to predict from, got none")
    X = numbers(table, names, finite=True, advice=_ADVICE)
    for name, column in zip(targets, y.T, strict=True):
        if not column.isfinite().any():
            raise DataError(
                f"target {name!r} must have a finite value in some row, got ⊥ in all {len(y)}"
            )
    return TableRows(X, y, names, targets)


def read_signals(data: str, signals: str, target: str, features: str) -> TableRows:
    """Read complex signals, two columns each, and the column that they are over.

    Args:
        data: CSV file.
        signals: Names of real and imaginary parts, `re1,im1,re2,im2`.
        target: Further targets, which there must not be.
        features: Name of the one feature; "" if no other column is there.

    Raises:
        DataError: As `read_rows`, or the names are not pairs, or there is not one feature.
    """
    import torch

    names = column_names(signals, "--complex")
    if target or len(names) % 2:
        got = f"also --target {target}" if target else f"{len(names)} names"
        raise DataError(f"--complex must list pairs of columns, real and imaginary, got {got}")
    rows = read_rows(data, signals, features)
    if len(rows.features) != 1:
        raise DataError(
            "--complex must come with one feature, the frequency; name it with --features, got "
            + ", ".join(rows.features)
        )
    return rows._replace(y=torch.complex(rows.y[:, ::2], rows.y[:, 1::2]))


def check_answers(targets: tuple[str, ...]) -> None:
    """Check that no target is named as the answers for another one are.

    Raises:
        DataError: One is.
    """
    written = [name for target in targets for name in answer_columns(target)]
    twice = [name for name in written if written.count(name) > 1]
    if twice:
        raise DataError(
            f"targets must not be named as the answers for others are, TARGET_bottom or "
            f"TARGET_gap, got {twice[0]!r}"
        )


def column_names(text: str, option: str) -> tuple[str, ...]:
    """Split `a,b` into names; a name that holds a comma goes in double quotes, as in a CSV file.

    Raises:
        DataError: An empty name, or one given twice.
    """
    names = tuple(name.strip() for name in next(csv.reader([text]), []))
    if not names or not all(names) or len(set(names)) < len(names):
        raise DataError(f"{option} must list column names, each once, got {text!r}")
    return names


def answer_columns(target: str) -> tuple[str, str, str]:
    """Return the columns that `zeroproof predict` writes for a target."""
    return target, f"{target}_bottom", f"{target}_gap"


DESCRIPTIONS = {"model.json", "run.json"}
RUN_FILES = DESCRIPTIONS | {
    *("model.safetensors", "history.json", "rows.csv", "fit.png", "config.yaml"),
}


def check_folder(folder: Path) -> None:
    """Check that a run may be written here.

    Raises:
        RunFolderError: It holds anything but an earlier run, is a file, or cannot be a folder.
    """
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        if names and (not names & DESCRIPTIONS or names - RUN_FILES):
            foreign = sorted(names - RUN_FILES)[:3] or ["no model.json or run.json"]
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


_PASSED = ("topology", "weight_power", "time_budget", "symmetry")  # options as they are
_SHOWN = 3000  # rows in the picture


def solve(rows: TableRows, folder: Path, common: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Solve and write a run into an existing folder.

    Args:
        rows: What to fit.
        folder: Where to write.
        common: Options of either method that were given, of the names in `FitOptions`.
        own: Options of this method that were given.

    Returns:
        The report, line by line.
    """
    from zeroproof.data import write_csv
    from zeroproof.estimators.diagnosis import errors_of
    from zeroproof.estimators.stored import write
    from zeroproof.estimators.summary import summary

    started = time.perf_counter()
    fitted, options = _fitted(rows, common, own)
    X, y = rows.X[:, list(fitted.columns)], rows.y
    view = fitted.view(X)
    said = summary(fitted).splitlines()
    explained = y.clone()
    explained[list(fitted.fit.left_out)] = float("nan")
    floor = 1e-12 * y.real.new_tensor(fitted.thresholds.scale)
    sizes = errors_of(fitted.strict(X).decoded, explained, floor)
    seconds = time.perf_counter() - started
    facts = {
        "features": list(rows.features),
        "targets": list(rows.targets),
        "rows": len(X),
        "seconds": round(seconds, 3),
        "errors": dict(zip(("rms", "median_relative"), sizes or (), strict=False)),
        "report": said,
    }
    write(fitted, options, folder, facts)
    write_csv(
        folder / "rows.csv",
        {
            "row": range(1, len(X) + 1),
            "score": view.score.tolist(),
            "distance_to_pole": view.distance.tolist(),
            "left_out": [int(row in set(fitted.fit.left_out)) for row in range(len(X))],
        },
    )
    _draw(fitted, rows, folder / "fit.png")
    missing = fitted.labels.missing if fitted.labels else 0
    return [f"fitted {len(X) - missing} rows in {seconds:.1f} s", *said]


def _fitted(
    rows: TableRows, common: dict[str, Any], own: dict[str, Any]
) -> tuple["Fitted", dict[str, Any]]:
    """Return the fit and the estimator's options, with columns counted among all features."""
    from zeroproof.estimators.options import FEATURES, POLYNOMIAL, columns_to_keep
    from zeroproof.estimators.regressor import ProjectiveRegressor

    X, y = rows.X.numpy(), rows.y.numpy()
    family = one_of(own.get("features_family", "auto"), FEATURES, "--features_family")
    if "degrees" in own and family not in POLYNOMIAL:
        raise RangeError(
            f"--degrees must come with --features_family {', '.join(POLYNOMIAL)}, got {family}"
        )
    if rows.y.is_complex():
        given = family != "auto" or "degrees" in own or "linear_in" in own
        own = {"symmetry": "none" if given else "auto", **own}
    elif "symmetry" in own:
        raise RangeError(f"--symmetry must come with --complex, got {own['symmetry']} alone")
    linear = _linear(own, rows.features)
    kept = columns_to_keep(X, rows.features)
    model = ProjectiveRegressor(
        features=family,
        degrees=_degrees(own),
        linear_in=None if linear is None else [kept.index(i) for i in linear if i in kept],
        shared_denominator=common.get("shared_denominator", "auto"),
        missing={"bottom": "bottom", "missing": "drop"}[
            one_of(own.get("nan", "bottom"), ("bottom", "missing"), "--nan")
        ],
        random_state=common["seed"],
        verbose=sys.stderr.isatty(),
        **{k: own[k] for k in _PASSED if k in own},
    ).fit(X[:, kept], y[:, 0] if y.shape[1] == 1 else y)
    fitted = model.fitted_._replace(
        columns=tuple(kept),
        seen=rows.features,
        names=tuple(rows.features[i] for i in kept),
        thresholds=_thresholds(model.fitted_.thresholds, common),
        outputs=rows.outputs,
    )
    return fitted, model.get_params(deep=False) | {"linear_in": linear, "verbose": False}


def _degrees(own: dict[str, Any]) -> tuple[int, int] | None:
    if "degrees" not in own:
        return None
    text = own["degrees"]
    try:
        p, *rest = (int(degree) for degree in text.strip(" []()").split(","))
        (q,) = rest or [p]
    except ValueError:
        raise RangeError(
            f"--degrees must be a whole number or two, such as 3,3, got {text!r}"
        ) from None
    return p, q


def _linear(own: dict[str, Any], features: tuple[str, ...]) -> list[int] | None:
    if "linear_in" not in own:
        return None
    names = column_names(own["linear_in"], "--linear_in")
    for name in names:
        if name not in features:
            raise DataError(
                f"--linear_in must name features, {', '.join(map(repr, features))}, got {name!r}"
            )
    return [features.index(name) for name in names]


def _thresholds(found: "InferenceConfig", common: dict[str, Any]) -> "InferenceConfig":
    """Return the thresholds with those that the user fixed; one that is found gives way."""
    from zeroproof.inference import InferenceConfig

    infer, train = (common.get(name) for name in ("tau_infer", "tau_train"))
    if infer is None:
        infer = min(found.tau_infer, train or found.tau_infer)
    if train is None:
        train = max(found.tau_train, infer)
    return InferenceConfig(tau_infer=infer, tau_train=train, score=found.score, scale=found.scale)


def _draw(fitted: "Fitted", rows: TableRows, path: Path) -> None:
    import torch

    order = torch.randperm(len(rows.X), generator=torch.Generator().manual_seed(0))[:_SHOWN]
    X, y = rows.X[order][:, list(fitted.columns)].numpy(), rows.y[order].numpy()
    left_out = torch.isin(order, torch.tensor(fitted.fit.left_out)).numpy()
    fitted.picture(X, y, rows.targets, left_out).savefig(path, dpi=150)


def train(rows: TableRows, folder: Path, common: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Train and write a run into an existing folder.

    Args:
        rows: What to fit.
        folder: Where to write.
        common: Options of either method that were given, of the names in `FitOptions`.
        own: Options of this method that were given.

    Returns:
        The report, line by line.
    """
    from zeroproof.estimators import FitOptions, fit_table

    if "hidden" in own:
        own = own | {"hidden": _widths(own["hidden"])}
    fitted = fit_table(*rows, FitOptions(**common, **own))
    write_fit(folder, fitted, rows)
    return _report(fitted)


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.strip(" []()").split(",") if width.strip())
    except ValueError:
        raise RangeError(f"--hidden must list whole numbers, such as 64,64, got {text!r}") from None


def write_fit(folder: Path, fitted: "TrainedFit", rows: TableRows) -> None:
    """Write model, history, rows and picture into an existing folder."""
    from zeroproof.data import write_csv
    from zeroproof.export import save_run

    save_run(fitted.run, folder)
    fitted.history.save_json(folder / "history.json")
    write_csv(
        folder / "rows.csv",
        {
            "row": range(1, len(rows.X) + 1),
            "score": fitted.view.score.tolist(),
            "distance_to_pole": fitted.view.distance.tolist(),
            "held_out": fitted.held_out.int().tolist(),
        },
    )
    picture(fitted, rows.X, rows.y).savefig(folder / "fit.png", dpi=150)


def _report(fitted: "TrainedFit") -> list[str]:
    facts = fitted.run.facts
    return [
        f"fitted {facts['rows']} rows in {facts['seconds']:.1f} s; "
        f"{facts['held_out_rows']} held out",
        *fit_lines(fitted),
        *_comparison(facts),
    ]


def fit_lines(fitted: "TrainedFit") -> list[str]:
    """Return errors, thresholds and the diagnosis."""
    facts, config = fitted.run.facts, fitted.run.config
    errors = facts["errors"]
    return [
        *(
            _error_line(label, errors[f"{part}_rms"], errors[f"{part}_median_relative"])
            for part, label in (("all", "all rows"), ("held_out", "held-out rows"))
            if f"{part}_rms" in errors
        ),
        f"  thresholds on the {config.score} score: tau_infer {config.tau_infer:.3g}, "
        f"tau_train {config.tau_train:.3g}",
        *_diagnosis_lines(facts["diagnosis"]),
    ]


def _error_line(label: str, rms: float, relative: float) -> str:
    return f"  {label}: RMS error {rms:.4g}, median relative error {relative:.2g}"


def _diagnosis_lines(found: Mapping[str, Any]) -> list[str]:
    nearest = found["nearest_pole"]
    pole = (
        "the network has no pole"
        if nearest is None
        else f"nearest pole {nearest:.3g} standard deviations of the inputs from a row"
    )
    return [f"  smallest score {found['smallest_score']:.3g}; {pole}", f"  {found['verdict']}"]


def _comparison(facts: dict[str, Any]) -> list[str]:
    """Say how the plain network did that was trained beside the projective one, if it was."""
    if "plain" not in facts["unexplained"]:
        return []
    plain, projective = (
        "none" if facts["unexplained"][name] is None else f"{facts['unexplained'][name]:.3g}"
        for name in ("plain", "projective")
    )
    part = "held-out" if facts["held_out_rows"] else "all"
    return [
        f"  error over standard deviation, {part} rows: {projective} with poles allowed, "
        f"{plain} for a plain network (D = 1); kept: {facts['kept']}"
    ]


_GRID = 2000
_MOST_TARGETS = 4  # further ones are left to rows.csv


def picture(fitted: "TrainedFit", X: "Tensor", y: "Tensor") -> Any:
    """Return the figure for a fit: a curve for one input, else predictions against targets."""
    import torch

    from zeroproof.plots import plot_curve, plot_parity

    run = fitted.run
    shown = run.targets[:_MOST_TARGETS]
    targets = {name: y[:, place].numpy() for place, name in enumerate(shown)}
    if X.shape[1] > 1:
        return plot_parity(targets, _answers(fitted, X, len(shown)))
    grid = torch.linspace(float(X.min()), float(X.max()), _GRID, dtype=X.dtype)[:, None]
    return plot_curve(
        X[:, 0].numpy(),
        targets,
        grid[:, 0].numpy(),
        _answers(fitted, grid, len(shown)),
        (run.config.tau_infer, run.config.tau_train),
        run.features[0],
        at_rows=_answers(fitted, X, len(shown)),
    )


def _answers(fitted: "TrainedFit", X: "Tensor", count: int) -> list["Answers"]:
    import torch

    from zeroproof.inference.run import predict_rows
    from zeroproof.plots import Answers
    from zeroproof.projective import denominator_score

    result = predict_rows(fitted.run, X)
    with torch.no_grad():
        N, D = fitted.run.model(X)
    score = denominator_score(N, D, fitted.run.config.score, fitted.run.config.scale)
    parts = (result.decoded, result.bottom_mask, result.gap_mask, score)
    return [Answers(*(part[:, place].numpy() for part in parts)) for place in range(count)]
