"""The score of an estimator: chordal error against that of the best constant."""

import torch
from torch import Tensor

from zeroproof.projective.angle import chordal_distance
from zeroproof.projective.gauge import rescaled
from zeroproof.solve.recipe import lift

__all__ = ["skill"]


def skill(N: Tensor, D: Tensor, y: Tensor, weight: Tensor) -> float:
    """Return 1 - E / E₀.

    E₀ = 1 - λ, λ the largest eigenvalue of the mean projector on the unit tuples of an output.

    Args:
        N: Numerators over the scale of y, `(n, m)`.
        D: Denominators, `(n, m)` or `(n, 1)`.
        y: Targets over their scale, `(n, m)`, inf and nan allowed.
        weight: Row weights, `(n,)`.

    Examples:
        >>> y = torch.tensor([[1.0], [-1.0]])
        >>> skill(y, torch.ones(2, 1), y, torch.ones(2))
        1.0
    """
    Y_n, Y_d = lift("y", y)
    w = weight / weight.sum()
    square = chordal_distance(N, D.expand_as(N), Y_n, Y_d).square().nan_to_num(nan=1.0)
    error = float((w[:, None] * square).sum(0).mean())
    Y_n, Y_d, _ = rescaled(Y_n, Y_d)
    unit = torch.stack([Y_n, Y_d], -1)
    unit = unit / torch.linalg.vector_norm(unit, dim=-1, keepdim=True)
    projector = torch.einsum("n,nmi,nmj->mij", w.to(unit.dtype), unit, unit.conj())
    constant = float((1 - torch.linalg.eigvalsh(projector)[:, -1]).mean())
    if constant <= 0:  # all targets alike
        return 1.0 if error == 0 else 0.0
    return 1 - error / constant
