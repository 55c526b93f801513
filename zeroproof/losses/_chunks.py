"""One chunk of the combined loss: sums forward, derivatives backward, in as few passes as can be.

A chunk stays in the cache, and so a pass over it costs a fraction of one over the memory. The
formulas are those of the plain losses without their division by the larger modulus. That is sound
where squares stay in the number range and no D is 0; `sums` looks, and says so. Every other chunk
goes through the plain losses.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Dense",
    "Factors",
    "Found",
    "Recipe",
    "Room",
    "Sink",
    "bounded",
    "gradients",
    "room",
    "sums",
    "usual",
]

Dense = tuple[Tensor, Tensor, Tensor, Tensor]  # N, D, Y_n, Y_d, of one shape, contiguous
SATURATED = 40  # 1 - σ(40) is nothing beside 1, in float64 too


class Recipe(NamedTuple):
    """Options of the parts of a loss, named as in `SCMTrainingLoss`; and which parts there are."""

    normalizer: str
    gamma: float
    tau: float
    relative: bool
    score: str
    scale: float
    temperature: float
    tau_sing: float
    sign_variant: str
    margin: bool
    sign: bool
    coverage: bool


def usual(recipe: Recipe) -> bool:
    """Tell whether the options of the score leave room in the number range of float32."""
    tau, temperature = recipe.tau, recipe.temperature
    if not (isinstance(tau, float) and 1e-15 <= tau <= 1e15 and 1e-15 <= temperature <= 1e15):
        return False
    return recipe.score == "denominator" or (1e-6 <= recipe.scale <= 1e6 and tau <= 1)


class Factors(NamedTuple):
    """dL / d(loss of one entry) of every part; no gradient of a gated one exceeds `bound`."""

    fit: float
    margin: float
    sign: float
    coverage: float
    bound: float


class Room(NamedTuple):
    """Work space of the size of a chunk."""

    gamma: Tensor  # filled with γ
    a: Tensor
    b: Tensor
    c: Tensor

    def of(self, n: int) -> "Room":
        """Return the part for n entries."""
        return self if self.a.numel() == n else Room(*(x[:n] for x in self))


class Sink:
    """Where the gradients of a chunk add up, each behind its own bound.

    The first one is written in place. A denominator that several outputs share gets their sum, and
    the bound holds for the sum.
    """

    def __init__(self, g_N: Tensor, g_D: Tensor, work: Room, width: int) -> None:
        self.work = work
        self._N, self._D, self._width = g_N, g_D, width  # width: of a shared D, else 1
        self._fresh_N = self._fresh_D = True

    def place_N(self) -> Tensor:  # noqa: N802 - the field's symbols
        """Return where a first dL/dN may be written."""
        return self._N if self._fresh_N else self.work.a

    def place_D(self) -> Tensor:  # noqa: N802 - the field's symbols
        """Return where a first dL/dD may be written."""
        return self._D if self._fresh_D and self._width == 1 else self.work.b

    def add_N(self, gradient: Tensor, bound: float) -> None:  # noqa: N802
        """Add to dL/dN."""
        self._fresh_N = _added(bounded(gradient, bound), self._N, fresh=self._fresh_N)

    def add_D(self, gradient: Tensor, bound: float) -> None:  # noqa: N802
        """Add to dL/dD."""
        if self._width > 1:
            gradient = gradient.view(-1, self._width).sum(1)
        self._fresh_D = _added(bounded(gradient, bound), self._D, fresh=self._fresh_D)

    def close(self) -> None:
        """Write 0 where nothing was added."""
        if self._fresh_N:
            self._N.zero_()
        if self._fresh_D:
            self._D.zero_()


def bounded(gradient: Tensor, bound: float) -> Tensor:
    """Bound a gradient in place."""
    return gradient.clamp_(-bound, bound) if bound < math.inf else gradient


def _added(gradient: Tensor, to: Tensor, *, fresh: bool) -> bool:
    if not fresh:
        to.add_(gradient)
    elif gradient is not to:
        to.copy_(gradient)
    return False


class Found(NamedTuple):
    """What forward found in a chunk: its sums, and which parts have a derivative there."""

    fit: float
    margin: float
    coverage: float
    near: bool  # some score is below τ_train
    slopes: bool  # some score is so small that the soft coverage feels it
    singular: bool  # some target is


def room(n: int, like: Tensor, recipe: Recipe) -> Room:
    """Return work space for n entries."""
    wide = torch.float64 if recipe.normalizer == "attached" else like.dtype
    gamma = like.new_full((n,), recipe.gamma, dtype=wide)
    return Room(gamma, *(like.new_empty(n) for _ in "abc"))


def sums(x: Dense, recipe: Recipe, work: Room) -> Found | None:
    """Return what is in a chunk, or `None` where the plain losses have to look at it."""
    fit = _FIT[recipe.normalizer](x, recipe, work)
    if not fit <= torch.finfo(x[0].dtype).max ** 0.66:  # nan where the chunk is not sound
        return None
    margin = coverage = float(x[0].numel())
    near = slopes = False
    if recipe.margin or recipe.coverage:
        score = _score(x, recipe, work)
        if score is None:
            return None
        smallest = score.amin().item()
        near = recipe.margin and smallest < recipe.tau
        slopes = recipe.coverage and smallest < recipe.tau + SATURATED * recipe.temperature
        margin = _margin(score, recipe, work.b) if near else 0.0
        if slopes:
            score.sub_(recipe.tau).mul_(1 / recipe.temperature)
            coverage = score.sigmoid_().sum().item()
    singular = recipe.sign and torch.abs(x[3], out=work.c).amin().item() < recipe.tau_sing
    return Found(fit, margin, coverage, near, slopes, singular)


def _range(dtype: torch.dtype) -> tuple[float, float]:
    """Return between what squares of squares are right to rounding."""
    limits = torch.finfo(dtype)
    return limits.tiny * 2**26, limits.max / 2**8


def _cross(x: Dense, out: Tensor) -> Tensor:
    N, D, Y_n, Y_d = x
    return torch.mul(N, Y_d, out=out).addcmul_(D, Y_n, value=-1)


def _detached_size(x: Dense, work: Room) -> Tensor:
    N, D, Y_n, Y_d = x
    a, b = torch.mul(N, Y_n, out=work.a), torch.mul(D, Y_d, out=work.b)
    return torch.addcmul(work.gamma, a, a, out=a).addcmul_(b, b)


def _detached(x: Dense, recipe: Recipe, work: Room) -> float:
    size = _detached_size(x, work)
    low, high = _range(size.dtype)
    least, largest = torch.aminmax(size)
    if not (least.item() >= low and largest.item() <= high):
        return math.nan
    difference = _cross(x, work.c)
    return torch.dot(difference, torch.div(difference, size, out=size)).item()


def _chordal_sizes(x: Dense, work: Room) -> tuple[Tensor, Tensor]:
    N, D, Y_n, Y_d = x
    return (
        torch.mul(N, N, out=work.a).addcmul_(D, D),
        torch.mul(Y_n, Y_n, out=work.b).addcmul_(Y_d, Y_d),
    )


def _chordal(x: Dense, recipe: Recipe, work: Room) -> float:
    size, Y_size = _chordal_sizes(x, work)
    low, high = _range(size.dtype)
    least = min(size.amin().item(), Y_size.amin().item())
    product = size.mul_(Y_size)
    # of nan, `min` of the host may forget one
    if not (least >= math.sqrt(low) and product.amax().item() <= high):
        return math.nan
    difference = _cross(x, work.c)
    return torch.dot(difference, torch.div(difference, product, out=product)).item()


def _attached(x: Dense, recipe: Recipe, work: Room) -> float:
    difference, size = _attached_parts(x, work)
    low, high = _range(size.dtype)
    least, largest = torch.aminmax(size)
    if not (least.item() >= low and largest.item() <= high) or _has_origin(x, work):
        return math.nan
    return torch.dot(difference, difference / size).item()


def _attached_parts(x: Dense, work: Room) -> tuple[Tensor, Tensor]:
    """Return N·Y_d - D·Y_n and S + γ in float64, where they keep the number range."""
    wide = [z.to(work.gamma.dtype) for z in x]
    N, D, Y_n, Y_d = wide
    difference = _cross((N, D, Y_n, Y_d), torch.empty_like(N))
    a, b = N * Y_n, D * Y_d
    return difference, torch.addcmul(work.gamma, a, a, out=a).addcmul_(b, b)


def _has_origin(x: Dense, work: Room) -> bool:
    N, D, Y_n, Y_d = x
    for one, other in ((N, D), (Y_n, Y_d)):
        size = torch.maximum(torch.abs(one, out=work.a), torch.abs(other, out=work.b), out=work.a)
        if not size.amin().item() > 0:
            return True
    return False


_FIT = {"detached": _detached, "attached": _attached, "chordal": _chordal}


def _score(x: Dense, recipe: Recipe, work: Room) -> Tensor | None:
    """Return the scores, above 0 all of them, or `None`."""
    score = torch.abs(x[1], out=work.a)
    if not score.amin().item() > 0:
        return None
    if recipe.score == "denominator":
        return score
    size = _angle_size(x, recipe, work.b)
    low, high = _range(size.dtype)
    least, largest = torch.aminmax(size)
    if not (least.item() >= math.sqrt(low) and largest.item() <= high):
        return None
    return score.mul_(size.rsqrt_())


def _angle_size(x: Dense, recipe: Recipe, out: Tensor) -> Tensor:
    N, D = x[:2]
    return torch.mul(D, D, out=out).addcmul_(N, N, value=recipe.scale**-2)


def _margin(score: Tensor, recipe: Recipe, out: Tensor) -> float:
    gap = torch.clamp_max(score, recipe.tau, out=out).sub_(recipe.tau)
    if recipe.relative:
        gap.mul_(1 / recipe.tau)
    return torch.dot(gap, gap).item()


def gradients(x: Dense, found: Found, recipe: Recipe, factors: Factors, out: Sink) -> None:
    """Add what fit, margin and coverage contribute to dL/dN and dL/dD of a chunk."""
    if factors.fit:
        _FIT_GRADIENTS[recipe.normalizer](x, factors, out)
    near, slopes = found.near and factors.margin != 0, found.slopes and factors.coverage != 0
    if near or slopes:
        _SCORE_GRADIENTS[recipe.score](x, (near, slopes), recipe, factors, out)


def _detached_gradients(x: Dense, factors: Factors, out: Sink) -> None:
    size = _detached_size(x, out.work)
    steep = _cross(x, out.work.c).mul_(2 * factors.fit).div_(size)
    out.add_N(torch.mul(steep, x[3], out=out.place_N()), factors.bound)
    out.add_D(torch.mul(steep, x[2], out=out.place_D()).neg_(), factors.bound)


def _chordal_gradients(x: Dense, factors: Factors, out: Sink) -> None:
    N, D, Y_n, Y_d = x
    size, Y_size = _chordal_sizes(x, out.work)
    steep = _cross(x, out.work.c).mul_(2 * factors.fit).div_(size).div_(Y_size)
    along = torch.mul(N, Y_n, out=Y_size).addcmul_(D, Y_d)
    steep.mul_(along.div_(size))
    out.add_N(torch.mul(steep, D, out=out.place_N()), factors.bound)
    out.add_D(torch.mul(steep, N, out=out.place_D()).neg_(), factors.bound)


def _attached_gradients(x: Dense, factors: Factors, out: Sink) -> None:
    difference, size = _attached_parts(x, out.work)
    steep = difference.div_(size).mul_(2 * factors.fit).div_(size)
    N, D, Y_n, Y_d = (z.to(size.dtype) for z in x)
    common = (Y_d * Y_d).mul_(Y_d).mul_(D).add_((Y_n * Y_n).mul_(Y_n).mul_(N))
    limit = min(factors.bound, torch.finfo(x[0].dtype).max)
    g_N = torch.mul(out.work.gamma, Y_d).addcmul_(D, common).mul_(steep)
    out.add_N(out.place_N().copy_(g_N.clamp_(-limit, limit)), math.inf)
    g_D = torch.mul(out.work.gamma, Y_n).addcmul_(N, common).mul_(steep).neg_()
    out.add_D(out.place_D().copy_(g_D.clamp_(-limit, limit)), factors.bound)


_FIT_GRADIENTS = {
    "detached": _detached_gradients,
    "attached": _attached_gradients,
    "chordal": _chordal_gradients,
}


def _coverage_slope(score: Tensor, recipe: Recipe, factors: Factors, out: Tensor) -> Tensor:
    """Return the derivative of the coverage by the score, which is lost."""
    share = score.sub_(recipe.tau).mul_(1 / recipe.temperature).sigmoid_()
    slope = torch.addcmul(share, share, share, value=-1, out=out)
    return slope.mul_(factors.coverage / recipe.temperature)


def _margin_scale(recipe: Recipe, factors: Factors) -> float:
    return 2 * factors.margin * (recipe.tau**-2 if recipe.relative else 1)


def _denominator_gradients(
    x: Dense, wanted: tuple[bool, bool], recipe: Recipe, factors: Factors, out: Sink
) -> None:
    D, (near, slopes), (_, a, b, _) = x[1], wanted, out.work
    if near:
        # 2(|D| - τ) sign(D) where |D| < τ, without a comparison
        slope = torch.clamp(D, -recipe.tau, recipe.tau, out=a)
        slope.sub_(torch.sign(D, out=b), alpha=recipe.tau)
        out.add_D(slope.mul_(_margin_scale(recipe, factors)), factors.bound)
    if slopes:
        slope = _coverage_slope(torch.abs(D, out=a), recipe, factors, b)
        out.add_D(slope.mul_(torch.sign(D, out=a)), math.inf)


def _angle_gradients(
    x: Dense, wanted: tuple[bool, bool], recipe: Recipe, factors: Factors, out: Sink
) -> None:
    # s = |D| / ρ, ρ² = (N / scale)² + D²: ds = sign(D)·N·(N dD - D dN) / (scale²·ρ³)
    (N, D, *_), (near, slopes), (_, a, b, c) = x, wanted, out.work
    root = _angle_size(x, recipe, b).rsqrt_()
    common = torch.sign(D, out=c).mul_(N).mul_(root).mul_(root).mul_(root).mul_(recipe.scale**-2)
    score = torch.abs(D, out=a).mul_(root)
    if near:
        slope = torch.clamp_max(score, recipe.tau).sub_(recipe.tau)
        slope.mul_(_margin_scale(recipe, factors)).mul_(common)
        out.add_N(torch.mul(slope, D, out=b).neg_(), factors.bound)
        out.add_D(torch.mul(slope, N, out=b), factors.bound)
    if slopes:
        slope = _coverage_slope(score, recipe, factors, b).mul_(common)
        out.add_N(torch.mul(slope, D, out=a).neg_(), math.inf)
        out.add_D(torch.mul(slope, N, out=a), math.inf)


_SCORE_GRADIENTS = {"denominator": _denominator_gradients, "angle": _angle_gradients}
