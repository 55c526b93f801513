"""`zeroproof look`: what was read from a table, before anything is fitted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroproof.data import CellOptions, Table

__all__ = ["lines", "looked"]

_COLUMNS, _ROWS, _TOKENS, _WIDTH = 40, 5, 3, 24


def looked(table: "Table", options: "CellOptions", target: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a table holds: columns with their cells, first rows, repeated inputs.

    Args:
        table: What was read.
        options: What is known of its cells.
        target: Columns that are no inputs.
    """
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
        if name not in target and len(finite) == table.rows:
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


def lines(found: dict[str, Any]) -> list[str]:
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
    return name, str(column["numbers"]), span, ", ".join(other) + (f", {rest} more" if rest else "")
