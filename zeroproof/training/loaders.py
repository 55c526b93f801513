"""Batches and loaders: what may be a batch, a process's share of every step, its place in the data.

A loader that is read again after an interruption has to give what it gave before.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler

from zeroproof._checks import widen
from zeroproof._extras import require
from zeroproof.autodiff.compiled import has_values
from zeroproof.autodiff.rewind import random_state, same_state, set_random_state
from zeroproof.autodiff.sound import with_zeros
from zeroproof.errors import DataError, RangeError
from zeroproof.projective.tuples import target_scale

__all__ = [
    "Batch",
    "Source",
    "as_batch",
    "checked_weight",
    "from_all",
    "not_empty",
    "widened",
    "with_rows",
]

_FORMS = "a pair (x, y), a tuple (x1, ..., y), or a dict with an entry 'y'"
_SHORT = 2**16  # bytes
_INNER = ("sampler", "batch_sampler", "dataset", "base_dataloader")
_SCALE_ROWS = 2**13  # the median is good to two per cent


def from_all(own: list[Any], accelerator: Any) -> list[Any]:
    """Return the lists of all processes as one, in order of rank, on each of them."""
    if accelerator.num_processes == 1:
        return own
    return require("accelerate.utils", extra="train").gather_object(own)


class Batch(NamedTuple):
    """What the model is called with, and the targets `(n, *rest)`.

    Attributes:
        args: Positional arguments of the model.
        named: Those by keyword.
        y: The targets.
        own: Rows of this process that count; 0 where its batch only keeps the others company.
        all: Rows of this step on all processes.
        weight: How much each label counts, in the shape of y or `(*batch, 1)`; 0 for one that is
            missing. `None`: all alike.
    """

    args: tuple[Any, ...]
    named: dict[str, Any]
    y: Tensor
    own: int
    all: int
    weight: Tensor | None = None

    @property
    def amount(self) -> float:
        """Rows of this process that count, or the summed weight of their labels over outputs."""
        if self.weight is None or not self.own:
            return float(self.own)  # a number of one kind on all processes, which add them up
        return self.weight.expand_as(self.y).double().sum().item() * self.own / self.y.numel()

    def weights(self) -> Tensor:
        """Return the weight of every answer that counts, `(rows,)`: the least of its outputs."""
        y = self.y[: self.own]
        weight = torch.ones_like(y.real) if self.weight is None else self.weight[: self.own]
        return weight.expand_as(y).reshape(-1, y.shape[-1] if y.ndim > 1 else 1).amin(1)

    def safe(self) -> tuple["Batch", Tensor]:
        """Return it with 0 for what is not finite in its inputs, and which rows have none."""
        (args, named), finite = with_zeros((self.args, self.named), self.y)
        return self._replace(args=args, named=named), finite

    def through(self, model: nn.Module) -> Any:
        """Return what the model makes of it."""
        return model(*self.args, **self.named)


def as_batch(batch: Any) -> Batch:
    """Read what a loader yields.

    Raises:
        DataError: It has another form, or its targets are no tensor with a row dimension.
    """
    args: tuple[Any, ...]
    if isinstance(batch, Mapping) and "y" in batch:
        args, y = (), batch["y"]
        named = {key: value for key, value in batch.items() if key not in ("y", "weight")}
    elif isinstance(batch, tuple | list) and len(batch) >= 2:
        *first, y = batch
        args, named = tuple(first), {}
    else:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list | Mapping) else ""
        raise DataError(f"a batch must be {_FORMS}, got a {type(batch).__name__}{size}")
    if not isinstance(y, Tensor) or y.ndim == 0:
        came = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise DataError(f"the targets y of a batch must be a tensor with rows, got {came}")
    weight = batch.get("weight") if isinstance(batch, Mapping) else None
    return Batch(args, named, y, len(y), len(y), checked_weight(weight, y))


def checked_weight(weight: Any, y: Tensor) -> Tensor | None:
    """Return weights of labels in the shape of y or `(*batch, 1)`, as real numbers.

    They may come in the shape of the leading dimensions of y; True counts 1 and False 0.

    Raises:
        DataError: They have another shape, or one is below 0 or not finite.
    """
    if weight is None:
        return None
    rows = (*y.shape[:-1], 1) if y.ndim > 1 else y.shape
    real = isinstance(weight, Tensor) and not weight.is_complex()
    came = tuple(weight.shape) if real else (type(weight).__name__,)
    if came not in (y.shape, rows, *(y.shape[:n] for n in range(1, y.ndim))):
        raise DataError(
            "weight of a batch must be a real tensor in the shape of the targets, "
            f"{tuple(y.shape)}, or of their leading dimensions, got {came}"
        )
    if weight.ndim < y.ndim:
        weight = weight.reshape(*weight.shape, *[1] * (y.ndim - weight.ndim)).expand(rows)
    weight = widen(weight)
    wrong = ~((weight >= 0) & (weight < math.inf))
    if has_values(wrong) and bool(wrong.any()):
        raise DataError(
            "weight of a batch must hold finite numbers of at least 0 (0: the label is missing), "
            f"got {weight[wrong][0].item()}"
        )
    return weight


def widened(batch: Batch, like: Tensor) -> Batch:
    """Return a batch with its inputs where a model with the parameter `like` wants them."""

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return require("accelerate.utils", extra="train").send_to_device(x, like.device)
        # a float64 model needs float64 inputs; what is finer than the model, the model may narrow
        wider = x.is_floating_point() and like.dtype in {torch.float64, torch.complex128}
        return x.to(like.device, torch.float64 if wider else x.dtype)

    named = {name: placed(x) for name, x in batch.named.items()}
    return batch._replace(args=tuple(map(placed, batch.args)), named=named)


def with_rows(stream: Iterable[Any]) -> Iterator[Batch]:
    """Yield the batches that have rows: over none there is nothing to learn."""
    return (batch for batch in map(as_batch, stream) if len(batch.y))


def not_empty(stream: Iterator[Batch], name: str) -> Iterator[Batch]:
    """Yield batches on.

    Raises:
        DataError: There is none.
    """
    first = next(stream, None)
    if first is None:
        raise DataError(f"{name} must yield at least one batch (x, y) with rows, got none")
    yield first
    yield from stream


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
        return min(from_all(wrong, self._accelerator), default=None)  # all have to know

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
        if self._over and skip:
            stream: Iterator[Batch] = iter(())
        else:
            self._over = False
            self.digests = []
            stream = self._read(iter(self.loader))
        self._shares = False
        if skip and not self.keeps_place:  # read at once: the caller sets states next
            next(stream, None)
            before = random_state()  # a first batch draws the seed of the workers, whatever they do
            for _ in range(skip - 1):
                next(stream, None)
            # where reading draws from the global generators, training did so in between
            self._shares = not same_state(before, random_state())
        return self._some(stream if self._alone else self._together(stream, skip), skip)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Within, read, and leave everything as it was: random states, samplers, the own place."""
        roots = {} if self.keeps_place else {"loader": self.loader}
        state, place, read = random_state(roots), self.state(), self.digests
        try:
            yield
        finally:
            self.restore(place)
            self.digests = read
            set_random_state(state, roots)

    def peek(self, *, scaled: bool) -> tuple[Batch, Batch | None, float]:
        r"""Return a batch, one with a label ±inf or ⊥, and the scale of the targets.

        That is the median of \|y\| over the finite targets of the first 8192 rows of all processes,
        of those whose inputs are finite; or of the first batch if it is not asked for. To be called
        within `undisturbed`, so that the run sees the batches it would have seen.

        Raises:
            DataError: No target is finite.
        """
        first = labelled = None
        parts: list[Tensor] = []
        rows, whole = 0, True
        for given in self.epoch(0):
            batch, sound = given.safe()
            first = first or batch
            there = sound.reshape(-1, *[1] * (batch.y.ndim - 1)).expand(batch.y.shape)
            there = there if batch.weight is None else there & (batch.weight > 0)
            y = batch.y[: batch.own].detach()[there[: batch.own]]
            labelled = labelled or (None if torch.isfinite(y).all() else batch)
            parts.append(y.flatten())
            rows += batch.all
            if rows >= _SCALE_ROWS or not scaled:
                whole = False
                break
        y = torch.cat(from_all([torch.cat(parts).cpu()], self._accelerator))
        if whole and len(y) and not torch.isfinite(y).any():
            raise DataError(
                f"train_loader must yield finite targets, got ±inf or ⊥ in all {rows} rows: there "
                "is nothing to learn but one answer"
            )
        scale: Any = target_scale(y) if len(y) else 1.0  # without a sound row, training will tell
        return first, labelled, scale  # pyright: ignore[reportReturnType]

    def _read(self, stream: Iterator[Any]) -> Iterator[Batch]:
        for batch in with_rows(stream):
            if self.noting and not self.keeps_place:
                self.digests.append(_digest(batch))
            yield batch
        self._over = self.keeps_place

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
            if self._rows is not None:
                rows, lacking = self._rows(step), 0
            else:
                mine = [len(batch.y) if batch else 0, spare is None]
                device = self._accelerator.device
                rows, lacking = self._accelerator.reduce(
                    torch.tensor(mine, device=device), reduction="sum"
                ).tolist()
            if not rows:
                return
            if lacking:  # some process never had a batch of its own
                had = from_all([spare], self._accelerator)
                spare = spare or next(filter(None, had))
            yield spare._replace(own=len(batch.y) if batch else 0, all=rows)  # pyright: ignore[reportOptionalMemberAccess]
            step += 1

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
