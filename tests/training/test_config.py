import dataclasses
import math

import pytest
import torch

from zeroproof.autodiff import GradientPolicy
from zeroproof.errors import RangeError
from zeroproof.training import TrainingConfig


def test_the_defaults_are_those_of_the_guide():
    config = TrainingConfig()
    guide = {
        "max_epochs": 100,
        "gradient_policy": GradientPolicy.PROJECT,
        "coverage_threshold": 0.90,
        "coverage_patience": 10,
        "use_amp": False,
        "grad_accumulation_steps": 1,
        "tau_train_min": 1e-4,
        "tau_train_max": 1e-4,
        "tau_infer": 1e-6,
    }
    assert {name: getattr(config, name) for name in guide} == guide


def test_a_config_is_frozen_and_takes_keywords_alone():
    with pytest.raises(dataclasses.FrozenInstanceError, match="max_epochs"):
        TrainingConfig().max_epochs = 2
    with pytest.raises(TypeError, match="positional"):
        TrainingConfig(5)
    assert dataclasses.replace(TrainingConfig(), max_epochs=3).max_epochs == 3


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 1, "coverage_patience": 1, "grad_accumulation_steps": 1, "max_steps": 1},
        {"tau_infer": 1e-4, "tau_train_min": 1e-4, "tau_train_max": 1e-4},
        {"coverage_threshold": 0},
        {"coverage_threshold": 1, "threshold_mode": "log_uniform"},
        {"amp_dtype": torch.float16, "use_amp": True},
        {"device": torch.device("cpu")},
        {"device": "cuda:1"},
        {"seed": 0, "score": "angle", "scale": 2.5, "target_scale": 1e3},
        {"keep_best": True, "scheduler_cadence": "step", "progress": False},
    ],
    ids=str,
)
def test_every_legal_edge_is_accepted(options):
    config = TrainingConfig(**options)
    assert {name: getattr(config, name) for name in options} == options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1, got 0"),
        ({"max_epochs": 2.0}, "max_epochs must be a whole number of at least 1, got 2.0"),
        ({"max_steps": 0}, "max_steps must be a whole number"),
        ({"coverage_patience": 0}, "coverage_patience must be a whole number"),
        ({"grad_accumulation_steps": 0}, "grad_accumulation_steps must be a whole number"),
        ({"grad_accumulation_steps": 10**30}, r"grad_accumulation_steps must be below 2\*\*63"),
        ({"max_steps": 10**5000}, r"max_steps must be below 2\*\*63, got more than that"),
        ({"seed": 10**5000}, r"seed must be below 2\*\*32"),
        ({"device": None}, 'device must be "auto" or the name of a torch device, got None'),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"coverage_threshold": 1.5}, r"coverage_threshold must lie in \[0, 1\], got 1.5"),
        ({"coverage_threshold": math.nan}, "coverage_threshold must lie in"),
        ({"tau_train_min": 0.0}, r"tau_train_min must lie in \(0, inf\), got 0.0"),
        ({"tau_infer": -1e-6}, "tau_infer must lie in"),
        ({"tau_train_min": 2e-4}, "tau_train_min must not exceed tau_train_max"),
        ({"tau_infer": 1e-3}, "tau_infer must not exceed tau_train_min"),
        ({"scale": 0.0}, "scale must be a finite number above 0"),
        ({"target_scale": math.inf}, "target_scale must be a finite number above 0"),
        ({"gradient_policy": "project"}, "gradient_policy must be a GradientPolicy"),
        ({"gradient_policy": 1}, "gradient_policy must be a GradientPolicy"),
        ({"threshold_mode": "normal"}, "threshold_mode must be one of 'uniform', 'log_uniform'"),
        ({"score": "size"}, "score must be one of"),
        ({"scheduler_cadence": "batch"}, "scheduler_cadence must be one of 'epoch', 'step'"),
        ({"amp_dtype": torch.float64}, "amp_dtype must be one of"),
        ({"use_amp": "bf16"}, "use_amp must be one of True, False"),
        ({"device": "gpu"}, "device must be \"auto\" or the name of a torch device, got 'gpu'"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_every_illegal_option_is_named(options, sentence):
    with pytest.raises(RangeError, match=sentence):
        TrainingConfig(**options)
