"""Losses of tuples and their gradients: what counts, which machine, and where policies act.

| machine | for | gradients by |
|---|---|---|
| loops | float32 on a CPU in eager mode, where Numba is | slopes |
| torch in chunks | float64, or without Numba, there | slopes |
| a graph | `torch.compile` of the combined loss | slopes |
| autograd | everything else | values |

Else are: accelerators, complex numbers, single losses in a graph, transforms, targets or weights
that learn, derivatives of derivatives, losses of single entries, and the separation.

All but a graph compute in float64, whose range holds the fourth power of any float32, and round
once. A graph computes in the type that came; sums and "attached" are in float64 there too.
The policy in force bounds what each part of a loss contributes to dL/dN and dL/dD, by itself; what
the coverage contributes is free of it.

A row is one index of the leading batch dimensions: all k outputs of `(*batch, k)`, one element of
`(n,)`. A row with a number that is not finite counts as nothing, so that it spoils neither a mean
nor a gradient.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

import zeroproof.losses.formulas as F  # noqa: N812 - as torch names its own
from zeroproof._checks import one_of, pair_shapes, same_shape
from zeroproof.autodiff.policies import Ruling, gate, gating, governing, rule, scope_of
from zeroproof.errors import RangeError, ShapeError
from zeroproof.native import is_forward_mode, loops_for, ordinary

__all__ = [
    "APART",
    "FITS",
    "PARTS",
    "Counting",
    "LossRecipe",
    "Parts",
    "Terms",
    "combined",
    "covered",
    "finite_rows",
    "loss_type",
    "mean",
    "mixed_rows",
    "parts",
    "single",
    "terms",
    "weighted",
]

Tuples = tuple[Tensor, Tensor, Tensor, Tensor]  # N, D, Y_n, Y_d
FITS = ("detached", "attached", "chordal", "oriented")
PARTS = ("fit", "margin", "sign", "coverage")
APART = ("separation_finite", "separation_singular")  # of one λ, each a mean of its own
CHUNK = 16_384  # entries whose float64 work space stays in the second cache
SATURATED = 40  # a coverage of σ(40) is 1

# --- what counts, how much, and how it becomes one number -----------------------------------------


class Counting(TypedDict, total=False):
    """What every loss of tuples takes by keyword, beside its own options."""

    weight: Tensor | None
    mask: Tensor | None
    reduction: str


class Terms(NamedTuple):
    """Losses entry by entry, finite everywhere, and their weights: 0 where one does not count.

    Weights may be of a wider type: a number such as 1e-60 would be 0 in that of the losses.
    """

    values: Tensor
    weights: Tensor


class Parts(NamedTuple):
    """Sum and summed weight of a loss.

    Parts of several batches or ranks add up; the sum divided by the weight is their true mean.
    """

    total: Tensor
    weight: Tensor


def finite_rows(*tensors: Tensor) -> Tensor:
    """Tell which rows are finite in every tensor: `(*batch, 1)`, or `(n,)` for vectors."""
    finite = tensors[0].detach().abs() < math.inf  # false for nan
    for x in tensors[1:]:
        finite = finite & (x.detach().abs() < math.inf)
    return finite.all(-1, keepdim=True) if finite.ndim > 1 else finite


def mixed_rows(Y_d: Tensor, D: Tensor, weight: Tensor | None = None) -> Tensor:
    """Tell which rows, `(*batch,)`, ask one shared denominator to be 0 and not to be 0.

    Such a row has finite and singular targets, Y_d `(*batch, k)`, for one D, `(*batch, 1)`; it
    needs `shared_denominator=False`. A label whose weight is not above 0 asks for nothing.

    Examples:
        >>> Y_d = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        >>> mixed_rows(Y_d, torch.ones(3, 1))
        tensor([ True, False, False])
    """
    if D.shape == Y_d.shape:
        return torch.zeros(Y_d.shape[:-1], dtype=torch.bool, device=Y_d.device)
    counts = torch.ones_like(Y_d, dtype=torch.bool) if weight is None else weight > 0
    return ((Y_d == 0) & counts).any(-1) & ((Y_d != 0) & counts).any(-1)


def weighted(
    values: Tensor, counts: Tensor, weight: Tensor | None = None, mask: Tensor | None = None
) -> Terms:
    """Join losses with the weights of the entries that count.

    Raises:
        ShapeError: A weight or mask has neither the shape of the values nor one entry per row.
        RangeError: A mask is not boolean, or a weight is complex.
    """
    if mask is not None:
        counts = counts & _checked_mask(mask, values)
    if weight is None:
        return Terms(values, counts.expand(values.shape).to(values.dtype))
    _fits(weight, values, "weight")
    if weight.is_complex():
        raise RangeError(f"weight must be real, got {weight.dtype}")
    weight = weight.to(torch.promote_types(weight.dtype, values.dtype))
    counts = counts & torch.isfinite(weight) & (weight >= 0)
    return Terms(values, torch.where(counts, weight, 0).expand(values.shape))


def _checked_mask(mask: Tensor, values: Tensor) -> Tensor:
    """Return a mask that belongs to losses.

    Raises:
        ShapeError: It has neither their shape nor one entry per row.
        RangeError: It is not boolean.
    """
    _fits(mask, values, "mask")
    if mask.dtype != torch.bool:
        raise RangeError(f"mask must be boolean, True where an entry counts, got {mask.dtype}")
    return mask


def _belongs(x: Tensor, values: Tensor) -> bool:
    """Tell whether a tensor has the shape of losses, or one entry per row."""
    # number by number: the compiler takes a size it knows and one it does not for different shapes
    sizes = list(zip(x.shape, values.shape, strict=False))
    alike = x.ndim == values.ndim and all(p == q for p, q in sizes[:-1])
    return alike and all(p == q or (p == 1 and x.ndim > 1) for p, q in sizes[-1:])


def _fits(x: Tensor, values: Tensor, name: str) -> None:
    if not _belongs(x, values):
        rows = (*values.shape[:-1], 1) if values.ndim > 1 else values.shape
        raise ShapeError(
            f"{name} must have the shape of the loss, {tuple(values.shape)}, or one entry per row, "
            f"{tuple(rows)}, got {tuple(x.shape)}"
        )


def mean(terms: Terms) -> Tensor:
    """Return Σ w·l / Σ w; a 0 that is still connected to the graph where nothing counts."""
    values, weights = terms
    if not weights.numel():
        return (values * weights).sum().to(values.dtype)
    # by the largest first: a sum of large weights may overflow, and one of small ones underflow
    largest = weights.detach().amax()
    weights = weights / torch.where(largest > 0, largest, 1)
    total = weights.sum()
    # shares first: a sum of large losses may overflow where their mean does not
    shares = weights / torch.where(total > 0, total, 1)
    return (values * shares.to(values.dtype)).sum()


def parts(terms: Terms) -> Parts:
    """Return Σ w·l and Σ w, for means over several batches or ranks."""
    return Parts((terms.values * terms.weights).sum(), terms.weights.sum())


def _reduced(
    values: Tensor,
    counts: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Reduce losses as `torch.nn` names it; `"none"` keeps the shape, 0 where one does not count.

    Raises:
        ShapeError: A weight or mask of another shape.
        RangeError: An unknown reduction, a mask that is not boolean, or a complex weight.
    """
    one_of(reduction, ("mean", "sum", "none"), "reduction")
    terms = weighted(values, counts, weight, mask)
    if reduction == "mean":
        return mean(terms)
    losses = (terms.values * terms.weights).to(values.dtype)
    return losses.sum() if reduction == "sum" else losses


