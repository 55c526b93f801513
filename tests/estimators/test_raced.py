import numpy as np
import pytest

from zeroproof import ProjectiveRegressor
from zeroproof.solve.forms import ExponentialForm, InverseForm


def poles(x):
    return np.exp(x) / (x - 0.2) + 0.3 / (x + 0.5)


@pytest.mark.parametrize(("noise", "worst"), [(0.0, 1e-12), (0.01, 0.01)])
def test_outliers_do_not_move_the_fit_and_are_named(noise, worst):
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, (300, 1))
    y = poles(x[:, 0]) * (1 + noise * rng.normal(size=300))
    hit = rng.random(300) < 0.05
    y[hit] += 20 * np.median(np.abs(y)) * rng.standard_cauchy(hit.sum())
    y[7] = np.nan  # rows are counted among all that were given
    model = ProjectiveRegressor(missing="drop").fit(x, y)
    assert set(model.left_out_) <= set(np.flatnonzero(hit))
    assert len(model.left_out_) > 0.5 * hit.sum()
    assert model.poles(within=True).real == pytest.approx([-0.5, 0.2], abs=max(worst, 1e-10))
    grid = np.linspace(-0.95, 0.95, 400)
    N, D = (part[:, 0] for part in model.tuples(grid[:, None]))
    assert np.median(np.abs(N / D / poles(grid) - 1)) < worst
    assert "left out as outliers" in model.summary()


def test_gaussian_noise_has_no_outliers():
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 100)[:, None]
    model = ProjectiveRegressor().fit(x, 1 + x[:, 0] + 0.1 * rng.normal(size=100))
    assert model.left_out_.tolist() == []


def test_a_transform_of_y_must_win_by_three_errors():
    x = np.linspace(0.3, 3, 200)
    root = np.sqrt((1 + x) / (x + 0.2) ** 3)
    model = ProjectiveRegressor().fit(x[:, None], root)
    assert np.abs(model.predict(x[:, None]) / root - 1).max() < 1e-6
    line = ProjectiveRegressor().fit(x[:, None], x + 0.01 * np.sin(50 * x))
    assert line.fit_.recipe is None


# laws that no rational function is: to rounding AAA makes dozens of poles of them
ROOTS_AND_EXPONENTIALS = {
    "response of a resonator": lambda x: 1 / np.sqrt((1 - x**2) ** 2 + 0.01),
    "one over a distance": lambda x: 1 / np.abs(x - 0.21),
    "below zero": lambda x: -np.sqrt((1 + x**2) / ((0.5 - x**2) ** 2 + 0.02)),
    "essential singularity": lambda x: np.exp(0.05 / (x - 0.313)),
    "bell": lambda x: 3 * np.exp(-30 * (x - 0.2) ** 2),
}


@pytest.mark.parametrize("law", ROOTS_AND_EXPONENTIALS.values(), ids=ROOTS_AND_EXPONENTIALS)
def test_roots_and_exponentials_of_rational_functions_are_found_as_such(law):
    x = np.random.default_rng(0).uniform(-1, 1.5, 150)
    model = ProjectiveRegressor().fit(x[:, None], law(x))
    assert model.fit_.recipe.target in {"square", "log"}
    assert len(model.poles()) <= 4
    unseen = np.linspace(-0.99, 1.49, 1001)
    answers, truth = model.predict(unseen[:, None]), law(unseen)
    finite = np.isfinite(answers)
    assert np.quantile(np.abs(answers / truth - 1)[finite], 0.99) < 1e-9
    assert finite.mean() > 0.98


def test_many_rows_of_several_columns_are_all_used():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (6000, 2))
    y = X[:, 0] - 2 * X[:, 1] + 0.1 * rng.normal(size=6000)
    model = ProjectiveRegressor(time_budget=1.0).fit(X, y)
    slope = model.predict([[1.0, 0.0]]) - model.predict([[0.0, 0.0]])
    assert slope[0] == pytest.approx(1, abs=0.01)
    assert model.fit_.name in {"linear", "ridge"}


def test_fewer_rows_than_columns_end_soon_in_a_plain_model():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 300))
    with pytest.warns(UserWarning, match="a smaller basis is used"):
        model = ProjectiveRegressor(time_budget=0.5).fit(X, X[:, 0] + 0.1 * rng.normal(size=20))
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize(("noise", "worst"), [(0.0, 1e-12), (0.01, 0.01)])
def test_outliers_of_several_columns_do_not_move_the_fit(noise, worst):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        X = rng.uniform(1, 3, (400, 3))
        law = X[:, 0] * X[:, 1] / (X[:, 0] - X[:, 2])
        y = law * (1 + noise * rng.normal(size=400))
        hit = rng.random(400) < 0.05
        y[hit] *= 10
        model = ProjectiveRegressor(time_budget=1.0).fit(X, y)
        assert set(model.left_out_) == set(np.flatnonzero(hit))
        N, D = (part[:, 0] for part in model.tuples(X))
        assert np.median(np.abs(N / D / law - 1)) < worst


