import math
from itertools import chain, combinations, product
from types import SimpleNamespace

import pytest
import torch

from zeroproof.layers.features import feature_matrix
from zeroproof.solve.recipe import FAMILIES, Recipe, bases
from zeroproof.solve.search import (
    CLEAN,
    FLOOR,
    SPREADS,
    WIDTHS,
    Candidate,
    Moves,
    SearchOptions,
    SearchRows,
    best_candidates,
    chordal_error,
    counts,
    oriented,
    possible,
    search,
    slack,
    split,
)

INF, NAN = math.inf, math.nan
X = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
ALL = ("identity", "log", "inverse", "sqrt", "trig")
SIZES = {"graded": ((0, 0), (2, 1), (1, 3), (3, 0)), "waves": ((3, 3), (5, 0))}
F64 = {"dtype": torch.float64}
INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def _idle(monkeypatch):
    """Let a busy machine not end a search early."""
    monkeypatch.setattr("zeroproof.solve.race.time", SimpleNamespace(process_time=lambda: 0.0))


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
    return search(X, y, SearchOptions(**options))[0]


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
    assert search(X, noisy, options)[1] in powers
    assert search(X, noisy, options, power=0)[1] == 0
    assert search(X, y, options)[1] == 0


@pytest.mark.parametrize("budget", [1e-9, 1e-3])
def test_nothing_is_found_in_no_time(budget):
    assert tried(*quotient(), budget=budget) == []
    assert best_candidates([], 30) == []


def test_a_larger_budget_tries_more():
    few, many = (len(tried(*noise(), budget=b)) for b in (0.2, 0.8))
    assert 0 < few < many


def test_twice_the_budget_on_the_clock_ends_the_search(monkeypatch):
    seconds = iter(range(10_000))
    clock = SimpleNamespace(process_time=lambda: next(seconds))
    monkeypatch.setattr("zeroproof.solve.race.time", clock)
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
    found = [Candidate(r, score, weights, random=score) for r, score, weights in table]
    assert [c.weights for c in best_candidates(found, 400)] == [6, 100, 3]
    assert [c.weights for c in best_candidates(found, 400, most=1)] == [6]
    clean = [c._replace(score=c.score * 1e-22 / 4) for c in found]  # all as good as exact
    assert [c.weights for c in best_candidates(clean, 400)] == [4, 100, 3, 3]


def moves(columns=3, **changes):
    plain = Moves((ALL,) * columns, ("y", "square", "log"), None, None, True)
    return plain._replace(**changes)


def proper_subsets(columns, largest=None):
    most = columns if largest is None else largest + 1
    return set(chain.from_iterable(combinations(range(columns), r) for r in range(most)))


