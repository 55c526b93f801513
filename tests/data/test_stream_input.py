import decimal
import math
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from zeroproof.data import TableStream, units
from zeroproof.errors import DataError, MissingExtraError, RangeError

INF, NAN = math.inf, math.nan


@pytest.fixture
def parquet(tmp_path):
    def write(name="a.parquet", group=2, **columns):
        pq.write_table(pa.table(columns), tmp_path / name, row_group_size=group)
        return tmp_path / name

    return write


@pytest.fixture
def table(tmp_path):
    def write(text, name="a.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def stream_of(source, **options):
    return TableStream(source, **{"features": ["x"], "target": "y", "shuffle": False} | options)


def refusal(source, **options):
    with pytest.raises(DataError) as caught:
        list(stream_of(source, **options))
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([True, False]), [1, 0]),
        (pa.array([2**63 + 2**40, 1], pa.uint64()), [2.0**63 + 2**40, 1]),
        (pa.array([-(2**62), 2**53 + 1]), [-(2.0**62), 2.0**53]),
        (pa.array([decimal.Decimal("1.25"), decimal.Decimal(-3)]), [1.25, -3]),
        (pa.array([decimal.Decimal("0.5"), 1], pa.decimal256(50, 3)), [0.5, 1]),
        (pa.array([1.5, -2], pa.float16()), [1.5, -2]),
        (pa.array([1.5, -2], pa.float32()), [1.5, -2]),
        (pa.array([1, -2], pa.int8()), [1, -2]),
    ],
    ids=lambda x: str(getattr(x, "type", "")),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_of_every_numeric_type_become_numbers(parquet, values, expected, dtype):
    ((x, y),) = stream_of(parquet(x=values, y=values), dtype=dtype)
    assert torch.equal(x, torch.tensor(expected, dtype=torch.float64).to(dtype)[:, None])
    assert torch.equal(x, y)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_targets_may_be_infinite_or_nan(parquet, table, kind):
    y = [INF, -INF, NAN, 1.0, INF]
    if kind == "csv":
        cells = ("inf", " -Infinity", "nan", '"1.0"', "INF ")
        path = table("x,y\n" + "".join(f"{x},{cell}\n" for x, cell in enumerate(cells)))
    else:
        path = parquet(x=range(5), y=y)
    ((_, found),) = stream_of(path)
    torch.testing.assert_close(found[:, 0], torch.tensor(y), rtol=0, atol=0, equal_nan=True)


def test_row_groups_and_files_without_rows_are_passed_over(parquet, tmp_path):
    schema = pa.schema([("x", pa.int64()), ("y", pa.float64())])
    with pq.ParquetWriter(parquet("b.parquet", x=[9], y=[9.0]), schema) as writer:
        for x in ([], [1, 2], [], [3], []):
            writer.write_table(pa.table({"x": x, "y": list(map(float, x))}, schema))
    parquet("a.parquet", x=pa.array([], pa.int64()), y=pa.array([], pa.float64()))
    ((x, _),) = stream_of(tmp_path)
    assert x[:, 0].tolist() == [1, 2, 3]
    assert stream_of(tmp_path).rows == 3


def test_a_file_may_have_other_columns_in_another_order(parquet, tmp_path):
    parquet("a.parquet", x=[1], y=[2.0])
    parquet("b.parquet", note=["a"], y=[4], x=[3.0])
    ((x, y),) = stream_of(tmp_path)
    assert torch.cat([x, y], 1).tolist() == [[1, 2], [3, 4]]


