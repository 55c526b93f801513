"""Rows of a linearised projective fit: checked, brought to unit tuples, cut into slices."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from zeroproof._checks import pair_shapes
from zeroproof.errors import DataError, RangeError, ShapeError
from zeroproof.projective.angle import norm
from zeroproof.projective.gauge import rescaled
from zeroproof.solve.tall_qr import buffer_rows

Item = TypeVar("Item")
RowIndex: TypeAlias = slice | Tensor | Sequence[int]
Parts: TypeAlias = (
    tuple[Tensor, Tensor | None, Tensor, Tensor]
    | tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None]
)


class Block(NamedTuple):
    """Rows as they were given."""

    H_N: Tensor
    H_D: Tensor | None
    Y_n: Tensor
    Y_d: Tensor
    weight: Tensor | None = None

    def cut(self, at: RowIndex) -> "Block":
        """Return the rows `at`."""
        H_D = None if self.H_D is None or self.H_D is self.H_N else self.H_D[at]
        weight = None if self.weight is None else self.weight[at]
        return Block(self.H_N[at], H_D, self.Y_n[at], self.Y_d[at], weight)

    def given(self) -> dict[str, Tensor]:
        """Return what is not None, by name."""
        return {name: x for name, x in self._asdict().items() if x is not None}


class Spec(NamedTuple):
    """What all blocks have in common."""

    k_n: int  # features of N
    k_d: int
    outputs: int
    one_basis: bool
    is_complex: bool
    flat: bool  # targets are `(n,)`, not `(n, m)`

    def said(self) -> str:
        kind = "complex" if self.is_complex else "real"
        bases = "one basis" if self.one_basis else "two bases"
        return f"{kind}, {bases}, H_N {self.k_n}, H_D {self.k_d}, {self.outputs} outputs"


class Rows(NamedTuple):
    """Rows ready to be reduced; tuples are of unit size, `(n, m)`."""

    H_N: Tensor  # (n, k_N)
    H_D: Tensor  # (n, k_D), the same object as H_N where the bases are one
    Y_n: Tensor
    Y_d: Tensor
    weight: Tensor  # (n, m), 0 where a tuple is ⟨0, 0⟩: it states nothing


def re_iterable(blocks: Iterable[Item]) -> Iterable[Item]:
    """Return `blocks` if it can be read more than once; an iterator is used up by one sweep."""
    if isinstance(blocks, Iterator):
        raise DataError(
            "blocks must be iterable more than once, since every sweep reads them again; pass a "
            f"list, a DataLoader or an object with __iter__, got {type(blocks).__name__}"
        )
    return blocks


def slices(
    blocks: Iterable[Parts], dtype: torch.dtype, *, check: bool
) -> Iterator[tuple[Spec, Rows]]:
    """Yield slices of bounded memory in the working dtype; values are looked at if `check`."""
    first, offset = None, 0
    for parts in blocks:
        H_N, H_D, Y_n, Y_d, *weight = parts
        block = Block(H_N, H_D, Y_n, Y_d, *weight)
        spec = checked_spec(block)
        first = first or spec
        if spec != first:
            raise ShapeError(f"all blocks must be alike, got {first.said()} and then {spec.said()}")
        step = buffer_rows(spec.k_n + spec.k_d)
        for start in range(0, len(block.H_N), step):
            part = block.cut(slice(start, start + step))
            if check:
                _check_values(part, offset + start)
            yield spec, _rows(part, spec, dtype)
        offset += len(block.H_N)


def checked_spec(block: Block) -> Spec:
    """Return what a block is made of, if its parts belong together."""
    H_N, Y_n = block.H_N, block.Y_n
    H_D = H_N if block.H_D is None else block.H_D
    for H, name in ((H_N, "H_N"), (H_D, "H_D")):
        if H.ndim != 2 or H.shape[1] == 0:
            raise ShapeError(f"{name} must be (rows, features), got {tuple(H.shape)}")
    if Y_n.ndim not in {1, 2} or 0 in Y_n.shape[1:]:
        raise ShapeError(f"Y_n must be (rows,) or (rows, outputs), got {tuple(Y_n.shape)}")
    if block.weight is not None and block.weight.ndim != 1:
        raise ShapeError(f"weight must be (rows,), got {tuple(block.weight.shape)}")
    given = block.given()
    lengths = {name: len(x) for name, x in given.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ShapeError(f"all arguments must have the same number of rows, got {listed}")
    pair_shapes(Y_n, block.Y_d, "Y_n and Y_d")
    is_complex = any(x.is_complex() for x in given.values())
    outputs = 1 if Y_n.ndim == 1 else Y_n.shape[1]
    return Spec(H_N.shape[1], H_D.shape[1], outputs, H_D is H_N, is_complex, Y_n.ndim == 1)


def unit_rows(block: Block) -> Rows:
    """Return all rows of one block in double precision, checked."""
    spec = checked_spec(block)
    _check_values(block, 0)
    return _rows(block, spec, torch.float64)


def _check_values(block: Block, offset: int) -> None:
    for name, x in block.given().items():
        fine = torch.isfinite(x)
        fine = fine.all(1) if x.ndim == 2 else fine
        if not fine.all():
            hint = "; lift targets to tuples first" if name in {"Y_n", "Y_d"} else ""
            raise DataError(
                f"{name} must be finite, got otherwise in {listed(~fine, offset)}{hint}"
            )
    if block.weight is not None and (block.weight < 0).any():
        raise RangeError(
            f"weight must be at least 0, got otherwise in {listed(block.weight < 0, offset)}"
        )


def listed(wrong: Tensor, offset: int = 0) -> str:
    """Name the rows of a mask: "row 3", "rows 1, 2, 5"; at most five."""
    where = torch.nonzero(wrong)[:, 0] + offset
    shown = ", ".join(str(row) for row in where[:5].tolist())
    more = f" and {len(where) - 5} more" if len(where) > 5 else ""
    return f"row{'s' * (len(where) > 1)} {shown}{more}"


def _rows(block: Block, spec: Spec, dtype: torch.dtype) -> Rows:
    working = dtype.to_complex() if spec.is_complex else dtype
    H_N = block.H_N.to(working)
    H_D = H_N if block.H_D is None else block.H_D.to(working)
    Y_n, Y_d = (Y.reshape(len(Y), -1).to(working) for Y in (block.Y_n, block.Y_d))
    Y_n, Y_d, _ = rescaled(Y_n, Y_d.expand_as(Y_n))
    weight = ((Y_n != 0) | (Y_d != 0)).to(dtype)
    if block.weight is not None:
        weight = weight * block.weight.to(dtype)[:, None]
    size = norm(Y_n, Y_d)
    return Rows(H_N, H_D, Y_n / size, Y_d / size, weight)