# --- entries of unit size -------------------------------------------------------------------------


class LossRecipe(NamedTuple):
    """Which parts make a loss, and their options, named as in `SCMTrainingLoss`."""

    factors: tuple[float, float, float, float]  # λ of fit, margin, sign, rejection; 0: left out
    fit: str = "detached"
    gamma: float = 0.0
    tau: float = 1.0
    relative: bool = False
    score: str = "denominator"
    scale: float = 1.0
    temperature: float = 1.0
    tau_sing: float = 1.0
    sign_variant: str = "cosine"
    turned: bool = False
    separation: float = 0.0
    target_coverage: float = 0.0
    masks: bool = True  # whether ⟨0, 0⟩ is ⊥ to the policy
    unit: float | None = None  # what the weights of a sum were divided by; None: a mean
    fixed: int = -1  # policy code registered on what made the tuples; -1 follows the context

    @property
    def kink(self) -> bool:
        """Whether the margin is the guide's, whose derivative at D = 0 is 0."""
        return not (self.relative or self.score == "angle")

    def options(self, wide: torch.dtype, out: torch.dtype) -> F.Options:
        """Return the options of the formulas, for numbers of one type and a loss of another."""
        fit, limits = FITS.index(self.fit), torch.finfo(out)
        # steep where a tuple has a 0: E / (S + γ) stays in the range of the loss; "attached", whose
        # slope is by S too, in that of float64, and the loss is bounded last
        least = 4 * torch.finfo(wide if fit == F.ATTACHED else out).tiny
        return F.Options(
            fit=fit,
            angle_score=self.score == "angle",
            angle_sign=self.sign_variant == "angle",
            relative=self.relative,
            to_side=self.turned,
            tau=min(max(self.tau, limits.tiny), limits.max),  # 0 and ∞ in float32 may be numbers
            root_scale=math.sqrt(self.scale),
            temperature=self.temperature,
            least=least,
            largest=limits.max / 4,
        )


