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
    st.lists(st.floats(0, 1), max_size=12),
    st.floats(0, 1),
    st.integers(1, 5),
)
def test_it_is_the_length_of_the_last_run_below_the_threshold(coverages, threshold, patience):
    run = 0
    for coverage in coverages:
        run = run + 1 if coverage < threshold else 0
    assert coverage_stalled(coverages, threshold, patience) is (run >= patience)


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(1, 5))
def test_a_threshold_of_zero_never_stops(coverages, patience):
    assert not coverage_stalled(coverages, 0.0, patience)
