"""ProjectiveMLP: standardised inputs, a plain trunk, and a projective head."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof._checks import one_of, whole
from zeroproof.autodiff.compiled import has_values, is_scripting
from zeroproof.errors import RangeError, ShapeError
from zeroproof.layers.head import ProjectiveHead
from zeroproof.projective.tuples import Pair

__all__ = ["ACTIVATIONS", "ProjectiveMLP"]

ACTIVATIONS = {"tanh": nn.Tanh, "silu": nn.SiLU}


class ProjectiveMLP(nn.Module):
    """A multilayer perceptron that returns tuples: x → ⟨N, D⟩.

    The trunk sees (x - x_mean) / x_std. Both are buffers: they travel in the `state_dict` with the
    weights and move with the module.

    Args:
        in_features: Number of input columns.
        out_features: k, the number of outputs.
        hidden: Widths of the hidden layers; empty for a head on the standardised inputs.
        activation: `"tanh"` or `"silu"`.
        shared_denominator: One denominator for all outputs, or one each.
        x_mean: One number for each column, 0 if left out, in the units of x.
        x_std: One number above 0 for each column, 1 if left out, in the units of x.

    Shapes: x is `(*batch, in_features)`; N is `(*batch, k)`, D is `(*batch, 1)` if shared, else
    `(*batch, k)`.

    Raises:
        RangeError: A width, the activation, or a number in `x_mean` or `x_std` is not legal.
        ShapeError: `x_mean` or `x_std` has not one number for each column, or x in forward not as
            many columns.

    Examples:
        >>> model = ProjectiveMLP(2, 1, hidden=(16,))
        >>> N, D = model(torch.randn(5, 2))
        >>> rebuilt = ProjectiveMLP.from_spec(model.spec())
        >>> rebuilt.load_state_dict(model.state_dict())
        <All keys matched successfully>
    """

    x_mean: Tensor
    x_std: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        shared_denominator: bool = True,
        x_mean: Sequence[float] | Tensor | None = None,
        x_std: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.in_features = whole(in_features, "in_features", low=1)
        self.hidden = tuple(whole(width, "hidden", low=1) for width in hidden)
        self.activation = one_of(activation, tuple(ACTIVATIONS), "activation")
        self.register_buffer("x_mean", _column_numbers(x_mean, 0.0, in_features, "x_mean"))
        self.register_buffer("x_std", _column_numbers(x_std, 1.0, in_features, "x_std"))
        if has_values(self.x_std) and not bool((self.x_std > 0).all()):
            raise RangeError(f"x_std must be above 0, got {self.x_std.tolist()}")
        steps: list[nn.Module] = []
        width = in_features
        for next_width in self.hidden:
            steps += [nn.Linear(width, next_width), ACTIVATIONS[activation]()]
            width = next_width
        self.trunk = nn.Sequential(*steps)
        self.head = ProjectiveHead(width, out_features, shared_denominator=shared_denominator)

    def forward(self, x: Tensor) -> Pair:
        """Return ⟨N, D⟩ for inputs x, `(*batch, in_features)`."""
        if not is_scripting():  # its compiler takes no such error
            self._check(x)
        # buffers in float64 take off a large mean before digits are lost
        h = ((x - self.x_mean) / self.x_std).to(self.head.numerator.weight.dtype)
        return self.head(self.trunk(h))

    def _check(self, x: Tensor) -> None:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"inputs must have the shape (*batch, {self.in_features}), got {tuple(x.shape)}"
            )

    def spec(self) -> dict[str, Any]:
        """Return the constructor's arguments, fit for JSON; `state_dict()` has the numbers."""
        return {
            "in_features": self.in_features,
            "out_features": self.head.out_features,
            "hidden": list(self.hidden),
            "activation": self.activation,
            "shared_denominator": self.head.shared_denominator,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "ProjectiveMLP":
        """Build a model of the same architecture from `spec()`; load the `state_dict` afterwards.

        Raises:
            RangeError: An entry is missing, unknown or not legal.
        """
        try:
            return cls(**spec)
        except TypeError as error:
            raise RangeError(
                f"spec must hold the arguments of {cls.__name__}, got {dict(spec)!r}"
            ) from error


def _column_numbers(
    numbers: Sequence[float] | Tensor | None, default: float, count: int, name: str
) -> Tensor:
    if numbers is None:
        return torch.full((count,), default)
    column = torch.as_tensor(numbers, dtype=torch.get_default_dtype()).detach().clone()
    if column.shape != (count,):
        raise ShapeError(
            f"{name} must hold one number for each of {count} columns, "
            f"got the shape {tuple(column.shape)}"
        )
    if has_values(column) and not bool(torch.isfinite(column).all()):
        raise RangeError(f"{name} must hold finite numbers, got {column.tolist()}")
    return column