def test_a_plane_does_not_hide_outliers_behind_a_common_zero():
    rng = np.random.default_rng(1)
    X = rng.uniform(0, 1, (100, 3))
    y = 1 + X @ [1.0, -2.0, 0.5]
    y[[3, 70]] += 5
    model = ProjectiveRegressor().fit(X, y)
    assert model.left_out_.tolist() == [3, 70]
    assert np.abs(model.predict(X[[3, 70]]) - (1 + X[[3, 70]] @ [1.0, -2.0, 0.5])).max() < 1e-12


def test_an_arm_with_outliers_is_found():
    rng = np.random.default_rng(0)
    q, p, u, v = X = rng.uniform((-3, -3, -1, -1), (3, 3, 1, 1), (800, 4)).T
    truth = (np.cos(q + p) * u + np.sin(q + p) * v) / np.sin(p)
    y = truth.copy()
    hit = rng.random(800) < 0.05
    y[hit] += 3 * np.median(np.abs(y)) * rng.standard_cauchy(hit.sum())
    model = ProjectiveRegressor().fit(X.T, y)
    assert set(model.left_out_) <= set(np.flatnonzero(hit))
    N, D = (part[:, 0] for part in model.tuples(X.T))
    assert np.median(np.abs(N / D / truth - 1)) < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_heavy_tailed_noise_of_few_rows_has_no_law(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 10, 30)
    model = ProjectiveRegressor().fit(x[:, None], 3 + rng.standard_t(3, 30))
    assert model.fit_.name == "constant"


LAWS = {
    "inverse": (lambda x: 1 + 2 / x**2, 0.5, InverseForm, "a polynomial of degree 2 in 1/x0"),
    "potential": (lambda x: 3 / x - 1 / x**4, 0.5, InverseForm, "a polynomial of degree 4 in 1/x0"),
    "decay": (
        lambda x: 2 + 3 * np.exp(-1.7 * x),
        0.5,
        ExponentialForm,
        "an exponential, with k = -1.7",
    ),
    "power": (lambda x: 1 + 2 * x**1.5, 0.1, ExponentialForm, "a power law, with k = 1.5"),
    "root": (lambda x: 1 + 2 * x**-0.7, 0.1, ExponentialForm, "a power law, with k = -0.7"),
}


@pytest.mark.parametrize(("noise", "worst"), [(0.0, 1e-12), (0.01, 0.01)])
@pytest.mark.parametrize("name", LAWS)
def test_a_law_that_is_no_quotient_wins_and_is_said(name, noise, worst, tmp_path):
    law, low, kind, words = LAWS[name]
    rng = np.random.default_rng(0)
    x = rng.uniform(low, 4, 200)
    model = ProjectiveRegressor().fit(x[:, None], law(x) * (1 + noise * rng.normal(size=200)))
    assert isinstance(model.fit_.model.forms[0], kind)
    said = model.summary()
    law_of, _, exponent = words.partition("k = ")
    assert law_of in said
    if exponent:
        found = float(said.split("k = ")[1].split(".\n")[0])
        assert found == pytest.approx(float(exponent), rel=max(2 * noise, 1e-3))
    unseen = np.linspace(1.05 * low, 3.9, 77)
    assert np.abs(model.predict(unseen[:, None]) / law(unseen) - 1).max() < worst
    if kind is InverseForm:
        assert model.poles().tolist() == [0]
        assert model.pole_table().multiplicity.tolist() == [int(words.split()[4])]
        assert "Beyond the data, at x0 = 0 of multiplicity" in said
    else:
        assert not len(model.poles())
    assert ("at x0 = 0, like x0^-0." in said) == (name == "root")
    assert ("Where x0 < 0: the function is not defined" in said) == ("power law" in words)
    model.save(tmp_path / "model")
    again = ProjectiveRegressor.load(tmp_path / "model")
    assert np.array_equal(again.predict(unseen[:, None]), model.predict(unseen[:, None]))
    assert again.summary() == said


