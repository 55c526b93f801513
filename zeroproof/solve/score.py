"""How well a recipe does on rows held out."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zeroproof.layers.features import feature_matrix
from zeroproof.projective.angle import chordal_distance, misalignment
from zeroproof.projective.pair import Pair
from zeroproof.solve.noise import noise_power, row_weight
from zeroproof.solve.path import readout_path
from zeroproof.solve.recipe import Recipe, answers, bases, lift

__all__ = ["CLEAN", "FLOOR", "ROUNDING", "Scored", "Table", "chordal_error", "oriented", "slack"]

CLEAN = 1e-27  # score at which nothing is left to find
ROUNDING = 1e-20  # scores below it are those of clean data
FLOOR = 1e-32
RHOS = (1e-2, 1e-4, 1e-6, 1e-9, 1e-12, 1e-19, 1e-30)
_HOPELESS = 100.0  # times the score to beat, after one sweep


class Scored(NamedTuple):
    """√(E_random E_shell), the best ρ, and E_random."""

    score: float
    rho: float
    random: float


class Table(NamedTuple):
    """Rows of a search: those to fit first, then rows held out at random, then the shell."""

    X: Tensor
    y: Tensor  # over its scale, (n, m)
    train: int  # rows to fit
    held: int  # rows held out at random
    affine: bool
    seed: int

    def parts(self) -> tuple[slice, slice]:
        """Return the held-out rows and the shell; the fitted rows where none can be spared."""
        if not self.held:
            return slice(0, self.train), slice(0, self.train)
        end = self.train + self.held
        return slice(self.train, end), slice(end, len(self.X))

    def linear(self, recipe: Recipe) -> tuple[Tensor, Tensor, Pair]:
        """Return features of N and D and the targets of a recipe."""
        maps = bases(recipe, self.X, self.seed)
        H_N, H_D = (feature_matrix(each, self.X) for each in maps)
        return H_N, H_D, lift(recipe.target, self.y)

    @torch.no_grad()
    def score(self, recipe: Recipe, power: int, rows: int, bar: float) -> Scored:
        """Fit the first `rows` along ρ, with row weights of a power, and score the best.

        The fit ends after one sweep if it is far above the score `bar`.
        """
        H_N, H_D, Y = self.linear(recipe)
        train = slice(0, rows)
        weight = row_weight(self.y, power)
        best, pilot = Scored(math.inf, RHOS[0], math.inf), 1e-12
        for sweeps in (1, 3):
            path = readout_path(
                H_N[train], *(part[train] for part in Y), H_D=H_D[train], weight=weight[train],
                rhos=RHOS, sweeps=sweeps, rho=pilot,
            )  # fmt: skip
            for rho, a, b in zip(path.rhos, path.a, path.b, strict=True):
                N, D = H_N.to(a.dtype) @ a, H_D.to(b.dtype) @ b
                random, shell = self.errors(recipe.target, N, D, weight)
                best = min(best, Scored(math.sqrt(random * shell), rho, random))
            if best.score > _HOPELESS * bar:
                break
            pilot = best.rho
        return best

    def errors(self, target: str, N: Tensor, D: Tensor, weight: Tensor) -> tuple[float, float]:
        """Return the errors of tuples of T(y) on held-out rows and on the shell."""
        N, D = answers(target, N, D)
        if self.affine:
            N, D = oriented(N, D)
        held, shell = (
            chordal_error(N[part], D[part], self.y[part], weight[part], affine=self.affine)
            for part in self.parts()
        )
        return max(held, FLOOR), max(shell, FLOOR)

    @torch.no_grad()
    def noise(self, recipe: Recipe, rho: float) -> int:
        """Return how errors grow with y, from a fit to relative errors, which places poles well."""
        H_N, H_D, Y = self.linear(recipe)
        train, weight = slice(0, self.train), row_weight(self.y, 1)
        path = readout_path(
            H_N[train], *(part[train] for part in Y), H_D=H_D[train], weight=weight[train],
            rhos=(rho,),
        )  # fmt: skip
        a, b = path.a[0], path.b[0]
        N, D = answers(recipe.target, H_N.to(a.dtype) @ a, H_D.to(b.dtype) @ b)
        answer = N / torch.where(D == 0, torch.nan, D)
        inner = slice(0, self.train + self.held)  # not the shell, which no row of the fit reaches
        return noise_power((answer - self.y)[inner].flatten(), answer[inner].flatten())


def slack(score: float, rows: int) -> float:
    """Return the factor by which scores may differ and still be alike, with so many rows held out.

    On clean data, where rounding decides, 2; on noisy data about a standard error of a mean square.
    """
    return 2.0 if score < ROUNDING or not rows else min(2.0, 1 + 1 / math.sqrt(rows))


def oriented(N: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """Return tuples with D > 0 in most rows; their sign then tells +inf from -inf."""
    sign = torch.where(D.sign().sum(0) < 0, -1.0, 1.0).to(N)
    return N * sign, D * sign


def chordal_error(
    N: Tensor, D: Tensor, y: Tensor, weight: Tensor, *, affine: bool = False
) -> float:
    """Return the mean weighted squared chordal distance, or with `affine` 2(1 - cos), to targets.

    With the weights of power 1 it is a mean squared relative error, with power 2 an absolute one;
    no row counts for more than a relative error of 1.

    Args:
        N: Numerators, `(n, m)`.
        D: Denominators, `(n, m)` or `(n, 1)`.
        y: Targets over their scale, `(n, m)`, inf and nan allowed.
        weight: Row weights, `(n,)`.
        affine: Whether +inf and -inf differ.
    """
    tuples = (N, D.expand_as(N), *lift("y", y))
    square = 2 * misalignment(*tuples) if affine else chordal_distance(*tuples).square()
    mean = weight * square.nan_to_num(nan=1.0).mean(1)
    size = 1 + torch.where(torch.isfinite(y), y, 0).abs().square().mean(1)
    # an answer that is wrong altogether counts as such and no more: single rows next to a pole
    # would else decide between candidates that all miss them
    most = (weight / size).clamp(min=1) * (4 if affine else 1)
    return float(torch.minimum(mean, most).mean())
