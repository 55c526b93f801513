r"""The combined loss in one pass over its four tensors, which are all that backward needs.

Autograd would write every step of the formulas to memory, and read it again. Here both directions
go through the rows in chunks that stay in the cache, and the derivatives are written out. A chunk
with a row that does not count, a D of 0 or a number near an end of the range goes through the plain
losses; so does whatever wants more than a first derivative.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof.autodiff.eager import ordinary
from zeroproof.autodiff.gate import Ruling, rule
from zeroproof.losses._chunks import (
    Dense,
    Factors,
    Found,
    Recipe,
    Room,
    Sink,
    bounded,
    gradients,
    room,
    sums,
)
from zeroproof.losses._reduction import Terms
from zeroproof.losses._singular import sign_gradients, sign_sum
from zeroproof.native.door import native

__all__ = ["Plan", "Sums", "fused_total", "fusible", "recorded", "scalar"]


CHUNK = 65_536  # entries: inputs and work space fit into the shared cache
WORD = 8  # truth values in an integer of 64 bits
MANY = 1 << 18  # entries: with bad rows all over, no chunk would be sound
BLOCK = 1024  # from how many entries on reading by words pays


Tuples = tuple[Tensor, Tensor, Tensor, Tensor]


class Sums(NamedTuple):
    """Summed losses and weights of every part; 0 where a part is off."""

    fit: float
    fit_weight: float
    margin: float
    margin_weight: float
    sign: float
    sign_weight: float
    coverage: float
    coverage_weight: float


class Plan(NamedTuple):
    """A loss: its parts, and how they become one number.

    `plain` gives the terms of every part by the plain losses; `joined` turns sums into the total
    and its derivatives by the four sums; `whole` is the total by the plain losses.
    """

    recipe: Recipe
    plain: Callable[[Tuples, Tensor | None], dict[str, Terms]]
    joined: Callable[[Sums], tuple[float, tuple[float, float, float, float]]]
    whole: Callable[[Tuples, Tensor | None], Tensor]


def fusible(tuples: Tuples, mask: Tensor | None) -> bool:
    """Tell whether the one pass can stand in for the plain losses, errors included."""
    N, D, Y_n, Y_d = tuples
    shape = N.shape
    narrow = (*shape[:-1], 1) if len(shape) > 1 else shape
    if not ordinary(*tuples) or Y_n.requires_grad or Y_d.requires_grad:
        return False
    if Y_n.shape != shape or any(x.shape not in (shape, narrow) for x in (D, Y_d)):
        return False
    if torch.is_grad_enabled() and any(x.is_inference() for x in tuples):
        return False  # they cannot be kept for backward
    fits = mask is None or (mask.shape in (shape, narrow) and mask.dtype == torch.bool)
    return fits and N.numel() > 0


def fused_total(tuples: Tuples, mask: Tensor | None, plan: Plan) -> Tensor:
    """Return the total loss of tuples and options that are `fusible`."""
    kernels = native("losses", *tuples)
    if kernels is None and not _worthwhile(tuples, plan.recipe):
        return plan.whole(tuples, mask)
    if torch.is_grad_enabled() and (tuples[0].requires_grad or tuples[1].requires_grad):
        return _Fused.apply(*tuples, mask, plan, kernels)
    with torch.no_grad():
        total = _total(tuples, mask, plan, kernels)[0]
    return scalar(total, tuples[0])


def scalar(x: float, like: Tensor) -> Tensor:
    """Return a number as a tensor of the kind of another; beyond its range it is infinite."""
    return like.new_full((), x, dtype=torch.float64).to(like.dtype)


def _worthwhile(tuples: Tuples, recipe: Recipe) -> bool:
    if recipe.normalizer == "oriented":
        return False
    return tuples[0].numel() < MANY or all(math.isfinite(x.detach().sum().item()) for x in tuples)


class _Fused(torch.autograd.Function):
    # `setup_context` is left out: with it, torch inspects a signature at every call
    @staticmethod
    def forward(
        ctx: Any,
        N: Tensor,
        D: Tensor,
        Y_n: Tensor,
        Y_d: Tensor,
        mask: Tensor | None,
        plan: Plan,
        kernels: Any,
    ) -> Tensor:
        tuples = (N, D, Y_n, Y_d)
        total, ctx.slopes, ctx.kinds = _total(tuples, mask, plan, kernels)
        ctx.plan = plan
        ctx.save_for_backward(*tuples, mask)
        return scalar(total, N)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tuples, mask = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        N, D, *targets = tuples
        plan: Plan = ctx.plan
        kernels = native("losses", *tuples)
        quick = kernels is not None or plan.recipe.normalizer != "oriented"
        # a gradient of gradients, or many at once, needs operations that autograd knows
        if torch.is_grad_enabled() or not ordinary(g) or not quick:
            found = recorded(lambda N, D: plan.whole((N, D, *targets), mask), N, D, g)
        else:
            found = _backward(tuple(tuples), mask, ctx, g, kernels)
        needed = (x if want else None for x, want in zip(found, wanted, strict=True))
        return (*needed, None, None, None, None, None)


def recorded(
    loss: Callable[[Tensor, Tensor], Tensor], N: Tensor, D: Tensor, g: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a loss by plain operations; `None` where none is wanted.

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


class _Flat(NamedTuple):
    """The four tensors as vectors, one entry per row where outputs share a denominator."""

    N: Tensor
    D: Tensor
    Y_n: Tensor
    Y_d: Tensor
    mask: Tensor | None
    shape: tuple[int, ...]  # of N
    width: int  # outputs k

    def chunks(self) -> Iterator[tuple[int, int, "_Flat"]]:
        """Yield first and last entry of every chunk, and the chunk."""
        n = self.N.numel()
        if n <= CHUNK:
            yield 0, n, self
            return
        tall = max(1, CHUNK // self.width)
        rows = n // self.width
        cut = [
            [None] * -(-rows // tall)
            if x is None
            else x.split(tall * (self.width if x.numel() == n else 1))
            for x in self[:5]
        ]
        start = 0
        for parts in zip(*cut, strict=True):
            size = parts[0].numel()
            shape = (size // self.width, self.width) if len(self.shape) > 1 else (size,)
            yield start, start + size, _Flat(*parts, shape, self.width)  # pyright: ignore[reportCallIssue]
            start += size

    def dense(self) -> Dense:
        """Return all four with one entry per output."""
        return (self.N, self._wide(self.D), self.Y_n, self._wide(self.Y_d))

    def _wide(self, x: Tensor) -> Tensor:
        if x.numel() == self.N.numel():
            return x
        return x.unsqueeze(1).expand(-1, self.width).reshape(-1)

    def rows(self) -> tuple[Tuples, Tensor | None]:
        """Return the four and the mask in the shape they came."""
        narrow = (*self.shape[:-1], 1)
        *four, mask = (
            x if x is None else x.view(self.shape if x.numel() == self.N.numel() else narrow)
            for x in self[:5]
        )
        return tuple(four), mask  # pyright: ignore[reportReturnType]

    def picked(self, entries: Tensor) -> Dense:
        """Return some entries."""
        rows = entries if self.is_dense else entries // self.width
        return tuple(  # pyright: ignore[reportReturnType]
            x.index_select(0, entries if x.numel() == self.N.numel() else rows) for x in self[:4]
        )

    @property
    def is_dense(self) -> bool:
        """Whether no denominator is shared."""
        return self.N.numel() == self.D.numel() == self.Y_d.numel()


def _flat(tuples: Tuples, mask: Tensor | None) -> _Flat:
    shape = tuples[0].shape
    N, D, Y_n, Y_d = (
        x if x.ndim == 1 and x.is_contiguous() else x.reshape(-1).contiguous() for x in tuples
    )
    mask = None if mask is None else mask.reshape(-1).contiguous()
    return _Flat(N, D, Y_n, Y_d, mask, shape, shape[-1] if len(shape) > 1 else 1)


def _total(
    tuples: Tuples, mask: Tensor | None, plan: Plan, kernels: Any
) -> tuple[float, tuple[float, ...], list[Found | None]]:
    if kernels is None:
        counted, kinds = _forward(tuples, mask, plan)
    else:
        counted, kinds = Sums(*kernels.sums(tuples, mask, plan.recipe)), []
    total, slopes = plan.joined(counted)
    # a sum may overflow where its mean does not
    if not abs(total) <= torch.finfo(tuples[0].dtype).max:
        total = plan.whole(tuples, mask).item()
    return total, slopes, kinds


def _forward(tuples: Tuples, mask: Tensor | None, plan: Plan) -> tuple[Sums, list[Found | None]]:
    flat, recipe = _flat(tuples, mask), plan.recipe
    counted = dict.fromkeys(Sums._fields, 0.0)
    kinds: list[Found | None] = []
    singular = _Singular(flat, recipe.tau_sing)
    work = room(min(CHUNK, flat.N.numel()), flat.N, recipe)
    for start, end, chunk in flat.chunks():
        x, ours = chunk.dense(), work.of(end - start)
        found = sums(x, recipe, ours)
        kinds.append(found)
        if found is None:
            _add_plain(counted, chunk, plan)
            continue
        for part in ("fit", "margin", "coverage"):
            counted[part] += getattr(found, part)
            counted[part + "_weight"] += end - start
        if found.singular:
            singular.mark(start, x[3], ours)
    for entries in singular.batches():
        counted["sign"] += sign_sum(flat.picked(entries), recipe.sign_variant)
        counted["sign_weight"] += entries.numel()
    return Sums(**counted), kinds


class _Singular:
    """Marks of singular targets, made chunk by chunk, and read as indices at the end."""

    def __init__(self, flat: _Flat, tau: float) -> None:
        self._flat, self._tau = flat, tau
        self._marks: Tensor | None = None

    def mark(self, start: int, Y_d: Tensor, work: Room) -> None:
        """Mark the singular targets of a chunk."""
        if self._marks is None:
            words = -(-self._flat.N.numel() // WORD)
            self._marks = torch.zeros(words * WORD, dtype=torch.bool, device=Y_d.device)
        # in place the answer is a number, which is written much faster than a truth value
        close = torch.abs(Y_d, out=work.c).lt_(self._tau)
        self._marks[start : start + close.numel()].copy_(close)

    def batches(self) -> tuple[Tensor, ...]:
        """Return the indices of those that count, a chunk of them at a time."""
        if self._marks is None:
            return ()
        entries, mask = _true(self._marks), self._flat.mask
        if mask is not None:
            every = mask.numel() == self._flat.N.numel()
            known = mask.index_select(0, entries if every else entries // self._flat.width)
            entries = entries[known]
        if entries.numel() <= CHUNK:
            return (entries,) if entries.numel() else ()
        return entries.split(CHUNK)


def _true(marks: Tensor) -> Tensor:
    """Return the indices of what is true."""
    if marks.numel() > BLOCK:
        # `nonzero` takes as long for one entry as for eight of them read as one number
        words = marks.view(torch.int64).nonzero().squeeze(1)
        if 2 * WORD * words.numel() < marks.numel():
            entries = (words.unsqueeze(1) * WORD + torch.arange(WORD, device=marks.device)).view(-1)
            return entries[marks.index_select(0, entries)]
    return marks.nonzero().squeeze(1)


def _add_plain(counted: dict[str, float], chunk: _Flat, plan: Plan) -> None:
    for name, (values, weights) in plan.plain(*chunk.rows()).items():
        counted[name] += (values.double() * weights).sum().item()
        counted[name + "_weight"] += weights.sum(dtype=torch.float64).item()


def _backward(
    tuples: Tuples, mask: Tensor | None, ctx: Any, g: Tensor, kernels: Any
) -> tuple[Tensor, Tensor]:
    plan: Plan = ctx.plan
    ruling = rule(g, -1)
    factors = _factors(ctx.slopes, g, ruling)
    if kernels is not None:
        return kernels.gradients(tuples, mask, plan.recipe, factors, bool(ruling.masked))
    kinds = ctx.kinds or _forward(tuples, mask, plan)[1]  # nobody looked if kernels went forward
    N, D = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in tuples[:2])
    flat, (flat_N, flat_D) = _flat(tuples, mask), (N.view(-1), D.view(-1))
    shared = flat.width if D.numel() != N.numel() else 1
    work = room(min(CHUNK, N.numel()), N, plan.recipe)
    singular = _Singular(flat, plan.recipe.tau_sing)
    for found, (start, end, chunk) in zip(kinds, flat.chunks(), strict=True):
        out = flat_N[start:end], flat_D[start // shared : end // shared]
        if found is None:
            _plain_gradients(chunk, plan, factors, out)
            continue
        x, ours = chunk.dense(), work.of(end - start)
        sink = Sink(*out, ours, shared)
        gradients(x, found, plan.recipe, factors, sink)
        sink.close()
        if found.singular and factors.sign:
            singular.mark(start, x[3], ours)
    _add_sign(singular.batches(), flat, plan.recipe, factors, (flat_N, flat_D))
    return N, D


def _factors(slopes: tuple[float, ...], g: Tensor, ruling: Ruling) -> Factors:
    fit, margin, sign, coverage = (g.item() * slope for slope in slopes)
    if ruling.closed:
        return Factors(0.0, 0.0, 0.0, coverage, math.inf)
    return Factors(fit, margin, sign, coverage, ruling.bound)


def _plain_gradients(
    chunk: _Flat, plan: Plan, factors: Factors, out: tuple[Tensor, Tensor]
) -> None:
    (N, D, *targets), mask = chunk.rows()
    N, D = N.detach().requires_grad_(), D.detach().requires_grad_()
    with torch.enable_grad():
        terms = plan.plain((N, D, *targets), mask)  # pyright: ignore[reportArgumentType]
    losses, weights = [], []
    for name, term in terms.items():
        losses.append(term.values)
        weights.append((term.weights * getattr(factors, name)).to(term.values.dtype))
    found = torch.autograd.grad(losses, (N, D), weights, materialize_grads=True)
    for to, gradient in zip(out, found, strict=True):
        to.copy_(gradient.reshape(-1))


def _add_sign(
    batches: tuple[Tensor, ...],
    flat: _Flat,
    recipe: Recipe,
    factors: Factors,
    out: tuple[Tensor, Tensor],
) -> None:
    (to_N, to_D), bound = out, factors.bound
    shared = to_D.numel() != to_N.numel()
    sums_D = torch.zeros_like(to_D) if shared and batches else None
    for entries in batches:
        g_N, g_D = sign_gradients(flat.picked(entries), recipe.sign_variant, factors.sign)
        to_N.index_add_(0, entries, bounded(g_N, bound))
        if sums_D is None:
            to_D.index_add_(0, entries, bounded(g_D, bound))
        else:  # the bound holds for the sum over outputs
            sums_D.index_add_(0, entries // flat.width, g_D)
    if sums_D is not None:
        to_D.add_(bounded(sums_D, bound))
