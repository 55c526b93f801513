"""Strict inference: finite answers where the denominator allows them, an explicit ⊥ elsewhere."""

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof._checks import (
    from_array,
    is_array,
    one_of,
    ordered,
    pair_shapes,
    positive,
    threshold,
    widen,
)
from zeroproof.autodiff.compiled import register_class
from zeroproof.defaults import TAU_INFER, TAU_TRAIN
from zeroproof.errors import NotSupportedError, RangeError
from zeroproof.projective.angle import SCORES, denominator_score
from zeroproof.projective.decoding import Thresholds, decode_within

__all__ = [
    "InferenceConfig",
    "Reason",
    "StrictResult",
    "checked_config",
    "decided",
    "strict_inference",
]


@dataclass(frozen=True, init=False)
class InferenceConfig:
    r"""Where answers are ⊥ and where they are risky; a constructed config is valid.

    With score σ (see `denominator_score`) an answer is ⊥ where σ < τ_infer, and it lies in the gap
    where τ_infer ≤ σ < τ_train.

    Args:
        tau_infer: τ_infer, above 0.
        tau_train: τ_train, at least `tau_infer`. If it is not given, it is the default of training,
            or `tau_infer` where that is larger: the gap is then empty.
        score: `"denominator"` compares \|D\|, in the gauge of the model; `"angle"` compares
            \|D\| / √(\|N / s\|² + \|D\|²), free of gauge and units.
        scale: s, the scale of the targets in the units of y; used by `"angle"` alone.

    Raises:
        RangeError: A threshold, the score or the scale is not legal, or the thresholds are in the
            wrong order.

    Examples:
        >>> InferenceConfig(tau_infer=1e-3)
        InferenceConfig(tau_infer=0.001, tau_train=0.001, score='denominator', scale=1.0)
    """

    tau_infer: float
    tau_train: float
    score: str
    scale: float

    def __init__(
        self,
        *,
        tau_infer: float = TAU_INFER.value,
        tau_train: float | None = None,
        score: str = "denominator",
        scale: float = 1.0,
    ) -> None:
        one_of(score, SCORES, "score")
        threshold(tau_infer, TAU_INFER, score)
        if tau_train is None:
            tau_train = max(tau_infer, TAU_TRAIN.value)
        threshold(tau_train, TAU_TRAIN, score)
        ordered(tau_infer, tau_train, "tau_infer", "tau_train")
        # plain floats, so that every config can be written as JSON
        object.__setattr__(self, "tau_infer", float(tau_infer))
        object.__setattr__(self, "tau_train", float(tau_train))
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "scale", float(positive(scale, "scale")))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of numbers and strings, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "InferenceConfig":
        """Build a config from `to_dict()`; fields that are absent take their defaults.

        Raises:
            RangeError: A field is unknown or not legal.
        """
        known = ", ".join(cls.__dataclass_fields__)
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise RangeError(f"fields must be among {known}, got {', '.join(unknown)}")
        return cls(**fields)


class Reason(enum.IntEnum):
    """Why an answer is ⊥, in the order in which the causes are looked for.

    | reason | what happened |
    |---|---|
    | `FINITE` | nothing: the answer is finite |
    | `INPUT` | what was given is not finite: the row of x; for `strict_inference` N or D |
    | `MODEL` | the row is finite, and the model made an N or D that is not; see `trace_bottom` |
    | `INDETERMINATE` | ⟨0, 0⟩, no point of the projective line |
    | `POLE` | the score is below τ_infer, or D = 0 |
    | `OVERFLOW` | N / D leaves the range of its type |
    """

    FINITE = 0
    INPUT = 1
    MODEL = 2
    INDETERMINATE = 3
    POLE = 4
    OVERFLOW = 5


class _Fields(NamedTuple):
    decoded: Tensor
    bottom_mask: Tensor
    gap_mask: Tensor


class StrictResult(_Fields):
    """Answers with their masks; the three fields have one shape and are of the kind that was given.

    Attributes:
        decoded: N / D, in the units of y; nan at ⊥.
        bottom_mask: True where the answer is ⊥.
        gap_mask: True where the answer is finite but its denominator is risky.
    """

    # (N, D, config, rows whose input is not finite, whether a model made N and D); no field, so
    # that three are unpacked and a graph returns three
    origin: tuple[Tensor, Tensor, InferenceConfig, Tensor | None, bool] | None = None

    @property
    def reasons(self) -> Any:
        """A `Reason` for each entry as int8, worked out when asked.

        Raises:
            NotSupportedError: The result comes from a compiled or exported graph, a file or a
                transform, or was rebuilt: N and D did not come with it.
        """
        if self.origin is None:
            raise NotSupportedError(
                "reasons need N and D, which results of compiled, exported and transformed graphs "
                "have lost; give the model's tuple to strict_inference and ask what it returns"
            )
        N, D, config, broken, of_model = self.origin
        N, D = N.detach(), D.detach().expand(N.shape)
        found = torch.full(N.shape, Reason.OVERFLOW, dtype=torch.int8, device=N.device)
        score = denominator_score(N, D, config.score, config.scale)
        found[~(score >= config.tau_infer) | (D == 0)] = Reason.POLE
        found[(N == 0) & (D == 0)] = Reason.INDETERMINATE
        found[~(torch.isfinite(N) & torch.isfinite(D))] = Reason.MODEL if of_model else Reason.INPUT
        if broken is not None:
            found[broken.expand(N.shape)] = Reason.INPUT
        bottom = torch.as_tensor(self.bottom_mask)
        found = torch.where(bottom, found, Reason.FINITE)
        return found if isinstance(self.bottom_mask, Tensor) else found.numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        return StrictResult, tuple(self)


register_class(StrictResult, _Fields._fields, StrictResult)


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
        >>> import torch
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
    arrays = StrictResult._make(field.numpy() for field in result)
    arrays.origin = result.origin
    return arrays


def decided(
    N: Tensor,
    D: Tensor,
    config: InferenceConfig,
    *,
    bottom: Tensor | None = None,
    fixed: int = -1,
    of_model: bool = False,
) -> StrictResult:
    """Decode tensors; `bottom` marks rows that came in broken, `fixed` is a layer's policy code."""
    pair_shapes(N, D)
    thresholds = Thresholds(config.score, config.scale, config.tau_infer, config.tau_train)
    N, D = widen(N), widen(D)
    result = StrictResult._make(decode_within(N, D, thresholds, bottom, fixed))
    if not torch.compiler.is_compiling():
        result.origin = (N, D, config, bottom, of_model)
    return result


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
