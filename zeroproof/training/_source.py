"""A loader on one or many processes: its share of every step, its place, and its way back there."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any
from zlib import crc32

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler

from zeroproof._extras import require
from zeroproof.autodiff.rewind import random_state, same_state
from zeroproof.errors import DataError, RangeError
from zeroproof.training.loaders import Batch, as_batch, not_empty, with_rows

__all__ = ["Source"]

_SHORT = 2**16  # bytes
_INNER = ("sampler", "batch_sampler", "dataset", "base_dataloader")


class Source:
    """The batches of a loader, epoch by epoch.

    With several processes a `DataLoader` is dealt out by Accelerate, batch by batch, without
    padding; a loader that shards itself, or is no `DataLoader`, yields what this process shall see.
    All processes make the same number of steps: one that has no batch left gets one that does not
    count.

    Attributes:
        noting: Whether `digests` are taken: what a run that goes on may have to compare.
        digests: One of each batch that this process has read in the running epoch.

    Raises:
        RangeError: The loader cannot be iterated in every epoch anew.
    """

    def __init__(self, loader: Iterable[Any], name: str, accelerator: Any) -> None:
        if not isinstance(loader, Iterable) or isinstance(loader, Iterator):
            raise RangeError(
                f"{name} must yield its batches anew in every epoch (a DataLoader or a list), "
                f"got {type(loader).__name__}"
            )
        self._given, self._name, self._accelerator = loader, name, accelerator
        self._alone = accelerator.num_processes == 1
        sampler = _sampler(loader)
        free = isinstance(sampler, RandomSampler) and sampler.generator is None
        self._free = sampler if free else None
        self.loader = loader if self._alone else _dealt(loader, accelerator)
        dealt = self.loader is not loader
        self._rows = _rows_of_steps(loader, accelerator) if dealt else None
        self.keeps_place = not dealt and hasattr(loader, "state_dict")
        self._over = False  # a loader that keeps its place stands in the next epoch by then
        self.noting = self._shares = False
        self.digests: list[int] = []

    def kind(self) -> str:
        """Return what has to agree where a run is resumed: type, and length if it has one."""
        length = getattr(self._given, "__len__", None)
        try:
            count = "" if length is None else f" of {length()} batches"
        except TypeError:
            count = ""
        return f"{type(self._given).__name__}{count}"

    def keeps_workers(self) -> bool:
        """Tell whether its workers live on, with random numbers of their own."""
        return bool(getattr(self._given, "persistent_workers", False))

    def seed(self, seed: int | None) -> None:
        """Give a random order without a generator one of its own: alike on all processes."""
        if self._free is not None and seed is not None:
            self._free.generator = torch.Generator().manual_seed(seed)

    def release(self) -> None:
        """Take that generator away again; on several processes Accelerate needs one."""
        if self._free is not None and self._alone:
            self._free.generator = None

    def state(self) -> dict[str, Any]:
        """Return what the coming order depends on, beside generators."""
        if self.keeps_place:
            place: Any = self.loader
            return {"loader": place.state_dict(), "over": self._over}
        return {"samplers": [part.state_dict() for part in _keepers(_parts(self.loader))]}

    def restore(self, state: dict[str, Any]) -> None:
        """Set what `state` returned."""
        if self.keeps_place:
            place: Any = self.loader
            place.load_state_dict(state["loader"])
            self._over = state["over"]
            return
        parts = _parts(self.loader)
        for part, inner in zip(_keepers(parts), state["samplers"], strict=True):
            part.load_state_dict(inner)
        if "generators" in state:  # of a checkpoint of version 1, by their order
            values = (value for part in parts for value in vars(part).values())
            held = {id(g): g for g in values if isinstance(g, torch.Generator)}
            for generator, numbers in zip(held.values(), state["generators"], strict=True):
                generator.set_state(numbers)

    def differs(self, read: list[int]) -> int | None:
        """Return the first batch of this epoch, from 0, that is not the one of these digests.

        Where reading draws from the global generators, it is the first batch alone that can tell.
        """
        told = read[: 1 if self._shares else None]
        both = zip(self.digests, told, strict=False)
        wrong = [i for i, (mine, theirs) in enumerate(both) if mine != theirs][:1]
        if not wrong and len(self.digests) < len(read):
            wrong = [len(self.digests)]
        if not self._alone:  # all have to know
            wrong = sorted(require("accelerate.utils", extra="train").gather_object(wrong))
        return wrong[0] if wrong else None

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; of one that was interrupted, those after the first.

        A loader that keeps its own place is there already. Any other is read again from the epoch's
        beginning, so that its workers' random numbers are those they were.

        Raises:
            DataError: There is no batch, or one has none of the forms.
        """
        for part in _parts(self.loader):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        stream = self._own(fresh=not skip)
        self._shares = False
        if skip and not self.keeps_place:  # read at once: the caller sets states next
            next(stream, None)
            before = random_state()  # a first batch draws the seed of the workers, whatever they do
            for _ in range(skip - 1):
                next(stream, None)
            # where reading draws from the global generators, training did so in between
            self._shares = not same_state(before, random_state())
        return self._some(stream if self._alone else self._together(stream, skip), skip)

    def _own(self, *, fresh: bool) -> Iterator[Batch]:
        """Return the batches of this process, or what is left of them."""
        if self._over and not fresh:
            return iter(())
        self._over = False
        stream = iter(self.loader)
        if self.keeps_place:
            return self._until_over(stream)
        self.digests = []
        return self._noted(stream) if self.noting else with_rows(stream)

    def _noted(self, stream: Iterator[Any]) -> Iterator[Batch]:
        for batch in with_rows(stream):
            self.digests.append(_digest(batch))
            yield batch

    def _until_over(self, stream: Iterator[Any]) -> Iterator[Batch]:
        yield from with_rows(stream)
        self._over = True

    def _some(self, stream: Iterator[Batch], skip: int) -> Iterator[Batch]:
        counts = bool(skip)
        for batch in stream if skip else not_empty(stream, self._name):
            counts = counts or batch.amount > 0 or batch.own < len(batch.y)
            yield batch
        if not counts and self._alone:
            raise DataError(f"{self._name} must yield a label of weight above 0, got none")

    def _together(self, stream: Iterator[Batch], step: int) -> Iterator[Batch]:
        spare: Batch | None = None
        while True:
            batch = next(stream, None)
            spare = batch or spare or self._filler()
            rows, lacking = self._all(step, batch, spare)
            if not rows:
                return
            if lacking:  # some process never had a batch of its own
                had = require("accelerate.utils", extra="train").gather_object([spare])
                spare = spare or next(filter(None, had))
            yield spare._replace(own=len(batch.y) if batch else 0, all=rows)  # pyright: ignore[reportOptionalMemberAccess]
            step += 1

    def _all(self, step: int, batch: Batch | None, spare: Batch | None) -> tuple[int, bool]:
        """Return the rows of this step on all processes, and whether one has no batch to show."""
        if self._rows is not None:
            return self._rows(step), False
        mine = torch.tensor(
            [len(batch.y) if batch else 0, spare is None], device=self._accelerator.device
        )
        rows, lacking = self._accelerator.reduce(mine, reduction="sum").tolist()
        return rows, lacking > 0

    def _filler(self) -> Batch | None:
        """Return some batch for a process that has none, so that it can keep the others company."""
        loader = self._given
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return None
        if len(loader.dataset) == 0 or loader.batch_sampler is None:  # pyright: ignore[reportArgumentType]
            return None
        return as_batch(loader.collate_fn([loader.dataset[0]]))


