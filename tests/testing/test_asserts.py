import pytest
import torch

from zeroproof.scm import SCM
from zeroproof.scm.value import trusted
from zeroproof.testing import assert_close_scm, assert_same_bottom, assert_valid_scm

NAN = float("nan")


def value(*numbers: float) -> SCM:
    return SCM(torch.tensor(numbers))


@pytest.mark.parametrize(
    ("payload", "bottom", "message"),
    [
        ([0.0], [True], "1 entries at ⊥ are not nan, 0 others are not finite"),
        ([NAN], [False], "0 entries at ⊥ are not nan, 1 others are not finite"),
        ([1.0, 2.0], [False], r"bottom must be a boolean mask of shape \(2,\)"),
    ],
)
def test_invalid_values_are_reported(
    payload: list[float], bottom: list[bool], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_valid_scm(trusted(torch.tensor(payload), torch.tensor(bottom)))


def test_different_bottoms_are_reported() -> None:
    assert_same_bottom(value(1, NAN), value(2, NAN))
    with pytest.raises(AssertionError, match=r"⊥ differs at 1 entries, first \[\[1\]\]"):
        assert_same_bottom(value(1, NAN), value(1, 2))
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_same_bottom(value(1), value(1, 2))


def test_different_values_are_reported() -> None:
    assert_close_scm(value(1, NAN), value(1 + 1e-7, NAN))
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_close_scm(value(1, NAN), value(1.1, NAN))


def test_bounds_entry_by_entry() -> None:
    bound = torch.tensor([0.2, 0.0])
    assert_close_scm(value(1, 2), value(1.1, 2), atol=bound)
    with pytest.raises(AssertionError, match=r"values differ by up to 0\.1 more than allowed"):
        assert_close_scm(value(1, 2), value(1, 2.1), atol=bound)
