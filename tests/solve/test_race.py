from types import SimpleNamespace

import numpy as np
import pytest

from zeroproof.solve.race import (
    Held,
    ahead,
    deviation,
    folds_of,
    inner_rows,
    likeliest,
    ties,
    winner,
)

RNG = np.random.default_rng(0)


def test_equal_inputs_share_a_fold_and_few_are_left_out_one_by_one():
    x = np.repeat([3.0, 1.0, 2.0], 4)[:, None]
    fold, distinct = folds_of(x)
    assert distinct == 3
    assert len({*zip(x[:, 0], fold, strict=True)}) == 3
    assert len({*fold.tolist()}) == 3


def test_many_inputs_make_ten_folds_of_one_size():
    fold, distinct = folds_of(RNG.uniform(size=(200, 2)))
    assert distinct == 200
    assert np.bincount(fold).tolist() == [20] * 10


def test_the_ends_of_the_data_are_no_inner_rows():
    x = np.arange(12.0)[:, None]
    inner = inner_rows(x, folds_of(x)[0])
    assert inner.tolist() == [False, *[True] * 10, False]


@pytest.mark.parametrize("noise", ["relative", "mixed", "additive"])
def test_deviations_have_geometric_mean_1_in_any_unit(noise):
    y = RNG.normal(size=(50, 1)) ** 3
    g = deviation(y, noise)
    assert np.exp(np.mean(np.log(g))) == pytest.approx(1)
    assert deviation(1e6 * y, noise) == pytest.approx(g)


@pytest.mark.parametrize("true", ["relative", "mixed", "additive"])
def test_the_noise_that_made_the_errors_is_the_likeliest(true):
    y = np.exp(2 * RNG.normal(size=(400, 1)))
    size = {"relative": y, "mixed": np.hypot(0.3 * np.median(y), y), "additive": 1.0}[true]
    errors = np.abs(0.05 * size * RNG.normal(size=(400, 1)))
    assert likeliest(dict.fromkeys(("relative", "mixed", "additive"), errors), y) == true


def test_large_noise_is_not_weighed_by_the_targets_that_carry_it():
    y = np.abs(1 + 0.7 * RNG.normal(size=(400, 1)))
    errors = 0.5 * y * np.abs(RNG.normal(size=(400, 1)))
    assert likeliest(dict.fromkeys(("relative", "additive"), errors), y) == "additive"


def entry(error, free, price=0.0):
    fold = np.arange(len(error)) % 10
    return SimpleNamespace(held=Held(error, fold), free=free, price=price, level=price, exact=False)


def test_the_smallest_within_a_standard_error_wins():
    noise = RNG.chisquare(1, 200)
    best = entry(noise * 0.99, 9)
    apart = RNG.uniform(-0.1, 0.1, 200)
    small = entry(noise * 0.99 + 0.1 + apart - apart.mean() - 0.099, 3)
    far = entry(noise * 2, 1)
    entries = [best, small, far]
    assert winner(entries) is small
    assert ties(small, entries) == [best]


def test_a_price_must_be_paid():
    noise = RNG.chisquare(1, 200)
    plain = entry(noise, 5)
    shade = entry(noise * (1 - 0.02 * RNG.normal(size=200) - 0.002), 3, price=3.0)
    clear = entry(noise * 0.5, 9, price=3.0)
    assert winner([plain, shade]) is plain
    assert winner([plain, clear]) is clear
    assert ahead(clear.held, plain.held, 3.0)
    assert not ahead(shade.held, plain.held, 3.0)


def test_tenfold_in_typical_error_decides_alone():
    noise = RNG.chisquare(1, 200)
    best = noise * 1e-4
    best[:3] = 1e3  # rows that nobody can tell, next to a pole
    other = entry(noise, 1)
    assert winner([entry(best, 9), other]) is not other
