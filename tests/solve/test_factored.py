import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.solve.rational import fit_factored

GRID = torch.linspace(-1, 1, 101, dtype=torch.float64)


def roots(*values):
    return torch.tensor(values, dtype=torch.complex128)


def test_conjugate_and_close_roots_share_a_quadratic():
    places = roots(0.5 + 2j, 0.5 - 2j, 0.104, 0.111, 0.956)
    y = (1 / (GRID[:, None] - places)).prod(1).real
    form = fit_factored(GRID, y, places, 2)
    assert sorted(form.c.tolist()) == pytest.approx([0.1075, 0.5])
    assert sorted(form.h.tolist()) == pytest.approx([-4, 0.0035**2])
    assert form.r.tolist() == pytest.approx([0.956])


def test_complex_roots_of_complex_data_stay_single_unless_close():
    places = roots(0.5 + 2j, 0.1 + 0.1j, 0.1 + 0.12j)
    y = (1 / (GRID[:, None] - places)).prod(1)
    form = fit_factored(GRID, y, places, 2)
    assert form.c.tolist() == [pytest.approx(0.1 + 0.11j)]
    assert form.h.tolist() == [pytest.approx(-(0.01**2))]
    assert form.r.tolist() == [pytest.approx(0.5 + 2j)]


@pytest.mark.parametrize(
    ("truth", "start"),
    [
        (roots(0.137, 0.137), roots(0.13 + 0.01j, 0.13 - 0.01j)),
        (roots(0.137, 0.137), roots(0.136, 0.1385)),
        (roots(0.21 + 1e-3j, 0.21 - 1e-3j), roots(0.207, 0.214)),
        (roots(0.208, 0.211), roots(0.21 + 0.002j, 0.21 - 0.002j)),
        (roots(-0.51, 0.137), roots(-0.508, 0.1371)),
    ],
    ids=["double, from a pair", "double, from two", "real to complex", "complex to real", "single"],
)
def test_roots_move_through_coalescence(truth, start):
    y = (1 / (GRID[:, None] - truth)).prod(1).real
    form = fit_factored(GRID, y, start, 0)
    wide = torch.linspace(-1, 1, 1001, dtype=torch.float64) + 1e-4
    wanted = (1 / (wide[:, None] - truth)).prod(1).real
    torch.testing.assert_close(form(wide), wanted, rtol=1e-9, atol=0)


@given(a=st.floats(-0.9, 0.9))
def test_a_double_pole_is_found_beyond_the_root_of_rounding(a):
    assume(float((GRID - a).abs().min()) > 2e-3)  # else that row alone counts
    form = fit_factored(GRID, 1 / (GRID - a).square(), roots(a + 1e-4 + 1e-3j, a + 1e-4 - 1e-3j), 0)
    assert float(form.c[0]) == pytest.approx(a, abs=1e-12)
    assert math.sqrt(abs(float(form.h[0]))) < 1e-7


def test_clean_data_know_a_pole_beyond_its_last_bit():
    # the zero of cos(4x) nearest to π/8 lies off the float by 1.5e-17
    x = GRID[(GRID.abs() - math.pi / 8).abs() < 0.05]
    x = torch.cat([x, math.pi / 8 + torch.linspace(-1e-3, 1e-3, 40, dtype=torch.float64)])
    y = 1 / torch.cos(4 * x[x > 0])
    form = fit_factored(x[x > 0], y, roots(math.pi / 8 + 1e-9), 8)
    near = math.pi / 8 + torch.tensor([3e-6, -3e-6], dtype=torch.float64)
    torch.testing.assert_close(form(near), 1 / torch.cos(4 * near), rtol=3e-13, atol=0)


def test_a_root_on_a_row_is_moved_off():
    form = fit_factored(GRID, 1 / (GRID - 0.211), roots(GRID[60]), 0)
    assert form.r.tolist() == pytest.approx([0.211], abs=1e-13)


@pytest.mark.parametrize(
    ("x", "degree", "error", "sentence"),
    [
        (GRID[:3], 2, ShapeError, r"x must be \(n,\)"),
        (0 * GRID, 2, DataError, "x must not be constant"),
        (GRID, 100, RangeError, r"degrees \(100, 2\) have 103 unknowns .* got 101"),
    ],
    ids=["lengths", "constant", "degrees"],
)
def test_bad_input_of_factors_is_refused_in_one_sentence(x, degree, error, sentence):
    with pytest.raises(error, match=sentence):
        fit_factored(x, GRID, roots(0.1, 0.2), degree)
