"""The combined loss for the compiler: one graph of elementwise steps and sums in each direction.

From the plain losses autograd would record three policy gates, each with its gradients written out,
and keep what lies between. Here the derivatives are written out, the policy is read once, and
backward starts from the four tensors again. What is not finite is left out at the end, by a
selection: there is no autograd behind it which could take a nan along.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.gate import rule
from zeroproof.losses._chunks import Recipe

__all__ = ["Weights", "traceable", "traced_total"]


# the series of 2^x, whose next term is below the rounding of float32 for |x| ≤ 1/2
_POWERS = tuple(math.log(2) ** i / math.factorial(i) for i in range(7))


class Weights(NamedTuple):
    """λ of margin, sign and rejection, and the coverage asked for."""

    margin: float
    sign: float
    rejection: float
    target_coverage: float


class _State(NamedTuple):
    """Tuples divided by their larger modulus, and what the parts share."""

    n: Tensor
    d: Tensor
    y_n: Tensor
    y_d: Tensor
    unit: Tensor  # 1 / the larger modulus of (N, D)
    Y_unit: Tensor
    outputs: Tensor  # rows with finite outputs
    rows: Tensor  # those with finite targets too
    sound: Tensor  # entries of them where neither tuple is ⟨0, 0⟩
    difference: Tensor  # N·Y_d - D·Y_n of the divided ones


def traceable(tuples: tuple[Tensor, ...], mask: Tensor | None, recipe: Recipe) -> bool:
    """Tell whether `traced_total` can stand in for the plain losses, errors included."""
    N, _, Y_n, Y_d = tuples
    narrow = (*N.shape[:-1], 1) if N.ndim > 1 else N.shape
    shapes = (N.shape, narrow)
    return (
        not torch.compiler.is_exporting()
        and recipe.normalizer != "attached"
        and N.dtype in {torch.float32, torch.float64}
        and all(x.dtype == N.dtype and x.shape in shapes for x in tuples)
        and Y_n.shape == N.shape
        and not (Y_n.requires_grad or Y_d.requires_grad)
        and (mask is None or (mask.dtype == torch.bool and mask.shape in shapes))
    )


def traced_total(
    tuples: tuple[Tensor, Tensor, Tensor, Tensor],
    mask: Tensor | None,
    recipe: Recipe,
    weights: Weights,
) -> Tensor:
    """Return the total loss."""
    return _Traced.apply(*tuples, mask, recipe, weights)[0]


class _Traced(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        N: Tensor,
        D: Tensor,
        Y_n: Tensor,
        Y_d: Tensor,
        mask: Tensor | None,
        recipe: Recipe,
        weights: Weights,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        s = _state(N, D, Y_n, Y_d)
        fit, fitted = _summed(_fit(s, recipe), s.rows)
        total = fit / fitted
        held = singular = torch.ones_like(total)
        lacking = torch.zeros_like(total)
        score = _score(s, D, recipe)
        if recipe.margin:
            margin, held = _summed(_gap(score, recipe).square(), s.outputs)
            total = total + weights.margin * (margin / held)
        if recipe.sign:
            counts = _singular(s, Y_d, mask, recipe)
            # a number in place of a truth value: next to the latter no sum is made by vectors
            losses = torch.where(s.rows, _turned(s, recipe), 0) * counts
            singular = counts.expand(N.shape).sum().clamp_min(1)
            total = total + weights.sign * (losses.sum() / singular)
        if recipe.coverage:
            grown = _grown(score, recipe)
            covered = torch.where(_finite(N, D), grown / (1 + grown), 0).sum() / max(N.numel(), 1)
            lacking = (weights.target_coverage - covered).relu()
            total = total + weights.rejection * lacking.square()
        return total, fitted, held, singular, lacking

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.recipe, ctx.weights = inputs
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        N, D, Y_n, Y_d, mask, fitted, held, singular, lacking = ctx.saved_tensors
        recipe: Recipe = ctx.recipe
        weights: Weights = ctx.weights
        ruling = rule(g, -1)
        gated = torch.where(ruling.closed, 0, g)
        s = _state(N, D, Y_n, Y_d)
        out = _Gradients(N, D, ruling.bound)
        out.add(_fit_slopes(s, recipe, gated / fitted), s.sound)
        if recipe.sign:
            counts = _singular(s, Y_d, mask, recipe)
            factor = gated * weights.sign / singular
            out.add(_turned_slopes(s, recipe, factor * counts), s.sound)
        score = _score(s, D, recipe)
        if recipe.margin:
            slope = _gap(score, recipe) * (gated / held * (-2 * weights.margin))
            slope = slope / recipe.tau if recipe.relative else slope
            kept = s.outputs & ~(out.bottom(N, D) & ruling.masked)
            kinked = recipe.score == "denominator" and not recipe.relative
            out.add(_score_slopes(s, D, recipe, slope, kinked=kinked), kept)
        if recipe.coverage:
            grown = _grown(score, recipe)
            factor = g * lacking * (-2 * weights.rejection / N.numel() / recipe.temperature)
            slope = grown / (1 + grown).square() * factor
            out.add(_score_slopes(s, D, recipe, slope), _finite(N, D), gated=False)
        return (*out.found(), None, None, None, None, None)


class _Gradients:
    """Gradients of several parts, each bounded, added up in the shapes of N and D."""

    def __init__(self, N: Tensor, D: Tensor, bound: Tensor) -> None:
        self._shared = D.shape != N.shape
        self._bound = bound.to(N.dtype)
        self._N, self._D = torch.zeros_like(N), torch.zeros_like(D)

    def bottom(self, N: Tensor, D: Tensor) -> Tensor:
        """Return where outputs are ⟨0, 0⟩: where all are, that share a denominator."""
        origin = (N == 0) & (D == 0)
        return origin.all(-1, keepdim=True) if self._shared else origin

    def add(
        self, slopes: tuple[Tensor | None, Tensor], kept: Tensor, *, gated: bool = True
    ) -> None:
        """Add what one part contributes, where it counts."""
        g_N, g_D = slopes
        if g_N is not None:
            self._N = self._N + self._bounded(torch.where(kept, g_N, 0), gated)
        g_D = torch.where(kept, g_D, 0)
        if self._shared:
            g_D = g_D.expand(self._N.shape).sum(-1, keepdim=True)
        self._D = self._D + self._bounded(g_D, gated)

    def _bounded(self, gradient: Tensor, gated: bool) -> Tensor:
        if not gated:
            return gradient
        return torch.minimum(torch.maximum(gradient, -self._bound), self._bound)

    def found(self) -> tuple[Tensor, Tensor]:
        """Return dL/dN and dL/dD."""
        return self._N, self._D


def _summed(losses: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses that count, and their number, at least 1."""
    number = counts.expand(losses.shape).to(losses.dtype).sum()
    return torch.where(counts, losses, 0).sum(), number.clamp_min(1)


