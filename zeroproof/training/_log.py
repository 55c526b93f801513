"""Log lines: JSON lines and a CSV table in a folder, and whatever trackers Accelerate was given."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroproof._files import text_in_place
from zeroproof.training.config import TrainingConfig
from zeroproof.training.thresholds import ThresholdLog

__all__ = ["Log", "shown"]

Row = Mapping[str, float]


class Log:
    """Writes on the main process alone.

    log_dir/
      steps.jsonl    one line every `log_every` steps: the means since the line before
      epochs.jsonl   one line per epoch, as in the history
      history.csv    the history, at the end
    """

    def __init__(self, config: TrainingConfig, accelerator: Any) -> None:
        self._folder = None if config.log_dir is None else Path(config.log_dir)
        self._accelerator = accelerator
        self._writes = accelerator.is_main_process
        self._started = False

    def begin(self, step: int, epoch: int) -> None:
        """Open; of a run that goes on, drop the lines that will be written again."""
        if getattr(self._accelerator, "log_with", None) and not self._accelerator.trackers:
            self._accelerator.init_trackers("zeroproof")
            self._started = True
        if self._folder is None or not self._writes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, key, end in (("steps", "step", step), ("epochs", "epoch", epoch - 1)):
            path = self._folder / f"{name}.jsonl"
            text_in_place(path, "".join(_up_to(path, key, end)))

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
        strict: dict[str, Any] = {
            key: value if math.isfinite(value) else None for key, value in row.items()
        }
        strict |= lists or {}
        with (self._folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(strict, allow_nan=False) + "\n")

    def _track(self, row: Row, step: int, kind: str) -> None:
        if getattr(self._accelerator, "trackers", None):
            self._accelerator.log({f"{kind}/{name}": x for name, x in row.items()}, step=step)


def shown(row: Row) -> dict[str, str]:
    """Return what a progress bar shows of a row: loss, coverage and gap."""
    names = (f"{part}_{name}" for part in ("train", "val") for name in ("loss", "coverage", "gap"))
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