PARQUET = {
    "missing": ({"x": [1]}, r"must have a column 'y', got 'x'"),
    "text": ({"x": ["1"], "y": [1]}, r", column 'x': must hold numbers, got string"),
    "date": ({"x": [1], "y": pa.array([1], pa.date32())}, r", column 'y': must hold .* date32"),
    "lists": ({"x": [[1.0]], "y": [1]}, r", column 'x': must hold numbers, got list<"),
    "null": (
        {"x": [1, 2, 3], "y": [1.0, 2.0, None]},
        r", row 2 \(counted from 0\), column 'y': must be a number, got null",
    ),
    "infinite": (
        {"x": [1, 2, 3, INF], "y": [1.0] * 4},
        r", row 3 \(counted from 0\), column 'x': must be a finite number, got inf",
    ),
    "nan": ({"x": [NAN], "y": [1]}, r", row 0 .*, column 'x': must be a finite number, got nan"),
    "large-x": ({"x": [-1e39], "y": [1]}, r"'x': must be at most 3.4e\+38 in size .*got -1e\+39"),
    "large-y": (
        {"x": [1, 1], "y": [INF, 1e39]},
        r", row 1 .*, column 'y': must be at most 3.4e\+38 in size for torch.float32, got 1e\+39",
    ),
    "empty": ({"x": pa.array([], pa.int8()), "y": pa.array([], pa.int8())}, "at least one row"),
}


@pytest.mark.parametrize(("columns", "sentence"), PARQUET.values(), ids=PARQUET)
def test_what_is_wrong_in_a_parquet_file_is_named(parquet, columns, sentence):
    path = parquet(**columns)
    with pytest.raises(DataError, match=rf"^{path}.*{sentence}"):
        list(stream_of(path))


def test_the_file_whose_schema_differs_is_named(parquet, tmp_path):
    parquet("a.parquet", x=[1], y=[1.0])
    parquet("b.parquet", x=[1], y=["low"])
    assert refusal(tmp_path).startswith(f"{tmp_path / 'b.parquet'}, column 'y': must hold numbers")


def test_a_column_named_twice_is_refused(tmp_path, table):
    once = pa.array([1])
    pq.write_table(pa.table([once] * 3, names=["x", "y", "x"]), tmp_path / "a.parquet")
    for path in (tmp_path / "a.parquet", table("x, y,x\n1,1,1\n")):
        assert refusal(path) == f"{path} must name each column once, got 'x' twice"


CSV = {
    "missing": ("x,z\n1,2\n", " must have a column 'y', got 'x', 'z'"),
    "nothing": ("", " must name its columns in its first line, got an empty file"),
    "blank": ("\n , \n", " must name its columns in its first line, got an empty file"),
    "header": ("x,y\n", " must have at least one row, got none"),
    "text": ("x,y\n1,2\n3,low\n", " must hold numbers, got column 'y': 1 × 'low', first in line 3"),
    "empty": (
        "x,y\n1,2\n\n3,\n",
        " must hold numbers, got column 'y': 1 × an empty cell, first in",
    ),
    "spaces": ("x,y\n1,2\n ,3\n", " must hold finite numbers, got column 'x': 1 × an empty cell"),
    "null": ("x,y\n1,NA\n", " must hold numbers, got column 'y': 1 × 'NA', first in line 2"),
    "grouped": ("x,y\n1_000,2\n", " must hold finite numbers, got column 'x': 1 × '1_000'"),
    "short": ("x,y\n1,2\n3\n", ", line 3: must have 2 cells as the header, got 1"),
    "long": ("x,y\r\n1,2\r\n3,4,5\r\n", ", line 3: must have 2 cells as the header, got 3"),
    "infinite": ("x,y\n1,2\n\n-inf,3\n", " must hold finite numbers, got column 'x': 1 × '-inf'"),
    "large": (
        "x,y\n1,inf\n3,1e999\n",
        " must hold numbers, got column 'y': 1 × '1e999'",
    ),
    "large32": ("x,y\n1,inf\n3,1e39\n", ", line 3, column 'y': must be at most 3.4e+38 in size"),
    "quote": ('x,y\n1,2\n"3\n",4\n', ", line 3: must close its quotes; a file with line breaks"),
    "cr": ("x,y\r1,2\r", r" must end its header with \n or \r\n, got a line break inside it"),
    "utf-8": (b"x,\xe9\n1,2\n", " must be UTF-8 text, got other bytes in its header"),
    "digits": (
        "x,y\n1,2\n\u0663,4\n",
        " must hold finite numbers, got column 'x': 1 × '\u0663', first in line 3",
    ),
}


