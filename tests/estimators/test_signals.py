"""Complex signals of real systems behind ProjectiveRegressor."""

import numpy as np
import pytest

from zeroproof import ProjectiveRegressor
from zeroproof.errors import RangeError

TAU = np.array([1e-3, 1e-1, 10.0])
OMEGA = 2 * np.pi * np.logspace(-2.5, 4, 66)
S = 1j * OMEGA
Z = 0.002 + (0.01 / (1 + S[:, None] * TAU)).sum(1)


def noisy(y, share, seed=0):
    random = np.random.default_rng(seed)
    noise = random.standard_normal(y.shape) + 1j * random.standard_normal(y.shape)
    return y * (1 + share * noise / np.sqrt(2))


def fitted(y, symmetry="conjugate", **options):
    return ProjectiveRegressor(symmetry=symmetry, **options).fit(OMEGA[:, None], y)


def test_poles_residues_and_roots_are_those_in_s(tmp_path):
    model = fitted(Z)
    np.testing.assert_allclose(model.poles(), np.sort(-1 / TAU), rtol=1e-9)
    np.testing.assert_allclose(model.residues(), np.sort(0.01 / TAU)[::-1], rtol=1e-9)
    assert not model.poles(within=True).size
    roots = model.roots()
    H = 0.002 + (0.01 / (1 + roots[:, None] * TAU)).sum(1)
    assert np.abs(H).max() < 1e-9
    assert np.abs(model.predict(OMEGA[:, None]) / Z - 1).max() < 1e-12
    model.save(tmp_path / "model")
    loaded = ProjectiveRegressor.load(tmp_path / "model")
    assert loaded.symmetry == "conjugate"
    assert np.array_equal(loaded.predict(OMEGA[:, None]), model.predict(OMEGA[:, None]))
    assert np.array_equal(loaded.poles(), model.poles())
    assert loaded.summary() == model.summary()


def test_errors_of_answers_and_poles_are_those_of_the_noise():
    near, within = [], []
    for seed in range(5):
        model = fitted(noisy(Z, 0.003, seed))
        value, error = model.predict(OMEGA[:, None], return_std=True)
        near.append(np.mean(np.abs(value - Z) < 3 * error))
        table = model.pole_table()
        assert len(table.position) == len(TAU)
        miss = np.abs(table.position.numpy() - np.sort(-1 / TAU))
        within += list(miss < 3 * table.position_se.numpy())
        assert (table.significance > 4).all()
    assert np.mean(near) > 0.95
    assert np.mean(within) > 0.9
    strict = model.predict_strict(OMEGA[:, None])
    assert not strict.bottom_mask.any()
    assert not strict.gap_mask.any()


@pytest.mark.parametrize("clean", [True, False])
def test_denominators_are_shared_where_they_are_the_same(clean):
    other = 1e5 / (S + 3) + 7
    for second, shared in ((40 * Z + 3, True), (other, False)):
        y = noisy(np.c_[Z, second], 0 if clean else 0.003)
        model = fitted(y)
        assert model.fit_.shared is shared
        np.testing.assert_allclose(model.poles(output=0), np.sort(-1 / TAU), rtol=0.2)
        poles = np.sort(-1 / TAU) if shared else [-3]
        np.testing.assert_allclose(model.poles(output=1), poles, rtol=0.2)
        assert model.predict(OMEGA[:, None]).shape == y.shape
    assert len(fitted(np.c_[Z, other], shared_denominator=True).poles(output=1)) >= 4


def test_auto_takes_free_coefficients_where_the_system_is_not_real():
    x = np.linspace(5.9e9, 5.91e9, 101)
    y = 0.9 * np.exp(0.3j) * (1 - 0.7 / (1 + 1j * (x - 5.904e9) / 3e5))
    model = ProjectiveRegressor(symmetry="auto").fit(x[:, None], y)
    np.testing.assert_allclose(model.poles(), [5.904e9 + 3e5j], rtol=1e-9)  # in x
    model = fitted(noisy(Z, 0.003), "auto")
    np.testing.assert_allclose(model.poles(), np.sort(-1 / TAU), rtol=0.2)  # in s


