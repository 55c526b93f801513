"""Rational functions as layers: an activation P(x) / Q(x), and x → ⟨P(x), Q(x)⟩."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._checks import one_of, whole
from zeroproof.autodiff.gate import gating
from zeroproof.autodiff.policies import PolicyModule
from zeroproof.autodiff.torch_internals import is_forward_mode, is_tracing
from zeroproof.errors import RangeError, ShapeError
from zeroproof.layers.basis import (
    BASES,
    checked_domain,
    identity_coefficients,
    in_basis,
    polynomial,
    polynomial_reach,
)
from zeroproof.layers.rational_gradients import RationalKind, quotient, tuples
from zeroproof.projective.gauge import widen
from zeroproof.projective.pair import Pair, gated
from zeroproof.scm.division import divide
from zeroproof.scm.value import SCM, trusted

__all__ = ["ProjectiveRational", "Rational"]

_RETURNS = ("scm", "tensor")
_SPREAD = 0.1  # of numerator coefficients when training starts
Coefficients = tuple[Sequence[complex], Sequence[complex]]
DEGREES = (5, 4)


class _Fit(NamedTuple):
    numerator: tuple[float, ...]  # ascending
    denominator: tuple[float, ...]
    error: float  # the largest on [-3, 3]


# Coefficients of rational functions of degrees (5, 4) close to common activations.
#
# Each is a weighted least-squares fit on 2001 Chebyshev points of [-3, 3], reweighted until the
# largest error stopped falling. Q is even with coefficients of at least 0, so that it has no zero
# on the real line. Beyond [-3, 3] they leave the activation: relu and tanh grow like a line there,
# gelu like a square.
ACTIVATIONS = {
    "relu": _Fit(
        (0.013207409, 0.5, 2.7073026, 4.2873925, 2.3937976, 0.42262267),
        (1.0, 0.0, 8.574785, 0.0, 0.84524534),
        1.33e-2,
    ),
    "gelu": _Fit(
        (-0.0012742525, 0.5, 0.40815546, 0.10676088, 0.0085785799, 0.0),
        (1.0, 0.0, 0.21352176, 0.0, 0.0),
        1.28e-3,
    ),
    "tanh": _Fit(
        (0.0, 0.9999924, 0.0, 0.1074911, 0.0, 0.00086149999),
        (1.0, 0.0, 0.44078957, 0.0, 0.014504201),
        1.5e-6,
    ),
}


def _degrees(degrees: Sequence[int]) -> tuple[int, int]:
    if isinstance(degrees, str | int) or len(degrees) != 2:
        raise RangeError(f"degrees must be (p, q), of numerator and denominator, got {degrees!r}")
    p, q = degrees
    return whole(p, "degrees[0]"), whole(q, "degrees[1]")


def _joint_dtype(x: Tensor, coefficients: Tensor) -> torch.dtype:
    """Return what torch promotes to: one coefficient is a scalar, a row of channels is not."""
    if coefficients.ndim > 1 or x.ndim == 0:
        return torch.promote_types(x.dtype, coefficients.dtype)
    return x.dtype.to_complex() if coefficients.is_complex() else x.dtype


class _RationalBase(PolicyModule):
    """Coefficients of P and Q, `(degree + 1, *)`, in one basis."""

    numerator: nn.Parameter
    denominator: nn.Parameter

    def __init__(self, degrees: Sequence[int], basis: str, domain: Sequence[float]) -> None:
        super().__init__()
        self.degrees = _degrees(degrees)
        self.basis = one_of(basis, BASES, "basis")
        self.domain = checked_domain(domain)

    def _polynomials(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (P(x), Q(x), beyond), both finite; they are taken at 0 where `beyond` is true."""
        x = widen(x)
        P, Q = widen(self.numerator), widen(self.denominator)
        options = (self.basis, self.domain)
        beyond = ~(polynomial_reach(x, P, *options) & polynomial_reach(x, Q, *options))
        if beyond.shape != x.shape:  # one x serves several outputs
            beyond = beyond.any(-1, keepdim=True)
        # before the powers: an overflowing power would turn masked gradients into 0 · inf
        x = torch.where(beyond, 0, x)
        return polynomial(x, P, *options), polynomial(x, Q, *options), beyond

    def extra_repr(self) -> str:
        """Show degrees and basis."""
        domain = f", domain={self.domain}" if self.basis == "chebyshev" else ""
        return f"degrees={self.degrees}, basis={self.basis!r}{domain}"


