import numpy as np
import pytest
from scipy.special import gamma

from zeroproof.solve.line import Fraction, Sigmoid, Support, race_line

DOSES = 2.0 * 3.0 ** -np.arange(8)


def raced(x, y, **options):
    return race_line(np.asarray(x, float), np.asarray(y)[:, None], **options)


def value(race, x):
    c = race.entry.candidate
    return c.value(race.entry.fit, c.axis(np.asarray(x)))[0, :, 0]


@pytest.mark.parametrize("replicates", [1, 3])
def test_doses_give_a_curve_within_the_data_and_no_pole(replicates):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = np.repeat(DOSES, replicates)
        y = 1 / (1 + (x / 0.05) ** 1.8) + 0.04 * rng.normal(size=len(x))
        race = raced(x, y)
        curve = value(race, np.geomspace(DOSES.min(), DOSES.max(), 400))
        half = np.ptp(y) / 2
        assert (curve > y.min() - half).all()
        assert (curve < y.max() + half).all()
        assert not race.entry.inside
        assert race.entry.free <= 6


def test_noise_is_a_constant_or_little_more_and_has_no_pole():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = np.sort(rng.uniform(5, 45, 16))
        race = raced(x, rng.normal(size=16))
        assert race.entry.free <= 3
        assert not race.entry.inside


@pytest.mark.parametrize(
    ("count", "most"), [(2, 2.0), (4, 2.0), (6, 4.0)], ids=["two", "four", "six"]
)
def test_few_inputs_allow_few_coefficients(count, most):
    x = np.arange(float(count))
    race = raced(x, np.random.default_rng(0).normal(size=count))
    assert max(e.free for e in race.entries) <= most


def test_coefficients_never_exceed_what_the_training_folds_tell():
    x = np.repeat(np.arange(9.0), 5)
    y = np.random.default_rng(0).normal(size=45)
    race = raced(x, y)
    assert all(e.free <= 9 for e in race.entries)


def test_poles_of_noisy_rows_are_all_found():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = np.sort(rng.uniform(-4.5, 4.5, 300))
        race = raced(x, gamma(x) * (1 + 0.01 * rng.normal(size=300)))
        axis = race.entry.candidate.axis
        inside = [pole for pole in race.entry.poles if pole.inside]
        places = np.sort([pole.u.real * axis.half + axis.middle for pole in inside])
        assert np.round(places).tolist() == [-4, -3, -2, -1, 0]
        assert all(pole.significance > 4 for pole in inside)
        errors = np.abs(places - np.round(places)) / axis.half
        assert (errors < 5 * np.sort([pole.se for pole in inside])[-1]).all()


@pytest.mark.parametrize("steep", [1, 20, 1000])
def test_a_sigmoid_is_found_at_any_slope(steep):
    x = np.linspace(-10, 10, 401)
    race = raced(x, 1 / (1 + np.exp(np.clip(steep * x, -700, 700))))
    assert isinstance(race.entry.candidate, Sigmoid)
    fresh = np.linspace(-9, 9, 77)
    truth = 1 / (1 + np.exp(np.clip(steep * fresh, -700, 700)))
    assert np.abs(value(race, fresh) - truth).max() < 1e-9


def test_a_logarithm_is_left_to_aaa():
    x = np.sort(np.random.default_rng(0).uniform(-1, 1, 300))
    race = raced(x, np.log(np.abs(x - 0.1)))
    assert isinstance(race.entry.candidate, Support)
    fresh = np.linspace(-0.9, 0, 50)
    assert np.abs(value(race, fresh) - np.log(0.1 - fresh)).max() < 1e-8


def test_a_resonance_under_additive_noise_is_one_pair():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = np.linspace(0, 20, 401)
        race = raced(x, 17 / ((x - 9.24) ** 2 + 1.25**2) + 0.3 * rng.normal(size=401))
        assert race.noise == "additive"
        assert isinstance(race.entry.candidate, Fraction)
        assert race.entry.candidate.q == 2


def test_complex_rows_and_several_outputs_have_one_denominator():
    x = np.linspace(1, 3, 80)
    y = 1 / (x - 2 - 0.1j)
    race = raced(x, y)
    assert race.entry.candidate.q == 1
    both = race_line(x, np.c_[y.real, y.imag])
    assert both.entry.candidate.q == 2
    assert value(race, x) == pytest.approx(y)


def test_wide_positive_inputs_are_tried_as_logarithms():
    x = np.geomspace(1e-3, 10, 40)
    race = raced(x, np.log(x) ** 2)
    assert race.entry.candidate.axis.transform == "log"


def test_weights_of_rows_count():
    x = np.linspace(-1, 1, 60)
    y = 3 + x
    y[::7] = 50.0
    weight = np.ones(60)
    weight[::7] = 1e-12
    assert value(raced(x, y, weight=weight), [0.5]) == pytest.approx([3.5], abs=1e-3)


@pytest.mark.parametrize("replicates", [1, 2, 3])
def test_few_doses_follow_the_law_they_were_measured_from(replicates):
    x = np.repeat(np.geomspace(0.05, 20, 7), replicates)
    t = np.geomspace(0.05, 20, 200)
    worse = []
    for seed in range(6):
        y = x**2 / (1 + x**2) + 0.03 * np.random.default_rng(seed).normal(size=len(x))
        race = raced(x, y)
        c = race.entry.candidate
        error = c.value(race.entry.fit, c.axis(t))[0][:, 0] - t**2 / (1 + t**2)
        worse.append(np.sqrt(np.mean(error**2)) / 0.03)
    assert np.median(worse) < 1.5
    assert max(worse) < 5


def test_noise_that_is_repeated_is_told_from_a_law():
    for seed in range(8):
        x = np.repeat(np.arange(7.0), 2)
        race = raced(x, 3 + np.random.default_rng(seed).normal(size=14))
        assert race.entry.candidate.p + race.entry.candidate.q <= 1


def test_a_potential_is_a_polynomial_of_the_inverse_distance():
    r = np.sort(np.random.default_rng(0).uniform(0.9, 3, 200))
    race = raced(r, 4 * (r**-12 - r**-6))
    c = race.entry.candidate
    assert (c.axis.transform, c.p, c.q) == ("inverse", 12, 0)
    near = np.linspace(0.6, 0.8, 30)
    answer = c.value(race.entry.fit, c.axis(near))[0][:, 0]
    assert np.abs(answer / (4 * (near**-12 - near**-6)) - 1).max() < 1e-8
