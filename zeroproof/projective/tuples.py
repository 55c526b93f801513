"""Homogeneous tuples ⟨N, D⟩: what stands for a value, ∞ included, while a model learns.

The gauge of a tuple, its size, carries no value; the radial part of a gradient would change it.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import in_range, pair_shapes, same_shape, widen
from zeroproof.autodiff.compiled import learns_alone, register_namedtuple
from zeroproof.autodiff.policies import gate, gating, rule
from zeroproof.defaults import GAMMA
from zeroproof.native import is_forward_mode, is_transforming, ordinary
from zeroproof.scm.division import divisible

__all__ = [
    "Pair",
    "encode",
    "gated",
    "least_square",
    "renormalize",
    "rescaled",
    "squared",
    "tangential",
    "target_scale",
]

CHUNK = 80_000  # entries for each thread, of no power of two, whose chunks would share cache lines


class Pair(NamedTuple):
    """A tuple ⟨N, D⟩ standing for N / D; all non-zero multiples are the same value."""

    N: Tensor
    D: Tensor


register_namedtuple(Pair)


def encode(payload: Tensor, bottom: Tensor | None = None) -> Pair:
    """Lift values to tuples: φ(x) = ⟨x, 1⟩ and φ(⊥) = ⟨1, 0⟩.

    Args:
        payload: Values of any shape, real or complex; entries that are not finite are ⊥. The
            fields of an `SCM` value may be passed as they are: `encode(*x)`.
        bottom: Further entries that are ⊥, boolean, in the shape of `payload`.

    Returns:
        A pair in the shape of `payload`. Gradients reach `payload` at finite entries.

    Raises:
        ShapeError: `bottom` has another shape.

    Examples:
        >>> encode(torch.tensor([2.0, float("nan")]))
        Pair(N=tensor([2., 1.]), D=tensor([1., 0.]))
    """
    is_bottom = ~torch.isfinite(payload)
    if bottom is not None:
        same_shape(bottom, payload, "bottom", "payload")
        is_bottom = is_bottom | bottom
    return Pair(torch.where(is_bottom, 1, payload), (~is_bottom).to(payload.dtype))


def gated(N: Tensor, D: Tensor, fixed: int) -> Pair:
    """Let the policy registered on a layer act on dL/dN and dL/dD; without one they pass.

    A tuple is ⊥ where it is ⟨0, 0⟩ or not finite; ⟨±1, 0⟩ is an ordinary point at infinity.
    """
    if fixed < 0:
        return Pair(N, D)
    bottom = ((N == 0) & (D == 0)) | ~torch.isfinite(N) | ~torch.isfinite(D)
    return Pair(*gate(N, D, bottom, fixed))


# --- their size -----------------------------------------------------------------------------------


def squared(x: Tensor) -> Tensor:
    r"""Return \|x\|², real, without a square root whose derivative fails at 0."""
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()


def rescaled(N: Tensor, D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Divide a tuple by its larger modulus, a constant to autograd: squares then stay in range.

    Returns:
        (N / m, D / m, m) with m = sg(max(\|N\|, \|D\|)), 1 where both are 0. Not finite where N or
        D is not.
    """
    m = torch.maximum(N.detach().abs(), D.detach().abs())
    m = torch.where(m == 0, 1, m)
    return N / m, D / m, m


def least_square(dtype: torch.dtype) -> float:
    """Return the sum of squares from which on underflow in one of them is below its rounding."""
    return torch.finfo(dtype).tiny / torch.finfo(dtype).eps


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
    for n, d, s in chunks(N, D, size):
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


