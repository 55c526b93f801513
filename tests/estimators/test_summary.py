import html
import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from torch import nn

from zeroproof import ProjectiveRegressor
from zeroproof.estimators.closed_form import Compared
from zeroproof.estimators.summary import summary

LINE = np.linspace(-1, 1, 120)[:, None]
x = LINE[:, 0]
PLANE = np.random.default_rng(0).uniform(0.2, 1.2, (200, 2))


def fitted(X, y, **options):
    return ProjectiveRegressor(**{"time_budget": 1.0, **options}).fit(X, y)


HEADINGS = [
    "What y is", "How well", "Where it diverges", "What is ⊥", "What to doubt", "What to do next",
]  # fmt: skip


def parts_of(model):
    """Return what is said under each heading, in its order."""
    return dict(line.split(": ", 1) for line in model.summary().splitlines())


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (
            lambda: fitted(pd.DataFrame({"speed": x}), 3 / (x - 0.25)),
            ["degrees (0, 1) in speed", "At speed = 0.25 ± ", "(residue 3 ± ", "exceeds |y|"],
        ),
        (lambda: fitted(LINE, x**2, degrees=(2, 0)), ["polynomial of degree 2", "is constant"]),
        (lambda: fitted(LINE, np.exp(x)), ["an exponential, with k = 1", "is constant"]),
        (lambda: fitted(LINE, np.cosh(x)), ["No pole among the data, x0 from -1 to 1"]),
        (lambda: fitted(LINE, np.c_[x, 1 / (x - 0.25)]), ["y0: No pole", "y1: At x0 = 0.25"]),
        (
            lambda: fitted(LINE, np.random.default_rng(0).normal(size=120), degrees=(1, 1)),
            ["a least-squares fit of y itself"],
        ),
        (
            lambda: fitted(PLANE, PLANE[:, 0] / (PLANE[:, 1] - 0.7)),
            ["y = N / D", "total degree (1, 1)", "in x0, x1", "lines, pole_curve()"],
        ),
        (lambda: fitted(PLANE, 1 / np.hypot(*PLANE.T), time_budget=3.0), ["y² = N / D"]),
        (lambda: fitted(PLANE, PLANE[:, 0], features="random"), ["random tanh waves"]),
        (lambda: fitted(PLANE, PLANE[:, 0], features="fourier"), ["random cosines"]),
        (
            lambda: fitted(PLANE, PLANE, features="chebyshev", degrees=1, shared_denominator=False),
            ["of degree (1, 1) in each column", "one denominator for each output"],
        ),
        (
            lambda: fitted(PLANE, PLANE[:, 0], features=nn.Linear(2, 3)),
            ["y = N / D with 4 and 4 weights of the features of a module"],
        ),
        (lambda: fitted(LINE, 1 / (x - 0.3 - 0.1j)), ["No pole among", "0.3 + 0.1i ± "]),
    ],
    ids=[
        "line", "polynomial", "exponential", "catenary", "outputs", "noise", "linear", "root",
        "random", "fourier", "chebyshev", "module", "complex",
    ],
)  # fmt: skip
def test_a_summary_answers_six_questions_in_their_order(model, parts):
    model = model()
    said = model.summary()
    assert [part for part in parts if part not in said] == []
    assert list(parts_of(model)) == HEADINGS
    assert "angle" not in said  # nobody outside knows it


def test_many_poles_are_counted_rather_than_listed():
    said = parts_of(fitted(LINE, np.tan(15 * x)))["Where it diverges"]
    among = said.split("Beyond")[0]
    assert among.count("residue") == 8
    assert "2 more" in among


def test_a_resonance_is_told_by_its_complex_pole():
    y = 0.04 / ((x - 0.3) ** 2 + 0.05**2) + 0.05 * np.random.default_rng(0).normal(size=120)
    said = parts_of(fitted(LINE, y))["Where it diverges"]
    assert "No pole among the data" in said
    assert re.search(r"resonances .*: 0\.(29|30)\d* \+ 0\.0(4|5)\d*i ± ", said)


