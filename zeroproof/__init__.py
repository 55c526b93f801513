"""Neural networks and fitting for functions that truly have singularities.

Importing this package loads neither torch nor any subpackage; the names below arrive when first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroproof.autodiff import GradientPolicy, gradient_policy, register_policy
    from zeroproof.estimators.regressor import ProjectiveRegressor
    from zeroproof.inference import InferenceConfig, StrictModule, strict_inference
    from zeroproof.scm import SCM

__version__ = "0.1.0"

__all__ = [
    "SCM",
    "GradientPolicy",
    "InferenceConfig",
    "ProjectiveRegressor",
    "StrictModule",
    "__version__",
    "gradient_policy",
    "register_policy",
    "strict_inference",
]

_HOME = {
    "SCM": "zeroproof.scm",
    "GradientPolicy": "zeroproof.autodiff",
    "InferenceConfig": "zeroproof.inference",
    "ProjectiveRegressor": "zeroproof.estimators.regressor",
    "StrictModule": "zeroproof.inference",
    "gradient_policy": "zeroproof.autodiff",
    "register_policy": "zeroproof.autodiff",
    "strict_inference": "zeroproof.inference",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'zeroproof' has no attribute {name!r}")
    if name == "ProjectiveRegressor":  # which a bare installation lacks: say so before numpy does
        import_module("zeroproof._extras").require("sklearn", extra="sklearn")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
