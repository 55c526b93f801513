import pytest

pytest.importorskip("sklearn")

from benchmarks.field.cases import CASES
from benchmarks.field.runs import rows, run
from benchmarks.field.table import chosen, line, summary

SMALL = (
    "linnerud",
    "Michaelis-Menten, 5 x 1, 3%",
    "normal noise, 8 rows",
    "two RC, 0.3 %",
    "1/(x - 0.3), 8 rows",
    "a/b of whole numbers, (0, 0) unseen",
)


@pytest.mark.parametrize("name", SMALL)
def test_a_case_gives_its_rows(name):
    case = CASES[name]
    runs = [run(name, 0, False)]
    assert not runs[0].failure
    found = rows(case, runs)
    assert [row.measure for row in found] == list(case.measures)
    for row in found:
        assert line(row).count(" | ") == 7
    assert summary(found).startswith(case.group)


def test_a_failing_case_is_a_row_with_the_error_s_name(monkeypatch):
    def draw(seed):
        raise ModuleNotFoundError(seed)

    name = SMALL[0]
    monkeypatch.setitem(CASES, name, CASES[name]._replace(draw=draw))
    row, *_ = rows(CASES[name], [run(name, 0, False)])
    assert "1 x ModuleNotFoundError" in line(row)


def test_a_third_of_each_group_is_held_back():
    for group in {case.group for case in CASES.values()}:
        whole, shown = chosen([group], held_back=True), chosen([group])
        assert len(whole) - len(shown) == len(whole) // 3
    assert chosen([SMALL[0]]) == [CASES[SMALL[0]]]
    assert len(chosen([])) >= 60
    assert len(chosen([], smoke=True)) == len({case.group for case in CASES.values()})
    with pytest.raises(KeyError):
        chosen(["nothing of that name"])
