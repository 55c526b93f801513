"""`zeroproof fit`: from a table to a run folder.

In the order of the work: what was asked for, the rows, a closed form (`solve`) or a network
(`train`), and what is written. Sections make a run of the trainer instead: `sections.py`.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroproof._checks import one_of
from zeroproof._extras import require
from zeroproof.cli.arguments import Reply
from zeroproof.cli.tables import TableRows, check_folder, column_names, read_rows, read_signals
from zeroproof.errors import DataError, RangeError

if TYPE_CHECKING:  # torch takes a second, which `--help` shall not
    from torch import Tensor

    from zeroproof.estimators import TrainedFit
    from zeroproof.estimators.diagnosis import RowView
    from zeroproof.estimators.fitted import Fitted
    from zeroproof.inference import InferenceConfig, StrictResult
    from zeroproof.plots import Answers

__all__ = ["fit", "fit_lines", "picture", "solve", "told", "train", "write_fit"]

_FITTING = ("shared_denominator", "tau_infer", "tau_train", "seed")  # what both methods hand on


def fit(given: Mapping[str, Any], own: dict[str, Any], *, quiet: bool = False) -> Reply:
    """Fit a model to a table and write it to a run folder.

    Args:
        given: Options of `zeroproof fit`, `data`, `out` and `method` among them.
        own: Those of them that belong to the method alone.
        quiet: Show no progress.

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
    signals = own.pop("complex", "")
    rows = read_signals(given, signals) if signals else read_rows(given["data"], given)
    # miss what a fit needs before the work rather than after it
    require("safetensors.torch", extra="train")
    require("matplotlib.figure", extra="plots")
    if given["method"] == "solve":
        require("sklearn", extra="sklearn")
    method = solve if given["method"] == "solve" else train
    with folder_in_place(folder) as fresh:
        report, facts = method(rows, fresh, common, own, quiet=quiet)
    return told([*rows.said, *report], facts, folder)


def told(report: Sequence[str], facts: Mapping[str, Any], folder: Path) -> Reply:
    """Return a report, and which files were written."""
    files = sorted(str(path) for path in folder.iterdir())
    return Reply([*report, f"files: {', '.join(files)}"], {**facts, "files": files})


_PASSED = ("topology", "weight_power", "time_budget", "symmetry")  # options as they are
_SHOWN = 3000  # rows in the picture


