import math
import warnings

import numpy as np
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.defaults import TAU_INFER
from zeroproof.estimators.thresholds import score_of, thresholds_of

LINE = np.linspace(-1, 1, 200)[:, None]
x = LINE[:, 0]
TENSOR = torch.from_numpy(LINE)
RECIPROCAL = 1 / (x - 0.25)


def fitted(y, **options):
    model = ProjectiveRegressor(**options).fit(LINE, y)
    return model.fitted_.fit, model.thresholds_


def noisy(size):
    return RECIPROCAL * (1 + size * np.random.default_rng(0).normal(size=200))


def test_clean_data_are_trusted_to_rounding():
    _, config = fitted(RECIPROCAL)
    assert config.tau_infer == 1e-15
    assert config.tau_train == pytest.approx(1e-14)


def test_noise_widens_what_is_bottom():
    near = 0.25 + np.r_[-1, 1][:, None] * np.logspace(-9, 0, 400)
    share = []
    for size in (1e-6, 1e-4, 1e-2):
        model = ProjectiveRegressor(degrees=(0, 1)).fit(LINE, noisy(size))
        result = model.predict_strict(near.reshape(-1, 1))
        share.append((result.bottom_mask.mean(), result.gap_mask.mean()))
    assert 0 < share[0][0] < share[1][0] < share[2][0] < 1
    assert min(gap for _, gap in share) > 0


def test_no_finite_row_that_was_seen_is_bottom():
    for size in (0.01, 0.3):
        model = ProjectiveRegressor(degrees=(0, 1)).fit(LINE, noisy(size))
        assert not model.predict_strict(LINE).bottom_mask.any()


@pytest.mark.parametrize("degrees", [(2, 0), (0, 0)])
def test_a_model_without_a_pole_keeps_the_default_threshold(degrees):
    fit, config = fitted(x**2, degrees=degrees)
    assert fit.model.constant_denominator
    assert config.tau_infer == TAU_INFER.value
    assert not fitted(RECIPROCAL)[0].model.constant_denominator


def test_singular_rows_choose_the_thresholds():
    singular = abs(x - 0.25) < 0.03
    y = np.where(singular, math.inf, RECIPROCAL)
    model = ProjectiveRegressor(degrees=(0, 1), polish="none").fit(LINE, y)
    mask = model.predict_strict(LINE).bottom_mask
    assert (mask == singular).mean() > 0.97
    assert model.thresholds_.tau_infer > 1e-3
    assert model.thresholds_.score == "angle"


@pytest.mark.parametrize("width", [0.005, 0.03, 0.1])
def test_the_threshold_keeps_away_from_every_row(width):
    singular = abs(x - 0.25) < width
    stray = np.isin(np.arange(200), [20, 60])  # which no threshold below 1 % of the others catches
    fit, _ = fitted(RECIPROCAL, degrees=(0, 1))
    score = score_of(fit, TENSOR, 1.0).flatten().numpy()
    for bad in (singular, singular | stray, stray):
        y = torch.from_numpy(np.where(bad, math.inf, RECIPROCAL))[:, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tau = thresholds_of(fit, TENSOR, y, 1.0).tau_infer
        assert (abs(score / tau - 1) > 1e-4).all()
        assert ((score < tau) == (bad & ~stray)).all()


def test_the_threshold_never_falls_below_rounding():
    fit, _ = fitted(RECIPROCAL)
    exact = fit._replace(near=0.0)
    y = torch.from_numpy(RECIPROCAL)[:, None]
    assert thresholds_of(exact, TENSOR, y, 1.0).tau_infer == 1e-15
    assert thresholds_of(exact._replace(near=math.nan), TENSOR, y, 1.0).tau_infer == 1e-15


def disagreement(rows, others=(), **known):
    """Disagreement of a fit of y = RECIPROCAL with fits of multiples of it."""
    whole = ProjectiveRegressor().fit(LINE, RECIPROCAL).fitted_
    models = tuple(fitted(factor * RECIPROCAL)[0].model for factor in others)
    return whole._replace(fit=whole.fit._replace(alternates=models, **known)).disagreement(rows)


def test_disagreement_is_the_largest_relative_difference():
    rows = TENSOR[:5]
    assert disagreement(rows).tolist() == [0.0] * 5
    both = disagreement(rows, others=(1.5, 1.2))
    assert both.tolist() == pytest.approx([1 / 3] * 5)
    assert disagreement(rows[:0], others=(1.5,)).shape == (0,)


def test_differences_within_the_noise_are_none():
    assert disagreement(TENSOR, others=(1.05,), relative=0.02).max() == 0
    assert disagreement(TENSOR, others=(1.05,), relative=0.001).min() > 0.04