def _finite(N: Tensor, D: Tensor) -> Tensor:
    return torch.maximum(N.abs(), D.abs()) < math.inf


def _all_of_row(entries: Tensor) -> Tensor:
    return entries.all(-1, keepdim=True) if entries.ndim > 1 else entries


def _state(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor) -> _State:
    m, Y_m = torch.maximum(N.abs(), D.abs()), torch.maximum(Y_n.abs(), Y_d.abs())
    tiny = torch.finfo(m.dtype).tiny
    unit, Y_unit = 1 / m.clamp_min(tiny), 1 / Y_m.clamp_min(tiny)
    outputs = _all_of_row(m < math.inf)
    rows = outputs & _all_of_row(Y_m < math.inf)
    n, d, y_n, y_d = N * unit, D * unit, Y_n * Y_unit, Y_d * Y_unit
    sound = rows & (m > 0) & (Y_m > 0)
    return _State(n, d, y_n, y_d, unit, Y_unit, outputs, rows, sound, n * y_d - d * y_n)


def _size(s: _State, recipe: Recipe) -> Tensor:
    limits = torch.finfo(s.n.dtype)
    root = (s.unit * math.sqrt(recipe.gamma) * s.Y_unit).clamp_max(math.sqrt(limits.max) / 2)
    size = (s.d * s.y_d).square() + (s.n * s.y_n).square() + root.square()
    return size.clamp_min(4 * limits.tiny)


def _squares(s: _State) -> tuple[Tensor, Tensor, Tensor]:
    """Return the squared lengths of the two tuples, and their product."""
    return (
        s.n.square() + s.d.square(),
        s.y_n.square() + s.y_d.square(),
        s.n * s.y_n + s.d * s.y_d,
    )


