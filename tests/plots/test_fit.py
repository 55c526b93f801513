import pickle
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from zeroproof.errors import MissingExtraError, ShapeError
from zeroproof.plots import Answers, plot_curve, plot_parity


def answers(decoded, gap=None, bottom=None):
    decoded = np.asarray(decoded, dtype=float)
    none = np.zeros(decoded.shape, dtype=bool)
    score = 1 / np.sqrt(1 + np.nan_to_num(decoded) ** 2)
    return Answers(decoded, none if bottom is None else bottom, none if gap is None else gap, score)


def lines(axis):
    return {line.get_label(): line for line in axis.lines}


def curve(y, decoded, x=None, grid=None, tau=(0.01, 0.1), **more):
    x = np.linspace(-1, 1, len(y)) if x is None else x
    grid = np.linspace(-1, 1, len(decoded)) if grid is None else grid
    return plot_curve(x, {"y": np.asarray(y, float)}, grid, [answers(decoded)], tau, "x", **more)


def test_a_curve_shows_data_fit_score_and_thresholds():
    grid = np.linspace(-1, 1, 41)
    figure = curve(np.linspace(-1, 1, 9) ** 2, grid**2, grid=grid)
    top, below = figure.axes  # the score falls to 0.7, within ten times tau_train
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


def test_a_score_that_stays_far_above_its_thresholds_is_not_shown():
    (top,) = curve(np.arange(4.0), np.arange(7.0), tau=(1e-6, 1e-5)).axes
    assert top.get_xlabel() == "x"


def test_residuals_stand_below_the_fit():
    x = np.linspace(-1, 1, 50)
    y = x + 0.1 * np.sin(40 * x)
    _, below = curve(y, x, at_rows=[answers(x)], tau=(1e-9, 1e-8)).axes
    assert below.get_ylabel() == "data - fit"
    (drawn,) = (line for line in below.lines if line.get_marker() == ".")
    np.testing.assert_allclose(drawn.get_ydata(), y - x)
    low, high = below.get_ylim()
    assert low == -high
    assert high > 0.09


@pytest.mark.parametrize("known", [None, [np.array([])]])
def test_limits_follow_a_peak_of_the_fit_between_rows(known):
    peak = lambda x: 1 / ((x - 0.345) ** 2 + 1e-4)  # noqa: E731
    x, grid = np.linspace(-1, 1, 21), np.linspace(-1, 1, 2001)
    low, high = curve(peak(x), peak(grid), poles=known).axes[0].get_ylim()
    assert high > peak(grid).max() > 3 * peak(x).max()
    assert low < peak(grid).min()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("shift", [0.0, 1.5e-3])
def test_limits_do_not_follow_a_pole(power, shift):
    f = lambda x: (x - 0.3051) ** -power + 0.0  # noqa: E731
    x, grid = np.linspace(-1, 1, 60), np.linspace(-1, 1, 2001)
    known = [np.array([0.3051 + shift])]  # a pole is known to its error only
    low, high = curve(f(x), f(grid), poles=known).axes[0].get_ylim()
    assert max(abs(low), abs(high)) < 1000


def test_rows_beyond_the_limits_and_rows_left_out_are_marked_at_the_edge():
    x = np.linspace(-1, 1, 40)
    y = x.copy()
    y[[3, 7, 11]] = 50, -60, 70
    left = np.zeros(40, bool)
    left[[3, 7]] = True
    at_rows = [answers(x)._replace(left_out=left)]
    top, _ = curve(y, x, at_rows=at_rows, tau=(1e-9, 1e-8)).axes
    low, high = top.get_ylim()
    assert high < 50
    drawn = lines(top)
    np.testing.assert_array_equal(drawn["left out"].get_xdata(), x[[3, 7]])
    np.testing.assert_array_equal(drawn["left out"].get_ydata(), [high, low])
    np.testing.assert_array_equal(drawn["beyond the axis"].get_ydata(), [high])
    assert len(drawn["data"].get_xdata()) == 37


