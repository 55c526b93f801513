import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.training import coverage_stalled


@pytest.mark.parametrize(
    ("coverages", "patience", "stalled"),
    [
        ([], 1, False),
        ([0.5], 1, True),
        ([0.5], 2, False),
        ([0.5, 0.5], 2, True),
        ([0.9], 1, False),  # as much as asked for is enough
        ([0.5, 0.9, 0.5], 2, False),  # the epochs must be consecutive
        ([0.95, 0.5, 0.5], 2, True),
        ([0.5, 0.5, 0.95], 2, False),
        ([0.899999, 0.0], 2, True),
    ],
)
def test_table(coverages, patience, stalled):
    assert coverage_stalled(coverages, 0.9, patience) is stalled


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12),
    st.floats(0, 1),
    st.integers(1, 5),
)
def test_it_stops_for_want_of_a_new_best_and_never_above_the_threshold(
    coverages, threshold, patience
):
    recent, before = coverages[-patience:], coverages[:-patience] or coverages[:1]
    stalled = coverage_stalled(coverages, threshold, patience)
    if len(recent) < patience or max(recent) >= threshold or max(recent) > max(before) + 0.0011:
        assert not stalled
    elif max(recent) < max(before) + 0.0009:
        assert stalled


@pytest.mark.parametrize("step", [0.0025, 0.0005])
def test_a_coverage_that_rises_goes_on(step):
    rising = [0.06 + step * k for k in range(100)]
    assert not any(coverage_stalled(rising[:k], 0.9, 10) for k in range(1, 100))


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(1, 5))
def test_a_threshold_of_zero_never_stops(coverages, patience):
    assert not coverage_stalled(coverages, 0.0, patience)
