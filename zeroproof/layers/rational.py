"""Rational functions as layers: an activation P(x) / Q(x), and x → ⟨P(x), Q(x)⟩.

Numba's loops take ordinary float32 tensors in eager mode. Everything else goes through operations
of torch: float64, complex numbers, compiled graphs, transforms, gradients of gradients. Forward
keeps x and the coefficients alone; backward computes anew. The compiled kernels follow from how
this is written:

- A vectorised loop stores and loads bool slowly, so the mask leaves it as bytes, and inside it no
  bool is used twice where it would be kept.
- The recomputation hangs on the policy's scalars, which exist in backward alone. Otherwise the
  compiler would find it equal to the forward pass and keep masks instead of computing them anew.
- Long sums go row by row, so that one row stays in the cache and needs no compensated sum.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import zeroproof.layers.rational_formulas as F  # noqa: N812 - as torch names its own
from zeroproof._checks import one_of, whole, widen
from zeroproof.autodiff.compiled import (
    LANES,
    compiling,
    finite,
    row_length,
    stored,
)
from zeroproof.autodiff.policies import PolicyModule, Ruling, gating, rule, shielded, submit
from zeroproof.autodiff.trace import note
from zeroproof.errors import RangeError, ShapeError
from zeroproof.layers.basis import (
    BASES,
    checked_domain,
    derivative,
    identity_coefficients,
    in_basis,
    polynomial,
    polynomial_reach,
    reach_bounds,
    span,
    unit,
)
from zeroproof.native import is_forward_mode, is_tracing, loops_for, ordinary
from zeroproof.projective.tuples import Pair, gated
from zeroproof.scm.division import divide, slopes
from zeroproof.scm.value import SCM, trusted

__all__ = ["ProjectiveRational", "Rational"]

_LOOPS = "layers.rational_loops"
_LONGEST = 4096  # terms that float32 may sum one after the other
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


# --- which machine, and where policies act --------------------------------------------------------


class _Kind(NamedTuple):
    """What a rational function is apart from its coefficients."""

    basis: str
    domain: tuple[float, float]
    fixed: int  # policy code, -1 to follow the context


def _limit(P: Tensor, Q: Tensor, ruling: Ruling | None = None) -> Tensor:
    """Return how large |x| may be, or 2|t| + 1, so that neither P nor Q overflows."""
    bounds = [reach_bounds(P), reach_bounds(Q)]
    if ruling is not None and compiling():  # never true, which the compiler cannot know
        bounds = [torch.where(ruling.closed & ~ruling.masked, 0, each) for each in bounds]
    return torch.minimum(*(each.amin(0) for each in bounds))


def _inside(x: Tensor, bottom: Tensor | None, limit: Tensor, form: _Kind) -> Tensor:
    inside = span(x.detach(), form.basis, form.domain) <= limit  # false where x is not finite
    return inside if bottom is None else inside & (bottom == 0)


def _pulled(g: Tensor, x: Tensor, c: Tensor, form: _Kind, row: int | None) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of the coefficients c for g = dL / d(Σ c_k B_k(x))."""
    by_x = polynomial(x, derivative(c, form.basis, form.domain), form.basis, form.domain)
    t = x if form.basis == "monomial" else unit(x, form.domain)
    t = t.conj() if t.is_complex() else t
    terms = [g, g]  # g goes first: 0 times an overflowing power would be nan
    for k in range(1, len(c)):
        terms.append(F.next_row(terms[-1], terms[-2], t, k == 1, form.basis == "chebyshev"))
    moments = [_total(term, c, row is not None) for term in terms[1:]]
    return g * by_x.conj(), torch.stack(moments)


def _total(term: Tensor, like: Tensor, rows: bool) -> Tensor:
    if not term.is_complex() and not like.is_complex() and rows:
        return term.sum(1).sum().to(like.dtype)
    wide = torch.complex128 if term.is_complex() else torch.float64
    shape = like.shape[1:]
    if term.numel() <= _LONGEST:
        total = term.sum_to_size(shape)
    else:
        total = term.sum(tuple(range(term.ndim - len(shape))), dtype=wide).sum_to_size(shape)
    return (total if like.is_complex() or not total.is_complex() else total.real).to(like.dtype)


