"""P(x) / Q(x) and ⟨P(x), Q(x)⟩ with their gradients: which machine, and where policies act.

Numba's loops take ordinary float32 tensors in eager mode. Everything else goes through operations
of torch: float64, complex numbers, compiled graphs, transforms, gradients of gradients. Forward
keeps x and the coefficients alone; backward computes anew. The compiled kernels follow from how
this is written:

- A vectorised loop stores and loads bool slowly, so the mask leaves it as bytes, and inside it no
  bool is used twice where it would be kept.
- The recomputation hangs on the policy's scalars, which exist in backward alone. Otherwise the
  compiler would find it equal to the forward pass and keep masks instead of computing them anew.
- Long sums go row by row, so that one row stays in the cache and needs no compensated sum.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

import zeroproof.layers.rational_formulas as F  # noqa: N812 - as torch names its own
from zeroproof.autodiff.compiled import LANES, compiling, finite, row_length, stored
from zeroproof.autodiff.eager import ordinary
from zeroproof.autodiff.gate import Ruling, rule, shielded, submit
from zeroproof.autodiff.masks import as_bytes, as_mask
from zeroproof.autodiff.trace import note
from zeroproof.layers.basis import derivative, polynomial, reach_bounds, span, unit
from zeroproof.native import loops_for
from zeroproof.scm.division import slopes

__all__ = ["RationalKind", "quotient", "tuples"]

_LOOPS = "layers.rational_loops"
_LONGEST = 4096  # terms that float32 may sum one after the other


class RationalKind(NamedTuple):
    """What a rational function is apart from its coefficients."""

    basis: str
    domain: tuple[float, float]
    fixed: int  # policy code, -1 to follow the context


def _limit(P: Tensor, Q: Tensor, ruling: Ruling | None = None) -> Tensor:
    """Return how large |x| may be, or 2|t| + 1, so that neither P nor Q overflows."""
    bounds = [reach_bounds(P), reach_bounds(Q)]
    if ruling is not None and compiling():  # never true, which the compiler cannot know
        bounds = [torch.where(ruling.closed & ~ruling.masked, 0, each) for each in bounds]
    return torch.minimum(*(each.amin(0) for each in bounds))


def _inside(x: Tensor, bottom: Tensor | None, limit: Tensor, form: RationalKind) -> Tensor:
    inside = span(x.detach(), form.basis, form.domain) <= limit  # false where x is not finite
    return inside if bottom is None else inside & (bottom == 0)


def _pulled(
    g: Tensor, x: Tensor, c: Tensor, form: RationalKind, row: int | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of the coefficients c for g = dL / d(Σ c_k B_k(x))."""
    by_x = polynomial(x, derivative(c, form.basis, form.domain), form.basis, form.domain)
    return g * by_x.conj(), _moments(g, x, c, form, row is not None)


def _moments(g: Tensor, x: Tensor, like: Tensor, form: RationalKind, rows: bool) -> Tensor:
    """Return Σ g · B_k(x) for each row of coefficients, in the shape of `like`."""
    t = x if form.basis == "monomial" else unit(x, form.domain)
    t = t.conj() if t.is_complex() else t
    terms = [g, g]  # g goes first: 0 times an overflowing power would be nan
    for k in range(1, len(like)):
        terms.append(F.next_row(terms[-1], terms[-2], t, k == 1, form.basis == "chebyshev"))
    return torch.stack([_total(term, like, rows) for term in terms[1:]])


def _total(term: Tensor, like: Tensor, rows: bool) -> Tensor:
    if not term.is_complex() and not like.is_complex() and rows:
        return term.sum(1).sum().to(like.dtype)
    wide = torch.complex128 if term.is_complex() else torch.float64
    shape = like.shape[1:]
    if term.numel() <= _LONGEST:
        total = term.sum_to_size(shape)
    else:
        total = term.sum(tuple(range(term.ndim - len(shape))), dtype=wide).sum_to_size(shape)
    return (total if like.is_complex() or not total.is_complex() else total.real).to(like.dtype)


# --- P(x) / Q(x) ----------------------------------------------------------------------------------


def _forward(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: RationalKind
) -> tuple[Tensor, Tensor]:
    """Return (P / Q, ⊥), nan at ⊥.

    Within reach P and Q are finite, so that P / Q is not finite exactly where Q = 0 or the quotient
    overflows.
    """
    loops = loops_for(_LOOPS, x, P, Q)
    if loops is not None:
        return loops.quotient(x, P, Q, bottom, form)
    # of x as it is, since no derivative goes this way: a mask ahead of the polynomials would have
    # every one of their steps wait for it
    value = polynomial(x, P, form.basis, form.domain) / polynomial(x, Q, form.basis, form.domain)
    sound = _inside(x, bottom, _limit(P, Q), form) & finite(value)
    return torch.where(sound, value, math.nan), stored(~sound) if compiling() else ~sound