@pytest.mark.parametrize("seed", range(4))
def test_digits_of_a_pole_end_where_its_error_begins(seed):
    noise = np.random.default_rng(seed).normal(size=120)
    model = fitted(LINE, (1 + 0.01 * noise) / (x - 0.2))
    value, se = re.search(r"At x0 = (\S+) ± ([^ ]+)", model.summary()).groups()
    table = model.pole_table()
    assert float(se) == pytest.approx(float(table.position_se[0]), rel=0.06)
    assert float(value) == pytest.approx(float(table.position[0].real), abs=float(se))
    assert len(value) < 11


def test_a_summary_names_what_else_served_alike():
    y = PLANE[:, 0] + 0.3 * np.random.default_rng(0).normal(size=200)
    model = fitted(PLANE, y)
    assert model.fitted_.fit.alternates
    assert "On unseen rows" in parts_of(model)["What to doubt"]


@pytest.mark.parametrize("seed", range(3))
def test_doubts_and_advice_follow_from_the_model(seed):
    rng = np.random.default_rng(seed)
    few = fitted(LINE[::15], np.exp(x[::15]) + 0.05 * rng.normal(size=8))
    assert "Few rows: 8 for" in parts_of(few)["What to doubt"]
    assert "Measure more rows" in parts_of(few)["What to do next"]
    noise = parts_of(fitted(LINE, rng.normal(size=120)))
    assert re.search("explains? (little|nothing)", noise["What to doubt"])
    assert "Nowhere: the denominator is constant" in noise["Where it diverges"]
    y = 1 / (x - 0.2013) + 0.01 * rng.normal(size=120)
    y[[5, 50, 100]] += 80
    outliers = fitted(LINE, y)
    assert re.search(r"outliers \(from 1: .*6, .*51, .*101", parts_of(outliers)["What to doubt"])
    assert "left_out_" in parts_of(outliers)["What to do next"]
    y = 1 / (x - 0.2013)
    y[rng.permutation(120)[:9]] = np.nan
    with pytest.warns(UserWarning, match="missing='drop'"):
        scattered = fitted(LINE, y)
    assert "missing='drop'" in parts_of(scattered)["What to do next"]


def test_a_better_tool_is_named_from_one_standard_error_on():
    model = fitted(LINE, 2 + x + 0.2 * np.random.default_rng(0).normal(size=120))
    ours = model.fit_.comparison[0]
    rival = Compared("gradient boosting", ours.error - 2 * ours.spread, ours.spread, False)
    near = rival._replace(error=ours.error - ours.spread / 2)
    said = {}
    for other in (rival, near):
        fit = model.fit_._replace(comparison=(*model.fit_.comparison, other))
        said[other] = summary(model.fitted_._replace(fit=fit))
    assert "HistGradientBoostingRegressor for predictions" in said[rival]
    assert "HistGradientBoostingRegressor" not in said[near]


def test_a_notebook_shows_the_same_report_and_the_options_before_a_fit():
    model = ProjectiveRegressor()
    before = model._repr_mimebundle_()
    assert "ProjectiveRegressor" in before["text/html"]
    assert "What y is" not in model._repr_html_()
    frame = pd.DataFrame({"<b>": x})
    model.fit(frame, 1 / (x - 0.25))
    shown = model._repr_mimebundle_()["text/html"]
    assert shown == model._repr_html_()
    for line in model.summary().splitlines():
        heading, said = line.split(": ", 1)
        assert f"<b>{heading}</b></dt><dd>{html.escape(said)}</dd>" in shown
    assert "&lt;b&gt;" in shown


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (LINE, np.where(abs(x) < 0.02, math.inf, 1 / x)),
        (LINE, np.c_[x, 1 / (x - 0.25)]),
        (PLANE, 1 / (PLANE[:, 1] - 0.7)),
    ],
    ids=["curve", "two curves", "parity"],
)
def test_a_plot_is_a_figure_of_data_and_fit(X, y):
    model = fitted(X, y)
    given, kept = model.plot(X, y), model.plot()
    for figure in (given, kept):
        assert isinstance(figure, Figure)
        assert figure.axes
        assert any(axis.lines or axis.collections for axis in figure.axes)
    tensors = model.plot(X.tolist(), y.tolist())
    assert len(tensors.axes) == len(given.axes)
    assert given._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    own = Figure().subplots(1, y.reshape(len(y), -1).shape[1])
    assert model.plot(ax=own) is own
    tops = [axis.get_ylabel() for axis in kept.axes[: np.size(own)]]
    assert [axis.get_ylabel() for axis in np.atleast_1d(own)] == tops


