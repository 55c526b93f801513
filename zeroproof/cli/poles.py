"""`zeroproof poles`: where a fitted run has no finite answer."""

from typing import TYPE_CHECKING, Any

from zeroproof.errors import DataError

if TYPE_CHECKING:
    from zeroproof.cli.runs import Solved
    from zeroproof.cli.singular import Singular
    from zeroproof.export import Run

__all__ = ["poles"]

_ROW = "  {:<24}{:<24}{:<14}{}"


def poles(run: str, *, out: str = "", all: bool = False) -> None:  # noqa: A002
    """List the poles and residues of a run with one feature, or trace the pole curves of two.

    Args:
        run: Folder written by `zeroproof fit`.
        out: CSV file to write: the poles of each target, or the vertices of the curves.
        all: List spurious poles too, which a zero of N cancels.
    """
    from zeroproof.cli.place import check_file
    from zeroproof.cli.runs import open_run
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
    rows = []
    for output, target in enumerate(run.targets):
        table = table_of(run, known, output)
        found = [
            (p, r, m, p.imag == 0 and low <= p.real <= high, weak)
            for p, r, m, weak in zip(
                table.position.tolist(),
                table.residue.tolist(),
                table.multiplicity.tolist(),
                table.spurious.tolist(),
                strict=True,
            )
        ]
        kept = [pole for pole in found if everything or not pole[-1]]
        _show(target, run.features[0], kept, len(found) - len(kept))
        rows += [(target, *pole) for pole in kept]
    scope = "" if known.everywhere else "; only this interval was searched"
    print(f"data: {run.features[0]} from {low:g} to {high:g}{scope}")
    return {
        "target": [row[0] for row in rows],
        "position": [row[1].real for row in rows],
        "position_imag": [row[1].imag for row in rows],
        "residue": [row[2].real for row in rows],
        "residue_imag": [row[2].imag for row in rows],
        "multiplicity": [row[3] for row in rows],
        "on_data": [int(row[4]) for row in rows],
        "spurious": [int(row[5]) for row in rows],
    }


def _show(target: str, feature: str, found: list[tuple[Any, ...]], hidden: int) -> None:
    number = f"{len(found) or 'no'} pole{'' if len(found) == 1 else 's'}"
    print(f"{target}: {number}" + (f", and {hidden} spurious (--all)" if hidden else ""))
    if found:
        print(_ROW.format(feature, "residue", "multiplicity", "where"))
    for p, r, m, inside, weak in found:
        where = ("on the data" if inside else "off the data") + (", spurious" if weak else "")
        print(_ROW.format(_number(p), _number(r), m, where))


def _number(z: complex) -> str:
    return f"{z.real:.12g}" if z.imag == 0 else f"{z:.8g}"


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