class Rational(_RationalBase):
    """A learnable activation, elementwise and total: x → P(x) / Q(x).

    ⊥ where Q(x) = 0, where x is ⊥ or not finite, and where P, Q or the quotient could overflow. The
    gradient policy acts on dL/dP and dL/dQ. Half precision is computed in float32, and
    stays there unless x and the coefficients are both of the same half precision.

    Args:
        degrees: (p, q), of P and Q.
        returns: `"scm"` for an `SCM` value, `"tensor"` for a tensor that is nan at ⊥ and fits into
            `nn.Sequential`.
        basis: `"monomial"`, or `"chebyshev"` for polynomials scaled to `domain`.
        domain: (low, high) of the Chebyshev polynomials, in the units of x.
        channels: Give each entry of the last dimension its own coefficients; one set if left out.
        init: `"identity"` for P(x) = x and Q(x) = 1; `"relu"`, `"gelu"` or `"tanh"` for a fit of
            degrees (5, 4) on [-3, 3], off by at most 1.4e-2, 1.3e-3 and 1.5e-6; or the coefficients
            (of P, of Q), in ascending order.
        dtype: Of the coefficients, real or complex; torch's default if it is left out.

    Shapes: x is `(*batch,)`, or `(*batch, channels)`, a tensor or an `SCM` value; so is the result.

    Raises:
        RangeError: A degree, basis, domain, `channels` or `returns` is not legal, or the
            degrees do not suit `init`.
        ShapeError: `init` has not p + 1 and q + 1 coefficients, or x in forward not `channels`
            columns.

    Examples:
        >>> layer = Rational((1, 1), returns="tensor", init=([1, 0], [0, 1]))  # 1 / x
        >>> layer(torch.tensor([4.0, 0.0])).detach()
        tensor([0.2500,    nan])
    """

    def __init__(
        self,
        degrees: Sequence[int] = (5, 4),
        returns: str = "scm",
        *,
        basis: str = "monomial",
        domain: Sequence[float] = (-1.0, 1.0),
        channels: int | None = None,
        init: str | Coefficients = "identity",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(degrees, basis, domain)
        self.returns = one_of(returns, _RETURNS, "returns")
        self.channels = None if channels is None else whole(channels, "channels", low=1)
        P, Q = self._initial(init)
        self.numerator = self._parameter(P, dtype)
        self.denominator = self._parameter(Q, dtype)

    def _initial(self, init: str | Coefficients) -> Coefficients:
        p, q = self.degrees
        if isinstance(init, str):
            return self._named(one_of(init, ("identity", *ACTIVATIONS), "init"))
        P, Q = init
        if (len(P), len(Q)) != (p + 1, q + 1):
            raise ShapeError(
                f"init must hold {p + 1} and {q + 1} coefficients, got {len(P)} and {len(Q)}"
            )
        return P, Q

    def _named(self, init: str) -> Coefficients:
        p, q = self.degrees
        if init == "identity":
            if p == 0:
                raise RangeError("degrees[0] must be at least 1 for the identity, got 0")
            return identity_coefficients(p, self.basis, self.domain), [1.0] + [0.0] * q
        if self.degrees != DEGREES:
            raise RangeError(f"degrees must be {DEGREES} for init={init!r}, got {self.degrees}")
        P, Q, _ = ACTIVATIONS[init]
        return in_basis(P, self.basis, self.domain), in_basis(Q, self.basis, self.domain)

    @classmethod
    def from_safe(
        cls, numerator: Sequence[complex], denominator: Sequence[complex], **options: Any
    ) -> "Rational":
        r"""Build a layer from coefficients as rational activation libraries store them.

        Formula: (a_0 + a_1 x + …) / (1 + b_1 x + b_2 x² + …), the 1 is not listed. Their
        denominators carry moduli, 1 + Σ\|b_j xʲ\| or 1 + \|Σ b_j xʲ\|, so as never to be 0; here
        Q is a polynomial. The first is the same where all b_j xʲ ≥ 0 (all x if every odd b_j is 0
        and no even one is negative), the second where Σ b_j xʲ ≥ 0. Elsewhere the values differ,
        and where Q = 0 the answer is ⊥.

        Args:
            numerator: a, p + 1 numbers in ascending order.
            denominator: b, q numbers from b_1 on.
            options: Further arguments of `Rational`, other than `degrees` and `init`.

        Examples:
            >>> Rational.from_safe([0, 1], [0, 2], returns="tensor")(torch.ones(1)).item()
            0.3333333432674408
        """
        P, Q = list(numerator), [1.0, *denominator]
        basis, domain = options.get("basis", "monomial"), options.get("domain", (-1.0, 1.0))
        if basis != "monomial":
            P, Q = (
                in_basis(c, one_of(basis, BASES, "basis"), checked_domain(domain)) for c in (P, Q)
            )
        return cls((len(P) - 1, len(Q) - 1), init=(P, Q), **options)

    def _parameter(
        self, coefficients: Sequence[complex], dtype: torch.dtype | None
    ) -> nn.Parameter:
        column = torch.as_tensor(coefficients, dtype=dtype or torch.get_default_dtype())
        if self.channels is None:
            return nn.Parameter(column.clone())
        return nn.Parameter(column.unsqueeze(-1).repeat(1, self.channels))

    def forward(self, x: Tensor | SCM) -> Tensor | SCM:
        """Return P(x) / Q(x) as `returns` says."""
        bottom = None
        if isinstance(x, SCM):
            x, bottom = x.payload, x.bottom
        if self.channels is not None and (x.ndim == 0 or x.shape[-1] != self.channels):
            raise ShapeError(
                f"x must have the shape (*batch, {self.channels}), got {tuple(x.shape)}"
            )
        value, bottom = self._quotient(x, bottom)
        if x.dtype == self.numerator.dtype != value.dtype:  # all in half precision: stay there
            value = value.to(x.dtype)
            bottom = bottom | ~torch.isfinite(value)
            value = torch.where(bottom, math.nan, value)
        return trusted(value, bottom) if self.returns == "scm" else value

    def _quotient(self, x: Tensor, bottom: Tensor | None) -> tuple[Tensor, Tensor]:
        wide = (widen(x), widen(self.numerator), widen(self.denominator))
        gated = gating(*wide)
        recorded = torch.is_grad_enabled() and any(z.requires_grad for z in wide)
        plain = recorded and not gated  # somebody else differentiates a recorded graph
        # tangents take plain operations too: kernels that write in place would lose them
        if not (plain or is_forward_mode() or torch.compiler.is_exporting() or is_tracing()):
            dtype = _joint_dtype(wide[0], wide[1])
            X, P, Q = (z.to(dtype) for z in wide)
            form = RationalKind(self.basis, self.domain, self.policy_code)
            return quotient(X, P, Q, bottom, form, gated)
        P, Q, beyond = self._polynomials(x)
        beyond = beyond | (Q == 0)
        return divide(P, Q, beyond if bottom is None else beyond | bottom, self.policy_code)

    def extra_repr(self) -> str:
        """Show degrees, basis and what is returned."""
        channels = "" if self.channels is None else f", channels={self.channels}"
        return f"{super().extra_repr()}, returns={self.returns!r}{channels}"


class ProjectiveRational(_RationalBase):
    """Rational functions of one variable as tuples: x → ⟨P(x), Q(x)⟩, one P for each output.

    Q starts at 1, so that training starts away from poles. Polynomials are computed in at least
    float32. Where x is not finite, or P or Q could overflow, N and D are nan, that is ⊥. Without a
    registered policy the losses apply theirs; with one, it also acts on dL/dN and dL/dD here.

    Args:
        degrees: (p, q), of P and Q.
        out_features: k, the number of outputs.
        shared_denominator: One Q for all outputs (their poles are common), or one each.
        basis: `"chebyshev"`, polynomials scaled to `domain`, or `"monomial"`.
        domain: (low, high) of the Chebyshev polynomials, in the units of x: the range of the data.
        dtype: Of the coefficients, real or complex; torch's default if it is left out.

    Shapes: x is `(*batch, 1)`; N is `(*batch, k)`, D is `(*batch, 1)` if shared, else
    `(*batch, k)`.

    Raises:
        RangeError: A degree, basis, domain or `out_features` is not legal.
        ShapeError: In forward, the last dimension of x is not 1.

    Examples:
        >>> N, D = ProjectiveRational((3, 2), out_features=2)(torch.zeros(5, 1))
        >>> N.shape, D.shape, D[0].item()
        (torch.Size([5, 2]), torch.Size([5, 1]), 1.0)
    """

    def __init__(
        self,
        degrees: Sequence[int] = (5, 4),
        *,
        out_features: int = 1,
        shared_denominator: bool = True,
        basis: str = "chebyshev",
        domain: Sequence[float] = (-1.0, 1.0),
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(degrees, basis, domain)
        self.out_features = whole(out_features, "out_features", low=1)
        self.shared_denominator = shared_denominator
        p, q = self.degrees
        denominators = 1 if shared_denominator else out_features
        self.numerator = nn.Parameter(torch.empty(p + 1, out_features, dtype=dtype))
        self.denominator = nn.Parameter(torch.empty(q + 1, denominators, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw small numerators; the denominators are 1."""
        nn.init.normal_(self.numerator, std=_SPREAD)
        nn.init.zeros_(self.denominator)
        nn.init.ones_(self.denominator[0])

    def forward(self, x: Tensor) -> Pair:
        """Return ⟨P(x), Q(x)⟩ for x, `(*batch, 1)`."""
        if x.ndim == 0 or x.shape[-1] != 1:
            raise ShapeError(
                f"x must have the shape (*batch, 1), got {tuple(x.shape)}; "
                "x.unsqueeze(-1) adds a column"
            )
        wide = (widen(x), widen(self.numerator), widen(self.denominator))
        wanted = torch.is_grad_enabled() and any(z.requires_grad for z in wide)
        if not is_forward_mode() and (gating(*wide) or not (wanted or is_tracing())):
            form = RationalKind(self.basis, self.domain, self.policy_code)
            pair = tuples(*wide, form, wanted)
            if pair is not None:
                return gated(*pair, self.policy_code)
        N, D, beyond = self._polynomials(x)
        return gated(
            torch.where(beyond, math.nan, N), torch.where(beyond, math.nan, D), self.policy_code
        )
