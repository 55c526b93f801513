import io
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.dialects import NUMBERS, READ, REFUSED, XYZ, body, by_zeroproof, right
from zeroproof.data import CellOptions, Kind, Reading, numbers, read_pieces, read_table, write_csv
from zeroproof.data.cells import Marks
from zeroproof.errors import DataError

INF, NAN = math.inf, math.nan


@pytest.fixture
def file(tmp_path):
    def make(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


@pytest.mark.parametrize("name", READ)
def test_a_dialect_is_read(file, name):
    assert right(by_zeroproof(file(READ[name], name)))


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_one_reading_is_refused(file, name):
    with pytest.raises(DataError) as error:
        read_table(file(REFUSED[name], name))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "an empty file"),
        (XYZ, "must have at least one row below its header, got none"),
        ("a,b\nfoo,bar\n", "--sep, --decimal, --skip"),
        (XYZ + body() + "1,2\n", "line 42: must have 3 cells as the header, got 2: '1,2'"),
        ("x;y\n1;1,234\n", "--sep ';' --decimal ',', or --sep ';' --decimal '.' --thousands ','"),
        (XYZ + body() + "Mean,1,2\n", "line 42: must be a row of the table, got 'Mean'"),
        (b"\x1f\x8b" + bytes(90), "must be a readable file"),
        (b"PAR1" + bytes(90), "must be a readable Parquet or Arrow file"),
        (b"PK\x03\x04" + bytes(90), "must be a readable workbook"),
    ],
)
def test_a_refusal_says_what_helps(file, content, told):
    with pytest.raises(DataError) as error:
        read_table(file(content))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("reading", "values"),
    [(Reading(decimal=","), [1.234, 5.678]), (Reading(thousands=","), [1234.0, 5678.0])],
)
def test_the_user_settles_what_the_file_does_not_tell(file, reading, values):
    table = read_table(file("x;y\n1;1,234\n2;5,678\n"), reading)
    assert table.cells("y").value.tolist() == values


def test_what_is_not_usual_is_said(file):
    found = read_table(file(READ["german.csv"]))
    assert found.said == (
        "semicolons between columns",
        "decimal comma",
        "lines above the header left out: 2",
        "units s, mV, mol/l",
        "text in cp1252",
    )
    assert found.units == {"x": "s", "y": "mV", "z": "mol/l"}
    assert read_table(file(XYZ + body())).said == ()


def test_skip_says_where_the_header_is(file):
    found = read_table(file("nonsense 3,4\n2019,2020\n1.5,2.5\n3.5,4.5\n"), Reading(skip=1))
    assert list(found.columns) == ["2019", "2020"]
    assert found.rows == 2


def test_columns_without_a_name_of_their_own_are_left_out(file):
    found = read_table(file(",x,y,y\n0,1,2,3\n1,4,5,6\n"))
    assert list(found.columns) == ["x"]
    with pytest.raises(DataError, match="more than one of that name"):
        found.cells("y")
    with pytest.raises(DataError, match="got none; did you mean 'x'"):
        found.cells("X")


def sheet(path, rows):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.active.title = "Data"
    book.create_sheet("Other")
    book.save(path)


def test_a_workbook_is_read(tmp_path):
    rows = [
        ["Run 3"],
        [],
        ["", "x", "y"],
        ["", "s", "mV"],
        ["", 1, 2.5],
        ["", 2, "<0.5"],
        ["", 3, None],
    ]
    sheet(tmp_path / "book.xlsx", rows)
    found = read_table(tmp_path / "book.xlsx")
    assert found.units == {"x": "s", "y": "mV"}
    assert found.cells("x").value.tolist() == [1, 2, 3]
    assert found.cells("y").kind.tolist() == [Kind.NUMBER, Kind.BOUND, Kind.MISSING]
    cut = read_table(tmp_path / "book.xlsx", sheet="Data!B3:C5")
    assert cut.rows == 1
    with pytest.raises(DataError, match="must have a sheet 'Dta', got Data, Other"):
        read_table(tmp_path / "book.xlsx", sheet="Dta")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "pandas", "polars", "table"])
