"""The rows of one shard: dealt out, permuted block by block, cut into batches."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.data._csv_units import read_lines
from zeroproof.data._parquet_units import read_rows
from zeroproof.data._units import Columns, Part, Unit

__all__ = ["Cursor", "Plan", "batches", "shares"]


class Plan(NamedTuple):
    """What decides in which order a stream yields its rows."""

    batch_size: int
    buffer_rows: int
    shuffle: bool
    seed: int
    drop_last: bool


class Cursor(NamedTuple):
    """Where a shard goes on."""

    part: int = 0  # in which the current block begins
    row: int = 0  # of this part, with which it begins
    block: int = 0  # its number
    batch: int = 0  # how many batches of it are gone


def shares(units: Sequence[Unit], plan: Plan, epoch: int, shard: int, shards: int) -> list[Part]:
    """Return what a shard reads in an epoch: one of `shards` equal stretches of all units.

    Units are permuted as a whole, so that at most one is split at each border between shards. With
    `drop_last` all shards get the same number of full batches, if rows are known.
    """
    order = range(len(units))
    if plan.shuffle:
        order = torch.randperm(len(units), generator=_generator(plan.seed, epoch)).tolist()
    total = sum(unit.stop - unit.start for unit in units)
    low, high = total * shard // shards, total * (shard + 1) // shards
    if plan.drop_last and units[0].in_rows:
        high = low + total // shards // plan.batch_size * plan.batch_size
    parts, gone = [], 0
    for unit in (units[place] for place in order):
        first, last = max(low - gone, 0), min(high - gone, unit.stop - unit.start)
        if first < last:
            parts.append(Part(unit, unit.start + first, unit.start + last))
        gone += unit.stop - unit.start
    return parts


def batches(
    parts: Sequence[Part], columns: Columns, plan: Plan, key: tuple[int, int], cursor: Cursor
) -> Iterator[tuple[Tensor, Tensor, Cursor]]:
    """Yield (x, y, the cursor after them) from a cursor on.

    Args:
        parts: What `shares` returned.
        columns: Columns to read.
        plan: The order; without shuffling a block is a batch.
        key: Epoch and shard, which make permutations differ.
        cursor: `Cursor()` for all batches.
    """
    size, inputs = plan.batch_size, len(columns.features)
    rows = max(plan.buffer_rows // size, 1) * size if plan.shuffle else size
    for block, after in _blocks(parts, columns, rows, cursor):
        order = torch.arange(len(block))
        if plan.shuffle:
            order = torch.randperm(len(block), generator=_generator(plan.seed, *key, cursor.block))
        for number, chosen in enumerate(order.split(size)):
            if number < cursor.batch or (plan.drop_last and len(chosen) < size):
                continue
            done = (number + 1) * size >= len(block)
            cursor = Cursor(*after, cursor.block + 1) if done else cursor._replace(batch=number + 1)
            x, y = block[:, :inputs], block[:, inputs:]
            yield x.index_select(0, chosen), y.index_select(0, chosen), cursor


def _blocks(
    parts: Sequence[Part], columns: Columns, rows: int, cursor: Cursor
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Yield `rows` rows at a time, the last time fewer, and (part, row) with which the next begins.

    The tensor is used again for the next block.
    """
    block, filled = torch.empty(rows, len(columns.names), dtype=columns.dtype), 0
    for place in range(cursor.part, len(parts)):
        read = read_rows if parts[place].unit.in_rows else read_lines
        gone, skipped = 0, cursor.row if place == cursor.part else 0
        for values in read(parts[place], columns):
            start = min(max(skipped - gone, 0), len(values))
            while start < len(values):
                taken = min(len(values) - start, rows - filled)
                block[filled : filled + taken] = values[start : start + taken]
                start, filled = start + taken, filled + taken
                if filled == rows:
                    yield block, (place, gone + start)
                    filled = 0
            gone += len(values)
            del values  # before the next is read: two are never held
    if filled:
        yield block[:filled], (len(parts), 0)


def _generator(*key: int) -> torch.Generator:
    """Return a generator of its own for each key: neighbouring keys are not related."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
