import numpy as np
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.errors import DataError, ShapeError
from zeroproof.estimators.batches import sampled

RNG = np.random.default_rng(0)
PLANE = RNG.uniform(-1, 1, (9000, 2))
CLEAN = PLANE[:, 0] / (PLANE[:, 1] - 0.4)
NOISY = np.sin(PLANE @ [2.0, 1.0]) + 0.1 * RNG.normal(size=9000)


def blocks(X, y, size=1000):
    return [(X[i : i + size], y[i : i + size]) for i in range(0, len(X), size)]


def regressor(**options):
    return ProjectiveRegressor(**{"features": "polynomial", "degrees": (3, 0), **options})


@pytest.mark.parametrize(
    ("options", "y"),
    [
        ({"degrees": (1, 1), "linear_in": [0]}, CLEAN),
        ({"polish": "none"}, NOISY),
        ({"polish": "none"}, np.c_[NOISY, 2 * NOISY + PLANE[:, 0]]),
        ({"polish": "none"}, NOISY + 1j * PLANE[:, 0]),
    ],
    ids=["clean", "noisy", "two outputs", "complex"],
)
def test_blocks_give_about_what_all_rows_give(options, y):
    streamed = regressor(**options).fit_batches(blocks(PLANE, y))
    whole = regressor(**options).fit(PLANE, y)
    assert streamed.predict(PLANE[:50]).shape == y[:50].shape
    assert streamed.score(PLANE, y) == pytest.approx(whole.score(PLANE, y), abs=1e-3)
    far = abs(PLANE[:50, 1] - 0.4) > 0.05
    spread = np.abs(y).std()
    off = abs(streamed.predict(PLANE[:50]) - whole.predict(PLANE[:50]))[far]
    assert off.max() < 0.1 * spread  # row weights are read off the sample


def test_coefficients_come_from_all_rows_not_from_the_sample():
    options = {"degrees": (1, 0), "scale": 50.0, "polish": "none"}  # scale: angles are errors of y
    streamed = regressor(**options).fit_batches(blocks(PLANE, NOISY))
    A = np.c_[np.ones(9000), PLANE]
    exact = A @ np.linalg.lstsq(A, NOISY, rcond=None)[0]
    assert streamed.predict(PLANE) == pytest.approx(exact, abs=1e-3)
    sample = sampled(blocks(PLANE, NOISY))
    part = regressor(**options).fit(sample.X, sample.y).predict(PLANE)
    assert abs(part - exact).max() > abs(streamed.predict(PLANE) - exact).max()


def test_a_line_with_noise_is_solved_from_all_rows():
    x = np.linspace(-1, 1, 8000)[:, None]
    y = np.exp(x[:, 0]) + 0.1 * RNG.normal(size=8000)
    model = ProjectiveRegressor(degrees=(2, 0), scale=50.0).fit_batches(blocks(x, y))
    exact = np.polynomial.Polynomial.fit(x[:, 0], y, 2)(x[:, 0])
    assert model.predict(x) == pytest.approx(exact, abs=1e-3)


def test_poles_of_a_clean_line_are_exact():
    x = np.linspace(-1, 1, 8000)[:, None]
    model = ProjectiveRegressor(degrees=(0, 1)).fit_batches(blocks(x, 1 / (x[:, 0] - 0.25001)))
    assert model.poles() == pytest.approx([0.25001], abs=1e-11)


def test_blocks_may_be_tensors_of_a_loader():
    data = torch.utils.data.TensorDataset(torch.from_numpy(PLANE), torch.from_numpy(CLEAN))
    loader = torch.utils.data.DataLoader(data, batch_size=512)
    model = regressor(degrees=(1, 1)).fit_batches(loader)
    assert model.score(PLANE, CLEAN) == pytest.approx(1)


def test_singular_rows_in_blocks_count():
    X, y = PLANE.copy(), CLEAN.copy()
    X[::100, 1], y[::100] = 0.4, np.inf
    model = regressor(degrees=(1, 1)).fit_batches(blocks(X, y))
    assert model.predict_strict(X[::100]).bottom_mask.all()
    assert model.score(X, y) == pytest.approx(1)


def test_a_sample_holds_the_ends_and_every_row_as_likely():
    sample = sampled(blocks(PLANE, CLEAN, size=700))
    assert len(sample.X) == len(sample.y) == 6000
    assert np.array_equal(sample.X.min(0), PLANE.min(0))
    assert np.array_equal(sample.X.max(0), PLANE.max(0))
    assert len(np.unique(sample.X, axis=0)) == 6000
    assert sample.y == pytest.approx(sample.X[:, 0] / (sample.X[:, 1] - 0.4))
    assert sample.X.mean(0) == pytest.approx(PLANE.mean(0), abs=0.02)
    same = sampled(blocks(PLANE, CLEAN, size=700))
    assert np.array_equal(same.X, sample.X)


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], DataError, "batches must hold at least one row, got none"),
        ([(PLANE[:0], CLEAN[:0])], DataError, "batches must hold at least one row"),
        ([PLANE[:5]], ShapeError, r"batches must yield pairs \(X, y\) of arrays"),
        ([(PLANE[:5], CLEAN[:4])], ShapeError, r"a batch must be .*, got \(5, 2\), \(4,\)"),
        ([(PLANE[:5, 0], CLEAN[:5])], ShapeError, r"a batch must be .*, got \(5,\), \(5,\)"),
        ([(PLANE[:5] * np.nan, CLEAN[:5])], DataError, "X must be finite, got inf or NaN"),
    ],
    ids=["empty", "no row", "no pairs", "fewer y", "flat", "nan"],
)
def test_blocks_that_cannot_be_used_are_said(batches, error, message):
    with pytest.raises(error, match=message):
        regressor().fit_batches(batches)


