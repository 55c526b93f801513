"""What a run reports: outcomes of batches, their sums, one row of numbers per epoch, log lines.

A step of a small model takes some hundred microseconds; decoding every batch on its own would cost
as much again, and reading a number of an accelerator makes the host wait for it. So sums wait on
the device.
"""

import csv
import io
import itertools
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zeroproof._extras import require
from zeroproof._files import text_in_place, write_json
from zeroproof.errors import TrainingError
from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.losses.gradients import finite_rows
from zeroproof.plots import plot_history
from zeroproof.training.config import TrainingConfig
from zeroproof.training.thresholds import ThresholdLog

__all__ = ["History", "Log", "Outcome", "Tally", "Totals", "progress_bar", "shown"]

_ENTRIES = 2**14  # small batches are decoded together, up to this many answers
_READS = 2**12  # scalars that may wait on the device
_LATEST = 2**10  # entries that stand for an epoch, where parts of the loss are counted
_COUNTED = ("gaps", "finite", "lost", "singular", "caught", "masked_rows")
_SHOWN = [f"{part}_{name}" for name in ("loss", "coverage", "gap") for part in ("train", "val")]
Row = Mapping[str, float]


class Outcome(NamedTuple):
    """What came of one batch: tuples in at least float32, targets, the loss with its graph."""

    N: Tensor
    D: Tensor
    y: Tensor
    weight: Tensor | None
    loss: Tensor


class Totals(NamedTuple):
    """Sums, of this process or of all."""

    loss: float = 0.0  # loss times rows, finite losses alone
    loss_rows: float = 0.0
    answers: float = 0.0
    gaps: float = 0.0
    finite: float = 0.0  # answers whose targets are
    lost: float = 0.0  # ⊥ among them
    singular: float = 0.0  # answers whose targets are ±inf or ⊥
    caught: float = 0.0  # ⊥ among them
    masked_rows: float = 0.0  # left out: N or D is not finite, or the row was taken out
    skipped: float = 0.0  # steps
    norms: float = 0.0  # of the gradients before clipping, finite ones alone
    norm_steps: float = 0.0

    def means(self, part: str) -> dict[str, float]:
        """Return loss, coverage and gap under the keys of `History`; what has no rows is absent."""
        row: dict[str, float] = {}
        if self.loss_rows > 0:
            row[f"{part}_loss"] = self.loss / self.loss_rows
        if self.answers > 0:
            row[f"{part}_gap"] = self.gaps / self.answers
        if self.finite > 0:
            row[f"{part}_coverage"] = 1 - self.lost / self.finite
            row[f"{part}_lost"] = self.lost / self.finite
        if self.singular > 0:
            row[f"{part}_caught"] = self.caught / self.singular
        if self.norm_steps > 0:
            row["grad_norm"] = self.norms / self.norm_steps
        return row

    def since(self, before: "Totals") -> "Totals":
        """Return what came after `before`."""
        return Totals._make(now - then for now, then in zip(self, before, strict=True))


_OWN = Totals._fields.index("skipped")  # sums before it differ from process to process


