"""Complex signals of real systems: the number of poles, their places and their errors."""

import numpy as np
import pytest

from zeroproof.solve.conjugate import race_conjugate
from zeroproof.solve.race import deviation
from zeroproof.solve.system import covariance_root

WIDE = np.array([1e-4, 1e-2, 1.0, 10.0, 100.0])
OMEGA = 2 * np.pi * np.logspace(-2.5, 4, 66)


def ladder(tau, w):
    return (0.002 + (0.01 / (1 + 1j * w[:, None] * tau)).sum(1))[:, None]


def noisy(y, share, seed):
    random = np.random.default_rng(seed)
    noise = random.standard_normal(y.shape) + 1j * random.standard_normal(y.shape)
    return y * (1 + share * noise / np.sqrt(2))


def resonator(quality, rows=201, centre=5.9e9):
    half = centre / (2 * quality)
    x, p = (
        np.linspace(centre - 12 * half, centre + 10 * half, rows),
        np.complex128(-half + 1j * centre),
    )
    s = 1j * x[:, None]
    return x, 0.3 + half * ((0.7 + 0.2j) / (s - p) + (0.7 - 0.2j) / (s - p.conj())), p


def poles_of(system):
    places = system.table()[0]
    return places[np.lexsort((places.imag, places.real))]


@pytest.mark.parametrize(
    "tau", [WIDE, WIDE[1:3], np.geomspace(1e-3, 10, 5), np.array([1e-6, 50.0])]
)
@pytest.mark.parametrize("far", [False, True])
def test_clean_time_constants_are_found_by_number_and_place(tau, far):
    w = np.append(OMEGA, 1e4 * OMEGA[-1]) if far else OMEGA
    y = ladder(tau, w)
    _, system, _ = race_conjugate(w, y)
    places = poles_of(system)
    assert len(places) == len(tau)
    assert (places.imag == 0).all()
    np.testing.assert_allclose(places.real, np.sort(-1 / tau), rtol=1e-9)
    assert (np.abs(system(w) / y - 1)).max() < 1e-12


def test_noisy_poles_lie_within_their_errors_which_are_those_of_the_information():
    right, near, ratios = 0, [], []
    for seed in range(5):
        clean = ladder(WIDE, OMEGA)
        y = noisy(clean, 0.003, seed)
        race, system, _ = race_conjugate(OMEGA, y)
        if len(system.table()[0]) != len(WIDE):
            continue
        right += 1
        root = covariance_root(system, OMEGA, y, 1 / deviation(y, race.noise))
        se, _, significance = system.errors(root)
        order = np.argsort(system.table()[0].real)
        near += list(np.abs(system.table()[0].real[order] - np.sort(-1 / WIDE)) < 3 * se[order])
        # Cramér-Rao: slopes at the fit, the noise that was added
        moves, own = system.slopes(OMEGA)
        J = np.c_[moves[0], own] * np.sqrt(2) / (0.003 * np.abs(clean))
        J = np.r_[J.real, J.imag]
        size = np.linalg.norm(J, axis=0)
        bound = np.sqrt(np.diag(np.linalg.inv((J / size).T @ (J / size)))) / size
        ratios += list(se / bound[: len(se)])
        assert (significance > 4).all()
    assert right >= 4
    assert np.mean(near) >= 0.95
    assert 1 / 1.3 < np.median(ratios) < 1.3


@pytest.mark.parametrize("quality", [1e2, 1e4, 1e6])
def test_a_resonance_is_one_pair(quality):
    x, y, p = resonator(quality)
    _, system, _ = race_conjugate(x, y)
    places = poles_of(system)
    assert len(places) == 2
    assert abs(places[1].imag / p.imag - 1) < 1e-9
    assert abs(places[1].real / p.real - 1) < 1e-4
    for seed in range(3):
        measured = noisy(y, 0.005, seed)
        race, system, _ = race_conjugate(x, measured)
        places = system.table()[0]
        assert len(places) == 2
        root = covariance_root(system, x, measured, 1 / deviation(measured, race.noise))
        assert (np.abs(places - [p, p.conj()]) < 3 * system.errors(root)[0]).all()


def test_pairs_and_real_poles_with_a_linear_term():
    pairs = np.array([-100 + 5e3j, -3000 + 35e3j, -200 + 45e3j, -1500 + 45e3j, -500 + 70e3j])
    weights = np.array([-5 + 7e3j, 6e3 + 45e3j, 40 + 60e3j, 90 + 10e3j, 5e4 + 80e3j])
    x = np.linspace(1, 1e5, 300)
    s = 1j * x[:, None]
    y = (weights / (s - pairs) + weights.conj() / (s - pairs.conj())).sum(1)
    y = (y - 3000 / (s[:, 0] + 4500) + 0.2 + 2e-5 * s[:, 0])[:, None]
    _, system, _ = race_conjugate(x, y)
    places = poles_of(system)
    true = np.r_[-4500, pairs, pairs.conj()]
    assert len(places) == len(true)
    np.testing.assert_allclose(places, true[np.lexsort((true.imag, true.real))], rtol=1e-8)
    assert len(system.c) == len(true) + 2


def test_a_double_pole_is_one():
    _, system, _ = race_conjugate(OMEGA, (1 / (1j * OMEGA + 3) ** 2)[:, None])
    place, _, strength, multiplicity = system.table()
    assert multiplicity.tolist() == [2]
    np.testing.assert_allclose(place, -3, rtol=1e-9)
    np.testing.assert_allclose(strength, 1, rtol=1e-9)


def test_signals_of_other_sizes_share_their_poles():
    s = 1j * OMEGA
    y = np.c_[1 / (s + 3) + 1, 1e5 / (s + 3) + 1e-3 / (s + 40)]
    _, system, _ = race_conjugate(OMEGA, y)
    np.testing.assert_allclose(poles_of(system), [-40, -3], rtol=1e-6)
    np.testing.assert_allclose(system(OMEGA), y, rtol=1e-11)


def test_a_system_that_is_not_stable_is_called_so():
    s = 1j * np.geomspace(0.1, 100, 40)
    _, system, _ = race_conjugate(s.imag, (1 / (s - 3) + 1)[:, None])
    np.testing.assert_allclose(poles_of(system), [3], rtol=1e-9)


def test_few_rows():
    _, system, _ = race_conjugate(
        np.array([1.0, 2.0, 5.0]), np.array([[-1 / (1j * w + 2)] for w in (1, 2, 5)])
    )
    np.testing.assert_allclose(poles_of(system), [-2], rtol=1e-9)


@pytest.mark.parametrize("rows", [2, 3, 10, 60])
def test_noise_and_odd_data_give_a_model(rows):
    random = np.random.default_rng(rows)
    x = np.sort(random.uniform(-1, 1, rows))
    y = random.standard_normal((rows, 1)) + 1j * random.standard_normal((rows, 1))
    for signal in (y, 0 * y, y * 0 + 2, np.where(x[:, None] == x[0], 1e9, y)):
        _, system, _ = race_conjugate(x, signal)
        assert np.isfinite(system(x)).all()
    race, *_ = race_conjugate(x, y)
    assert race.entry.candidate.k == 0
