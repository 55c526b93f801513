"""Run folders of either kind: where one may be written, and opened to be asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from zeroproof.errors import DataError, RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

    from zeroproof._record import Stored
    from zeroproof.estimators.fitted import Fitted
    from zeroproof.export import Run
    from zeroproof.inference import StrictResult

__all__ = ["Solved", "answers_of", "check_file", "check_folder", "open_run", "stored_module"]

_DESCRIPTIONS = {"model.json", "run.json"}
_FILES = _DESCRIPTIONS | {"model.safetensors", "history.json", "rows.csv", "fit.png", "config.yaml"}


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


def stored_module() -> "Stored":
    """Return how a run of a model is stored that only its own code can build."""
    from zeroproof._record import Stored

    return Stored("module", "run.json", "model.safetensors", RunFolderError)


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
    from zeroproof._record import read_json

    record = read_json(path, RunFolderError)
    names = {"kind": "module", "format": "zeroproof-module"}  # the latter in version 1
    if isinstance(record, dict) and any(record.get(key) == name for key, name in names.items()):
        place = str(path.with_name("model.safetensors"))
        raise RunFolderError(
            f"{path.parent} must hold a network of this package, got weights of "
            f"{record.get('class_path')}: build that model in Python and load them with "
            f"model.load_state_dict(safetensors.torch.load_file({place!r}))"
        )


def _solved(folder: Path) -> Solved:
    from zeroproof.estimators.stored import load

    fitted, _, facts = load(folder)
    N = fitted.fit.model.tuples(fitted.domain[:1]).N
    # saved from Python, targets have no names
    plain = ["y"] if N.shape[1] == 1 else [f"y{j}" for j in range(N.shape[1])]
    each = 2 if N.is_complex() else 1
    if each == 2:
        plain = [f"{name}_{part}" for name in plain for part in ("re", "im")]
    targets = facts.get("targets", plain)
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


def check_folder(folder: Path) -> None:
    """Check that a run may be written here.

    Raises:
        RunFolderError: It holds anything but an earlier run, is a file, or cannot be a folder.
    """
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        if names and (not names & _DESCRIPTIONS or names - _FILES):
            foreign = sorted(names - _FILES)[:3] or ["no model.json or run.json"]
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


def check_file(out: str, data: str | None = None) -> None:
    """Check that answers may be written here.

    Raises:
        DataError: It is a folder, a file of a run, or the data themselves.
    """
    if Path(out).is_dir():
        raise DataError(f"--out must name a file to write, got the folder {out}")
    place = Path(out).resolve()
    if place.name in _FILES and any((place.parent / name).is_file() for name in _DESCRIPTIONS):
        raise DataError(f"--out must not replace a file of a run, got {out}")
    if data is not None and Path(out).resolve() == Path(data).resolve():
        raise DataError(f"--out must not replace the data, got {out} for both")
