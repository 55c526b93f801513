import pytest
import torch

from zeroproof.defaults import TAU_INFER, TAU_TRAIN
from zeroproof.errors import RangeError
from zeroproof.estimators.thresholds import choose_thresholds
from zeroproof.inference import strict_inference
from zeroproof.projective import denominator_score


def chosen(bad, good, **fixed):
    score = torch.tensor([*bad, *good])
    singular = torch.tensor([True] * len(bad) + [False] * len(good), dtype=torch.bool)
    return choose_thresholds(score, singular, **fixed)


def best_youden(bad, good):
    bad, good = torch.tensor(bad), torch.tensor(good)
    levels = [*(torch.nextafter(b, torch.tensor(9.0)) for b in bad)]
    return max(float((bad < t).double().mean() - (good < t).double().mean()) for t in levels)


CASES = {
    "apart": ([0.1, 0.01], [0.5, 0.7, 0.9]),
    "overlap": ([0.1, 0.6], [0.5, 0.7, 0.9]),
    "outlier": ([0.9, 0.01, 0.02], [0.03, 0.04, 0.5, 0.7, 0.8]),
    "worse": ([0.3], [0.1, 0.2]),
    "ties": ([0.3, 0.3, 0.3], [0.3, 0.4]),
    "near 1": ([0.9995], [0.9999, 0.99995]),
}


@pytest.mark.parametrize(("bad", "good"), CASES.values(), ids=CASES)
def test_tau_infer_maximises_youdens_j_and_tau_train_covers_all_singular_rows(bad, good):
    config = chosen(bad, good)
    bad_score, good_score = torch.tensor(bad), torch.tensor(good)
    caught = (bad_score < config.tau_infer).double().mean()
    lost = (good_score < config.tau_infer).double().mean()
    assert float(caught - lost) == pytest.approx(best_youden(bad, good))
    assert (bad_score < config.tau_train).all()
    assert config.tau_train >= min(1, 2 * config.tau_infer)
    assert (config.score, config.scale) == ("angle", 1.0)


def test_tau_infer_lies_in_the_geometric_middle_of_the_gap():
    assert chosen([0.01, 0.02], [0.08, 0.5]).tau_infer == pytest.approx(0.04)
    assert chosen([0.02], [0.01]).tau_infer == pytest.approx(0.04)  # nothing beyond: twice
    assert chosen([0.81], [0.5]).tau_infer == pytest.approx(0.9)  # and never beyond 1
    assert chosen([1.0], [0.5]).tau_infer == 1


def test_of_thresholds_that_are_as_good_the_one_that_loses_fewer_rows_is_taken():
    # one of two ⊥ caught and none of two rows lost, or both ⊥ and one row
    assert 0.1 < chosen([0.1, 0.3], [0.2, 0.9]).tau_infer < 0.2


@pytest.mark.parametrize("bad", [0.0, 1e-7, 1e-5, 1e-3, 0.1, 0.3, 1 / 3, 0.7])
@pytest.mark.parametrize("apart", [0.0, 1e-6, 1e-4, 0.1])
def test_a_singular_row_keeps_a_margin_of_rounding(bad, apart):
    near, far = bad * (1 + apart), [0.8, 0.85, 0.9]
    tau = chosen([bad] * 5, [near, *far]).tau_infer
    rounding = bad * (1 - bad**2) * 5e-4 + 5e-7
    assert bad + rounding < tau
    if bad * apart > 0.01:
        assert tau < near - rounding


def test_a_margin_is_not_taken_where_it_costs_more_than_it_saves():
    # a margin above the last one would lose half of the finite rows
    assert 0.5 < chosen([0.1, 0.1, 0.1, 0.5], [0.5001, 0.5002, 0.6, 0.7]).tau_infer < 0.5001


def test_rounding_is_that_of_the_scores():
    score = torch.tensor([1e-12, 1e-11], dtype=torch.float64)
    config = choose_thresholds(score, torch.tensor([True, False]), least=1e-15)
    assert config.tau_infer == pytest.approx(10**-11.5)


def test_thresholds_and_decoding_agree_on_the_same_tuples():
    N, D = torch.randn(500), torch.randn(500) / 3
    score = denominator_score(N, D, "angle")
    singular = score < 0.4
    config = choose_thresholds(score, singular)
    result = strict_inference(N, D, config)
    assert torch.equal(result.bottom_mask, singular)
    assert torch.equal(result.gap_mask, ~singular & (score < config.tau_train))
    assert result.gap_mask.any()


def test_scores_of_0_leave_a_margin():
    # they count as the guide's threshold
    assert chosen([0.0, 0.0], [0.5]) == chosen([TAU_INFER.value], [0.5])
    assert chosen([0.0, 0.0], [0.0]).tau_infer == TAU_INFER.value
    assert chosen([0.0], [0.5]).tau_infer > 10 * TAU_INFER.value


@pytest.mark.parametrize(("bad", "good"), [([], [0.1, 0.2]), ([0.1], []), ([], [])])
def test_without_both_kinds_of_rows_the_defaults_stay(bad, good):
    config = chosen(bad, good)
    assert (config.tau_infer, config.tau_train) == (TAU_INFER.value, TAU_TRAIN.value)


def test_scores_that_are_nan_do_not_count():
    nan = float("nan")
    assert chosen([nan, 0.1], [nan, 0.5]) == chosen([0.1], [0.5])


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ({"tau_infer": 0.01}, (0.01, 0.4)),
        ({"tau_infer": 0.3}, (0.3, 0.6)),
        ({"tau_train": 0.5}, (0.4, 0.5)),
        ({"tau_infer": 0.7}, (0.7, 1.0)),
        ({"tau_train": 0.05}, (0.05, 0.05)),
        ({"tau_infer": 0.01, "tau_train": 0.02}, (0.01, 0.02)),
    ],
)
def test_a_threshold_of_the_user_stays(fixed, expected):
    config = chosen([0.2], [0.8], **fixed)
    assert (config.tau_infer, config.tau_train) == pytest.approx(expected, rel=1e-6)


def test_thresholds_of_the_user_must_be_in_order():
    with pytest.raises(RangeError, match="tau_infer must not exceed tau_train"):
        chosen([0.2], [0.5], tau_infer=0.4, tau_train=0.3)
