"""How well a closed-form fit is known: standard errors of answers and poles, by the delta method.

A fit y = N / D with N = H_N a and D = H_D b moves with its coefficients by the slopes
G = [H_N / D, -N H_D / D²]. Their covariance is C = σ² (Gᵀ W G)⁻¹, W the weights of the noise that
the race found and σ² the residual variance, never below rounding. (a, b) and (c a, c b) are one
fit: that direction has no slope and is left out. Whatever form holds the fit, the slopes span the
same space, so the errors do not depend on it.
"""

import numpy as np
import torch
from torch import Tensor

from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.model import FormModel
from zeroproof.solve.poles import PoleTable
from zeroproof.solve.race import deviation
from zeroproof.solve.system import covariance_root

__all__ = ["NOISES", "answer_errors", "pole_errors", "spread_of"]

NOISES = ("mixed", "relative", "additive")  # by the power of the row weights
_MOST_COEFFICIENTS, _MOST_ENTRIES = 1000, 2**21
_RESOLVED = 1e-12  # of the largest singular value: a smaller one is the gauge
_ROUNDING = 4 * torch.finfo(torch.float64).eps
_NODES = 32  # of a circle around a pole


def spread_of(fit: ClosedForm, X: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Return a root L of the covariance, C = L Lᴴ, of the coefficients of each output.

    Args:
        fit: The fit.
        X: Rows, `(n, d)`.
        y: Their targets in units, `(n, m)`; rows that are not finite do not count.
        weight: Row weights, `(n,)`.

    Returns:
        For each output `(k, r)`; nothing where a fit has more than 1000 coefficients.
    """
    if fit.model.systems:
        return _spread_of_systems(fit, X[:, 0], y / fit.model.scale, weight)
    roots = []
    for j in range(y.shape[1]):
        used = torch.isfinite(y[:, j]) & (weight > 0)
        rows, target, w = X[used], y[used, j], weight[used]
        width = fit.model.slopes(rows[:1], j)[1].shape[1]
        if width > _MOST_COEFFICIENTS:
            return ()
        step = max(1, -(-len(rows) * width // _MOST_ENTRIES))
        rows, target, w = rows[::step], target[::step], w[::step]
        answer, G = fit.model.slopes(rows, j)
        noise = torch.from_numpy(deviation(target.numpy(), NOISES[fit.power]))
        root = w.sqrt() / noise
        moved = fit.model.slopes(rows * (1 + 1e-7), j)[0] - answer
        floor = _ROUNDING * (target.abs() + moved.abs() * 1e7)
        error = torch.where(torch.isfinite(answer), (answer - target).abs(), 0)
        square = (torch.hypot(error, floor) * root).square().sum()
        J = torch.where(torch.isfinite(G), G, 0) * root[:, None]
        size = torch.linalg.vector_norm(J, dim=0)
        size = torch.where(size > 0, size, 1)
        _, s, Vh = torch.linalg.svd(torch.linalg.qr(J / size, mode="r").R, full_matrices=False)
        known = s > _RESOLVED * s[:1]
        sigma = (square / max(len(rows) - int(known.sum()), 1)).sqrt()
        roots.append(Vh.mH[:, known] / s[known] / size[:, None] * sigma / step**0.5)
    return tuple(roots)


def _spread_of_systems(fit: ClosedForm, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Return roots for each output; outputs with the same poles know them together."""
    used = torch.isfinite(y).all(1) & (weight > 0)
    target, root = y[used].numpy(), weight[used].sqrt().numpy()[:, None]
    size = np.sqrt((np.abs(target) ** 2).mean(0))
    size = np.where(size > 0, size, 1)
    root = root / (deviation(target / size, NOISES[fit.power]) * size)
    systems = fit.model.systems
    groups = [slice(j, j + 1) for j in range(len(systems))]
    if fit.shared:
        groups, systems = [slice(None)], [systems[0]._replace(c=np.hstack([s.c for s in systems]))]
    roots = []
    for system, group in zip(systems, groups, strict=True):
        L = covariance_root(system, x[used].numpy(), target[:, group], root[:, group])
        k = system.poles.k
        owns = L[k:].reshape(-1, len(system.c), L.shape[1])
        roots += [torch.from_numpy(np.concatenate([L[:k], own])) for own in owns]
    return tuple(roots)


def answer_errors(fit: ClosedForm, spread: tuple[Tensor, ...], X: Tensor) -> Tensor:
    """Return the standard error of each answer, `(n, m)`; nan where it is not known.

    To the delta method comes the variance over the fits that the race could not tell apart.
    """
    if not spread:
        return torch.full((len(X), 1), torch.nan, dtype=torch.float64)
    some = max(1, _MOST_ENTRIES // len(spread[0]))  # rows whose slopes are held
    if len(X) > some:
        return torch.cat([answer_errors(fit, spread, rows) for rows in X.split(some)])
    columns = []
    for j, L in enumerate(spread):
        answer, G = fit.model.slopes(X, j)
        square = (G @ L.to(G.dtype)).abs().square().sum(1)
        others = [each.slopes(X, j)[0] for each in fit.alternates]
        if others:
            answers = torch.stack([answer, *others])
            finite = torch.isfinite(answers)
            apart = torch.where(finite, answers - answers.nan_to_num().mean(0), 0)
            square = square + apart.abs().square().mean(0)
        columns.append(square.sqrt())
    return torch.stack(columns, 1)


def pole_errors(
    fit: ClosedForm, L: Tensor, table: PoleTable, output: int, half: float
) -> PoleTable:
    r"""Return the table with standard errors and significance.

    When coefficients move by dθ, f moves by G dθ, whose Laurent series at a pole p of order m and
    strength s begins with m s dp / (x - p)^(m + 1): the integral of (x - p)^m G over a circle
    around p is m s dp / dθ, and that of G is the slope of the residue. The significance is \|s\|
    over its own standard error.

    Args:
        fit: The fit.
        L: Root of the covariance of the output.
        table: Its poles.
        output: Which one.
        half: Half the range of the data.
    """
    p = table.position
    if fit.model.systems:
        system = fit.model.systems[output]
        own = system.table()[0]
        place, residue, clear = (
            torch.from_numpy(e[np.lexsort((own.imag, own.real))]) for e in system.errors(L.numpy())
        )
        residue = residue * fit.model.scale
        return table._replace(position_se=place, residue_se=residue, significance=clear)
    own = fit.model.forms[output].pole_errors(L) if isinstance(fit.model, FormModel) else None
    if own is not None:
        place, residue, clear = own
        residue = residue * fit.model.scale
        return table._replace(position_se=place, residue_se=residue, significance=clear)
    gap = (p[:, None] - p).abs()
    gap = gap.masked_fill(gap == 0, torch.inf).amin(1)
    # x = 0 is a branch point of functions of log x; much nearer to a pole, rounding of x - p shows
    alone = (p.abs() / 2).clamp(min=1e-8 * half, max=1e-3 * half)
    radius = torch.where(gap < torch.inf, gap / 2, alone)
    angle = torch.arange(_NODES) * (2 * torch.pi / _NODES)
    circle = torch.polar(torch.ones(_NODES, dtype=torch.float64), angle.double())
    errors = []
    for at, r, strength, m in zip(p, radius, table.strength, table.multiplicity, strict=True):
        offset = r * circle
        try:
            G = fit.model.slopes((at + offset)[:, None], output)[1].to(torch.complex128)
        except (RuntimeError, TypeError):
            errors.append((torch.nan,) * 3)
            continue
        root = L.to(torch.complex128)
        moments = [
            torch.linalg.vector_norm((offset ** (k + 1) @ G / _NODES) @ root) for k in (m, 0, m - 1)
        ]
        where, residue, own = (float(each) for each in moments)
        size = float(strength.abs())
        errors.append((where / max(int(m) * size, 1e-300), residue, size / max(own, 1e-300)))
    position, residue, significance = torch.tensor(errors, dtype=torch.float64).reshape(-1, 3).T
    return table._replace(position_se=position, residue_se=residue, significance=significance)
