import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import RangeError
from zeroproof.training.thresholds import perturbed_threshold

ends = st.floats(1e-300, 1e300)
MODES = pytest.mark.parametrize("mode", ["uniform", "log_uniform"])


@given(ends, ends, st.sampled_from(["uniform", "log_uniform"]), st.integers(0, 99))
def test_every_draw_lies_between_the_ends(a, b, mode, seed):
    low, high = min(a, b), max(a, b)
    tau = perturbed_threshold(low, high, mode, generator=torch.Generator().manual_seed(seed))
    assert type(tau) is float
    assert low <= tau <= high


@MODES
def test_the_distribution(mode):
    generator = torch.Generator().manual_seed(0)
    draws = [perturbed_threshold(1e-6, 1e-2, mode, generator=generator) for _ in range(4000)]
    if mode == "log_uniform":
        shares = [(math.log10(tau) + 6) / 4 for tau in draws]
    else:
        shares = [(tau - 1e-6) / (1e-2 - 1e-6) for tau in draws]
    assert sum(shares) / 4000 == pytest.approx(0.5, abs=0.02)  # 4 standard errors
    for quarter in (0.25, 0.5, 0.75):
        below = sum(share < quarter for share in shares) / 4000
        assert below == pytest.approx(quarter, abs=0.03)


@MODES
def test_the_same_seed_gives_the_same_thresholds(mode):
    def draws():
        generator = torch.Generator().manual_seed(3)
        return [perturbed_threshold(1e-4, 2e-4, mode, generator=generator) for _ in range(3)]

    assert draws() == draws()
    assert len(set(draws())) == 3


def test_without_a_generator_the_global_seed_decides():
    torch.manual_seed(5)
    first = perturbed_threshold(tau_train_min=1e-4, tau_train_max=2e-4, mode="uniform")
    torch.manual_seed(5)
    assert perturbed_threshold(1e-4, 2e-4) == first


@MODES
def test_equal_ends_draw_nothing(mode):
    state = torch.get_rng_state()
    assert perturbed_threshold(1e-4, 1e-4, mode) == 1e-4
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((2e-4, 1e-4), "tau_train_min must not exceed tau_train_max"),
        ((0.0, 1e-4), r"tau_train_min must lie in \(0, inf\), got 0.0"),
        ((1e-4, math.inf), r"tau_train_max must lie in \(0, inf\), got inf"),
        ((math.nan, 1e-4), r"tau_train_min must lie in \(0, inf\), got nan"),
        ((1e-4, 2e-4, "normal"), "mode must be one of 'uniform', 'log_uniform', got 'normal'"),
        ((1e-4, 1e-4, "normal"), "mode must be one of"),
    ],
)
def test_arguments_are_checked(arguments, match):
    with pytest.raises(RangeError, match=match):
        perturbed_threshold(*arguments)
