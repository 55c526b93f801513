"""`zeroproof poles`: where a fitted run has no finite answer."""

import math
import textwrap
from typing import TYPE_CHECKING, Any

from zeroproof.errors import DataError

if TYPE_CHECKING:
    from zeroproof.cli.runs import Solved
    from zeroproof.cli.singular import Singular
    from zeroproof.export import Run

__all__ = ["poles"]

_COLUMNS = (
    "target",
    "position",
    "position_imag",
    "position_se",
    "residue",
    "residue_imag",
    "residue_se",
    "multiplicity",
    "significance",
    "on_data",
    "spurious",
)


def poles(run: str, *, out: str = "", all: bool = False) -> None:  # noqa: A002
    """List the poles and residues of a run with one feature, or trace the pole curves of two.

    Args:
        run: Folder written by `zeroproof fit`.
        out: CSV file to write: the poles of each target, or the vertices of the curves.
        all: List spurious poles too, which a zero of N cancels.
    """
    from zeroproof.cli.runs import check_file, open_run
    from zeroproof.cli.singular import singular
    from zeroproof.data import write_csv

    if out:
        check_file(out)
    opened = open_run(run)
    known = singular(opened)
    count = len(opened.features)
    if known.constant and count > 2:
        print("no pole: the denominator is constant")
        return
    if count > 2:
        raise DataError(
            f"a run must have one feature or two for its poles to be listed, got {count}: they are "
            "surfaces; `zeroproof predict` says of each row whether it is ⊥ or near it"
        )
    columns = _listed(opened, known, everything=all) if count == 1 else _traced(opened, known)
    if out:
        write_csv(out, columns)
        print(f"{len(next(iter(columns.values())))} rows -> {out}")


def _listed(run: "Run | Solved", known: "Singular", *, everything: bool) -> dict[str, list[Any]]:
    from zeroproof.cli.singular import table_of

    low, high = known.domain[:, 0].tolist()
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for output, target in enumerate(getattr(run, "outputs", run.targets)):
        table = table_of(run, known, output)
        kept = ~table.spurious | everything
        hidden = int((~kept).sum())
        table = table.at(kept)
        count = len(table.position)
        number = f"{count or 'no'} pole{'' if count == 1 else 's'}"
        print(f"{target}: {number}" + (f", and {hidden} spurious (--all)" if hidden else ""))
        if count:
            print(textwrap.indent(str(table), "  "))
        unknown = [math.nan] * count
        values = (
            [target] * count,
            table.position.real.tolist(),
            table.position.imag.tolist(),
            unknown if table.position_se is None else table.position_se.tolist(),
            table.residue.real.tolist(),
            table.residue.imag.tolist(),
            unknown if table.residue_se is None else table.residue_se.tolist(),
            table.multiplicity.tolist(),
            unknown if table.significance is None else table.significance.tolist(),
            [0] * count if table.inside is None else table.inside.int().tolist(),
            table.spurious.int().tolist(),
        )
        for column, more in zip(columns.values(), values, strict=True):
            column.extend(more)
    scope = "" if known.everywhere else "; only this interval was searched"
    scope += f"; poles are in s = i {run.features[0]}" if known.system else ""
    print(f"data: {run.features[0]} from {low:g} to {high:g}{scope}")
    return columns


def _traced(run: "Run | Solved", known: "Singular") -> dict[str, list[Any]]:
    from zeroproof.cli.singular import curves_in

    index = ("target", "curve")
    clash = [name for name in index if name in run.features]
    if clash:
        raise DataError(f"features must not be named target or curve, got {clash[0]!r}")
    rows = []
    for output, target in enumerate(run.targets[:1] if known.shared else run.targets):
        name = ",".join(run.targets) if known.shared else target
        curves = curves_in(run, known, output)
        vertices = sum(map(len, curves))
        number = f"{len(curves) or 'no'} pole curve{'' if len(curves) == 1 else 's'}"
        print(f"{name}: {number}" + (f", {vertices} vertices" if vertices else ""))
        rows += [(name, k, *x) for k, line in enumerate(curves, 1) for x in line.tolist()]
    (low, high) = known.domain.tolist()
    box = (f"{n} from {a:g} to {b:g}" for n, a, b in zip(run.features, low, high, strict=True))
    print(f"data: {', '.join(box)}; only this box was searched")
    columns = (*index, *run.features)
    return {name: [row[k] for row in rows] for k, name in enumerate(columns)}
