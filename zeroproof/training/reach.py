"""Whether a model can answer ⊥ at all: some heads keep their denominators away from 0."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.defaults import TAU_INFER
from zeroproof.training.forward import as_pair

__all__ = ["can_reach_zero"]


def can_reach_zero(
    model: nn.Module,
    singular: Tensor,
    args: Sequence[Any],
    named: Mapping[str, Any] | None = None,
    *,
    tau: float = TAU_INFER.value,
) -> bool:
    r"""Tell whether some denominator of rows labelled ⊥ or ±inf can be led to 0.

    A copy of the model, in evaluation mode, takes 100 steps of L-BFGS on the mean of \|D\|² over
    these rows. D reaches 0 where it comes below τ, changes its sign or, if complex, falls to a
    thousandth. D = 1 + softplus does not; D = exp does, since it comes below any τ. The model
    itself stays as it is; derivatives are taken as they are, whatever policy is in force.

    Args:
        model: Returns (N, D), called as `model(*args, **named)`.
        singular: True where the target is singular, the shape of N; if nowhere, the answer is True.
        args: Inputs, as in training.
        named: Inputs by keyword.
        tau: τ_infer, compared with \|D\|.

    Examples:
        >>> from zeroproof.layers import ProjectiveMLP
        >>> x = torch.linspace(-1, 1, 8)[:, None]
        >>> can_reach_zero(ProjectiveMLP(1, 1, hidden=(8,)), x > 0.5, [x])
        True
    """
    probe = copy.deepcopy(model).eval()

    def denominators() -> Tensor:
        N, D = as_pair(probe(*args, **(named or {})))
        at = singular.expand(N.shape)
        return D[at if D.shape == N.shape else at.any(-1, keepdim=True)]

    # a model may answer derivatives: as they are from the start, or REJECT would make a D of 0
    with torch.enable_grad(), gradient_policy(GradientPolicy.PASSTHROUGH):
        start = denominators()
    before, reached = start.detach(), [_reached(start.detach(), start.detach(), tau)]
    if not start.numel() or not start.requires_grad:  # nothing to reach, or nothing that learns
        return not start.numel() or reached[0]
    size = before.abs().square().mean().clamp_min(torch.finfo(before.dtype).tiny)
    optimizer = torch.optim.LBFGS(
        [p for p in probe.parameters() if p.requires_grad],
        max_iter=100,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        D = denominators()
        reached.append(_reached(D.detach(), before, tau))
        loss = D.abs().square().mean() / size
        loss.backward()
        return loss

    if not reached[0]:
        with torch.enable_grad(), gradient_policy(GradientPolicy.PASSTHROUGH):
            optimizer.step(closure)
    return any(reached)


def _reached(D: Tensor, before: Tensor, tau: float) -> bool:
    # complex numbers pass 0 by: what falls to a thousandth is on its way
    crossed = D.abs() < 1e-3 * before.abs() if D.is_complex() else D * before < 0
    return bool((crossed | (D.abs() < tau)).any())
