import json
import math

import numpy as np
import pytest

from zeroproof.data import CellOptions, read_table
from zeroproof.data.schema import Schema, Wanted, rows_of
from zeroproof.errors import DataError

INF, NAN = math.inf, math.nan


def rows(columns, **wanted):
    return rows_of(
        read_table({k: list(map(str, v)) for k, v in columns.items()}), Wanted(("y",), **wanted)
    )


def refusal(columns, **wanted):
    with pytest.raises(DataError) as error:
        rows(columns, **wanted)
    assert max(map(len, str(error.value).splitlines())) < 500
    return str(error.value)


def test_targets_keep_infinities_and_bottom():
    found = rows({"x": [1, 2, 3, 4], "y": [0.5, "inf", "-inf", "#DIV/0!"]})
    np.testing.assert_array_equal(found.y[:, 0], [0.5, INF, -INF, NAN])


def test_nan_in_a_target_is_what_the_user_says():
    columns = {"x": [1, 2, 3], "y": [1, "nan", 3]}
    assert "1 × nan; --nan bottom: there is no finite value, or --nan missing" in refusal(columns)
    bottom = rows(columns, cells=CellOptions("bottom"))
    np.testing.assert_array_equal(bottom.y[:, 0], [1, NAN, 3])
    missing = rows(columns, cells=CellOptions("missing"))
    assert missing.kept.tolist() == [0, 2]
    assert missing.said == ("1 rows with missing cells left out",)


def test_missing_cells_are_counted_and_left_out_on_request():
    columns = {"x": [1, "", 3, "#DIV/0!"], "u": [1, 2, "NA", 4], "y": [1, 2, 3, ""]}
    told = refusal(columns)
    assert "missing cells in 3 of 4 rows ('x' 2, 'u' 1, 'y' 1); --drop-missing" in told
    assert rows(columns, drop_missing=True).kept.tolist() == [0]


def test_bounds_are_refused_with_what_each_makeshift_does():
    columns = {"x": [1, 2, 3, 4], "y": ["<0.05", "<0.05", 0.2, "[0.3,0.5]"]}
    told = refusal(columns)
    assert "3 cells are bounds (2 × <0.05, 1 × [0.3,0.5])" in told
    assert all(f"--bounds {word}" in told for word in ("limit", "half", "drop"))
    assert rows(columns, bounds="half").y[:, 0].tolist() == [0.025, 0.025, 0.2, 0.4]
    assert rows(columns, bounds="limit").y[:2, 0].tolist() == [0.05, 0.05]
    assert rows(columns, bounds="drop").kept.tolist() == [2]


def test_all_problems_are_told_at_once():
    columns = {"x": [1, "inf", 3], "u": ["<1", 2, "bad"], "y": [1, "bad", "nan"]}
    told = refusal(columns)
    for part in ("'y': 1 × 'bad'", "'y': 1 × nan", "'x': 1 × 'inf'", "'u': 1 × '<1', 1 × 'bad'"):
        assert part in told


def test_percent_is_a_hundredth_and_is_not_mixed():
    assert rows({"x": ["10%", "20 %"], "y": [1, 2]}).X[:, 0].tolist() == [0.1, 0.2]
    assert "1 of 2 numbers have a sign %" in refusal({"x": ["10%", 20], "y": [1, 2]})


def test_text_becomes_levels_and_an_unseen_one_is_missing():
    found = rows({"t": ["no", "yes", "no"], "c": ["b", "a", "c"], "y": [1, 2, 3]})
    assert found.schema.names == ("t", "c=b", "c=c")
    assert found.X.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    X, _ = found.schema.matrix(read_table({"c": ["a", "d"], "t": ["yes", "no"]}))
    np.testing.assert_array_equal(X, [[1, 0, 0], [0, NAN, NAN]])


def test_text_that_names_rows_is_left_out_unless_it_is_asked_for():
    columns = {"id": [f"s{k}" for k in range(30)], "x": range(30), "y": range(30)}
    found = rows(columns)
    assert found.schema.names == ("x",)
    assert found.said == ("text of more than 20 values left out: 'id'",)
    assert "text of 30 values, 20 are the most" in refusal(columns, features=("id",))


def test_an_empty_column_is_left_out_unless_it_is_asked_for():
    columns = {"x": [1, 2, 3], "note": ["", "NA", ""], "y": [1, 2, 3]}
    assert rows(columns).said == ("empty column left out: 'note'",)
    assert "missing cells in 3 of 3 rows ('note' 3)" in refusal(columns, features=("x", "note"))


def test_dates_are_days_on_request():
    columns = {"t": ["1970-01-02", "1970-01-03T12:00:00"], "y": [1, 2]}
    assert rows(columns, dates=("t",)).X[:, 0].tolist() == [1, 2.5]


def test_sigma_is_a_weight_and_group_a_number():
    columns = {"x": [1, 2, 3], "s": [1, 2, 0.5], "g": ["a", "b", "a"], "y": [1, 2, 3]}
    found = rows(columns, sigma="s", group="g")
    assert found.weight.tolist() == [1, 0.25, 4]
    assert found.group.tolist() == [0, 1, 0]
    assert found.schema.names == ("x",)
    assert rows(columns | {"g": ["a", "", "a"]}, group="g", drop_missing=True).kept.tolist() == [
        0,
        2,
    ]
    assert "1 standard deviations are not above 0" in refusal(columns | {"s": [1, 0, 1]}, sigma="s")


def test_a_schema_is_checked_at_prediction():
    schema = rows({"alpha": [1, 2], "p": ["1%", "2%"], "y": [1, 2]}).schema
    schema = Schema.of_record(json.loads(json.dumps(schema.record())))
    X, outside = schema.matrix(read_table({"p": ["1%", "inf", ""], "alpha": [1.0, 3.0, NAN]}))
    np.testing.assert_array_equal(X, [[1, 0.01], [3, NAN], [NAN, NAN]])
    assert outside.tolist() == [False, True, False]
    for columns, told in [
        ({"Alpha": [1], "p": ["1%"]}, "must have a column 'alpha', got none; did you mean 'Alpha'"),
        ({"alpha": ["low"], "p": ["1%"]}, "column 'alpha': 1 × 'low'"),
        ({"alpha": [1], "p": [1]}, "column 'p': numbers, fitted as percents"),
    ]:
        with pytest.raises(DataError) as error:
            schema.matrix(read_table(columns))
        assert told in str(error.value)


def test_units_belong_to_a_schema(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\ns,mV\n1,2\n2,3\n")
    (tmp_path / "b.csv").write_text("x\nms\n1\n2\n")
    found = rows_of(read_table(tmp_path / "a.csv"), Wanted(("y",)))
    assert found.schema.features[0].unit == "s"
    with pytest.raises(DataError, match="column 'x': in ms, fitted in s"):
        found.schema.matrix(read_table(tmp_path / "b.csv"))
