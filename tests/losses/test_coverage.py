import math

import pytest
import torch

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.losses.coverage import coverage, rejection_loss, soft_coverage
from zeroproof.projective import denominator_score


@pytest.mark.parametrize(
    ("bottom", "expected"),
    [([], 1.0), ([True], 0.0), ([False], 1.0), ([True, False, False, False], 0.75)],
)
def test_coverage_counts_finite_answers(bottom, expected):
    share = coverage(torch.tensor(bottom, dtype=torch.bool))
    assert share == expected
    assert share.shape == ()


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [(0.75, 0.95, 0.04), (0.95, 0.95, 0.0), (1.0, 0.95, 0.0), (0.0, 1.0, 1.0), (0.5, 0.0, 0.0)],
)
def test_rejection_is_the_squared_shortfall(value, target, expected):
    for given in (torch.tensor(value), value, torch.tensor([value])):
        loss = rejection_loss(given, target_coverage=target)
        assert loss.shape == ()
        assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_the_guides_number():
    assert rejection_loss(torch.tensor(0.75), target_coverage=0.95).item() == pytest.approx(0.04)
    assert rejection_loss(torch.tensor(0.75)).item() == pytest.approx(0.04)


def test_soft_coverage_is_a_mean_of_sigmoids():
    score = torch.tensor([0.0, 0.01, 0.02, 5.0], dtype=torch.float64)
    expected = sum(1 / (1 + math.exp(-(s - 0.01) / 0.02)) for s in score.tolist()) / 4
    assert soft_coverage(score, 0.01, temperature=0.02).item() == pytest.approx(expected)


def test_soft_coverage_tends_to_coverage():
    score = torch.tensor([0.0, 0.5e-4, 2e-4, 1.0])
    assert soft_coverage(score, 1e-4, temperature=1e-7).item() == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_a_score_that_is_not_finite_is_not_covered_and_has_no_gradient(bad):
    score = torch.tensor([1.0, bad], requires_grad=True)
    share = soft_coverage(score, 1e-4)
    assert share == 0.5
    share.backward()
    assert torch.isfinite(score.grad).all()
    assert score.grad[1] == 0


def test_half_precision_and_empty_scores():
    assert soft_coverage(torch.ones(3, dtype=torch.float16), 1e-4).dtype == torch.float32
    assert soft_coverage(torch.empty(0), 1e-4) == 0


@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda policy: policy.name)
@pytest.mark.parametrize("score", ["denominator", "angle"])
def test_no_policy_silences_or_clamps_soft_coverage(policy, score):
    N, D = torch.ones(4), torch.tensor([0.0, 1e-4, -1e-3, 1e-2], requires_grad=True)
    share = soft_coverage(denominator_score(N, D, score), 1e-4, temperature=1e-3)
    with gradient_policy(policy):
        (1e4 * rejection_loss(share)).backward()
    assert torch.isfinite(D.grad).all()
    assert (D.grad != 0).all()  # also at D = 0, so that a layer can leave ⊥
    assert D.grad.abs().max() > 1


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: rejection_loss(torch.tensor(0.5), 1.5), r"target_coverage must lie in \[0, 1\]"),
        (lambda: rejection_loss(75.0), r"coverage must lie in \[0, 1\], got 75.0"),
        (lambda: soft_coverage(torch.ones(1), 0.0), r"tau must lie in \(0, inf\), got 0.0"),
        (
            lambda: rejection_loss(torch.ones((), dtype=torch.complex64)),
            "coverage must be real, got torch.complex64",
        ),
        (
            lambda: soft_coverage(torch.ones(1, dtype=torch.complex64), 1e-4),
            "score must be real, got torch.complex64",
        ),
        (
            lambda: soft_coverage(torch.ones(1), 1e-4, temperature=0.0),
            "temperature must be a finite number above 0",
        ),
    ],
)
def test_ranges(call, match):
    with pytest.raises(RangeError, match=match):
        call()


def test_a_mask_is_not_a_coverage():
    with pytest.raises(ShapeError, match=r"coverage must be one number, got the shape \(4,\)"):
        rejection_loss(torch.ones(4))
