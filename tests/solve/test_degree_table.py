import pytest
import torch

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective import chordal_distance
from zeroproof.solve import readout_degrees, spectral_readout

SPLIT = torch.arange(400) % 5 > 0


def points():
    return torch.rand(400, dtype=torch.float64) * 4 + 1


EXACT = {  # at x = 3 + 2t the degrees are those in t
    "constant": (torch.ones_like, lambda x: torch.ones_like(x) * 2, (0, 0)),
    "pole": (torch.ones_like, lambda x: x - 2.3, (0, 1)),
    "square": (lambda x: (x - 2) ** 2, torch.ones_like, (2, 0)),
    "double": (torch.ones_like, lambda x: (x - 2.3) ** 2, (0, 2)),
    "three": (lambda x: 2 + x * x, lambda x: (x - 2) * (x - 3.1) * (x - 4.4), (2, 3)),
}


@pytest.mark.parametrize(("N", "D", "degrees"), EXACT.values(), ids=EXACT)
def test_the_degrees_of_a_rational_function_suffice(N, D, degrees):
    x = points()
    table = readout_degrees(x, N(x), D(x), SPLIT, ~SPLIT, largest=6)
    assert table.errors[degrees] < 1e-28
    below = [e for pair, e in pairs(table.errors) if pair[0] < degrees[0] or pair[1] < degrees[1]]
    assert all(error > 1e-12 for error in below)
    assert sum(table.degrees) <= sum(degrees) + 3  # rounding may favour one more
    assert all(d >= least for d, least in zip(table.degrees, degrees, strict=True))
    assert table.error == table.errors[table.degrees] < 1e-29


def pairs(errors):
    return [((p, q), errors[p, q].item()) for p in range(len(errors)) for q in range(len(errors))]


def test_the_table_holds_what_the_readout_reaches():
    x = points()
    Y_n, Y_d = 1 + 0.05 * torch.randn_like(x), x - 2.3
    table = readout_degrees(x, Y_n, Y_d, SPLIT, ~SPLIT, largest=4)
    p, q = table.degrees
    T = chebyshev_basis(x, 4, domain=table.domain)
    fit = spectral_readout(
        T[SPLIT, : p + 1], Y_n[SPLIT], Y_d[SPLIT], H_D=T[SPLIT, : q + 1], rho=1e-32
    )
    N, D = T[~SPLIT, : p + 1] @ fit.a, T[~SPLIT, : q + 1] @ fit.b
    reached = chordal_distance(N, D, Y_n[~SPLIT], Y_d[~SPLIT]).square().mean().item()
    assert table.error == pytest.approx(reached, rel=0.2)
    assert sum(table.degrees) <= 3


def test_outputs_share_their_degrees_and_denominator():
    x = points()
    Y_n = torch.stack([torch.ones_like(x), x], 1)
    table = readout_degrees(x, Y_n, (x - 2.3)[:, None], SPLIT, ~SPLIT, largest=4)
    assert table.errors[1, 1] < 1e-28
    assert table.errors[0, 4] > 1e-12


def test_degrees_that_the_rows_cannot_determine_are_left_out():
    x = points()[:6]
    table = readout_degrees(x, x, x - 2.3, slice(0, 4), slice(4, 6), largest=4)
    assert torch.isinf(table.errors[3, 3])
    assert torch.isfinite(table.errors[1, 1])


def test_rows_far_from_zero_are_scaled():
    x = points() + 1e6
    low, high = readout_degrees(x, x, x - x.mean(), SPLIT, ~SPLIT, largest=2).domain
    assert (low, high) == (x.min(), x.max())


def test_bad_input_is_refused():
    x = points()
    Y = torch.ones_like(x)
    with pytest.raises(ShapeError, match=r"x must be real and \(rows,\), got \(20, 20\)"):
        readout_degrees(x.reshape(20, 20), Y, Y, SPLIT, ~SPLIT)
    with pytest.raises(DataError, match="x must be finite and not constant"):
        readout_degrees(Y, Y, Y, SPLIT, ~SPLIT)
    with pytest.raises(DataError, match="held must pick a row"):
        readout_degrees(x, Y, Y, SPLIT, slice(0, 0))
    with pytest.raises(DataError, match="at least one row, got none"):
        readout_degrees(x, Y, Y, slice(0, 0), SPLIT)
    with pytest.raises(RangeError, match="largest must be a whole number"):
        readout_degrees(x, Y, Y, SPLIT, ~SPLIT, largest=-1)
    with pytest.raises(ShapeError, match="same number of rows"):
        readout_degrees(x, Y[:3], Y[:3], SPLIT, ~SPLIT)
