import cmath
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import DataError
from zeroproof.layers.features import feature_matrix
from zeroproof.solve.recipe import TARGETS, Recipe, answers, bases, lift

INF, NAN = math.inf, math.nan
X = torch.rand(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
PLAIN = ("identity",) * 3


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("target", TARGETS)
@given(y=st.floats(1e-6, 1e6), size=st.floats(1e-3, 1e3), negative=st.booleans())
def test_answers_undo_the_lift_whatever_the_size_of_tuples(target, y, size, negative):
    N, D = lift(target, vector(y))
    factor = -size if negative else size
    N, D = answers(target, factor * N, factor * D)
    assert float(N / D) == pytest.approx(y, rel=1e-9)


@given(y=st.complex_numbers(max_magnitude=1e6, allow_nan=False))
def test_a_complex_target_is_its_own_lift(y):
    N, D = lift("y", torch.tensor([y], dtype=torch.complex128))
    assert (complex(N), complex(D)) == (y, 1)


@pytest.mark.parametrize("target", TARGETS)
def test_singular_targets_lift_to_their_points(target):
    N, D = lift(target, vector(INF, -INF, NAN, 4.0))
    assert D.tolist() == [0, 0, 0, 1]
    assert N[:3].tolist() == [1, -1, 1]
    assert float(N[3]) == {"y": 4.0, "square": 16.0, "log": math.log(4.0)}[target]


def test_a_complex_infinity_lifts_to_bottom():
    N, D = lift("y", torch.tensor([complex(INF, 0), cmath.nan, 1 + 2j]))
    assert D.tolist() == [0, 0, 1]
    assert N.tolist() == [1, 1, 1 + 2j]


@pytest.mark.parametrize(
    ("target", "N", "D", "expected"),
    [
        ("y", -3.0, 2.0, (-3.0, 2.0)),
        ("square", 4.0, 9.0, (2.0, 3.0)),
        ("square", -4.0, -9.0, (2.0, 3.0)),
        ("square", -4.0, 9.0, (0.0, 0.0)),  # no root of a negative number
        ("square", 4.0, -9.0, (0.0, 0.0)),
        ("square", 4.0, 0.0, (2.0, 0.0)),
        ("square", 0.0, -9.0, (0.0, 3.0)),
        ("square", 0.0, 0.0, (0.0, 0.0)),
        ("log", 2.0, 1.0, (1.0, math.exp(-2))),
        ("log", -2.0, 1.0, (math.exp(-2), 1.0)),
        ("log", 2.0, -1.0, (math.exp(-2), 1.0)),
        ("log", 800.0, 1.0, (1.0, 0.0)),  # beyond float64: infinite, not nan
        ("log", -800.0, 1.0, (0.0, 1.0)),
        ("log", 3.0, 0.0, (0.0, 0.0)),  # exp has no value at infinity
    ],
)
def test_answers_by_hand(target, N, D, expected):
    n, d = answers(target, vector(N), vector(D))
    assert (float(n), float(d)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("target", TARGETS)
def test_one_denominator_serves_several_outputs(target):
    N, D = vector([4.0, 9.0], [1.0, 2.0]), vector([1.0], [2.0])
    together = answers(target, N, D)
    apart = [answers(target, N[:, j : j + 1], D) for j in range(2)]
    got = (together.N / together.D).flatten()
    torch.testing.assert_close(got, torch.cat([n / d for n, d in apart], 1).flatten())


@pytest.mark.parametrize("target", TARGETS)
def test_rows_that_are_not_finite_stay_so(target):
    N, D = answers(target, vector(NAN, 1.0), vector(1.0, NAN))
    assert not torch.isfinite(N / D).any()


@pytest.mark.parametrize(
    ("recipe", "widths"),
    [
        (Recipe("polynomial", PLAIN, size=(2, 1)), (10, 4)),
        (Recipe("polynomial", PLAIN, (2,), size=(2, 1)), (12, 3)),
        (Recipe("polynomial", PLAIN, (0, 2), size=(2, 3)), (9, 4)),
        (Recipe("polynomial", PLAIN, size=(3, 0)), (20, 1)),
        (Recipe("chebyshev", PLAIN, size=(2, 1)), (27, 8)),
        (Recipe("polynomial", ("trig", "identity", "log"), size=(1, 1)), (5, 5)),
        (Recipe("random", PLAIN, size=(7, 7)), (8, 8)),
        (Recipe("random", PLAIN, (1,), size=(7, 0)), (16, 1)),
        (Recipe("fourier", PLAIN, (0, 1), size=(9, 4)), (30, 5)),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bases_are_as_wide_as_the_recipe_says(recipe, widths):
    H_N, H_D = (feature_matrix(each, X) for each in bases(recipe, X))
    assert (H_N.shape[1], H_D.shape[1]) == widths


def test_numerator_is_linear_in_linear_columns_and_denominator_free_of_them():
    recipe = Recipe("polynomial", ("identity", "trig", "log"), (0,), size=(2, 2))
    H_N, H_D = bases(recipe, X)
    moved = [X + torch.tensor([t, 0.0, 0.0]) for t in (0.0, 1.0, 2.0)]
    values = [feature_matrix(H_N, rows) for rows in moved]
    torch.testing.assert_close(values[2] - values[1], values[1] - values[0])
    assert not torch.equal(values[0], values[1])
    assert torch.equal(feature_matrix(H_D, moved[0]), feature_matrix(H_D, moved[2]))


def test_waves_of_the_denominator_are_the_first_of_the_numerator():
    H_N, H_D = bases(Recipe("random", PLAIN, size=(9, 4)), X, seed=3)
    assert torch.equal(feature_matrix(H_D, X), feature_matrix(H_N, X)[:, :5])
    other, _ = bases(Recipe("random", PLAIN, size=(9, 4)), X, seed=4)
    assert not torch.equal(other.W, H_N.W)


def test_a_transform_the_rows_do_not_allow_is_refused():
    with pytest.raises(DataError, match="column 1 must allow the transform log"):
        bases(Recipe("polynomial", ("identity", "log", "identity")), X - 1)