class Entries(NamedTuple):
    """Tuples of unit size, and how much every entry counts: 0 where it does not."""

    n: Tensor
    d: Tensor
    a: Tensor
    b: Tensor
    root: Tensor  # √γ in the units of both
    D: Tensor
    m: Tensor
    fits: Tensor  # in rows with finite tuples
    held: Tensor  # there, with a finite target
    singular: Tensor  # there, with a singular one whose sign is known
    asked: Tensor  # with a finite target, whatever the outputs are
    entry: Tensor  # there, with finite outputs

    def some(self, where: Tensor) -> "tuple[Tensor | None, Entries]":
        """Return (indices, entries) of those that feel a part: all of them in a graph."""
        if torch.compiler.is_compiling():
            return None, self
        at = where.reshape(-1).nonzero().squeeze(1)
        return at, Entries(*(x.expand_as(self.n).reshape(-1)[at] for x in self))


def entries(
    x: Tuples,
    known: Tensor | None,
    weight: Tensor | None,
    r: LossRecipe,
    wide: torch.dtype = torch.float64,
) -> Entries:
    """Leave out what is not finite, before anything mixes, and bring the rest to unit size."""
    N, D, Y_n, Y_d = x
    here = (N.detach().abs() < math.inf) & (D.detach().abs() < math.inf)
    there = (Y_n.detach().abs() < math.inf) & (Y_d.detach().abs() < math.inf)
    # a target is finite if Y_d is not 0: ⟨1, 1e-9⟩ is the number 1e9, which a model shall answer
    fits, asked = _rows(here & there).expand_as(N), there & (Y_d.detach() != 0)
    near = (Y_d.detach().abs() < r.tau_sing) & fits  # compared in its own type
    if known is not None:
        near = near & known
    N, D = (torch.where(here, _widened(z, wide), 1.0) for z in (N, D))
    Y_n, Y_d = (torch.where(there, _widened(z, wide), 1.0) for z in (Y_n, Y_d))
    m, M = (torch.maximum(p.detach().abs(), q.detach().abs()) for p, q in ((N, D), (Y_n, Y_d)))
    m, M = torch.where(m > 0, m, 1.0), torch.where(M > 0, M, 1.0)
    n, d, a, b = N / m, D / m, Y_n / M, Y_d / M
    root = math.sqrt(r.gamma) / m / M
    if r.fit == "oriented" and known is not None:  # either sign will do where none is known
        other_side = ~known & (F.real_dot(F.sg(n), a, F.sg(d), b) < 0)
        turn = torch.where(other_side, -1.0, 1.0).to(m.dtype)
        a, b = a * turn, b * turn
    counts = (fits, fits & asked, near, asked, asked & here)
    counts = [c.expand_as(n).to(m.dtype) for c in counts]
    if weight is not None:
        counts = [c * weight for c in counts]
    return Entries(n, d, a, b, root, D, m, *counts)


def _rows(ok: Tensor) -> Tensor:
    return ok.all(-1, keepdim=True) if ok.ndim > 1 and ok.shape[-1] != 1 else ok


def loss_type(*tensors: Tensor) -> torch.dtype:
    """Return the type of a loss of tuples."""
    double = any(x.dtype in (torch.float64, torch.complex128) for x in tensors)
    return torch.float64 if double else torch.float32


