import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import least_squares

from zeroproof.solve.varpro import linear, refined

X = np.linspace(0, 4, 50)
START = np.array([[0.5, 2.0]])


class Decays:
    """Σ c exp(-θ x)."""

    def basis(self, theta):
        return np.exp(-theta[:, None] * X[:, None])

    def slopes(self, theta, c):
        return -X[:, None] * (self.basis(theta)[:, None] * c[:, :, None])

    def moved(self, theta, step):
        return theta + step


class Pole(Decays):
    """c / (x - θ)."""

    def basis(self, theta):
        return 1 / (X[:, None] - theta[:, None])

    def slopes(self, theta, c):
        return c[:, :, None] / (X[:, None] - theta[:, None, None]) ** 2


def noisy(seed=0):
    y = 3 * np.exp(-0.3 * X) + 2 * np.exp(-1.7 * X)
    return (y + 0.02 * np.random.default_rng(seed).standard_normal(len(X)))[None]


ONE = np.ones((1, 1, len(X)))


@given(seed=st.integers(0, 50))
def test_the_end_is_that_of_a_general_solver_in_all_coefficients(seed):
    y = noisy(seed)
    _, end = refined(Decays(), y, ONE, START, steps=100, resolved=0)
    known = least_squares(
        lambda z: z[:2] @ np.exp(-z[2:, None] * X) - y[0], [1, 1, *START[0]], xtol=1e-14, ftol=1e-14
    )
    assert end.objective[0] <= 2 * known.cost * (1 + 1e-9)
    assert end.objective[0] == pytest.approx(2 * known.cost, rel=1e-6)


def test_outputs_share_the_point_and_each_has_its_own_coefficients():
    y = np.stack([np.exp(-X), 2 * np.exp(-X) - np.exp(-0.2 * X)])
    w = np.random.default_rng(0).uniform(1, 2, (1, 2, len(X)))
    theta, end = refined(Decays(), y, w, START, steps=100, resolved=0)
    order = theta[0].argsort()
    assert theta[0][order] == pytest.approx([0.2, 1], abs=1e-12)
    np.testing.assert_allclose(end.c[0][:, order], [[0, 1], [-1, 2]], atol=1e-12)


def test_folds_together_are_what_they_are_alone():
    w = np.repeat(ONE, 3, 0)
    w[1, 0, ::3], w[2, 0, 20:30] = 0, 0
    theta, together = refined(Decays(), noisy(), w, START.repeat(3, 0), steps=100, resolved=0)
    for f in range(3):
        one, alone = refined(Decays(), noisy(), w[f : f + 1], START, steps=100, resolved=0)
        assert together.objective[f] == pytest.approx(alone.objective[0], rel=1e-12)
        assert theta[f] == pytest.approx(one[0], rel=1e-6)


def test_a_column_that_others_hold_adds_no_direction_of_its_own():
    twice = linear(Decays(), noisy(), ONE, np.array([[0.5, 0.5]]))
    once = linear(Decays(), noisy(), ONE, np.array([[0.5]]))
    assert twice.objective == pytest.approx(once.objective, rel=1e-12)
    assert twice.c[0, 0] == pytest.approx(once.c[0, 0, 0] / 2)
    assert np.linalg.matrix_rank(twice.Q[0, 0]) == 1


def test_more_columns_than_rows_are_solved_by_the_shortest_coefficients():
    columns = np.random.default_rng(0).standard_normal((1, len(X), 60))
    columns /= np.linalg.norm(columns, axis=1)[:, None]

    class Wide(Decays):
        def basis(self, theta):
            return columns

    at = linear(Wide(), noisy(), ONE, START)
    assert at.objective[0] < 1e-20
    assert at.c[0, 0] == pytest.approx(np.linalg.lstsq(columns[0], noisy()[0])[0], abs=1e-9)


def test_columns_of_very_different_sizes_are_all_there():
    class Scaled(Decays):
        def basis(self, theta):
            return super().basis(theta) * [1e-20, 1e20]

    plain, scaled = (linear(model, noisy(), ONE, START) for model in (Decays(), Scaled()))
    assert scaled.objective == pytest.approx(plain.objective, rel=1e-9)


def test_a_row_with_weight_on_a_pole_is_no_fit_and_the_start_stays():
    y, w = 1 / (X - 5)[None], np.repeat(ONE, 2, 0)
    w[1, 0, 10] = 0
    start = np.full((2, 1), X[10])
    theta, end = refined(Pole(), y, w, start, steps=5, resolved=0)
    assert end.objective[0] == np.inf
    assert theta[0] == start[0]
    assert np.isfinite(end.objective[1])


def test_complex_answers_have_complex_points():
    y = (2 - 1j) / (X - 1.3 - 0.2j)[None]
    theta, end = refined(Pole(), y, ONE, np.array([[1.2 + 0.3j]]), steps=50, resolved=0)
    assert theta[0, 0] == pytest.approx(1.3 + 0.2j, abs=1e-13)
    assert end.c[0, 0, 0] == pytest.approx(2 - 1j, abs=1e-13)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_objective_never_rises(steps):
    before = linear(Decays(), noisy(), ONE, START).objective
    after = refined(Decays(), noisy(), ONE, START, steps=steps)[1].objective
    assert after <= before if steps else after == before