def solve(
    rows: TableRows,
    folder: Path,
    common: dict[str, Any],
    own: dict[str, Any],
    *,
    quiet: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Solve and write a run into an existing folder.

    Args:
        rows: What to fit.
        folder: Where to write.
        common: Options of either method that were given, of the names in `FitOptions`.
        own: Options of this method that were given.
        quiet: Show no progress.

    Returns:
        The report, line by line, and facts.
    """
    from zeroproof.cli.poles import listed_poles
    from zeroproof.cli.runs import Solved
    from zeroproof.data import write_csv
    from zeroproof.estimators.diagnosis import errors_of
    from zeroproof.estimators.stored import write
    from zeroproof.estimators.summary import summary

    started = time.perf_counter()
    fitted, options = _fitted(rows, common, own, quiet=quiet)
    X, y = rows.X[:, list(fitted.columns)], rows.y
    view = fitted.view(X)
    shown = fitted._replace(names=rows.labelled(fitted.names))
    said = summary(shown).splitlines()
    explained = y.clone()
    explained[list(fitted.fit.left_out)] = float("nan")
    floor = 1e-12 * y.real.new_tensor(fitted.thresholds.scale)
    answers = fitted.strict(X)
    sizes = errors_of(answers.decoded, explained, floor)
    seconds = time.perf_counter() - started
    facts = {
        "features": list(rows.features),
        "targets": list(rows.targets),
        "rows": len(X),
        "seconds": round(seconds, 3),
        "errors": dict(zip(("rms", "median_relative"), sizes or (), strict=False)),
        "report": said,
        **rows.facts,
    }
    write(fitted, options, folder, facts)
    left_out = [0] * len(X)
    for row in fitted.fit.left_out:
        left_out[row] = 1
    columns = _row_columns(rows, answers, fitted.status(X, answers), view)
    write_csv(folder / "rows.csv", {**columns, "left_out": left_out})
    if X.shape[1] == 1:
        run = Solved(fitted, fitted.names, rows.targets, rows.outputs)
        write_csv(folder / "poles.csv", listed_poles(run, everything=True)[1])
    _draw(shown, rows, folder / "fit.png")
    missing = fitted.labels.missing if fitted.labels else 0
    return [f"fitted {len(X) - missing} rows in {seconds:.1f} s", *said], facts


def _row_columns(
    rows: TableRows, answers: "StrictResult", status: "Tensor", view: "RowView"
) -> dict[str, Any]:
    """Return what a run says of its own rows: inputs, targets, answers, residuals."""
    import torch

    from zeroproof.inference.status import columns_of

    decoded, y = answers.decoded, rows.y
    if y.is_complex():
        decoded, y = (torch.view_as_real(part).flatten(1) for part in (decoded, y))
        status = status.repeat_interleave(2, 1)
    places = range(len(y)) if rows.places is None else rows.places.tolist()
    columns: dict[str, Any] = {"row": [place + 1 for place in places]}
    columns |= {name: x.tolist() for name, x in zip(rows.features, rows.X.T, strict=True)}
    columns |= {name: each.tolist() for name, each in zip(rows.targets, y.T, strict=True)}
    told = columns_of(rows.targets, decoded, status, residual=y - decoded)
    columns |= {f"{name}_answer" if name in rows.targets else name: c for name, c in told.items()}
    return columns | {"score": view.score.tolist(), "distance_to_pole": view.distance.tolist()}


def _fitted(
    rows: TableRows, common: dict[str, Any], own: dict[str, Any], *, quiet: bool
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
        random_state=common["seed"],
        verbose=sys.stderr.isatty() and not quiet,
        **{k: own[k] for k in _PASSED if k in own},
    ).fit(
        X[:, kept],
        y[:, 0] if y.shape[1] == 1 else y,
        None if rows.weight is None else rows.weight.numpy(),
        **({} if rows.group is None else {"groups": rows.group.numpy()}),
    )
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
    fitted.picture(X, y, rows.labelled(rows.targets), left_out).savefig(path, dpi=150)


def train(
    rows: TableRows,
    folder: Path,
    common: dict[str, Any],
    own: dict[str, Any],
    *,
    quiet: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Train and write a run into an existing folder.

    Args:
        rows: What to fit.
        folder: Where to write.
        common: Options of either method that were given, of the names in `FitOptions`.
        own: Options of this method that were given.
        quiet: Show no progress.

    Returns:
        The report, line by line, and facts.
    """
    from zeroproof.estimators import FitOptions, fit_table

    if "hidden" in own:
        own = own | {"hidden": _widths(own["hidden"])}
    options = FitOptions(**common, **own)
    if quiet:
        options = options._replace(progress=False)
    more = {"weight": rows.weight, "groups": rows.group}
    fitted = fit_table(*rows[:4], options, **{k: v for k, v in more.items() if v is not None})
    write_fit(folder, fitted, rows)
    return _report(fitted), fitted.run.facts


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.strip(" []()").split(",") if width.strip())
    except ValueError:
        raise RangeError(f"--hidden must list whole numbers, such as 64,64, got {text!r}") from None


def write_fit(folder: Path, fitted: "TrainedFit", rows: TableRows) -> None:
    """Write model, history, rows and picture into an existing folder."""
    from zeroproof.data import write_csv
    from zeroproof.export import save_run
    from zeroproof.inference.run import predict_rows

    run = fitted.run
    run.facts.update(rows.facts)
    save_run(run, folder)
    fitted.history.save_json(folder / "history.json")
    answers = predict_rows(run, rows.X)
    columns = _row_columns(rows, answers, answers.status, fitted.view)
    held_out = fitted.held_out.int().tolist()
    write_csv(folder / "rows.csv", {**columns, "held_out": held_out})
    picture(fitted, rows).savefig(folder / "fit.png", dpi=150)


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


def picture(fitted: "TrainedFit", rows: TableRows) -> Any:
    """Return the figure for a fit: a curve for one input, else predictions against targets."""
    import torch

    from zeroproof.plots import plot_curve, plot_parity

    run, X, y = fitted.run, rows.X, rows.y
    shown = rows.labelled(run.targets[:_MOST_TARGETS])
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
        rows.labelled(run.features)[0],
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
