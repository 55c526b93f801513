import numpy as np
import pytest

from zeroproof.solve.branch import branch_points

CURVES = {
    "step": (lambda x: np.where(x > 0, 1.0, -0.5), "step", 0.0),
    "kink": (np.abs, "kink", 1.0),
    "logarithm": (lambda x: np.log(np.abs(x)), "logarithm", 0.0),
    "root": (lambda x: np.abs(x) ** 0.5, "branch point", 0.5),
    "diverging": (lambda x: np.abs(x) ** -0.5, "branch point", -0.5),
    "odd power": (lambda x: np.sign(x) * np.abs(x) ** (1 / 3), "branch point", 1 / 3),
}
NONE = {
    "pole": lambda x: 1 / (x - 0.01),
    "double pole": lambda x: (x - 0.01) ** -2,
    "tangent": lambda x: np.tan(5 * x),
    "Lorentzian": lambda x: 1 / (1 + 400 * x**2),
    "sine": lambda x: np.sin(5 * x),
}


def _told(f, n, seed, noise):
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, n)
    y = f(x) * (1 + noise * random.standard_normal(n))
    size = np.abs(y) + 1e-2 * np.median(np.abs(y))
    return x, branch_points(x, y, size, np.zeros(1), np.full(n, np.inf))


@pytest.mark.parametrize("name", CURVES)
def test_what_is_no_pole_is_called_what_it_is(name):
    f, kind, exponent = CURVES[name]
    for n, seed in ((60, 0), (60, 1), (300, 2)):
        x, found = _told(f, n, seed, 0.0)
        gap = np.diff(np.sort(np.append(x, 0))).max()
        assert [b.what for b in found] == [kind]
        assert found[0].exponent == pytest.approx(exponent, abs=0.01)
        assert abs(found[0].position) <= gap


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_poles_and_smooth_curves_have_no_branch_point(name, noise):
    assert not any(_told(NONE[name], n, seed, noise)[1] for n in (40, 300) for seed in range(2))


def test_a_fit_that_does_as_well_needs_no_branch_point():
    x = np.linspace(-1, 1, 60)
    y, zero = np.abs(x), np.zeros(60)
    assert not branch_points(x, y, np.ones(60), np.zeros(1), zero)
