import pytest

pytest.importorskip("accelerate")

from benchmarks.train.batching import windows
from benchmarks.train.poles import readout
from benchmarks.train.rows import judged, line
from benchmarks.train.sound import sound


@pytest.mark.parametrize("task", [sound, windows, readout])
def test_what_holds_after_any_number_of_steps_holds_in_the_quick_table(task):
    rows = list(task(quick=True))
    assert {judged(row) for row in rows} == {"MET"}
    assert {line(row).count("|") for row in rows} == {8}
