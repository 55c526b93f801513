import pytest

from zeroproof.errors import RangeError
from zeroproof.training.adaptive import AdaptiveCoverageScheduler


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 0.80), (1, 0.8075), (10, 0.875), (20, 0.95), (21, 0.95), (999, 0.95)],
)
def test_the_guides_schedule(epoch, expected):
    scheduler = AdaptiveCoverageScheduler(
        initial_coverage=0.80, target_coverage=0.95, warmup_epochs=20
    )
    assert scheduler.step(epoch) == pytest.approx(expected)
    assert scheduler == AdaptiveCoverageScheduler()


def test_no_warmup_gives_the_target_at_once():
    assert AdaptiveCoverageScheduler(0.5, 0.9, warmup_epochs=0).step(0) == 0.9


def test_the_answer_depends_on_the_epoch_alone():
    scheduler = AdaptiveCoverageScheduler()
    late = scheduler.step(15)
    scheduler.step(2)
    assert scheduler.step(15) == late


def test_equal_coverages_are_a_constant():
    scheduler = AdaptiveCoverageScheduler(0.9, 0.9)
    assert {scheduler.step(epoch) for epoch in range(30)} == {0.9}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"initial_coverage": 1.2}, r"initial_coverage must lie in \[0, 1\], got 1.2"),
        ({"target_coverage": -0.1}, r"target_coverage must lie in \[0, 1\], got -0.1"),
        ({"initial_coverage": 0.99}, "initial_coverage must not exceed target_coverage"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a whole number of at least 0, got -1"),
        ({"warmup_epochs": 2.5}, "warmup_epochs must be a whole number of at least 0, got 2.5"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(RangeError, match=match):
        AdaptiveCoverageScheduler(**options)


def test_the_epoch_is_checked():
    with pytest.raises(RangeError, match="epoch must be a whole number of at least 0, got -1"):
        AdaptiveCoverageScheduler().step(-1)
