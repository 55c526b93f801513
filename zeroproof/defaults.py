"""Every threshold and weight with its default, usual range and legal range, once.

The table of `docs/reference/defaults.md` is generated from `PARAMETERS`.
"""

import math
from typing import NamedTuple

__all__ = [
    "GAMMA",
    "LAMBDA_MARGIN",
    "LAMBDA_REJECTION",
    "LAMBDA_SIGN",
    "PARAMETERS",
    "TARGET_COVERAGE",
    "TAU_INFER",
    "TAU_SING",
    "TAU_TRAIN",
    "TEMPERATURE",
    "Parameter",
]


class Parameter(NamedTuple):
    """A number users may set: its default, the range that is usual and the range that is legal."""

    name: str
    meaning: str
    value: float
    usual: tuple[float, float]
    low: float
    high: float
    open_low: bool = False  # True: `low` itself is not legal


GAMMA = Parameter("gamma", "γ, stability of the implicit loss", 1e-9, (1e-12, 1e-6), 0.0, 1.0)
TAU_TRAIN = Parameter(
    "tau_train", "τ_train, margin threshold", 1e-4, (1e-6, 1e-3), 0.0, math.inf, open_low=True
)
TAU_INFER = Parameter(
    "tau_infer", "τ_infer, strict inference", 1e-6, (1e-8, 1e-4), 0.0, math.inf, open_low=True
)
TAU_SING = Parameter(
    "tau_sing",
    "τ_sing, which targets are singular",
    1e-3,
    (1e-4, 1e-2),
    0.0,
    math.inf,
    open_low=True,
)
LAMBDA_MARGIN = Parameter("lambda_margin", "λ_margin", 0.1, (0.01, 1.0), 0.0, math.inf)
LAMBDA_SIGN = Parameter("lambda_sign", "λ_sign", 1.0, (0.1, 10.0), 0.0, math.inf)
LAMBDA_REJECTION = Parameter("lambda_rejection", "λ_rejection", 0.01, (0.001, 0.1), 0.0, math.inf)
TARGET_COVERAGE = Parameter(
    "target_coverage", "share of finite answers asked for", 0.95, (0.8, 1.0), 0.0, 1.0
)
TEMPERATURE = Parameter(
    "temperature", "T, width of the soft coverage", 1e-2, (1e-3, 1e-1), 0.0, math.inf, open_low=True
)

PARAMETERS = (
    GAMMA,
    TAU_TRAIN,
    TAU_INFER,
    TAU_SING,
    LAMBDA_MARGIN,
    LAMBDA_SIGN,
    LAMBDA_REJECTION,
    TARGET_COVERAGE,
    TEMPERATURE,
)
