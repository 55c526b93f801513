"""A projective head as matrices, ⟨N, D⟩ = ⟨H a, H b⟩ with H = [h, 1]; and solved in closed form.

Solving for the head of the trained trunk is the last step of a training.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zeroproof._checks import one_of, positive, same_shape
from zeroproof.autodiff.rewind import in_mode
from zeroproof.errors import DataError, ShapeError, TrainingError
from zeroproof.layers.head import ProjectiveHead
from zeroproof.projective.angle import chordal_distance
from zeroproof.solve.path import RHOS
from zeroproof.solve.spectral import (
    Found,
    Parts,
    Problem,
    Settings,
    clearance_warning,
    path_pairs,
    read,
    sweep,
)
from zeroproof.solve.tall_qr import gathered
from zeroproof.training.loaders import Batch, not_empty, widened, with_rows
from zeroproof.training.step import as_pair
from zeroproof.training.targets import lift_targets

__all__ = [
    "HeadReadout",
    "SpectralReadoutCallback",
    "answers_y",
    "closing_pair",
    "closing_readout",
    "features",
    "head_readout",
    "head_weights",
    "heads_of",
    "scale_numerator",
    "set_head",
    "with_ones",
]

_GAIN = 2.0  # times less error, for a head that nobody asked for
_ENTRIES = 2**22  # of features that are kept in memory for it
_WIDEST = 256  # features for which a head is solved unasked: time grows as their cube
_EQUAL = 1.5  # ratio of held-out errors that rounding and chance explain


class HeadReadout(NamedTuple):
    """What came of solving for the head of a trained model.

    Attributes:
        kept: Whether the model has the solved head; if not, it is as it was, bit by bit.
        before: Mean squared chordal distance of the model's answers on the held-out rows, in
            [0, 1]; an answer that is not finite counts as 1.
        after: The same with the solved head.
        rho: ρ, chosen on the held-out rows.
        clearance: As in `solve.Readout`; near 0 where N and D nearly vanish together.
    """

    kept: bool
    before: float
    after: float
    rho: float
    clearance: float


class SpectralReadoutCallback:
    """Ends a training with `SCMTrainer.readout`; `result` is the `HeadReadout` of the last fit.

    Args:
        dtype: See `head_readout`.

    Examples:
        >>> from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig
        >>> model, x = ProjectiveHead(1, 1), torch.linspace(-1, 1, 64)[:, None]
        >>> callback = SpectralReadoutCallback()
        >>> _ = SCMTrainer(
        ...     model,
        ...     torch.optim.Adam(model.parameters()),
        ...     SCMTrainingLoss(),
        ...     [(x, 1 / (x - 0.3))],
        ...     config=TrainingConfig(max_epochs=1, readout=None),  # `fit` would do it too
        ...     callbacks=[callback],
        ... ).fit()
        >>> callback.result.kept, callback.result.after < 1e-12
        (True, True)
    """

    def __init__(self, *, dtype: torch.dtype | None = None) -> None:
        self.dtype = _checked_dtype(dtype)
        self.result: HeadReadout | None = None

    def on_fit_end(self, trainer: Any) -> None:
        """Solve for the head of the trainer's model."""
        self.result = trainer.readout(dtype=self.dtype)


