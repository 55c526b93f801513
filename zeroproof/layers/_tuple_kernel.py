"""x → ⟨P(x), Q(x)⟩ in eager mode on a CPU, chunk by chunk; the basis is evaluated once."""

import math
from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import LANES, compiling, row_length
from zeroproof.autodiff.eager import full_precision, ordinary
from zeroproof.autodiff.gate import rule
from zeroproof.layers._rational_chunks import CHUNK, Basis
from zeroproof.layers._rational_plain import Form, moments
from zeroproof.layers.basis import derivative, polynomial, reach_bounds

__all__ = ["polynomials"]

_NARROW = LANES  # outputs: fewer fill no vector


def _safe(
    x: Tensor, P: Tensor, Q: Tensor, form: Form, never: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return (x, 0 where a polynomial could overflow; where that is)."""
    bounds = torch.cat([reach_bounds(P).flatten(), reach_bounds(Q).flatten()])
    limit = (bounds if never is None else torch.where(never, 0, bounds)).amin()
    u = x.detach().abs()
    if form.basis == "chebyshev":
        low, high = form.domain
        u = 2 * ((x.detach() - (low + high) / 2) / ((high - low) / 2)).abs() + 1
    beyond = ~(u <= limit)
    return torch.where(beyond, 0, x), beyond


def _narrow(P: Tensor) -> bool:
    return compiling() and P.shape[1] < _NARROW


def _plain(x: Tensor, P: Tensor, Q: Tensor, form: Form) -> tuple[Tensor, ...]:
    safe, beyond = _safe(x, P, Q, form)
    values = (polynomial(safe, c, form.basis, form.domain) for c in (P, Q))
    return tuple(torch.where(beyond, math.nan, value) for value in values)


def _traced(x: Tensor, P: Tensor, Q: Tensor, form: Form) -> tuple[Tensor, ...]:
    """Return the same, output by output: a vector then holds entries of the batch, not outputs."""
    safe, beyond = _safe(x.squeeze(-1), P, Q, form)
    return tuple(
        torch.stack(
            [
                torch.where(beyond, math.nan, polynomial(safe, column, form.basis, form.domain))
                for column in c.unbind(-1)
            ],
            -1,
        )
        for c in (P, Q)
    )


def _traced_backward(
    g: tuple[Tensor, Tensor], x: Tensor, P: Tensor, Q: Tensor, form: Form
) -> tuple[Tensor, ...]:
    # the recomputation hangs on a scalar of backward, see _rational_plain
    ruling = rule(g[0], form.fixed)
    row = row_length(x.numel())
    shape = (-1,) if row is None else (-1, row // LANES, LANES)
    safe, beyond = _safe(x.reshape(shape), P, Q, form, ruling.closed & ~ruling.masked)
    g_x, sums = torch.zeros_like(safe), []
    for part, c in zip(g, (P, Q), strict=True):
        totals = []
        for column, coefficients in zip(part.unbind(-1), c.unbind(-1), strict=True):
            g_p = torch.where(beyond, 0, column.reshape(shape))
            slopes = derivative(coefficients, form.basis, form.domain)
            g_x = g_x + g_p * polynomial(safe, slopes, form.basis, form.domain)
            totals.append(moments(g_p, safe, coefficients, form, row is not None))
        sums.append(torch.stack(totals, -1))
    return g_x.reshape(x.shape), *sums


def _plain_backward(
    g: tuple[Tensor, Tensor], x: Tensor, P: Tensor, Q: Tensor, form: Form
) -> tuple[Tensor, ...]:
    never = None
    if compiling():  # the recomputation hangs on a scalar of backward, see _rational_plain
        ruling = rule(g[0], form.fixed)
        never = ruling.closed & ~ruling.masked
    safe, beyond = _safe(x, P, Q, form, never)
    g_N, g_D = (torch.where(beyond, 0, part) for part in g)
    slopes = (derivative(c, form.basis, form.domain) for c in (P, Q))
    slope_N, slope_D = (polynomial(safe, c, form.basis, form.domain) for c in slopes)
    g_x = (g_N * slope_N).sum(-1, keepdim=True) + (g_D * slope_D).sum(-1, keepdim=True)
    return g_x, moments(g_N, safe, P, form), moments(g_D, safe, Q, form)


@torch.inference_mode()
def _write(
    x: Tensor, columns: tuple[Tensor, Tensor], out: tuple[Tensor, Tensor], form: Form
) -> None:
    basis = None
    for part, N, D in zip(x.split(CHUNK), *(value.split(CHUNK) for value in out), strict=True):
        if basis is None or basis.n != len(part):
            basis = Basis(len(part), columns, form)
        tame = basis.fill(part)
        careful = () if tame else _plain(part.unsqueeze(-1), *columns, form)
        for k, (c, values) in enumerate(zip(columns, (N, D), strict=True)):
            if tame:
                torch.mm(basis.matrix[: len(c)].t(), c, out=values)
            else:
                values.copy_(careful[k])


@torch.inference_mode()
def _pull_back(
    flats: tuple[Tensor, ...],
    columns: tuple[Tensor, Tensor],
    form: Form,
    g_x: Tensor | None,
    sums: list[Tensor],
) -> None:
    slopes = [derivative(c, form.basis, form.domain) for c in columns]
    basis = None
    for k, (x, *g) in enumerate(zip(*(z.split(CHUNK) for z in flats), strict=True)):
        if basis is None or basis.n != len(x):
            basis = Basis(len(x), columns, form)
        if basis.fill(x):
            B = basis.matrix
            addends = [B[: len(c)] @ part for c, part in zip(columns, g, strict=True)]
            pairs = zip(slopes, g, strict=True)
            if g_x is not None:
                each = [(torch.mm(c.t(), B[: len(c)]) * part.t()).sum(0) for c, part in pairs]
                g_x[k * CHUNK : k * CHUNK + len(x)] = each[0] + each[1]
        else:
            column = x.unsqueeze(-1)
            slope, *addends = _plain_backward((g[0], g[1]), column, *columns, form)
            if g_x is not None:
                g_x[k * CHUNK : k * CHUNK + len(x)] = slope.squeeze(-1)
        for total, addend in zip(sums, addends, strict=True):
            total.add_(addend)


class _Polynomials(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, P: Tensor, Q: Tensor, form: Form) -> tuple[Tensor, ...]:
        if not ordinary(x, P, Q):
            return (_traced if _narrow(P) else _plain)(x, P, Q, form)
        batch = x.shape[:-1]
        N, D = (x.new_empty(x.numel(), c.shape[1]) for c in (P, Q))
        with full_precision():
            _write(x.reshape(-1), (P, Q), (N, D), form)
        return N.reshape(*batch, -1), D.reshape(*batch, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, P, Q, ctx.form = inputs
        ctx.save_for_backward(x, P, Q)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor, g_D: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, P, Q = ctx.saved_tensors
        # a gradient of gradients needs operations that record
        if torch.is_grad_enabled() or not ordinary(g_N, g_D, x, P, Q):
            backward = _traced_backward if _narrow(P) else _plain_backward
            return *backward((g_N, g_D), x, P, Q, ctx.form), None
        g_x = torch.empty_like(x).reshape(-1) if ctx.needs_input_grad[0] else None
        sums = [torch.zeros_like(c, dtype=torch.float64) for c in (P, Q)]
        flats = (x.reshape(-1), g_N.reshape(-1, P.shape[1]), g_D.reshape(-1, Q.shape[1]))
        with full_precision():
            _pull_back(flats, (P, Q), ctx.form, g_x, sums)
        g_P, g_Q = (total.to(P.dtype) for total in sums)
        return None if g_x is None else g_x.reshape(x.shape), g_P, g_Q, None


def polynomials(
    x: Tensor, P: Tensor, Q: Tensor, form: Form, gated: bool
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
    function = _Polynomials.apply if gated else _Polynomials.forward
    N, D = function(x, P, Q, form)
    return N, D