# --- P(x) / Q(x) ----------------------------------------------------------------------------------


def _forward(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: _Kind
) -> tuple[Tensor, Tensor]:
    """Return (P / Q, ⊥), nan at ⊥.

    Within reach P and Q are finite, so that P / Q is not finite exactly where Q = 0 or the quotient
    overflows.
    """
    loops = loops_for(_LOOPS, x, P, Q)
    if loops is not None:
        return loops.quotient(x, P, Q, bottom, form)
    # of x as it is, since no derivative goes this way: a mask ahead of the polynomials would have
    # every one of their steps wait for it
    value = polynomial(x, P, form.basis, form.domain) / polynomial(x, Q, form.basis, form.domain)
    sound = _inside(x, bottom, _limit(P, Q), form) & finite(value)
    return torch.where(sound, value, math.nan), stored(~sound) if compiling() else ~sound


def _backward(
    g: Tensor, x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: _Kind
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, P and Q; the policy acts on dL/dP(x) and dL/dQ(x)."""
    ruling, shape = rule(g, form.fixed), x.shape
    # a gradient of gradients needs operations that record; what is raw, plain ones
    plain = torch.is_grad_enabled() or ruling.masked is False
    loops = None if plain else loops_for(_LOOPS, g, x, P, Q)
    if loops is not None:
        return loops.pullback(g, x, P, Q, bottom, form, ruling)
    row = row_length(x.numel()) if compiling() and P.ndim == 1 else None
    if row is not None:
        x, g = x.reshape(-1, row), g.reshape(-1, row)
        bottom = None if bottom is None else bottom.reshape(-1, row)
    inside = _inside(x, bottom, _limit(P, Q, ruling), form)
    safe = torch.where(inside, x, 0)
    p, q = (polynomial(safe, c, form.basis, form.domain) for c in (P, Q))
    lost = ~(inside & finite((p / q).detach()))
    unsafe = shielded(ruling, lost)
    # g too: 0 times a finite slope stays 0 in every further derivative
    g, p, q = torch.where(unsafe, 0, g), torch.where(unsafe, 0, p), torch.where(unsafe, 1, q)
    g_P, g_Q = (submit(z, lost, ruling) for z in slopes(g, p, q))
    by_P, by_Q = (_pulled(z, safe, c, form, row) for z, c in ((g_P, P), (g_Q, Q)))
    return (by_P[0] + by_Q[0]).reshape(shape), by_P[1], by_Q[1]


class _Quotient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: _Kind
    ) -> tuple[Tensor, Tensor]:
        return _forward(x, P, Q, bottom, form)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.form = inputs
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, P, Q, bottom = ctx.saved_tensors
        return *_backward(g, x, P, Q, bottom, ctx.form), None, None


class _QuotientNow(torch.autograd.Function):
    """The same in eager mode; without `setup_context`, for which torch inspects every call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _Quotient.setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_Quotient.backward)  # pyright: ignore[reportAssignmentType]


def _machine_quotient(
    x: Tensor, P: Tensor, Q: Tensor, bottom: Tensor | None, form: _Kind, gated: bool
) -> tuple[Tensor, Tensor]:
    """Return (P(x) / Q(x), ⊥), nan at ⊥; the policy acts on dL/dP and dL/dQ if `gated`.

    Args:
        x: Points, of one dtype with the coefficients.
        P: Coefficients of P, `(p + 1,)` or `(p + 1, channels)`.
        Q: Coefficients of Q, likewise.
        bottom: Where x is ⊥, if that is known.
        form: Basis, domain and policy code.
        gated: Whether a gradient is wanted.
    """
    if not gated:
        function = _forward
    else:
        function = _QuotientNow.apply if ordinary(x, P, Q) else _Quotient.apply
    if not compiling():
        value, lost = function(x, P, Q, bottom, form)
        note(value, x, P, Q)
        return value, lost
    from zeroproof.autodiff.masks import as_bytes, as_mask

    value, mask = function(x, P, Q, None if bottom is None else as_bytes(bottom), form)
    return value, as_mask(mask)


