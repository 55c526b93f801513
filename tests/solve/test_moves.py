from itertools import chain, combinations, product

import pytest
import torch

from zeroproof.layers.features import feature_matrix
from zeroproof.solve.recipe import FAMILIES, Recipe, bases
from zeroproof.solve.search import SPREADS, WIDTHS, Moves, counts, possible

X = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
ALL = ("identity", "log", "inverse", "sqrt", "trig")
SIZES = {"graded": ((0, 0), (2, 1), (1, 3), (3, 0)), "waves": ((3, 3), (5, 0))}


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
    column = torch.tensor([[low], [high]], dtype=torch.float64)
    options = {"linear": None, "degrees": None}
    found = possible(column, column - 9, search_transforms=True, **options)
    assert found.transforms == (allowed,)
    assert found.targets == ("y",)
    none = possible(column, column, search_transforms=False, **options)
    assert (none.transforms, none.targets) == ((("identity",),), ("y",))
