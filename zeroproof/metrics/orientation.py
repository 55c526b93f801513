"""On which side of a pole a tuple lies."""

import math

import torch
from torch import Tensor

from zeroproof._checks import one_of, pair_shapes, positive, same_shape
from zeroproof.errors import RangeError
from zeroproof.metrics.coverage import Share
from zeroproof.projective.gauge import widen

__all__ = ["TOPOLOGIES", "sign_share"]

TOPOLOGIES = ("affine", "projective")


def sign_share(
    N: Tensor, D: Tensor, y: Tensor, *, bound: float = math.inf, topology: str = "affine"
) -> Share:
    r"""Count the tuples that lie on the side of their target, among targets at or near a pole.

    A target counts where \|y\| ≥ `bound`; nan, whose sign is unknown, never does.

    - `"affine"`: +∞ = ⟨1, 0⟩ and -∞ = ⟨-1, 0⟩ are two points, and the side of ⟨N, D⟩ is the sign of
      N: what `sign_consistency_loss` teaches. The sign of D, which is rounding at a pole, says
      nothing.
    - `"projective"`: ⟨N, D⟩ and ⟨-N, -D⟩ are one value and there is one ∞ without sides, so targets
      of ±inf do not count. The side is the sign of N / D, judged on finite targets beyond `bound`.

    A tuple without a side (N = 0, or D = 0 in the projective topology, or a number that is not
    finite) is on the wrong one. Whether the answer would decode to ⊥ plays no part.

    Args:
        N: Numerators, `(*batch, k)`, real.
        D: Denominators, the same shape or `(*batch, 1)`.
        y: Targets, the shape of N; not lifted.
        bound: Above 0, in the units of y; infinite for the targets ±inf alone.
        topology: `"affine"` or `"projective"`.

    Returns:
        Right sides of targets that count.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: An option is not legal, a tensor is complex (there are no two sides), or `bound`
            is infinite in the projective topology, where nothing would count.

    Examples:
        >>> N, D = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([-1e-9, 0.0, 1.0])
        >>> sign_share(N, D, torch.tensor([torch.inf, -torch.inf, 5.0]))
        Share(hits=tensor(1), entries=tensor(2))
    """
    one_of(topology, TOPOLOGIES, "topology")
    if bound != math.inf:
        positive(bound, "bound")
    elif topology == "projective":
        raise RangeError(
            "bound must be finite in the projective topology, whose one ∞ has no sides, got inf"
        )
    pair_shapes(N, D)
    same_shape(y, N, "y", "N")
    if any(x.is_complex() for x in (N, D, y)):
        raise RangeError("N, D and y must be real: a complex pole has no two sides")
    N, D, y = widen(N), widen(D), widen(y)
    counts = y.abs() >= bound
    side = N.sign() * y.sign()
    if topology == "projective":
        counts = counts & torch.isfinite(y)
        side = side * D.sign()
    right = (side > 0) & torch.isfinite(N) & torch.isfinite(D)
    return Share((counts & right).sum(), counts.sum())
