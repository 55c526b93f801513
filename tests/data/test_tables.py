import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.data import numbers, read_csv, write_csv
from zeroproof.errors import DataError

INF, NAN = math.inf, math.nan


@pytest.fixture
def table(tmp_path):
    def make(content):
        path = tmp_path / "data.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


@pytest.mark.parametrize(
    ("content", "columns", "cells"),
    [
        ("x,y\n1,2\n", ("x", "y"), [["1", "2"]]),
        ("x,y\n1,2", ("x", "y"), [["1", "2"]]),
        (b"\xef\xbb\xbfx,y\n1,2\n", ("x", "y"), [["1", "2"]]),
        ("x,y\r\n1,2\r\n", ("x", "y"), [["1", "2"]]),
        ("x,y\r1,2\r", ("x", "y"), [["1", "2"]]),
        ('"a, b",y\n1,2\n', ("a, b", "y"), [["1", "2"]]),
        ('"a ""b""",y\n"1","2"\n', ('a "b"', "y"), [["1", "2"]]),
        ("\n x , y \n\n1,2\n , \n3,4\n\n", ("x", "y"), [["1", "2"], ["3", "4"]]),
        ("a;b\n1\n", ("a;b",), [["1"]]),
        ("größe,⊥\n1,2\n", ("größe", "⊥"), [["1", "2"]]),
    ],
    ids=["plain", "no-end", "bom", "crlf", "cr", "comma", "quotes", "blank", "semicolon", "utf-8"],
)
def test_a_table_is_read(table, content, columns, cells):
    found = read_csv(table(content))
    assert found.columns == columns
    assert found.cells == cells


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "must name its columns in its first line, got an empty file"),
        ("\n\n , \n", "must name its columns in its first line, got an empty file"),
        ("x,y\n", "must have at least one row below its header, got none"),
        ("x,,y\n1,2,3\n", "must name every column, got an empty name in the header"),
        ("x,y, x \n1,2,3\n", "must name each column once, got 'x' twice"),
        (
            "x;y\n1.5;2\n",
            "must have commas between its columns, got ';' between columns. This writes",
        ),
        ("x;y\n1.5;2\n", "tr ';' ',' < data.csv > commas.csv"),
        (
            "x;y\n1,5;2\n2;3\n",
            "and points in its numbers, got ';' between columns and decimal commas",
        ),
        ("x;y\n1,5;2\n2;3\n", "tr ',;' '.,' < data.csv > commas.csv"),
        ("x\ty\n1\t2\n", "tr '\\t' ',' < data.csv"),
        ("x,y\n\n1,2\n3\n", "line 4: must have 2 cells as the header, got 1"),
        ("x,y\n1,2\n3,4,5\n", "line 3: must have 2 cells as the header, got 3"),
        ("x,y\n1,2\n3,\0\n", "line 3: must be text, got a NUL byte"),
        ("x,y\n1,2\n".encode("utf-16-be"), "line 1: must be text, got a NUL byte"),
        ("x,y\n1,2\n".encode("utf-16"), "line 1: must be UTF-8 text, got byte 0xff"),
        (b"x,y\n1,2\n3,\xe9\n", "line 3: must be UTF-8 text, got byte 0xe9"),
        ('x,y\n1,2\n3,"4\n', "line 3: must be CSV, got unexpected end of data"),
        ('x,y\n1,"2"3\n', "line 2: must be CSV, got ',' expected after '\"'"),
    ],
)
def test_a_table_that_is_none_is_refused_in_one_sentence(table, content, sentence):
    path = table(content)
    with pytest.raises(DataError) as caught:
        read_csv(path)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent.csv must be .*: No such file or directory"):
        read_csv(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="must be a readable CSV file: Is a directory"):
        read_csv(tmp_path)


def test_columns_become_numbers_in_the_order_asked_for(table):
    found = read_csv(table("x,y,name\n1, -2.5e3 ,a\ninf,-Infinity,b\nnan,+.5,c\n"))
    values = numbers(found, ["y", "x"])
    assert values.dtype == torch.float64
    expected = torch.tensor([[-2500.0, 1], [-INF, INF], [0.5, NAN]], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)
    assert numbers(found, []).shape == (3, 0)


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("low", "line 3, column 'y': must be a number, got 'low'; ADVICE"),
        ("", "line 3, column 'y': must be a number, got an empty cell; ADVICE"),
        ("1_000", "line 3, column 'y': must be a number, got '1_000'; ADVICE"),
        ("0x10", "line 3, column 'y': must be a number, got '0x10'; ADVICE"),
        ("<0.5", "line 3, column 'y': must be a number, got '<0.5'; ADVICE"),
        ("1e999", "line 3, column 'y': must be at most 1.8e308 in size, got '1e999'; ADVICE"),
    ],
)
def test_a_cell_that_is_no_number_is_named(table, cell, sentence):
    found = read_csv(table(f"x,y\n1,2\n3,{cell}\n"))
    with pytest.raises(DataError) as caught:
        numbers(found, ["y"], advice="; ADVICE")
    assert str(caught.value) == f"{found.name}, {sentence}"
    assert numbers(found, ["x"]).flatten().tolist() == [1, 3]


@pytest.mark.parametrize("cell", ["inf", "-inf", "nan", "NaN"])
def test_finite_columns_hold_finite_numbers(table, cell):
    found = read_csv(table(f"x\n1\n\n{cell}\n"))
    with pytest.raises(DataError, match=rf"line 4, column 'x': must be a finite .* got '{cell}'"):
        numbers(found, ["x"], finite=True)


def test_a_line_is_counted_where_a_quoted_cell_spans_several(table):
    found = read_csv(table('x,note\n1,"a\nb"\n2,c\nq,d\n'))
    with pytest.raises(DataError, match="line 5, column 'x'"):
        numbers(found, ["x"])


def test_a_missing_column_is_named_beside_those_there_are(table):
    with pytest.raises(DataError, match=r"must have a column 'z', got 'x', 'y'$"):
        numbers(read_csv(table("x,y\n1,2\n")), ["x", "z"])


@given(values=st.lists(st.floats(), min_size=1, max_size=20))
def test_what_is_written_reads_back_the_same(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("written") / "data.csv"
    write_csv(path, {"a, b": values, "n": range(len(values))})
    found = numbers(read_csv(path), ["a, b", "n"])
    expected = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=0, equal_nan=True)
    assert found[:, 1].tolist() == list(range(len(values)))


def test_columns_of_unequal_length_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        write_csv(tmp_path / "data.csv", {"a": [1.0, 2.0], "b": [1.0]})
    assert list(tmp_path.iterdir()) == []
