import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.polynomial.chebyshev import chebval, chebvander

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.solve.rational import fit_rational, least_squares

DATA = Path(__file__).parents[2] / "examples" / "data"
CERTIFIED = json.loads((DATA / "certified.json").read_text(encoding="utf-8"))
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


def test_the_length_of_a_warm_start_is_free():
    y = (1 / (X - 1.5) + 0.1 * np.sin(9 * X))[None]
    H, one = chebvander(X, 1), np.ones((1, 1, 60))
    short, long = (
        fit_rational(H, H, y, one, warm=np.array([[-1.4, 1.0]]) * size, cold=False, resolved=0)
        for size in (1e-3, 1e3)
    )
    assert short.objective == pytest.approx(long.objective, rel=1e-12)


def test_features_that_repeat_still_give_the_best_fit_with_finite_coefficients():
    y = (np.exp(X) / (X - 1.1))[None]
    H, one = chebvander(X, 1), np.ones((1, 1, 60))
    once, twice = (fit_rational(H_N, H, y, one, resolved=1e-13) for H_N in (H, np.hstack([H, H])))
    assert twice.objective == pytest.approx(once.objective, rel=1e-9)
    assert np.abs(twice.a).max() < 1e3


T = torch.from_numpy(X)
NAN = math.nan


def noisy(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (1 + T) / (T - 1.3) + 0.05 * torch.randn(60, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(CERTIFIED))
@pytest.mark.parametrize("seed", [0, 1])
def test_certified_residual_sums_are_reached_without_start_values(name, seed):
    with (DATA / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    x, y = torch.tensor([[float(v) for v in row] for row in rows], dtype=torch.float64).T
    facts = CERTIFIED[name]
    degrees = facts["numerator_degree"], facts["denominator_degree"]
    form, objective = least_squares(x, y, degrees, starts=10, seed=seed)
    certified = facts["certified_residual_sum_of_squares"]
    residual_sum = float((form(x) - y).square().sum())
    assert abs(residual_sum - certified) <= 1e-10 * certified  # LRE at least 10
    assert objective == pytest.approx(residual_sum, rel=1e-9)
    certified_n, certified_d = (
        sum(c * x**k for k, c in enumerate(facts[f"certified_{part}"]))
        for part in ("numerator", "denominator")
    )
    answer = certified_n / certified_d
    assert float(((form(x) - answer) / y.abs().max()).abs().max()) < 1e-6


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_end_is_a_stationary_point_of_the_stated_objective(power):
    y, s = noisy(), 0.7
    form, found = least_squares(T, y, (1, 1), weight_power=power, scale=s, starts=3)
    form = replace(form, a=form.a.requires_grad_(), b=form.b.requires_grad_())
    objective = ((form(T) - y).square() / (1 + (y / s) ** 2) ** power).sum()
    assert found == pytest.approx(float(objective.detach()), rel=1e-12)
    for slope in torch.autograd.grad(objective, (form.a, form.b)):
        assert float(slope.abs().max()) < 1e-7


def test_row_weights_count_as_repeated_rows():
    y, weight = noisy(), torch.ones(60, dtype=torch.float64)
    weight[:20] = 2
    rows = torch.cat([torch.arange(60), torch.arange(20)])
    once = least_squares(T, y, (1, 1), weight=weight, scale=1.0, starts=2)[1]
    twice = least_squares(T[rows], y[rows], (1, 1), scale=1.0, starts=2)[1]
    assert once == pytest.approx(twice, rel=1e-12)


def test_rows_of_bottom_are_left_out():
    marked = torch.cat([noisy(), torch.tensor([NAN, math.inf, -math.inf], dtype=torch.float64)])
    x = torch.cat([T, torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)])
    known = least_squares(T, noisy(), (1, 1), starts=2)[1]
    assert least_squares(x, marked, (1, 1), starts=2)[1] == pytest.approx(known)


def test_the_same_seed_gives_the_same_answer():
    first, second = (least_squares(T, noisy(), (2, 2), starts=4, seed=3)[0] for _ in range(2))
    assert torch.equal(first.a, second.a)
    assert torch.equal(first.b, second.b)


@pytest.mark.parametrize(
    ("x", "y", "degrees", "error", "sentence"),
    [
        (T, T[:5], (1, 1), ShapeError, r"x must be \(n,\) and y \(n,\)"),
        (T, torch.stack([T, T], 1), (1, 1), ShapeError, r"y must be \(n,\), got \(60, 2\)"),
        (T[:3], T[:3], (2, 1), RangeError, r"\(2, 1\) have 4 unknowns .* got 3"),
        (T[[0, 1, 1, 1]], T[:4], (1, 1), RangeError, r"have 3 unknowns .* got 2"),
        (T, T, (-1, 1), RangeError, "degrees must be a whole number of at least 0, got -1"),
        (0 * T, T, (1, 1), DataError, "x must not be constant, got 0"),
        (torch.where(T > 0.9, NAN, T), T, (1, 1), DataError, "got nan in rows 57, 58, 59"),
        (T, T / 0 * 0, (1, 1), DataError, "at least one target must be finite, got 60 rows"),
    ],
    ids=["lengths", "columns", "degrees", "distinct", "negative", "constant", "nan", "bottom"],
)
def test_bad_input_is_refused_in_one_sentence(x, y, degrees, error, sentence):
    with pytest.raises(error, match=sentence):
        least_squares(x, y, degrees)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"starts": 0}, RangeError, "starts must be a whole number of at least 1, got 0"),
        ({"weight_power": -1.0}, RangeError, "weight_power must be at least 0, got -1"),
        ({"scale": 0.0}, RangeError, "scale must be a finite number above 0, got 0"),
        ({"weight": -T}, DataError, "weight must be finite and at least 0, got -1"),
        ({"weight": 0 * T}, DataError, "a row with a finite target must have a weight above 0"),
        ({"weight": T[:3]}, ShapeError, r"weight must be \(60,\), one per row, got \(3,\)"),
    ],
    ids=["starts", "power", "scale", "negative", "zeros", "weight"],
)
def test_bad_options_are_refused_in_one_sentence(options, error, sentence):
    with pytest.raises(error, match=sentence):
        least_squares(T, noisy(), (1, 1), **options)
