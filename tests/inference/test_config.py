import dataclasses
import json
import math

import pytest

from zeroproof.errors import RangeError
from zeroproof.inference import InferenceConfig


def test_defaults_are_those_of_the_guide():
    config = InferenceConfig()
    assert (config.tau_infer, config.tau_train) == (1e-6, 1e-4)
    assert (config.score, config.scale) == ("denominator", 1.0)


@pytest.mark.parametrize(
    ("tau_infer", "tau_train"),
    [(1e-8, 1e-4), (1e-4, 1e-4), (1e-2, 1e-2), (3, 3)],
    ids=["below", "equal", "above", "integer"],
)
def test_tau_train_never_falls_below_a_tau_infer_given_alone(tau_infer, tau_train):
    assert InferenceConfig(tau_infer=tau_infer).tau_train == tau_train


BAD = [
    ({"tau_infer": 0.0}, r"tau_infer must lie in \(0, inf\), got 0.0"),
    ({"tau_infer": -1e-6}, "tau_infer must lie in"),
    ({"tau_infer": math.nan}, "tau_infer must lie in"),
    ({"tau_infer": math.inf}, "tau_infer must lie in"),
    ({"tau_infer": "1e-6"}, "tau_infer must be a number"),
    ({"tau_train": 0.0}, "tau_train must lie in"),
    ({"tau_infer": 1e-3, "tau_train": 1e-4}, "tau_infer must not exceed tau_train"),
    ({"score": "cosine"}, "score must be one of 'denominator', 'angle', got 'cosine'"),
    ({"scale": 0.0}, "scale must be a finite number above 0"),
    ({"scale": math.inf}, "scale must be a finite number above 0"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_what_is_not_legal_is_refused(fields, message):
    with pytest.raises(RangeError, match=message):
        InferenceConfig(**fields)
    with pytest.raises(RangeError, match=message):
        InferenceConfig.from_dict(fields)


def test_it_is_frozen_comparable_and_replaceable():
    config = InferenceConfig(score="angle")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.tau_infer = 1.0  # pyright: ignore[reportAttributeAccessIssue]
    assert dataclasses.replace(config, scale=2) == InferenceConfig(score="angle", scale=2.0)
    assert len({config, InferenceConfig(score="angle"), InferenceConfig()}) == 2


def test_it_survives_json():
    config = InferenceConfig(tau_infer=1e-5, score="angle", scale=3)
    assert InferenceConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_from_dict_names_unknown_fields():
    with pytest.raises(RangeError, match=r"fields must be among tau_infer, .*, got tau"):
        InferenceConfig.from_dict({"tau": 1e-6})
