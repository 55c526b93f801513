"""What an answer is: one word for each entry, in the order in which the causes are looked for."""

import enum
from collections.abc import Sequence
from typing import Any

from torch import Tensor

__all__ = ["Status", "columns_of"]


class Status(enum.IntEnum):
    """What an answer is; where several hold, the largest number.

    | status | word in tables | what happened |
    |---|---|---|
    | `ANSWER` | answer | finite |
    | `GAP` | gap | finite, but so close to a singularity that it is risky |
    | `NO_VALUE` | no-value | N / D leaves the range of its type, or labels say: none here |
    | `POLE` | pole | the score is below τ_infer, or D = 0, or the sign of D is not known |
    | `INDETERMINATE` | 0/0 | ⟨0, 0⟩, no point of the projective line |
    | `FAULT` | fault | the row is finite, and the model made an N or D that is not |
    | `INPUT` | input-missing | the row of x is not finite; for `strict_inference` N or D |
    """

    ANSWER = 0
    GAP = 1
    NO_VALUE = 2
    POLE = 3
    INDETERMINATE = 4
    FAULT = 5
    INPUT = 6


_WORDS = ("answer", "gap", "no-value", "pole", "0/0", "fault", "input-missing")


def _words_of(status: Tensor) -> Any:
    """Return the words for a column of statuses, an array of NumPy."""
    import numpy

    return numpy.array(_WORDS, dtype=object)[status.numpy()]


def columns_of(
    names: Sequence[str], decoded: Tensor, status: Tensor, **more: Tensor
) -> dict[str, Any]:
    """Return columns of a table: for each name its values, and behind it what is known of them.

    Args:
        names: Of the columns of `decoded`.
        decoded: `(n, k)`.
        status: `(n, k)`.
        more: Further columns `(n, k)`, by the word that is put behind the name.
    """
    columns = {}
    for j, name in enumerate(names):
        columns[name] = decoded[:, j].numpy()
        columns |= {f"{name}_{word}": part[:, j].numpy() for word, part in more.items()}
        columns[f"{name}_status"] = _words_of(status[:, j])
    return columns