# --- ⟨P(x), Q(x)⟩ ---------------------------------------------------------------------------------


class _Tuples(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, P: Tensor, Q: Tensor, form: _Kind) -> tuple[Tensor, Tensor]:
        loops = loops_for(_LOOPS, x, P, Q)
        if loops is not None:
            return loops.tuples(x, P, Q, form)
        narrow = compiling() and P.shape[1] < LANES
        x = x.squeeze(-1) if narrow else x
        inside = _inside(x, None, _limit(P, Q).amin(), form)
        safe = torch.where(inside, x, 0)

        def value(c: Tensor) -> Tensor:
            return torch.where(inside, polynomial(safe, c, form.basis, form.domain), math.nan)

        if not narrow:
            return value(P), value(Q)
        # output by output: a vector then holds entries of the batch
        N, D = (torch.stack([value(column) for column in c.unbind(-1)], -1) for c in (P, Q))
        return N, D

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.form = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor, g_D: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, P, Q = ctx.saved_tensors
        form = ctx.form
        # a gradient of gradients needs operations that record
        loops = None if torch.is_grad_enabled() else loops_for(_LOOPS, g_N, g_D, x, P, Q)
        if loops is not None:
            return *loops.pull_tuples((g_N, g_D), x, P, Q, form), None
        narrow = compiling() and P.shape[1] < LANES
        row = row_length(x.numel()) if narrow else None
        limit = _limit(P, Q, rule(g_N, form.fixed)).amin()
        shape = x.shape if not narrow else (-1,) if row is None else (-1, row // LANES, LANES)
        z = x.reshape(shape)
        inside = _inside(z, None, limit, form)
        safe, g_x, sums = torch.where(inside, z, 0), torch.zeros_like(z), []
        for g, c in ((g_N, P), (g_D, Q)):
            pairs = zip(g.unbind(-1), c.unbind(-1), strict=True) if narrow else [(g, c)]
            found = []
            for part, column in pairs:
                kept = torch.where(inside, part.reshape(shape) if narrow else part, 0)
                by_x, total = _pulled(kept, safe, column, form, row)
                g_x = g_x + by_x.sum_to_size(g_x.shape)
                found.append(total)
            sums.append(torch.stack(found, -1) if narrow else found[0])
        return g_x.reshape(x.shape), *sums, None


def _machine_tuples(
    x: Tensor, P: Tensor, Q: Tensor, form: _Kind, gated: bool
) -> tuple[Tensor, Tensor] | None:
    """Return (P(x), Q(x)), nan where one could overflow; `None` where plain operations serve.

    Args:
        x: Points, `(*batch, 1)`.
        P: Coefficients, `(p + 1, k)`.
        Q: Coefficients, `(q + 1, 1)` or `(q + 1, k)`.
        form: Basis and domain.
        gated: Whether a gradient is wanted.
    """
    if not (ordinary(x, P, Q) or (compiling() and not x.is_complex())) or not x.numel():
        return None
    function = _Tuples.apply if gated else _Tuples.forward
    N, D = function(x, P, Q, form)
    note(N, x, P, Q)
    return N, D


# --- the layers -----------------------------------------------------------------------------------


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
            form = _Kind(self.basis, self.domain, self.policy_code)
            return _machine_quotient(X, P, Q, bottom, form, gated)
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
            form = _Kind(self.basis, self.domain, self.policy_code)
            pair = _machine_tuples(*wide, form, wanted)
            if pair is not None:
                return gated(*pair, self.policy_code)
        N, D, beyond = self._polynomials(x)
        return gated(
            torch.where(beyond, math.nan, N), torch.where(beyond, math.nan, D), self.policy_code
        )
