"""Complex signals of a table: two columns each, over a frequency."""

import numpy as np
import pytest

from zeroproof.data import numbers, read_table

TAU = np.array([1e-2, 1.0])
OMEGA = np.logspace(-2, 4, 40)


def signal(w):
    return 0.002 + (0.01 / (1 + 1j * w[:, None] * TAU)).sum(1)


@pytest.fixture
def table(tmp_path):
    z = signal(OMEGA)
    columns = {"re": z.real, "im": z.imag, "re2": 3 * z.real + 1, "im2": 3 * z.imag}
    path = tmp_path / "z.csv"
    rows = np.c_[OMEGA, np.stack(list(columns.values()), 1)]
    np.savetxt(
        path, rows, fmt="%.17g", delimiter=",", header=",".join(["w", *columns]), comments=""
    )
    return path


def test_a_signal_is_fitted_answered_and_its_poles_are_listed(fit, zeroproof, table, tmp_path):
    outcome = fit(table, "--complex", "re,im", "--features", "w")
    assert outcome.code == 0
    assert "Poles in s = i w" in outcome.out
    assert "passive" in outcome.out
    assert (tmp_path / "run" / "fit.png").stat().st_size > 1000
    new = np.array([0.5, 20.0])
    (tmp_path / "new.csv").write_text("w\n0.5\n20\n")
    words = ("predict", tmp_path / "run", tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    assert zeroproof(*words).code == 0
    found = read_table(tmp_path / "out.csv")
    answers = numbers(found, ["re", "im"]).numpy()
    np.testing.assert_allclose(answers[:, 0] + 1j * answers[:, 1], signal(new), rtol=1e-12)
    assert found.columns["im_status"].to_pylist() == ["answer"] * 2
    listed = zeroproof("poles", tmp_path / "run", "--out", tmp_path / "poles.csv")
    assert "re,im: 2 poles" in listed.out
    assert "poles are in s = i w" in listed.out
    poles = read_table(tmp_path / "poles.csv")
    found = numbers(poles, ["position", "position_imag", "residue"]).numpy()
    np.testing.assert_allclose(found, [[-100, 0, 1], [-1, 0, 0.01]], rtol=1e-9, atol=1e-12)


def test_several_signals_and_none_of_symmetry(fit, zeroproof, table, tmp_path):
    outcome = fit(table, "--complex", "re,im,re2,im2")
    assert outcome.code == 0
    assert "re2,im2: Least real part" in outcome.out
    listed = zeroproof("poles", tmp_path / "run")
    assert "re,im: 2 poles" in listed.out
    assert "re2,im2: 2 poles" in listed.out
    words = ("--complex", "re,im", "--features", "w", "--symmetry", "none")
    outcome = fit(table, *words)
    assert outcome.code == 0
    assert "s = i" not in outcome.out
    given = ("--features_family", "chebyshev", "--degrees", "2,2")  # that of a real system is found
    outcome = fit(table, "--complex", "re,im", "--features", "w", *given)
    assert outcome.code == 0
    assert "degrees (2, 2)" in outcome.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--complex", "re"), "must list pairs"),
        (("--complex", "re,im", "--target", "re2"), "must list pairs"),
        (("--complex", "re,im"), "one feature"),
        (("--target", "re", "--symmetry", "conjugate"), "--symmetry must come with --complex"),
        (("--complex", "re,im", "--features", "w", "--symmetry", "mirror"), "symmetry must be"),
        (("--complex", "re,im", "--features", "w", "--method", "train"), "--complex must come"),
        (("--complex", "re,nothing", "--features", "w"), "nothing"),
    ],
)
def test_what_cannot_be_a_signal_is_said(refused, table, tmp_path, words, sentence):
    assert sentence in refused("fit", table, *words, "--out", tmp_path / "other")
