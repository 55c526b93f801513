import math
from itertools import product

import pytest
import torch
from torch import nn

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.layers.features import (
    Column,
    ModuleFeatures,
    feature_matrix,
    fit_column,
    graded_features,
    random_features,
    width_of,
)

X = 2 * torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
PLAIN = [Column(i, "identity", 0.0, 1.0) for i in range(3)]
TRIG = Column(1, "trig", 0.0, 1.0)


def chebyshev(x, k):
    return torch.cos(k * torch.arccos(x))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_products_are_as_many_as_monomials(count, degree):
    total = graded_features(PLAIN[:count], degree)
    each = graded_features(PLAIN[:count], degree, total=False)
    assert width_of(total) == math.comb(count + degree, count)
    assert width_of(each) == (degree + 1) ** count


@pytest.mark.parametrize("total", [True, False])
def test_products_are_those_of_chebyshev_polynomials(total):
    H = feature_matrix(graded_features(PLAIN[:2], 3, total=total), X)
    exact = [
        chebyshev(X[:, 0], i) * chebyshev(X[:, 1], j)
        for i, j in product(range(4), repeat=2)
        if not total or i + j <= 3
    ]
    distance = (H[:, :, None] - torch.stack(exact, 1)[:, None, :]).abs().amax(0)
    assert H.shape[1] == len(exact)
    assert (distance < 1e-12).sum(0).tolist() == [1] * len(exact)
    assert (distance < 1e-12).sum(1).tolist() == [1] * len(exact)


def test_a_trigonometric_column_has_two_functions_of_each_degree():
    features = graded_features([TRIG], 2)
    x = X[:, 1]
    waves = [torch.ones_like(x), x.cos(), x.sin(), (2 * x).cos(), (2 * x).sin()]
    torch.testing.assert_close(feature_matrix(features, X), torch.stack(waves, 1))


def test_degrees_of_waves_and_polynomials_add_up():
    features = graded_features([PLAIN[0], TRIG], 2)
    # 1; x, c, s; T2, x c, x s, c2, s2
    assert width_of(features) == 9
    H, x, t = feature_matrix(features, X), X[:, 0], X[:, 1]
    exact = torch.stack(
        [
            torch.ones_like(x),
            x, t.cos(), t.sin(),
            2 * x**2 - 1, x * t.cos(), x * t.sin(), (2 * t).cos(), (2 * t).sin(),
        ],
        1,
    )  # fmt: skip
    distance = (H[:, :, None] - exact[:, None, :]).abs().amax(0)
    assert (distance < 1e-12).sum(0).tolist() == [1] * 9


def test_features_come_in_rising_degree():
    columns = [PLAIN[0], TRIG, PLAIN[2]]
    small, large = (graded_features(columns, degree) for degree in (2, 3))
    first = feature_matrix(large, X)[:, : width_of(small)]
    assert torch.equal(first, feature_matrix(small, X))


@pytest.mark.parametrize(
    "base",
    [
        graded_features(PLAIN[:1], 2),
        random_features(PLAIN[:1], 4, spread=2.0),
        ModuleFeatures(tuple(PLAIN[:1]), nn.Linear(1, 3).double()),
    ],
    ids=["graded", "random", "module"],
)
def test_linear_columns_multiply_every_feature(base):
    linear = (Column(1, "identity", 0.5, 2.0), Column(2, "identity", -1.0, 0.25))
    H = feature_matrix(base, X)
    exact = torch.cat([H, H * ((X[:, 1:2] - 0.5) / 2), H * ((X[:, 2:3] + 1) / 0.25)], 1)
    wide = base._replace(linear=linear)
    torch.testing.assert_close(feature_matrix(wide, X), exact)
    if not isinstance(base, ModuleFeatures):
        assert width_of(wide) == 3 * width_of(base)


@pytest.mark.parametrize(
    ("transform", "function"),
    [
        ("identity", lambda x: x),
        ("log", torch.log),
        ("inverse", lambda x: 1 / x),
        ("sqrt", torch.sqrt),
    ],
)
def test_columns_are_scaled_to_the_rows_after_the_transform(transform, function):
    x = torch.linspace(0.3, 7.0, 50, dtype=torch.float64)[:, None]
    column = fit_column(x[:, 0], 0, transform)
    u = feature_matrix(graded_features([column], 1), x)[:, 1]
    assert u.min() == pytest.approx(-1, abs=1e-12)
    assert u.max() == pytest.approx(1, abs=1e-12)
    t = function(x[:, 0])
    torch.testing.assert_close(u, 2 * (t - t.min()) / (t.max() - t.min()) - 1)


def test_rescaled_inputs_give_the_same_polynomials():
    scaled = 1e6 * X + 3e7
    features = [
        graded_features([fit_column(rows[:, i], i) for i in range(3)], 4) for rows in (X, scaled)
    ]
    torch.testing.assert_close(
        feature_matrix(features[0], X), feature_matrix(features[1], scaled), rtol=0, atol=1e-6
    )


def test_a_column_without_extent_is_only_shifted():
    assert fit_column(torch.full((3,), 5.0), 2) == Column(2, "identity", 5.0, 1.0)


