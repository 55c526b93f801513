"""Ways to write one rational function of one variable, and how each is evaluated.

Coefficients of D lose relative accuracy beside multiple poles, roots and support points do not;
`zeroproof.solve.choose` tells which form serves a table best.
"""

from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from zeroproof.layers.basis import chebyshev_basis, monomial_basis, polynomial
from zeroproof.projective.pair import Pair
from zeroproof.solve.system import Poles, System

__all__ = [
    "BarycentricForm",
    "CoefficientForm",
    "ConjugateForm",
    "FactoredForm",
    "Form",
    "FractionForm",
    "SigmoidForm",
    "evaluate",
    "predict",
]


class CoefficientForm(NamedTuple):
    """N = Σ a_k B_k(x) and D = Σ b_k B_k(x)."""

    a: Tensor  # (p + 1,), real or complex, ascending
    b: Tensor  # (q + 1,)
    basis: str  # "chebyshev" or "monomial"
    domain: tuple[float, float]  # (low, high) of the Chebyshev polynomials, in the units of x


class FactoredForm(NamedTuple):
    """N = Σ a_k T_k(x) and D = Π ((x - c_j)² - h_j) · Π (x - r_j), each factor scaled to size 1.

    A quadratic stands for two roots c ± √h that are close or conjugate. Unlike the roots, c and h
    stay smooth functions of the data while the two meet and leave the real line. A pole such as π/8
    is no float: clean data know it beyond the last bit, so c and r carry what rounding cut off.
    """

    a: Tensor  # (p + 1,), real or complex
    c: Tensor  # centres of the pairs, in the units of x
    h: Tensor  # squared half distances of the pairs; below 0: conjugate roots
    r: Tensor  # single roots
    rest: Tensor  # to be added to (c, r), below their last bit
    domain: tuple[float, float]


class BarycentricForm(NamedTuple):
    """f = Σ w_j f_j / (x - z_j) divided by Σ w_j / (x - z_j), which takes the value f_j at z_j."""

    points: Tensor  # z, (m,)
    values: Tensor  # f, (m,)
    weights: Tensor  # w, (m,)


class FractionForm(NamedTuple):
    """f = Σ r_k / (x - p_k) + Σ a_j T_j(x), all poles simple; D is the factor of the nearest one.

    The poles of a real form come in conjugate pairs, whose factors are taken together.
    """

    poles: Tensor  # p, complex128, (K,)
    residues: Tensor  # r, complex128, (K,)
    a: Tensor  # (d + 1,), real or complex
    domain: tuple[float, float]  # of the Chebyshev polynomials


class SigmoidForm(NamedTuple):
    """f = low + (high - low) / (1 + exp(-slope (t(x) - middle))), t = x or log x; D is constant."""

    low: Tensor  # each of them `()`
    high: Tensor
    slope: Tensor
    middle: Tensor
    log: bool
    domain: tuple[float, float]


class ConjugateForm(NamedTuple):
    """f = Σ r / (s - p) + Σ (a (s - c) + g) / ((s - c)² + h) + d + e s at s = ix, all real.

    Poles in s are real or come in conjugate pairs; f at x is complex. With a part, f is a real
    function of x, H even in s for a real part and odd for an imaginary one, and so are its poles.
    """

    real: Tensor  # p
    centre: Tensor  # c
    square: Tensor  # h
    c: Tensor  # r, a, g, d, and e if there is a linear term
    domain: tuple[float, float]
    part: str = ""  # "real" or "imaginary": f is H(ix), or -i H(ix), which is real

    def system(self) -> System:
        """Return the function of s."""
        parts = (part.numpy()[None] for part in self[:3])
        return System(Poles(*parts), self.c.numpy()[:, None])

    def told(self, value: Any, x: Tensor) -> Tensor:
        """Return f, or how it moves, for values of H(ix)."""
        f = torch.from_numpy(-1j * value if self.part == "imaginary" else value)
        return f.real.contiguous() if self.part and not x.is_complex() else f


Form: TypeAlias = (
    CoefficientForm | FactoredForm | BarycentricForm | FractionForm | SigmoidForm | ConjugateForm
)