def _dealt(loader: Iterable[Any], accelerator: Any) -> Iterable[Any]:
    """Return a loader that gives each process its share of the batches."""
    sharded = getattr(loader, "shards_itself", False)
    if sharded or not isinstance(loader, DataLoader):
        return loader
    if getattr(_sampler(loader), "num_replicas", 1) > 1:  # a DistributedSampler and the like
        return loader
    return require("accelerate.data_loader", extra="train").prepare_data_loader(
        loader,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        split_batches=accelerator.split_batches,
        rng_types=["generator"],
        even_batches=False,  # padding would count rows twice
    )


def _rows_of_steps(loader: Any, accelerator: Any) -> Callable[[int], int] | None:
    """Return the function step -> rows on all processes, where it is known without asking them."""
    dealer = getattr(loader, "batch_sampler", None)
    if type(dealer) is not BatchSampler:  # others may make batches of any size
        return None
    try:
        rows = len(dealer.sampler)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return None
    size = dealer.batch_size * (1 if accelerator.split_batches else accelerator.num_processes)
    if dealer.drop_last:
        rows -= rows % size

    return lambda step: max(min(rows - step * size, size), 0)


def _sampler(loader: Any) -> Any:
    """Return what gives the order of a `DataLoader`; its own `sampler` may be one that idles."""
    return getattr(getattr(loader, "batch_sampler", loader), "sampler", None)


def _parts(loader: Any) -> list[Any]:
    """Return the loader with the samplers and data sets inside it, each once."""
    found: list[Any] = []
    waiting = [loader]
    while waiting:
        part = waiting.pop(0)
        if part is not None and not any(part is other for other in found):
            found.append(part)
            waiting.extend(getattr(part, name, None) for name in _INNER)
    return found


def _keepers(parts: list[Any]) -> list[Any]:
    """Return samplers that keep a state of their own."""
    return [p for p in parts if isinstance(p, Sampler) and hasattr(p, "load_state_dict")]


def _digest(batch: Batch) -> int:
    """Return 64 bits that depend on every number and name of a batch, but not on an accelerator.

    Reading tensors of one would make the host wait: of them dtype and shape count alone.
    """
    whole = blake2b(digest_size=8)
    for leaf in tree_leaves((batch.args, batch.named, batch.y, batch.weight)):
        if not isinstance(leaf, Tensor):
            # of anything else the name may hold an address
            told = (
                repr(leaf) if isinstance(leaf, str | bytes | int | float) else type(leaf).__name__
            )
            whole.update(told.encode())
            continue
        whole.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
        if leaf.device.type != "cpu" or leaf.layout != torch.strided or not leaf.numel():
            continue
        plain = leaf.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data: Any = plain.view(torch.uint8).numpy()
        # of much data a check sum takes a tenth of the time
        whole.update(data if data.nbytes < _SHORT else crc32(data).to_bytes(4, "little"))
    return int.from_bytes(whole.digest(), "little", signed=True)
