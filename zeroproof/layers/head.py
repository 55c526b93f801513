"""ProjectiveHead: numerators and denominators, linear in the features of a trunk."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroproof._checks import whole, widen
from zeroproof.autodiff.compiled import is_autocast, is_scripting
from zeroproof.autodiff.policies import PolicyModule
from zeroproof.errors import ShapeError
from zeroproof.projective.decoding import scripted_widen
from zeroproof.projective.tuples import Pair, gated, tangential

__all__ = ["ProjectiveHead"]

_SPREAD = 0.1  # of the denominators around 1 when training starts


class ProjectiveHead(PolicyModule):
    r"""Linear numerators and denominators on the features h of a trunk.

    Formula: ⟨N, D⟩ = ⟨W_n h + b_n, W_d h + b_d⟩. The denominators start near 1, so that training
    starts away from poles. N and D are computed in at least float32, inside autocast too. Without a
    registered policy the losses apply theirs; with one, it also acts on dL/dN and dL/dD here.

    In training mode the gradient by z = (N, D) loses its part along z, Re⟨g, z⟩ z / \|z\|², so that
    the direction is learned and not the size, which carries no value: z is a row with all outputs
    that share D, or each output with its own. It comes after the policy, which it would undo
    otherwise; PASSTHROUGH is raw. The gradient is whole for a loss free of the size of tuples (its
    part along z is 0), in evaluation mode, in forward mode, and where a derivative is a value: with
    `create_graph=True`, and under `torch.func` but for one gradient by the parameters.

    Args:
        in_features: Width of h.
        out_features: k, the number of outputs.
        shared_denominator: One denominator for all outputs (their poles are common), or one each.
        dtype: Of the parameters, real or complex; torch's default if it is left out.
        radial: Keep the part along (N, D): the gradient is that of the loss, as it is. Also an
            attribute, `model.head.radial = True`.

    Shapes: h is `(*batch, in_features)`; N is `(*batch, k)`, D is `(*batch, 1)` if shared, else
    `(*batch, k)`.

    Raises:
        RangeError: A width is not a whole number of at least 1.
        ShapeError: In forward, h has another width.

    Examples:
        >>> head = ProjectiveHead(8, 3)
        >>> N, D = head(torch.zeros(5, 8))
        >>> N.shape, D.shape, D[0].item()
        (torch.Size([5, 3]), torch.Size([5, 1]), 1.0)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        shared_denominator: bool = True,
        dtype: torch.dtype | None = None,
        radial: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = whole(in_features, "in_features", low=1)
        self.out_features = whole(out_features, "out_features", low=1)
        self.shared_denominator = shared_denominator
        self.radial = radial
        denominators = 1 if shared_denominator else out_features
        self.numerator = nn.Linear(in_features, out_features, dtype=dtype)
        self.denominator = nn.Linear(in_features, denominators, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters; the denominators are near 1."""
        self.numerator.reset_parameters()
        spread = _SPREAD / math.sqrt(self.in_features)
        nn.init.uniform_(self.denominator.weight, -spread, spread)
        nn.init.ones_(self.denominator.bias)

    def forward(self, h: Tensor) -> Pair:
        """Return ⟨N, D⟩ for features h, `(*batch, in_features)`."""
        if is_scripting():  # its compiler takes neither contexts nor gates
            N = scripted_linear(h, self.numerator.weight, self.numerator.bias)
            return Pair(N, scripted_linear(h, self.denominator.weight, self.denominator.bias))
        if h.ndim == 0 or h.shape[-1] != self.in_features:
            raise ShapeError(
                f"features must have the shape (*batch, {self.in_features}), got {tuple(h.shape)}"
            )
        N, D = _linear(h, self.numerator), _linear(h, self.denominator)
        if self.training and not self.radial:
            N, D = tangential(N, D, self.policy_code, self.denominator.weight)
        return gated(N, D, self.policy_code)

    def extra_repr(self) -> str:
        """Name what the sub-layers do not show."""
        return f"shared_denominator={self.shared_denominator}, radial={self.radial}"


def scripted_linear(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return W h + b in at least float32; autocast, which a script cannot leave, must be off."""
    h, weight, bias = scripted_widen(h), scripted_widen(weight), scripted_widen(bias)
    dtype = torch.promote_types(h.dtype, weight.dtype)
    return functional.linear(h.to(dtype), weight.to(dtype), bias.to(dtype))


def _linear(h: Tensor, layer: nn.Linear) -> Tensor:
    operands = (widen(h), widen(layer.weight), widen(layer.bias))
    if operands[0].dtype != operands[1].dtype:  # a real trunk under a complex head, or float64
        dtype = torch.promote_types(operands[0].dtype, operands[1].dtype)
        operands = tuple(x.to(dtype) for x in operands)
    kind = h.device.type
    if not is_autocast(kind):  # exported graphs shall hold no context of ours
        return functional.linear(*operands)
    with torch.autocast(kind, enabled=False):
        return functional.linear(*operands)