def test_a_legend_does_not_cover_the_panel():
    figure = curve(np.arange(9.0), np.arange(9.0))
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.get_legend().get_window_extent().y0 >= axis.get_window_extent().y1 - 1


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


def test_parity_of_regular_rows_shows_residuals_and_rows_left_out():
    y = np.arange(1.0, 9.0)
    left = y == 4
    top, below = plot_parity({"y": y}, [answers(y + 0.5)._replace(left_out=left)]).axes
    assert list(lines(top)["left out"].get_xdata()) == [4.0]
    assert below.get_ylabel() == "data - fit"
    assert top.get_xscale() == "linear"


@pytest.mark.parametrize(
    "y",
    [
        np.r_[np.full(90, 3.0), 3 + np.linspace(0.0, 4, 90), 40],
        np.r_[np.linspace(2, 3, 99), 30],
        np.r_[np.linspace(-1, 1, 99), -1e6, 1e9],
        np.r_[np.linspace(100, 101, 99), 110],
    ],
)
def test_an_axis_of_values_far_out_has_some_ticks_within_them(y):
    (top, _) = plot_parity({"y": y}, [answers(y)]).axes
    assert top.get_xscale() == "asinh"
    ticks = top.get_xticks()
    assert 3 <= len(ticks) <= 7
    assert y.min() <= ticks.min() < ticks.max() <= y.max()


@pytest.mark.parametrize("y", [np.zeros(3), np.full(4, -2.5)])
def test_constant_targets_have_a_parity_plot(y, tmp_path):
    plot_parity({"y": y}, [answers(y)]).savefig(tmp_path / "constant.png")


def test_pictures_are_written_without_pyplot(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    figure = curve([0.0, np.inf, 1.0], np.linspace(0, 1, 5))
    figure.savefig(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_has_a_picture_for_notebooks_and_survives_pickle():
    for figure in (curve([0.0, 1.0], [0.0, 1.0]), plot_parity({"y": SLOPE}, [answers(SLOPE)])):
        assert isinstance(figure, Figure)
        for each in (figure, pickle.loads(pickle.dumps(figure))):
            assert each._repr_png_().startswith(b"\x89PNG")


SLOPE = np.arange(9.0)


@pytest.mark.parametrize("kind", ["curve", "parity"])
def test_given_axes_hold_the_upper_panel_alone(kind):
    def draw(targets, ax=None):
        found = [answers(y) for y in targets.values()]
        if kind == "parity":
            return plot_parity(targets, found, ax=ax)
        return plot_curve(SLOPE, targets, SLOPE, found, (0.1, 0.2), "x", at_rows=found, ax=ax)

    own, (ax, *two) = Figure(), Figure().subplots(1, 3)
    one = own.subplots()
    assert draw({"a": SLOPE}, one) is one
    assert own.axes == [one]
    top = draw({"a": SLOPE}).axes[0]
    assert lines(one).keys() == lines(top).keys()
    assert (one.get_ylim(), one.get_ylabel()) == (top.get_ylim(), top.get_ylabel())
    assert one.get_xlabel()
    assert draw({"a": SLOPE, "b": -SLOPE}, two) is two
    assert [axis.get_ylabel()[0] for axis in two] == ["a", "b"]
    with pytest.raises(ShapeError, match="ax must be one Axes for each target, 2, got 1"):
        draw({"a": SLOPE, "b": -SLOPE}, ax)


def test_the_legend_of_narrow_axes_leaves_room_for_the_panel():
    figure = Figure(layout="constrained")
    y = np.r_[SLOPE, 99]
    found = [answers(np.r_[SLOPE, 9])._replace(error=np.ones(10), left_out=y == 3)]
    for ax in figure.subplots(1, 2):
        plot_curve(y, {"y": y}, y, found, (0.1, 0.2), "x", [np.ones(1)], found, ax=ax)
    figure.draw_without_rendering()  # would warn of panels of no size
    for axis in figure.axes:
        assert len(axis.get_legend().get_texts()) == 6
        assert axis.get_legend().get_window_extent().width < figure.bbox.width / 2


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"zeroproof-scm\[plots\]"):
        curve([0.0, 1.0], [0.0, 1.0])
