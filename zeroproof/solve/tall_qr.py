"""Triangular factors of tall matrices whose rows arrive in blocks, or lie on several processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from zeroproof._checks import whole
from zeroproof.errors import DataError, ShapeError

__all__ = ["TallQR"]

_ENTRIES = 2**20  # of a buffer: 8 MB in float64, still in cache for the columns being reduced


class TallQR:
    r"""Collects rows and keeps only the triangular factor R of their QR factorisation.

    RᴴR = Σ hᵢᴴhᵢ, but no product is ever formed: blocks of rows are reduced by Householder
    reflections (Demmel, Grigori, Hoemmen & Langou, SIAM J. Sci. Comput. 34, 2012), so singular
    values down to the rounding error survive. Memory is O(k² + one buffer).

    Args:
        columns: k.
        like: A tensor with the dtype and device of the rows.

    Raises:
        RangeError: `columns` is not a whole number of at least 1.

    Examples:
        >>> qr = TallQR(2, like=torch.zeros((), dtype=torch.float64))
        >>> for rows in torch.tensor([[3.0, 1.0], [4.0, 1.0]]).double().split(1):
        ...     qr.add(rows)
        >>> qr.factor().abs()
        tensor([[5.0000, 1.4000],
                [0.0000, 0.2000]], dtype=torch.float64)
    """

    def __init__(self, columns: int, *, like: Tensor) -> None:
        self._columns = whole(columns, "columns", low=1)
        rows = buffer_rows(columns)
        # the factor so far lies above the rows that wait, so that both are reduced in place
        self._buffer = torch.empty(columns + rows, columns, dtype=like.dtype, device=like.device)
        self._buffer[:columns] = 0
        self._filled = columns

    def add(self, *parts: Tensor) -> None:
        """Take rows, `(n, k)`, or their columns in several parts, `(n, k_1)`, `(n, k_2)`, ….

        Raises:
            ShapeError: The parts do not have k columns together.
        """
        wide = sum(part.shape[1] for part in parts)
        if wide != self._columns:
            raise ShapeError(f"rows must have {self._columns} columns, got {wide}")
        start, rows = 0, parts[0].shape[0]
        while start < rows:
            taken = min(rows - start, len(self._buffer) - self._filled)
            at, left = slice(self._filled, self._filled + taken), 0
            for part in parts:
                self._buffer[at, left : left + part.shape[1]] = part[start : start + taken]
                left += part.shape[1]
            start, self._filled = start + taken, at.stop
            if self._filled == len(self._buffer):
                self._reduce()

    def factor(self) -> Tensor:
        """Return R, `(k, k)`, upper triangular; zero rows stand where there were fewer rows."""
        self._reduce()
        return self._buffer[: self._columns].clone()

    def _reduce(self) -> None:
        if self._filled > self._columns:
            R = torch.linalg.qr(self._buffer[: self._filled], mode="r").R
            self._buffer[: self._columns] = R
            self._filled = self._columns


def buffer_rows(columns: int) -> int:
    """Return how many rows wait before they are reduced: many beside k, yet few in memory."""
    return max(2 * columns, _ENTRIES // columns)


def stacked(factors: list[Tensor]) -> Tensor:
    """Return the factor of factors that lie on top of each other."""
    if len(factors) == 1:
        return factors[0]
    return torch.linalg.qr(torch.cat(factors), mode="r").R


def gathered(part: Any, error: Exception | None, *, distributed: bool) -> list[Any]:
    """Return the parts of all processes in order of rank, on the CPU where there are several.

    An error of one process is raised on all of them: otherwise the others would wait for ever.
    """
    several = distributed and dist.is_available() and dist.is_initialized()
    parts: list[Any] = [(part, error)]
    if several and dist.get_world_size() > 1:
        parts = [None] * dist.get_world_size()
        said = None if error is None else str(error)
        dist.all_gather_object(parts, (_on_cpu(part), said))
    if error is not None:
        raise error
    for rank, (_, said) in enumerate(parts):
        if said is not None:
            raise DataError(f"process {rank} could not use its rows: {said}")
    return [part for part, _ in parts]


def from_first(pair: tuple[Tensor, Tensor], *, distributed: bool) -> tuple[Tensor, Tensor]:
    """Return the tensors of the first process: rounding may differ between unlike machines."""
    if not (distributed and dist.is_available() and dist.is_initialized()):
        return pair
    box: list[Any] = [_on_cpu(pair)]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _on_cpu(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part.cpu()
    if isinstance(part, tuple) and hasattr(part, "_make"):
        return type(part)(*(_on_cpu(field) for field in part))
    if isinstance(part, list | tuple):
        return type(part)(_on_cpu(item) for item in part)
    return part
