"""Log lines: JSON lines and a CSV table in a folder, and whatever trackers Accelerate was given."""

import csv
import io
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zeroproof._extras import require
from zeroproof._files import text_in_place
from zeroproof.errors import TrainingError
from zeroproof.training.config import TrainingConfig
from zeroproof.training.history import strict_row
from zeroproof.training.thresholds import ThresholdLog

__all__ = ["Log", "progress_bar", "shown"]

Row = Mapping[str, float]


class Log:
    """Writes on the main process alone.

    log_dir/
      steps.jsonl    one line every `log_every` steps: the means since the line before
      epochs.jsonl   one line per epoch, as in the history
      history.csv    the history, at the end
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
                    path.rename(_free(path))
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
        spread = drawn.edges[0] < drawn.edges[-1]
        self._line("epochs", {"epoch": epoch, "step": step, **row}, bins if spread else {})
        self._track(row, step, "epoch")

    def end(self, history: Sequence[Row]) -> None:
        """Write the table, and close what was opened here."""
        if self._folder is not None and self._writes:
            with _warned():
                text_in_place(self._folder / "history.csv", _table(history))
        if self._started:
            for tracker in self._accelerator.trackers:
                tracker.finish()
            self._accelerator.trackers, self._started = [], False

    def _line(
        self, name: str, row: Row, lists: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        if self._folder is None or not self._writes:
            return
        text = json.dumps({**strict_row(row), **(lists or {})}, allow_nan=False)
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


def _free(path: Path) -> Path:
    """Return a name beside `path` that is not taken: steps-1.jsonl, steps-2.jsonl, ..."""
    numbered = (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(1))
    return next(each for each in numbered if not each.exists())


def progress_bar(config: TrainingConfig, accelerator: Any, epoch: int) -> Any:
    """Return a bar over the epochs from this one on, which shows itself on a terminal."""
    return require("tqdm", extra="train").tqdm(
        total=config.max_epochs,
        initial=epoch,
        desc="training",
        unit="epoch",
        disable=None if config.progress and accelerator.is_main_process else True,
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


def _table(history: Sequence[Row]) -> str:
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["epoch", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": i, **row} for i, row in enumerate(history))
    return text.getvalue()