def test_a_generator_is_refused_since_rows_are_read_again():
    with pytest.raises(
        DataError, match=r"blocks must be iterable more than once, .* got list_iterator"
    ):
        regressor().fit_batches(iter(blocks(PLANE, CLEAN)))


def test_rows_without_a_target_can_be_left_out_of_blocks():
    y = np.where(np.random.default_rng(1).random(9000) < 0.4, np.nan, NOISY)
    y[:1000] = np.nan  # a whole block
    options = {"polish": "none", "missing": "drop"}
    streamed = regressor(**options).fit_batches(blocks(PLANE, y))
    whole = regressor(**options).fit(PLANE, y)
    assert streamed.predict(PLANE[:50]) == pytest.approx(whole.predict(PLANE[:50]), abs=0.05)


def test_affine_answers_of_blocks_lie_on_one_side():
    x = RNG.uniform(-1, 1, (1200, 1))
    y = 1 / (x[:, 0] ** 2 + 0.3) * (1 + 0.05 * RNG.normal(size=1200))
    for targets in (y, -y):
        model = ProjectiveRegressor(degrees=(0, 2), topology="affine")
        model.fit_batches(blocks(x, targets, 300))
        assert (model.tuples(x)[1] > 0).all()
        assert model.predict(x) == pytest.approx(targets, rel=0.3)


def test_affine_rows_whose_solution_crosses_a_pole_keep_the_fit_of_the_sample(monkeypatch):
    x = RNG.uniform(-1, 1, (600, 1))
    y = 1 / (x[:, 0] ** 2 + 0.3) * (1 + 0.05 * RNG.normal(size=600))
    monkeypatch.setattr("zeroproof.estimators.batches.crosses", lambda *_: True)
    options = {"degrees": (0, 2), "topology": "affine"}
    streamed = ProjectiveRegressor(**options).fit_batches(blocks(x, y, 100))
    sample = sampled(blocks(x, y, 100))
    alone = ProjectiveRegressor(**options).fit(sample.X, sample.y)
    assert np.array_equal(streamed.predict(x), alone.predict(x))


@pytest.mark.parametrize("rows", [500, 9000])
def test_neither_order_nor_blocks_change_the_sample(rows):
    X, y = PLANE[:rows].round(1), NOISY[:rows]  # many rows are smallest in a column
    first = sampled(blocks(X, y, 1000))
    order = np.random.default_rng(2).permutation(rows)
    for other in (blocks(X, y, 70), blocks(X[order], y[order], 333)):
        again = sampled(other)
        assert np.array_equal(again.X, first.X)
        assert np.array_equal(again.y, first.y)


@pytest.mark.parametrize(
    ("X", "y", "shapes"),
    [
        (PLANE[:9, :1], NOISY[:9], r"\(\(1,\), \(\)\) and \(\(2,\), \(\)\)"),
        (PLANE[:9], np.c_[NOISY, NOISY][:9], r"\(\(2,\), \(\)\) and \(\(2,\), \(2,\)\)"),
    ],
    ids=["X", "y"],
)
def test_blocks_of_other_columns_are_refused(X, y, shapes):
    with pytest.raises(ShapeError, match=f"must all have the same columns, got .* {shapes}"):
        regressor().fit_batches([(PLANE[:9], NOISY[:9]), (X, y)])


@pytest.mark.parametrize(
    ("noise", "options"),
    [("relative", {}), ("relative", {"degrees": (2, 1)}), ("additive", {"degrees": (2, 1)})],
    ids=["free", "degrees", "additive"],
)
def test_standard_errors_of_blocks_are_those_of_all_rows(noise, options):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (3000, 1))
    y = 1 / (x[:, 0] - 0.25) + x[:, 0]
    y = y + 0.01 * rng.normal(size=3000) * (y if noise == "relative" else 1)
    whole = ProjectiveRegressor(**options).fit(x, y)
    streamed = ProjectiveRegressor(**options).fit_batches(blocks(x, y, 700))
    grid = np.linspace(-0.9, 0.9, 41)[:, None]
    (one, error), (two, other) = (m.predict(grid, return_std=True) for m in (whole, streamed))
    assert other == pytest.approx(error, rel=0.1)
    assert (abs(one - two) < 0.2 * error).all()
    table, again = whole.pole_table(), streamed.pole_table()
    assert again.position_se.numpy() == pytest.approx(table.position_se.numpy(), rel=0.1)
    assert again.residue_se.numpy() == pytest.approx(table.residue_se.numpy(), rel=0.1)
