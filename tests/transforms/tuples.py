"""Tuples and their decoding in the matrix of transforms."""

from tests.transforms.functions import REAL, WIDTH, Input, computed, layer
from zeroproof import projective, training
from zeroproof.autodiff.policies import gate
from zeroproof.defaults import GAMMA
from zeroproof.inference import (
    InferenceConfig,
    StrictModule,
    StrictResult,
    strict,
    strict_inference,
)
from zeroproof.layers import ProjectiveMLP
from zeroproof.projective import angle, decoding, tuples

__all__ = ["TUPLES"]

NAN = float("nan")
N, D = Input(signed=True), Input(signed=True, bottom=0.0)
Y = Input(signed=True, bottom=NAN)
SHARED = Input(signed=True, bottom=0.0, width=1)
FAMILY, INFERENCE = "Tuples", "Inference"

ANGLE = InferenceConfig(score="angle", scale=0.5, tau_infer=0.1, tau_train=0.9)
COARSE = InferenceConfig(tau_infer=0.1, tau_train=1.0)


def _tuples(name, covers, call, *inputs, **options):
    return computed(name, FAMILY, covers, call, *inputs, **options)


def _unit(N, D):
    """Return `renormalize` with the size of these tuples."""
    squares = N.abs().square()
    squares = squares if N.shape == D.shape else squares.sum(-1, keepdim=True)
    size = ((squares + D.abs().square()).sqrt() + GAMMA.value).detach()
    return lambda N, D: (N / size, D / size)


FOUR = (N, D, N, D)
TUPLES = (
    _tuples("encode", (projective.encode, projective.Pair), projective.encode, Y),
    _tuples(
        "decode",
        (projective.decode, decoding.decode_scored, decoding.decode_within),
        projective.decode,
        N,
        D,
    ),
    _tuples("decode, shared D", (), projective.decode, N, SHARED),
    _tuples(
        "decode by angle",
        (),
        lambda N, D: projective.decode(N, D, 0.1, score="angle", scale=0.5),
        N,
        D,
    ),
    _tuples(
        "renormalize",
        (projective.renormalize,),
        projective.renormalize,
        N,
        D,
        frozen=_unit,
    ),
    _tuples(
        "renormalize, shared D",
        (),
        projective.renormalize,
        N,
        SHARED,
        frozen=_unit,
    ),
    _tuples(
        "gate",
        (gate,),
        lambda N, D: gate(N, D, (N == 0) & (D == 0)),
        N._replace(bottom=0.0),
        D,
    ),
    _tuples("cross", (projective.cross,), projective.cross, *FOUR, scripts=True),
    _tuples("cosine", (projective.cosine, angle.norm, tuples.rescaled), projective.cosine, *FOUR),
    _tuples(
        "misalignment",
        (projective.misalignment, tuples.squared),
        projective.misalignment,
        *FOUR,
    ),
    _tuples("chordal_distance", (projective.chordal_distance,), projective.chordal_distance, *FOUR),
    _tuples(
        "denominator_score", (projective.denominator_score,), projective.denominator_score, N, D
    ),
    _tuples(
        "denominator_score by angle",
        (),
        lambda N, D: projective.denominator_score(N, D, "angle", 0.5),
        N,
        D,
    ),
    _tuples("lift_targets", (training.lift_targets,), training.lift_targets, Y),
    computed(
        "strict_inference",
        INFERENCE,
        (strict_inference, StrictResult, strict.decided),
        lambda N, D: strict_inference(N, D, COARSE),
        N,
        D,
    ),
    computed(
        "strict_inference by angle",
        INFERENCE,
        (),
        lambda N, D: strict_inference(N, D, ANGLE),
        N,
        SHARED,
    ),
    layer(
        "StrictModule",
        INFERENCE,
        (StrictModule, ProjectiveMLP),
        lambda dtype: StrictModule(ProjectiveMLP(2, 2, hidden=(3,)), ANGLE).to(dtype),
        Y,
        scripts=True,
        reasons=WIDTH | REAL,
    ),
)
