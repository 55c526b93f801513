import json
import math

import pytest
from matplotlib.figure import Figure

from zeroproof.errors import DataError
from zeroproof.training import History

ROWS = [
    {"train_loss": 2.0, "train_coverage": 0.5, "train_gap": 0.1, "skipped_steps": 1},
    {"train_loss": 1.0, "train_coverage": 1.0, "train_gap": 0.0, "skipped_steps": 0, "lr": 1e-3},
]


def test_it_is_a_list_of_dicts():
    history = History(ROWS)
    assert isinstance(history, list)
    assert history == ROWS
    assert min(row["train_loss"] for row in history) == 1.0


def test_to_pandas_has_one_row_per_epoch_and_nan_where_a_value_is_absent():
    frame = History(ROWS).to_pandas()
    assert frame.shape == (2, 5)
    assert frame.index.name == "epoch"
    assert frame["train_loss"].tolist() == [2.0, 1.0]
    assert math.isnan(frame["lr"][0])
    assert frame["lr"][1] == 1e-3


def test_plot_returns_a_figure():
    assert isinstance(History(ROWS).plot(), Figure)


def test_plot_of_nothing_is_an_error():
    with pytest.raises(DataError, match="rows must hold at least one epoch, got none"):
        History().plot()


def test_save_json_gives_the_rows_back_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "run" / "history.json"
    History(ROWS[:1]).save_json(path)
    History(ROWS).save_json(str(path))
    assert json.loads(path.read_text(encoding="utf-8")) == ROWS
    assert list(path.parent.iterdir()) == [path]


def test_save_json_writes_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "history.json"
    History([{"train_loss": math.nan, "val_loss": math.inf, "lr": 1.0}]).save_json(path)

    def refuse(constant):
        raise AssertionError(constant)

    rows = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert rows == [{"train_loss": None, "val_loss": None, "lr": 1.0}]
