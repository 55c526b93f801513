"""A closed-form fit in words."""

import cmath
import math
from collections.abc import Sequence
from itertools import islice

import torch

from zeroproof.estimators.closed_form import ClosedForm
from zeroproof.estimators.fitted import Fitted, known_poles
from zeroproof.estimators.model import FormModel, ReadoutModel
from zeroproof.estimators.polish import degrees_of
from zeroproof.estimators.regions import constant_denominator
from zeroproof.solve.forms import (
    BarycentricForm,
    CoefficientForm,
    Form,
    FractionForm,
    SigmoidForm,
)

__all__ = ["described", "summary"]

_TARGETS = {"y": "y", "square": "y²", "log": "log y"}
_SHOWN = 8  # poles
_FEW_CAUGHT = 0.9


def summary(fitted: Fitted) -> str:
    """Return a few lines: what was fitted, why, how good it is, where its poles lie."""
    fit, config = fitted.fit, fitted.thresholds
    lines = [f"{described(fit, fitted.names)}."]
    if len(fit.tried) > 1:
        lines.append(
            f"Chosen as the smallest of {len(fit.tried)} candidates that held-out rows cannot tell "
            "apart; rows outside the data bring a warning where these disagree."
        )
    angle, shell = math.sqrt(fit.error), math.sqrt(fit.shell)
    outer = f"; on the outer rows, an extrapolation, {shell:.1e}" if shell != angle else ""
    lines.append(
        f"On rows held out: root mean square angle {angle:.1e}, median relative error "
        f"{fit.relative:.1e}{outer}."
    )
    lines += _comparison(fit)
    if fit.left_out:
        shown = ", ".join(str(row + 1) for row in fit.left_out[:_SHOWN])
        more = f" and {len(fit.left_out) - _SHOWN} more" if len(fit.left_out) > _SHOWN else ""
        lines.append(
            f"Left out as outliers, which no model explains: {len(fit.left_out)} rows (from 1: "
            f"{shown}{more})."
        )
    if fit.polished:
        lines.append("Polished by least squares of the residual of y.")
    lines += _labels(fitted)
    if constant_denominator(fit):
        lines.append("The denominator is constant: no pole was found, a plain model would do.")
        return "\n".join(lines)
    if fitted.spread:
        lines.append(
            "An answer is ⊥ where its standard error exceeds its size (or the typical size of y, "
            "if that is larger), and in the gap where it exceeds a tenth of that."
        )
    lines.append(
        f"⊥ below the angle score {config.tau_infer:.1e} (|y| beyond "
        f"{config.scale / config.tau_infer:.1e}), in the gap below {config.tau_train:.1e}."
    )
    return "\n".join([*lines, *_poles(fitted)])


def _labels(fitted: Fitted) -> list[str]:
    """Say what became of rows that were labelled singular."""
    labels = fitted.labels
    if labels is None or not labels.infinite + labels.bottom:
        return []
    kinds = [
        f"{count} {what}"
        for count, what in ((labels.infinite, "±inf"), (labels.bottom, "nan, taken as ⊥"))
        if count
    ]
    said = (
        f"Labelled rows: {' and '.join(kinds)}; {labels.caught:.1%} of them are answered ⊥, "
        f"and {labels.lost:.1%} of the finite ones."
    )
    if fitted.region is not None:
        said += (
            " They fill a region of the inputs, which a classifier tells: saturated, censored or "
            "out of reach, rather than a pole."
        )
    elif labels.caught < _FEW_CAUGHT:
        said += " The inputs do not explain the others: were they not measured (missing='drop')?"
    return [said]


def _comparison(fit: ClosedForm) -> list[str]:
    """Say how well the fit does on unseen rows beside plain models."""
    if not fit.comparison:
        return []
    ours, *others = fit.comparison
    listed = ", ".join(f"{each.name} {each.error:.3g} ± {each.spread:.1g}" for each in others)
    beside = f" Beside it: {listed}." if listed else ""
    return [
        f"Error on unseen rows, where the best constant has 1: {ours.error:.3g} "
        f"± {ours.spread:.1g}.{beside}"
    ]