@pytest.mark.parametrize("size", [7, 1 << 20])
@pytest.mark.parametrize(("text", "sentence"), CSV.values(), ids=CSV)
def test_what_is_wrong_in_a_csv_file_is_named(table, monkeypatch, text, sentence, size):
    monkeypatch.setattr(units, "BYTES", size)
    path = table(text)
    assert refusal(path).startswith(f"{path}{sentence}")


def test_files_that_cannot_be_read_are_named(tmp_path, table):
    assert refusal(tmp_path / "absent").startswith(f"{tmp_path / 'absent'} must be a file or a")
    assert refusal(tmp_path) == f"{tmp_path} must hold files *.parquet or *.csv, got none"
    assert refusal([]) == "source must name at least one file, got an empty list"
    path = table("no table", "a.txt")
    assert refusal(path) == f"{path} must be a file *.parquet or *.csv, got another kind"
    path = table("no table", "a.parquet")
    assert refusal(path).startswith(f"{path} must be a readable Parquet file: Parquet magic bytes")
    other = table("x,y\n1,2\n", "b.csv")
    assert refusal(tmp_path).startswith(
        f"files must be all *.parquet or all *.csv, got {path} and {other}; choose"
    )


def test_a_damaged_row_group_is_refused_by_name(parquet):
    path = parquet(x=list(range(2000)), y=[1.0] * 2000, group=500)
    stream = stream_of(path)
    content = bytearray(path.read_bytes())
    content[100:4000] = bytes(3900)
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path} must be a readable Parquet file: "):
        list(stream)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_that_changes_is_noticed(parquet, table, kind):
    path = parquet(x=[1, 2, 3], y=[1, 2, 3]) if kind == "parquet" else table("x,y\n1,2\n3,4\n")
    stream = stream_of(path)
    _ = parquet(x=[1], y=[1]) if kind == "parquet" else table("x,y\n1,2\n")
    with pytest.raises(DataError, match=f"^{path} must not change while it is streamed"):
        list(stream)


def test_the_sentence_of_a_worker_arrives_as_it_is(parquet):
    path = parquet(x=[1.0, NAN], y=[1, 2])
    assert refusal(path, num_workers=1) == refusal(path)


OPTIONS = {
    "neither": ({"target": None}, "give target='y' or targets="),
    "both": ({"targets": ["y"]}, "give target='y' or targets="),
    "text": ({"features": "xy"}, r"features must be a list of .* column name, got 'xy'"),
    "none": ({"features": []}, r"features must be a list of at least one column name, got \[\]"),
    "targets": ({"target": None, "targets": [1]}, r"targets must be .*, got \[1\]"),
    "batch": ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    "buffer": ({"buffer_rows": 2.5}, "buffer_rows must be a whole number of at least 1, got 2.5"),
    "seed": ({"seed": None}, "seed must be a whole number of at least 0, got None"),
    "workers": ({"num_workers": -1}, "num_workers must be a whole number .*, got -1"),
    "dtype": ({"dtype": torch.int64}, "dtype must be a floating-point type, got torch.int64"),
    "half": ({"rank": 1}, "must be given together, got rank=1 and world_size=None"),
    "rank": ({"rank": 2, "world_size": 2}, "rank must be below world_size=2, got 2"),
    "world": ({"rank": 0, "world_size": 0}, "world_size must be .* at least 1, got 0"),
}


@pytest.mark.parametrize(("options", "sentence"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_are_not_legal_are_refused(table, options, sentence):
    with pytest.raises(RangeError, match=sentence):
        stream_of(table("x,y\n1,2\n"), **options)


def test_without_pyarrow_it_says_what_to_install(table, parquet, monkeypatch):
    path = parquet(x=[1], y=[1])
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    for source in (path, table("x,y\n1,2\n")):
        with pytest.raises(MissingExtraError, match=r"type: pip install .*\[data\]"):
            list(stream_of(source))


def test_the_room_loads_without_pyarrow():
    statement = "import sys; sys.modules['pyarrow'] = None; import zeroproof.data"
    subprocess.run([sys.executable, "-c", statement], check=True)
