import csv
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.solve.marquardt import REASONS, fit_factored, least_squares, refine, refine_from_many

DATA = Path(__file__).parents[2] / "examples" / "data"
CERTIFIED = json.loads((DATA / "certified.json").read_text(encoding="utf-8"))
X = torch.linspace(-1, 1, 60, dtype=torch.float64)
NAN = math.nan
GRID = torch.linspace(-1, 1, 101, dtype=torch.float64)


def basis(degree):
    return chebyshev_basis(X, degree)


def noisy(seed=0):
    y = (1 + X) / (X - 1.3)
    generator = torch.Generator().manual_seed(seed)
    return y + 0.05 * torch.randn(len(X), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(CERTIFIED))
@pytest.mark.parametrize("seed", [0, 1])
def test_certified_residual_sums_are_reached_without_start_values(name, seed):
    with (DATA / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    x, y = torch.tensor([[float(v) for v in row] for row in rows], dtype=torch.float64).T
    facts = CERTIFIED[name]
    degrees = facts["numerator_degree"], facts["denominator_degree"]
    form, fit = least_squares(x, y, degrees, starts=10, seed=seed)
    certified = facts["certified_residual_sum_of_squares"]
    residual_sum = float((form(x) - y).square().sum())
    assert abs(residual_sum - certified) <= 1e-10 * certified  # LRE at least 10
    assert fit.objective == pytest.approx(residual_sum, rel=1e-9)
    certified_n, certified_d = (
        sum(c * x**k for k, c in enumerate(facts[f"certified_{part}"]))
        for part in ("numerator", "denominator")
    )
    answer = certified_n / certified_d
    assert float(((form(x) - answer) / y.abs().max()).abs().max()) < 1e-6


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_end_is_a_stationary_point_of_the_stated_objective(power):
    y, s = noisy(), 0.7
    fit = refine_from_many(basis(1), basis(1), y, weight_power=power, scale=s, starts=3)
    a, b = (part.clone().requires_grad_() for part in (fit.a, fit.b))
    answer = (basis(1) @ a) / (basis(1) @ b)
    objective = ((answer - y).square() / (1 + (y / s) ** 2) ** power).sum()
    assert fit.objective == pytest.approx(float(objective.detach()), rel=1e-12)
    for slope in torch.autograd.grad(objective, (a, b)):
        assert float(slope.abs().max()) < 1e-8


def test_row_weights_count_as_repeated_rows():
    y = noisy()
    weight = torch.ones(len(X), dtype=torch.float64)
    weight[:20] = 2
    rows = torch.cat([torch.arange(60), torch.arange(20)])
    once = refine_from_many(basis(1), basis(1), y, weight=weight, starts=2)
    twice = refine_from_many(basis(1)[rows], basis(1)[rows], y[rows], starts=2)
    assert once.objective == pytest.approx(twice.objective, rel=1e-12)


@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100))
def test_the_objective_never_rises_and_the_gauge_is_free(seed, factor):
    b = torch.tensor([1.5, -1.0], dtype=torch.float64)
    y = noisy(seed)
    start = refine(basis(1), basis(1), y, b, max_iterations=0)
    end = refine(basis(1), basis(1), y, factor * b)
    assert end.objective <= start.objective
    assert float(torch.linalg.vector_norm(end.b)) == pytest.approx(1)
    plain = refine(basis(1), basis(1), y, b)
    assert end.objective == pytest.approx(plain.objective, rel=1e-10)


def test_outputs_share_one_denominator():
    y = torch.stack([1 / (X - 1.2), X / (X - 1.2), 2 - 3 / (X - 1.2)], 1)
    fit = refine_from_many(basis(1), basis(1), y, starts=2)
    assert fit.a.shape == (2, 3)
    assert fit.b.shape == (2,)
    answer = (basis(1) @ fit.a) / (basis(1) @ fit.b)[:, None]
    torch.testing.assert_close(answer, y, rtol=1e-12, atol=1e-12)


def test_complex_targets_have_complex_coefficients():
    pole = 0.3 + 0.1j
    y = (2 - 1j) / (X - pole)
    fit = refine_from_many(basis(0), basis(1), y, starts=2)
    zero = complex(-fit.b[0] / fit.b[1])
    assert abs(zero - pole) < 1e-13


def test_rank_deficient_features_still_give_the_best_fit():
    y = noisy()
    H = basis(1)
    twice = refine_from_many(torch.cat([H, H], 1), H, y, starts=2)
    assert twice.objective == pytest.approx(
        refine_from_many(H, H, y, starts=2).objective, rel=1e-10
    )
    assert float(twice.a.abs().max()) < 1e3


def test_rows_of_bottom_are_left_out():
    y = noisy()
    marked = torch.cat([y, torch.tensor([NAN, math.inf, -math.inf], dtype=torch.float64)])
    x = torch.cat([X, torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)])
    _, fit = least_squares(x, marked, (1, 1), starts=2)
    assert fit.objective == pytest.approx(least_squares(X, y, (1, 1), starts=2)[1].objective)


