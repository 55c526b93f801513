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


def test_plot_returns_a_figure_or_the_axes_given():
    assert isinstance(History(ROWS).plot(), Figure)
    ax = Figure().subplots()
    assert History(ROWS).plot(ax=ax) is ax


def test_repr_is_a_table_of_the_first_the_best_and_the_last_epoch():
    losses = [2.0, 0.5, 0.25, 3.0]
    rows = [{"val_loss": x, "train_loss": 1.0, "lr": 1e-3, "val_gap": 1 / 3} for x in losses]
    del rows[0]["val_gap"]
    assert repr(History(rows)).splitlines() == [
        "History of 4 epochs; * lowest val_loss",
        "epoch  train_loss  val_loss  val_gap",
        "    0           1         2",
        "   *2           1      0.25   0.3333",
        "    3           1         3   0.3333",
    ]
    assert repr(History(rows[:1])).splitlines()[0] == "History of 1 epoch; * lowest val_loss"
    assert repr(History([{"train_gap": 0.5}])).splitlines()[1:] == [
        "epoch  train_gap",
        "    0        0.5",
    ]
    assert repr(History([{"lr": 0.5}])).splitlines() == ["History of 1 epoch", "epoch", "    0"]
    assert repr(History()) == "History of no epoch"


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
