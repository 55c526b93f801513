"""`zeroproof poles`: where a fitted run has no finite answer."""

import math
import textwrap
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

from zeroproof.cli.arguments import Reply
from zeroproof.cli.runs import Solved, check_file, open_run
from zeroproof.errors import DataError, RunFolderError

if TYPE_CHECKING:  # torch takes a second, which `--help` shall not
    from torch import Tensor, nn

    from zeroproof.inference.run import Run
    from zeroproof.solve.poles import PoleTable

__all__ = ["Singular", "curves_in", "listed_poles", "poles", "singular", "table_of"]

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


class Singular(NamedTuple):
    """What there is to know before poles are looked for.

    Attributes:
        domain: Smallest and largest values of the features in the data, `(2, features)`.
        constant: Is every denominator constant?
        shared: Have all targets the same denominator?
        everywhere: Are poles outside the data found too, and complex ones?
        system: Are they given in s = ix, of a real system?
    """

    domain: "Tensor"
    constant: bool
    shared: bool
    everywhere: bool
    system: bool = False


def poles(run: str, *, out: str = "", all: bool = False, quiet: bool = False) -> Reply:  # noqa: A002
    """List the poles and residues of a run with one feature, or trace the pole curves of two.

    Args:
        run: Folder written by `zeroproof fit`.
        out: File to write: the poles of each target, or the vertices of the curves.
        all: List spurious poles too, which a zero of N cancels.
        quiet: Has no effect: there is no work that takes long.
    """
    from zeroproof.data import writing

    if out:
        check_file(out)
    opened = open_run(run)
    known = singular(opened)
    count = len(opened.features)
    if known.constant and count > 2:
        return Reply(["no pole: the denominator is constant"], {"poles": []})
    if count > 2:
        raise DataError(
            f"a run must have one feature or two for its poles to be listed, got {count}: they are "
            "surfaces; `zeroproof predict` says of each row whether it is ⊥ or near it"
        )
    if count == 1:
        lines, columns = listed_poles(opened, everything=all)
    else:
        lines, columns = _traced(opened, known)
    if out:
        with writing(out) as write:
            write(columns)
        lines.append(f"{len(next(iter(columns.values())))} rows -> {out}")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Reply(lines, {"poles" if count == 1 else "vertices": rows})


def listed_poles(
    run: "Run | Solved", *, everything: bool
) -> tuple[list[str], dict[str, list[Any]]]:
    """Return the poles of a run with one feature, as lines and as columns."""
    known = singular(run)
    low, high = known.domain[:, 0].tolist()
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    lines: list[str] = []
    for output, target in enumerate(getattr(run, "outputs", run.targets)):
        table = table_of(run, known, output)
        kept = ~table.spurious | everything
        hidden = int((~kept).sum())
        table = table.at(kept)
        count = len(table.position)
        number = f"{count or 'no'} pole{'' if count == 1 else 's'}"
        more = f", and {hidden} spurious (--all)" if hidden else ""
        lines.append(f"{target}: {number}{more}")
        if count:
            lines.append(textwrap.indent(str(table), "  "))
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
        for column, own in zip(columns.values(), values, strict=True):
            column.extend(own)
    scope = "" if known.everywhere else "; only this interval was searched"
    scope += f"; poles are in s = i {run.features[0]}" if known.system else ""
    return [*lines, f"data: {run.features[0]} from {low:g} to {high:g}{scope}"], columns


def _traced(run: "Run | Solved", known: Singular) -> tuple[list[str], dict[str, list[Any]]]:
    index = ("target", "curve")
    clash = [name for name in index if name in run.features]
    if clash:
        raise DataError(f"features must not be named target or curve, got {clash[0]!r}")
    rows, lines = [], []
    for output, target in enumerate(run.targets[:1] if known.shared else run.targets):
        name = ",".join(run.targets) if known.shared else target
        curves = curves_in(run, known, output)
        vertices = sum(map(len, curves))
        number = f"{len(curves) or 'no'} pole curve{'' if len(curves) == 1 else 's'}"
        lines.append(f"{name}: {number}" + (f", {vertices} vertices" if vertices else ""))
        rows += [(name, k, *x) for k, line in enumerate(curves, 1) for x in line.tolist()]
    (low, high) = known.domain.tolist()
    box = (f"{n} from {a:g} to {b:g}" for n, a, b in zip(run.features, low, high, strict=True))
    lines.append(f"data: {', '.join(box)}; only this box was searched")
    columns = (*index, *run.features)
    return lines, {name: [row[k] for row in rows] for k, name in enumerate(columns)}


def singular(run: "Run | Solved") -> Singular:
    """Describe the denominators of a run.

    Raises:
        RunFolderError: It does not tell the range of its data.
    """
    if isinstance(run, Solved):
        fitted = run.fitted
        model = fitted.fit.model
        shared = model.denominators == 1
        constant = model.constant_denominator
        return Singular(fitted.domain, constant, shared, True, bool(model.systems))
    weight = run.model.head.denominator.weight
    return Singular(_domain(run), not bool(weight.any()), len(weight) == 1, everywhere=False)


def _domain(run: "Run") -> "Tensor":
    import torch

    try:
        domain = torch.tensor(run.facts["domain"], dtype=torch.float64)
    except (KeyError, TypeError, ValueError):
        domain = torch.empty(0)
    if domain.shape != (2, len(run.features)):
        raise RunFolderError(
            "run.json must tell the range of its data, which earlier versions did not: fit again"
        )
    return domain


def table_of(run: "Run | Solved", known: Singular, output: int) -> "PoleTable":
    """Return the poles of one target of a run with one feature."""
    import torch

    from zeroproof.projective import Pair
    from zeroproof.solve.forms import interval_poles

    low, high = known.domain[:, 0].tolist()
    if isinstance(run, Solved):
        return run.fitted.pole_table(output)
    network = _exact(run)
    center, scale = (part[output] for part in run.frame)

    def line(x: "Tensor") -> Pair:
        N, D = network(x[:, None])
        N, D = N[:, output], D[:, output if D.shape[1] > 1 else 0]
        return Pair(center * D + scale * N, D)

    table = interval_poles(line, (low, high))  # beyond the rows a network means nothing
    p = table.position
    table = table.at((p.imag.abs() < 1e-9 * (high - low)) & (p.real >= low) & (p.real <= high))
    return table._replace(inside=torch.ones_like(table.spurious))


def curves_in(run: "Run | Solved", known: Singular, output: int) -> list["Tensor"]:
    """Return the lines D = 0 of one target of a run with two features, each `(k, 2)`."""
    from zeroproof.solve.poles import pole_curve

    if isinstance(run, Solved):
        return run.fitted.fit.model.pole_curve(known.domain, output, points=201)
    network = _exact(run)
    place = 0 if known.shared else output
    return pole_curve(lambda X: network(X).D[:, place], known.domain.T.tolist())


def _exact(run: "Run") -> "nn.Module":
    """Return the network in float64, where a zero of D can be told to the last digit."""
    return deepcopy(run.model).double().requires_grad_(False)
