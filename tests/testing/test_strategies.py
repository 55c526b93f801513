import pytest
import torch
from hypothesis import find, given
from hypothesis import strategies as st

from zeroproof.errors import MissingExtraError
from zeroproof.testing import BOTTOM, Exact, assert_valid_scm, exact_values, scm_values, sizes


@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.complex64]))
def test_scm_values_are_valid_and_in_range(data: st.DataObject, dtype: torch.dtype) -> None:
    x = data.draw(scm_values(5, dtype=dtype, low=0.5, high=2.0))
    assert x.shape == (5,)
    assert x.payload.dtype == dtype
    assert_valid_scm(x)
    parts = torch.view_as_real(x.payload) if dtype.is_complex else x.payload
    parts = parts[parts.isfinite() & (parts != 0)].abs()
    assert ((parts >= 0.5) & (parts <= 2.0)).all()


@pytest.mark.parametrize("special", [Exact.of(0), Exact.of(1), BOTTOM], ids=repr)
def test_exact_values_reach_the_special_ones(special: Exact) -> None:
    assert find(exact_values(), lambda x: x == special) == special


@given(x=exact_values(bottom=False))
def test_bottom_may_be_left_out(x: Exact) -> None:
    assert not x.is_bottom


@given(x=sizes(1.0, 4.0))
def test_sizes(x: float) -> None:
    assert 1 <= abs(x) <= 4


@pytest.mark.parametrize("wanted", [0.0, float("nan")], ids=["zero", "bottom"])
def test_scm_values_reach_zero_and_bottom(wanted: float) -> None:
    x = find(scm_values(1), lambda x: bool(x.bottom) if wanted else bool(x.payload == 0))
    assert_valid_scm(x)


def test_missing_hypothesis_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, *, extra: str) -> None:
        raise MissingExtraError(f"{module} {extra}")

    monkeypatch.setattr("zeroproof.testing.require", missing)
    with pytest.raises(MissingExtraError, match=r"hypothesis\.strategies testing"):
        scm_values()
