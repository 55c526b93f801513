import math

import torch

from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.metrics import Share, coverage_share, gap_share, rate

D = torch.tensor([[1.0, 1e-5], [0.0, 1e-9]])


def test_coverage_counts_what_is_not_bottom():
    result = strict_inference(torch.ones(2, 2), D)
    share = coverage_share(result.bottom_mask)
    assert (int(share.hits), int(share.entries)) == (2, 4)
    assert rate(share) == 0.5


def test_the_gap_is_a_share_of_all_answers_and_follows_the_thresholds():
    result = strict_inference(torch.ones(2, 2), D)
    assert rate(gap_share(result.gap_mask)) == 0.25
    wide = strict_inference(torch.ones(2, 2), D, InferenceConfig(tau_infer=1e-10, tau_train=1e-4))
    assert rate(gap_share(wide.gap_mask)) == 0.5


def test_shares_of_unequal_batches_add_up_to_that_of_all():
    bottom = torch.tensor([True, False, False, False, True])
    first, second = coverage_share(bottom[:1]), coverage_share(bottom[1:])
    whole = Share(first.hits + second.hits, first.entries + second.entries)
    assert whole == coverage_share(bottom)
    assert rate(whole) == torch.tensor(3) / 5


def test_of_nothing_there_is_no_rate():
    empty = torch.zeros(0, dtype=torch.bool)
    assert coverage_share(empty) == (0, 0)
    assert math.isnan(rate(gap_share(empty)))
