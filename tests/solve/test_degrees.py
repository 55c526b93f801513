import pytest
import torch

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.solve import choose_degrees

X = torch.linspace(-1, 1, 300, dtype=torch.float64)
ONE = torch.ones_like(X)


@pytest.mark.parametrize("move", [lambda x: x, lambda x: 1e6 + 4 * x], ids=["unit", "far"])
@pytest.mark.parametrize(
    ("N", "D", "degrees"),
    [
        (lambda x: 0 * x + 1, lambda x: x - 0.137, (0, 1)),
        (lambda x: 0 * x + 1, lambda x: (x - 0.137) ** 2, (0, 2)),
        (lambda x: 1 + x, lambda x: x * x + 2, (1, 2)),
        (lambda x: x**3 - x, lambda x: 0 * x + 1, (3, 0)),
        (lambda x: 0 * x + 3, lambda x: 0 * x + 1, (0, 0)),
        (lambda x: x**3 + 1, lambda x: x + 2.5, (3, 1)),
        (lambda x: 2 + x * x, lambda x: (x - 0.7) * (x - 0.1) * (x + 0.4), (2, 3)),
        (lambda x: 1 + 1j * x, lambda x: x - 0.3 - 0.05j, (1, 1)),
    ],
    ids=["pole", "double", "(1, 2)", "polynomial", "constant", "(3, 1)", "(2, 3)", "complex"],
)
def test_the_degrees_of_a_rational_function_are_found(N, D, degrees, move):
    assert choose_degrees(move(X), N(X), D(X)) == degrees


def test_noise_does_not_raise_the_degrees_much():
    noise = 1 + 0.01 * torch.randn(300, generator=torch.Generator().manual_seed(0)).double()
    assert sum(choose_degrees(X, noise, X - 0.137)) <= 5


@pytest.mark.parametrize("size", [1.0, 1e-200, 1e200], ids=["unit", "tiny", "huge"])
def test_rows_at_infinity_count_and_rows_that_state_nothing_do_not(size):
    Y_n, Y_d = torch.full_like(X, size), size * (X - X[100])
    Y_d[100] = 0  # ⟨1, 0⟩
    Y_n[200] = Y_d[200] = 0  # ⟨0, 0⟩
    assert choose_degrees(X, Y_n, Y_d) == (0, 1)
    weight = torch.where(torch.arange(300) % 7 == 0, 0, ONE)
    wrong = torch.where(weight == 0, 5, Y_n)
    assert choose_degrees(X, wrong, Y_d, weight=weight) == (0, 1)


@pytest.mark.parametrize("shared", [True, False], ids=["(n, 1)", "(n, m)"])
def test_outputs_share_their_denominator(shared):
    D = ((X - 0.3) * (X + 0.2))[:, None]
    Y_n = torch.stack([X - 0.3, X**3], 1)
    assert choose_degrees(X, Y_n, D if shared else D.expand(-1, 2)) == (3, 2)
    assert choose_degrees(X, Y_n[:, 0], D[:, 0]) == (0, 1)


def test_the_search_stops_where_it_is_told_or_the_rows_end():
    y = torch.tan(4 * X)
    assert max(choose_degrees(X, y, ONE, largest=3)) <= 3
    assert max(choose_degrees(X[:8], y[:8], ONE[:8])) <= 2


def test_the_search_goes_on_to_rounding():
    assert min(choose_degrees(X, torch.tan(4 * X), ONE)) >= 10


@pytest.mark.parametrize(
    ("arguments", "options", "error", "sentence"),
    [
        ((X, X, ONE), {"largest": -1}, RangeError, "largest must be a whole number of at least 0"),
        ((X[:, None], X, ONE), {}, ShapeError, r"x must be \(n,\), got \(300, 1\)"),
        ((X, X[:3], ONE[:3]), {}, ShapeError, "same number of rows"),
        ((ONE, X, ONE), {}, DataError, "x must not be constant, got 1"),
        ((X / 0, X, ONE), {}, DataError, "x must be finite, got -inf in rows 0, 1, 2"),
        ((X, X / 0, ONE), {}, DataError, "Y_n must be finite, .* lift targets to tuples first"),
        ((X, 0 * X, 0 * X), {}, DataError, "a row with weight above 0 and a target"),
        ((X, X, ONE), {"weight": -ONE}, RangeError, "weight must be at least 0"),
    ],
    ids=["largest", "x", "rows", "constant", "infinite", "targets", "nothing", "weight"],
)
def test_bad_input_is_refused_in_one_sentence(arguments, options, error, sentence):
    with pytest.raises(error, match=sentence):
        choose_degrees(*arguments, **options)
