"""Tables and folders of the command line: what options say of them, and the rows to be fitted."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroproof.errors import DataError, RangeError, RunFolderError

if TYPE_CHECKING:  # torch takes a second, which `--help` shall not
    from torch import Tensor

    from zeroproof.data import CellOptions, Reading, Table
    from zeroproof.data.schema import Schema

__all__ = [
    "DESCRIPTIONS",
    "RUN_FILES",
    "TableRows",
    "cell_options",
    "check_answers",
    "check_folder",
    "column_names",
    "opened_table",
    "read_rows",
    "read_signals",
    "reading",
]


class TableRows(NamedTuple):
    """Numbers of a table with the names of their columns."""

    X: "Tensor"  # (rows, features), finite
    y: "Tensor"  # (rows, targets), or complex with half as many columns
    features: tuple[str, ...]
    targets: tuple[str, ...]
    schema: "Schema | None" = None
    places: "Tensor | None" = None  # of the rows in the table
    weight: "Tensor | None" = None
    group: "Tensor | None" = None
    said: tuple[str, ...] = ()  # how the table was read

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return a name for each output: that of a target, or of real and imaginary part."""
        each = len(self.targets) // self.y.shape[1]
        return tuple(
            ",".join(self.targets[i : i + each]) for i in range(0, len(self.targets), each)
        )

    def labelled(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return names of columns with their units, for axes and reports."""
        columns = () if self.schema is None else (*self.schema.features, *self.schema.targets)
        units = {column.name: column.unit.strip("[]() ") for column in columns if column.unit}
        return tuple(f"{name} [{units[name]}]" if name in units else name for name in names)

    @property
    def facts(self) -> dict[str, Any]:
        """Return what a run keeps of its table."""
        return {} if self.schema is None else {"schema": self.schema.record()}


def opened_table(data: str, given: Mapping[str, Any]) -> "Table":
    """Read a table as options say.

    Raises:
        DataError: It cannot be read.
    """
    from zeroproof.data import read_table

    return read_table(data, reading(given), sheet=given.get("sheet"))


def reading(given: Mapping[str, Any]) -> "Reading":
    """Return what options say of a text."""
    from zeroproof.data import Reading

    named = {name: given[name] for name in Reading._fields if name in given}
    if named.get("sep") in _MARKS:
        named["sep"] = _MARKS[named["sep"]]
    for name in ("sep", "decimal", "thousands"):
        if len(named.get(name) or " ") != 1:
            raise RangeError(f"--{name} must be one mark, got {named[name]!r}")
    return Reading(**named)


_MARKS = {"tab": "\t", "\\t": "\t", "blank": " ", "space": " ", "comma": ",", "semicolon": ";"}


def cell_options(given: Mapping[str, Any]) -> "CellOptions":
    """Return what options say of cells."""
    from zeroproof.data import CellOptions
    from zeroproof.data.cells import limits_of

    words = tuple(part for text in given.get("limit") or () for part in _split(text))
    missing = _split(given.get("missing_values", ""))
    return CellOptions(given.get("nan"), missing, limits_of(words))


def read_rows(data: str, given: Mapping[str, Any], schema: "Schema | None" = None) -> TableRows:
    """Read the columns that were asked for; all but the targets if no features are named.

    Args:
        data: Where the table is.
        given: Options of `zeroproof fit`.
        schema: Of rows that were read before, if these shall mean the same.

    Raises:
        DataError: The table or a name cannot be used, or a target is ⊥ in all rows.
    """
    import torch

    from zeroproof.data.schema import Wanted, rows_of

    targets = column_names(given.get("target", ""), "--target")
    check_answers(targets)
    features = given.get("features", "")
    table = opened_table(data, given)
    found = rows_of(
        table,
        Wanted(
            targets,
            column_names(features, "--features") if features else (),
            _split(given.get("dates", "")),
            given.get("sigma", ""),
            given.get("group", ""),
            given.get("bounds", ""),
            bool(given.get("drop_missing")),
            cell_options(given),
        ),
        schema,
    )
    said = (f"read {data}: {'; '.join(found.said)}",) if found.said else ()
    parts = (found.kept, found.weight, found.group)
    places, weight, group = (None if part is None else torch.from_numpy(part) for part in parts)
    X, y = torch.from_numpy(found.X), torch.from_numpy(found.y)
    return TableRows(X, y, found.schema.names, targets, found.schema, places, weight, group, said)


def read_signals(given: Mapping[str, Any], signals: str) -> TableRows:
    """Read complex signals, two columns each, and the column that they are over.

    Args:
        given: Options of `zeroproof fit`.
        signals: Names of real and imaginary parts, `re1,im1,re2,im2`.

    Raises:
        DataError: As `read_rows`, or the names are not pairs, or there is not one feature.
    """
    import torch

    names = column_names(signals, "--complex")
    if given.get("target") or len(names) % 2:
        got = f"also --target {given['target']}" if given.get("target") else f"{len(names)} names"
        raise DataError(f"--complex must list pairs of columns, real and imaginary, got {got}")
    rows = read_rows(given["data"], {**given, "target": signals})
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
            "targets must not be named as what is said of others, TARGET_status and so on, got "
            f"{twice[0]!r}"
        )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in next(csv.reader([text]), []) if part.strip())


def column_names(text: str, option: str) -> tuple[str, ...]:
    """Split `a,b` into names; a name that holds a comma goes in double quotes, as in a CSV file.

    Raises:
        DataError: An empty name, or one given twice.
    """
    try:  # in lines of its own, so that a quoted name may hold a break
        (row,) = csv.reader(text.splitlines(keepends=True))
        names = tuple(name.strip() for name in row)
    except (csv.Error, ValueError):
        names = ()
    if not names or not all(names) or len(set(names)) < len(names):
        raise DataError(f"{option} must list column names, each once, got {text!r}")
    return names


def answer_columns(target: str) -> tuple[str, ...]:
    """Return the columns that `zeroproof predict` writes for a target."""
    return target, *(f"{target}_{word}" for word in ("error", "low", "high", "score", "status"))


DESCRIPTIONS = {"model.json", "run.json"}
RUN_FILES = DESCRIPTIONS | {
    *("model.safetensors", "history.json", "rows.csv", "poles.csv", "fit.png", "config.yaml"),
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
