import pytest
import torch

from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.layers.basis import chebyshev_basis
from zeroproof.projective import chordal_distance
from zeroproof.solve import RHOS, choose_rho, readout_path, spectral_readout
from zeroproof.solve.spectral import Settings, best_pair, path_pairs, sweep

TRAIN, HELD = slice(0, 150), slice(150, None)


def noisy(n=200, *, outputs=1, is_complex=False, noise=0.02):
    x = torch.rand(n, dtype=torch.float64) * 2 - 1
    Y_n = torch.stack([1 + j + x for j in range(outputs)], 1)
    Y_d = (x - 0.3)[:, None].expand_as(Y_n)
    Y_n = Y_n * (1 + noise * torch.randn_like(Y_n))
    if is_complex:
        Y_n = Y_n * (1 + 0.5j)
        Y_d = Y_d + 0.1j
    H = torch.tanh(torch.outer(x, torch.linspace(-4, 4, 12).double()) + torch.arange(12) / 3)
    return H, (Y_n[:, 0] if outputs == 1 else Y_n), (Y_d[:, 0] if outputs == 1 else Y_d)


KINDS = {"scalar": {}, "vector": {"outputs": 3}, "complex": {"is_complex": True}}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def quotient(factors, rho, a, b):
    """What is minimised, from the rows of the factors."""
    residual = sum(
        (R @ torch.cat([a_j, b[:, 0]])).abs().square().sum()
        for R, a_j in zip(factors.R, a.T, strict=True)
    )
    weights = a.abs().square().sum() + b.abs().square().sum()
    mean = (factors.R_D @ b).abs().square().sum()
    if a.shape[1] == 1:
        mean = mean + (factors.R_N @ a).abs().square().sum()
    return ((residual + rho * weights) / mean).item()


@kinds
def test_a_path_is_many_solutions(kind):
    H, Y_n, Y_d = noisy(**kind)
    H_D = chebyshev_basis(torch.linspace(-1, 1, 200).double(), 2)
    _, (found,) = sweep([(H, H_D, Y_n, Y_d)], Settings())
    rhos = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8]
    for rho, pair in zip(rhos, path_pairs(found.factors, rhos), strict=True):
        least = quotient(found.factors, rho, *best_pair(found.factors, rho))
        assert least * (1 - 1e-9) <= quotient(found.factors, rho, *pair) <= least * 1.02


@kinds
def test_no_other_weights_are_better(kind):
    H, Y_n, Y_d = noisy(**kind)
    _, (found,) = sweep([(H, None, Y_n, Y_d)], Settings(sweeps=1))
    a, b = best_pair(found.factors, 1e-3)
    least = quotient(found.factors, 1e-3, a, b)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            moved = a + size * torch.randn_like(a), b + size * torch.randn_like(b)
            assert quotient(found.factors, 1e-3, *moved) > least


def test_a_path_serves_any_order_and_comes_back_from_large_to_small():
    rows = noisy()
    path = readout_path(*rows, rhos=[1e-6, 1e-2, 1e-4])
    assert path.rhos == (1e-2, 1e-4, 1e-6)
    assert path.a.shape == path.b.shape == (3, 12)
    torch.testing.assert_close(readout_path(*rows, rhos=[1e-2, 1e-4, 1e-6]), path)


def test_vector_paths_fit_their_features():
    H, Y_n, Y_d = noisy(outputs=3, noise=0.0)
    path = readout_path(H, Y_n, Y_d)
    assert path.a.shape == (17, 12, 3)
    assert path.b.shape == (17, 12, 1)
    errors = [
        chordal_distance(H @ a, H @ b, Y_n, Y_d).square().mean().item()
        for a, b in zip(path.a, path.b, strict=True)
    ]
    assert errors[-1] < 1e-3 * errors[0]


def test_clean_rows_choose_a_tiny_penalty_and_noisy_ones_do_not():
    H = chebyshev_basis(torch.rand(200, dtype=torch.float64) * 2 - 1, 6)
    x = H[:, 1]
    clean = choose_rho(H, torch.ones_like(x), x - 0.3, TRAIN, HELD)
    assert clean.rho <= 1e-14
    assert clean.error < 1e-28
    y_n = 1 + 0.05 * torch.randn_like(x)
    assert choose_rho(H, y_n, x - 0.3, TRAIN, HELD).rho >= 1e-8


def test_the_choice_is_the_best_of_what_was_tried():
    choice = choose_rho(*noisy(), TRAIN, HELD, rhos=[1e-8, 1e-2, 1e-5])
    assert choice.rhos == (1e-2, 1e-5, 1e-8)
    assert choice.error == min(choice.errors)
    assert choice.rho == choice.rhos[choice.errors.index(choice.error)]


def test_the_held_out_error_is_the_mean_chordal_square():
    H, Y_n, Y_d = noisy()
    weight = torch.rand(200).double()
    choice = choose_rho(H, Y_n, Y_d, TRAIN, HELD, weight=weight, rhos=[1e-3])
    fit = spectral_readout(H[TRAIN], Y_n[TRAIN], Y_d[TRAIN], weight=weight[TRAIN], rho=1e-3)
    squares = chordal_distance(H[HELD] @ fit.a, H[HELD] @ fit.b, Y_n[HELD], Y_d[HELD]).square()
    expected = (weight[HELD] * squares).sum() / weight[HELD].sum()
    assert choice.error == pytest.approx(expected.item(), rel=1e-3)


def test_rows_may_be_picked_by_slice_mask_or_index():
    rows = noisy()
    mask = torch.arange(200) < 150
    by_slice = choose_rho(*rows, TRAIN, HELD)
    assert choose_rho(*rows, mask, ~mask) == by_slice
    assert choose_rho(*rows, torch.nonzero(mask)[:, 0], list(range(150, 200))) == by_slice


def test_float32_paths_stay_in_float32():
    H, Y_n, Y_d = noisy(noise=0.0)
    path = readout_path(H, Y_n, Y_d, dtype=torch.float32)
    assert path.a.dtype == torch.float32
    assert path.a.isfinite().all()
    assert choose_rho(H, Y_n, Y_d, TRAIN, HELD, dtype=torch.float32).error < 1e-6


def test_bad_input_is_refused():
    rows = noisy()
    with pytest.raises(RangeError, match="rhos must hold at least one value"):
        readout_path(*rows, rhos=[])
    with pytest.raises(RangeError, match="rho must be a finite number above 0, got -1"):
        readout_path(*rows, rhos=[1e-3, -1.0])
    with pytest.raises(RangeError, match="one shared denominator; call once for each output"):
        readout_path(*rows, shared_denominator=False)
    with pytest.raises(DataError, match="held must pick a row with weight above 0"):
        choose_rho(*rows, TRAIN, slice(0, 0))
    with pytest.raises(DataError, match="at least one row, got none"):
        choose_rho(*rows, slice(0, 0), HELD)
    with pytest.raises(ShapeError, match="same number of rows, got H_N 200, Y_n 100"):
        choose_rho(rows[0], rows[1][:100], rows[2], TRAIN, HELD)
    assert len(RHOS) == 17
