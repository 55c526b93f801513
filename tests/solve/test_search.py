import math
from types import SimpleNamespace

import pytest
import torch

from zeroproof.layers.features import feature_matrix
from zeroproof.solve.recipe import Recipe, bases
from zeroproof.solve.search import (
    CLEAN,
    Candidate,
    SearchOptions,
    best_candidates,
    search,
    slack,
    split,
)

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def _idle(monkeypatch):
    """Let a busy machine not end a search early."""
    monkeypatch.setattr("zeroproof.solve.search.time", SimpleNamespace(monotonic=lambda: 0.0))


def drawn(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64)


def arm(rows=600):
    """Joint rates of a planar arm of two links for a rate of its tip."""
    t1, t2, dx, dy = (drawn(rows, 4) * 2 - 1).T * torch.tensor([[3.0], [3.0], [1.0], [1.0]])
    c1, s1, c12, s12, det = t1.cos(), t1.sin(), (t1 + t2).cos(), (t1 + t2).sin(), t2.sin()
    first = (c12 * dx + s12 * dy) / det
    second = -((c1 + c12) * dx + (s1 + s12) * dy) / det
    return torch.stack([t1, t2, dx, dy], 1), torch.stack([first, second], 1)


def coulomb(rows=600):
    X = drawn(rows, 2) * 2 - 1
    return X, 1 / torch.linalg.vector_norm(X, dim=1)[:, None]


def resonator(rows=600):
    """The answer of a driven resonator at frequency f and quality Q."""
    f, Q = drawn(rows, 2).T * torch.tensor([[1.0], [28.0]]) + torch.tensor([[0.5], [2.0]])
    return torch.stack([f, Q], 1), (1 / ((1 - f**2) ** 2 + (f / Q) ** 2))[:, None]


def quotient(rows=300):
    X = drawn(rows, 2)
    return X, X[:, :1] / (X[:, 1:] - 0.4)


def noise(rows=300):
    X = drawn(rows, 2)
    return X, drawn(rows, 1, seed=1) - 0.5


def tried(X, y, **options):
    return search(X, y, SearchOptions(**options)).candidates


def choice(X, y, **options):
    return best_candidates(tried(X, y, **options), len(X) // 10)[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_an_arm_is_linear_in_the_rates_and_trigonometric_in_the_joints(seed):
    found = choice(*arm(), families=("polynomial",), seed=seed)
    assert found.score <= CLEAN
    assert {2, 3} <= set(found.recipe.linear)
    assert found.recipe.transforms[1] == "trig"
    assert found.recipe.target == "y"


@pytest.mark.parametrize(
    ("data", "property_of_recipe"),
    [
        (coulomb, lambda recipe: recipe.target == "square"),
        (resonator, lambda recipe: recipe.transforms[1] == "inverse"),
        (quotient, lambda recipe: recipe.linear == (0,)),
    ],
    ids=["coulomb", "resonator", "quotient"],
)
def test_the_structure_of_clean_data_is_found(data, property_of_recipe):
    found = choice(*data(), families=("polynomial",))
    assert found.score <= CLEAN
    assert found.random < 1e-27
    assert property_of_recipe(found.recipe)


def test_a_logarithm_of_the_target_is_found():
    X, y = quotient()
    found = choice(X, (y / y.abs().max()).exp(), families=("polynomial",))
    assert found.recipe.target == "log"
    assert found.score < 1e-24


def test_weights_are_those_of_the_bases():
    X, y = coulomb()
    found = choice(X, y, families=("polynomial",))
    assert found.weights == sum(feature_matrix(each, X).shape[1] for each in bases(found.recipe, X))


@pytest.mark.parametrize("data", [quotient, noise])
def test_the_same_seed_gives_the_same_answer(data):
    one, two = (tried(*data(), budget=0.4, seed=5) for _ in range(2))
    assert one == two
    assert [c.score for c in one] == sorted(c.score for c in one)


def test_the_search_ends_when_nothing_is_left_to_find():
    ended = tried(*quotient(), budget=5.0)
    assert ended[0].score <= CLEAN
    assert {c.recipe.family for c in ended} == {"polynomial"}
    assert sum(c.score <= CLEAN for c in ended) == 1


def test_waves_follow_polynomials_that_do_not_suffice():
    found = tried(*noise(), budget=1.0)
    assert {c.recipe.family for c in found} == {"polynomial", "random"}


@pytest.mark.parametrize(("grows", "powers"), [(0, {1, 2}), (1, {1})])
def test_row_weights_follow_the_noise(grows, powers):
    X, y = quotient(600)
    level = (1 + y.abs()) ** grows
    noisy = y + 0.02 * level * torch.randn(600, 1, generator=torch.Generator().manual_seed(1))
    options = SearchOptions(families=("polynomial",), budget=2.0)
    assert search(X, noisy, options).power in powers
    assert search(X, noisy, options, power=0).power == 0
    assert search(X, y, options).power == 0


@pytest.mark.parametrize("budget", [1e-9, 1e-3])
def test_nothing_is_found_in_no_time(budget):
    assert tried(*quotient(), budget=budget) == []
    assert best_candidates([], 30) == []


def test_a_larger_budget_tries_more():
    few, many = (len(tried(*noise(), budget=b)) for b in (0.2, 0.8))
    assert 0 < few < many


def test_twice_the_budget_on_the_clock_ends_the_search(monkeypatch):
    seconds = iter(range(10_000))
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("zeroproof.solve.search.time", clock)
    assert len(tried(*noise(), budget=3.0)) < 7


@pytest.mark.parametrize("rows", [3, 6, 12])
def test_few_rows_get_small_candidates(rows):
    found = tried(*noise(rows), budget=0.5)
    finite = [c for c in found if c.score < math.inf]
    assert finite
    assert all(c.weights <= 0.8 * rows for c in finite if c.recipe.size[1])


@pytest.mark.parametrize("affine", [True, False])
def test_affine_answers_keep_the_sign_of_their_infinities(affine):
    X = drawn(400, 2) * 2 - 1
    y = 1 / (X[:, :1] + X[:, 1:] ** 2 - 0.3)  # changes its sign through infinity
    found = tried(X, y, families=("polynomial",), affine=affine, budget=1.0)
    assert (found[0].score < 1e-20) is not affine
    one_sided = tried(X, y**2, families=("polynomial",), affine=affine, budget=3.0)
    assert one_sided[0].score < 1e-20


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        ({"degrees": (1, 1)}, lambda r: r.size == (1, 1)),
        ({"linear": (1,)}, lambda r: r.linear == (1,)),
        ({"linear": ()}, lambda r: r.linear == ()),
        (
            {"transforms": False},
            lambda r: (r.transforms, r.linear, r.target) == (("identity",) * 2, (), "y"),
        ),
        ({"families": ("fourier",)}, lambda r: r.family == "fourier"),
        ({"families": ("chebyshev",)}, lambda r: r.family == "chebyshev"),
    ],
    ids=["degrees", "linear", "no linear", "no transforms", "fourier", "chebyshev"],
)
def test_what_is_declared_is_kept(options, holds):
    found = tried(*noise(), **{"families": ("polynomial",), "budget": 0.6, **options})
    assert found
    assert all(holds(c.recipe) for c in found)


