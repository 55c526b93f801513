"""The combined loss for the compiler: one graph of elementwise steps and sums in each direction.

From the plain losses autograd would record three policy gates, each with its gradients written out,
and keep what lies between. Here the derivatives are written out, the policy is read once, and
backward starts from the four tensors again. What is not finite is left out at the end, by a
selection: there is no autograd behind it which could take a nan along.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import row_length
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
    """Tuples divided by their size, and what the parts share."""

    n: Tensor
    d: Tensor
    y_n: Tensor
    y_d: Tensor
    unit: Tensor  # 1 / the size of (N, D)
    Y_unit: Tensor
    entries: Tensor  # where outputs are finite
    outputs: Tensor  # rows with finite outputs
    rows: Tensor  # 1 for those with finite targets too, else 0: a loop stores bools slowly
    sound: Tensor  # entries of them where neither tuple is ⟨0, 0⟩
    difference: Tensor  # N·Y_d - D·Y_n of the divided ones
    along: Tensor  # N·Y_n + D·Y_d of the divided ones
    square: Tensor  # the squared length of (n, d)
    squares: Tensor  # the product of both squared lengths


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
        flat = _is_flat(N, D, Y_d, mask)
        if flat:
            N, D, Y_n, Y_d = (_in_rows(x) for x in (N, D, Y_n, Y_d))
            mask = None if mask is None else _in_rows(mask)
            if D.ndim > 1:  # a factor for each row keeps the loop over rows apart from that within
                D = D * torch.where(D[:, :1] > 0, 1.0, 1.0)
        s = _state(N, D, Y_n, Y_d, flat)
        fitted = _sum(s.rows.expand(N.shape)).clamp_min(1)
        # shares first: a sum of large losses may overflow where their mean does not
        many = max(N.numel(), 1)
        total = _summed(_fit(s, recipe) * (1 / many), s.rows > 0) * (many / fitted)
        held, singular, lacking = (torch.zeros_like(total) for _ in range(3))
        score = _score(s, D, recipe)
        if recipe.margin:
            held = _counted(s.outputs, N)
            margin = _summed(_gap(score, recipe).square(), s.outputs) / held
            total = total + weights.margin * margin
        if recipe.sign:
            counts = _singular(s, Y_d, mask, recipe).expand(N.shape)
            singular = _sum(counts).clamp_min(1)
            # a number in place of a truth value: next to the latter no sum is made by vectors
            turned = _sum(torch.where(s.rows > 0, _turned(s, recipe), 0) * counts)
            total = total + weights.sign * (turned / singular)
        if recipe.coverage:
            grown = _grown(score, recipe)
            covered = _summed(grown / (1 + grown), s.entries) / max(N.numel(), 1)
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
        s = _state(N, D, Y_n, Y_d, _is_flat(N, D, Y_d, mask))
        out = _Gradients(N, D, ruling.bound)
        slopes = [_fit_slopes(s, recipe, gated / fitted)]
        if recipe.sign:
            counts = _singular(s, Y_d, mask, recipe)
            slopes.append(_turned_slopes(s, recipe, gated * weights.sign / singular * counts))
        out.add(slopes, s.sound)
        score, free = _score(s, D, recipe), []
        if recipe.coverage:
            share = g * lacking * (-2 * weights.rejection / N.numel() / recipe.temperature)
            free = [_score_slopes(s, D, recipe, _covered_slope(score, recipe) * share)]
        if recipe.margin:
            slope = _gap(score, recipe) * (gated / held * (-2 * weights.margin))
            slope = slope / recipe.tau if recipe.relative else slope
            kept = s.outputs
            if recipe.score == "denominator" and not recipe.relative:
                slope = torch.where(D == 0, 0, slope)  # a kink; ⟨0, 0⟩ lies there too
            else:
                kept = kept & ~(out.bottom(N, D) & ruling.masked)
            joined = free if kept is s.entries else []
            out.add([_score_slopes(s, D, recipe, slope)], kept, joined)
            free = [] if joined else free
        if free:
            out.add([], s.entries, free)
        return (*out.found(), None, None, None, None, None)


Slopes = tuple[Tensor | None, Tensor]  # by N and D


class _Gradients:
    """Gradients of several parts, each bounded, added up in the shapes of N and D."""

    def __init__(self, N: Tensor, D: Tensor, bound: Tensor) -> None:
        self._shared = D.shape != N.shape
        # infinite parts of opposite signs would add up to nan
        self._end = torch.finfo(N.dtype).max / 2
        self._bound = bound.to(N.dtype).clamp(max=self._end)
        self._N, self._D = torch.zeros_like(N), torch.zeros_like(D)

    def bottom(self, N: Tensor, D: Tensor) -> Tensor:
        """Return where outputs are ⟨0, 0⟩: where all are, that share a denominator."""
        origin = (N == 0) & (D == 0)
        return origin.all(-1, keepdim=True) if self._shared else origin

    def add(self, slopes: Sequence[Slopes], kept: Tensor, free: Sequence[Slopes] = ()) -> None:
        """Add what some parts contribute where they count, those in `free` without a bound."""
        parts = [(self._bounded, x) for x in slopes] + [(_unbounded, x) for x in free]
        for_N = [bounded(g_N) for bounded, (g_N, _) in parts if g_N is not None]
        if for_N:
            self._N = self._N + torch.where(kept, sum(for_N[1:], for_N[0]), 0)
        if self._shared:  # the bound holds for the sum
            for bounded, (_, g_D) in parts:
                wide = torch.where(kept, g_D, 0).expand(self._N.shape)
                wide = _within(wide, self._end / wide.shape[-1])
                self._D = self._D + bounded(wide.sum(-1, keepdim=True))
        else:
            for_D = [bounded(g_D) for bounded, (_, g_D) in parts]
            self._D = self._D + torch.where(kept, sum(for_D[1:], for_D[0]), 0)

    def _bounded(self, gradient: Tensor) -> Tensor:
        return _within(gradient, self._bound)

    def found(self) -> tuple[Tensor, Tensor]:
        """Return dL/dN and dL/dD."""
        return self._N, self._D


def _within(gradient: Tensor, bound: Tensor | float) -> Tensor:
    # two selections: minimum and maximum look for nan, in twice as many instructions
    gradient = torch.where(gradient > bound, bound, gradient)
    return torch.where(gradient < -bound, -bound, gradient)


def _unbounded(gradient: Tensor) -> Tensor:
    return gradient


def _is_flat(N: Tensor, D: Tensor, Y_d: Tensor, mask: Tensor | None) -> bool:
    """Tell whether every entry is a row of its own."""
    single = N.ndim == 1 or N.shape[-1] == 1
    return single and all(x is None or x.shape == N.shape for x in (D, Y_d, mask))


def _in_rows(x: Tensor) -> Tensor:
    row = row_length(x.numel())
    return x.reshape(-1) if row is None else x.reshape(-1, row)


def _sum(x: Tensor) -> Tensor:
    return x.sum(-1).sum() if x.ndim > 1 else x.sum()


def _summed(losses: Tensor, counts: Tensor) -> Tensor:
    """Return the sum of the losses that count."""
    return _sum(torch.where(counts, losses, 0))


def _counted(counts: Tensor, like: Tensor) -> Tensor:
    """Return how many count, at least 1."""
    ones = torch.where(counts, 1.0, 0.0).to(like.dtype)
    return _sum(ones.expand(like.shape)).clamp_min(1)


def _state(N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, flat: bool) -> _State:
    # a quarter of the sum: a maximum takes four instructions, as it looks for nan, and the two
    # sizes added up are infinite only where a number is
    m, Y_m = N.abs() * 0.25 + D.abs() * 0.25, Y_n.abs() * 0.25 + Y_d.abs() * 0.25
    tiny = torch.finfo(m.dtype).tiny
    unit, Y_unit = 1 / (m + tiny), 1 / (Y_m + tiny)
    entries, rows = m < math.inf, m + Y_m < math.inf
    outputs = entries
    if not flat and N.ndim > 1:
        outputs, rows = outputs.all(-1, keepdim=True), rows.all(-1, keepdim=True)
    rows = torch.where(rows, 1.0, 0.0).to(m.dtype)
    n, d, y_n, y_d = N * unit, D * unit, Y_n * Y_unit, Y_d * Y_unit
    square = n.square() + d.square()
    squares = square * (y_n.square() + y_d.square())
    return _State(
        n=n,
        d=d,
        y_n=y_n,
        y_d=y_d,
        unit=unit,
        Y_unit=Y_unit,
        entries=entries,
        outputs=outputs,
        rows=rows,
        sound=(rows > 0) & (squares > 0),
        difference=n * y_d - d * y_n,
        along=n * y_n + d * y_d,
        square=square,
        squares=squares,
    )


def _size(s: _State, recipe: Recipe) -> Tensor:
    root = s.unit * math.sqrt(recipe.gamma) * s.Y_unit
    size = (s.d * s.y_d).square() + (s.n * s.y_n).square() + root.square()
    # so small only where each tuple has a 0, and a 4 here where the plain loss has a 1: its bound
    least = 4 * torch.finfo(size.dtype).tiny * 4.0**4
    return torch.where(size < least, least, size)


def _fit(s: _State, recipe: Recipe) -> Tensor:
    if recipe.normalizer == "detached":
        return s.difference.square() / _size(s, recipe)
    return torch.where(s.sound, s.difference.square() / s.squares, 1).clamp(max=1)


def _fit_slopes(s: _State, recipe: Recipe, factor: Tensor) -> tuple[Tensor, Tensor]:
    if recipe.normalizer == "detached":
        steep = s.difference / _size(s, recipe) * (2 * factor)
        return _undivided(s, steep * s.y_d, -steep * s.y_n)
    steep = s.difference * s.along / (s.squares * s.square) * (2 * factor)
    return _undivided(s, steep * s.d, -steep * s.n)


def _undivided(s: _State, by_n: Tensor, by_d: Tensor) -> tuple[Tensor, Tensor]:
    """Return derivatives by N and D; this product alone may overflow, where no 0 is ahead."""
    return by_n * s.unit, by_d * s.unit


def _turned(s: _State, recipe: Recipe) -> Tensor:
    """Return the losses of the sign."""
    if recipe.sign_variant == "angle":
        return _angle(s).square() / 2
    lengths = s.squares.sqrt()
    # 1 - |cos| = sin² / (1 + |cos|), which keeps its digits where the cosine is near 1
    turned = s.difference.square() / (lengths * (lengths + s.along.abs()))
    return torch.where(s.sound, torch.where(s.along < 0, 2 - turned, turned), 1)


def _angle(s: _State) -> Tensor:
    return torch.atan2(torch.where(s.sound, s.difference, 1), torch.where(s.sound, s.along, 0))


def _turned_slopes(s: _State, recipe: Recipe, factor: Tensor) -> tuple[Tensor, Tensor]:
    if recipe.sign_variant == "angle":
        turn = _angle(s) / s.square
    else:
        turn = s.difference / (s.squares.sqrt() * s.square)
    turn = turn * factor
    return _undivided(s, turn * s.d, -turn * s.n)


def _singular(s: _State, Y_d: Tensor, mask: Tensor | None, recipe: Recipe) -> Tensor:
    """Return the weight of every entry in the loss of the sign, 0 or 1."""
    near = torch.where(Y_d.abs() < recipe.tau_sing, 1.0, 0.0).to(Y_d.dtype)
    counts = near * s.rows
    return counts if mask is None else counts * mask.to(Y_d.dtype)


def _score(s: _State, D: Tensor, recipe: Recipe) -> Tensor:
    if recipe.score == "denominator":
        return D.abs().expand(s.n.shape)
    _, d, square = _in_units(s, recipe)
    return d.abs() / torch.where(square == 0, 1, square).sqrt()


def _in_units(s: _State, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """Return N and D in units of the scale, which they share for its square, and their square."""
    root = math.sqrt(recipe.scale)
    n, d = s.n * (1 / root), s.d * root
    return n, d, n.square() + d.square()


def _score_slopes(
    s: _State, D: Tensor, recipe: Recipe, slope: Tensor
) -> tuple[Tensor | None, Tensor]:
    """Return `slope` times the derivative of the score by N and D; that of D → 0+ at D = 0."""
    side = torch.where(D < 0, -1.0, 1.0)
    if recipe.score == "denominator":
        return None, slope * side
    n, d, square = _in_units(s, recipe)
    root = math.sqrt(recipe.scale)
    origin = square == 0
    inverse = 1 / torch.where(origin, 1, square).sqrt()
    sine = n * inverse
    common = slope * side * sine * inverse
    by_N, by_D = _undivided(s, -common * (d * inverse) * (1 / root), common * sine * root)
    return by_N, torch.where(origin, slope * root, by_D)


def _gap(score: Tensor, recipe: Recipe) -> Tensor:
    return (1 - score / recipe.tau if recipe.relative else recipe.tau - score).relu()


def _covered_slope(score: Tensor, recipe: Recipe) -> Tensor:
    grown = _grown(score, recipe)
    rest = 1 / (1 + grown)
    # the exponential saturates; and a subnormal number takes a processor a hundred cycles
    return torch.where(grown < 2.0**100, grown * rest * rest, 0)


def _grown(score: Tensor, recipe: Recipe) -> Tensor:
    """Return exp((s - τ) / T), of which the soft coverage is made."""
    x = (score - recipe.tau) * (math.log2(math.e) / recipe.temperature)
    if x.dtype != torch.float32:
        return x.clamp(-115, 115).exp2()
    # the compiler's exp is a call per vector: written out it takes half of the time
    x = x.clamp(max=115)
    k = x.round()
    rest = x - k
    series = rest * _POWERS[6] + _POWERS[5]
    for power in _POWERS[4::-1]:
        series = series * rest + power
    # 2^k by its bits; a relu takes one instruction, a clamp that minds nan takes four
    return series * ((k + 127).relu() * 2**23).to(torch.int32).view(torch.float32)
