"""The gauge of a tuple, its size, which carries no value; and the scale of the targets."""

import math

import torch
from torch import Tensor

from zeroproof._checks import in_range, pair_shapes
from zeroproof.autodiff.eager import chunk_size, chunks
from zeroproof.defaults import GAMMA
from zeroproof.projective.pair import Pair
from zeroproof.scm.division import divisible

__all__ = ["least_square", "renormalize", "rescaled", "target_scale", "widen"]

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
    size = _sizes(N.detach(), D.detach(), gamma) if divisible(N, D) else None
    if size is not None:
        return Pair(N / size, D / size)
    n, d = N.detach().abs(), D.detach().abs()
    m = torch.maximum(n, d) if N.shape == D.shape else torch.maximum(n.amax(-1, keepdim=True), d)
    finite = torch.isfinite(m)
    m = torch.where((m == 0) | ~finite, 1, m)
    squares = (n / m).square()
    if N.shape != D.shape:
        squares = squares.sum(-1, keepdim=True)
    # N / m first: the size of the tuple may overflow where its direction does not; and no Python
    # number over m, which torch takes times 1 / m
    size = (squares + (d / m).square()).sqrt() + torch.full_like(m, gamma) / m
    # a constant nan would turn the zero gradient of a row that is not finite into nan
    size = torch.where((size == 0) | ~finite, 1, size)
    return Pair(N / m / size, D / m / size)


def _sizes(N: Tensor, D: Tensor, gamma: float) -> Tensor | None:
    """Return S, 1 for rows that are not finite; `None` where a row is too large or small for it."""
    size = D.new_empty(D.shape)
    least = least_square(N.dtype)
    if gamma >= 8 * least**0.5:  # what is lost in smaller squares does not show beside γ
        least = 0.0
    for n, d, s in chunks(chunk_size(), D.numel(), N, D, size):
        if n.shape == d.shape:
            torch.mul(n, n, out=s)
        else:
            torch.sum(n.square(), -1, keepdim=True, out=s)
        s.addcmul_(d, d)
        if s.amax().item() < math.inf and (least == 0 or s.amin().item() >= least):
            s.sqrt_().add_(gamma)
        elif not _careful_sizes(n, d, s, gamma):
            return None
    return size


def _careful_sizes(n: Tensor, d: Tensor, s: Tensor, gamma: float) -> bool:
    if n.shape != d.shape:
        return False
    # 0 - 0 where a row is finite, and nan elsewhere: such rows are told from an overflowing size
    torch.hypot(n, d, out=s).add_(gamma).add_(n - n).add_(d - d)
    if s.nan_to_num(nan=1.0, posinf=math.inf).amax().item() == math.inf:
        return False
    s.nan_to_num_(nan=1.0)
    return s.amin().item() >= torch.finfo(s.dtype).tiny


def least_square(dtype: torch.dtype) -> float:
    """Return the sum of squares from which on underflow in one of them is below its rounding."""
    return torch.finfo(dtype).tiny / torch.finfo(dtype).eps


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
