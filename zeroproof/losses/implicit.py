"""The implicit loss: how far a tuple is from its target, without dividing N by D."""

from typing import Unpack

from torch import Tensor

from zeroproof._checks import in_range, one_of, widen
from zeroproof.defaults import GAMMA
from zeroproof.losses.gradients import Counting, LossRecipe, single

__all__ = ["NORMALIZERS", "implicit_loss"]

NORMALIZERS = ("detached", "attached", "chordal")


def implicit_loss(
    N: Tensor,
    D: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    gamma: float = GAMMA.value,
    *,
    normalizer: str = "detached",
    oriented: bool = False,
    **counting: Unpack[Counting],
) -> Tensor:
    r"""Fit tuples to target tuples through their cross product, without a division by D.

    Formula: E = \|N·Y_d - D·Y_n\|², S = \|D\|²\|Y_d\|² + \|N\|²\|Y_n\|², and the mean of

    | | loss | |
    |---|---|---|
    | `"detached"` | E / (sg(S) + γ) | unbounded; its gradient shrinks (N, D) |
    | `"attached"` | E / (S + γ) | its gradient is that of the quotient |
    | `"chordal"` | E / ((\|N\|² + \|D\|²)(\|Y_n\|² + \|Y_d\|²)) | in [0, 1], free of both gauges |
    | `oriented=True` | 2(1 - cos) | in [0, 4], free of both gauges, and tells +∞ from -∞ |

    All but the last are blind to sign. Computed on max-scaled tuples, in eager mode in float64, so
    that squares neither over- nor underflow; a quotient beyond the number range saturates just
    below its end, and so does the gradient of `"attached"`.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        Y_n: Target numerators, the shape of N.
        Y_d: Target denominators, the shape of N or `(*batch, 1)`.
        gamma: γ, used by `"detached"` and `"attached"`, in units of the squared products.
        normalizer: `"detached"`, `"attached"` or `"chordal"`.
        oriented: Use 2(1 - cos) on all targets instead; `normalizer` and `gamma` then play no part.
        **counting: `weight` (an entry counts in proportion; one that is negative or not finite
            does not count), `mask` (boolean, True counts), both in the shape of N or `(*batch,
            1)`; `reduction`: `"mean"` (Σ w·l / Σ w over what counts), `"sum"` or `"none"`.

    Returns:
        Scalar `()`, or the shape of N for `"none"`. A row with a number that is not finite does
        not count: 0 and no gradient there, a connected 0 where no row counts. At ⟨0, 0⟩
        `"detached"` costs 0, `"attached"` and `"chordal"` 1, `oriented` 2, all without a gradient.
        The gradient policy acts on dL/dN and dL/dD.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: An option outside what it may be.

    Examples:
        >>> import torch
        >>> N, D = torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0])
        >>> Y_n, Y_d = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])  # 2 and -∞
        >>> implicit_loss(N, D, Y_n, Y_d)
        tensor(0.)
        >>> implicit_loss(N, D, Y_n, Y_d, oriented=True)
        tensor(2.)
    """
    in_range(gamma, GAMMA)
    one_of(normalizer, NORMALIZERS, "normalizer")
    fit = "oriented" if oriented else normalizer
    recipe = LossRecipe(factors=(1.0, 0.0, 0.0, 0.0), fit=fit, gamma=gamma)
    return single("fit", (widen(N), widen(D), widen(Y_n), widen(Y_d)), recipe, counting)