class _Widen(torch.autograd.Function):
    """A cast whose gradient saturates where the narrow type has no number for it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, wide: torch.dtype) -> Tensor:
        return x.to(wide)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        end = torch.finfo(ctx.dtype).max
        if g.is_complex():
            g = torch.complex(g.real.clamp(-end, end), g.imag.clamp(-end, end))
        else:
            g = g.clamp(-end, end)
        return g.to(ctx.dtype), None


def _widened(x: Tensor, wide: torch.dtype = torch.float64) -> Tensor:
    if x.device.type == "mps":  # Apple's GPUs have no float64: there the range is that of float32
        wide = torch.float32
    if x.is_complex():
        wide = torch.complex64 if wide == torch.float32 else torch.complex128
    if x.dtype == wide or is_forward_mode() or not gating(x):
        return x.to(wide)
    return _Widen.apply(x, wide)


# --- values: what autograd differentiates ---------------------------------------------------------


def terms(x: Tuples, known: Tensor | None, r: LossRecipe) -> dict[str, tuple[Tensor, Tensor]]:
    """Return (loss of every entry, entries that count) of every part, each behind its own gate.

    Raises:
        ShapeError: The shapes do not belong together; nothing is broadcast but a shared
            denominator.
        RangeError: An angle between complex tuples.
    """
    N, D, Y_n, Y_d = x
    r = _governed(r, x)
    pair_shapes(N, D)
    pair_shapes(Y_n, Y_d, "Y_n and Y_d")
    same_shape(Y_n, N, "Y_n", "N")
    if r.factors[2] and r.sign_variant == "angle" and any(z.is_complex() for z in x):
        raise RangeError("variant must be 'cosine' for complex tuples, got 'angle'")
    known = None if known is None else _checked_mask(known, N)
    turns = known if r.fit == "oriented" else None
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for part, factor in zip(PARTS, r.factors, strict=True):
        if factor:
            gated = x if part == "coverage" else (*_gated(x, part, known, r), Y_n, Y_d)
            e = entries(gated, turns if part == "fit" else None, None, r)
            o = r.options(e.m.dtype, loss_type(*x))
            found[part] = _of_part(part, e, o, r.kink)
    if r.separation:
        e = entries((*_gated(x, "separation", None, r), Y_n, Y_d), None, None, r)
        o = r.options(e.m.dtype, loss_type(*x))._replace(angle_score=True)
        finite = e.held > 0
        apart = F.separation(F.score(e.n, e.d, e.D, o, False).expand_as(e.n), finite, o)
        found |= {APART[0]: (apart, finite), APART[1]: (apart, (e.fits > 0) & ~finite)}
    return found


def _gated(x: Tuples, part: str, known: Tensor | None, r: LossRecipe) -> tuple[Tensor, Tensor]:
    N, D, _, Y_d = each = [z.detach() for z in x]
    bad = ~_rows(torch.stack([(z.abs() < math.inf).expand_as(N) for z in each]).all(0))
    origin = (N == 0) & (D == 0)
    bottom = undefined = origin | bad if r.masks else bad
    if part == "sign":
        undefined = bad | (origin & _singular(Y_d, known, r))
    elif part in PARTS and not _angular(
        r._replace(factors=tuple(float(each == part) for each in PARTS))
    ):
        undefined = bad
    return gate(x[0], x[1], bottom, r.fixed, undefined.expand_as(N))


def _angular(r: LossRecipe) -> bool:
    """Tell whether fit or margin depend on the angle of (N, D) alone, which ⟨0, 0⟩ has not."""
    fit, margin, *_ = r.factors
    return bool(fit and r.fit in {"chordal", "oriented"}) or bool(margin and r.score == "angle")


def _singular(Y_d: Tensor, known: Tensor | None, r: LossRecipe) -> Tensor:
    near = Y_d.abs() < r.tau_sing
    return near if known is None else near & known


def _governed(r: LossRecipe, x: Tuples) -> LossRecipe:
    code = governing(*x[:2]) if r.fixed < 0 else -1
    return r if code < 0 else r._replace(fixed=code)


def _of_part(part: str, e: Entries, o: F.Options, kink: bool) -> tuple[Tensor, Tensor]:
    if part == "fit":
        return F.fit(*_fitted(e, o), o), e.fits > 0
    if part == "margin":
        return F.margin(F.score(e.n, e.d, e.D, o, kink).expand_as(e.n), o), e.held > 0
    if part == "sign":
        return F.sign(e.n, e.d, e.a, e.b, o), e.singular > 0
    # an output that is not finite counts, as not covered
    share = F.covered(F.score(e.n, e.d, e.D, o, False).expand_as(e.n), o) * e.entry
    return share, e.asked > 0


def covered(score: Tensor, r: LossRecipe) -> Tensor:
    """Return the mean soft coverage of scores; one that is not finite is not covered."""
    finite = score.detach().abs() < math.inf
    s = torch.where(finite, _widened(score), 0.0)
    shares = F.covered(s, r.options(s.dtype, score.dtype)) * finite
    return (shares.sum() / max(score.numel(), 1)).to(score.dtype)


def _fitted(e: Entries, o: F.Options) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return n, d, a, b and g, in float64 for a fit that may be steep."""
    n, d, a, b, root, *_ = e
    if o.fit == F.ATTACHED and root.dtype == torch.float32 and root.device.type != "mps":
        n, d, a, b, root = (x.double() for x in (n, d, a, b, root))
    return n, d, a, b, root * root


