"""What the columns of a table mean to a model: found at a fit, stored with it, asked at prediction.

| cells of a feature | read as |
|---|---|
| numbers | themselves; all in percent: a hundredth |
| text with two values | 0 and 1, in the order of the alphabet |
| text with up to 20 values | 0 or 1 for each value but the first |
| dates, where asked for | days since 1970 |
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zeroproof.data.cells import CellOptions, Cells, Kind
from zeroproof.data.tables import Table, told
from zeroproof.errors import DataError

__all__ = ["ReadRows", "Schema", "TableColumn", "Wanted", "rows_of"]

_LEVELS = 20
_MISSING = {Kind.MISSING, Kind.NAN, Kind.BOTTOM}
_SHOWN = 8  # problems in one message


class TableColumn(NamedTuple):
    """What one column is."""

    name: str
    kind: str = "number"  # "percent", "levels" or "date"
    levels: tuple[str, ...] = ()
    unit: str = ""
    low: float = -np.inf  # of what was fitted
    high: float = np.inf

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of the numbers that it becomes."""
        if len(self.levels) > 2:
            return tuple(f"{self.name}={level}" for level in self.levels[1:])
        return (self.name,)

    def numbers(self, cells: Cells) -> NDArray[np.float64]:
        """Return its numbers, `(rows, features)`; nan where they are missing or not known."""
        if self.kind == "date" and cells.text is not None:
            return _days(cells.text)[:, None]
        if not self.levels:
            return np.where(cells.kind == Kind.NUMBER, cells.value, np.nan)[:, None]
        values = _texts(cells)
        codes = np.full(len(values), -1)
        for place, level in enumerate(self.levels):
            codes[values == level] = place
        own = [codes == k for k in range(1, len(self.levels))]
        return np.where(codes[:, None] >= 0, np.stack(own, 1), np.nan)


