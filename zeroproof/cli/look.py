"""`zeroproof look`: what was read from a table, before anything is fitted."""

from typing import TYPE_CHECKING, Any

from zeroproof.cli.arguments import Reply
from zeroproof.cli.tables import cell_options, opened_table

if TYPE_CHECKING:
    from zeroproof.data import CellOptions, Table

__all__ = ["look"]

_COLUMNS, _ROWS, _TOKENS, _WIDTH = 40, 5, 3, 24


def look(data: str, *, quiet: bool = False, **given: Any) -> Reply:
    """Show what a table holds.

    Args:
        data: A file, or - for standard input.
        quiet: Has no effect: there is no work that takes time.
        given: Options of tables.

    Raises:
        DataError: It cannot be read.
    """
    table = opened_table(data, given)
    record = _looked(table, cell_options(given))
    return Reply(_lines(record), record)


def _looked(table: "Table", options: "CellOptions") -> dict[str, Any]:
    import numpy as np

    columns, inputs = [], []
    for name in table.columns:
        cells = table.cells(name, options)
        finite = cells.value[np.isfinite(cells.value)]
        tokens = sorted(cells.tokens.items(), key=lambda each: -each[1][0])
        columns.append(
            {
                "name": name,
                "unit": table.units.get(name, ""),
                "numbers": len(finite),
                "range": [float(finite.min()), float(finite.max())] if len(finite) else [],
                "other": [[word, n, kind.name.lower()] for word, (n, kind) in tokens[:_TOKENS]],
                "kinds_of_other": len(tokens),
            }
        )
        if len(finite) == table.rows:
            inputs.append(cells.value)
    distinct = len(np.unique(np.stack(inputs, 1), axis=0)) if inputs else table.rows
    first = {
        name: [str(cell) for cell in column.slice(0, _ROWS).to_pylist()]
        for name, column in table.columns.items()
    }
    return {
        "file": table.name,
        "rows": table.rows,
        "read_as": list(table.said),
        "distinct_inputs": distinct,
        "columns": columns,
        "first_rows": first,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    """Return it for a screen."""
    said = "; ".join(["", *found["read_as"]])
    head = f"{found['file']}: {found['rows']} rows, {len(found['columns'])} columns{said}"
    shown = found["columns"][:_COLUMNS]
    table = [("column", "numbers", "range", "other cells"), *map(_row, shown)]
    widths = [max(len(row[j]) for row in table) for j in range(3)]
    body = ["  ".join(c.ljust(w) for c, w in zip(row, (*widths, 0), strict=True)) for row in table]
    more = len(found["columns"]) - len(shown)
    rows = list(zip(*(found["first_rows"][c["name"]] for c in shown[:8]), strict=True))
    sizes = [
        min(_WIDTH, max(len(c["name"]), *(len(row[j]) for row in rows)))
        for j, c in enumerate(shown[:8])
    ]
    first = [
        "  ".join(cell[:size].ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip()
        for row in ([c["name"] for c in shown[:8]], *rows)
    ]
    repeated = found["rows"] - found["distinct_inputs"]
    return [
        head,
        "",
        *(line.rstrip() for line in body),
        *([f"and {more} more columns"] if more else []),
        *([f"{repeated} rows repeat the numbers of another row"] if repeated else []),
        "",
        *first,
    ]


def _row(column: dict[str, Any]) -> tuple[str, str, str, str]:
    name = column["name"][:_WIDTH] + (f" [{column['unit']}]" if column["unit"] else "")
    span = " … ".join(f"{end:.6g}" for end in column["range"])
    other = [f"{n} × {word[:_WIDTH] or 'empty'} ({kind})" for word, n, kind in column["other"]]
    rest = column["kinds_of_other"] - len(other)
    if rest and not column["numbers"] and all(n == 1 for _, n, _ in column["other"]):
        return name, "0", "", f"{column['kinds_of_other']} texts, as {column['other'][0][0]!r}"
    return name, str(column["numbers"]), span, ", ".join(other) + (f", {rest} more" if rest else "")