def test_zeros_of_powers_of_the_inverse_are_roots():
    x = np.random.default_rng(0).uniform(0.5, 3, 200)
    model = ProjectiveRegressor().fit(x[:, None], 3 / x - 1 / x**4)
    roots = model.roots()[
        np.abs(model.roots()) < 1e6
    ]  # a constant that is rounding has one far off
    assert roots**3 == pytest.approx([1 / 3] * 3, abs=1e-9)


@pytest.mark.parametrize("function", [np.exp, np.sin])
def test_outliers_of_a_law_known_to_rounding_are_named(function):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 200)
    y = function(x)
    hit = rng.random(200) < 0.05
    y[hit] += rng.normal(size=hit.sum())
    model = ProjectiveRegressor().fit(x[:, None], y)
    assert model.left_out_.tolist() == np.flatnonzero(hit).tolist()
    assert f"{hit.sum()} rows were left out as outliers" in model.summary()
    grid = np.linspace(-0.95, 0.95, 99)
    assert model.predict(grid[:, None]) == pytest.approx(function(grid), abs=1e-12)


@pytest.mark.parametrize("noise", [0.01, 0.05])
@pytest.mark.parametrize("additive", [False, True])
def test_two_noisy_peaks_are_two_pairs_of_poles(noise, additive):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 300)

    def peaks(x):
        return 0.04 / ((x - 0.3) ** 2 + 0.05**2) + 0.02 / ((x + 0.4) ** 2 + 0.04**2)

    size = peaks(x).max() if additive else peaks(x)
    model = ProjectiveRegressor().fit(x[:, None], peaks(x) + noise * size * rng.normal(size=300))
    upper = model.poles()[model.poles().imag > 0]
    assert upper == pytest.approx([-0.4 + 0.04j, 0.3 + 0.05j], abs=0.2 * noise)
    assert "Complex poles beside the data" in model.summary()
    grid = np.linspace(-0.95, 0.95, 400)
    error = np.sqrt(np.mean((model.predict(grid[:, None]) - peaks(grid)) ** 2))
    assert error < 0.3 * noise * peaks(grid).max()


@pytest.mark.parametrize(
    ("rows", "place", "strewn", "smooth"),
    [(150, 0.1, False, 0), (200, -0.37, True, 1), (400, 0.2013, False, 1)],
    ids=["few", "strewn on a curve", "many on a curve"],
)
@pytest.mark.parametrize(
    ("what", "function"), [("kink", np.abs), ("step", lambda d: np.where(d > 0, 1.0, -0.5))]
)
def test_a_kink_is_no_step(what, function, rows, place, strewn, smooth):
    x = np.linspace(-1, 1, rows)
    if strewn:
        x = np.sort(np.random.default_rng(0).uniform(-1, 1, rows))
    y = function(x - place) + smooth * np.sin(3 * x)
    model = ProjectiveRegressor(time_budget=2.0).fit(x[:, None], y)
    (branch,) = model.fit_.branches
    assert branch.what == what
    assert f"It has a {what} at " in model.summary()
    near = np.sort(np.abs(x - place))[:2].sum() if what == "step" else 1e-12 + 1e-4 * smooth
    assert abs(branch.position - place) <= near
    assert not len(model.poles(within=True))


@pytest.mark.parametrize("rows", [10, 12, 15])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("function", "pole"), [(np.tan, np.pi / 2), (lambda x: 1 / np.tan(x), 0)])
def test_a_few_clean_rows_show_their_pole(function, pole, seed, rows):
    x = np.random.default_rng(seed).uniform(pole - 1, pole + 1.2, (rows, 1))
    model = ProjectiveRegressor().fit(x, function(x[:, 0]))
    assert np.abs(model.poles(within=True) - pole).min() < 1e-3


@pytest.mark.parametrize("rows", [200, 300])
@pytest.mark.parametrize("width", [50, 200])
def test_bells_have_no_poles(rows, width):
    x = np.linspace(-1, 1, rows)
    y = np.exp(-width * (x - 0.2) ** 2) + 2 * np.exp(-50 * (x + 0.3) ** 2)
    model = ProjectiveRegressor().fit(x[:, None], y)
    assert not len(model.poles(within=True))
    assert not np.isnan(model.predict(x[:, None])).any()


def test_degrees_are_fitted_to_all_rows_however_many():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 9000)
    y = np.exp(x) + 0.1 * rng.normal(size=9000)
    model = ProjectiveRegressor(degrees=(3, 0)).fit(x[:, None], y)
    exact = np.polynomial.Polynomial.fit(x, y, 3)
    assert model.predict(x[:, None]) == pytest.approx(exact(x), abs=1e-12)
