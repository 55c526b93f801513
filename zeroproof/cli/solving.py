"""`zeroproof fit --method solve`: a closed-form fit."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroproof._checks import one_of
from zeroproof.cli.rows import TableRows, column_names
from zeroproof.errors import DataError, RangeError

if TYPE_CHECKING:
    from zeroproof.estimators.fitted import Fitted
    from zeroproof.inference import InferenceConfig

__all__ = ["solve"]

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