@pytest.mark.parametrize("seed", range(3))
def test_a_band_of_standard_errors_surrounds_the_curve(seed):
    rng = np.random.default_rng(seed)
    truth = 1 / (1 + 4 * x**2)
    model = fitted(LINE, truth + 0.05 * rng.normal(size=120))
    answer, error = model.predict(LINE, return_std=True)
    top = model.plot().axes[0]
    (band,) = (each for each in top.collections if "1.96" in str(each.get_label()))
    edges = band.get_paths()[0].vertices
    for at in (10, 60, 110):
        near = edges[abs(edges[:, 0] - x[at]) < 2e-3, 1]
        assert near.min() == pytest.approx(answer[at] - 1.96 * error[at], abs=5e-3)
        assert near.max() == pytest.approx(answer[at] + 1.96 * error[at], abs=5e-3)


def test_doses_over_decades_have_a_logarithmic_axis():
    dose = np.geomspace(0.1, 300, 24)
    model = fitted(dose[:, None], dose / (3 + dose))
    assert model.plot().axes[0].get_xscale() == "log"
    assert model.plot(ax=Figure().subplots()).get_xscale() == "log"
    assert fitted(LINE, x).plot().axes[0].get_xscale() == "linear"


def test_a_summary_sets_the_fit_beside_plain_models():
    rng = np.random.default_rng(0)
    model = fitted(LINE, 2 + x + 0.2 * rng.normal(size=120))
    ours, *others = model.fit_.comparison
    assert ours.delivered
    assert not any(each.delivered for each in others)
    constant = next(each for each in others if each.name == "constant")
    assert constant.error == pytest.approx(1)
    assert ours.error < 0.6
    assert 0 < ours.spread < 0.1
    assert "error on unseen rows, that of the best constant being 1" in model.summary()


@pytest.mark.parametrize(
    ("degrees", "y"), [((2, 0), x**2), ((0, 1), 1 / (x - 0.2)), (3, 1 / (x - 0.2) + 2 / (x + 0.4))]
)
def test_fits_of_given_degrees_are_set_beside_a_constant(degrees, y):
    y = y * (1 + 0.01 * np.random.default_rng(0).normal(size=120))
    model = fitted(LINE, y, degrees=degrees)
    ours, *others = model.fit_.comparison
    assert ours.delivered
    assert ours.error < 0.1
    assert [each.name for each in others] == ["constant", "gradient boosting"]
    assert others[0].error == pytest.approx(1)
    assert "beside it: constant 1 ±" in model.summary()


def test_poles_print_as_a_table_that_fits_a_screen():
    rng = np.random.default_rng(0)
    noisy = 1 / (x - 0.3) + 2 / ((x + 0.4) ** 2 + 0.01) + 0.01 * rng.normal(size=120)
    model = fitted(LINE, noisy)
    table = model.pole_table()
    lines = repr(table).splitlines()
    assert repr(float(table.position[0].real)) in str(table)  # printed with all digits
    assert lines[0].split()[::3] == ["position", "residue", "multiplicity"]
    assert len(lines) == len(table.position) + 1
    assert max(map(len, lines)) <= 110
    assert "tensor" not in repr(table)
    frame = table.to_pandas()
    assert frame["position"].tolist() == table.position.real.tolist()  # all digits
    assert frame["on_data"].tolist() == table.inside.tolist()
    for line, p, se in zip(lines[1:], frame["position"], frame["position_se"], strict=True):
        assert float(line.split()[0]) == pytest.approx(p, abs=se)
    spurious = table._replace(spurious=~table.spurious, inside=None, position_se=None)
    assert all(line.endswith("spurious") for line in repr(spurious).splitlines()[1:])
    assert spurious.to_pandas()["position_se"].isna().all()


def test_what_a_fit_shows_of_itself_holds_no_tensors():
    model = fitted(LINE, 3 / (x - 0.25))
    assert repr(model) == "ProjectiveRegressor(time_budget=1.0)"
    assert "Where it diverges" not in ProjectiveRegressor()._repr_html_()
    shown = model._repr_html_()
    for part in ("At x0 = 0.25 ± ", "Root mean square error on unseen rows", "What to do next"):
        assert part in shown
    for each in (model.fit_, model.fitted_, model.labels_):
        assert "tensor" not in repr(each)
        assert len(repr(each)) < 300