@pytest.mark.parametrize("linear", [(), (0,), (1, 2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_the_features(family, linear):
    sizes = SIZES["graded" if family in {"polynomial", "chebyshev"} else "waves"]
    for transforms, size in product(product(("identity", "sqrt", "trig"), repeat=3), sizes):
        shown = tuple("identity" if i in linear else t for i, t in enumerate(transforms))
        recipe = Recipe(family, shown, linear, "y", size)
        widths = tuple(feature_matrix(each, X).shape[1] for each in bases(recipe, X))
        assert counts(recipe) == widths


@pytest.mark.parametrize(("columns", "largest"), [(1, 0), (2, 1), (4, 3), (6, 5), (7, 1), (9, 1)])
def test_starts_cover_all_sets_of_linear_columns(columns, largest):
    starts = list(moves(columns).starts("polynomial", (2, 2)))
    assert {start.linear for start in starts} == proper_subsets(columns, largest)
    for start in starts:
        assert all(start.transforms[i] == "identity" for i in start.linear)
        assert (start.family, start.size) == ("polynomial", (2, 2))


def test_starts_are_every_subset_with_every_kind_and_target():
    got = {start[1:4] for start in moves(2).starts("polynomial", (1, 1))}
    exact = {
        (tuple("identity" if i in linear else kind for i in range(2)), linear, target)
        for kind in ("identity", "log", "trig")
        for linear in ((), (0,), (1,))
        for target in ("y", "square", "log")
    }
    assert got == exact


@pytest.mark.parametrize(
    ("changes", "subsets"),
    [
        ({"linear": (1,)}, {(1,)}),
        ({"linear": ()}, {()}),
        ({"search_transforms": False, "transforms": (("identity",),) * 3}, {()}),
    ],
    ids=["declared", "none", "no search"],
)
def test_what_is_declared_is_the_only_start(changes, subsets):
    assert {start.linear for start in moves(**changes).starts("chebyshev", (1, 1))} == subsets


def test_columns_start_transformed_only_where_they_allow_it():
    allowed = (("identity", "log"), ("identity", "trig"))
    starts = moves(2, transforms=allowed, targets=("y",)).starts("polynomial", (1, 1))
    free = {start.transforms for start in starts if not start.linear}
    assert free == {("identity",) * 2, ("log", "identity"), ("identity", "trig")}


def test_a_structural_move_is_one_change():
    start = Recipe("polynomial", ("log", "identity", "trig"), (1,), "y", (2, 1))
    found = set(moves().structures(start)) - {start}
    assert {each.target for each in found} == {"y", "square", "log"}
    assert {each.linear for each in found} == {(1,), (0, 1), (1, 2), ()}
    for each in found:
        turned = set(each.linear) ^ set(start.linear)
        others = {i for i in range(3) if each.transforms[i] != start.transforms[i]} - turned
        assert (each.target != start.target) + len(turned) + len(others) == 1
        assert all(each.transforms[i] == "identity" for i in each.linear)
        assert (each.family, each.size) == (start.family, start.size)
    shown = {each.transforms for each in found if each.linear == (1,)}
    assert shown == {(t, "identity", "trig") for t in ALL} | {("log", "identity", t) for t in ALL}


def test_one_column_stays_in_the_denominator():
    start = Recipe("polynomial", ("identity",) * 3, (0, 1))
    assert all(len(each.linear) < 3 for each in moves().structures(start))


def test_structures_respect_what_is_declared():
    start = Recipe("polynomial", ("identity",) * 3, (1,))
    assert {each.linear for each in moves(linear=(1,)).structures(start)} == {(1,)}
    assert list(moves(search_transforms=False).structures(start)) == []


@pytest.mark.parametrize("size", [(0, 0), (1, 0), (2, 3)])
def test_sizes_go_up_and_down_but_never_below_zero(size):
    start = Recipe("polynomial", ("identity",) * 3, size=size)
    found = {each.size for each in moves().sizes(start)}
    p, q = size
    assert {(p + 1, q), (p, q + 1), (p + 1, q + 1), (p, 0)} <= found
    assert ((p - 1, q) in found) is (p > 0)
    assert ((p, q - 1) in found) is (q > 0)
    assert all(min(each) >= 0 for each in found)
    assert list(moves(degrees=size).sizes(start)) == []


def test_waves_become_more_of_nearby_spreads_or_leave_the_denominator():
    start = Recipe("random", ("identity",) * 3, size=(100, 100), spread=1.0)
    *more, last = moves().widths(start)
    assert last.size == (100, 0)
    assert {each.size for each in more} == {(w, w) for w in WIDTHS if w >= 100}
    assert {each.spread for each in more} == {0.5, 1.0, 2.0} < set(SPREADS)


@pytest.mark.parametrize(
    ("low", "high", "allowed"),
    [
        (1.0, 4.0, ALL),
        (1.0, 2.9, ("identity", "trig")),
        (1.0, 40.0, ("identity", "log", "inverse", "sqrt")),
        (0.0, 20.0, ("identity",)),
        (-3.0, 3.0, ("identity", "trig")),
    ],
)
def test_columns_allow_what_their_range_does(low, high, allowed):
    column = torch.tensor([[low], [low + 0.1], [high]], dtype=torch.float64)
    options = {"linear": None, "degrees": None}
    found = possible(column, column - 9, search_transforms=True, **options)
    assert found.transforms == (allowed,)
    assert found.targets == ("y",)
    codes = possible(
        torch.arange(12.0)[:, None].double(), column, search_transforms=True, **options
    )
    assert codes.transforms == (("identity",),)  # whole numbers are no angles
    none = possible(column, column, search_transforms=False, **options)
    assert (none.transforms, none.targets) == ((("identity",),), ("y",))


def column(*values):
    return torch.tensor(values, **F64)[:, None]


def angle(N, D):
    return math.atan2(D, N)


TUPLES = [  # N, D, y, tuple of y
    (1.0, 1.0, 1.0, (1, 1)),
    (1.0, 2.0, -3.0, (-3, 1)),
    (-4.0, -2.0, 2.0, (2, 1)),
    (3.0, 0.5, INF, (1, 0)),
    (-3.0, 0.5, INF, (1, 0)),
    (3.0, 0.5, -INF, (-1, 0)),
    (1.0, 0.0, NAN, (1, 0)),
]


@pytest.mark.parametrize(("N", "D", "y", "lifted"), TUPLES)
def test_a_chordal_error_is_the_squared_sine_of_the_angle_between(N, D, y, lifted):
    turn = angle(N, D) - angle(*lifted)
    parts = column(N), column(D), column(y), torch.ones(1, **F64)
    assert chordal_error(*parts) == pytest.approx(math.sin(turn) ** 2, abs=1e-15)
    both = chordal_error(*parts, affine=True)
    assert both == pytest.approx(2 * (1 - math.cos(turn)), abs=1e-15)


def test_rows_count_by_their_weights_and_outputs_alike():
    rows = [column(*part) for part in zip(*(each[:3] for each in TUPLES), strict=True)]
    weight = torch.arange(7, **F64) / 7  # below 1 no row can count for more than it weighs
    alone = [chordal_error(*(z[i : i + 1] for z in rows), torch.ones(1, **F64)) for i in range(7)]
    mean = sum(w * each for w, each in zip(weight.tolist(), alone, strict=True)) / 7
    assert chordal_error(*rows, weight) == pytest.approx(mean)
    N, D, y = rows
    two = torch.cat([N, 0 * N], 1), D, torch.cat([y, column(*[INF] * 7)], 1)  # one D for both
    assert chordal_error(*two, weight) == pytest.approx((mean + 3 / 7) / 2)


def test_no_row_counts_for_more_than_a_relative_error_of_1():
    y = column(0.1, 100.0)
    answers = column(0.1, -50.0), column(1.0, 1.0)
    for power, most in ((0, 1), (1, 1), (2, 1 + 100**2)):
        weight = (1 + y[:, 0].square()) ** power
        assert chordal_error(*answers, y, weight) <= most / 2
    relative = chordal_error(column(0.1, 101.0), answers[1], y, 1 + y[:, 0].square())
    assert relative == pytest.approx(0.01**2 / 2, rel=0.03)


@pytest.mark.parametrize(("N", "D"), [(NAN, 1.0), (1.0, NAN), (0.0, 0.0)])
def test_an_answer_that_is_none_costs_1(N, D):
    assert chordal_error(column(N), column(D), column(0.5), torch.ones(1, **F64)) == 1


def test_complex_answers_are_compared_up_to_their_phase():
    y = torch.tensor([[1 + 2j]])
    N, D = y * 1j, torch.tensor([[1j]])
    assert chordal_error(N, D, y, torch.ones(1, **F64)) == pytest.approx(0, abs=1e-15)
    assert chordal_error(N, -D, y, torch.ones(1, **F64)) > 0.1


def test_orientation_makes_most_denominators_positive():
    D = torch.tensor([[1.0, -1.0, 1.0], [-2.0, -5.0, 1.0], [-3.0, 0.5, 1.0], [0.0, 1.0, -9.0]])
    N = torch.arange(12.0).reshape(4, 3)
    turned_N, turned_D = oriented(N, D)
    assert (turned_D.sign().sum(0) >= 0).all()
    assert torch.equal(turned_N, N * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.equal(turned_N / turned_D, N / D)
    assert torch.equal(oriented(turned_N, turned_D)[1], turned_D)


@pytest.mark.parametrize(
    ("score", "rows", "factor"),
    [(1e-3, 0, 2), (1e-21, 400, 2), (1e-19, 400, 1.05), (1e-3, 1, 2), (1e-3, 100, 1.1)],
)
def test_scores_may_differ_by_a_standard_error(score, rows, factor):
    assert slack(score, rows) == pytest.approx(factor)


def table(y, held=10, affine=False):
    X = torch.linspace(-1, 1, len(y), **F64)[:, None]
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return SearchRows(X[order], y[order], len(y) - 2 * held, held, affine, 0)


def test_a_score_is_the_mean_of_both_kinds_of_held_out_rows():
    y = torch.linspace(-1, 1, 100, **F64)[:, None] ** 3
    rows = table(y)
    score, _, random = rows.score(Recipe("polynomial", ("identity",), size=(1, 1)), 0, 80, math.inf)
    held, shell = rows.parts()
    assert (held, shell) == (slice(80, 90), slice(90, 100))
    assert min(random, score) > 1e-4
    score, _, random = rows.score(Recipe("polynomial", ("identity",), size=(3, 0)), 0, 80, math.inf)
    assert random == pytest.approx(FLOOR, abs=1e-29)
    assert score < 1e-28


def test_rows_that_none_can_be_spared_of_are_scored_themselves():
    y = torch.linspace(-1, 1, 6, **F64)[:, None]
    rows = table(y, held=0)
    assert rows.parts() == (slice(0, 6), slice(0, 6))
    line = Recipe("polynomial", ("identity",), size=(1, 0))
    assert rows.score(line, 0, 6, math.inf)[0] < 1e-28


def test_infinities_of_both_signs_cost_only_where_they_differ():
    N, D = torch.ones(4, 1, **F64), column(1.0, 1.0, 1e-9, -1e-9)
    y, weight = column(1.0, 1.0, INF, INF), torch.ones(4, **F64)
    one, two = (
        SearchRows(y, y, 2, 1, affine, 0).errors("y", N, D, weight) for affine in (False, True)
    )
    assert max(one) < 1e-17
    assert two[0] < 1e-17
    assert two[1] < 1e-17
    turned = SearchRows(y, y, 2, 1, True, 0).errors("y", -N, -D, weight)
    assert turned == two  # the sign of all tuples together means nothing


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_noise_is_read_off_a_fit(power):
    x = torch.linspace(0.05, 2, 400, **F64)[:, None]
    y = 1 / x
    random = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), **F64)
    noisy = y + 0.01 * (1 + y**2) ** (1 - power / 2) * random
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    rows = SearchRows(x[order], noisy[order], 320, 40, False, 0)
    recipe = Recipe("polynomial", ("identity",), size=(0, 1))
    assert rows.noise(recipe, 1e-9) == power
