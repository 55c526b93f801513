"""Rows near the singularity drawn more often: a sampler, its scores, and a callback for both."""

import math
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from zeroproof._checks import one_of, positive, whole
from zeroproof._extras import require
from zeroproof.autodiff.rewind import in_mode
from zeroproof.errors import RangeError, ShapeError
from zeroproof.projective.angle import SCORES, denominator_score
from zeroproof.training.loaders import as_batch
from zeroproof.training.targets import lift_targets

__all__ = ["AdaptiveSampler", "AdaptiveSampling", "score_of_targets"]


class AdaptiveSampler(Sampler[int]):
    """Raise the share of rows near the singularity to `share` of every epoch.

    Near are the `near`·rows rows with the smallest scores, and every row whose score is not finite;
    equal scores are treated alike, so that there may be more (or, where that would be all rows,
    fewer). Each part is a circle in a fixed random order. Epoch e goes on where epoch e - 1 stopped
    on it, and shuffles what it took: m = `num_samples` entries, of them round((e + 1)·share·m) -
    round(e·share·m) near. While the near rows stay the same, no row of a part comes twice before
    all of it came once, over epochs too; where they change, some rows come a little early or late.
    Before the first `update` all rows are one part, and an epoch is a plain permutation.

    The order depends on seed, epoch and the latest scores alone, never on torch's global generator.
    A mean loss over such rows is a mean over another distribution than that of the data, as asked
    for; row i weighted by 1 / (rows·p_i), with p = `probabilities`, gives the mean over the data.

    With `num_replicas` > 1, rank r takes the entries r, r + num_replicas, ... of the common order,
    which starts over at its end so that all ranks get equally many. All ranks must be given the
    same scores. In an `SCMTrainer` leave it at 1: the trainer shards the batches.

    Args:
        rows: Number of rows, at least 1, or the dataset itself.
        share: Share of near rows in an epoch, in [near, 1).
        near: Share of the rows that count as near, above 0.
        num_samples: m, entries per epoch over all ranks; `rows` if absent.
        seed: Of the order.
        num_replicas: Number of ranks.
        rank: The own one, from 0.

    Attributes:
        epoch: Number of epochs begun; `iter` begins one.

    Raises:
        RangeError: An argument outside what it may be.

    Examples:
        >>> from torch.utils.data import TensorDataset
        >>> x = torch.linspace(-1, 1, 100)[:, None]
        >>> dataset = TensorDataset(x, 1 / (x - 0.3))
        >>> sampler = AdaptiveSampler(dataset, share=0.5, near=0.1)
        >>> sampler.update(score_of_targets(dataset.tensors[1]))
        >>> loader = DataLoader(dataset, batch_size=20, sampler=sampler)
        >>> sum(int(((x - 0.3).abs() < 0.1).sum()) for x, _ in loader)  # 10 rows, five times each
        50
    """

    def __init__(
        self,
        rows: int | Sized,
        *,
        share: float = 0.5,
        near: float = 0.1,
        num_samples: int | None = None,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        self.rows = whole(len(rows) if isinstance(rows, Sized) else rows, "rows", low=1)
        if not 0 < near <= share < 1:
            raise RangeError(
                f"0 < near <= share < 1 must hold, got near={near!r} and share={share!r}"
            )
        self.share, self.near = share, near
        given = self.rows if num_samples is None else num_samples
        self.num_samples = whole(given, "num_samples", low=1)
        self.seed = whole(seed, "seed")
        self.num_replicas = whole(num_replicas, "num_replicas", low=1)
        self.rank = whole(rank, "rank")
        if rank >= num_replicas:
            raise RangeError(f"rank must be below num_replicas, {num_replicas}, got {rank}")
        self.epoch = 0
        self._near = torch.zeros(self.rows, dtype=torch.bool)

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        order = self._order()
        self.epoch += 1
        mine = torch.arange(len(self)) * self.num_replicas + self.rank
        return iter(order[mine % self.num_samples].tolist())

    def update(self, score: Tensor) -> None:
        r"""Take new scores, in force from the next epoch on.

        Args:
            score: How far each row is from ⊥, `(rows,)`, at least 0: \|D\| or the angle score, as
                `projective.denominator_score` gives them.

        Raises:
            ShapeError: Not one score for each row.
            RangeError: A negative score, or complex ones.
        """
        if score.shape != (self.rows,):
            raise ShapeError(f"score must have the shape ({self.rows},), got {tuple(score.shape)}")
        if score.is_complex() or bool((score < 0).any()):
            came = score.dtype if score.is_complex() else float(score[score < 0][0])
            raise RangeError(f"score must be real and at least 0, such as D.abs(), got {came}")
        score = score.detach().to("cpu", torch.float64)
        score = torch.where(torch.isfinite(score), score, -1)
        last = score.kthvalue(max(1, round(self.near * self.rows))).values
        near = score <= last
        # a tie of all the others says that those below it are the near ones
        self._near = score < last if bool(near.all()) else near

    @property
    def probabilities(self) -> Tensor:
        """The share of each row in the entries of many epochs, `(rows,)` in float64; the sum is 1.

        It is that of the scores in force now: share / (near rows), (1 - share) / (other rows).
        """
        near = int(self._near.sum())
        if not near:
            return torch.full((self.rows,), 1 / self.rows, dtype=torch.float64)
        both = [(1 - self.share) / (self.rows - near), self.share / near]
        return torch.tensor(both, dtype=torch.float64)[self._near.long()]

    def set_epoch(self, epoch: int) -> None:
        """Let `epoch`, counted from 0, be the next one.

        The sampler counts by itself; `SCMTrainer` and Accelerate call this with their own count.

        Raises:
            RangeError: `epoch` is not a whole number of at least 0.
        """
        self.epoch = whole(epoch, "epoch")

    def state_dict(self) -> dict[str, Any]:
        """Return seed, epoch and which rows are near; taken before `iter`, that epoch comes again.

        The options belong to the constructor. Checkpoints of `SCMTrainer` hold it.
        """
        return {"seed": self.seed, "epoch": self.epoch, "near": self._near}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, whose seed replaces the own one.

        Raises:
            ShapeError: It is that of a sampler over another number of rows.
        """
        near = state["near"]
        if near.shape != (self.rows,):
            raise ShapeError(
                f"the state must be of a sampler over {self.rows} rows, got {len(near)} rows"
            )
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])
        self._near = near.to("cpu", torch.bool, copy=True)

    def _order(self) -> Tensor:
        """Return the entries of the next epoch, over all ranks."""
        circle = torch.randperm(self.rows, generator=self._generator(-1))
        near = self._near[circle]
        quota = self.share * self.num_samples if bool(near.any()) else 0.0
        # rounded sums, not sums of rounded numbers: `share` holds over the epochs
        start, end = round(self.epoch * quota), round((self.epoch + 1) * quota)
        before = self.epoch * self.num_samples - start
        entries = torch.cat(
            [
                _stretch(circle[near], start, end - start),
                _stretch(circle[~near], before, self.num_samples - (end - start)),
            ]
        )
        return entries[torch.randperm(self.num_samples, generator=self._generator(self.epoch))]

    def _generator(self, stream: int) -> torch.Generator:
        # spread, because a generator takes 32 bits: neighbouring seeds must not share their streams
        return torch.Generator().manual_seed((self.seed * 0x9E3779B1 + stream) % 2**32)


class AdaptiveSampling:
    """Keeps the scores of an `AdaptiveSampler` those of the model while an `SCMTrainer` trains it.

    After every `every` epochs the model answers all rows in evaluation mode, without a gradient;
    the score of a row is the smallest of its outputs, nan where N or D is not finite. With several
    processes each computes all rows and takes the scores of the first, as running statistics may
    differ. Holds no state: the sampler's is saved with the loader.

    Args:
        sampler: Sampler of the training loader.
        data: All rows: inputs x `(rows, ...)`, or the dataset of the loader, whose batches have a
            form that the trainer takes (read row by row, which takes longer).
        every: Epochs between two updates, at least 1.
        score: `"angle"` or `"denominator"`.
        scale: s of `"angle"` in the units of N / D; where targets are lifted with a
            `target_scale`, 1.
        batch_size: Rows that the model is given at once.

    Raises:
        RangeError: An argument outside what it may be, or as many rows as the sampler has not.

    Examples:
        >>> from zeroproof.layers import ProjectiveHead
        >>> from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig
        >>> x, model = torch.linspace(-1, 1, 64)[:, None], ProjectiveHead(1, 1)
        >>> dataset = torch.utils.data.TensorDataset(x, 1 / x)
        >>> sampler = AdaptiveSampler(dataset)
        >>> trainer = SCMTrainer(
        ...     model,
        ...     torch.optim.Adam(model.parameters()),
        ...     SCMTrainingLoss(),
        ...     DataLoader(dataset, batch_size=16, sampler=sampler),
        ...     config=TrainingConfig(max_epochs=2),
        ...     callbacks=[AdaptiveSampling(sampler, x)],
        ... )
        >>> len(trainer.fit())
        2
    """

    def __init__(
        self,
        sampler: AdaptiveSampler,
        data: Any,
        *,
        every: int = 1,
        score: str = "angle",
        scale: float = 1.0,
        batch_size: int = 4096,
    ) -> None:
        if len(data) != sampler.rows:
            raise RangeError(f"data must have the sampler's {sampler.rows} rows, got {len(data)}")
        self.sampler, self.data = sampler, data
        self.every = whole(every, "every", low=1)
        self.score = one_of(score, SCORES, "score")
        self.scale = positive(scale, "scale")
        self.batch_size = whole(batch_size, "batch_size", low=1)

    def on_epoch_end(self, trainer: Any) -> None:
        """Give the sampler the scores of the trainer's model, if it is time."""
        if len(trainer.history) % self.every == 0:
            self.sampler.update(self._scores(trainer))

    @torch.no_grad()
    def _scores(self, trainer: Any) -> Tensor:
        parts, send = [], require("accelerate.utils", extra="train").send_to_device
        with in_mode(trainer.model, training=False):
            for inputs in self._inputs():
                args, named = send(inputs, trainer.device)
                N, D = trainer.model(*args, **named)
                score = denominator_score(N, D, self.score, self.scale)
                finite = torch.isfinite(N) & torch.isfinite(D)
                parts.append(_smallest(torch.where(finite, score, torch.nan)))
        scores = torch.cat(parts)
        if trainer.accelerator.num_processes > 1:
            scores = require("accelerate.utils", extra="train").broadcast(scores)
        return scores

    def _inputs(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Yield what the model is called with, batch by batch."""
        if isinstance(self.data, Tensor):
            for x in self.data.split(self.batch_size):
                yield (x,), {}
            return
        # a generator of its own: torch's global one must not move
        loader = DataLoader(self.data, self.batch_size, generator=torch.Generator())
        for batch in map(as_batch, loader):
            yield batch.args, batch.named


def score_of_targets(y: Tensor, scale: float = 1.0) -> Tensor:
    r"""Score rows by their targets, for `AdaptiveSampler.update` before there is a model.

    Formula: 1 / √(1 + \|y / s\|²), the smallest over the outputs; 0 at ±inf and nan.

    Args:
        y: Targets, `(rows, *outputs)`, real or complex.
        scale: s, above 0, in the units of y.

    Returns:
        Angle scores in [0, 1], `(rows,)`, in at least float32.

    Raises:
        ShapeError: There is no row, or no output.
        RangeError: `scale` is not a finite number above 0.

    Examples:
        >>> score_of_targets(torch.tensor([[0.0], [1.0], [float("-inf")], [float("nan")]]))
        tensor([1.0000, 0.7071, 0.0000, 0.0000])
    """
    if y.ndim == 0 or y.numel() == 0:
        raise ShapeError(f"y must have rows and outputs, got shape {tuple(y.shape)}")
    return _smallest(denominator_score(*lift_targets(y, scale=scale), "angle"))


def _smallest(score: Tensor) -> Tensor:
    return score.reshape(len(score), -1).amin(1)


def _stretch(circle: Tensor, start: int, length: int) -> Tensor:
    return circle[(start + torch.arange(length)) % max(1, len(circle))]
