"""A projective head as matrices: ⟨N, D⟩ = ⟨H a, H b⟩ with H = [h, 1]."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zeroproof.layers.head import ProjectiveHead
from zeroproof.projective.tuples import squared
from zeroproof.training.loaders import Batch

__all__ = [
    "features",
    "head_weights",
    "heads_of",
    "resolved_head",
    "scale_numerator",
    "set_head",
    "with_ones",
]

_LARGEST_WEIGHT = 1e8  # of a row, times the median


def features(model: nn.Module, head: nn.Module, batch: Batch) -> tuple[list[Tensor], Any]:
    """Run a model; return what its head got, once for every use, and what the model returned."""
    seen: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.extend((*args, *named.values()))

    hook = head.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.enable_grad():  # a model may differentiate in forward
            outputs = batch.through(model)
    finally:
        hook.remove()
    return pytree.tree_map_only(Tensor, Tensor.detach, (seen, outputs))


def with_ones(h: Tensor) -> Tensor:
    """Return [h, 1]: the biases of the head are the weights of the last column."""
    return torch.cat([h, torch.ones_like(h[..., :1])], -1)


def head_weights(head: ProjectiveHead) -> tuple[Tensor, Tensor]:
    """Return a, `(in_features + 1, k)`, and b, `(in_features + 1, 1 or k)`, without a graph."""
    layers = (head.numerator, head.denominator)
    a, b = (torch.cat([x.weight.detach(), x.bias.detach()[:, None]], 1).T for x in layers)
    return a, b


def heads_of(model: nn.Module) -> list[ProjectiveHead]:
    """Return the projective heads in a model."""
    return [module for module in model.modules() if isinstance(module, ProjectiveHead)]


@torch.no_grad()
def scale_numerator(head: ProjectiveHead, factor: float) -> None:
    """Multiply N by a number, without a graph."""
    for parameter in head.numerator.parameters():
        parameter.mul_(factor)


@torch.no_grad()
def set_head(head: ProjectiveHead, a: Tensor, b: Tensor) -> None:
    """Write a and b into the parameters of a head, in their dtype and on their device."""
    for layer, weights in ((head.numerator, a), (head.denominator, b)):
        layer.weight.copy_(weights[:-1].T)
        layer.bias.copy_(weights[-1])


@torch.no_grad()
def resolved_head(
    pair: tuple[Tensor, Tensor], H: Tensor, Y_n: Tensor, Y_d: Tensor, weight: Tensor, rho: float
) -> tuple[Tensor, Tensor]:
    """Return a head near the best one for features that moved a little, in Gram matrices.

    Two steps of inverse iteration on (‖A z‖² + ρ tr(G) / k ‖z‖²) / ‖M z‖² as in `solve`, from the
    head `pair`, (k, m) and (k, 1), which also weighs the rows. Starting from scratch in every step
    of a training would let the head jump between answers that are equally good.
    """
    (a, b), (k, m) = pair, pair[0].shape
    t2 = 1 / (squared(H @ a) + squared(H @ b)).clamp_min(torch.finfo(weight.dtype).tiny)
    t2 = (t2 / t2.median()).clamp_max(_LARGEST_WEIGHT) * (weight / weight.mean())
    G_H = _gram(H, weight / weight.mean())
    A = _normal_matrix(H, Y_n, Y_d, t2)
    A.diagonal().add_(rho * G_H.trace().real / k)
    L, failed = torch.linalg.cholesky_ex(A)
    if failed:
        return pair
    z = torch.cat([a.T, b.T])  # one row for each a_j, the last for b
    for _ in range(2):
        z = z @ G_H.T
        if m > 1:
            z[:m] = 0  # outputs that share D: the size of D alone, as in `solve`
        z = torch.cholesky_solve(z.reshape(-1, 1), L).reshape(m + 1, k)
        z = z / (z.conj() * (z @ G_H.T)).sum().real.sqrt()
    return z[:m].T, z[m:].T


def _normal_matrix(H: Tensor, Y_n: Tensor, Y_d: Tensor, t2: Tensor) -> Tensor:
    """Return AᴴA, `((m + 1) k, (m + 1) k)`, of the rows t [Y_d H, -Y_n H] of all outputs."""
    k, m = H.shape[1], Y_n.shape[1]
    A = H.new_zeros((m + 1) * k, (m + 1) * k)
    corner = A[m * k :, m * k :]
    corner += _gram(H, (t2 * squared(Y_n)).sum(1, keepdim=True))
    for j in range(m):
        at = slice(j * k, (j + 1) * k)
        A[at, at] = _gram(H, (t2 * squared(Y_d))[:, [j]])
        A[at, m * k :] = -_gram(H, (t2 * Y_d.conj() * Y_n)[:, [j]])
        A[m * k :, at] = A[at, m * k :].mH
    return A


def _gram(H: Tensor, weight: Tensor) -> Tensor:
    return H.mH @ (H * weight) / len(H)
