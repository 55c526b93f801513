import math

import pytest

from zeroproof.errors import RangeError
from zeroproof.estimators import FitOptions
from zeroproof.estimators.trained import check_options


@pytest.mark.parametrize(
    "options", [{}, {"tau_infer": 1.0}, {"tau_infer": 0.1, "tau_train": 0.1}, {"epochs": 1}]
)
def test_legal_options_pass(options):
    check_options(FitOptions(**options))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 2**63}, r"seed must be below 2\*\*63, got 9223372036854775808"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, got 0.0"),
        ({"held_out": 0.0}, r"held_out must lie in \(0, 1\), got 0.0"),
        ({"held_out": math.nan}, r"held_out must lie in \(0, 1\), got nan"),
        ({"tau_infer": 0.0}, r"tau_infer must lie in \(0, 1\], got 0.0"),
        ({"tau_infer": 1.5}, r"tau_infer must lie in \(0, 1\], got 1.5"),
        ({"tau_train": math.nan}, r"tau_train must lie in \(0, 1\], got nan"),
        ({"tau_infer": 0.2, "tau_train": 0.1}, "tau_infer must not exceed tau_train"),
        ({"shared_denominator": "yes"}, "shared_denominator must be one of True, False"),
    ],
)
def test_illegal_options_are_refused(options, sentence):
    with pytest.raises(RangeError, match=sentence):
        check_options(FitOptions(**options))
