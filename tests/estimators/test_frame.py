import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroproof.errors import DataError
from zeroproof.estimators.trained import frame_targets, standardise_targets

INF, NAN = math.inf, math.nan


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    ("values", "center", "scale", "light"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 1.0, True),
        ([7.0, 7.0, 7.0], 7.0, 1.0, True),
        ([0.0, 0.0, 0.0, 4.0], 0.0, 1.0, True),
        ([1.0, 2.0, 3.0, 23.0, -17.0], 2.0, 1.0, False),
        ([1.0, 2.0, INF, 3.0, NAN, -INF], 2.0, 1.0, False),
    ],
    ids=["plain", "constant", "mostly-zero", "heavy", "singular"],
)
def test_the_frame_is_the_median_and_the_median_deviation(values, center, scale, light):
    framed = frame_targets(column(*values), ("y",))
    assert framed.frame == ((center,), (scale,))
    assert framed.light_tailed is light
    expected = (column(*values) - center) / scale
    torch.testing.assert_close(framed.y, expected, rtol=0, atol=0, equal_nan=True)


def test_each_column_has_its_own_frame():
    y = torch.tensor([[1e6, 1e-3], [3e6, 2e-3], [5e6, 3e-3]], dtype=torch.float64)
    framed = frame_targets(y, ("a", "b"))
    assert framed.frame.center == (3e6, 2e-3)
    torch.testing.assert_close(framed.y, column(-1, 0, 1).expand(3, 2).contiguous())


def test_a_column_without_a_finite_target_is_named():
    y = torch.tensor([[1.0, INF], [2.0, NAN]], dtype=torch.float64)
    sentence = r"^target 'b' must have a finite value in some row, got ⊥ in all 2$"
    with pytest.raises(DataError, match=sentence):
        frame_targets(y, ("a", "b"))


def test_a_standard_frame_has_mean_0_and_deviation_1():
    y = 1e3 + torch.randn(50, 2, dtype=torch.float64) * torch.tensor([1e-3, 1e3])
    framed = standardise_targets(y)
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(framed.y.mean(0), zero, rtol=0, atol=1e-9)
    torch.testing.assert_close(framed.y.std(0, correction=0), one)
    assert standardise_targets(column(2, 2)).frame == ((2.0,), (1.0,))


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9),
    shift=st.sampled_from([-4.0, 0.0, 512.0]),
    factor=st.sampled_from([0.25, 1.0, 1024.0]),
)
def test_units_do_not_matter(values, shift, factor):
    y = (column(*values) * 2**10).round() / 2**10  # so that shift and factor are exact
    plain, changed = (frame_targets(x, ("y",)) for x in (y, factor * y + shift))
    if plain.y.abs().max() > 0:
        torch.testing.assert_close(plain.y, changed.y)
        assert plain.light_tailed == changed.light_tailed
