"""Where a run of either kind is singular."""

from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zeroproof.cli.runs import Solved
from zeroproof.errors import RunFolderError
from zeroproof.projective import Pair
from zeroproof.solve.forms import interval_poles
from zeroproof.solve.poles import pole_curve

if TYPE_CHECKING:
    from zeroproof.export import Run
    from zeroproof.solve.poles import PoleTable

__all__ = ["Singular", "curves_in", "singular", "table_of"]


class Singular(NamedTuple):
    """What there is to know before poles are looked for.

    Attributes:
        domain: Smallest and largest values of the features in the data, `(2, features)`.
        constant: Is every denominator constant?
        shared: Have all targets the same denominator?
        everywhere: Are poles outside the data found too, and complex ones?
        system: Are they given in s = ix, of a real system?
    """

    domain: Tensor
    constant: bool
    shared: bool
    everywhere: bool
    system: bool = False


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


def _domain(run: "Run") -> Tensor:
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
    low, high = known.domain[:, 0].tolist()
    if isinstance(run, Solved):
        return run.fitted.pole_table(output)
    network = _exact(run)
    center, scale = (part[output] for part in run.frame)

    def line(x: Tensor) -> Pair:
        N, D = network(x[:, None])
        N, D = N[:, output], D[:, output if D.shape[1] > 1 else 0]
        return Pair(center * D + scale * N, D)

    table = interval_poles(line, (low, high))  # beyond the rows a network means nothing
    p = table.position
    table = table.at((p.imag.abs() < 1e-9 * (high - low)) & (p.real >= low) & (p.real <= high))
    return table._replace(inside=torch.ones_like(table.spurious))


def curves_in(run: "Run | Solved", known: Singular, output: int) -> list[Tensor]:
    """Return the lines D = 0 of one target of a run with two features, each `(k, 2)`."""
    if isinstance(run, Solved):
        return run.fitted.fit.model.pole_curve(known.domain, output, points=201)
    network = _exact(run)
    place = 0 if known.shared else output
    return pole_curve(lambda X: network(X).D[:, place], known.domain.T.tolist())


def _exact(run: "Run") -> torch.nn.Module:
    """Return the network in float64, where a zero of D can be told to the last digit."""
    return deepcopy(run.model).double().requires_grad_(False)
