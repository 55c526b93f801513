"""The gauge of a tuple, its size, which carries no value; and the scale of the targets."""

import torch
from torch import Tensor

from zeroproof._checks import in_range, pair_shapes
from zeroproof.defaults import GAMMA
from zeroproof.projective.pair import Pair

__all__ = ["renormalize", "rescaled", "target_scale", "widen"]

_WIDER = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.complex32: torch.complex64,
}


def widen(x: Tensor) -> Tensor:
    """Return `x` in at least float32 (complex64); half precision and integers are converted."""
    if x.is_floating_point() or x.is_complex():
        return x.to(_WIDER.get(x.dtype, x.dtype))
    return x.to(torch.get_default_dtype())


def rescaled(N: Tensor, D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Divide a tuple by its larger modulus, a constant to autograd: squares then stay in range.

    Returns:
        (N / m, D / m, m) with m = sg(max(\|N\|, \|D\|)), 1 where both are 0. Not finite where N or
        D is not.
    """
    m = torch.maximum(N.detach().abs(), D.detach().abs())
    m = torch.where(m == 0, 1, m)
    return N / m, D / m, m


def renormalize(N: Tensor, D: Tensor, gamma: float = GAMMA.value) -> Pair:
    r"""Bring tuples to unit size without changing the value they represent, N / D.

    Formula: S = sg(√(\|N\|² + \|D\|²) + γ), (N', D') = (N / S, D / S). S is a constant to
    autograd, so the optimiser learns a direction and its gradient stays smooth through D = 0.
    Outputs that share one denominator share one S, √(Σ\|N_j\|² + \|D\|²) + γ, so that the
    denominator stays one.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape, or `(*batch, 1)` if shared.
        gamma: γ, which keeps ⟨0, 0⟩ at ⟨0, 0⟩.

    Returns:
        The pair in the shapes given; half precision comes back as float32. A tuple that is not
        finite stays so.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: `gamma` is not legal.

    Examples:
        >>> renormalize(torch.tensor([3e30]), torch.tensor([4e30]))
        Pair(N=tensor([0.6000]), D=tensor([0.8000]))
    """
    in_range(gamma, GAMMA)
    pair_shapes(N, D)
    N, D = widen(N), widen(D)
    n, d = N.detach().abs(), D.detach().abs()
    m = torch.maximum(n, d) if N.shape == D.shape else torch.maximum(n.amax(-1, keepdim=True), d)
    m = torch.where((m == 0) | ~torch.isfinite(m), 1, m)
    squares = (n / m).square()
    if N.shape != D.shape:
        squares = squares.sum(-1, keepdim=True)
    # N / m first: the size of the tuple may overflow where its direction does not
    size = (squares + (d / m).square()).sqrt() + gamma / m
    # a constant nan would turn the zero gradient of a row that is not finite into nan
    size = torch.where((size == 0) | ~torch.isfinite(size), 1, size)
    return Pair(N / m / size, D / m / size)


def target_scale(y: Tensor) -> float:
    r"""Return the scale s of targets: the median of \|y\| over the finite ones, 1 if that is 0.

    Of an even number of targets it is the mean of the middle two.
    Tuple space depends on the units of y; y / s does not. Units: those of y.

    Examples:
        >>> target_scale(torch.tensor([10.0, -30.0, 20.0, float("inf")]))
        20.0
    """
    magnitude = widen(y.detach()).abs()
    magnitude = magnitude[torch.isfinite(magnitude)]
    count = magnitude.numel()
    if not count:
        return 1.0
    magnitude = magnitude.sort().values
    low, high = magnitude[(count - 1) // 2], magnitude[count // 2]
    scale = float(low + (high - low) / 2)  # the sum of the two might overflow
    return scale if scale > 0 else 1.0
