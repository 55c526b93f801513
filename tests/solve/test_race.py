from types import SimpleNamespace

import numpy as np
import pytest

from zeroproof.solve.race import (
    Budget,
    Entry,
    Held,
    ahead,
    deviation,
    folds_of,
    inner_rows,
    likeliest,
    noise_size,
    ties,
    typical_size,
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


@pytest.mark.parametrize(("distinct", "folds"), [(30, 30), (31, 10)])
def test_thirty_inputs_are_still_left_out_one_by_one(distinct, folds):
    assert folds_of(np.arange(distinct)[:, None])[0].max() + 1 == folds


@pytest.mark.parametrize("rows", [12, 6])
def test_the_ends_of_the_data_are_no_inner_rows(rows):
    x = np.arange(rows)[:, None]
    inner = inner_rows(x, folds_of(x)[0])
    assert inner.tolist() == [False, *[True] * (rows - 2), False]


def test_three_inner_rows_are_too_few_to_leave_the_others_out():
    x = np.arange(5.0)[:, None]
    assert inner_rows(x, folds_of(x)[0]).all()


def test_noise_beside_the_typical_size():
    assert noise_size(np.array([-3.0]), "relative", 4000.0) == pytest.approx(5)
    assert noise_size(np.array([-4.0]), "mixed", 10.0) == pytest.approx(5)
    assert noise_size(np.array([-4.0, 9.0]), "additive", 2.0).tolist() == [2.0, 2.0]
    assert typical_size(np.array([0.0, -3.0, 5.0])) == 3.0
    assert typical_size(np.r_[np.zeros(6), np.full(4, -7.0)]) == pytest.approx(7e-5)
    assert typical_size(np.zeros(3)) == 1.0


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


@pytest.mark.parametrize(("rows", "noise"), [(7, "additive"), (8, "relative")])
def test_eight_rows_tell_how_noise_grows(rows, noise):
    y = 3.0 ** np.arange(rows)[:, None]
    assert likeliest(dict.fromkeys(("relative", "additive"), 0.01 * y), y) == noise


@pytest.mark.parametrize(("zeros", "noise"), [(1, "relative"), (2, "additive")])
def test_one_target_of_a_hundred_may_be_zero(zeros, noise):
    y = np.exp(RNG.normal(size=(100, 1)))
    y[:zeros] = 1e-12 * y.max()  # as good as zero
    errors = 0.01 * y * np.abs(RNG.normal(size=(100, 1)))
    assert likeliest(dict.fromkeys(("relative", "additive"), errors), y) == noise


def test_errors_that_follow_the_targets_by_luck_are_not_believed():
    y = np.tile([[1.0, 2.0]], (10, 1))
    y[0] = 9.0
    errors = np.full((10, 2), 0.01)
    errors[0] = 0.08  # one row makes the gain, 0.3
    assert likeliest(dict.fromkeys(("relative", "additive"), errors), y) == "additive"


def test_body_folds_and_cut_of_held_out_errors():
    error, fold = np.arange(1.0, 31.0), np.arange(30) % 2 * 2  # no row is of fold 1
    held = Held(error, fold)
    assert (held.typical, held.body) == (15.5, 15.0)  # the body has 29 rows
    assert held.by_fold(error).tolist() == [15.0, 16.0]
    assert held.capped(1.5).tolist() == [*range(1, 25), *[24.0] * 6]
    assert Held(error, fold, "additive").capped(1.5) is error


def test_a_difference_of_folds_and_its_standard_error():
    fold = np.array([0, 0, 1, 1])
    best, other = Held(np.ones(4), fold), Held(np.array([2.0, 4.0, 5.0, 9.0]), fold)
    assert other.behind(best, 1.0) == pytest.approx((4, 2, 5))
    alone = Held(np.ones(2), fold[:2])
    assert alone.behind(alone, 1.0) == (0, np.inf, 1)


def entry(error, free, price=0.0, **more):
    held = Held(error, np.arange(len(error)) % 10)
    parts = {"free": free, "price": price, "level": price, "exact": False, **more}
    return SimpleNamespace(held=held, **parts)


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


@pytest.mark.parametrize(("ratio", "tied"), [(99, True), (100, True), (101, False)])
def test_a_hundredfold_squared_error_is_never_tied(ratio, tied):
    best, small = entry(np.ones(1), 5), entry(np.full(1, float(ratio)), 1)
    assert winner([best, small]) is (small if tied else best)
    assert ties(best, [best, small]) == [small] * tied
    assert ahead(best.held, small.held, 3.0) is not tied


def test_twins_are_tied():
    one, other = entry(np.ones(20), 5), entry(np.ones(20), 5)
    assert ties(one, [one, other]) == [other]


def behind(spreads, mean=0.1):
    """Return errors of ten folds that are so many standard errors above those that are 1."""
    return 1 + mean * (1 + 3 / spreads * np.tile([-1, 1], 5))


def test_a_wide_standard_error_is_no_merit():
    best, small, wide = entry(np.ones(10), 9), entry(behind(2.5), 1), entry(behind(0.7, 0.2), 5)
    assert winner([best, wide]) is wide
    assert winner([best, small, wide]) is best  # the small one is as good as the wide one


def test_a_poor_contestant_does_not_lift_the_cut_for_the_others():
    lucky = np.r_[np.ones(19), 1e3]
    entries = [entry(lucky, 5), entry(np.full(20, 3.0), 3), entry(np.full(20, 1e3), 1)]
    assert winner(entries) is entries[0]


def test_an_entry_is_plain_until_it_is_told_otherwise():
    one = Entry(SimpleNamespace(free=3, name="line"), (), np.ones(1), np.ones(1))
    assert (one.free, one.name, one.price, one.level, one.exact) == (3, "line", 0, 0, False)


def test_slack_counts_standard_errors():
    best, small = entry(np.ones(10), 5), entry(behind(1.5), 1)
    assert winner([best, small]) is best
    assert winner([best, small], 2.0) is small


@pytest.mark.parametrize(
    ("free", "price", "share", "wins"),
    [(2, 2.0, 0.4, True), (3, 2.0, 0.4, False), (2, 3.0, 0.4, False), (2, 2.0, 0.6, False)],
)
def test_half_the_error_of_a_line_will_do_without_a_pole(free, price, share, wins):
    error = np.array([1.0, 1.0, 1.0, 100.0])  # the standard error is as large as the mean
    line, curve = entry(error, free), entry(share * error, 4, price)
    assert winner([line, curve]) is (curve if wins else line)


@pytest.mark.parametrize(("price", "wins"), [(3.0, True), (0.0, False)])
def test_more_poles_must_win_by_a_bend(price, wins):
    one, two = entry(behind(2.5), 3, price), entry(np.ones(10), 5, 3.0, level=4.0)
    assert winner([one, two]) is (two if wins else one)


@pytest.mark.parametrize(("free", "exact", "wins"), [(4, 0, True), (5, 0, False), (5, 1, True)])
def test_typical_errors_mean_nothing_with_a_coefficient_for_every_other_row(free, exact, wins):
    near = np.r_[np.full(7, 1e-4), 7.9]
    plain, pole = entry(np.ones(8), 3), entry(near, free, 3.0, exact=exact)
    assert winner([plain, pole]) is (pole if wins else plain)


def test_what_a_budget_does_not_suffice_for_is_noted_once():
    seen = []
    budget = Budget(0.4, SimpleNamespace(n=0.5, total=2.0, update=seen.append))
    assert budget.allows("a")
    assert not Budget(0.0).allows("a")
    assert not budget.allows("b", 1.0)
    assert not budget.allows("b", 1.0)
    assert budget.cut == ["b"]
    budget.start -= 5  # seconds ago
    budget.left()
    assert seen[-1] == 1.5  # to the end of the bar, not beyond
