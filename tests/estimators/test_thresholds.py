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


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ([0.1, 0.01], [0.5, 0.7, 0.9]),
        ([0.1, 0.6], [0.5, 0.7, 0.9]),
        ([0.9, 0.01, 0.02], [0.03, 0.04, 0.5, 0.7, 0.8]),
        ([0.3], [0.1, 0.2]),
        ([0.3, 0.3, 0.3], [0.3, 0.4]),
    ],
    ids=["apart", "overlap", "outlier", "worse", "ties"],
)
def test_tau_infer_maximises_youdens_j_and_tau_train_covers_all_singular_rows(bad, good):
    config = chosen(bad, good)
    bad_score, good_score = torch.tensor(bad), torch.tensor(good)
    caught = (bad_score < config.tau_infer).double().mean()
    lost = (good_score < config.tau_infer).double().mean()
    assert float(caught - lost) == pytest.approx(best_youden(bad, good))
    assert (bad_score < config.tau_train).all()
    assert config.tau_train == pytest.approx(min(1, max(2 * config.tau_infer, *bad, 0)))
    assert (config.score, config.scale) == ("angle", 1.0)


@pytest.mark.parametrize("score", [0.1, 0.3, 1 / 3, 0.7])
def test_a_singular_row_lies_below_the_threshold_chosen_from_it(score):
    assert not torch.tensor([score]) >= chosen([score], [0.9]).tau_infer


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
    config = chosen([0.0, 0.0], [0.5])
    assert (config.tau_infer, config.tau_train) == (TAU_INFER.value, 2 * TAU_INFER.value)


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
        ({"tau_infer": 0.01}, (0.01, 0.2)),
        ({"tau_infer": 0.4}, (0.4, 0.8)),
        ({"tau_train": 0.3}, (0.2, 0.3)),
        ({"tau_infer": 0.7}, (0.7, 1.0)),
        ({"tau_train": 0.05}, (0.05, 0.05)),
        ({"tau_infer": 0.01, "tau_train": 0.02}, (0.01, 0.02)),
    ],
)
def test_a_threshold_of_the_user_stays(fixed, expected):
    config = chosen([0.2], [0.5], **fixed)
    assert (config.tau_infer, config.tau_train) == pytest.approx(expected, rel=1e-6)


def test_thresholds_of_the_user_must_be_in_order():
    with pytest.raises(RangeError, match="tau_infer must not exceed tau_train"):
        chosen([0.2], [0.5], tau_infer=0.4, tau_train=0.3)