@torch.no_grad()
def head_readout(
    model: nn.Module,
    loader: Iterable[Any],
    held: Iterable[Any] | None = None,
    *,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
    distributed: bool = True,
    gain: float = 1.0,
) -> HeadReadout:
    r"""Put the closed-form head on a trained trunk, if that lowers the error on held-out rows.

    N = [h, 1] a and D = [h, 1] b, h what reaches the model's `ProjectiveHead` in evaluation mode,
    are solved for as in `solve.streamed_readout`, in float64, with ρ chosen on the held-out rows.
    The tuples keep their root mean square ‖(N, D)‖ and, on average, their direction, so that
    thresholds for \|D\| stay meaningful. Memory is O(k² + one batch); some twenty readings.

    Args:
        model: Returns (N, D); one `ProjectiveHead` in it makes them, as the last step. Its head is
            changed in place.
        loader: Yields pairs (x, y) anew each time; y as the trainer takes it, with ±inf and nan.
        held: The held-out rows, of the same kind. Without them about one row in five of `loader`,
            told by its numbers and not by its place, so that shuffling does no harm; ρ is then
            used for a solution on all rows.
        scale: s in the units of y: targets are lifted as y / s, as the model was trained.
        dtype: `torch.float64` turns parameters, buffers and inputs into float64 first: features of
            a float32 trunk are good to some 1e-7, and so then is the answer. The model stays in
            float64 if the head is kept. None leaves the precision as it is.
        distributed: Where `torch.distributed` is initialised, every process passes its own rows;
            all have to call, and all get the same head.
        gain: The head is kept if the error on the held-out rows falls by more than this factor.

    Raises:
        TrainingError: The model has not exactly one `ProjectiveHead`, uses it more than once, does
            not return a pair, or has a real head for complex targets.
        ShapeError: N and y, or features and targets, do not belong together.
        DataError: Features that are not finite, a loader that is an iterator or empty, an output
            without a finite target, or no row to hold out.
        RangeError: `scale` or `dtype` is not legal.

    Warns:
        UserWarning: Fewer rows than weights, or N and D of the kept head nearly vanish together.

    Examples:
        >>> x = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None]
        >>> model = ProjectiveHead(1, 1, dtype=torch.float64)
        >>> head_readout(model, [(x, 1 / (x - 0.3))]).after < 1e-28
        True
        >>> N, D = model(torch.tensor([[0.3]], dtype=torch.float64))
        >>> bool(D.abs() < 1e-14 * N.abs())
        True
    """
    positive(scale, "scale")
    heads = heads_of(model)
    if len(heads) != 1:
        raise TrainingError(
            f"model must have exactly one ProjectiveHead to solve for, got {len(heads)}"
        )
    _checked_dtype(dtype)
    if isinstance(loader, Iterator) or isinstance(held, Iterator):
        raise DataError("loader and held must yield their batches anew each time, got an iterator")
    train = _Rows(model, heads[0], loader, scale, "all" if held is not None else "train")
    test = replace(train, part="held") if held is None else replace(train, loader=held)
    with in_mode(model, training=False):
        before, kept = test.error(distributed=distributed), False
        saved = _converted(model, heads[0], dtype)
        try:
            rho, found = _solution(train, test, distributed=distributed)
            _place(heads[0], found)
            after = test.error(distributed=distributed)
            kept = gain * after < before
        finally:
            if not kept:
                for tensor, data in saved:
                    tensor.data = data
    clearance = min(each.clearance for each in found)
    if kept:
        clearance_warning(clearance)
    return HeadReadout(kept, before, after, rho, clearance)


