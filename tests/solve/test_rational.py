import numpy as np
import pytest
from numpy.polynomial.chebyshev import chebval, chebvander

from zeroproof.solve.rational import fit_rational

X = np.linspace(-1, 1, 60)


def answers(fits, p, q):
    N, D = chebvander(X, p) @ fits.a, fits.b @ chebvander(X, q).T
    return N[..., 0] / D


@pytest.mark.parametrize(("a", "b"), [([1.0], [-0.3, 1.0]), ([1, 2, 0.5], [1.0, 0.2, 0.7])])
def test_a_rational_function_is_found_again(a, b):
    y = chebval(X, a) / chebval(X, b)
    p, q = len(a) - 1, len(b) - 1
    fits = fit_rational(chebvander(X, p), chebvander(X, q), y[None], np.ones((1, 1, 60)))
    assert answers(fits, p, q)[0] == pytest.approx(y, rel=1e-9)
    assert np.linalg.norm(fits.b) == pytest.approx(1)


def test_complex_targets_have_complex_coefficients():
    y = (1 + 2j) / (X - 0.3 - 0.1j)
    fits = fit_rational(chebvander(X, 0), chebvander(X, 1), y[None], np.ones((1, 1, 60)))
    assert -fits.b[0, 0] / fits.b[0, 1] == pytest.approx(0.3 + 0.1j)


def test_two_outputs_share_their_denominator():
    y = np.stack([1 / (X - 1.2), X / (X - 1.2)])
    fits = fit_rational(chebvander(X, 1), chebvander(X, 1), y, np.ones((1, 2, 60)))
    assert -fits.b[0, 0] / fits.b[0, 1] == pytest.approx(1.2)
    assert fits.a.shape == (1, 2, 2)


def test_a_batch_is_what_its_fits_are_alone():
    rng = np.random.default_rng(0)
    y = (1 / (X - 1.1) + 0.1 * rng.normal(size=60))[None]
    w = np.ones((3, 1, 60))
    w[1, 0, ::3], w[2, 0, 20:30] = 0, 0
    H = chebvander(X, 2)
    together = fit_rational(H, H, y, w, resolved=1e-13)
    for i in range(3):
        used = w[i, 0] > 0
        alone = fit_rational(H[used], H[used], y[:, used], w[i : i + 1, :, used], resolved=1e-13)
        assert together.objective[i] == pytest.approx(alone.objective[0], rel=1e-6)


def test_the_end_is_a_minimum_of_the_residual():
    rng = np.random.default_rng(1)
    y = (np.exp(X) / (X - 1.1) + 0.1 * rng.normal(size=60))[None]
    H_N, H_D, w = chebvander(X, 1), chebvander(X, 2), np.ones((1, 1, 60))
    fits = fit_rational(H_N, H_D, y, w, resolved=1e-14)
    for direction in np.eye(3):
        for step in (1e-3, -1e-3):
            D = H_D @ (fits.b[0] + step * direction)
            a = np.linalg.lstsq(H_N / D[:, None], y[0], rcond=None)[0]
            assert np.sum((H_N @ a / D - y[0]) ** 2) >= fits.objective[0] * (1 - 1e-9)


def test_a_row_without_weight_may_lie_on_the_pole():
    x = np.r_[X, 0.3]
    y = np.r_[1 / (X - 0.3), 0.0][None]
    w = np.r_[np.ones(60), 0.0][None, None]
    fits = fit_rational(chebvander(x, 0), chebvander(x, 1), y, w)
    assert -fits.b[0, 0] / fits.b[0, 1] == pytest.approx(0.3)


def test_a_warm_start_alone_is_taken_too():
    y = (1 / (X - 1.5))[None]
    fits = fit_rational(
        chebvander(X, 0), chebvander(X, 1), y, np.ones((2, 1, 60)),
        warm=np.array([[-1.4, 1.0]]), cold=False,
    )  # fmt: skip
    assert -fits.b[:, 0] / fits.b[:, 1] == pytest.approx([1.5, 1.5])
