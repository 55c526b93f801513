"""The gradient of the sound rows alone, where some rows of a batch are not finite.

A loss that leaves a row out still sends a 0 back to it, and 0 · nan = nan in the first linear map
on the way: one row spoils every weight, whatever is masked at the end of the graph. So the row has
to leave before forward. Which rows have to is plain for inputs. For what a model makes inside, the
batch is run first; if that went wrong, a forward in eval mode, where no row sees another, tells the
rows to blame, or halving the batch does; then it runs again without them, from the same random
state and buffers.
"""

import cmath
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from zeroproof.autodiff.rewind import Rewind, in_mode
from zeroproof.errors import DataError

__all__ = ["SoundRows", "dense", "looks_finite", "spoiled", "whole", "with_zeros"]

_RUNS = 4  # of one batch


class SoundRows:
    """Forward and backward of a batch over its sound rows: the gradient is theirs alone.

    A row leaves the batch if an input, an output or a gradient of it is not finite: before forward,
    or by running the batch again without it, from the same random state and buffers. Rows are the
    entries of dimension 0 of every tensor that has as many as y; all else is passed on as it is.
    Integers are finite. Masks of attention should be boolean.

    Where rows see each other in eval mode too (attention over the batch, a graph), none can leave:
    the batch is skipped, as one without a sound row is, and gradients stay as they were. A warning
    tells the first row left out and the first batch skipped.

    In `DistributedDataParallel` all processes run a batch again if one has to. An accelerator is
    read a few times in every batch.

    Args:
        model: The model, on one device.
        loss_fn: Called as `loss_fn(outputs, y)`; a scalar.
        scaler: A `torch.amp.GradScaler`, to which a gradient that is not finite is left.

    Attributes:
        sound: Which rows of the latest batch counted, boolean `(n,)`; none where it was skipped.
        masked_rows: Rows left out so far, those of skipped batches included.
        reruns: Batches run again so far.
        skipped: Batches skipped so far.

    Examples:
        >>> over = SoundRows(nn.Linear(1, 1), nn.functional.mse_loss)
        >>> loss = over.backward(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
        >>> over.sound
        tensor([True, True])
    """

    def __init__(
        self, model: nn.Module, loss_fn: Callable[[Any, Any], Tensor] | None, *, scaler: Any = None
    ) -> None:
        self.model, self.loss_fn, self.scaler = model, loss_fn, scaler
        self.distributed = isinstance(model, DistributedDataParallel)
        self.sound = torch.zeros(0, dtype=torch.bool)
        self.masked_rows = self.reruns = self.skipped = 0
        self.said: set[bool] = set()
        self.within: Callable[[], AbstractContextManager[Any]] = nullcontext  # around forward
        self.taken: Any = None  # a batch that is under way
        self._splits = False  # seen to answer some rows as it answers all

    def __getstate__(self) -> dict[str, Any]:
        # graphs and generators cannot be copied
        kept = {k: v for k, v in vars(self).items() if k != "_rewind"}
        return {**kept, "taken": None, "outputs": None}

    def backward(self, inputs: Any, y: Any) -> Tensor:
        """Run forward and backward over the sound rows of a batch; gradients are added up.

        The policy in force is that of the surrounding `gradient_policy`.

        Args:
            inputs: x for `model(x)`, a tuple for `model(*inputs)`, a mapping for `model(**inputs)`.
            y: The targets: a tensor, or any nest of tensors, with rows in dimension 0.

        Returns:
            The loss over the sound rows, detached; nan where the batch was skipped.

        Raises:
            DataError: No tensor of y has rows.
        """
        named = dict(inputs) if isinstance(inputs, Mapping) else {}
        args = inputs if isinstance(inputs, tuple | list) else () if named else (inputs,)
        self.begin((tuple(args), named), y)

        def run() -> Tensor:
            with self.within():
                loss = self.forward()
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            return loss

        loss = self.attempt(run)
        return torch.tensor(math.nan) if loss is None else loss.detach()

    # --- its parts, for loops that run backward themselves

    def begin(self, inputs: tuple[tuple[Any, ...], dict[str, Any]], y: Any) -> None:
        """Take a batch, and its rows out whose inputs are not finite."""
        rows = next((x for x in pytree.tree_leaves(y) if isinstance(x, Tensor) and x.ndim), None)
        if rows is None:
            raise DataError(f"the targets y must be tensors with rows, got {type(y).__name__}")
        self.taken, self.outputs, self._whole, self._why = (inputs, y), None, "", ""
        self.sound = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        self._rewind.save()
        bad = ~_finite_rows(inputs, self.sound)
        if self._together(bool(bad.any())):
            self._leave_out(bad, "an input of theirs is not finite")

    def attempt(
        self, run: Callable[[], Any], *, backward: bool = True, again: bool = True
    ) -> Any | None:
        """Run; if outputs, loss or a gradient are not finite, again without the rows to blame.

        `run` calls `forward`, runs backward if that is to be looked at, and returns the loss; more
        than once, unless not `again`. Returns `None` if the batch was skipped.
        """
        parameters = self._parameters if backward else []
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        scaled = self.scaler is not None and self.scaler.is_enabled()
        result = None
        for _ in range(_RUNS):
            if not self._together(bool(self.sound.any())):
                break
            try:
                result = run()
            except (RuntimeError, ValueError) as error:  # as of normalisation over a single row
                if self.distributed or self.sound.all():
                    raise
                self._whole = f"its sound rows cannot be run alone ({error})"
                break
            self._rewind.watch()
            numbers = [] if scaled or not backward else [result.detach(), *dense(parameters)]
            rest, seen = bool(spoiled(numbers)), self._finite(self.outputs)
            if not self._together(rest or not seen.all()):
                return result
            self._rewind.back()  # statistics may be nan by now
            _put(parameters, before)
            why = "what the model makes of them, or its gradient, is not finite"
            if not (again and self._leave_out(self._blamed(seen), why)):
                if self._together(rest or not seen.any()):
                    break
                self._rewind.back()
                return run()  # the loss leaves those rows out, and spoils nothing
            self.reruns += 1
        _put(parameters, before)
        self._skip()
        return None

    def among_all(self, inputs: tuple[tuple[Any, ...], dict[str, Any]], like: Tensor) -> Any:
        """Return the outputs of a batch with as many rows as `like`, without a loss."""
        self.begin(inputs, like)
        self.attempt(self.forward, backward=False)
        outputs, self.taken, self.outputs = self.whole(), None, None
        return outputs

    def forward(self) -> Any:
        """Return the loss over the sound rows of this process; a connected 0 over none."""
        (inputs, y), none = self.part(), not self.sound.any()
        self.outputs, loss = self.run(inputs, y)
        return self.nothing() if none else loss

    def run(self, inputs: Any, y: Any, model: nn.Module | None = None) -> tuple[Any, Any]:
        """Return outputs and loss of rows; of the given model, on this process alone."""
        args, named = inputs
        outputs = (model or self.model)(*args, **named)
        return outputs, None if self.loss_fn is None else self.loss_fn(outputs, y)

    def part(self, rows: Tensor | None = None) -> Any:
        """Return the sound rows of the batch, or those at given places.

        Of none, zeros in their stead: a process without a sound row keeps the others company.
        """
        if rows is None and self.sound.all():
            return self.taken
        rows = self.sound.nonzero()[:, 0] if rows is None else rows
        count = len(self.sound)
        pick = (lambda x: x[rows]) if len(rows) else torch.zeros_like
        return pytree.tree_map(lambda x: pick(x) if _has_rows(x, count) else x, self.taken)

    def whole(self) -> Any:
        """Return the outputs among those of all rows; nan, without a gradient, where not sound."""
        if self.sound.all():
            return self.outputs
        places, count = self.sound.nonzero()[:, 0], len(self.sound)

        def widened(x: Any) -> Any:
            if not len(places):  # those of another run, or of zeros
                return x.new_full((count, *x.shape[1:]), math.nan) + self.nothing()
            if not _has_rows(x, len(places)):
                return x
            return x.new_full((count, *x.shape[1:]), math.nan).index_copy(0, places, x)

        if self.outputs is None:
            self.forward()
            self._rewind.back()
        return pytree.tree_map(widened, self.outputs)

    def nothing(self) -> Tensor:
        """Return a 0 that is connected to every parameter, and spoils none."""
        none = torch.zeros((), device=self.sound.device)
        return sum((p.flatten()[:0].sum() for p in self._parameters), none)

    # --- rows

    @cached_property
    def _rewind(self) -> Rewind:
        return Rewind(self.model)

    @property
    def _parameters(self) -> list[nn.Parameter]:
        # the method of an objective is bound to what holds the loss
        loss = getattr(getattr(self.loss_fn, "__self__", None), "loss_fn", self.loss_fn)
        modules = [m for m in (self.model, loss) if isinstance(m, nn.Module)]
        return [p for m in modules for p in m.parameters() if p.requires_grad]

    @property
    def _alone(self) -> nn.Module:
        model = self.model
        return model.module if isinstance(model, DistributedDataParallel) else model

    def _together(self, flag: bool) -> bool:
        """Tell whether it is true on any process."""
        if not self.distributed:
            return flag
        told = torch.tensor(float(flag), device=self.sound.device)
        torch.distributed.all_reduce(told)
        return told.item() > 0

    def _finite(self, outputs: Any) -> Tensor:
        """Tell which sound rows of all have finite outputs, `(n,)`."""
        finite = self.sound.clone()
        if self.sound.any():
            finite[self.sound] = _finite_rows(outputs, self.sound[self.sound])
        return finite | ~self.sound

    def _leave_out(self, bad: Tensor, why: str) -> bool:
        """Take rows out and go back to where the batch began; tell whether that can be."""
        kept, found = self.sound & ~bad, bool(bad.any())
        can = not found or not kept.any() or self._answers_parts(kept)
        if not self._together(found) or self._together(not can):
            return False
        self._why = why
        if found:
            self.masked_rows += int(bad.sum())
        if found and kept.any():
            places = bad.nonzero()[:, 0].tolist()
            shown = ", ".join(map(str, places[:8])) + (", ..." if len(places) > 8 else "")
            self._say(f"{len(places)} of {len(bad)} rows of a batch ({shown}) were", why)
        self.sound = kept
        self._rewind.back()
        return True

    def _blamed(self, seen: Tensor) -> Tensor:
        """Return the rows that are not finite, in eval mode too if there are such; else by halves.

        A part of a batch is tried in eval mode. If the first, middle and last row each spoil the
        gradient alone, the rows are not at fault.
        """

        def spoils(places: Tensor) -> bool:
            outputs, loss = self.run(*self.part(places), model=self._alone)
            ask = self._parameters
            slopes = torch.autograd.grad(loss, ask, allow_unused=True) if loss is not None else ()
            numbers = [x for x in (*pytree.tree_leaves(outputs), loss, *slopes) if x is not None]
            return bool(spoiled([_values(x.detach()) for x in numbers]))

        bad = torch.zeros_like(self.sound)
        if not self.sound.any():
            return bad
        with in_mode(self.model, training=False):
            alone = ~seen & ~self._finite(self.run(*self.part(), model=self._alone)[0])
            if alone.any():
                return alone
            if not seen.all():
                return bad if not (self.sound & seen).any() else ~seen
            waiting = [self.sound.nonzero()[:, 0]]
            ends = waiting[0][[0, len(waiting[0]) // 2, -1]]
            if len(waiting[0]) > 3 and all(spoils(place) for place in ends.split(1)):
                return bad
            while waiting:
                places = waiting.pop()
                if spoils(places):
                    bad[places] = len(places) == 1
                    waiting += places.chunk(2) if len(places) > 1 else ()
        return bad

    def _answers_parts(self, kept: Tensor) -> bool:
        """Tell whether the rows that are kept are answered without the others as among them.

        And in the opposite order: where inputs point at rows, as the edges of a graph do, a node
        without neighbours could leave, and all others would get those of another one.
        """
        if self._splits or self._whole:
            return self._splits
        places = kept.nonzero()[:, 0].flip(0)

        def outputs(part: Any) -> list[Any]:
            self._rewind.back()
            return pytree.tree_leaves(self.run(*part, model=self._alone)[0])

        try:
            with in_mode(self.model, training=False):
                among, apart = [x[places] for x in outputs(self.taken)], outputs(self.part(places))
                self._splits = all(map(_alike, among, apart))
        except (RuntimeError, ValueError, IndexError) as error:
            self._whole = f"its sound rows cannot be run alone ({error})"
        if not self._splits:
            self._whole = self._whole or "its rows see each other in eval mode too"
        return self._splits

    # --- what is said

    def _skip(self) -> None:
        self._rewind.back()
        self.skipped += 1
        self.masked_rows += int(self.sound.sum())
        why = self._whole or (self._why if not self.sound.any() else "no row is to blame")
        self.sound = torch.zeros_like(self.sound)
        self._say(f"a batch of {len(self.sound)} rows was", f"it is not finite, and {why}")

    def _say(self, what: str, why: str) -> None:
        if (kind := what.endswith("were")) not in self.said:
            self.said.add(kind)
            warnings.warn(
                f"{what} left out of training: {why}. Mend or drop such rows; inside a model look "
                "for a pole, an overflow, a root at 0 or the branch of a torch.where that is not "
                "taken. From here on they are counted only",
                stacklevel=2,
            )


def looks_finite(tree: Any, rows: int) -> bool:
    """Tell whether the sums of all tensors with so many rows are finite: then all of them are.

    A sum takes one pass and no memory; one that overflows is to be looked at again.
    """
    for x in pytree.tree_leaves(tree):
        if _inexact_rows(x, rows):
            total = (x.detach() if x.requires_grad else x).sum().item()
            if not cmath.isfinite(total):
                return False
    return True


def with_zeros(tree: Any, y: Tensor) -> tuple[Any, Tensor]:
    """Put 0 for what is not finite in tensors with as many rows as y; tell which rows have none.

    No number is read: for accelerators, and while a compiler records.
    """
    finite = torch.ones(len(y), dtype=torch.bool, device=y.device)

    def safe(x: Any) -> Any:
        nonlocal finite
        if not _inexact_rows(x, len(y)):
            return x
        fine = torch.isfinite(x)
        finite = finite & fine.reshape(len(y), -1).all(1)
        return torch.where(fine, x, 0)

    return pytree.tree_map(safe, tree), finite


def dense(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the numbers of all gradients; sparse ones are summed up first, each entry once."""
    found: list[Tensor] = []
    for p in parameters:
        if (g := p.grad) is not None:
            if g.is_sparse:
                p.grad = g = g.coalesce()
                g = g.values()
            found.append(g)
    return found


def spoiled(numbers: list[Tensor]) -> Tensor:
    """Tell whether a number is not finite, on its device."""
    # the largest modulus cannot overflow and keeps nan
    sizes = [torch.linalg.vector_norm(x, math.inf) for x in numbers if x.numel()]
    if not sizes:
        return torch.tensor(False)
    return ~torch.isfinite(torch.stack([whole(x).double() for x in sizes])).all()


def whole(norm: Tensor) -> Tensor:
    """Return the norm over all shards of a model that is spread over processes."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # pyright: ignore[reportAttributeAccessIssue]


def _values(x: Tensor) -> Tensor:
    return x.coalesce().values() if x.is_sparse else x


def _put(parameters: list[nn.Parameter], gradients: list[Tensor | None]) -> None:
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = None if g is None else g.clone()


def _has_rows(x: Any, rows: int) -> bool:
    return isinstance(x, Tensor) and x.layout is torch.strided and x.shape[:1] == (rows,)


def _inexact_rows(x: Any, rows: int) -> bool:
    return _has_rows(x, rows) and (x.is_floating_point() or x.is_complex())


def _finite_rows(tree: Any, like: Tensor) -> Tensor:
    """Tell which rows are finite in every tensor that has as many as `like`."""
    finite, rows = torch.ones_like(like), len(like)
    if looks_finite(tree, rows):
        return finite
    for x in pytree.tree_leaves(tree):
        if _inexact_rows(x, rows):
            finite &= torch.isfinite(x.detach()).reshape(rows, -1).all(1)
    return finite


def _alike(a: Tensor, b: Tensor) -> bool:
    """Tell whether two outputs agree to half of their digits."""
    if not (b.is_floating_point() or b.is_complex()) or not b.numel():
        return torch.equal(a, b)
    a, b = a.detach(), b.detach()
    near = torch.finfo(b.dtype).eps ** 0.5 * float(b.abs().nan_to_num(0, 0, 0).max())
    return torch.allclose(a, b, rtol=0, atol=near, equal_nan=True)
