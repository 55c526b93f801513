"""The rows of a table that a model is fitted to, and names of columns on the command line."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroproof.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "TableRows",
    "answer_columns",
    "check_answers",
    "column_names",
    "listed",
    "read_rows",
    "read_signals",
]

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


def listed(values: Sequence[Any]) -> str:
    """Return values as the command line takes a list, `a,b`; one with a comma in double quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def answer_columns(target: str) -> tuple[str, str, str]:
    """Return the columns that `zeroproof predict` writes for a target."""
    return target, f"{target}_bottom", f"{target}_gap"