def joined(t: Sequence[Any], r: LossRecipe) -> tuple[Any, tuple[Any, ...]]:
    """Return the loss that sum and weight of the four parts make, and its slope by each sum."""
    if r.unit is None:
        shares = [_if(w > 0, 1 / _if(w > 0, w, 1.0), 0.0) for w in t[1::2]]
    else:
        shares = [r.unit] * 4
    fit, margin, sign, rejection = r.factors
    means = [total * share for total, share in zip(t[::2], shares, strict=True)]
    low = (t[7] > 0) & (means[3] < r.target_coverage)  # of nothing, nothing is lacking
    lacking = _if(low, r.target_coverage - means[3], 0.0)
    total = fit * means[0] + margin * means[1] + sign * means[2] + rejection * lacking * lacking
    slopes = (
        fit * shares[0],
        margin * shares[1],
        sign * shares[2],
        -2 * rejection * lacking * shares[3],
    )
    return total, slopes


def _if(condition: Any, x: Any, y: Any) -> Any:
    if isinstance(condition, Tensor):
        return torch.where(condition, x, y)
    return x if condition else y


# --- slopes: sums forward, gradients backward -----------------------------------------------------


def _sums(e: Entries, o: F.Options, r: LossRecipe) -> list[Any]:
    """Return sum and weight of the losses of the four parts; 0 where one is left out."""
    t: list[Any] = [0.0] * 8
    if r.factors[0]:
        t[:2] = _sum(e.fits, F.fit(*_fitted(e, o), o)), _sum(e.fits)
    if r.factors[1] or r.factors[3]:
        s = F.score(e.n, e.d, e.D, o, False).expand_as(e.n)
        if r.factors[1]:
            t[2:4] = _sum(e.held, F.margin(s, o)), _sum(e.held)
        if r.factors[3]:
            t[6:] = _sum(e.entry, F.covered(s, o)), _sum(e.asked)
    if r.factors[2]:
        _, f = e.some(e.singular > 0)
        t[4:6] = _sum(f.singular, F.sign(f.n, f.d, f.a, f.b, o)), _sum(f.singular)
    return t


def _sum(counts: Tensor, losses: Tensor | float = 1.0) -> Tensor:
    wide = torch.float32 if counts.device.type == "mps" else torch.float64
    return (counts * losses).sum(dtype=wide)  # all of them are finite


