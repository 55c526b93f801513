import pytest
import torch

from zeroproof.estimators import closed_form
from zeroproof.estimators.closed_form import crosses, fit_closed_form, held_errors, polished
from zeroproof.estimators.options import Request, Rows
from zeroproof.solve.search import split

F64 = {"dtype": torch.float64}
REQUEST = Request("polynomial", (1, 1), False, "auto", None, 1.0, 0.0, "auto", 1.0, 0)
AUTO = REQUEST._replace(features="auto", degrees=None, budget=0.5)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


def plane(y, rows=300):
    X = torch.rand(rows, 2, generator=torch.Generator().manual_seed(0), **F64) * 2 - 1
    return Rows(X, y(X), torch.ones(rows, **F64))


def line(y, rows=200):
    X = torch.linspace(-1, 1, rows, **F64)[:, None]
    return Rows(X, y(X), torch.ones(rows, **F64))


def noisy(X):
    return X[:, :1] / (X[:, 1:] - 1.5) + 0.05 * normal(len(X), 1)


def apart(X):
    return torch.cat([1 / (X[:, :1] - 0.2 * X[:, 1:] - 0.3), 1 / (X[:, 1:] + 0.1)], 1)


def together(X):
    return X / (X[:, :1] - 0.2 * X[:, 1:] - 0.3)


def scaled(factor):
    """Return a stand-in for the polish that multiplies N."""
    return lambda model, rows, request: model._replace(a=factor * model.a)


def test_a_polish_that_harms_held_out_rows_is_not_kept(monkeypatch):
    monkeypatch.setattr(closed_form, "polished", scaled(1.5))
    free = REQUEST._replace(degrees=None, budget=0.2)
    rows = plane(noisy)
    fit = fit_closed_form(rows, free)
    assert not fit.polished
    assert torch.equal(fit.model.a, fit_closed_form(rows, free._replace(polish="none")).model.a)


def test_a_polish_that_helps_held_out_rows_is_kept_and_runs_on_all_rows(monkeypatch):
    seen = []

    def repaired(model, rows, request):
        seen.append(len(rows.X))
        return model._replace(a=model.a / 2)

    solve = closed_form.solved

    def spoiled(*arguments, **options):  # N is twice what it should be
        return scaled(2.0)(solve(*arguments, **options), None, None)

    monkeypatch.setattr(closed_form, "polished", repaired)
    monkeypatch.setattr(closed_form, "solved", spoiled)
    rows = plane(noisy)
    fit = fit_closed_form(rows, REQUEST._replace(degrees=None, budget=0.2))
    assert fit.polished
    assert seen == [240, 300]  # the core, then all rows
    N, D = fit.model.tuples(rows.X)
    assert (N / D - rows.y).square().mean() < 0.01


def test_with_degrees_the_polish_is_always_kept(monkeypatch):
    monkeypatch.setattr(closed_form, "polished", scaled(1.5))
    assert fit_closed_form(plane(noisy), REQUEST).polished
    assert not fit_closed_form(plane(noisy), REQUEST._replace(polish="none")).polished


def test_exact_data_are_not_polished(monkeypatch):
    monkeypatch.setattr(closed_form, "polished", lambda *a: pytest.fail("asked"))
    fit = fit_closed_form(plane(together), REQUEST)
    assert fit.error < 1e-20
    assert not fit.polished


@pytest.mark.parametrize(
    ("y", "asked", "shared"),
    [
        (apart, "auto", False),
        (together, "auto", True),
        (apart, True, True),
        (together, False, False),
    ],
    ids=["other poles", "common poles", "one is asked for", "two are asked for"],
)
def test_outputs_share_a_denominator_unless_separate_ones_halve_the_error(y, asked, shared):
    rows = plane(y)
    fit = fit_closed_form(rows, REQUEST._replace(shared=asked))
    assert fit.shared is shared
    assert fit.model.b.shape[1] == (1 if shared else 2)
    assert (fit.error < 1e-20) is not (y is apart and shared)  # one of degree 1 has one zero line


def test_noise_alone_does_not_separate_denominators():
    rows = plane(lambda X: together(X) + 0.05 * normal(len(X), 2))
    assert fit_closed_form(rows, REQUEST).shared


def test_alternates_are_admissible_and_of_the_core():
    rows = plane(lambda X: torch.sin(3 * X[:, :1]) * X[:, 1:] + 0.1 * normal(300, 1), rows=300)
    fit = fit_closed_form(rows, AUTO)
    assert fit.alternates
    assert len(fit.alternates) == min(4, len(fit.tried) - 1)
    scores = [score for _, score, _ in fit.tried]
    assert max(scores) <= 2 * min(scores)
    assert fit.tried[0][0] == fit.name
    parts = split(rows.X, AUTO.seed)
    for model, (_, score, weights) in zip(fit.alternates, fit.tried[1:5], strict=True):
        assert model.a.numel() + model.b.numel() == weights
        random, shell = held_errors(model, rows, parts, fit.power)
        assert (random * shell) ** 0.5 < 3 * score  # another ρ than in the search


def test_held_out_errors_are_those_of_the_fit_to_the_other_rows():
    rows = plane(noisy)
    fit = fit_closed_form(rows, REQUEST._replace(polish="none"))
    held = split(rows.X, 0).held
    spoiled = rows._replace(y=rows.y.clone())
    spoiled.y[held] += 3.0
    worse = fit_closed_form(spoiled, REQUEST._replace(polish="none"))
    assert fit.error < 2e-3
    assert worse.error > 0.1
    assert 0.01 < fit.relative < 0.5
    assert fit.near >= 0


def test_near_and_relative_are_unknown_where_no_held_row_is_finite():
    rows = line(lambda X: 1 / (X - 0.3))
    rows.y[split(rows.X, 0).held] = torch.inf
    fit = fit_closed_form(rows, AUTO._replace(polish="none"))
    assert fit.near != fit.near
    assert fit.relative != fit.relative


def test_a_pole_that_noise_puts_between_all_rows_is_replaced(monkeypatch):
    rows = plane(lambda X: 1 / (X[:, :1] + 1.5) + 0.01 * normal(300, 1))

    def crossing_on_all(model, given, request):
        done = polished(model, given, request)
        if len(given.X) < 300:
            return done
        b = torch.tensor([0.0, 1.0, 0.0], **F64)[:, None]
        return done._replace(b=b)

    monkeypatch.setattr(closed_form, "polished", crossing_on_all)
    free = fit_closed_form(rows, REQUEST)
    assert free.polished
    assert crosses(free.model, rows.X)
    one_sided = fit_closed_form(rows, REQUEST._replace(affine=True))
    assert not crosses(one_sided.model, rows.X)
    N, D = one_sided.model.tuples(rows.X)
    assert (N / D - rows.y).square().mean() < 1e-3
