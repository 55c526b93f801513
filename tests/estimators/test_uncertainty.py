import numpy as np
import pytest
import torch
from scipy.special import gamma

from zeroproof import ProjectiveRegressor
from zeroproof.estimators.model import FormModel
from zeroproof.solve.forms import BarycentricForm, CoefficientForm, FactoredForm, SigmoidForm

DOMAIN = (-1.0, 1.0)
one = torch.ones(1, dtype=torch.float64)
x = torch.linspace(-0.9, 0.95, 40, dtype=torch.float64)[:, None]


def reciprocal(kind):
    """1 / (x - 0.2), in each form."""
    if kind == "coefficients":
        return CoefficientForm(
            one, torch.tensor([-0.2, 1.0], dtype=torch.float64), "chebyshev", DOMAIN
        )
    if kind == "factors":
        size = 1 + 0.2  # each factor is scaled to size 1
        return FactoredForm(one / size, one[:0], one[:0], 0.2 * one, 0 * one, DOMAIN)
    z = torch.tensor([-1.0, 1.0]).double()
    f = 1 / (z - 0.2)
    return BarycentricForm(z, f, torch.tensor([1.0, -1.0]).double() / f)


@pytest.mark.parametrize("kind", ["coefficients", "factors", "barycentric"])
def test_slopes_do_not_depend_on_the_form(kind):
    answer, G = FormModel((reciprocal(kind),), 1.0).slopes(x, 0)
    assert answer.numpy() == pytest.approx(1 / (x[:, 0].numpy() - 0.2), rel=1e-9)
    # they span those of the coefficients: 1, x over D and N over D²
    D = x[:, 0] - 0.2
    for wanted in (1 / D, 1 / D**2):
        rest = (
            wanted
            - G @ torch.linalg.lstsq(G, wanted[:, None], rcond=1e-9, driver="gelsd").solution[:, 0]
        )
        assert float(rest.norm() / wanted.norm()) < 1e-8


def test_slopes_of_a_sigmoid_are_derivatives():
    values = torch.tensor([0.1, 0.9, 3.0, 0.2], dtype=torch.float64)

    def answer(v):
        form = SigmoidForm(*v.unbind(), log=False, domain=DOMAIN)
        return form.slopes(x[:, 0])[0]

    G = SigmoidForm(*values.unbind(), log=False, domain=DOMAIN).slopes(x[:, 0])[1]
    assert torch.allclose(G, torch.autograd.functional.jacobian(answer, values))


def noisy(seed, noise=0.01):
    rng = np.random.default_rng(seed)
    points = np.sort(rng.uniform(-4.5, 4.5, 300))
    return points[:, None], gamma(points) * (1 + noise * rng.normal(size=300))


@pytest.fixture(scope="module")
def gammas():
    return [ProjectiveRegressor().fit(*noisy(seed)) for seed in range(4)]


def test_poles_lie_within_their_errors(gammas):
    covered, residues = [], {-4: 1 / 24, -3: -1 / 6, -2: 0.5, -1: -1, 0: 1}
    for model in gammas:
        table = model.pole_table()
        inside = (table.inside & ~table.spurious).numpy()
        places = table.position.real.numpy()[inside]
        assert np.round(places).tolist() == [-4, -3, -2, -1, 0]
        assert (table.significance.numpy()[inside] > 4).all()
        covered += list(np.abs(places - np.round(places)) < 3 * table.position_se.numpy()[inside])
        wanted = [residues[int(place)] for place in np.round(places)]
        error = np.abs(table.residue.real.numpy()[inside] - wanted)
        covered += list(error < 3 * table.residue_se.numpy()[inside])
    assert np.mean(covered) > 0.9


def test_bottom_and_gap_say_how_wrong_an_answer_may_be(gammas):
    grid = np.linspace(-4.4, 4.4, 20001)[:, None]
    truth = gamma(grid[:, 0])
    for model in gammas:
        N, D = (part[:, 0] for part in model.tuples(grid))
        relative = np.abs(N / D / truth - 1)
        result = model.predict_strict(grid)
        trusted = ~result.bottom_mask & ~result.gap_mask
        assert np.mean(relative[trusted] > 1) < 0.01
        assert np.mean(relative[trusted] > 0.5) < 0.01
        assert result.bottom_mask.mean() < 0.01


def test_standard_errors_of_answers_cover_the_truth():
    inside = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        points = rng.uniform(-1, 1, (200, 1))
        model = ProjectiveRegressor().fit(points, 1 + points[:, 0] + 0.1 * rng.normal(size=200))
        grid = np.linspace(-0.9, 0.9, 50)[:, None]
        answer, error = model.predict(grid, return_std=True)
        assert error.shape == answer.shape
        inside.append(np.mean(np.abs(answer - 1 - grid[:, 0]) < 2.5 * error))
        assert not model.predict_strict(grid).gap_mask.any()
    assert np.mean(inside) > 0.8


def test_a_clean_fit_is_known_to_rounding():
    points = np.linspace(-1, 1, 200)[:, None]
    model = ProjectiveRegressor().fit(points, 1 / (points[:, 0] - 0.3001))
    _, error = model.predict(np.array([[0.5]]), return_std=True)
    assert 0 < error[0] < 1e-13
    assert model.pole_table().position_se.max() < 1e-13


def test_a_stored_fit_keeps_its_errors(tmp_path, gammas):
    gammas[0].save(tmp_path / "model")
    again = ProjectiveRegressor.load(tmp_path / "model")
    grid = np.linspace(-4.4, 4.4, 101)[:, None]
    for mine, theirs in zip(
        gammas[0].predict(grid, return_std=True), again.predict(grid, return_std=True), strict=True
    ):
        assert np.array_equal(mine, theirs, equal_nan=True)
