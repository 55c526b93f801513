"""Strict inference: finite answers where the denominator allows them, an explicit ⊥ elsewhere."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import pair_shapes
from zeroproof.autodiff.compiled import compiling
from zeroproof.errors import RangeError
from zeroproof.inference.config import InferenceConfig
from zeroproof.projective._traced_decoding import traced_decoding
from zeroproof.projective.angle import denominator_score
from zeroproof.projective.arrays import from_array, is_array
from zeroproof.projective.decoding import decode_scored
from zeroproof.projective.gauge import widen
from zeroproof.scm.pytree import register_namedtuple

__all__ = ["StrictResult", "checked_config", "decided", "strict_inference"]


class StrictResult(NamedTuple):
    """Answers with their masks; the three fields have one shape and are of the kind that was given.

    Attributes:
        decoded: N / D, in the units of y; nan at ⊥.
        bottom_mask: True where the answer is ⊥.
        gap_mask: True where the answer is finite but its denominator is risky.
    """

    decoded: Tensor
    bottom_mask: Tensor
    gap_mask: Tensor


register_namedtuple(StrictResult)


def strict_inference(
    N: Any,
    D: Any,
    config: InferenceConfig | None = None,
) -> StrictResult:
    r"""Decode tuples: N / D where the score reaches τ_infer, ⊥ elsewhere; and mask risky answers.

    With score σ: ⊥ where σ < τ_infer, D = 0, N or D is not finite, or N / D overflows; gap where
    τ_infer ≤ σ < τ_train and not ⊥. The masks are decided by comparing σ, never by looking for nan.

    Args:
        N: Numerators, `(*batch, k)`, a tensor or a NumPy array, real or complex.
        D: Denominators of the same kind and shape, or `(*batch, 1)` if shared.
        config: Thresholds and score; the defaults if it is left out.

    Returns:
        A `StrictResult` in the shape of N, tensors for tensors and arrays for arrays. Half
        precision is decoded in float32, integers of an array in float64; a masked entry of an
        array is ⊥. The gradient policy acts on dL/dN and dL/dD.

    Raises:
        ShapeError: The shapes do not belong together.
        RangeError: N and D are neither two tensors nor two NumPy arrays of numbers, or `config` is
            no config.

    Examples:
        >>> result = strict_inference(torch.ones(3), torch.tensor([2.0, 0.0, 1e-5]))
        >>> result.bottom_mask, result.gap_mask
        (tensor([False,  True, False]), tensor([False, False,  True]))
    """
    config = checked_config(config)
    if isinstance(N, Tensor) and isinstance(D, Tensor):
        return decided(N, D, config)
    if not (is_array(N) and is_array(D)):
        raise RangeError(
            f"N and D must be two tensors or two NumPy arrays, got {type(N).__name__} and "
            f"{type(D).__name__}"
        )
    result = decided(from_array(N, "N"), from_array(D, "D"), config)
    return StrictResult._make(field.numpy() for field in result)


def decided(
    N: Tensor,
    D: Tensor,
    config: InferenceConfig,
    *,
    bottom: Tensor | None = None,
    fixed: int = -1,
) -> StrictResult:
    """Decode tensors; `bottom` marks further ⊥ entries, `fixed` is the policy code of a layer."""
    pair_shapes(N, D)
    N, D = widen(N), widen(D)
    # thresholds have no gradient, so the score needs no graph
    score = denominator_score(N.detach(), D.detach(), config.score, config.scale)
    if bottom is not None:
        score = torch.where(bottom, 0, score)
    if compiling() and not (N.is_complex() or D.is_complex()):
        thresholds = config.tau_infer, config.tau_train
        return StrictResult(*traced_decoding(N, D, score, *thresholds, fixed))
    decoded, is_bottom = decode_scored(N, D, score, config.tau_infer, fixed)
    return StrictResult(decoded, is_bottom, (score < config.tau_train) & ~is_bottom)


def checked_config(config: InferenceConfig | None) -> InferenceConfig:
    """Return `config`, or the default one for None.

    Raises:
        RangeError: It is something else.
    """
    if config is None:
        return InferenceConfig()
    if not isinstance(config, InferenceConfig):
        raise RangeError(f"config must be an InferenceConfig, got {type(config).__name__}")
    return config
