import sys

import numpy as np
import pytest

from zeroproof.errors import MissingExtraError
from zeroproof.plots.fit import Answers, plot_curve, plot_parity


def answers(decoded, gap=None, bottom=None):
    decoded = np.asarray(decoded, dtype=float)
    none = np.zeros(decoded.shape, dtype=bool)
    score = 1 / np.sqrt(1 + np.nan_to_num(decoded) ** 2)
    return Answers(decoded, none if bottom is None else bottom, none if gap is None else gap, score)


def lines(axis):
    return {line.get_label(): line for line in axis.lines}


def curve(y, decoded, x=None, grid=None):
    x = np.linspace(-1, 1, len(y)) if x is None else x
    grid = np.linspace(-1, 1, len(decoded)) if grid is None else grid
    return plot_curve(x, {"y": np.asarray(y, float)}, grid, [answers(decoded)], (0.01, 0.1), "x")


def test_a_curve_shows_data_fit_score_and_thresholds():
    grid = np.linspace(-1, 1, 41)
    figure = curve(np.linspace(-1, 1, 9) ** 2, grid**2, grid=grid)
    top, below = figure.axes
    drawn = lines(top)
    assert set(drawn) == {"data", "fit"}
    np.testing.assert_allclose(drawn["fit"].get_ydata(), grid**2)
    np.testing.assert_allclose(drawn["data"].get_ydata(), np.linspace(-1, 1, 9) ** 2)
    assert top.get_ylabel() == "y"
    assert below.get_xlabel() == "x"
    assert below.get_yscale() == "log"
    assert list(lines(below)["τ_infer"].get_ydata()) == [0.01, 0.01]
    assert list(lines(below)["τ_train"].get_ydata()) == [0.1, 0.1]


def test_a_curve_is_broken_at_a_pole_and_the_pole_is_marked():
    grid = np.linspace(-1, 1, 2001) + 1e-6
    figure = curve(1 / (np.linspace(-1, 1, 60) - 0.31), 1 / (grid - 0.31), grid=grid)
    drawn = lines(figure.axes[0])
    assert drawn["pole"].get_xdata()[0] == pytest.approx(0.31, abs=1e-3)
    broken = np.isnan(drawn["fit"].get_ydata())
    assert broken.sum() == 1
    assert abs(grid[broken][0] - 0.31) < 1e-3


def test_singular_data_is_marked_and_does_not_stretch_the_axis():
    figure = curve([0.0, 1.0, np.inf, np.nan, 2.0], np.linspace(0, 2, 5))
    drawn = lines(figure.axes[0])
    assert list(drawn["⊥ or ±∞ in the data"].get_xdata()) == [0.0, 0.5]
    assert np.isfinite(figure.axes[0].get_ylim()).all()


@pytest.mark.parametrize("value", [0.0, 5.0, -1e9])
def test_constant_data_has_an_axis_of_some_height(value):
    low, high = curve(np.full(4, value), np.full(7, value)).axes[0].get_ylim()
    assert low < value < high


def test_each_target_has_its_own_column():
    y = np.arange(4.0)
    found = [answers(y), answers(-y)]
    figure = plot_curve(y, {"a": y, "b": -y}, y, found, (0.1, 0.2), "x")
    assert [axis.get_ylabel() for axis in figure.axes] == ["a", "b", "score", "score"]
    figure = plot_parity({"a": y, "b": -y}, found)
    assert [axis.get_ylabel() for axis in figure.axes[:2]] == ["a, predicted", "b, predicted"]


def test_parity_shows_answers_gaps_and_the_shares_of_scores():
    y = np.array([1.0, 2.0, np.inf, 4.0])
    gap = np.array([False, True, False, False])
    bottom = np.array([False, False, True, False])
    found = answers([1.1, 2.2, np.nan, 3.9], gap=gap, bottom=bottom)
    top, below = plot_parity({"y": y}, [found]).axes
    drawn = lines(top)
    assert list(drawn["answer"].get_xdata()) == [1.0, 4.0]
    assert list(drawn["in the gap"].get_ydata()) == [2.2]
    heights = [patch.get_height() for patch in below.patches]
    assert sum(heights) == pytest.approx(2)  # one for the finite rows, one for the others
    assert {text.get_text() for text in below.get_legend().get_texts()} == {"finite", "⊥ or ±∞"}


def test_targets_that_are_mostly_zero_have_a_scale():
    assert plot_parity({"y": np.zeros(3)}, [answers(np.zeros(3))]).axes[0].get_xscale() == "asinh"


def test_pictures_are_written_without_pyplot(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    figure = curve([0.0, np.inf, 1.0], np.linspace(0, 1, 5))
    figure.savefig(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"zeroproof-scm\[plots\]"):
        curve([0.0, 1.0], [0.0, 1.0])
