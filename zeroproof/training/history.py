"""What a training run was like: one row of numbers per epoch."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroproof._extras import require
from zeroproof._files import write_json
from zeroproof.errors import TrainingError
from zeroproof.plots import plot_history

__all__ = ["History", "strict_row"]


class History(list[dict[str, float]]):
    """A list of one dict per epoch.

    | key | meaning |
    |---|---|
    | `train_loss`, `val_loss` | mean loss over the rows of the epoch |
    | `train_coverage`, `val_coverage` | share of entries with finite targets answered finite |
    | `train_lost`, `val_lost` | those answered ⊥ at τ_infer, 1 - coverage |
    | `train_caught`, `val_caught` | share of entries with targets ±inf or nan answered ⊥ |
    | `train_fit`, `val_fit`, ... | each part of a loss with `components`, over the latest answers |
    | `train_gap`, `val_gap` | share of answers in the gap, τ_infer ≤ score < τ_train_max |
    | `tau_train_mean` | mean of the τ_train drawn |
    | `tau_train_std`, `tau_train_min`, `tau_train_max` | their spread, where they differ |
    | `grad_norm` | mean 2-norm of the gradients before clipping, with `max_grad_norm` |
    | `lambda_rejection`, `target_coverage` | what was in force, with a `CoverageController` |
    | `skipped_steps` | steps left out: over no sound row, or loss or gradient not finite |
    | `masked_rows` | training rows left out: an input, N, D or the gradient was not finite |
    | `lr` | learning rate of the first parameter group |
    | `lr_1`, `lr_2`, ... | those of the other groups, where they differ |
    | `time_epoch_s` | seconds for the epoch, validation included |
    | `time_rows_per_s` | training rows per second of training |

    A value that does not exist is absent, never nan; keys that depend on the clock begin with
    `time_`. An entry is a row by an output. Parts of the loss are without their λ, at
    `tau_train_max` and over up to 1024 entries, the last of an epoch. Training values are gathered
    while the weights move, validation values after that.

    Examples:
        >>> history = History([{"train_loss": 2.0}, {"train_loss": 1.0}])
        >>> history[-1]["train_loss"]
        1.0
    """

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row per epoch.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        frame = require("pandas", extra="data").DataFrame(list(self))
        frame.index.name = "epoch"
        return frame

    def plot(self) -> Any:
        """Draw loss, coverage and gap over the epochs; returns a `matplotlib.figure.Figure`.

        Raises:
            MissingExtraError: Matplotlib is not installed.
            DataError: There is no epoch to draw.
        """
        return plot_history(self)

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as strict JSON, whole or not at all; what is not finite becomes null.

        Args:
            path: The file to write; an existing one is replaced.
        """
        write_json(Path(path), [strict_row(row) for row in self])


def strict_row(row: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers that JSON knows; what is not finite becomes null.

    Raises:
        TrainingError: A callback put something else into the row.
    """
    strict: dict[str, float | None] = {}
    for name, value in row.items():
        try:
            number = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError) as error:
            came = type(value).__name__
            raise TrainingError(f"row[{name!r}] must be a number, got {came}") from error
        strict[name] = number if math.isfinite(number) else None
    return strict