def evaluate(form: Form, x: Tensor) -> Pair:
    """Evaluate ⟨N, D⟩ without dividing.

    Args:
        form: Any of the forms.
        x: Points, `(*batch,)`, real or complex.

    Returns:
        `Pair(N, D)`, both `(*batch,)`. Of a barycentric form both carry the factor (x - z) of the
        nearest support point z, so that they stay finite there; the sign of D alone then means
        nothing.

    Examples:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> reciprocal = FactoredForm(one, one[:0], one[:0], 0 * one, 0 * one, (-1.0, 1.0))
        >>> evaluate(reciprocal, torch.tensor([0.0, 0.5], dtype=torch.float64)).D
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    if isinstance(form, BarycentricForm):
        return _barycentric(form, x)
    if isinstance(form, FractionForm):
        return _fractions(form, x)
    if isinstance(form, SigmoidForm):
        t = torch.log(x) if form.log else x
        step = torch.sigmoid(form.slope * (t - form.middle))
        return Pair(form.low * (1 - step) + form.high * step, torch.ones_like(step))
    if isinstance(form, ConjugateForm):
        value = form.told(form.system()(x.detach().numpy())[:, 0], x)
        size = 1 + value.abs()  # keeps N and D finite at a pole on the line
        bottom = ~torch.isfinite(size)
        N = torch.where(bottom, 1, value / size)
        return Pair(N, torch.where(bottom & ~x.isnan(), 0, 1 / size).to(N.dtype))
    if isinstance(form, FactoredForm):
        return Pair(polynomial(x, form.a, "chebyshev", form.domain), product(form, *gaps(form, x)))
    return Pair(
        polynomial(x, form.a, form.basis, form.domain),
        polynomial(x, form.b, form.basis, form.domain),
    )


def predict(form: Form, x: Tensor) -> Tensor:
    """Return N / D at x, nan where D is 0.

    Examples:
        >>> z, w = torch.tensor([0.0, 1.0]), torch.tensor([1.0, -1.0])
        >>> predict(BarycentricForm(z, z, w), torch.tensor([0.25]))
        tensor([0.2500])
    """
    N, D = evaluate(form, x)
    zero = D == 0
    return torch.where(zero, torch.nan, N / torch.where(zero, 1, D))


def span(form: Form) -> tuple[float, float]:
    """Return (low, high), where the form was fitted."""
    if isinstance(form, BarycentricForm):
        return float(form.points.real.min()), float(form.points.real.max())
    return form.domain


def basis_of(form: CoefficientForm, x: Tensor, degree: int) -> Tensor:
    """Evaluate the basis of a form, `(*batch, degree + 1)`."""
    if form.basis == "monomial":
        return monomial_basis(x, degree)
    return chebyshev_basis(x, degree, domain=form.domain)


def gaps(form: FactoredForm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x - c and x - r, `(*batch, pairs)` and `(*batch, singles)`: exact beside a root."""
    c_rest, r_rest = form.rest.split([len(form.c), len(form.r)])
    x = x.unsqueeze(-1)
    return (x - form.c) - c_rest, (x - form.r) - r_rest


def product(form: FactoredForm, by_c: Tensor, by_r: Tensor) -> Tensor:
    """Return D from `gaps`; every factor is divided by its size on the domain."""
    low, high = form.domain
    middle, half = (low + high) / 2, (high - low) / 2
    size = (half + (form.c - middle).abs()).square() + form.h.abs()
    pairs = (by_c.square() - form.h) / size
    return pairs.prod(-1) * (by_r / (half + (form.r - middle).abs())).prod(-1)


def _barycentric(form: BarycentricForm, x: Tensor) -> Pair:
    gap = x.unsqueeze(-1) - form.points
    nearest = gap.abs().argmin(-1, keepdim=True)
    here = torch.arange(len(form.points), device=x.device) == nearest
    others = torch.where(here | (gap == 0), 1, gap)
    ratio = torch.where(here, 1, gap.gather(-1, nearest) / others) * form.weights
    return Pair((ratio * form.values).sum(-1), ratio.sum(-1))


def _fractions(form: FractionForm, x: Tensor) -> Pair:
    """Sum after multiplication by the factor of the nearest pole, so that nothing overflows there.

    Of a real form that is (x - p)(x - p̄) where p is not real, and the sum is real for real x.
    """
    gap = x.unsqueeze(-1) - form.poles
    nearest = gap.abs().argmin(-1, keepdim=True)
    here = torch.arange(len(form.poles), device=x.device) == nearest
    own, p = gap.gather(-1, nearest), form.poles[nearest]
    real = not form.a.is_complex()
    paired = real & (p.imag != 0)
    other = torch.where(paired, x.unsqueeze(-1) - p.conj(), 1)
    ratio = torch.where(here, 1, own / torch.where(here | (gap == 0), 1, gap)) * other
    D = (own * other).squeeze(-1)
    N = (ratio * form.residues).sum(-1) + D * polynomial(x, form.a, "chebyshev", form.domain)
    return Pair(N.real, D.real) if real and not x.is_complex() else Pair(N, D)
