import pytest
import torch

from zeroproof.errors import DataError, RangeError
from zeroproof.solve.degrees import choose_degrees

X = torch.linspace(-1, 1, 300, dtype=torch.float64)


@pytest.mark.parametrize(
    ("f", "degrees"),
    [
        (lambda x: 1 / (x - 0.137), (0, 1)),
        (lambda x: (1 + x) / (x * x + 2), (1, 2)),
        (lambda x: x**3 - x, (3, 0)),
        (lambda x: 3 + 0 * x, (0, 0)),
        (lambda x: (x**3 + 1) / (x + 2.5), (3, 1)),
    ],
    ids=["pole", "(1, 2)", "polynomial", "constant", "(3, 1)"],
)
def test_the_degrees_of_a_rational_function_are_found(f, degrees):
    assert choose_degrees(X, f(X)) == degrees


def test_noise_does_not_raise_the_degrees_much():
    noise = 1 + 0.01 * torch.randn(300, generator=torch.Generator().manual_seed(0)).double()
    assert sum(choose_degrees(X, noise / (X - 0.137))) <= 5


def test_the_search_stops_where_it_is_told_or_the_rows_end():
    assert max(choose_degrees(X, torch.tan(4 * X), largest=3)) <= 3
    assert max(choose_degrees(X[:8], torch.tan(4 * X[:8]))) <= 2


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(RangeError, match="largest must be a whole number of at least 0, got -1"):
        choose_degrees(X, X, largest=-1)
    with pytest.raises(DataError, match="at least one target must be finite"):
        choose_degrees(X, X * torch.nan)
