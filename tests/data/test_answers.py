import math

import numpy as np
import pytest

from zeroproof.data import read_table, writing
from zeroproof.errors import DataError


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.arrow"])
def test_columns_come_back_piece_by_piece(tmp_path, name):
    with writing(tmp_path / name) as write:
        write({"x, y": np.array([0.1, math.inf]), "s": ["pole", "answer"]})
        write({"x, y": np.array([math.nan, -1e-300]), "s": ["gap", "0/0"]})
    found = read_table(tmp_path / name)
    np.testing.assert_array_equal(found.cells("x, y").value, [0.1, math.inf, math.nan, -1e-300])
    assert found.columns["s"].to_pylist() == ["pole", "answer", "gap", "0/0"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def fail(path):
    with writing(path) as write:
        write({"x": [1.0]})
        raise OSError


def test_nothing_is_left_of_what_failed(tmp_path):
    with pytest.raises(OSError):  # noqa: PT011 - any
        fail(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"--out must end in \.csv"):
        fail(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []
