"""Run folders of either kind, opened and asked: `zeroproof predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from zeroproof.cli.fit import DESCRIPTIONS, RUN_FILES, answer_columns
from zeroproof.errors import DataError, RunFolderError

if TYPE_CHECKING:  # torch takes a second, which `--help` shall not
    from torch import Tensor

    from zeroproof.estimators.fitted import Fitted
    from zeroproof.inference import StrictResult
    from zeroproof.inference.run import Run

__all__ = ["Solved", "answers_of", "check_file", "open_run", "predict"]


class Solved(NamedTuple):
    """A closed-form fit with the names of its columns."""

    fitted: "Fitted"
    features: tuple[str, ...]  # those that are used
    targets: tuple[str, ...]  # of a complex output two, real and imaginary part
    outputs: tuple[str, ...]  # a name for each


def predict(run: str, data: str, *, out: str) -> None:
    """Answer each row of a table, with ⊥ where the model says that there is no finite answer.

    Args:
        run: Folder written by `zeroproof fit`.
        data: CSV file with the feature columns, in any order; further columns are ignored.
        out: CSV file to write. Per target: its decoded value (nan at ⊥), and 0 or 1 in
            TARGET_bottom and TARGET_gap (a finite answer so close to a singularity that it is
            risky).
    """
    from zeroproof.data import numbers, read_csv, write_csv

    check_file(out, data)
    opened = open_run(run)
    advice = "; write it as a number, or nan where it is unknown, and the answer is ⊥"
    X = numbers(read_csv(data), opened.features, advice=advice)
    answer = answers_of(opened, X)
    columns = {}
    for place, name in enumerate(opened.targets):
        decoded, bottom, gap = (part[:, place] for part in answer)
        parts = (decoded.tolist(), bottom.int().tolist(), gap.int().tolist())
        columns.update(zip(answer_columns(name), parts, strict=True))
    write_csv(out, columns)
    print(
        f"{len(X)} rows -> {out}: {int(answer.bottom_mask.any(1).sum())} with ⊥, "
        f"{int(answer.gap_mask.any(1).sum())} with an answer in the gap"
    )


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
    from zeroproof.inference.run import predict_rows

    return predict_rows(run, X)


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


def check_file(out: str, data: str | None = None) -> None:
    """Check that answers may be written here.

    Raises:
        DataError: It is a folder, a file of a run, or the data themselves.
    """
    if Path(out).is_dir():
        raise DataError(f"--out must name a file to write, got the folder {out}")
    place = Path(out).resolve()
    if place.name in RUN_FILES and any((place.parent / name).is_file() for name in DESCRIPTIONS):
        raise DataError(f"--out must not replace a file of a run, got {out}")
    if data is not None and Path(out).resolve() == Path(data).resolve():
        raise DataError(f"--out must not replace the data, got {out} for both")
