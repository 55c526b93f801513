"""The thresholds of strict inference, checked once."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zeroproof._checks import one_of, ordered, positive, threshold
from zeroproof.defaults import TAU_INFER, TAU_TRAIN
from zeroproof.errors import RangeError
from zeroproof.projective.angle import SCORES

__all__ = ["InferenceConfig"]


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
