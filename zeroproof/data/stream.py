"""Rows of many files, more than fit into memory: shuffled in a buffer, shared out, resumable."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from zeroproof._checks import whole
from zeroproof._processes import started
from zeroproof.data.units import (
    Columns,
    Part,
    Unit,
    byte_ranges,
    read_lines,
    read_rows,
    row_groups,
)
from zeroproof.errors import DataError, RangeError, ZeroProofError

__all__ = ["TableStream"]

_KINDS = {".parquet": row_groups, ".csv": byte_ranges}

Source = str | PathLike[str] | Sequence[str | PathLike[str]]


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


class _Place(NamedTuple):
    """Where an epoch goes on: which shard of this process has its turn, and the cursor of each."""

    epoch: int
    turn: int
    cursors: tuple[Cursor, ...]


class _Readers(IterableDataset[Any]):
    """The shards of this process, each with its number and its cursors: one in each worker."""

    def __init__(
        self,
        units: Sequence[Unit],
        columns: Columns,
        plan: Plan,
        process: tuple[int, int],
        place: _Place,
    ) -> None:
        self.units, self.columns, self.plan = units, columns, plan
        self.process, self.place = process, place

    def parts(self, shard: int) -> list[Part]:
        (rank, world_size), count = self.process, len(self.place.cursors)
        return shares(
            self.units, self.plan, self.place.epoch, rank * count + shard, world_size * count
        )

    def __iter__(self) -> Iterator[Any]:
        # a DataLoader asks its workers in turn from the first on, which takes the shard in turn
        worker = get_worker_info()
        shard = (self.place.turn + (worker.id if worker else 0)) % len(self.place.cursors)
        key = (self.place.epoch, self.process[0] * len(self.place.cursors) + shard)
        cursor = self.place.cursors[shard]
        try:
            for x, y, after in batches(self.parts(shard), self.columns, self.plan, key, cursor):
                yield x, y, shard, after
        except ZeroProofError as error:
            yield error  # a DataLoader would bury the sentence under the worker's traceback


class TableStream:
    r"""Batches (x, y) from Parquet or CSV files that need not fit into memory.

    A loader: each `iter` is an epoch. It reads row groups of Parquet, or stretches of 1 MiB of CSV,
    in an order permuted anew in every epoch, and permutes rows within blocks of `buffer_rows`. Each
    row comes exactly once per epoch over all ranks and workers. Same seed, same batches; a block
    depends on (seed, epoch, rank, worker, its number) alone, so that going on reads one block.

    Args:
        source: A file, a list of files in the order given, or a folder, whose files `*.parquet` or
            `*.csv` are found at any depth and sorted; names that begin with . or _ are passed over.
        features: Columns of x, numbers that must be finite.
        target: The column of y: numbers, `inf`, `-inf` or `nan`.
        targets: The columns of y, instead of `target`.
        batch_size: Rows of a batch; the last of a worker may have fewer.
        shuffle: False keeps the order of files and rows.
        seed: Of the order.
        buffer_rows: Rows of a block, rounded down to whole batches, at least one. Each worker holds
            a block, one more unit and its prefetched batches.
        drop_last: Leave out batches with fewer rows. In Parquet all ranks then yield the same
            number of batches.
        num_workers: Processes that read for this one; their number is part of the order.
        rank: Which of the processes this is. Default: that of `torch.distributed`, or what
            `torchrun` put into the environment, looked up when first needed; 0 otherwise.
        world_size: Number of the processes; give both or neither.
        dtype: Of x and y.

    Attributes:
        shards_itself: True: each process yields its own share, so it is not to be sharded again.

    Raises:
        DataError: No files, files of two kinds, a file that cannot be read, no rows, a column that
            is missing or does not hold numbers. While iterating: a null, a cell that is no number,
            an infinite feature, a number too large for `dtype`, a file that changed.
        RangeError: An option is not legal.
        MissingExtraError: pyarrow is not installed.

    Examples:
        >>> import tempfile
        >>> from zeroproof.data import write_csv
        >>> folder = tempfile.TemporaryDirectory()
        >>> write_csv(f"{folder.name}/a.csv", {"x": [1, 2, 3], "y": [1.0, float("inf"), 0.5]})
        >>> stream = TableStream(folder.name, features=["x"], target="y", batch_size=2, seed=1)
        >>> sorted(row for x, y in stream for row in zip(x[:, 0].tolist(), y[:, 0].tolist()))
        [(1.0, 1.0), (2.0, inf), (3.0, 0.5)]
        >>> stream.state_dict()["epoch"]
        1
        >>> folder.cleanup()
    """

    shards_itself: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913 - options of a loader are its constructor's
        self,
        source: Source,
        *,
        features: Sequence[str],
        target: str | None = None,
        targets: Sequence[str] | None = None,
        batch_size: int = 1024,
        shuffle: bool = True,
        seed: int = 0,
        buffer_rows: int = 65536,
        drop_last: bool = False,
        num_workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not dtype.is_floating_point:
            raise RangeError(f"dtype must be a floating-point type, got {dtype}")
        chosen = [target] if target is not None else targets
        if chosen is None or (target is not None and targets is not None):
            raise RangeError("give target='y' or targets=('a', 'b'), one of the two")
        self._columns = Columns(_names(features, "features"), _names(chosen, "targets"), dtype)
        self._plan = Plan(
            batch_size=whole(batch_size, "batch_size", low=1),
            buffer_rows=whole(buffer_rows, "buffer_rows", low=1),
            shuffle=bool(shuffle),
            seed=whole(seed, "seed"),
            drop_last=bool(drop_last),
        )
        self.num_workers = whole(num_workers, "num_workers")
        self._given = _given_process(rank, world_size)
        self._units = _units(source, self._columns)
        self._place = self._beginning(0)
        self._fresh = True  # _place is where the next iter() begins

    @property
    def rows(self) -> int | None:
        """Rows of this rank in an epoch; None for CSV, whose rows nobody has counted."""
        return sum(self._shard_rows()) if self._units[0].in_rows else None

    def __len__(self) -> int:
        if not self._units[0].in_rows:
            raise TypeError("the number of batches of CSV files is known only at the end")
        return sum(-(-rows // self._plan.batch_size) for rows in self._shard_rows())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if get_worker_info() is not None:
            raise RangeError(
                "a TableStream has workers of its own: iterate it, with num_workers=, "
                "instead of a DataLoader over it"
            )
        if not self._fresh:  # an epoch broken off is not taken up again
            self._place = self._beginning(self._place.epoch + 1)
        self._fresh = False
        return self._epoch(self._place)

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the batches yielded so far, and what it is a place of; for JSON.

        After the last batch, before the loop ends, it is the end of that epoch: the next `iter` of
        a stream that loads it yields nothing. Once the loop has ended, it is the next epoch.
        """
        epoch, turn, cursors = self._place
        return {
            "stream": self._identity(),
            "epoch": epoch,
            "turn": turn,
            "cursors": [list(cursor) for cursor in cursors],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next `iter` go on where an equal stream, of the same rank, stood.

        Raises:
            DataError: The state is that of another stream, or none at all.
        """
        try:
            theirs = dict(state["stream"])
            place = _Place(
                whole(state["epoch"], "epoch"),
                whole(state["turn"], "turn"),
                tuple(Cursor(*(whole(x, "cursor") for x in xs)) for xs in state["cursors"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"state must be what state_dict() returned, got {state!r}") from error
        for key, own in self._identity().items():
            if theirs.get(key) != own:
                raise DataError(
                    f"state must be that of an equal stream, got {key} {theirs.get(key)!r} "
                    f"in it and {own!r} here"
                )
        if len(place.cursors) != self._shards() or place.turn >= self._shards():
            raise DataError(f"state must have {self._shards()} cursors, got {state!r}")
        self._place, self._fresh = place, True

    def _process(self) -> tuple[int, int]:
        """Return rank and world size, as given or as found."""
        return self._given or started()

    def _shards(self) -> int:
        return max(self.num_workers, 1)

    def _beginning(self, epoch: int) -> _Place:
        return _Place(epoch, 0, (Cursor(),) * self._shards())

    def _shard_rows(self) -> list[int]:
        """Return the rows of each shard of this process; their numbers are equal in all epochs."""
        readers = _Readers(self._units, self._columns, self._plan, self._process(), self._place)
        return [
            sum(part.stop - part.start for part in readers.parts(shard))
            for shard in range(self._shards())
        ]

    def _epoch(self, place: _Place) -> Iterator[tuple[Tensor, Tensor]]:
        readers = _Readers(self._units, self._columns, self._plan, self._process(), place)
        loader = readers
        if self.num_workers:
            loader = DataLoader(
                readers,
                batch_size=None,
                num_workers=self.num_workers,
                collate_fn=_same,
                generator=torch.Generator(),  # else it would draw from torch's own stream
            )
        cursors = list(place.cursors)
        for item in loader:
            if isinstance(item, ZeroProofError):
                raise item
            x, y, shard, cursors[shard] = item
            self._place = _Place(place.epoch, (shard + 1) % self._shards(), tuple(cursors))
            yield x, y
        self._place, self._fresh = self._beginning(place.epoch + 1), True

    def _identity(self) -> dict[str, Any]:
        """Return what two streams must share for a place in one to be a place in the other."""
        listed = [(unit.path.name, *unit[1:]) for unit in self._units]
        digest = hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
        rank, world_size = self._process()
        return {
            "files": f"{len({unit.path for unit in self._units})} of digest {digest}",
            "features": list(self._columns.features),
            "targets": list(self._columns.targets),
            "dtype": str(self._columns.dtype),
            **self._plan._asdict(),
            "num_workers": self.num_workers,
            "world_size": world_size,
            "rank": rank,
        }


def _same(item: Any) -> Any:
    return item


def _names(names: Sequence[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        raise RangeError(f"{what} must be a list of at least one column name, got {names!r}")
    return tuple(names)


def _given_process(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        raise RangeError(
            f"rank and world_size must be given together, got rank={rank!r} and "
            f"world_size={world_size!r}"
        )
    whole(world_size, "world_size", low=1)
    if whole(rank, "rank") >= world_size:
        raise RangeError(f"rank must be below world_size={world_size}, got {rank}")
    return rank, world_size


def _units(source: Source, columns: Columns) -> list[Unit]:
    units = [
        unit
        for path in _files(source)
        for unit in _KINDS[path.suffix.lower()](path, columns)
        if unit.stop > unit.start
    ]
    if not units:
        raise DataError(f"{source} must have at least one row, got none")
    return units


def _files(source: Source) -> list[Path]:
    if isinstance(source, str | PathLike):
        paths = _of_folder(Path(source)) if Path(source).is_dir() else [Path(source)]
    else:
        paths = [Path(path) for path in source]
    if not paths:
        raise DataError("source must name at least one file, got an empty list")
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} must be a file or a folder of files, got none there")
        if path.suffix.lower() not in _KINDS:
            raise DataError(f"{path} must be a file *.parquet or *.csv, got another kind")
        if path.suffix.lower() != paths[0].suffix.lower():
            raise DataError(
                f"files must be all *.parquet or all *.csv, got {paths[0]} and {path}; "
                "choose among them by a list of files"
            )
    return paths


def _of_folder(folder: Path) -> list[Path]:
    # names with . or _ in front are what writers leave behind (_temporary, ._a.csv), as in Arrow
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _KINDS
        and path.is_file()
        and not any(name.startswith((".", "_")) for name in path.relative_to(folder).parts)
    ]
    if not found:
        raise DataError(f"{folder} must hold files *.parquet or *.csv, got none")
    return sorted(found)


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