def test_the_summary_tells_stability_and_passivity():
    said = fitted(Z).summary()
    assert "Poles in s = i x0, with their conjugates: -1000" in said
    assert "all Re s < 0, stable" in said
    assert "Least real part on the data 0.002" in said
    assert ": passive, if" in said
    assert "not passive" in fitted(Z - 0.01).summary()
    assert "not all Re s < 0, unstable" in fitted(1 / (S - 3)).summary()


def test_a_picture_shows_both_parts():
    figure = fitted(noisy(Z, 0.003)).plot()
    assert {"Re y", "Im y"} <= {axis.get_ylabel() for axis in figure.axes}


@pytest.mark.parametrize(
    ("X", "y", "options"),
    [
        (OMEGA[:, None], Z.real, {}),
        (np.c_[OMEGA, OMEGA**2], Z, {}),
        (OMEGA[:, None], Z, {"degrees": 3}),
        (OMEGA[:, None], Z, {"features": "chebyshev"}),
        (OMEGA[:, None], Z, {"topology": "affine"}),
    ],
    ids=["real", "two columns", "degrees", "features", "affine"],
)
def test_what_does_not_belong_together_is_said(X, y, options):
    with pytest.raises(RangeError):
        ProjectiveRegressor(symmetry="conjugate", **options).fit(X, y)
    with pytest.raises(RangeError, match="symmetry must be"):
        ProjectiveRegressor(symmetry="mirror").fit(OMEGA[:, None], Z)


@pytest.mark.parametrize("noise", [0, 0.003])
def test_two_real_columns_are_told_as_well_as_the_signal(noise):
    y = noisy(Z, noise)
    parts = np.c_[y.real, y.imag]
    declared, model = fitted(y), ProjectiveRegressor().fit(OMEGA[:, None], parts)
    answers = declared.predict(OMEGA[:, None])
    assert model.predict(OMEGA[:, None]).dtype == np.float64
    np.testing.assert_allclose(
        model.predict(OMEGA[:, None]), np.c_[answers.real, answers.imag], rtol=1e-9, atol=1e-15
    )
    upper = model.poles()[model.poles().imag > 0]
    np.testing.assert_allclose(np.sort(upper.imag), np.sort(1 / TAU), rtol=0.1)  # in x
    assert model.pole_table().position_se.isfinite().all()


@pytest.mark.parametrize("quality", [1e2, 1e6])
def test_a_resonance_in_two_real_columns_is_one_pair(quality):
    centre, half = 5.9e9, 5.9e9 / (2 * quality)
    x = np.linspace(centre - 12 * half, centre + 10 * half, 201)
    y = 0.9 * np.exp(0.3j) * (1 - 0.7 / (1 + 1j * (x - centre) / half))
    model = ProjectiveRegressor().fit(x[:, None], np.c_[y.real, y.imag])
    upper = model.poles()[model.poles().imag > 0]
    assert len(upper) == 1
    assert abs(upper[0].real / centre - 1) < 1e-9
    assert abs(upper[0].imag / half - 1) < 1e-4


@pytest.mark.parametrize("noise", [0, 0.003, 0.01])
def test_a_series_capacitor_integrates_and_is_not_called_stable(noise):
    model = fitted(noisy(50 + 1 / (1e-3 * S), noise))
    assert np.abs(model.poles()) == pytest.approx([0], abs=1e-3)
    assert model.residues().real == pytest.approx([1000], rel=0.01)
    said = model.summary()
    assert "one at s = 0 within its error, which integrates" in said
    assert "stable" not in said


LAWS = {
    "Warburg": lambda s: 10 / s**0.5 + 5,
    "constant phase": lambda s: 5 + 100 / (1 + s**0.8),
}


@pytest.mark.parametrize("noise", [0, 0.003, 0.01])
@pytest.mark.parametrize("name", LAWS)
def test_a_diffusion_or_constant_phase_element_is_doubted(name, noise):
    part = slice(None, None, 1 if noise else 3)  # clean data are fitted with ever more poles
    y = noisy(LAWS[name](S), noise)[part]
    model = ProjectiveRegressor(symmetry="conjugate").fit(OMEGA[part, None], y)
    doubts = model.summary().split("What to doubt: ")[1].splitlines()[0]
    assert "no rational function: a diffusion (Warburg) or constant-phase element" in doubts


@pytest.mark.parametrize("noise", [0, 0.003])
def test_a_few_real_poles_are_no_diffusion(noise):
    assert "Warburg" not in fitted(noisy(Z, noise)).summary()
