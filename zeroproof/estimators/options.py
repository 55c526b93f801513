"""How a table is fitted."""

from typing import NamedTuple

from zeroproof._checks import in_range, one_of, ordered, positive, whole
from zeroproof.defaults import TAU_INFER, TAU_TRAIN
from zeroproof.errors import RangeError

__all__ = ["FitOptions", "check_options"]


class FitOptions(NamedTuple):
    """How a table is fitted; the defaults suit a few hundred to some ten thousand rows."""

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "silu"
    shared_denominator: bool = True
    steps: int = 5000
    epochs: int | None = None  # passes over the data, instead of steps
    batch_size: int = 512
    learning_rate: float = 2e-2
    held_out: float = 0.2
    tau_infer: float | None = None
    tau_train: float | None = None
    seed: int = 0
    progress: bool = True


def check_options(options: FitOptions) -> None:
    """Check all options but the network's own.

    Raises:
        RangeError: One is outside what it may be.
    """
    whole(options.batch_size, "batch_size", low=1)
    whole(options.steps, "steps", low=1)
    if options.epochs is not None:
        whole(options.epochs, "epochs", low=1)
    if whole(options.seed, "seed") >= 2**63:
        raise RangeError(f"seed must be below 2**63, got {options.seed!r}")
    positive(options.learning_rate, "learning_rate")
    one_of(options.shared_denominator, (True, False), "shared_denominator")
    if not 0 < options.held_out < 1:
        raise RangeError(f"held_out must lie in (0, 1), got {options.held_out!r}")
    for value, parameter in ((options.tau_infer, TAU_INFER), (options.tau_train, TAU_TRAIN)):
        if value is not None:
            in_range(value, parameter._replace(high=1.0))  # as the angle score does
    if options.tau_infer is not None and options.tau_train is not None:
        ordered(options.tau_infer, options.tau_train, "tau_infer", "tau_train")
