"""Run folders of either kind, opened to be asked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from zeroproof.errors import RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

    from zeroproof.estimators.fitted import Fitted
    from zeroproof.export import Run
    from zeroproof.inference import StrictResult

__all__ = ["MODULE_FORMAT", "Solved", "answers_of", "open_run"]

MODULE_FORMAT = "zeroproof-module"  # in run.json, of a model that only its own code can build


class Solved(NamedTuple):
    """A closed-form fit with the names of its columns."""

    fitted: "Fitted"
    features: tuple[str, ...]  # those that are used
    targets: tuple[str, ...]  # of a complex output two, real and imaginary part
    outputs: tuple[str, ...]  # a name for each


def open_run(folder: str | Path) -> "Run | Solved":
    """Read what `zeroproof fit` wrote, or `ProjectiveRegressor.save`.

    Raises:
        RunFolderError: It is neither, is damaged, or was written by a newer version.
    """
    from zeroproof.export import load_run

    folder = Path(folder)
    if (folder / "model.json").is_file():
        return _solved(folder)
    if not (folder / "run.json").is_file():
        raise RunFolderError(
            f"{folder} must be a folder written by `zeroproof fit`, "
            "but has no model.json or run.json"
        )
    _check_own(folder / "run.json")
    return load_run(folder)


def answers_of(run: "Run | Solved", X: "Tensor") -> "StrictResult":
    """Return answers with masks for rows, `(n, targets)`; a row that is not finite is ⊥.

    Warns:
        UserWarning: Rows outside the data of a closed-form fit where admissible fits disagree.
    """
    if isinstance(run, Solved):
        from zeroproof.estimators.fitted import parts_of

        run.fitted.warn_outside(X)
        return parts_of(run.fitted.strict(X))
    from zeroproof.export import predict_rows

    return predict_rows(run, X)


def _check_own(path: Path) -> None:
    """Check that a run is not one of a model from elsewhere: to build it is to run its code.

    Raises:
        RunFolderError: It is.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return  # told by `load_run`
    if isinstance(record, dict) and record.get("format") == MODULE_FORMAT:
        raise RunFolderError(
            f"{path.parent} must hold a network of this package, got weights of "
            f"{record.get('class_path')}: build that model in Python and load them with "
            f"safetensors.torch.load_model(model, {str(path.with_name('model.safetensors'))!r})"
        )


def _solved(folder: Path) -> Solved:
    from zeroproof.estimators.stored import load, read_record

    fitted, _ = load(folder)
    N = fitted.fit.model.tuples(fitted.domain[:1]).N
    facts = read_record(folder).get("facts")
    # saved from Python, targets have no names
    plain = ["y"] if N.shape[1] == 1 else [f"y{j}" for j in range(N.shape[1])]
    each = 2 if N.is_complex() else 1
    if each == 2:
        plain = [f"{name}_{part}" for name in plain for part in ("re", "im")]
    targets = facts.get("targets", plain) if isinstance(facts, dict) else plain
    for what, names, wanted in (
        ("targets", targets, each * N.shape[1]),
        ("features", fitted.names, len(fitted.columns)),
    ):
        if not _are_names(names) or len(names) != wanted:
            raise RunFolderError(
                f"{folder / 'model.json'} must name {wanted} {what}, got {names!r}"
            )
    outputs = (",".join(targets[i : i + each]) for i in range(0, len(targets), each))
    return Solved(fitted, tuple(fitted.names), tuple(targets), tuple(outputs))


def _are_names(names: object) -> TypeGuard[Sequence[str]]:
    return isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