def chunks(N: Tensor, D: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Cut tuples, and what is made of them, into chunks that stay in the caches.

    They are flat, unless one D serves several entries of a row.
    """
    size = CHUNK * torch.get_num_threads()  # each of them takes its part of every operation
    if N.numel() <= size:
        return iter(((N, D, out),))
    rows, width = D.numel(), N.numel() // D.numel()
    shape, tall = ((rows, -1) if width > 1 else -1), max(size // width, 1)
    return zip(*(x.reshape(shape).split(tall) for x in (N, D, out)), strict=True)


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


# --- the radial part of a gradient ----------------------------------------------------------------


def _without_radial(N: Tensor, D: Tensor, g_N: Tensor, g_D: Tensor) -> tuple[Tensor, Tensor]:
    """Return g - Re⟨g, z⟩ z / |z|², z = (N, D) of a row whose outputs share D, else of an output.

    z comes at unit size, so that its square stays in the range. A z that is 0 or not finite has no
    direction; there g stays.
    """
    shared = N.shape != D.shape

    def summed(x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True) if shared else x

    if ordinary(N, D, g_N, g_D) and N.numel():  # fewer steps, where squares stay in the range
        size = summed(N * N) + D * D
        along = (summed(g_N * N) + g_D * D) / size
        (low, high), (least, most) = size.aminmax(), along.aminmax()
        inside = low.item() >= least_square(N.dtype) and high.item() < math.inf
        if inside and (most - least).item() < math.inf:
            return g_N.addcmul(along, N, value=-1), g_D.addcmul(along, D, value=-1)
    n = N.abs().amax(-1, keepdim=True) if shared else N.abs()
    m = torch.maximum(n, D.abs())
    usable = (m > 0) & (m < math.inf)
    m = torch.where(usable, m, 1)
    n, d = torch.where(usable, N / m, 0), torch.where(usable, D / m, 0)
    size = torch.where(usable, summed(squared(n)) + squared(d), 1)
    along = (summed(_dot(g_N, n)) + _dot(g_D, d)) / size
    along = torch.where(along.abs() < math.inf, along, 0)  # a g that is not finite stays, too
    return g_N - along * n, g_D - along * d


def _dot(g: Tensor, z: Tensor) -> Tensor:
    return (g * z.conj()).real if g.is_complex() else g * z


class _Tangential(torch.autograd.Function):
    """Identity whose gradient has no part along (N, D)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(N: Tensor, D: Tensor, fixed: int) -> tuple[Tensor, Tensor]:
        return N.view_as(N), D.view_as(D)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        N, D, ctx.fixed = inputs
        ctx.recorded = False
        ctx.save_for_backward(N, D)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor, g_D: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A gradient that is recorded is a value (a force, a residual), and so is what is
        # differentiated through it: both stay whole. A graph and `torch.func` record always.
        if not torch.compiler.is_compiling() and torch.is_grad_enabled() and not is_transforming():
            ctx.recorded = True
        if ctx.recorded:
            return g_N, g_D, None
        masked = rule(g_N, ctx.fixed).masked  # false under PASSTHROUGH, which is raw
        if masked is False:
            return g_N, g_D, None
        N, D = ctx.saved_tensors
        found = _without_radial(N, D, g_N, g_D)
        if isinstance(masked, Tensor):
            found = [torch.where(masked, x, g) for x, g in zip(found, (g_N, g_D), strict=True)]
        return *found, None


class _TangentialNow(torch.autograd.Function):
    """The same in eager mode; without `setup_context`, for which torch inspects every call."""

    @staticmethod
    def forward(ctx: Any, N: Tensor, D: Tensor, fixed: int) -> tuple[Tensor, Tensor]:
        _Tangential.setup_context(ctx, (N, D, fixed), (N, D))
        return _Tangential.forward(N, D, fixed)

    backward = staticmethod(_Tangential.backward)  # pyright: ignore[reportAssignmentType]


def tangential(N: Tensor, D: Tensor, fixed: int, parameter: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return (N, D) unchanged; backward takes the part along (N, D) out of their gradient.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        fixed: Policy code of a layer, -1 to follow the context; PASSTHROUGH is raw.
        parameter: One that N and D depend on: `torch.func` shall take one gradient by it.
    """
    if is_forward_mode() or not gating(N, D):
        return N, D
    if ordinary(N, D):
        return _TangentialNow.apply(N, D, fixed)
    return _Tangential.apply(N, D, fixed) if learns_alone(parameter) else (N, D)
