"""One autograd function for P(x) / Q(x): it keeps x and coefficients, and computes anew."""

from typing import Any

import torch
from torch import Tensor

from zeroproof.autodiff.compiled import compiling, stored
from zeroproof.autodiff.eager import ordinary
from zeroproof.autodiff.gate import rule
from zeroproof.autodiff.masks import as_bytes, as_mask
from zeroproof.layers._rational_chunks import (
    chunked_backward,
    chunked_forward,
)
from zeroproof.layers._rational_plain import (
    Form,
    plain_backward,
    plain_forward,
)
from zeroproof.native import loops_for as native

__all__ = ["quotient"]


def _forward(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form
) -> tuple[Tensor, ...]:
    kernels = native("layers._native_rational", x, P, Q)
    if kernels is not None:
        return kernels.forward(x, P, Q, bottom, form)
    if ordinary(x, P, Q):
        return chunked_forward(x, P, Q, bottom, form)
    value, sound = plain_forward(x, P, Q, bottom, form)
    return value, stored(~sound) if compiling() else ~sound


class _Quotient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form
    ) -> tuple[Tensor, ...]:
        return _forward(x, P, Q, bottom, form)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, P, Q, bottom, ctx.form = inputs
        ctx.save_for_backward(x, P, Q, bottom, output[2] if len(output) > 2 else None)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, P, Q, bottom, clean = ctx.saved_tensors
        ruling = rule(g, ctx.form.fixed)
        # a gradient of gradients needs operations that record; what is raw, plain ones
        recorded = torch.is_grad_enabled() or ruling.masked is False
        kernels = None if recorded else native("layers._native_rational", g, x, P, Q)
        if kernels is not None:
            gradients = kernels.backward(g, x, P, Q, bottom, ctx.form, ruling)
        elif clean is None or recorded or not ordinary(g, x, P, Q):
            gradients = plain_backward(g, x, P, Q, bottom, ctx.form, ruling)
        else:
            need = ctx.needs_input_grad
            wanted = (need[0], need[1] or need[2])
            gradients = chunked_backward(g, (x, P, Q, bottom, clean), ctx.form, ruling, wanted)
        return *gradients, None, None


def quotient(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: Form, gated: bool
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
    if compiling() and bottom is not None:
        bottom = as_bytes(bottom)
    function = _Quotient.apply if gated else _forward
    value, mask, *_ = function(x, P, Q, bottom, form)
    return value, as_mask(mask) if compiling() else mask
