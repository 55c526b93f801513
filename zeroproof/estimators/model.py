"""What a closed-form fit leaves behind: a few arrays that give tuples, slopes and poles.

Both kinds have the same methods, so that nobody has to ask which one it is.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from zeroproof._checks import one_of
from zeroproof.errors import RangeError
from zeroproof.layers.features import Features, feature_matrix
from zeroproof.projective.tuples import Pair
from zeroproof.solve.centres import distances
from zeroproof.solve.forms import Form, interpolated, quotient_slopes
from zeroproof.solve.poles import PoleTable, pole_curve
from zeroproof.solve.recipe import answers
from zeroproof.solve.system import System

__all__ = ["FormModel", "Model", "ReadoutModel"]

_CANCELLED = 50 * torch.finfo(torch.float64).eps
_ENTRIES = 2**22  # of a feature matrix at a time: 32 MB
# t(x), x(t), x' and x'' of the transforms of a column
_BACK: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "identity": (lambda x: x, lambda t: t, torch.ones_like, torch.zeros_like),
    "log": (torch.log, torch.exp, torch.exp, torch.exp),
    "sqrt": (torch.sqrt, torch.square, lambda t: 2 * t, lambda t: 2 + 0 * t),
    "inverse": (torch.reciprocal, torch.reciprocal, lambda t: -1 / t**2, lambda t: 2 / t**3),
}


class FormModel(NamedTuple):
    """y / scale as one rational form for each output; a single input."""

    forms: tuple[Form, ...]
    scale: float

    @torch.no_grad()
    def tuples(self, X: Tensor) -> Pair:
        """Return ⟨N, D⟩ for rows, in the units of y: N `(n, m)`, D `(n, m)` or `(n, 1)`.

        Args:
            X: `(n, d)`, float64; rows that are not finite give tuples that are not.
        """
        parts = []
        for rows in _slices(X, 16):
            pairs = [form.tuples(rows[:, 0]) for form in self.forms]
            parts.append([torch.stack(part, 1) for part in zip(*pairs, strict=True)])
        N, D = (torch.cat(part) for part in zip(*parts, strict=True))
        return Pair(self.scale * N, D)

    def cancelled(self, X: Tensor) -> Tensor:
        """Tell where N and D are both rounding errors of their terms, `(n, m)`: nowhere."""
        return torch.zeros(len(X), len(self.forms), dtype=torch.bool)

    def slopes(self, X: Tensor, output: int) -> tuple[Tensor, Tensor]:
        """Return answers, `(n,)`, and their slopes by the coefficients, `(n, k)`.

        X may be complex.
        """
        answer, G = self.forms[output].slopes(X[:, 0])
        return self.scale * answer, self.scale * G

    @property
    def outputs(self) -> int:
        """Return the number of outputs."""
        return len(self.forms)

    @property
    def denominators(self) -> int:
        """Return the number of denominators."""
        return len(self.forms)

    @property
    def free(self) -> int:
        """Return the number of free coefficients."""
        return sum(form.free for form in self.forms)

    @property
    def is_real(self) -> bool:
        """Tell whether its poles come in conjugate pairs."""
        return all(form.is_real for form in self.forms)

    @property
    def constant_denominator(self) -> bool:
        """Tell whether the model cannot have a pole."""
        return all(form.degrees[1] == 0 for form in self.forms)

    @property
    def judged(self) -> bool:
        """Tell whether the race told poles from noise."""
        return self.forms[0].judged

    @property
    def systems(self) -> tuple[System, ...]:
        """Return the real systems that the outputs are responses of: poles are then in s = ix."""
        found = (form.system() for form in self.forms)
        return tuple(system for system in found if system is not None)

    def pole_table(
        self, domain: tuple[float, float], output: int, *, resolution: float, tolerance: float
    ) -> PoleTable:
        """Return the poles of one output, complex ones too, in the units of y.

        Args:
            domain: (low, high) of the data; where a model is no rational function of x, poles are
                looked for near it.
            output: Which one.
            resolution: See `Form.pole_table`.
            tolerance: See `Form.pole_table`.
        """
        form = self.forms[one_of(output, range(len(self.forms)), "output")]
        table = form.pole_table(resolution=resolution, tolerance=tolerance)
        return _in_units(table, self.scale)

    def roots(self, domain: tuple[float, float], output: int, *, tolerance: float) -> Tensor:
        """Return the zeros of N of one output, complex; arguments as for `pole_table`."""
        form = self.forms[one_of(output, range(len(self.forms)), "output")]
        return form.roots(tolerance=tolerance)

    def pole_curve(self, domain: Tensor, output: int, points: int) -> list[Tensor]:
        """Return the lines D = 0 over a box: there is none in one column.

        Raises:
            RangeError: Always.
        """
        raise RangeError("a rational form has one column, got two")

    def moved(self, output: int, step: Tensor) -> "FormModel | None":
        """Return the model with the coefficients of one output moved; none where forms cannot."""
        form = self.forms[output].moved(step)
        if form is None:
            return None
        return self._replace(forms=(*self.forms[:output], form, *self.forms[output + 1 :]))


class ReadoutModel(NamedTuple):
    """T(y / scale) = H_N a / H_D b; methods mean what they mean for a `FormModel`."""

    H_N: Features
    H_D: Features
    a: Tensor  # (k_N, m)
    b: Tensor  # (k_D, 1) if shared, else (k_D, m)
    target: str  # T, one of zeroproof.solve.recipe.TARGETS
    scale: float
    centres: Tensor | None = None  # (c, d): distances to them are further columns

    def inputs(self, X: Tensor) -> Tensor:
        """Return the columns that the features see."""
        return X if self.centres is None else distances(X, self.centres)

    def matrices(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Return H_N and H_D for rows."""
        X = self.inputs(X)
        return feature_matrix(self.H_N, X), feature_matrix(self.H_D, X)

    def head(self, X: Tensor) -> Pair:
        """Return the tuples of T(y / scale), differentiable by autograd."""
        H_N, H_D = self.matrices(X)
        return Pair(H_N.to(self.a.dtype) @ self.a, H_D.to(self.b.dtype) @ self.b)

    @torch.no_grad()
    def tuples(self, X: Tensor) -> Pair:
        """Return ⟨N, D⟩ for rows, in the units of y."""
        parts = (self.head(rows) for rows in _slices(X, len(self.a) + len(self.b)))
        pairs = [answers(self.target, *part) for part in parts]
        N, D = (torch.cat(part) for part in zip(*pairs, strict=True))
        return Pair(self.scale * N, D)

    @torch.no_grad()
    def cancelled(self, X: Tensor) -> Tensor:
        """Tell where N and D are both rounding errors of their terms: ⟨0, 0⟩, `(n, m)`.

        Coefficients are known to about ε of the largest, so that a sum over features h is known to
        ε ‖h‖₁ max|a|.
        """
        small = []
        for rows in _slices(X, len(self.a) + len(self.b)):
            sums = []
            for H, z in zip(self.matrices(rows), (self.a, self.b), strict=True):
                known = _CANCELLED * H.abs().sum(1, keepdim=True) * z.abs().amax(0)
                sums.append((H.to(z.dtype) @ z).abs() <= known)
            small.append(sums[0] & sums[1])
        return torch.cat(small)

    def slopes(self, X: Tensor, output: int) -> tuple[Tensor, Tensor]:
        """Return answers and their slopes by the coefficients."""
        a, b = self.a[:, output], self.b[:, output if self.b.shape[1] > 1 else 0]
        answer, G = quotient_slopes(*self.matrices(X), a, b)
        if self.target == "square":
            answer = answer.abs().sqrt()
            G = G / (2 * answer[:, None])
        elif self.target == "log":
            answer = answer.exp()
            G = G * answer[:, None]
        return self.scale * answer, self.scale * G

    @property
    def outputs(self) -> int:
        """Return the number of outputs."""
        return self.a.shape[1]

    @property
    def denominators(self) -> int:
        """Return the number of denominators."""
        return self.b.shape[1]

    @property
    def free(self) -> int:
        """Return the number of free coefficients."""
        return self.a.numel() + self.b.numel() - self.denominators

    @property
    def is_real(self) -> bool:
        """Tell whether its poles come in conjugate pairs."""
        return not self.b.is_complex()

    @property
    def constant_denominator(self) -> bool:
        """Tell whether the model cannot have a pole."""
        columns = getattr(self.H_N, "columns", ())
        return len(self.b) == 1 and not any(c.transform == "inverse" for c in columns)

    @property
    def judged(self) -> bool:
        """Tell that no race told poles from noise."""
        return False

    @property
    def systems(self) -> tuple[System, ...]:
        """Return none: it is no real system."""
        return ()

    def _line(self, x: Tensor, output: int) -> Pair:
        """Return the tuples of one output along the only column."""
        output = one_of(output, range(self.outputs), "output")
        N, D = self.head(x[:, None])
        return Pair(N[:, output], D[:, output if D.shape[1] > 1 else 0])

    def pole_table(
        self, domain: tuple[float, float], output: int, *, resolution: float, tolerance: float
    ) -> PoleTable:
        """Return poles by interpolants in t(x), the variable in which features are polynomials.

        With x(t), residue r and strength s of a pole in t become r x' + s x'' and s x'^m: the first
        because 1 / (t - t₀)² = x'² / (x - x₀)² + x'' / (x - x₀) + …
        """
        columns = getattr(self.H_D, "columns", ())
        transform = "identity"
        if len(columns) == 1 and self.centres is None and columns[0].transform in _BACK:
            transform = columns[0].transform
        if transform == "inverse" and len(self.b) == 1:
            return _in_units(self._pole_at_zero(output), self.scale, self.target)
        there, back, slope, bend = _BACK[transform]
        ends = sorted(float(there(torch.tensor(end, dtype=torch.float64))) for end in domain)
        form = interpolated(lambda t: self._line(back(t), output), ends)
        table = form.pole_table(resolution=resolution, tolerance=tolerance)
        t, m = table.position, table.multiplicity
        # log and the root have one sheet; x = 1/t has no place for t = 0
        sheet = {"log": t.imag.abs() < math.pi, "sqrt": t.real > 0, "inverse": t != 0}
        kept = form.known(t, form.degrees[1])
        kept = kept & sheet.get(transform, torch.ones_like(kept))
        double = torch.where(m == 2, table.strength, 0)
        table = table._replace(
            position=back(t),
            residue=table.residue * slope(t) + double * bend(t),
            strength=table.strength * slope(t) ** m,
        ).at(kept)
        return _in_units(table.at(table.position.real.argsort()), self.scale, self.target)

    def _pole_at_zero(self, output: int) -> PoleTable:
        """Return the pole of a polynomial of 1/x."""
        (column,) = self.H_N.columns
        ends = [column.middle - column.half, column.middle + column.half]
        a = np.polynomial.Chebyshev((self.a[:, output] / self.b[0, 0]).numpy(), ends)
        c = a.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1]).coef
        here = torch.zeros(1, dtype=torch.complex128)
        return PoleTable(here, here + c[1], here + c[-1], torch.tensor([len(c) - 1]), here.real > 0)

    def roots(self, domain: tuple[float, float], output: int, *, tolerance: float) -> Tensor:
        """Return the zeros of N of one output near the data, complex."""
        form = interpolated(lambda x: self._line(x, output), domain)
        zeros = form.roots(tolerance=tolerance)
        return zeros[form.known(zeros, form.degrees[0])]

    def pole_curve(self, domain: Tensor, output: int, points: int) -> list[Tensor]:
        """Return the lines D = 0 over a box, `(2, 2)`, of two columns.

        Raises:
            RangeError: D is complex.
        """
        if not self.is_real:
            raise RangeError(
                "poles of complex targets need rational features, 'auto' or 'chebyshev', of one "
                "column"
            )
        output = one_of(output, range(self.outputs), "output") if self.denominators > 1 else 0
        return pole_curve(lambda X: self.head(X).D[:, output], domain.T.tolist(), points=points)

    def moved(self, output: int, step: Tensor) -> "ReadoutModel":
        """Return the model with the coefficients of one output moved."""
        a, b = self.a.clone(), self.b.clone()
        step = step.to(a.dtype)
        a[:, output] += step[: len(a)]
        b[:, output] += step[len(a) :]
        return self._replace(a=a, b=b)


Model: TypeAlias = FormModel | ReadoutModel


def _in_units(table: PoleTable, scale: float, target: str = "y") -> PoleTable:
    """Return the table of y from that of T(y / scale).

    Where y² has a pole, y has half its exponent, and log y makes no power at all: residues are nan
    then, and strengths are known where the exponent is a whole number.
    """
    residue, strength, exponent = table.residue, table.strength, table.multiplicity.double()
    if target != "y":
        residue = residue * math.nan
        exponent = exponent / 2 if target == "square" else exponent * math.nan
        strength = torch.where(exponent % 1 == 0, strength.abs().sqrt() + 0j, math.nan)
    return table._replace(residue=residue * scale, strength=strength * scale, exponent=exponent)


def _slices(X: Tensor, wide: int) -> Iterator[Tensor]:
    yield from X.split(max(1, _ENTRIES // wide))