def _slopes(
    e: Entries, o: F.Options, r: LossRecipe, factors: Sequence[Any], ruling: Ruling, shared: bool
) -> tuple[Tensor, Tensor]:
    """Return dL/dN and dL/dD, of which each part is bounded by itself, in a shared D the sum."""
    g_N, g_D = torch.zeros_like(e.n), torch.zeros_like(e.n[..., :1] if shared else e.n)

    def add(k: int, f: Entries, at: Tensor | None, by: Any, unit: bool, counts: Tensor) -> None:
        nonlocal g_N, g_D
        parts = [(z * (counts * factors[k])).expand_as(f.n) for z in by]
        parts = [z / f.m for z in parts] if unit else parts  # last, since it may overflow
        if at is not None:  # back to their places
            parts = [torch.zeros_like(e.n).view(-1).index_copy_(0, at, z) for z in parts]
            parts = [z.view_as(e.n) for z in parts]
        if shared:
            parts[1] = parts[1].sum(-1, keepdim=True)
        if k < 3:
            parts = [_within(z, ruling.bound) for z in parts]
        g_N, g_D = g_N + parts[0], g_D + parts[1]

    if r.factors[0]:
        add(0, e, None, F.fit_slopes(*_fitted(e, o), o), True, e.fits)
    if r.factors[2]:
        at, f = e.some(e.singular > 0)
        if at is None or len(at):
            add(2, f, at, F.sign_slopes(f.n, f.d, f.a, f.b, o), True, f.singular)
    if not (r.factors[1] or r.factors[3]):
        return g_N, g_D
    s = F.score(e.n, e.d, e.D, o, False).expand_as(e.n)
    if r.factors[1]:
        held = e.held
        if not r.kink and r.masks:  # at D = 0 alone there is a slope, at ⟨0, 0⟩ a policy
            origin = (e.n == 0) & (e.d == 0)
            origin = origin.all(-1, keepdim=True) if shared else origin
            held = held * ~(origin & ruling.masked)
        at, f = e._replace(held=held).some(s < o.tau)
        if at is None or len(at):
            outer = F.margin_slope(F.score(f.n, f.d, f.D, o, False), o)
            by = [z * outer for z in F.score_slopes(f.n, f.d, f.D, o, r.kink)]
            add(1, f, at, by, o.angle_score, f.held)
    if r.factors[3]:
        at, f = e.some(s < o.tau + SATURATED * o.temperature)
        if at is None or len(at):
            outer = F.covered_slope(F.score(f.n, f.d, f.D, o, False), o)
            by = [z * outer for z in F.score_slopes(f.n, f.d, f.D, o, False)]
            add(3, f, at, by, o.angle_score, f.entry)
    return g_N, g_D


def _within(g: Tensor, bound: Any) -> Tensor:
    if isinstance(bound, Tensor):  # two selections: a clamp by tensors looks for nan
        g = torch.where(g > bound, bound.to(g.dtype), g)
        return torch.where(g < -bound, -bound.to(g.dtype), g)
    return g.clamp(-bound, bound) if bound < math.inf else g


def _narrowed(g: Tensor, like: Tensor) -> Tensor:
    end = torch.finfo(like.dtype).max
    return g.clamp(-end, end).to(like.dtype).view_as(like)