@pytest.mark.parametrize(
    ("y", "targets"),
    [
        ((1.0, 2.0), {"y", "square", "log"}),
        ((1.0, INF, NAN), {"y", "square", "log"}),
        ((1.0, 0.0), {"y"}),
        ((1.0, -2.0), {"y"}),
        ((1.0 + 1j, 2.0), {"y"}),
    ],
    ids=["positive", "singular", "zero", "negative", "complex"],
)
def test_targets_are_transformed_only_where_all_are_positive(y, targets):
    X = drawn(60, 1)
    column = torch.tensor(y).repeat(60)[:60, None]
    column = column.to(torch.complex128 if column.is_complex() else torch.float64)
    found = tried(X, column, families=("polynomial",), budget=0.5)
    assert {c.recipe.target for c in found} == targets


def test_singular_rows_count():
    X = drawn(400, 2)
    X[:40, 1] = 0.4
    y = (1 + X[:, :1]) / (X[:, 1:] - 0.4)
    y[:40:2] = NAN
    assert not torch.isfinite(y[:40]).any()
    assert choice(X, y, families=("polynomial",)).score <= CLEAN


@pytest.mark.parametrize("rows", [5, 10, 100, 4000])
def test_a_tenth_is_held_out_and_a_tenth_lies_outside(rows):
    X = drawn(rows, 2)
    parts = split(X, 0)
    used = torch.cat(parts)
    assert len(used) == len(set(used.tolist())) == min(rows, 1500)
    assert len(parts.held) == len(parts.shell) == min(rows, 1500) // 10
    if len(parts.shell) > 10:
        far = (X - 0.5).abs().amax(1)
        inner = torch.cat([parts.core, parts.held])
        assert far[parts.shell].min() > far[inner].max() - 0.03
    assert all(torch.equal(*pair) for pair in zip(parts, split(X, 0), strict=True))


def test_scores_are_alike_within_a_factor_that_falls_with_the_rows_held_out():
    assert slack(1e-21, 400) == slack(1e-3, 0) == 2  # clean, or nothing held out
    factors = [slack(1e-3, rows) for rows in (1, 4, 16, 400, 10**8)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 2
    assert 1 < factors[-1] < 1.001


def test_of_sizes_that_are_alike_the_smallest_stands_for_its_structure():
    plain = Recipe("polynomial", ("identity",))
    table = [  # recipe, score, weights
        (plain._replace(size=(3, 3)), 1.0e-6, 8),
        (plain._replace(size=(2, 2)), 1.02e-6, 6),
        (plain._replace(size=(1, 1)), 1.4e-6, 4),  # worse by more than a standard error
        (Recipe("random", ("identity",)), 1.5e-6, 100),
        (plain._replace(target="log"), 1.9e-6, 3),
        (plain._replace(target="square"), 2.1e-6, 3),  # more than twice as bad
    ]
    found = [Candidate(r, score, weights, 1.0, score) for r, score, weights in table]
    assert [c.weights for c in best_candidates(found, 400)] == [6, 100, 3]
    assert [c.weights for c in best_candidates(found, 400, most=1)] == [6]
    clean = [c._replace(score=c.score * 1e-22 / 4) for c in found]  # all as good as exact
    assert [c.weights for c in best_candidates(clean, 400)] == [4, 100, 3, 3]
