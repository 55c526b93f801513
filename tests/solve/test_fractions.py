import numpy as np
import pytest
import torch

from zeroproof.solve.forms import FractionForm
from zeroproof.solve.fractions import fit_fractions, fraction_values, with_conjugates


def _rows(seed, n=400, noise=0.0):
    random = np.random.default_rng(seed)
    p = np.array([-0.6, 0.1, 0.5 + 0.2j])
    r = np.array([1.0, -0.4, 0.3 - 0.1j])
    x = random.uniform(-1, 1, n)
    y = fraction_values(*with_conjugates(p, r[None]), np.array([[0.7, -0.2]]), x)[:, 0].real
    return x, y * (1 + noise * random.standard_normal(n)), p, r


@pytest.mark.parametrize("seed", range(3))
def test_poles_and_residues_of_clean_rows_come_back(seed):
    x, y, p, r = _rows(seed)
    fit = fit_fractions(x, y[None], 1 / np.abs(y)[None], p + 1e-5, 1)
    assert np.abs(fit.poles - p).max() < 1e-13
    assert np.abs(fit.residues[0] - r).max() < 1e-12
    assert fit.a[0] == pytest.approx([0.7, -0.2], abs=1e-11)


def test_standard_errors_cover_and_an_invented_pole_is_not_significant():
    hits = []
    for seed in range(12):
        x, y, p, _ = _rows(seed, noise=0.01)
        w = 1 / np.abs(y)[None]
        fit = fit_fractions(x, y[None], w, p, 1)
        hits += list(np.abs(fit.poles - p)[:2] < 2 * fit.position_se[:2])
        more = fit_fractions(x, y[None], w, np.append(p, -0.2002), 1)
        assert more.significance[-1] < 4 < more.significance[:3].min()
    assert np.mean(hits) >= 0.8


@pytest.mark.parametrize("a", [[0.0], [0.5], [0.5, 2.0], [0.1, 0.2, -0.4, 0.3]])
def test_a_sum_as_a_form_has_its_poles_residues_and_roots(a):
    form = FractionForm(
        torch.tensor([-0.3 + 0j, 0.2 + 1j, 0.2 - 1j], dtype=torch.complex128),
        torch.tensor([1 + 0j, 2 - 1j, 2 + 1j], dtype=torch.complex128),
        torch.tensor(a, dtype=torch.float64),
        (-1.0, 2.0),
    )
    assert np.abs(form.poles().numpy() - [-0.3, 0.2 - 1j, 0.2 + 1j]).max() < 1e-12
    assert np.abs(form.residues().numpy() - [1, 2 + 1j, 2 - 1j]).max() < 1e-12
    found = form.roots()
    assert len(found) == (len(a) + 2 if any(a) else 2)
    assert form(found).abs().max() < 1e-10
