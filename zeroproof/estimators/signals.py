"""Complex signals: fits of real systems, declared or found in two real columns."""

from typing import NamedTuple

import numpy as np
import torch

from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.comparison import EQUAL, Array, beside, closed, compared, held_out
from zeroproof.estimators.model import FormModel
from zeroproof.estimators.options import Request, Rows
from zeroproof.solve.conjugate import race_conjugate
from zeroproof.solve.forms import ConjugateForm
from zeroproof.solve.line import race_line
from zeroproof.solve.race import POLE, Held, RaceFit, ahead
from zeroproof.solve.system import System

__all__ = ["real_system", "two_parts"]


class _Signal(NamedTuple):
    """Real systems for complex signals: one for all outputs, or one for each."""

    race: RaceFit
    systems: tuple[System, ...]
    rows: Array  # that took part in the race
    held: Held

    @property
    def free(self) -> float:
        """Return the real coefficients of all outputs."""
        return sum(system.poles.k + system.c.size for system in self.systems)


def real_system(used: Rows, request: Request) -> ClosedForm | None:
    """Fit the response of a real system; none where free coefficients do better, if they may."""
    x, y, weight = used.X[:, 0].numpy(), used.y.numpy(), used.weight.numpy()
    m = y.shape[1]
    race, system, rows = race_conjugate(x, y, weight=weight, group=used.groups, seed=request.seed)
    floor = EQUAL * race.entry.floor
    signal = _Signal(
        race, (system,), rows, held_out(race, race.entry.answers, y[rows], floor=floor)
    )
    if request.shared is False or (request.shared == "auto" and m > 1):
        apart = _apart(used, signal, request.seed)
        clear = ahead(apart.held, signal.held, 1.0)
        if request.shared is False or clear or (
            apart.free < signal.free and not ahead(signal.held, apart.held, 1.0)
        ):  # fmt: skip
            signal = apart
    if request.symmetry == "auto":
        other = race_line(
            x, y, weight=weight, group=used.groups, seed=request.seed, clock=request.clock
        )
        free = held_out(race, other.entry.answers[rows], y[rows], floor=floor)
        worse = ahead(free, signal.held, POLE)  # declared is declared: noise must not undo it
        p, q = other.entry.candidate.p, other.entry.candidate.q
        if worse or (2 * (m * (p + 1) + q) < signal.free and not ahead(signal.held, free, 1.0)):
            return None
    shared = len(signal.systems) == 1
    forms = [
        _conjugate_form(each, j, x) for each in signal.systems for j in range(m if shared else 1)
    ]
    model, name = FormModel(tuple(forms), request.scale), race.entry.name
    found = closed(signal.race, y[signal.rows], model, name, None)
    return found._replace(significant=True, shared=shared)


def _apart(used: Rows, joint: _Signal, seed: int) -> _Signal:
    """Fit each output by a system of its own, and score them all as the joint one was."""
    x, y, weight = used.X[:, 0].numpy(), used.y.numpy(), used.weight.numpy()
    races = [
        race_conjugate(
            x, column[:, None], weight=weight, group=used.groups, noise=joint.race.noise, seed=seed
        )
        for column in y.T
    ]
    answers = np.concatenate([race.entry.answers for race, *_ in races], 1)
    floor = EQUAL * joint.race.entry.floor
    held = held_out(joint.race, answers, y[joint.rows], floor=floor)
    return _Signal(joint.race, tuple(system for _, system, _ in races), joint.rows, held)


def _conjugate_form(system: System, output: int, x: Array) -> ConjugateForm:
    real, centre, square = (torch.from_numpy(part[0].copy()) for part in system.poles)
    c = torch.from_numpy(system.c[:, output].copy())
    return ConjugateForm(real, centre, square, c, (float(x.min()), float(x.max())))


def two_parts(
    used: Rows, request: Request, other: RaceFit, best: Held, free: float
) -> ClosedForm | None:
    """Fit two targets as real and imaginary part of a signal, if that does better, or is smaller.

    Re H(ix) = (H(s) + H(-s)) / 2 and i Im H(ix) = (H(s) - H(-s)) / 2 are real functions of s.
    """
    x, y, weight = used.X[:, 0].numpy(), used.y.numpy(), used.weight.numpy()
    signal = y[:, :1] + 1j * y[:, 1:]
    race, system, rows = race_conjugate(
        x, signal, weight=weight, group=used.groups, seed=request.seed
    )
    poles, answers = system.poles, race.entry.answers
    if len(rows) < len(x) or not poles.k:
        return None
    answers = np.concatenate([np.real(answers), np.imag(answers)], 1)
    held = held_out(other, answers, y, floor=EQUAL * other.entry.floor)
    as_good = held.body <= best.body and not ahead(best, held, 1.0)
    smaller = poles.k + len(system.c) < free and as_good
    if not smaller and not ahead(held, best, POLE):
        return None
    b = poles.centre.shape[1]
    real, centre = (torch.from_numpy(np.r_[p[0], -p[0]]) for p in (poles.real, poles.centre))
    square = torch.from_numpy(np.r_[poles.square[0], poles.square[0]])
    ends = np.cumsum([poles.real.shape[1], b, b])
    r, slope, value, tail = np.split(system.c[:, 0] / 2, ends)
    forms = []
    for part, sign in (("real", 1), ("imaginary", -1)):
        own = tail * (1 + sign * (-1.0) ** np.arange(len(tail)))
        c = np.r_[r, -sign * r, slope, -sign * slope, value, sign * value, own]
        domain = float(x.min()), float(x.max())
        forms.append(ConjugateForm(real, centre, square, torch.from_numpy(c), domain, part))
    model = FormModel(tuple(forms), request.scale)
    name = race.entry.name
    mine = beside(other, name, held, delivered=True)
    others = (each._replace(delivered=False) for each in compared(other))
    found = closed(race, signal, model, name, None)
    return found._replace(significant=True, comparison=(mine, *others))
