import pytest
import torch

from zeroproof.errors import RangeError, ShapeError
from zeroproof.solve.poles import pole_curve

pytest.importorskip("contourpy")
SQUARE = ((-2, 2), (-2, 2))


def test_a_ring_is_one_closed_line_on_the_zero_set():
    (line,) = pole_curve(lambda x: x.square().sum(1) - 1, SQUARE, points=41)
    assert torch.equal(line[0], line[-1])
    radius = torch.linalg.vector_norm(line, dim=1)
    torch.testing.assert_close(radius, torch.ones_like(radius), rtol=0, atol=1e-14)


def test_inputs_of_unlike_units_are_each_in_their_own():
    line = torch.cat(pole_curve(lambda x: x[:, 0] - 1e6 * x[:, 1] ** 2, ((0, 1e6), (-1, 1))))
    torch.testing.assert_close(line[:, 0], 1e6 * line[:, 1] ** 2, rtol=0, atol=1e-6)


def test_branches_are_separate_lines_and_no_zero_is_no_line():
    assert len(pole_curve(lambda x: torch.sin(3 * x[:, 0]) + 0 * x[:, 1], SQUARE)) == 3
    assert pole_curve(lambda x: 1 + x.square().sum(1), SQUARE) == []


@pytest.mark.parametrize(
    ("D", "options", "error", "sentence"),
    [
        (lambda x: x, {}, ShapeError, r"one value per point, \(40401,\), got \(40401, 2\)"),
        (lambda x: x[:, 0], {"points": 1}, RangeError, "points must be a whole number"),
    ],
    ids=["shape", "points"],
)
def test_bad_input_is_refused_in_one_sentence(D, options, error, sentence):
    with pytest.raises(error, match=sentence):
        pole_curve(D, SQUARE, **options)
