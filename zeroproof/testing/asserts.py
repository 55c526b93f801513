"""Assertions on SCM values, for tests of layers and operations."""

import torch
from torch import Tensor

from zeroproof.scm import SCM

__all__ = ["assert_close_scm", "assert_same_bottom", "assert_valid_scm"]


def assert_valid_scm(x: SCM) -> None:
    """Assert that the payload is nan at ⊥ and finite elsewhere, and that the mask has its shape.

    Raises:
        AssertionError: It is not so; the message counts the entries.

    Examples:
        >>> assert_valid_scm(SCM(torch.tensor([1.0, float("inf")])))
    """
    if x.bottom.dtype != torch.bool or x.bottom.shape != x.payload.shape:
        raise AssertionError(
            f"bottom must be a boolean mask of shape {tuple(x.payload.shape)}, "
            f"got {x.bottom.dtype} of shape {tuple(x.bottom.shape)}"
        )
    stale = x.bottom & ~torch.isnan(x.payload)
    wild = ~x.bottom & ~torch.isfinite(x.payload)
    if bool((stale | wild).any()):
        raise AssertionError(
            f"the payload must be nan at ⊥ and finite elsewhere: {int(stale.sum())} entries at ⊥ "
            f"are not nan, {int(wild.sum())} others are not finite"
        )


def assert_same_bottom(actual: SCM, expected: SCM) -> None:
    """Assert that two values are ⊥ at exactly the same entries.

    Raises:
        AssertionError: They are not; the message names the first entries that differ.

    Examples:
        >>> x = SCM(torch.tensor([1.0, 0.0]))
        >>> assert_same_bottom(1 / x, x.inv())
    """
    if actual.shape != expected.shape:
        raise AssertionError(f"shapes differ: {tuple(actual.shape)} and {tuple(expected.shape)}")
    differs = (actual.bottom != expected.bottom).nonzero().tolist()
    if differs:
        raise AssertionError(f"⊥ differs at {len(differs)} entries, first {differs[:5]}")


def assert_close_scm(
    actual: SCM,
    expected: SCM,
    *,
    rtol: float | None = None,
    atol: float | Tensor | None = None,
) -> None:
    """Assert the same ⊥ entries exactly, and close numbers elsewhere.

    Args:
        actual: What came.
        expected: What must hold.
        rtol: Relative tolerance; if both are `None`, as in `torch.testing.assert_close`.
        atol: Absolute tolerance; may be a tensor, one bound per entry.

    Raises:
        AssertionError: They differ.

    Examples:
        >>> x = SCM(torch.tensor([3.0, 0.0]))
        >>> assert_close_scm(x / x, 1 + 0 / x)
    """
    assert_valid_scm(actual)
    assert_valid_scm(expected)
    assert_same_bottom(actual, expected)
    left = torch.where(actual.bottom, 0, actual.payload)
    right = torch.where(expected.bottom, 0, expected.payload)
    if not isinstance(atol, Tensor):
        torch.testing.assert_close(left, right, rtol=rtol, atol=atol)
        return
    bound = (rtol or 0.0) * right.abs() + atol
    worst = ((left - right).abs() - bound).max() if left.numel() else torch.tensor(0.0)
    if not bool(worst <= 0):
        raise AssertionError(f"values differ by up to {float(worst):.3g} more than allowed")