@dataclass(frozen=True)
class _Rows:
    """Rows of a loader behind a trunk; every iteration reads the loader again."""

    model: nn.Module
    head: ProjectiveHead
    loader: Iterable[Any]
    scale: float
    part: str  # "all", or "train" or "held" of a loader that serves for both

    def __iter__(self) -> Iterator[Parts]:
        """Yield blocks for the solver."""
        for h, _, _, Y_n, Y_d, weight in self.answers():
            yield with_ones(h), None, Y_n, Y_d, weight

    def error(self, *, distributed: bool) -> float:
        """Return the mean squared chordal distance of the model's answers."""
        total, raised = [0.0, 0.0], None
        try:
            for _, N, D, Y_n, Y_d, weight in self.answers():
                far = chordal_distance(N.to(Y_n), D.to(Y_n), Y_n, Y_d).square().nan_to_num(nan=1.0)
                total[0] += (weight[:, None] * far).sum().item()
                total[1] += weight.sum().item() * far.shape[1]
        except Exception as error:  # noted, so that no other process waits for ever
            raised = error
        sums = gathered(total, raised, distributed=distributed)
        error, weight = (sum(each) for each in zip(*sums, strict=True))
        if not weight > 0:
            raise DataError("rows must be held out to choose on, got none; pass more of them")
        return error / weight

    def answers(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """Yield h, what the head got, N, D, Y_n, Y_d, and weights `(rows,)`, batch by batch.

        A row for each answer; one of the other part weighs 0.
        """
        for batch in not_empty(with_rows(self.loader), "loader"):
            placed = widened(batch, self.head.numerator.weight)
            seen, outputs = features(self.model, self.head, placed)
            if len(seen) != 1:
                raise TrainingError(
                    f"model must use its ProjectiveHead once, got {len(seen)} times"
                )
            if not isinstance(outputs, tuple | list) or len(outputs) != 2:
                raise TrainingError(
                    f"model must return a pair (N, D), got {type(outputs).__name__}"
                )
            same_shape(batch.y, outputs[0], "the targets y of a batch", "N")
            mine = torch.ones(len(batch.y), dtype=torch.bool)
            if self.part != "all":
                mine = _told(batch) == (self.part == "held")
            y, weight = batch.y.to(seen[0].device), mine.double().to(seen[0].device)
            h, N, D, y = (z.reshape(-1, z.shape[-1]) for z in (*seen, *outputs, y))
            wrong = ~torch.isfinite(h).all(1)
            if wrong.any():
                raise DataError(
                    f"features of the trunk must be finite, got otherwise in {int(wrong.sum())} of "
                    f"the {len(h)} rows of a batch; look for non-finite inputs or weights"
                )
            if len(h) != len(y):
                raise ShapeError(
                    f"features and targets must agree in rows, got {len(h)} and {len(y)} of them"
                )
            wide = torch.complex128 if y.is_complex() or N.is_complex() else torch.float64
            Y_n, Y_d = lift_targets(y.to(wide), scale=self.scale)
            weight = weight.repeat_interleave(len(y) // max(len(weight), 1))
            yield h, N, D, Y_n, Y_d, weight * batch.weights().to(weight)


def _told(batch: Batch) -> Tensor:
    """Return True for about one row in five, by a hash of its numbers."""
    rows, numbers = len(batch.y), (*batch.args, *batch.named.values(), batch.y)
    tables = (z for z in numbers if isinstance(z, Tensor) and z.ndim > 0 and len(z) == rows)
    keys = [z.reshape(rows, -1) for z in tables]
    total = torch.zeros(rows, dtype=torch.int64)
    for key in keys:
        real = torch.view_as_real(key).flatten(1) if key.is_complex() else key
        bits = real.detach().cpu().double().contiguous().view(torch.int64)
        odd = 0x9E3779B97F4A7C1 * (2 * torch.arange(bits.shape[1]) + 1)
        mixed = (bits ^ (bits >> 31)) * odd
        total = (total + (mixed ^ (mixed >> 29)).sum(1)) * 0xBF58476D1CE4E5B
    return (total >> 33) % 5 == 0


def _solution(train: _Rows, test: _Rows, *, distributed: bool) -> tuple[float, list[Found]]:
    """Return ρ and what was found for each denominator; as `solve.choose_rho`, but in blocks."""
    settings = Settings(shared_denominator=train.head.shared_denominator)
    rhos = sorted(RHOS, reverse=True)
    # at first all rows weigh alike: a pilot that is too small for noisy rows would ruin the weights
    for sweeps in (1, settings.sweeps):
        _, found = sweep(train, settings._replace(sweeps=sweeps), distributed=distributed)
        problems = [
            Problem(_outputs(train.head, j), pair)
            for j, each in enumerate(found)
            for pair in path_pairs(each.factors, rhos)
        ]
        _, totals = read(
            test,
            problems,
            settings,
            distributed=distributed,
            features=False,
            residual=False,
        )
        errors = torch.tensor([each.scores.error for each in totals])
        errors = errors.reshape(len(found), -1).sum(0)
        # the largest of equals: a penalty for nothing less lets N and D vanish together
        best = int((errors <= _EQUAL * errors.min()).nonzero()[0])
        settings = settings._replace(rho=rhos[best])
    everything = replace(train, part="all")
    return settings.rho, sweep(everything, settings, distributed=distributed)[1]


def closing_readout(
    model: nn.Module,
    head: ProjectiveHead,
    loader: Iterable[Any],
    held: Iterable[Any] | None,
    scale: float,
    *,
    distributed: bool,
) -> HeadReadout | None:
    """Return `head_readout` as the end of a training: of few rows, each read once.

    Without `held` a fifth of the rows is held out, and no solution sees it. Labels ±inf and ⊥ are
    no numbers to go through: a head fitted to the edge of a band of them puts poles and zeros side
    by side into it. So the finite rows are tried first, and all of them where that is not good
    enough on the rows held out, as where ⊥ fills a region. `None` where there is nothing to solve
    with: no row held out, or no finite target; and for more than 256 features, where it would take
    longer than many a training.
    """
    if head.in_features > _WIDEST:
        return None
    raised, rows, others = None, list[Tensor](), list[Tensor]()
    try:
        with in_mode(model, training=False):
            rows = _features(model, head, loader)
            others = [] if held is None else _features(model, head, held)
    except DataError as error:  # told to all, so that no other process waits for ever
        raised = error
    try:
        gathered([], raised, distributed=distributed)
    except DataError:
        return None
    if held is None:
        others, rows = ([z[mark] for z in rows] for mark in (rows[3], ~rows[3]))
    finite = torch.isfinite(rows[1]).all(1)
    found, options = None, {"scale": scale, "distributed": distributed, "gain": _GAIN}
    for part in ([z[finite] for z in rows], rows):
        with suppress(DataError, TrainingError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # held-out rows decide, whatever is doubtful
            loaders = ([dict(zip(("h", "y", "weight"), z, strict=False))] for z in (part, others))
            found = head_readout(head, *loaders, **options)
        if found is not None and found.kept:
            break
    return found


def _features(model: nn.Module, head: ProjectiveHead, loader: Iterable[Any]) -> list[Tensor]:
    """Return features, targets, weights and a mark on a fifth of the first rows of a loader.

    Those with finite features. The mark is told by a row's own numbers: a bit of rounding in its
    features, by other rows in its batch, must not move it.
    """
    found: list[tuple[Tensor, ...]] = []
    room = _ENTRIES
    for batch in not_empty(with_rows(loader), "loader"):
        (h,), _ = features(model, head, widened(batch, head.numerator.weight))
        h = h.detach().reshape(-1, h.shape[-1])
        y, weight = batch.y.to(h.device).reshape(len(h), -1), batch.weights().to(h.device)
        sound = torch.isfinite(h).all(1) & (weight > 0)
        mark = _told(batch).to(h.device).repeat_interleave(len(h) // max(len(batch.y), 1))
        found.append((h[sound], y[sound], weight[sound], mark[sound]))
        room -= h.numel()
        if room <= 0:
            break
    return [torch.cat(z) for z in zip(*found, strict=True)]


def _outputs(head: ProjectiveHead, j: int) -> list[int]:
    return list(range(head.out_features)) if head.shared_denominator else [j]


def _place(head: ProjectiveHead, found: list[Found]) -> None:
    old_a, old_b = head_weights(head)
    pairs = [
        _in_gauge(each, old_a[:, _outputs(head, j)], old_b[:, [j]]) for j, each in enumerate(found)
    ]
    a, b = (torch.cat(z, 1) for z in zip(*pairs, strict=True))
    if a.is_complex() and not old_a.is_complex():
        raise TrainingError(
            "the head must be complex for complex targets or features, "
            f"ProjectiveHead(..., dtype=torch.complex64), got {old_a.dtype}"
        )
    set_head(head, a, b)


def _in_gauge(found: Found, old_a: Tensor, old_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the solution in the mean size and direction of the tuples there were."""
    R_N, R_D = found.factors.R_N, found.factors.R_D
    old = torch.cat([(R @ z.to(R)).flatten() for R, z in ((R_N, old_a), (R_D, old_b))])
    new = torch.cat([(R_N @ found.a).flatten(), (R_D @ found.b).flatten()])
    size, overlap = torch.linalg.vector_norm(old), torch.vdot(new, old)
    factor = size / torch.linalg.vector_norm(new) * overlap / overlap.abs()
    factor = torch.where(torch.isfinite(factor.abs()) & (factor != 0), factor, 1)
    return found.a * factor, found.b * factor


def _converted(
    model: nn.Module, head: nn.Module, dtype: torch.dtype | None
) -> list[tuple[Tensor, Tensor]]:
    """Convert the model if asked to; return what may change now, with the data it has."""
    if dtype is None:
        return [(tensor, tensor.data.clone()) for tensor in head.parameters()]
    saved: list[tuple[Tensor, Tensor]] = []
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            saved.append((tensor, tensor.data))
            # a copy: the solved head must not be written into what would be restored
            wide = dtype.to_complex() if tensor.is_complex() else dtype
            tensor.data = tensor.data.to(wide, copy=True)
            tensor.grad = None
    return saved


def _checked_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    return one_of(dtype, (None, torch.float64), "dtype")


# --- heads


def features(model: nn.Module, head: nn.Module, batch: Batch) -> tuple[list[Tensor], Any]:
    """Run a model; return what its head got, once for every use, and what the model returned."""
    seen: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.extend((*args, *named.values()))

    hook = head.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.enable_grad():  # a model may differentiate in forward
            outputs = batch.through(model)
    finally:
        hook.remove()
    return pytree.tree_map_only(Tensor, Tensor.detach, (seen, outputs))


def with_ones(h: Tensor) -> Tensor:
    """Return [h, 1]: the biases of the head are the weights of the last column."""
    return torch.cat([h, torch.ones_like(h[..., :1])], -1)


def head_weights(head: ProjectiveHead) -> tuple[Tensor, Tensor]:
    """Return a, `(in_features + 1, k)`, and b, `(in_features + 1, 1 or k)`, without a graph."""
    layers = (head.numerator, head.denominator)
    a, b = (torch.cat([x.weight.detach(), x.bias.detach()[:, None]], 1).T for x in layers)
    return a, b


def heads_of(model: nn.Module) -> list[ProjectiveHead]:
    """Return the projective heads in a model."""
    return [module for module in model.modules() if isinstance(module, ProjectiveHead)]


@torch.no_grad()
def scale_numerator(head: ProjectiveHead, factor: float) -> None:
    """Multiply N by a number, without a graph."""
    for parameter in head.numerator.parameters():
        parameter.mul_(factor)


@torch.no_grad()
def set_head(head: ProjectiveHead, a: Tensor, b: Tensor) -> None:
    """Write a and b into the parameters of a head, in their dtype and on their device."""
    for layer, weights in ((head.numerator, a), (head.denominator, b)):
        layer.weight.copy_(weights[:-1].T)
        layer.bias.copy_(weights[-1])


def closing_pair(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Return (N, D) of a model that ends in a `ProjectiveHead`: its answer to the bit.

    The numerator of such a head may be scaled, and it may be solved for, as the answers will
    follow. A head that does not learn is left as it is: `None`, as without one.
    """
    heads = heads_of(model)
    if len(heads) != 1 or not all(p.requires_grad for p in heads[0].parameters()):
        return None
    with in_mode(model, training=False):
        seen, outputs = features(model, heads[0], widened(batch, heads[0].numerator.weight))
        if len(seen) != 1 or not isinstance(outputs, tuple | list) or len(outputs) != 2:
            return None
        pairs = zip(outputs, heads[0](seen[0]), strict=True)
        alike = all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs)
    return as_pair(outputs) if alike else None


def answers_y(N: Tensor, D: Tensor, y: Tensor, scale: float) -> bool:
    """Tell whether answers are those to y already, and not to y / scale, as of a trained model."""
    Y = lift_targets(y.to(N.device), scale=scale)
    pairs = ((z, D.expand_as(N), *Y) for z in (N, N / scale))
    as_is, divided = (chordal_distance(*pair).square().nan_to_num(1.0).mean() for pair in pairs)
    return bool(divided < as_is / 2)