def _fit(s: _State, recipe: Recipe) -> Tensor:
    if recipe.normalizer == "detached":
        return s.difference.square() / _size(s, recipe)
    square, Y_square, _ = _squares(s)
    return torch.where(s.sound, s.difference.square() / (square * Y_square), 1).clamp(max=1)


def _fit_slopes(s: _State, recipe: Recipe, factor: Tensor) -> tuple[Tensor, Tensor]:
    if recipe.normalizer == "detached":
        steep = s.difference / _size(s, recipe) * s.unit * (2 * factor)
        return steep * s.y_d, -steep * s.y_n
    square, Y_square, along = _squares(s)
    steep = s.difference * along / (square.square() * Y_square) * s.unit * (2 * factor)
    return steep * s.d, -steep * s.n


def _turned(s: _State, recipe: Recipe) -> Tensor:
    """Return the losses of the sign."""
    if recipe.sign_variant == "angle":
        return _angle(s).square() / 2
    square, Y_square, along = _squares(s)
    lengths = (square * Y_square).sqrt()
    # 1 - cos = sin² / (1 + cos), which keeps its digits where the cosine is near 1
    ahead = along > 0
    over = torch.where(ahead, s.difference.square(), lengths - along)
    return torch.where(s.sound, over / torch.where(ahead, lengths * (lengths + along), lengths), 1)


def _angle(s: _State) -> Tensor:
    along = s.n * s.y_n + s.d * s.y_d
    return torch.atan2(torch.where(s.sound, s.difference, 1), torch.where(s.sound, along, 0))


def _turned_slopes(s: _State, recipe: Recipe, factor: Tensor) -> tuple[Tensor, Tensor]:
    square, Y_square, _ = _squares(s)
    if recipe.sign_variant == "angle":
        turn = _angle(s) / square
    else:
        turn = s.difference / ((square * Y_square).sqrt() * square)
    turn = turn * s.unit * factor
    return turn * s.d, -turn * s.n


def _singular(s: _State, Y_d: Tensor, mask: Tensor | None, recipe: Recipe) -> Tensor:
    """Return the weight of every entry in the loss of the sign, 0 or 1."""
    counts = (s.rows & (Y_d.abs() < recipe.tau_sing)).to(Y_d.dtype)
    return counts if mask is None else counts * mask.to(Y_d.dtype)


def _score(s: _State, D: Tensor, recipe: Recipe) -> Tensor:
    if recipe.score == "denominator":
        return D.abs().expand(s.n.shape)
    square = (s.n / recipe.scale).square() + s.d.square()
    return s.d.abs() / torch.where(square == 0, 1, square).sqrt()


def _score_slopes(
    s: _State, D: Tensor, recipe: Recipe, slope: Tensor, *, kinked: bool = False
) -> tuple[Tensor | None, Tensor]:
    """Return `slope` times the derivative of the score by N and D; that of D → 0+ at D = 0."""
    side = D.sign() if kinked else torch.where(D < 0, -1.0, 1.0)
    if recipe.score == "denominator":
        return None, slope * side
    ratio = s.n / recipe.scale
    square = ratio.square() + s.d.square()
    origin = square == 0
    common = slope * side * ratio / torch.where(origin, 1, square * square.sqrt()) * s.unit
    at_origin = slope * math.sqrt(recipe.scale)
    return -common * s.d / recipe.scale, torch.where(origin, at_origin, common * ratio)


def _gap(score: Tensor, recipe: Recipe) -> Tensor:
    return (1 - score / recipe.tau if recipe.relative else recipe.tau - score).relu()


def _grown(score: Tensor, recipe: Recipe) -> Tensor:
    """Return exp((s - τ) / T), of which the soft coverage is made."""
    x = ((score - recipe.tau) * (math.log2(math.e) / recipe.temperature)).clamp(-115, 115)
    if x.dtype != torch.float32:
        return x.exp2()
    # the compiler's exp is a call per vector: written out it takes half of the time
    k = x.round()
    rest = x - k
    series = rest * _POWERS[6] + _POWERS[5]
    for power in _POWERS[4::-1]:
        series = series * rest + power
    return series * ((k + 127) * 2**23).to(torch.int32).view(torch.float32)  # 2^k by its bits