def described(fit: ClosedForm, names: Sequence[str]) -> str:
    """Return one clause about the model."""
    if isinstance(fit.model, FormModel):
        return "; ".join(map(_form, fit.model.forms)) + f" of {names[0]}"
    recipe = fit.recipe
    if recipe is None:
        return f"{_quotient(fit.model)} of the features of a module"
    p, q = recipe.size
    if fit.model.centres is not None:
        places = fit.model.centres.tolist()
        names = [*names, *(f"distance to ({', '.join(f'{v:.6g}' for v in at)})" for at in places)]
    kinds = {
        "polynomial": f"polynomials of total degree ({p}, {q})",
        "chebyshev": f"Chebyshev polynomials of degree ({p}, {q}) in each column",
        "random": f"{p} random tanh waves",
        "fourier": f"{p} random cosines",
    }
    entering = [
        name if transform == "identity" else f"{_function(transform)}({name})"
        for i, (name, transform) in enumerate(zip(names, recipe.transforms, strict=True))
        if i not in recipe.linear
    ]
    text = f"{_TARGETS[recipe.target]} = N / D, {kinds[recipe.family]}"
    text += f" in {', '.join(entering)}" if entering else ""
    if recipe.linear:
        text += f"; N linear in {', '.join(names[i] for i in recipe.linear)}, D free of them"
    if fit.model.b.shape[1] > 1:
        text += "; one denominator for each output"
    return text


def _function(transform: str) -> str:
    return {"trig": "cos, sin", "inverse": "1/"}.get(transform, transform)


def _quotient(model: ReadoutModel) -> str:
    return f"y = N / D with {len(model.a)} and {len(model.b)} weights"


def _form(form: Form) -> str:
    if isinstance(form, BarycentricForm):
        return f"rational function in barycentric form, {len(form.points)} support points"
    if isinstance(form, FractionForm):
        return f"sum of {len(form.poles)} simple poles and a polynomial of degree {len(form.a) - 1}"
    if isinstance(form, SigmoidForm):
        log = "log " if form.log else ""
        return (
            f"sigmoid from {float(form.low):.4g} to {float(form.high):.4g}, in units of the "
            f"target's scale, with the middle at {log}{float(form.middle):.6g} and slope "
            f"{float(form.slope):.4g}"
        )
    kind = "coefficients" if isinstance(form, CoefficientForm) else "factors"
    p, q = degrees_of(form)
    return f"rational function of degrees ({p}, {q}), by its {kind}"


def _poles(fitted: Fitted) -> list[str]:
    model = fitted.fit.model
    if len(fitted.columns) != 1 or (isinstance(model, ReadoutModel) and model.b.is_complex()):
        return []
    if isinstance(model, FormModel) and len(model.forms) > 1:
        return ["Each output has its own poles: poles(output=0), …"]
    low, high = fitted.domain[:, 0].tolist()
    table = known_poles(fitted, 0)
    p = table.position
    inside = ~table.spurious & (p.imag == 0) & (p.real >= low) & (p.real <= high)
    if not bool(inside.any()):
        return ["No pole between the smallest and the largest input."]
    nan = torch.full((len(p),), torch.nan)
    errors = (nan if e is None else e for e in (table.position_se, table.residue_se))
    columns = (*table[:4], *errors)
    listed = zip(*(column[inside].tolist() for column in columns), strict=True)
    shown = [_pole(*row) for row in islice(listed, _SHOWN)]
    left = int(inside.sum()) - len(shown)
    more = f" and {left} more" if left else ""
    target = getattr(model, "target", "y")
    of = "" if target == "y" else f" of {_TARGETS[target]}"
    return [f"Poles{of} on the data: {', '.join(shown)}{more}."]


def _pole(
    position: complex,
    residue: complex,
    strength: complex,
    multiplicity: int,
    position_se: float,
    residue_se: float,
) -> str:
    place = f"{position.real:.10g}{_error(position_se)}"
    if cmath.isnan(residue):  # the pole is that of a function of y
        return place
    name, value = ("residue", residue) if multiplicity == 1 else ("double, strength", strength)
    error = _error(residue_se) if multiplicity == 1 else ""
    return f"{place} ({name} {value.real if value.imag == 0 else value:.6g}{error})"


def _error(se: float) -> str:
    return "" if math.isnan(se) else f" ± {se:.1g}"
