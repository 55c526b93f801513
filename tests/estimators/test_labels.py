import warnings

import numpy as np
import pytest
import torch

from zeroproof import ProjectiveRegressor
from zeroproof.estimators.labels import find_edge, find_region

RNG = np.random.default_rng(0)
# fresh rows may lie a little beyond those of the fit
pytestmark = pytest.mark.filterwarnings("ignore:.* rows lie outside the data")


def asked(model, X, y):
    """Return the shares of fresh labelled and finite rows that are answered ⊥."""
    bottom, labelled = model.predict_strict(X).bottom_mask, ~np.isfinite(y)
    return bottom[labelled].mean(), bottom[~labelled].mean()


def odds(n):
    C = RNG.integers(0, 10, (n, 4)).astype(float)
    with np.errstate(all="ignore"):
        return C, C[:, 0] * C[:, 3] / (C[:, 1] * C[:, 2])


def precision(n):
    C = RNG.integers(0, 8, (n, 2)).astype(float)
    with np.errstate(all="ignore"):
        return C, C[:, 0] / C.sum(1)


def disc(n):
    X = RNG.uniform(-1, 1, (n, 2))
    return X, np.where((X**2).sum(1) < 0.3, np.nan, X[:, 0])


def half_line(n):
    x = RNG.uniform(-1, 1, (n, 1))
    return x, np.where(x[:, 0] > 0.4, np.nan, 1 / (x[:, 0] - 0.5))


def plate(n):
    c = RNG.uniform(0, 120, (n, 1))
    y = 0.05 + 0.06 * c[:, 0] + 0.02 * RNG.normal(size=n)
    return c, np.where(y > 4, np.inf, y)


@pytest.mark.parametrize("seed", range(3))
def test_zero_over_zero_is_bottom_though_no_row_said_so(seed):
    a, b = (part.ravel() for part in np.meshgrid(np.arange(-6, 7.0), np.arange(-6, 7.0)))
    X = np.c_[a, b][(a != 0) | (b != 0)]
    y = np.where(X[:, 1] == 0, np.inf, X[:, 0] / np.where(X[:, 1] == 0, 1, X[:, 1]))
    model = ProjectiveRegressor(random_state=seed).fit(X, y)
    assert model.predict_strict(np.zeros((1, 2))).bottom_mask.all()
    assert model.predict([[3.0, 2.0]]) == pytest.approx([1.5])


@pytest.mark.parametrize("table", [odds, precision])
def test_rows_of_zero_over_zero_spoil_neither_law_nor_thresholds(table):
    model = ProjectiveRegressor().fit(*table(300))
    X, y = table(1000)
    caught, lost = asked(model, X, y)
    assert caught >= 0.99
    assert lost == 0
    result, finite = model.predict_strict(X), np.isfinite(y)
    assert not result.gap_mask[finite].any()
    assert result.decoded[finite] == pytest.approx(y[finite], abs=1e-9)


@pytest.mark.parametrize(
    ("table", "rows"), [(disc, 600), (half_line, 400), (plate, 300)], ids=["disc", "half", "plate"]
)
def test_labels_that_fill_a_region_are_answered_there(table, rows):
    model = ProjectiveRegressor().fit(*table(rows))
    caught, lost = asked(model, *table(3000))
    assert caught >= 0.95
    assert lost <= 0.02
    assert model.labels_.caught >= 0.95
    assert "rather than a pole" in model.summary()


def test_a_region_is_stored(tmp_path):
    model = ProjectiveRegressor().fit(*disc(400))
    model.save(tmp_path / "model")
    again, (X, _) = ProjectiveRegressor.load(tmp_path / "model"), disc(200)
    assert np.array_equal(again.predict_strict(X).bottom_mask, model.predict_strict(X).bottom_mask)
    assert again.summary() == model.summary()


def test_labels_on_a_pole_need_no_region():
    x = RNG.uniform(-1, 1, (300, 1))
    x[:20] = 0.31
    y = np.where(x[:, 0] == 0.31, np.inf, 1 / np.where(x[:, 0] == 0.31, 1, x[:, 0] - 0.31))
    model = ProjectiveRegressor().fit(x, y)
    assert model.fitted_.region is None
    assert (model.labels_.infinite, model.labels_.caught, model.labels_.lost) == (20, 1, 0)


@pytest.mark.parametrize("seed", range(3))
def test_values_that_were_not_measured_are_said_not_to_be_explained(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (300, 1))
    y = np.where(rng.random(300) < 0.05, np.nan, np.cosh(x[:, 0]))
    with pytest.warns(UserWarning, match="missing='drop'"):
        model = ProjectiveRegressor().fit(x, y)
    assert model.labels_.caught < 0.1
    assert model.labels_.lost < 0.02
    assert "missing='drop'" in model.summary()
    left = ProjectiveRegressor(missing="drop").fit(x, y)
    assert left.labels_.missing == model.labels_.bottom
    assert "Labelled rows" not in left.summary()


def test_few_labels_or_noise_make_no_region():
    X = torch.from_numpy(RNG.uniform(-1, 1, (200, 2)))
    assert find_region(X, torch.arange(200) < 5) is None
    assert find_region(X, torch.from_numpy(RNG.random(200) < 0.3)) is None


def test_labels_at_one_end_of_a_column_have_an_edge():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        X = torch.from_numpy(rng.uniform(-1, 1, (300, 3)))
        for above in (True, False):
            label = (X[:, 1] > 0.4) if above else (X[:, 1] < 0.4)
            edge = find_edge(X, label)
            assert (edge.column, edge.above) == (1, above)
            assert edge.value == pytest.approx(0.4, abs=0.05)
        assert find_edge(X, X[:, 0].abs() < 0.2) is None
        assert find_edge(X, torch.from_numpy(rng.random(300) < 0.2)) is None


def test_labels_without_a_reason_are_called_unmeasured():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 1, (100, 1))
        y = np.where(rng.random(100) < 0.1, np.nan, 2 * x[:, 0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ProjectiveRegressor().fit(x, y)
        assert model.labels_.caught < 0.5
        assert "Were they not measured" in model.summary()
        assert "belongs here" not in model.summary()
