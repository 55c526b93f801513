"""What the candidates of a fit minimise."""

from torch import Tensor

from zeroproof.losses import implicit_loss

__all__ = ["ChordalLoss", "squared_loss"]


class ChordalLoss:
    r"""Chordal implicit loss whose rows may be weighted as an absolute error would weight them.

    Formula: Σ w·E / ((N² + D²)(Y_n² + Y_d²)) / Σ w with w = (1 + y'²)^(2p). p = 1 turns it, near a
    good fit, into the squared error of y', the best choice for noise of one size; p = 0 is the
    chordal loss itself. Above 0, all targets must be finite.
    """

    def __init__(self, power: float) -> None:
        self.power = power

    def __call__(self, outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        """Return the scalar loss of a batch."""
        weight = None
        if self.power:  # Y_d is 1
            weight = (1 + targets[0].square()).pow(2 * self.power)
        return implicit_loss(*outputs, *targets, normalizer="chordal", weight=weight)


def squared_loss(outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean of (N - D·y')²: for D = 1 the squared error of a plain network."""
    (N, D), (Y_n, _) = outputs, targets
    return (N - D * Y_n).square().mean()