def _chunks(
    x: Tuples, known: Tensor | None, weight: Tensor | None, r: LossRecipe
) -> Iterator[Entries]:
    """Yield the entries of so many rows as stay in the cache."""
    N = x[0]
    if N.numel() <= CHUNK:
        yield entries(x, known, weight, r)
        return
    parts = [
        z if z is None or N.ndim < 2 else z.reshape(-1, z.shape[-1]) for z in (*x, known, weight)
    ]
    tall = max(1, CHUNK // (N.shape[-1] if N.ndim > 1 else 1))
    cut = [itertools.repeat(None) if z is None else z.split(tall) for z in parts]
    for n, d, y_n, y_d, knows, counts in zip(*cut, strict=False):
        yield entries((n, d, y_n, y_d), knows, counts, r)


class _Task(NamedTuple):
    """A loss, and how it is computed where none of the machines can take it."""

    recipe: LossRecipe
    plain: Callable[[Tensor, Tensor], Tensor]


class _Eager(torch.autograd.Function):
    # `setup_context` is left out: with it, torch inspects a signature at every call
    @staticmethod
    def forward(ctx: Any, task: _Task, loops: Any, *tensors: Any) -> Tensor:
        N, D, Y_n, Y_d, known, weight = tensors
        x, r = (N, D, Y_n, Y_d), task.recipe
        o = r.options(torch.float64, N.dtype)
        if loops is not None:
            found = loops.sums(x, known, weight, r, o)
        else:
            found = [0.0] * 8
            for e in _chunks(x, known, weight, r):
                t = _sums(e, o, r)
                found = [a + float(b) for a, b in zip(found, t, strict=True)]
        total, ctx.slopes = joined(found, r)
        ctx.task = task
        ctx.save_for_backward(*x, known, weight)
        if not abs(total) <= torch.finfo(N.dtype).max:  # a sum may overflow where its mean does not
            return task.plain(N, D).detach()
        return N.new_full((), total, dtype=torch.float64).to(N.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        N, D, Y_n, Y_d, known, weight = ctx.saved_tensors
        x = (N, D, Y_n, Y_d)
        r: LossRecipe = ctx.task.recipe
        # a gradient of gradients, or many at once, needs operations that autograd knows
        if torch.is_grad_enabled() or not ordinary(g):
            with scope_of(r.fixed) if r.fixed >= 0 else nullcontext():
                found = _recorded(ctx.task.plain, N, D, g)
        else:
            ruling, o = rule(g, r.fixed), r.options(torch.float64, N.dtype)
            factors = [slope * g.item() for slope in ctx.slopes]
            if ruling.closed:
                factors[:3] = 0.0, 0.0, 0.0
            loops = loops_for("losses.loops", *x)
            if loops is not None:
                found = loops.gradients(x, known, weight, r, o, factors, ruling)
            else:
                shared = D.shape != N.shape
                each = [
                    _slopes(e, o, r, factors, ruling, shared) for e in _chunks(x, known, weight, r)
                ]
                by_N, by_D = each[0] if len(each) == 1 else map(torch.cat, zip(*each, strict=True))
                found = _narrowed(by_N, N), _narrowed(by_D, D)
            if ruling.masked is False:
                found = tuple(_raw(found, x, known, r, ruling))
        wanted = zip(found, ctx.needs_input_grad[2:4], strict=True)
        return (None, None, *(z if want else None for z, want in wanted), *[None] * 4)


def _raw(
    found: Sequence[Tensor], x: Tuples, known: Tensor | None, r: LossRecipe, ruling: Ruling
) -> Iterator[Tensor]:
    """Return gradients that under PASSTHROUGH are nan in rows left out, and where 0 / 0 was.

    By what is 0 or nan, since a graph would keep a mask from forward to backward.
    """
    sizes = [z.detach().abs() for z in x]
    lost = sum((size - size for size in sizes[1:]), sizes[0] - sizes[0])
    if lost.ndim > 1:
        lost = lost.sum(-1, keepdim=True).expand_as(x[0])
    if _angular(r) or r.factors[2]:
        size = torch.maximum(sizes[0], sizes[1])  # a sum may overflow
        ratio = (size - size) / size
        lost = lost + (ratio if _angular(r) else torch.where(_singular(x[3], known, r), ratio, 0))
    if isinstance(ruling.masked, Tensor):
        lost = torch.where(ruling.masked, 0, lost)
    for g in found:
        own = lost if g.shape == lost.shape else lost.sum(-1, keepdim=True)
        yield g + own.to(g.dtype)


class _Graph(torch.autograd.Function):
    """The same for the compiler: one pass of elementwise steps and sums in each direction.

    From the values alone autograd would record three gates, and keep what lies between.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        N, D, Y_n, Y_d, known, weight, r = inputs
        e = entries((N, D, Y_n, Y_d), known, weight, r, N.dtype)
        t = _sums(e, r.options(torch.float64, N.dtype), r)
        total, slopes = joined([torch.as_tensor(z, device=N.device) for z in t], r)
        return total.to(N.dtype), torch.stack(slopes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.recipe = inputs
        ctx.save_for_backward(*tensors, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        N, D, Y_n, Y_d, known, weight, slopes = ctx.saved_tensors
        r = ctx.recipe
        ruling = rule(g, r.fixed)
        gated = torch.where(ruling.closed, 0, g)
        factors = [slope * (gated if k < 3 else g) for k, slope in enumerate(slopes.unbind())]
        e = entries((N, D, Y_n, Y_d), known, weight, r, N.dtype)
        o = r.options(torch.float64, N.dtype)
        found = _slopes(e, o, r, factors, ruling, D.shape != N.shape)
        found = tuple(_narrowed(z, like) for z, like in zip(found, (N, D), strict=True))
        return *_raw(found, (N, D, Y_n, Y_d), known, r, ruling), *[None] * 5


def _recorded(
    loss: Callable[[Tensor, Tensor], Tensor], N: Tensor, D: Tensor, g: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a loss by autograd of its values; `None` where none is wanted.

    They can be differentiated again where gradients are recorded. They are taken of aliases: N may
    depend on D, and both may have hooks, which autograd itself will mind.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases = N.view_as(N), D.view_as(D)
        value = loss(*aliases)
    inputs = [x for x in aliases if x.requires_grad]
    found = iter(torch.autograd.grad(value, inputs, g, create_graph=again, materialize_grads=True))
    return tuple(next(found) if x.requires_grad else None for x in aliases)


# --- which machine --------------------------------------------------------------------------------


def _alike(x: Tuples, known: Tensor | None) -> bool:
    """Tell whether types and shapes are those of one loss, whose targets do not learn."""
    N, _, Y_n, Y_d = x
    return (
        Y_n.shape == N.shape
        and all(z.dtype == N.dtype and _belongs(z, N) for z in x)
        and not (Y_n.requires_grad or Y_d.requires_grad)
        and (known is None or (known.dtype == torch.bool and _belongs(known, N)))
    )


def _plain_tensors(x: Tuples) -> bool:
    """Tell whether values may be looked at, and tensors kept for backward."""
    if not (ordinary(*x) and x[0].numel()):
        return False
    return not (torch.is_grad_enabled() and any(z.is_inference() for z in x))


def _usual(r: LossRecipe) -> bool:
    """Tell whether options leave room in the range of float32; those of a graph may be symbols."""
    if not (isinstance(r.tau, float) and 1e-15 <= r.tau <= 1e15 and 1e-15 <= r.temperature <= 1e15):
        return False
    return r.score == "denominator" or (1e-6 <= r.scale <= 1e6 and r.tau <= 1)


def combined(
    x: Tuples,
    known: Tensor | None,
    weight: Tensor | None,
    r: LossRecipe,
    plain: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return the loss of several parts; `plain` gives it by the values alone, or raises."""
    N, D, *_ = x
    r = _governed(r, x)
    if _alike(x, known):
        if torch.compiler.is_compiling():
            usual = not (torch.compiler.is_exporting() or N.is_complex()) and _usual(r)
            if usual and _fitting(weight, N):
                counts = None if weight is None else _counts(weight, None)[0].to(N.dtype)
                return _Graph.apply(*x, known, counts, r)[0]
        elif _plain_tensors(x) and _weighs(weight, N):
            loops = loops_for("losses.loops", *x)
            counts = None if weight is None else _counts(weight, None)[0]
            return _Eager.apply(_Task(r, plain), loops, *x, known, counts)
    return plain(N, D)


def single(part: str, x: Tuples, r: LossRecipe, counting: Counting) -> Tensor:
    """Return the loss of one part, weighted, masked and reduced as asked."""
    r = _governed(r, x)
    mask, weight = counting.get("mask"), counting.get("weight")
    reduction = counting.get("reduction", "mean")

    def plain(N: Tensor, D: Tensor) -> Tensor:
        values, counts = terms((N, D, *x[2:]), None, r)[part]
        return _reduced(values, counts, **counting).to(loss_type(*x))

    known = reduction in {"mean", "sum"} and set(counting) <= Counting.__annotations__.keys()
    if not (known and _alike(x, mask) and _plain_tensors(x) and _weighs(weight, x[0])):
        return plain(*x[:2])
    counts = None if mask is None else mask.double()
    unit = 1.0
    if weight is not None:
        counts, largest = _counts(weight, mask)
        unit = largest.item()
    task = _Task(r._replace(unit=unit if reduction == "sum" else None), plain)
    return _Eager.apply(task, loops_for("losses.loops", *x), *x, None, counts)


def _counts(weight: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return weights by the largest of them, so that sums stay in the range, and that one."""
    usable = torch.isfinite(weight) & (weight >= 0)
    usable = usable if mask is None else usable & mask
    counts = torch.where(usable, weight, 0)
    counts = counts if counts.device.type == "mps" else counts.double()
    largest = counts.amax()
    largest = torch.where(largest > 0, largest, 1)
    return counts / largest, largest


def _fitting(weight: Tensor | None, N: Tensor) -> bool:
    """Tell whether a weight is a constant of the shape of N, or of one entry per row."""
    if weight is None:
        return True
    fits = _belongs(weight, N) and weight.numel() > 0
    return fits and weight.is_floating_point() and not weight.requires_grad


def _weighs(weight: Tensor | None, N: Tensor) -> bool:
    """Tell whether it also is as plain as the tuples."""
    return _fitting(weight, N) and (weight is None or ordinary(weight.double()))
