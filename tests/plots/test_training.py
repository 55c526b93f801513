import sys

import pytest
from matplotlib.figure import Figure

from zeroproof.errors import DataError, MissingExtraError
from zeroproof.plots import plot_history

ROWS = [
    {"train_loss": 1.0, "val_loss": 2.0, "train_coverage": 0.5, "val_coverage": 0.4},
    {"train_loss": 0.1, "train_coverage": 0.9, "val_coverage": 0.8, "train_gap": 0.2},
    {"train_loss": 0.01, "val_loss": 0.2, "train_coverage": 1.0, "val_coverage": 1.0},
]


def points(axis):
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axis.lines}


def test_three_panels_hold_the_values_that_exist_at_their_epochs():
    loss, coverage, gap = plot_history(ROWS).axes
    assert points(loss) == {
        "training": [(1, 1.0), (2, 0.1), (3, 0.01)],
        "validation": [(1, 2.0), (3, 0.2)],
    }
    assert points(coverage)["validation"] == [(1, 0.4), (2, 0.8), (3, 1.0)]
    assert points(gap) == {"training": [(2, 0.2)]}
    assert [axis.get_ylabel() for axis in (loss, coverage, gap)] == [
        "loss",
        "coverage",
        "share in the gap",
    ]
    assert gap.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([1.0, 0.1], "log"), ([1.0, 0.0], "linear"), ([1.0, -1.0], "linear"), ([], "linear")],
    ids=["positive", "zero", "negative", "none"],
)
def test_the_loss_is_logarithmic_where_it_can_be(losses, scale):
    rows = [{"train_loss": loss} for loss in losses] or [{"train_coverage": 1.0}]
    assert plot_history(rows).axes[0].get_yscale() == scale


def test_it_is_drawn_without_pyplot(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    path = tmp_path / "run.png"
    plot_history(ROWS).savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"zeroproof-scm\[plots\]"):
        plot_history(ROWS)


def test_given_axes_hold_the_loss_alone():
    own = Figure()
    ax = own.subplots()
    assert plot_history(ROWS, ax=ax) is ax
    assert own.axes == [ax]
    assert points(ax) == points(plot_history(ROWS).axes[0])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "loss", "log")


def test_no_row_is_an_error():
    with pytest.raises(DataError, match="at least one epoch"):
        plot_history([])
