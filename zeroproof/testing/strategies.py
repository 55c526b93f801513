"""Hypothesis strategies for exact and for floating-point meadow values.

Hypothesis is no dependency of this package; it is imported when a strategy is asked for.
"""

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch

from zeroproof._extras import require
from zeroproof.scm import SCM
from zeroproof.testing.oracle import BOTTOM, Exact

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["exact_values", "scm_values", "sizes"]


def _strategies() -> Any:
    return require("hypothesis.strategies", extra="testing")


def exact_values(*, complex_values: bool = False, bottom: bool = True) -> "SearchStrategy[Exact]":
    """Draw small rationals n / d with |n| <= 12, d <= 6, often 0, 1 or ⊥.

    They are so small that float64 keeps the zero pattern of every product and quotient of a few.

    Args:
        complex_values: Draw Gaussian rationals rather than real ones.
        bottom: Draw ⊥ as well.

    Raises:
        MissingExtraError: Hypothesis is not installed.
    """
    st = _strategies()
    part = st.builds(Fraction, st.integers(-12, 12), st.integers(1, 6))
    number = st.builds(Exact, part, part if complex_values else st.just(Fraction(0)))
    special = [Exact.of(0), Exact.of(1), Exact.of(-1), *([BOTTOM] if bottom else [])]
    return st.one_of(number, st.sampled_from(special))


def sizes(low: float = 1e-3, high: float = 1e3, *, width: int = 64) -> "SearchStrategy[float]":
    """Draw floats of either sign with modulus in [low, high]: a range in which products stay safe.

    Raises:
        MissingExtraError: Hypothesis is not installed.
    """
    st = _strategies()
    size = st.floats(low, high, width=width, exclude_min=width < 64, exclude_max=width < 64)
    return st.builds(lambda x, negative: -x if negative else x, size, st.booleans())


def scm_values(
    n: int = 8, *, dtype: torch.dtype = torch.float64, low: float = 1e-3, high: float = 1e3
) -> "SearchStrategy[SCM]":
    """Draw SCM values of shape `(n,)`: 0, ⊥ and numbers of either sign with modulus in [low, high].

    Args:
        n: How many.
        dtype: A real or complex floating-point type.
        low: Least modulus of a part that is not 0.
        high: Largest modulus of a part.

    Raises:
        MissingExtraError: Hypothesis is not installed.

    Examples:
        >>> from hypothesis import given
        >>> @given(scm_values(4))
        ... def zero_absorbs_only_numbers(x):
        ...     assert torch.equal((0 * x).bottom, x.bottom)
        >>> zero_absorbs_only_numbers()
    """
    st = _strategies()
    part = st.one_of(sizes(low, high), st.just(0.0))
    number = st.builds(complex, part, part) if dtype.is_complex else part
    entry = st.one_of(number, st.just(float("nan")))
    return st.lists(entry, min_size=n, max_size=n).map(
        lambda entries: SCM(torch.tensor(entries, dtype=dtype))
    )