class Tally:
    """Collects the outcomes of one epoch; `latest` are N, D, y, weight of its last entries."""

    def __init__(self, config: InferenceConfig) -> None:
        self._config = config
        self._sums = dict.fromkeys(Totals._fields, 0.0)
        self._losses: list[Tensor] = []
        self._rows: list[float] = []
        self._steps: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._waiting: list[Any] = []  # (N, D, y, weight) of batches of one kind
        self.latest: tuple[Tensor, ...] = ()
        self._kind: tuple[Any, ...] = ()
        self._room = _ENTRIES

    def add(self, outcome: Outcome, own: int, amount: float) -> None:
        """Count one batch, of which the first `own` rows count; its loss counts by its amount."""
        z = (outcome.N.detach(), outcome.D.detach(), outcome.y)
        z = z if outcome.weight is None else (*z, outcome.weight)
        if own < len(outcome.N):
            z = tuple(x[:own] for x in z)
        self._losses.append(outcome.loss.detach())
        self._rows.append(amount)
        if len(self._losses) >= _READS:
            self._read()
        kind = tuple((x.shape[1:], x.dtype) for x in z)
        if kind != self._kind:
            self._decode()
        self._kind = kind
        self._room -= z[0].numel()
        # copied, because a compiled model may write its next output into the same memory
        alike = len({(x.shape, x.dtype) for x in z}) == 1
        self._waiting.append(torch.stack(z) if alike else tuple(x.clone() for x in z))
        if self._room <= 0:
            self._decode()

    def add_step(self, skipped: bool | Tensor, norm: float | Tensor | None) -> None:
        """Count one optimizer step, with the norm of its gradients before clipping if there is one.

        Tensors wait on their device.
        """
        norm = math.nan if norm is None else norm
        if isinstance(skipped, Tensor):
            skip = skipped.float()
            # filled on the device: it would wait for a number of the host
            size = norm.float() if isinstance(norm, Tensor) else torch.full_like(skip, norm)
            self._steps.append(torch.stack([skip, size]))
        else:
            self._count_step(skipped, float(norm))

    def here(self) -> Totals:
        """Return the sums of this process so far; the host waits for the device."""
        self._decode()
        self._read()
        return Totals(**self._sums)

    def totals(self, accelerator: Any) -> Totals:
        """Return the sums so far, over all processes; steps are the same on each."""
        mine = self.here()
        if accelerator.num_processes == 1:
            return mine
        sums = torch.tensor(mine[:_OWN], dtype=torch.float64, device=accelerator.device)
        return Totals._make([*accelerator.reduce(sums, reduction="sum").tolist(), *mine[_OWN:]])

    def restore(self, sums: Totals, latest: tuple[Tensor, ...]) -> None:
        """Go on from the sums of an epoch that was interrupted."""
        self._sums, self.latest = sums._asdict(), latest

    @torch.no_grad()
    def _decode(self) -> None:
        if not self._waiting:
            return
        if isinstance(self._waiting[0], Tensor):
            z = torch.cat(self._waiting, 1).unbind()
        else:
            z = [torch.cat(parts) for parts in zip(*self._waiting, strict=True)]
        N, D, y, *weight = z
        _, bottom, gap = strict_inference(N, D, self._config)
        masked = ~finite_rows(N, D)  # lifted targets are always finite
        there = weight[0].expand_as(y) > 0 if weight else torch.ones_like(y, dtype=torch.bool)
        finite = torch.isfinite(y)
        singular, finite = there & ~finite, there & finite
        counted = (gap, finite, finite & bottom, singular, singular & bottom, masked)
        self._counts.append(torch.stack([mask.sum() for mask in counted]))
        most = max(1, _LATEST * len(N) // max(N.numel(), 1))
        self.latest = tuple(x[-most:] for x in z)
        self._sums["answers"] += N.numel()
        self._waiting.clear()
        self._room = _ENTRIES

    def _read(self) -> None:
        sums = self._sums
        if self._losses:
            for loss, rows in zip(torch.stack(self._losses).tolist(), self._rows, strict=True):
                if math.isfinite(loss):
                    sums["loss"] += loss * rows
                    sums["loss_rows"] += rows
        if self._counts:
            found = torch.stack(self._counts).sum(0).tolist()
            for name, count in zip(_COUNTED, found, strict=True):
                sums[name] += count
        for step in torch.stack(self._steps).tolist() if self._steps else ():
            self._count_step(*step)
        self._losses, self._rows, self._counts, self._steps = [], [], [], []

    def _count_step(self, skipped: float, norm: float) -> None:
        self._sums["skipped"] += skipped
        if math.isfinite(norm):
            self._sums["norms"] += norm
            self._sums["norm_steps"] += 1


class History(list[dict[str, float]]):
    """A list of one dict per epoch.

    | key | meaning |
    |---|---|
    | `train_loss`, `val_loss` | mean loss over the rows of the epoch |
    | `train_coverage`, `val_coverage` | share of entries with finite targets answered finite |
    | `train_lost`, `val_lost` | those answered ⊥ at τ_infer, 1 - coverage |
    | `train_caught`, `val_caught` | share of entries with targets ±inf or nan answered ⊥ |
    | `train_fit`, `val_fit`, ... | each part of a loss with `components`, over the latest answers |
    | `train_gap`, `val_gap` | share of answers in the gap, τ_infer ≤ score < τ_train_max |
    | `tau_train_mean` | mean of the τ_train drawn |
    | `tau_train_std`, `tau_train_min`, `tau_train_max` | their spread, where they differ |
    | `grad_norm` | mean 2-norm of the gradients before clipping, with `max_grad_norm` |
    | `lambda_rejection`, `target_coverage` | what was in force, with a `CoverageController` |
    | `skipped_steps` | steps left out: over no sound row, or loss or gradient not finite |
    | `masked_rows` | training rows left out: an input, N, D or the gradient was not finite |
    | `lr` | learning rate of the first parameter group |
    | `lr_1`, `lr_2`, ... | those of the other groups, where they differ |
    | `time_epoch_s` | seconds for the epoch, validation included |
    | `time_rows_per_s` | training rows per second of training |

    A value that does not exist is absent, never nan; keys that depend on the clock begin with
    `time_`. An entry is a row by an output. Parts of the loss are without their λ, at
    `tau_train_max` and over up to 1024 entries, the last of an epoch. Training values are gathered
    while the weights move, validation values after that.

    Examples:
        >>> history = History([{"train_loss": 2.0}, {"train_loss": 1.0}])
        >>> history[-1]["train_loss"]
        1.0
    """

    def __repr__(self) -> str:
        """Return a table of a few epochs, counted from 0: the first, the best, the last."""
        if not self:
            return "History of no epoch"
        judged = next(
            (key for key in ("val_loss", "train_loss") if any(key in x for x in self)), ""
        )
        best = min(range(len(self)), key=lambda i: self[i].get(judged, math.inf))
        names = [name for name in _SHOWN if any(name in row for row in self)]
        lines = [["epoch", *names]]
        for i in sorted({0, best, len(self) - 1}):
            cells = (f"{self[i][name]:.4g}" if name in self[i] else "" for name in names)
            lines.append([f"{'*' * (i == best and judged != '')}{i}", *cells])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ("  ".join(map(str.rjust, line, widths)).rstrip() for line in lines)
        legend = f"; * lowest {judged}" if judged else ""
        count = f"{len(self)} epoch" + "s" * (len(self) != 1)
        return "\n".join([f"History of {count}{legend}", *table])

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row per epoch.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        frame = require("pandas", extra="data").DataFrame(list(self))
        frame.index.name = "epoch"
        return frame

    def plot(self, ax: Any = None) -> Any:
        """Draw loss, coverage and gap over the epochs.

        Args:
            ax: A `matplotlib.axes.Axes` to draw the loss alone into.

        Returns:
            A `matplotlib.figure.Figure`, which shows itself in a notebook, or `ax`.

        Raises:
            MissingExtraError: Matplotlib is not installed.
            DataError: There is no epoch to draw.
        """
        return plot_history(self, ax)

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as strict JSON, whole or not at all; what is not finite becomes null.

        Args:
            path: The file to write; an existing one is replaced.
        """
        write_json(Path(path), [_strict(row) for row in self])


class Log:
    """Log lines for a folder, from the main process alone, and for trackers of Accelerate.

    log_dir/
      steps.jsonl    one line every `log_every` steps: the means since the line before
      epochs.jsonl   one line per epoch, as in the history
      history.csv    the history, at the end; files of another run become steps-1.jsonl, ...
    """

    def __init__(self, config: TrainingConfig, accelerator: Any) -> None:
        self._folder = None if config.log_dir is None else Path(config.log_dir).expanduser()
        self._accelerator = accelerator
        self._writes = accelerator.is_main_process
        self._started = False

    def begin(self, step: int, epoch: int) -> None:
        """Open; of a run that goes on, drop the lines that will be written again.

        Raises:
            TrainingError: The folder cannot be written.
        """
        if getattr(self._accelerator, "log_with", None) and not self._accelerator.trackers:
            self._accelerator.init_trackers("zeroproof")
            self._started = True
        if self._folder is None or not self._writes:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, key, end in (("steps", "step", step), ("epochs", "epoch", epoch - 1)):
                path = self._folder / f"{name}.jsonl"
                if step == 0 and path.exists():  # of another run
                    numbered = (path.with_stem(f"{name}-{i}") for i in itertools.count(1))
                    path.rename(next(each for each in numbered if not each.exists()))
                text_in_place(path, "".join(_up_to(path, key, end)))
        except OSError as error:
            raise TrainingError(
                f"log_dir must be a folder to write to, got {self._folder}: {error.strerror}"
            ) from error

    def steps(self, step: int, row: Row) -> None:
        """Write the means over the latest steps."""
        self._line("steps", {"step": step, **row})
        self._track(row, step, "step")

    def epoch(self, epoch: int, step: int, row: Row, drawn: ThresholdLog) -> None:
        """Write a row of the history, with the distribution of the thresholds if they differ."""
        bins = {"tau_train_edges": drawn.edges, "tau_train_counts": drawn.counts}
        spread = bins if drawn.edges[0] < drawn.edges[-1] else {}
        self._line("epochs", {"epoch": epoch, "step": step, **row}, **spread)
        self._track(row, step, "epoch")

    def end(self, history: Sequence[Row]) -> None:
        """Write the table, and close what was opened here."""
        if self._folder is not None and self._writes:
            names = list(dict.fromkeys(name for row in history for name in row))
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, ["epoch", *names], lineterminator="\n")
            writer.writeheader()
            writer.writerows({"epoch": i, **row} for i, row in enumerate(history))
            with _warned():
                text_in_place(self._folder / "history.csv", text.getvalue())
        if self._started:
            for tracker in self._accelerator.trackers:
                tracker.finish()
            self._accelerator.trackers, self._started = [], False

    def _line(self, name: str, row: Row, **lists: Sequence[float]) -> None:
        if self._folder is None or not self._writes:
            return
        text = json.dumps({**_strict(row), **lists}, allow_nan=False)
        with _warned(), (self._folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def _track(self, row: Row, step: int, kind: str) -> None:
        if getattr(self._accelerator, "trackers", None):
            self._accelerator.log({f"{kind}/{name}": x for name, x in row.items()}, step=step)


@contextmanager
def _warned() -> Iterator[None]:
    """Let training go on where a line cannot be written."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"a log line could not be written: {error}", stacklevel=4)


def progress_bar(config: TrainingConfig, accelerator: Any, epoch: int) -> Any:
    """Return a bar over the epochs from this one on, which shows itself, but not in a file."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    notebook = "IPKernelApp" in getattr(shell, "config", ())  # whose stderr is no terminal
    wanted = config.progress and accelerator.is_main_process
    return require("tqdm.auto", extra="train").tqdm(
        total=config.max_epochs,
        initial=epoch,
        desc="training",
        unit="epoch",
        disable=not wanted or (False if notebook else None),
    )


def shown(row: Row) -> dict[str, str]:
    """Return what a progress bar shows of a row."""
    kinds = ("loss", "coverage", "gap", "caught", "lost")
    names = (f"{part}_{kind}" for part in ("train", "val") for kind in kinds)
    return {name: f"{row[name]:.4g}" for name in names if name in row}


def _up_to(path: Path, key: str, end: int) -> list[str]:
    """Return the lines up to a step or epoch; one that was cut short is no line."""
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else ():
        try:
            if line.endswith("\n") and json.loads(line)[key] <= end:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return kept


def _strict(row: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers that JSON knows; what is not finite becomes null.

    Raises:
        TrainingError: A callback put something else into the row.
    """
    strict: dict[str, float | None] = {}
    for name, value in row.items():
        try:
            number = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError) as error:
            came = type(value).__name__
            raise TrainingError(f"row[{name!r}] must be a number, got {came}") from error
        strict[name] = number if math.isfinite(number) else None
    return strict