def _backward(
    g: Tensor, x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: RationalKind
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, P and Q; the policy acts on dL/dP(x) and dL/dQ(x)."""
    ruling, shape = rule(g, form.fixed), x.shape
    # a gradient of gradients needs operations that record; what is raw, plain ones
    plain = torch.is_grad_enabled() or ruling.masked is False
    loops = None if plain else loops_for(_LOOPS, g, x, P, Q)
    if loops is not None:
        return loops.pullback(g, x, P, Q, bottom, form, ruling)
    row = row_length(x.numel()) if compiling() and P.ndim == 1 else None
    if row is not None:
        x, g = x.reshape(-1, row), g.reshape(-1, row)
        bottom = None if bottom is None else bottom.reshape(-1, row)
    inside = _inside(x, bottom, _limit(P, Q, ruling), form)
    safe = torch.where(inside, x, 0)
    p, q = (polynomial(safe, c, form.basis, form.domain) for c in (P, Q))
    lost = ~(inside & finite((p / q).detach()))
    unsafe = shielded(ruling, lost)
    # g too: 0 times a finite slope stays 0 in every further derivative
    g, p, q = torch.where(unsafe, 0, g), torch.where(unsafe, 0, p), torch.where(unsafe, 1, q)
    g_P, g_Q = (submit(z, lost, ruling) for z in slopes(g, p, q))
    by_P, by_Q = (_pulled(z, safe, c, form, row) for z, c in ((g_P, P), (g_Q, Q)))
    return (by_P[0] + by_Q[0]).reshape(shape), by_P[1], by_Q[1]


class _Quotient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: RationalKind
    ) -> tuple[Tensor, Tensor]:
        return _forward(x, P, Q, bottom, form)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.form = inputs
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, P, Q, bottom = ctx.saved_tensors
        return *_backward(g, x, P, Q, bottom, ctx.form), None, None


class _QuotientNow(torch.autograd.Function):
    """The same in eager mode; without `setup_context`, for which torch inspects every call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _Quotient.setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_Quotient.backward)  # pyright: ignore[reportAssignmentType]


def quotient(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: RationalKind, gated: bool
) -> tuple[Tensor, Tensor]:
    """Return (P(x) / Q(x), ⊥), nan at ⊥; the policy acts on dL/dP and dL/dQ if `gated`.

    Args:
        x: Points, of one dtype with the coefficients.
        P: Coefficients of P, `(p + 1,)` or `(p + 1, channels)`.
        Q: Coefficients of Q, likewise.
        bottom: Where x is ⊥, if that is known.
        form: Basis, domain and policy code.
        gated: Whether a gradient is wanted.
    """
    if not gated:
        function = _forward
    else:
        function = _QuotientNow.apply if ordinary(x, P, Q) else _Quotient.apply
    if not compiling():
        value, lost = function(x, P, Q, bottom, form)
        note(value, x, P, Q)
        return value, lost
    value, mask = function(x, P, Q, None if bottom is None else as_bytes(bottom), form)
    return value, as_mask(mask)


# --- ⟨P(x), Q(x)⟩ ---------------------------------------------------------------------------------


class _Tuples(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, P: Tensor, Q: Tensor, form: RationalKind) -> tuple[Tensor, Tensor]:
        loops = loops_for(_LOOPS, x, P, Q)
        if loops is not None:
            return loops.tuples(x, P, Q, form)
        narrow = compiling() and P.shape[1] < LANES
        x = x.squeeze(-1) if narrow else x
        inside = _inside(x, None, _limit(P, Q).amin(), form)
        safe = torch.where(inside, x, 0)

        def value(c: Tensor) -> Tensor:
            return torch.where(inside, polynomial(safe, c, form.basis, form.domain), math.nan)

        if not narrow:
            return value(P), value(Q)
        # output by output: a vector then holds entries of the batch
        N, D = (torch.stack([value(column) for column in c.unbind(-1)], -1) for c in (P, Q))
        return N, D

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.form = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor, g_D: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, P, Q = ctx.saved_tensors
        form = ctx.form
        # a gradient of gradients needs operations that record
        loops = None if torch.is_grad_enabled() else loops_for(_LOOPS, g_N, g_D, x, P, Q)
        if loops is not None:
            return *loops.pull_tuples((g_N, g_D), x, P, Q, form), None
        narrow = compiling() and P.shape[1] < LANES
        row = row_length(x.numel()) if narrow else None
        limit = _limit(P, Q, rule(g_N, form.fixed)).amin()
        shape = x.shape if not narrow else (-1,) if row is None else (-1, row // LANES, LANES)
        z = x.reshape(shape)
        inside = _inside(z, None, limit, form)
        safe, g_x, sums = torch.where(inside, z, 0), torch.zeros_like(z), []
        for g, c in ((g_N, P), (g_D, Q)):
            pairs = zip(g.unbind(-1), c.unbind(-1), strict=True) if narrow else [(g, c)]
            found = []
            for part, column in pairs:
                kept = torch.where(inside, part.reshape(shape) if narrow else part, 0)
                by_x, total = _pulled(kept, safe, column, form, row)
                g_x = g_x + by_x.sum_to_size(g_x.shape)
                found.append(total)
            sums.append(torch.stack(found, -1) if narrow else found[0])
        return g_x.reshape(x.shape), *sums, None


def tuples(
    x: Tensor, P: Tensor, Q: Tensor, form: RationalKind, gated: bool
) -> tuple[Tensor, Tensor] | None:
    """Return (P(x), Q(x)), nan where one could overflow; `None` where plain operations serve.

    Args:
        x: Points, `(*batch, 1)`.
        P: Coefficients, `(p + 1, k)`.
        Q: Coefficients, `(q + 1, 1)` or `(q + 1, k)`.
        form: Basis and domain.
        gated: Whether a gradient is wanted.
    """
    if not (ordinary(x, P, Q) or (compiling() and not x.is_complex())) or not x.numel():
        return None
    function = _Tuples.apply if gated else _Tuples.forward
    N, D = function(x, P, Q, form)
    note(N, x, P, Q)
    return N, D
