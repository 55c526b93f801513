"""What makes a run of the trainer: the sections of a configuration, and their types."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from zeroproof._checks import whole
from zeroproof.errors import RangeError
from zeroproof.training import SCMTrainingLoss, TrainingConfig

__all__ = ["SECTIONS", "DataSection", "add_sections", "section_names"]

SECTIONS = ("model", "optimizer", "scheduler", "loss", "trainer")

_MODEL = {"class_path": "zeroproof.layers.ProjectiveMLP"}
_OPTIMIZER = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}
_COLUMNS = ("in_features", "out_features")  # the data say them


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """Which rows a run of the trainer sees.

    Args:
        train: CSV or Parquet file, or a folder of them: rows to train on.
        validation: The same: rows to validate on; none by default.
        held_out: Share of the rows of train to validate on instead, below 1; 0 for none.
        batch_size: Rows per step.
        stream: Read batches from disk as they are needed, for more rows than memory holds.
        buffer_rows: With stream: rows that are shuffled together.
        num_workers: With stream: processes that read.

    Raises:
        RangeError: One is outside what it may be, or two exclude each other.
    """

    train: str = ""
    validation: str = ""
    held_out: float = 0.0
    batch_size: int = 512
    stream: bool = False
    buffer_rows: int = 65536
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "buffer_rows"):
            whole(getattr(self, name), f"data.{name}", low=1)
        whole(self.num_workers, "data.num_workers")
        if not 0 <= self.held_out < 1:
            raise RangeError(f"data.held_out must lie in [0, 1), got {self.held_out!r}")
        if self.held_out and self.validation:
            raise RangeError(
                "data.held_out must be 0 where data.validation names rows, "
                f"got {self.held_out!r} and {self.validation!r}"
            )
        if self.held_out and self.stream:
            raise RangeError(
                "data.held_out must be 0 with data.stream, which never sees all rows: put rows to "
                f"validate on into files of their own, data.validation; got {self.held_out!r}"
            )


def add_sections(parser: Any) -> None:
    """Add the options of all sections to a parser of jsonargparse."""
    from jsonargparse.typing import register_type

    register_type(torch.dtype, _dtype_name, _dtype, fail_already_registered=False)
    parser.add_class_arguments(DataSection, "data")
    parser.add_subclass_arguments(
        nn.Module,
        "model",
        skip=set(_COLUMNS),
        required=False,
        instantiate=False,
        help="ProjectiveMLP's hidden, activation, shared_denominator; or a class_path, init_args.",
    )
    parser.add_argument(
        "--optimizer", type=Callable[[Iterable], Optimizer], help="Class of torch.optim; Adam."
    )
    parser.add_argument(
        "--scheduler",
        type=Callable[[Optimizer], LRScheduler | ReduceLROnPlateau] | None,
        help="Class of torch.optim.lr_scheduler; none.",
    )
    parser.add_class_arguments(SCMTrainingLoss, "loss")
    parser.add_class_arguments(TrainingConfig, "trainer")
    parser.set_defaults({"model": _MODEL, "optimizer": _OPTIMIZER})


def section_names() -> dict[str, tuple[str, ...]]:
    """Return the options of each section; none where its class says them."""
    known = {"data": DataSection, "loss": SCMTrainingLoss, "trainer": TrainingConfig}
    names = {name: tuple(field.name for field in fields(known[name])) for name in known}
    return {name: names.get(name, ()) for name in ("data", *SECTIONS)}


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: Any) -> torch.dtype:
    dtype = getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no type of torch is called {name}")  # noqa: TRY004 - of its value
    return dtype