@pytest.mark.parametrize("wave", ["tanh", "cos"])
def test_random_waves_follow_their_formula_and_seed(wave):
    columns = [Column(0, "identity", 0.2, 0.5), TRIG]
    features = random_features(columns, 6, spread=3.0, wave=wave, seed=4)
    u = torch.stack([(X[:, 0] - 0.2) / 0.5, X[:, 1].cos(), X[:, 1].sin()], 1)
    function = torch.tanh if wave == "tanh" else torch.cos
    exact = torch.cat([torch.ones(40, 1), function(u @ features.W + features.c)], 1)
    torch.testing.assert_close(feature_matrix(features, X), exact)
    again = random_features(columns, 6, spread=3.0, wave=wave, seed=4)
    other = random_features(columns, 6, spread=3.0, wave=wave, seed=5)
    assert torch.equal(features.W, again.W)
    assert torch.equal(features.c, again.c)
    assert not torch.equal(features.W, other.W)


@pytest.mark.parametrize("wave", ["tanh", "cos"])
def test_more_waves_continue_fewer(wave):
    few, many = (random_features(PLAIN, k, spread=2.0, wave=wave, seed=1) for k in (7, 20))
    assert torch.equal(many.W[:, :7], few.W)
    assert torch.equal(many.c[:7], few.c)


def test_spread_is_the_standard_deviation_and_centres_lie_on_the_data():
    features = random_features(PLAIN, 4000, spread=3.0)
    assert float(features.W.std()) == pytest.approx(3, rel=0.03)
    reach = 3 * math.sqrt(3)
    assert features.c.abs().max() <= reach
    assert float(features.c.std()) == pytest.approx(reach / math.sqrt(3), rel=0.05)
    phase = random_features(PLAIN, 4000, spread=3.0, wave="cos").c
    assert 3.1 < phase.abs().max() <= math.pi


def test_drawing_features_leaves_the_generator_of_torch_alone():
    before = torch.random.get_rng_state()
    random_features(PLAIN, 5, spread=1.0)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "features",
    [
        graded_features([PLAIN[0], TRIG], 3, linear=PLAIN[2:]),
        graded_features([Column(0, "log", 0.0, 1.0), Column(2, "sqrt", 0.5, 2.0)], 2, total=False),
        random_features([PLAIN[0], TRIG], 5, spread=1.0, linear=PLAIN[2:]),
        random_features([Column(0, "inverse", 0.0, 1.0)], 5, spread=1.0, wave="cos"),
        ModuleFeatures(tuple(PLAIN), nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double()),
    ],
    ids=["graded", "transforms", "tanh", "cos", "module"],
)
def test_gradients_are_those_of_differences(features):
    rows = (X[:5].abs() + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: feature_matrix(features, x), rows)


def test_rows_a_transform_does_not_allow_are_not_finite():
    features = graded_features([Column(0, "log", 0.0, 1.0)], 2)
    H = feature_matrix(features, torch.tensor([[1.0], [-1.0], [0.0]]))
    assert torch.isfinite(H).all(1).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("forward", "came"),
    [
        (lambda x: x[:, 0], r"\(40,\)"),
        (lambda x: x[:-1], r"\(39, 3\)"),
        (lambda x: x[:, :0], r"\(40, 0\)"),
        (lambda x: (x, x), "tuple"),
    ],
    ids=["flat", "fewer rows", "no feature", "tuple"],
)
def test_a_module_must_return_rows_of_features(forward, came):
    module = nn.Identity()
    module.forward = forward
    features = ModuleFeatures(tuple(PLAIN), module)
    with pytest.raises(ShapeError, match=rf"must return \(40, features\), got {came}"):
        feature_matrix(features, X)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit_column(X[:, 0], 0, "cube"), RangeError, "transform must be one of .*'cube'"),
        (lambda: fit_column(X[:, 0], 3, "log"), DataError, "column 3 must allow the transform log"),
        (lambda: graded_features(PLAIN, -1), RangeError, "degree must be a whole number"),
        (lambda: graded_features(PLAIN, 1.5), RangeError, "degree must be a whole number"),
        (lambda: random_features(PLAIN, 0, spread=1.0), RangeError, "width must be a whole number"),
        (
            lambda: random_features(PLAIN, 3, spread=1.0, wave="sin"),
            RangeError,
            "wave must be one of 'tanh', 'cos', got 'sin'",
        ),
    ],
    ids=["transform", "log of negative", "degree", "half a degree", "width", "wave"],
)
def test_what_cannot_be_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", [(), (3,), (3, 1, 1)])
def test_rows_are_needed(shape):
    features = graded_features([Column(0, "identity", 0.0, 1.0)], 2)
    with pytest.raises(ShapeError, match=r"X must have the shape \(n, d\), got \("):
        feature_matrix(features, torch.zeros(shape))


def test_a_record_without_the_largest_places_is_evaluated_alike():
    columns = [Column(0, "identity", 0.0, 1.0), Column(1, "trig", 0.0, 1.0)]
    features, X = graded_features(columns, 3), torch.linspace(-1, 1, 8).reshape(4, 2)
    assert features.highest == (3, 6)
    older = features._replace(highest=())
    assert torch.equal(feature_matrix(features, X), feature_matrix(older, X))
