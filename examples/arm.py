"""A planar arm with two links of 1 m: which joint velocities move the tool as asked?

The answer is the inverse Jacobian times the tool's velocity. Turning the shoulder only turns the
picture, so the velocity is given in the frame of the upper arm and the shoulder angle drops out;
what is left is

    shoulder = (v_x cos e + v_y sin e) / sin e
    elbow    = -(v_x (1 + cos e) + v_y sin e) / sin e

with e the elbow angle. At e = 0 the arm is stretched and locked: there is no finite answer.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["COLUMNS", "Arm", "sample_arm"]

COLUMNS = ("elbow", "v_x", "v_y", "shoulder_rate", "elbow_rate")
_LIMIT = math.radians(150)


class Arm(NamedTuple):
    """Rows of the problem, float64."""

    inputs: Tensor  # `(rows, 3)`: elbow angle in rad, tool velocity in m/s
    rates: Tensor  # `(rows, 2)`, rad/s
    determinant: Tensor  # `(rows,)`: det J = sin e

    def columns(self) -> dict[str, list[float]]:
        """Return the rows as named columns for a CSV file."""
        table = torch.cat([self.inputs, self.rates], dim=1)
        return {name: column.tolist() for name, column in zip(COLUMNS, table.T, strict=True)}


def sample_arm(rows: int, locked: int, seed: int) -> Arm:
    """Draw rows, the elbow within ±150°, the velocity normal; the first `locked` have e = 0."""
    generator = torch.Generator().manual_seed(seed)
    elbow = (2 * torch.rand(rows, generator=generator, dtype=torch.float64) - 1) * _LIMIT
    elbow[:locked] = 0.0
    v_x, v_y = torch.randn(2, rows, generator=generator, dtype=torch.float64)
    sine, cosine = torch.sin(elbow), torch.cos(elbow)
    numerators = torch.stack([v_x * cosine + v_y * sine, -(v_x * (1 + cosine) + v_y * sine)], dim=1)
    return Arm(torch.stack([elbow, v_x, v_y], dim=1), numerators / sine[:, None], sine)
