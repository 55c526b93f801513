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


def test_nothing_is_left_of_what_failed(tmp_path):
    with pytest.raises(ValueError, match="no"), writing(tmp_path / "a.parquet") as write:
        write({"x": [1.0]})
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="--out must end in .csv"), writing(tmp_path / "a.txt"):
        pass
