"""`zeroproof fit --method train`: a network, trained by gradients."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zeroproof.cli.rows import TableRows
from zeroproof.errors import RangeError
from zeroproof.export import predict_rows
from zeroproof.plots import Answers, plot_curve, plot_parity
from zeroproof.projective import denominator_score

if TYPE_CHECKING:
    from zeroproof.estimators import TrainedFit

__all__ = ["fit_lines", "picture", "train", "write_fit"]


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


def picture(fitted: "TrainedFit", X: Tensor, y: Tensor) -> Any:
    """Return the figure for a fit: a curve for one input, else predictions against targets."""
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


def _answers(fitted: "TrainedFit", X: Tensor, count: int) -> list[Answers]:
    result = predict_rows(fitted.run, X)
    with torch.no_grad():
        N, D = fitted.run.model(X)
    score = denominator_score(N, D, fitted.run.config.score, fitted.run.config.scale)
    parts = (result.decoded, result.bottom_mask, result.gap_mask, score)
    return [Answers(*(part[:, place].numpy() for part in parts)) for place in range(count)]