@pytest.mark.parametrize(
    ("y", "b", "iterations", "reason"),
    [
        (noisy(), [1.5, -1.0], 0, "max_iterations"),
        (noisy(), [1.5, -1.0], 1, "max_iterations"),
        (0 * X, [1.5, -1.0], 50, "gradient"),
    ],
    ids=["none", "one", "exact"],
)
def test_the_reason_says_why_it_stopped(y, b, iterations, reason):
    b = torch.tensor(b, dtype=torch.float64)
    fit = refine(basis(1), basis(1), y, b, max_iterations=iterations)
    assert fit.reason == reason
    assert fit.iterations <= iterations


def test_convergence_is_reported():
    fit = refine(basis(1), basis(1), noisy(), torch.tensor([1.5, -1.0], dtype=torch.float64))
    assert fit.reason in set(REASONS) - {"max_iterations"}


def test_the_same_seed_gives_the_same_answer():
    first, second = (least_squares(X, noisy(), (2, 2), starts=4, seed=3)[0] for _ in range(2))
    assert torch.equal(first.a, second.a)
    assert torch.equal(first.b, second.b)


def test_repeated_x_is_fine():
    x, y = torch.cat([X, X]), torch.cat([noisy(0), noisy(1)])
    assert math.isfinite(least_squares(x, y, (1, 1), starts=2)[1].objective)


@pytest.mark.parametrize(
    ("x", "y", "degrees", "error", "sentence"),
    [
        (X, X[:5], (1, 1), ShapeError, r"x must be \(n,\) and y \(n,\)"),
        (X, torch.stack([X, X], 1), (1, 1), ShapeError, r"y must be \(n,\), got \(60, 2\)"),
        (X[:3], X[:3], (2, 1), RangeError, r"\(2, 1\) have 4 unknowns .* got 3"),
        (X[[0, 1, 1, 1]], X[:4], (1, 1), RangeError, r"have 3 unknowns .* got 2"),
        (X, X, (-1, 1), RangeError, "degrees must be a whole number of at least 0, got -1"),
        (0 * X, X, (1, 1), DataError, "x must not be constant, got 0"),
        (torch.where(X > 0.9, NAN, X), X, (1, 1), DataError, "got nan in rows 57, 58, 59"),
        (X, X / 0 * 0, (1, 1), DataError, "at least one target must be finite, got 60 rows"),
    ],
    ids=["lengths", "columns", "degrees", "distinct", "negative", "constant", "nan", "bottom"],
)
def test_bad_input_is_refused_in_one_sentence(x, y, degrees, error, sentence):
    with pytest.raises(error, match=sentence):
        least_squares(x, y, degrees)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"b": X[:3]}, ShapeError, r"b must be \(2,\), got \(3,\)"),
        ({"b": torch.tensor([1.0, 1.0])}, RangeError, "the start must have D other than 0"),
        ({"weight_power": -1.0}, RangeError, "weight_power must be at least 0, got -1"),
        ({"scale": 0.0}, RangeError, "scale must be a finite number above 0, got 0"),
        ({"weight": -X}, DataError, "weight must be finite and at least 0, got -1"),
        ({"weight": 0 * X}, DataError, "a row with a finite target must have a weight above 0"),
        ({"weight": X[:3]}, ShapeError, r"weight must be \(60,\), one per row, got \(3,\)"),
        ({"H_D": basis(1)[:5]}, ShapeError, "H_N, H_D and y must be"),
    ],
    ids=["b", "zero", "power", "scale", "negative", "zeros", "weight", "features"],
)
def test_bad_options_are_refused_in_one_sentence(options, error, sentence):
    fine = {"H_N": basis(1), "H_D": basis(1), "y": noisy(), "b": torch.tensor([1.5, -1.0])}
    with pytest.raises(error, match=sentence):
        refine(**fine | options)


def roots(*values):
    return torch.tensor(values, dtype=torch.complex128)


def test_conjugate_and_close_roots_share_a_quadratic():
    y = 1 / (GRID + 5)
    form = fit_factored(GRID, y, roots(0.5 + 2j, 0.5 - 2j, 0.1, 0.11, 0.9), 2, max_iterations=0)
    assert sorted(form.c.tolist()) == pytest.approx([0.105, 0.5])
    assert sorted(form.h.tolist()) == pytest.approx([-4, 0.005**2])
    assert form.r.tolist() == pytest.approx([0.9])


def test_complex_roots_of_complex_data_stay_single_unless_close():
    y = 1 / (GRID + 5j)
    form = fit_factored(GRID, y, roots(0.5 + 2j, 0.1 + 0.1j, 0.1 + 0.12j), 2, max_iterations=0)
    assert form.c.tolist() == [pytest.approx(0.1 + 0.11j)]
    assert form.h.tolist() == [pytest.approx(-(0.01**2))]
    assert form.r.tolist() == [0.5 + 2j]


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


def test_a_step_that_does_not_help_is_not_taken():
    y = 1 / (GRID - 0.305) + torch.sin(40 * GRID)
    before, after = (
        fit_factored(GRID, y, roots(0.7, -0.2), 1, max_iterations=steps) for steps in (0, 15)
    )
    size = (1 + (y / y.abs().median()).square()).sqrt()
    errors = [float(((form(GRID) - y) / size).square().sum()) for form in (before, after)]
    assert errors[1] <= errors[0]


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
