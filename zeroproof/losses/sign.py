"""The sign consistency loss: what tells +∞ from -∞."""

from typing import Unpack

from torch import Tensor

from zeroproof._checks import in_range, one_of, widen
from zeroproof.defaults import TAU_SING
from zeroproof.losses.gradients import Counting, LossRecipe, single

__all__ = ["VARIANTS", "sign_consistency_loss"]

VARIANTS = ("cosine", "angle")


def sign_consistency_loss(
    N: Tensor,
    D: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    tau_sing: float = TAU_SING.value,
    *,
    variant: str = "cosine",
    turned: bool = False,
    **counting: Unpack[Counting],
) -> Tensor:
    r"""Align the orientation of tuples with singular targets, those with \|Y_d\| < `tau_sing`.

    Formula: the mean over the singular targets of 1 - cos θ, cos θ = (N·Y_n + D·Y_d) / (‖(N, D)‖
    ‖(Y_n, Y_d)‖). `variant="angle"`: θ² / 2 with θ = atan2(N·Y_d - D·Y_n, N·Y_n + D·Y_d), which
    still has a gradient where the tuple points exactly the wrong way; there 1 - cos θ has none.

    At a pole whose two sides differ in sign D changes its sign and N does not, so that half of the
    rows want ⟨-1, 0⟩ of an N that is near 1 for all: the formula has the floor 1 there and nothing
    to teach. `turned=True` compares with the target times sign D, a constant to autograd, of which
    only the signs of value and label are left: such a pole costs nothing, the wrong side of it 2. A
    target of unknown sign (lifted from nan) has none to teach: mask it.

    Args:
        N: Numerators, `(*batch, k)`, real or complex (real part of the Hermitian product).
        D: Denominators, the same shape or `(*batch, 1)`.
        Y_n: Target numerators, the shape of N.
        Y_d: Target denominators, the shape of N or `(*batch, 1)`.
        tau_sing: τ_sing, above 0, compared with \|Y_d\|.
        variant: `"cosine"`, or `"angle"` for real tuples.
        turned: Compare with that multiple of the target by ±1 (complex: by a phase) whose Y_d, or
            0+, lies on the side of D.
        **counting: `weight` (an entry counts in proportion; one that is negative or not finite
            does not count), `mask` (boolean, True counts), both in the shape of N or `(*batch,
            1)`; `reduction`: `"mean"` (Σ w·l / Σ w over what counts), `"sum"` or `"none"`.

    Returns:
        Scalar `()`, or the shape of N for `"none"`. Targets that are not singular and rows with a
        number that is not finite do not count: 0 and no gradient there, a connected 0 where
        nothing counts. ⟨0, 0⟩ costs as much as a right angle, without a gradient. The gradient
        policy acts on dL/dN and dL/dD.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: An option outside what it may be, or `"angle"` with complex tuples.

    Examples:
        >>> import torch
        >>> N, D = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])
        >>> Y_n, Y_d = torch.tensor([-1.0, 3.0]), torch.tensor([0.0, 1.0])  # -∞ and 3
        >>> sign_consistency_loss(N, D, Y_n, Y_d)
        tensor(2.)
    """
    in_range(tau_sing, TAU_SING)
    one_of(variant, VARIANTS, "variant")
    factors = (0.0, 0.0, 1.0, 0.0)
    recipe = LossRecipe(factors, tau_sing=tau_sing, sign_variant=variant, turned=turned)
    return single("sign", (widen(N), widen(D), widen(Y_n), widen(Y_d)), recipe, counting)