class Schema(NamedTuple):
    """The columns of a model."""

    features: tuple[TableColumn, ...]
    targets: tuple[TableColumn, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the features, as the model has them."""
        return tuple(name for column in self.features for name in column.features)

    def using(self, names: Sequence[str]) -> "Schema":
        """Return the schema of the columns that become these features."""
        return self._replace(
            features=tuple(c for c in self.features if set(c.features) & set(names))
        )

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            part: [
                {
                    k: list(v) if isinstance(v, tuple) else v
                    for k, v in column._asdict().items()
                    if v not in ((), "", -np.inf, np.inf)
                }
                for column in getattr(self, part)
            ]
            for part in self._fields
        }

    @staticmethod
    def of_record(record: Mapping[str, Any]) -> "Schema":
        """Return what `record` wrote.

        Raises:
            TypeError: It is something else; also KeyError, ValueError.
        """
        parts = [
            tuple(
                TableColumn(**{**each, "levels": tuple(each.get("levels", ()))})
                for each in record[part]
            )
            for part in Schema._fields
        ]
        for column in (*parts[0], *parts[1]):
            texts = (column.name, column.kind, column.unit, *column.levels)
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(f"a column must have a name, a kind and a unit, got {column}")
            if not (isinstance(column.low, int | float) and isinstance(column.high, int | float)):
                raise TypeError(f"the range of a column must be two numbers, got {column}")
        return Schema(*parts)

    def matrix(
        self, table: Table, options: CellOptions | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the features of new rows, and which rows lie outside the range of the fitted ones.

        What is missing, infinite, or a value that the fit has not seen is nan.

        Raises:
            DataError: A column is missing, or holds something else than at the fit.
        """
        wrong, parts, outside = [], [], np.zeros(table.rows, bool)
        for column in self.features:
            cells = table.cells(column.name, _as_missing(options))
            unit = table.units.get(column.name, "")
            if unit and column.unit and unit != column.unit:
                wrong.append(f"column {column.name!r}: in {unit}, fitted in {column.unit}")
            if column.kind in ("number", "percent"):
                line = told(table, column.name, cells, {*_MISSING, Kind.NUMBER, Kind.INFINITE})
                wrong.append(line and f"{line}; --missing-values WORD reads a word as missing")
                kind = _percent(cells, column.name, wrong)
                if cells.count(Kind.NUMBER) and kind != column.kind:
                    wrong.append(f"column {column.name!r}: {kind}s, fitted as {column.kind}s")
            numbers = column.numbers(cells)
            parts.append(numbers)
            if not column.levels:
                outside |= (numbers[:, 0] < column.low) | (numbers[:, 0] > column.high)
        _refuse(table, wrong, "the columns of the fit")
        return np.hstack(parts), outside


class Wanted(NamedTuple):
    """What of a table is to be fitted."""

    targets: tuple[str, ...]
    features: tuple[str, ...] = ()  # none: all others that can be read
    dates: tuple[str, ...] = ()
    sigma: str = ""
    group: str = ""
    bounds: str = ""  # "limit", "half" or "drop"
    drop_missing: bool = False
    cells: CellOptions = CellOptions()


class ReadRows(NamedTuple):
    """Numbers of a table."""

    X: NDArray[np.float64]
    y: NDArray[np.float64]  # ±inf, and nan for ⊥
    weight: NDArray[np.float64] | None  # 1 / sigma²
    group: NDArray[np.int64] | None
    kept: NDArray[np.int64]  # rows of the table
    schema: Schema
    said: tuple[str, ...]


def rows_of(table: Table, wanted: Wanted, schema: Schema | None = None) -> ReadRows:
    """Read what is to be fitted.

    Args:
        table: Where from.
        wanted: Which columns, and what their cells say.
        schema: What features mean, if that is known from other rows.

    Raises:
        DataError: Columns are missing, or hold what cannot be fitted: all of it is named.
    """
    wrong: list[str] = []
    lost, unmeasured = np.zeros((2, table.rows), bool)
    targets, y = [], []
    for name in wanted.targets:
        column, values, missing = _target(table, name, wanted, wrong)
        targets.append(column)
        y.append(values)
        unmeasured |= missing
    known = {} if schema is None else {column.name: column for column in schema.features}
    own = {*wanted.targets, wanted.sigma, wanted.group}
    names = (
        tuple(known) or wanted.features or tuple(name for name in table.columns if name not in own)
    )
    if set(names) & set(wanted.targets):
        raise DataError(f"--features must not name a target, got {', '.join(names)}")
    said, features, parts = list(table.said), [], []
    for name in names:
        cells = table.cells(name, _as_missing(wanted.cells))
        column = known.get(name) or _feature(table, name, cells, wanted, wrong)
        if isinstance(column, str):
            said.append(column)
            continue
        numbers = column.numbers(cells)
        lost |= np.isnan(numbers).any(1)
        features.append(column)
        parts.append(numbers)
    weight = group = None
    if wanted.sigma:
        weight = _positive(table, wanted, wrong)
        lost |= np.isnan(weight)
        weight = weight**-2.0
    if wanted.group:
        labels = table.cells(wanted.group, _as_missing(wanted.cells))
        lost |= labels.kind == Kind.MISSING
        group = np.unique(_texts(labels), return_inverse=True)[1]
    said_so = wanted.cells.nan == "missing" or wanted.bounds == "drop"  # of targets
    if not said_so:
        lost |= unmeasured
    if lost.any() and not wanted.drop_missing and not wrong:
        wrong.append(_where_missing(table, names, wanted, lost))
    _refuse(table, wrong, "what can be fitted")
    if not features:
        raise DataError(
            f"{table.name} must have a column besides the targets to predict from, got "
            + ("; ".join(said) or "none")
        )
    lost |= unmeasured
    keep = np.flatnonzero(~lost)
    if not len(keep):
        raise DataError(f"{table.name} must have a row without missing cells, got none")
    if lost.any():
        why = "missing cells or bounds" if wanted.bounds == "drop" else "missing cells"
        said.append(f"{int(lost.sum())} rows with {why} left out")
    X = np.hstack(parts)[keep]
    places = np.cumsum([0, *(len(column.features) for column in features)])
    features = [
        column
        if column.levels or known
        else column._replace(low=float(X[:, j].min()), high=float(X[:, j].max()))
        for column, j in zip(features, places, strict=False)
    ]
    return ReadRows(
        X,
        np.stack(y, 1)[keep],
        None if weight is None else weight[keep],
        None if group is None else group[keep],
        keep,
        Schema(tuple(features), tuple(targets)),
        tuple(said),
    )


def _as_missing(options: CellOptions | None) -> CellOptions:
    """Return how cells of a feature are read, where nothing is ⊥."""
    return (options or CellOptions())._replace(nan="missing")


def _target(
    table: Table, name: str, wanted: Wanted, wrong: list[str]
) -> tuple[TableColumn, NDArray[np.float64], NDArray[np.bool_]]:
    """Return a target, its values, and where a row is to be left out."""
    cells = table.cells(name, wanted.cells)
    allowed = {Kind.NUMBER, Kind.INFINITE, Kind.BOTTOM, Kind.MISSING, Kind.NAN, Kind.BOUND}
    text = told(table, name, cells, allowed)
    if text:
        wrong.append(
            f"{text}; --missing-values WORD, or --limit WORD='<0.01' for a detection limit"
        )
    if nan := cells.count(Kind.NAN):
        wrong.append(
            f"column {name!r}: {nan} × nan; --nan bottom: there is no finite value, or "
            "--nan missing: it was not measured"
        )
    values, kind = cells.value, _percent(cells, name, wrong)
    missing = cells.kind == Kind.MISSING
    bounds = cells.kind == Kind.BOUND
    if bounds.any():
        if not wanted.bounds:
            wrong.append(_bounded(cells, name))
        limit = np.where(np.isfinite(cells.low), cells.low, cells.high)
        middle = np.where(
            np.isfinite(cells.low + cells.high), (cells.low + cells.high) / 2, limit / 2
        )
        values = np.where(bounds, limit if wanted.bounds == "limit" else middle, values)
        if wanted.bounds == "drop":
            missing |= bounds
    if not np.isfinite(values[~missing]).any() and not wrong:
        wrong.append(f"target {name!r}: no finite value in any row")
    return TableColumn(name, kind, (), table.units.get(name, "")), values, missing


def _bounded(cells: Cells, name: str) -> str:
    """Say which bounds there are, and what each makeshift does."""
    words = sorted(
        ((n, word) for word, (n, kind) in cells.tokens.items() if kind == Kind.BOUND), reverse=True
    )
    shown = ", ".join(f"{n} × {word}" for n, word in words[:4]) + ", ..." * (len(words) > 4)
    return (
        f"column {name!r}: {cells.count(Kind.BOUND)} cells are bounds ({shown}), and no fit here "
        "uses bounds. Each makeshift bends the result: --bounds limit puts the limit itself and "
        "draws the fit towards it; --bounds half puts half of it, of an interval the middle, which "
        "is right only by luck; --bounds drop leaves these rows out, and what remains lies too "
        "high near a lower limit of detection, too low near saturation"
    )


def _feature(
    table: Table, name: str, cells: Cells, wanted: Wanted, wrong: list[str]
) -> TableColumn | str:
    """Return what a feature is, or why it is none, unless it was asked for."""
    unit = table.units.get(name, "")
    if name in wanted.dates:
        return TableColumn(name, "date", (), unit)
    texts, numbers = cells.count(Kind.TEXT), cells.count(Kind.NUMBER)
    if texts and not numbers and not cells.count(Kind.BOUND, Kind.INFINITE):
        levels = tuple(
            sorted(word for word, (_, kind) in cells.tokens.items() if kind == Kind.TEXT)
        )
        if len(levels) > _LEVELS:
            if name in wanted.features:
                wrong.append(
                    f"column {name!r}: text of {len(levels)} values, {_LEVELS} are the most"
                    f"; --dates {name} reads dates"
                )
            return f"text of more than {_LEVELS} values left out: {name!r}"
        return TableColumn(name, "levels", (*levels, "")[: max(len(levels), 2)], unit)
    if name not in wanted.features and cells.count(*_MISSING) == table.rows:
        return f"empty column left out: {name!r}"
    if line := told(table, name, cells, {*_MISSING, Kind.NUMBER}):
        advice = "" if name in wanted.features else "; --features takes other columns"
        wrong.append(f"{line}; --missing-values WORD reads a word as missing{advice}")
    return TableColumn(name, _percent(cells, name, wrong), (), unit)


def _percent(cells: Cells, name: str, wrong: list[str]) -> str:
    numbers = cells.count(Kind.NUMBER)
    if 0 < cells.percent < numbers:
        wrong.append(
            f"column {name!r}: {cells.percent} of {numbers} numbers have a sign %; all or none"
        )
    return "percent" if cells.percent else "number"


def _positive(table: Table, wanted: Wanted, wrong: list[str]) -> NDArray[np.float64]:
    cells = table.cells(wanted.sigma, _as_missing(wanted.cells))
    if line := told(table, wanted.sigma, cells, {*_MISSING, Kind.NUMBER}):
        wrong.append(line)
    bad = cells.kind == Kind.NUMBER
    bad &= ~(cells.value > 0)
    if bad.any():
        row = int(np.argmax(bad))
        wrong.append(
            f"column {wanted.sigma!r}: {int(bad.sum())} standard deviations are not above 0, "
            f"first in {table.place(row)}"
        )
    return np.where(cells.kind == Kind.NUMBER, np.where(bad, 1, cells.value), np.nan)


def _where_missing(
    table: Table, names: Iterable[str], wanted: Wanted, lost: NDArray[np.bool_]
) -> str:
    counts = {}
    for name in (*names, *wanted.targets, *filter(None, (wanted.sigma, wanted.group))):
        options = wanted.cells if name in wanted.targets else _as_missing(wanted.cells)
        cells = table.cells(name, options)
        kinds = {Kind.MISSING} if name in wanted.targets else _MISSING
        if count := cells.count(*kinds):
            counts[name] = count
    shown = ", ".join(f"{name!r} {count}" for name, count in list(counts.items())[:_SHOWN])
    advice = "" if wanted.features else ", --features takes other columns"
    return (
        f"missing cells in {int(lost.sum())} of {len(lost)} rows ({shown}); --drop-missing leaves "
        f"these rows out{advice}"
    )


def _texts(cells: Cells) -> NDArray[Any]:
    if cells.text is None:
        return np.array([f"{value:g}" for value in cells.value], dtype=object)
    return np.array(cells.text.to_pylist(), dtype=object)


def _days(text: Any) -> NDArray[np.float64]:
    import pandas

    moments = pandas.to_datetime(
        pandas.Series(text.to_pylist()), errors="coerce", utc=True, format="ISO8601"
    )
    return ((moments - pandas.Timestamp(0, tz="UTC")) / pandas.Timedelta(days=1)).to_numpy(float)


def _refuse(table: Table, wrong: Sequence[str], what: str) -> None:
    """Raise if anything is wrong, all in one message that fits a screen."""
    wrong = [line for line in wrong if line]
    if not wrong:
        return
    more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    lines = [*wrong[:_SHOWN], *more]
    if len(lines) == 1:
        raise DataError(f"{table.name} must hold {what}, got {lines[0]}")
    raise DataError(f"{table.name} must hold {what}, got\n  " + "\n  ".join(lines))