def test_frames_and_files_of_arrow_are_read(tmp_path, kind):
    frame = pd.DataFrame({"x": [1.5, INF, NAN], "n": [1, 2, 3], "s": ["a", None, "b"]})
    table = pa.table({"x": pa.array([1.5, INF, NAN]), "n": [1, 2, 3], "s": ["a", None, "b"]})
    source = {"pandas": frame, "polars": pl.from_arrow(table), "table": table}.get(kind)
    if kind == "parquet":
        source = tmp_path / "a.anything"
        pyarrow.parquet.write_table(table, source)
    if kind == "arrow":
        source = tmp_path / "a.arrow"
        pyarrow.feather.write_feather(table, source, compression="uncompressed")
    found = read_table(source)
    assert found.cells("x").kind.tolist() == [Kind.NUMBER, Kind.INFINITE, Kind.NAN]
    assert found.cells("n").value.tolist() == [1, 2, 3]
    assert found.cells("s").kind.tolist() == [Kind.TEXT, Kind.MISSING, Kind.TEXT]


def test_standard_input_is_read(tmp_path):
    code = "from zeroproof.data import read_table; print(read_table('-').cells('y').value.sum())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="x;y\n1;2,5\n2;4\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == 6.5


def test_devices_and_pipes_are_refused_at_once(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="must be a file, got a folder, pipe or device"):
            read_table(path)
    with pytest.raises(DataError, match="must be a readable file: No such file"):
        read_table(tmp_path / "absent.csv")


CELLS = [
    ("1", Kind.NUMBER, 1),
    (" -2.5e3 ", Kind.NUMBER, -2500),
    ("+.5", Kind.NUMBER, 0.5),
    ("1.D-01", Kind.NUMBER, 0.1),
    ("−3", Kind.NUMBER, -3),
    ("12 %", Kind.NUMBER, 0.12),
    ("inf", Kind.INFINITE, INF),
    ("-Infinity", Kind.INFINITE, -INF),
    ("-∞", Kind.INFINITE, -INF),
    ("#DIV/0!", Kind.BOTTOM, NAN),
    ("NaN", Kind.NAN, NAN),
    ("", Kind.MISSING, NAN),
    ("N/A", Kind.MISSING, NAN),
    ("#N/A", Kind.MISSING, NAN),
    ("---", Kind.MISSING, NAN),
    ("<0.05", Kind.BOUND, NAN),
    ("≥ 4", Kind.BOUND, NAN),
    ("[1,2.5]", Kind.BOUND, NAN),
    ("1e999", Kind.TEXT, NAN),
    ("1_000", Kind.TEXT, NAN),
    ("0x10", Kind.TEXT, NAN),
    ("1,5", Kind.TEXT, NAN),
    ("5 mV", Kind.TEXT, NAN),
    ("#VALUE!", Kind.TEXT, NAN),
    ("2026-01-02", Kind.TEXT, NAN),
    ("٣", Kind.TEXT, NAN),
]


def test_a_cell_says_what_it_is():
    cells = read_table({"c": [cell for cell, _, _ in CELLS]}).cells("c")
    assert [Kind(kind) for kind in cells.kind] == [kind for _, kind, _ in CELLS]
    np.testing.assert_array_equal(cells.value, [value for _, _, value in CELLS])
    bounds = cells.kind == Kind.BOUND
    assert cells.low[bounds].tolist() == [-INF, 4, 1]
    assert cells.high[bounds].tolist() == [0.05, INF, 2.5]
    assert cells.tokens["5 mV"] == (1, Kind.TEXT)


