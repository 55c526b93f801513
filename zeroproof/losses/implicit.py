"""The implicit loss: how far a tuple is from its target, without dividing N by D."""

import math
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor

from zeroproof._checks import in_range, one_of
from zeroproof.defaults import GAMMA
from zeroproof.losses._quotient import attached_quotient
from zeroproof.losses._reduction import Counting, Operands, operands, reduced
from zeroproof.losses._single import NOTHING, single
from zeroproof.projective.angle import cross, norm, squared, turned
from zeroproof.projective.gauge import widen

__all__ = ["NORMALIZERS", "implicit_loss", "implicit_values"]

NORMALIZERS = ("detached", "attached", "chordal")


def implicit_loss(
    N: Tensor,
    D: Tensor,
    Y_n: Tensor,
    Y_d: Tensor,
    gamma: float = GAMMA.value,
    *,
    normalizer: str = "detached",
    oriented: bool = False,
    **counting: Unpack[Counting],
) -> Tensor:
    r"""Fit tuples to target tuples through their cross product, without a division by D.

    Formula: E = \|N·Y_d - D·Y_n\|², S = \|D\|²\|Y_d\|² + \|N\|²\|Y_n\|², and the mean of

    | | loss | |
    |---|---|---|
    | `"detached"` | E / (sg(S) + γ) | unbounded; its gradient shrinks (N, D) |
    | `"attached"` | E / (S + γ) | its gradient is that of the quotient |
    | `"chordal"` | E / ((\|N\|² + \|D\|²)(\|Y_n\|² + \|Y_d\|²)) | in [0, 1], free of both gauges |
    | `oriented=True` | 2(1 - cos) | in [0, 4], free of both gauges, and tells +∞ from -∞ |

    All but the last are blind to sign. Computed on max-scaled tuples in at least float32, so that
    squares neither over- nor underflow; a quotient beyond the number range saturates just below
    its end, and so does the gradient of `"attached"`.

    Args:
        N: Numerators, `(*batch, k)`, real or complex.
        D: Denominators, the same shape or `(*batch, 1)`.
        Y_n: Target numerators, the shape of N.
        Y_d: Target denominators, the shape of N or `(*batch, 1)`.
        gamma: γ, used by `"detached"` and `"attached"`, in units of the squared products.
        normalizer: `"detached"`, `"attached"` or `"chordal"`.
        oriented: Use 2(1 - cos) on all targets instead; `normalizer` and `gamma` then play no part.
        **counting: `weight` (an entry counts in proportion; one that is negative or not finite
            does not count), `mask` (boolean, True counts), both in the shape of N or `(*batch,
            1)`; `reduction`: `"mean"` (Σ w·l / Σ w over what counts), `"sum"` or `"none"`.

    Returns:
        Scalar `()`, or the shape of N for `"none"`. A row with a number that is not finite does
        not count: 0 and no gradient there, a connected 0 where no row counts. At ⟨0, 0⟩
        `"detached"` costs 0, `"attached"` and `"chordal"` 1, `oriented` 2, all without a gradient.
        The gradient policy acts on dL/dN and dL/dD.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: An option outside what it may be.

    Examples:
        >>> N, D = torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0])
        >>> Y_n, Y_d = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])  # 2 and -∞
        >>> implicit_loss(N, D, Y_n, Y_d)
        tensor(0.)
        >>> implicit_loss(N, D, Y_n, Y_d, oriented=True)
        tensor(2.)
    """
    options = _checked(gamma, normalizer, oriented=oriented)
    recipe = NOTHING._replace(normalizer="oriented" if oriented else normalizer, gamma=gamma)
    plain = partial(_plain, targets=(Y_n, Y_d), options=options, counting=counting)
    return single("fit", (widen(N), widen(D), widen(Y_n), widen(Y_d)), recipe, plain, counting)


def _checked(gamma: float, normalizer: str, *, oriented: bool) -> dict[str, Any]:
    in_range(gamma, GAMMA)
    one_of(normalizer, NORMALIZERS, "normalizer")
    return {"gamma": gamma, "normalizer": normalizer, "oriented": oriented}


def _plain(
    N: Tensor,
    D: Tensor,
    targets: tuple[Tensor, Tensor],
    options: dict[str, Any],
    counting: Counting,
) -> Tensor:
    return reduced(*implicit_values(N, D, *targets, **options), **counting)


def implicit_values(
    N: Tensor, D: Tensor, Y_n: Tensor, Y_d: Tensor, gamma: float, *, normalizer: str, oriented: bool
) -> tuple[Tensor, Tensor]:
    """Return (loss of every entry, rows that count); legal arguments of `implicit_loss`."""
    tuples = operands(N, D, Y_n, Y_d)
    if oriented:
        values = torch.where(tuples.origin, 2, 2 * turned(*tuples[:4]))
    else:
        values = _quotient(tuples, gamma, normalizer)
    return values, tuples.rows


def _quotient(tuples: Operands, gamma: float, normalizer: str) -> Tensor:
    n, d, y_n, y_d, m, y_m, _, origin, finite = tuples
    if normalizer == "attached":
        values = attached_quotient(*finite, m, y_m, math.sqrt(gamma))
        return torch.where(origin, 1, values)
    difference = cross(n, d, y_n, y_d)
    if normalizer == "chordal":
        values = squared(difference / (norm(n, d) * norm(y_n, y_d))).clamp(max=1)
        return torch.where(origin, 1, values)
    limits = torch.finfo(m.dtype)
    # √γ / (m·y_m): where the square of that product would leave the number range
    root = (math.sqrt(gamma) / m / y_m).clamp_max(math.sqrt(limits.max) / 2)
    size = squared(d) * squared(y_d) + squared(n) * squared(y_n) + root.square()
    return squared(difference / size.detach().clamp_min(4 * limits.tiny).sqrt())