def test_the_user_says_what_words_mean():
    options = CellOptions("missing", ("bad",), {"LOD": "<0.006", "OVRFLW": ">4.0"})
    cells = read_table({"c": ["bad", "nan", "LOD", "<LOD", "OVRFLW", ">OVRFLW"]}).cells(
        "c", options
    )
    assert cells.kind.tolist() == [Kind.MISSING] * 2 + [Kind.BOUND] * 4
    assert cells.low[2:].tolist() == [-INF, -INF, 4, 4]
    assert cells.high[2:].tolist() == [0.006, 0.006, INF, INF]


@pytest.mark.parametrize("column", [[1.5, NAN, -999.0, 9.9], ["1.5", "nan", "-999.00", "9.9"]])
def test_numbers_may_stand_for_something_else_in_text_and_in_frames(column):
    options = CellOptions("bottom", ("-999",), {"9.9": ">4"})
    cells = read_table({"c": column}).cells("c", options)
    assert cells.kind.tolist() == [Kind.NUMBER, Kind.BOTTOM, Kind.MISSING, Kind.BOUND]
    assert (cells.value[0], cells.low[3], cells.high[3]) == (1.5, 4, INF)
    assert cells.tokens["-999"] == (1, Kind.MISSING)


def test_lines_and_rows_are_counted_over_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("zeroproof.data.tables._BLOCK", 1000)
    path = tmp_path / "long.csv"
    path.write_text("x,y\n" + "".join(f"{k},1\n" for k in range(1000)) + "1000,bad\n")
    with pytest.raises(DataError, match="'bad', first in line 1002"):
        numbers(read_table(path), ["y"])
    *_, last = read_pieces(path)
    with pytest.raises(DataError, match="'bad', first in line 1002"):
        numbers(last, ["y"])


def test_columns_that_are_neither_numbers_nor_text_are_left_out():
    found = read_table(
        pa.table({"x": [1.5], "nested": [[1, 2]], "time": pa.array([1], "time32[s]")})
    )
    assert list(found.columns) == ["x"]
    assert found.said == ("columns of other types left out: nested, time",)


@pytest.mark.parametrize("word", ["#DIV/0!", "#N/A", "#NV", "#¡DIV/0!", "#WERT!"])
def test_errors_of_a_spreadsheet_are_no_comments(file, word):
    assert read_table(file(f"x,y\n1,2\n{word},3\n# a remark\n4,5\n6,7\n8,9\n")).rows == 5


def test_names_may_be_numbers(file):
    found = read_table(file("time,0.1,0.5\n0,5,6\n1,7,8\n2,9,10\n"))
    assert list(found.columns) == ["time", "0.1", "0.5"]
    assert found.rows == 3
    assert found.said == ("numbers among the names of columns",)


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.sampled_from(".,"))
def test_numbers_come_back_to_the_bit(values, decimal):
    table = read_table({"y": [repr(value).replace(".", decimal) for value in values]})
    assert table._replace(marks=Marks(decimal)).cells("y").value.tolist() == values


def test_numbers_names_every_column_that_is_wrong(file):
    found = read_table(file("x,y,z\n1,2,3\n1,bad,\n2,bad,5\n"))
    with pytest.raises(DataError) as error:
        numbers(found, ["x", "y", "z"])
    assert "column 'y': 2 × 'bad', first in line 3" in str(error.value)
    assert "column 'z': 1 × an empty cell, first in line 3" in str(error.value)


def test_lines_are_counted_in_the_file(file):
    found = read_table(file('# by X\n\nx,note\n1,"a\nb"\n\n# more\nq,c\n3,d\n4,d\n5,d\n'))
    with pytest.raises(DataError, match="'q', first in line 8"):
        numbers(found, ["x"])


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, {"a, b": [0.1, INF, NAN], "n": [1, 2, 3]})
    found = numbers(read_table(path), ["a, b", "n"])
    assert torch.equal(found[:, 1], torch.tensor([1.0, 2.0, 3.0]).double())
    assert found[:, 0].tolist()[:2] == [0.1, INF]
    assert io.StringIO(path.read_text()).readline() == '"a, b",n\n'
    assert NUMBERS.shape == (40, 3)
