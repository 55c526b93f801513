"""A closed-form fit in words: one report, said alike by `summary()`, notebooks and the terminal.

Its order is that of the questions: what is y, how well, where does it diverge, what has no answer
and why, what is to be doubted, what to do next. Every sentence follows from the model that answers.
"""

import cmath
import html
import math
from collections.abc import Sequence
from itertools import islice

import torch

from zeroproof.estimators.closed_form import ClosedForm, Compared
from zeroproof.estimators.fitted import Fitted
from zeroproof.estimators.model import FormModel, ReadoutModel
from zeroproof.solve.poles import PoleTable, rounded, with_error
from zeroproof.solve.race import SIGNIFICANT

__all__ = ["described", "report", "summary", "summary_html"]

_TARGETS = {"y": "y", "square": "y²", "log": "log y"}
_SHOWN = 8  # poles, columns
_OUTPUTS = 4  # whose poles are listed
_CAUGHT, _LOST = 0.9, 0.02  # of labelled and of finite rows: fewer, or more, contradict the model
_FEW_ROWS, _ROWS_EACH = 30, 5  # below these, in all and for each coefficient, rows are few
_TOO_MANY = 0.05  # of the finite rows
_POOR = 0.9  # of the constant's error
_REAL = 1e-12  # of the half range: a smaller imaginary part is rounding
_MANY, _EVEN = 6, 0.5  # real poles; spread of the logarithms of their ratios, over the mean
_PROBES = 2000  # places in the box of the data where the sign of D is looked at
# what to import where a model that is not delivered does better
_TOOLS = {
    "gradient boosting": "gradient boosting, sklearn.ensemble.HistGradientBoostingRegressor",
    "linear": "linear regression, sklearn.linear_model.LinearRegression",
    "line": "linear regression, sklearn.linear_model.LinearRegression",
    "ridge": "ridge regression, sklearn.linear_model.RidgeCV",
}


def summary(fitted: Fitted) -> str:
    """Return the report, one line for each answer."""
    return "\n".join(f"{heading}: {said}" for heading, said in report(fitted))


def summary_html(fitted: Fitted) -> str:
    """Return the report as a list of HTML."""
    lines = (
        f"<dt><b>{html.escape(heading)}</b></dt><dd>{html.escape(said)}</dd>"
        for heading, said in report(fitted)
    )
    return f"<dl>{''.join(lines)}</dl>"


def report(fitted: Fitted) -> list[tuple[str, str]]:
    """Return headings and what is said below each.

    | heading | what is said |
    |---|---|
    | What y is | the formula, and of which columns |
    | How well | error on unseen rows ± its standard error, beside plain models |
    | Where it diverges | poles ± standard error, or that there are none |
    | What is ⊥ | which inputs have no answer, and why |
    | What to doubt | rows left out, what was not tried, few rows, extrapolation |
    | What to do next | the better tool, if there is one; what would help |
    """
    doubts, advice = _doubts(fitted), _advice(fitted)
    return [
        ("What y is", f"{described(fitted)}."),
        ("How well", " ".join(_quality(fitted.fit, fitted.groups))),
        ("Where it diverges", " ".join(_divergence(fitted))),
        ("What is ⊥", " ".join(_bottom(fitted))),
        ("What to doubt", " ".join(doubts) or "Nothing that the rows show."),
        ("What to do next", " ".join(advice) or "Test it on rows that it has not seen."),
    ]


def described(fitted: Fitted) -> str:
    """Return one clause about the model: y = ..., of which columns."""
    fit, names = fitted.fit, fitted.names
    if isinstance(fit.model, FormModel):
        forms = enumerate(fit.model.forms)
        return "; ".join(f"{fitted.called(j)} = {form.described(names[0])}" for j, form in forms)
    recipe = fit.recipe
    if recipe is None:
        widths = len(fit.model.a), len(fit.model.b)
        source = f"a {fit.name}" if "trunk" in fit.name else "a module"
        return f"y = N / D with {widths[0]} and {widths[1]} weights of the features of {source}"
    p, q = recipe.size
    if fit.model.centres is not None:
        places = fit.model.centres.tolist()
        names = [*names, *(f"distance to ({', '.join(f'{v:.6g}' for v in at)})" for at in places)]
    entering = [
        name if transform == "identity" else _function(transform, name)
        for i, (name, transform) in enumerate(zip(names, recipe.transforms, strict=True))
        if i not in recipe.linear
    ]
    of, target = _listed(entering), _TARGETS[recipe.target]
    if fit.model.scale < 0:
        target = target.replace("y", "(-y)")
    if recipe.family == "polynomial" and not q and not recipe.linear:
        if not p:
            return f"{target} is constant"
        penalised = ", with a ridge penalty" if fit.name.startswith("ridge") else ""
        kind = f"a polynomial of {'total ' if len(names) > 1 else ''}degree {p} in"
        kind = "linear in" if p == 1 else kind
        return f"{target} is {kind} {of}{penalised}"
    kinds = {
        "polynomial": f"polynomials of total degree ({p}, {q})",
        "chebyshev": f"Chebyshev polynomials of degree ({p}, {q}) in each column",
        "random": f"{p} random tanh waves",
        "fourier": f"{p} random cosines",
    }
    text = f"{target} = N / D, {kinds[recipe.family]}" + (f" in {of}" if of else "")
    if recipe.linear:
        text += f"; N linear in {_listed([names[i] for i in recipe.linear])}, D free of them"
    if fit.model.b.shape[1] > 1:
        text += "; one denominator for each output"
    return text


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more columns" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _function(transform: str, name: str) -> str:
    if transform == "trig":
        return f"cos({name}), sin({name})"
    return f"1/{name}" if transform == "inverse" else f"{transform}({name})"


def _quality(fit: ClosedForm, groups: int) -> list[str]:
    said = [f"Unseen rows were held out by groups, {groups} of them."] if groups else []
    if fit.comparison:
        ours, *others = fit.comparison
        listed = ", ".join(f"{each.name} {rounded(each.error, each.spread, 4)}" for each in others)
        said.append(
            "Root mean square error on unseen rows, that of the best constant being 1: "
            + rounded(ours.error, ours.spread, 4)
            + (f"; beside it: {listed}." if listed else ".")
        )
    if math.isfinite(fit.relative):
        said.append(f"Median relative error on unseen rows: {fit.relative:.2g}.")
    if fit.error > 0 and fit.shell > 4 * fit.error:
        times = math.sqrt(fit.shell / fit.error)
        said.append(
            f"On the outermost tenth of the rows, an extrapolation, errors are {times:.2g} times "
            "as large."
        )
    if fit.polished:
        said.append("Its last step was a least-squares fit of y itself.")
    return said or ["No row could be spared to measure it."]


def _divergence(fitted: Fitted) -> list[str]:
    fit, model = fitted.fit, fitted.fit.model
    if model.constant_denominator:
        told = [f"It has {branch}." for branch in fit.branches]
        forms = model.forms if isinstance(model, FormModel) else ()
        told += filter(None, (form.divergence(fitted.names[0]) for form in forms))
        return told or ["Nowhere: the denominator is constant."]
    if model.systems:
        return _systems(fitted, model.outputs)
    if isinstance(model, ReadoutModel) and not model.is_real:
        return ["Where D = 0; the poles of complex y are listed for one column of rational form."]
    if len(fitted.columns) > 1:
        return [_curves(fitted)]
    count = model.denominators
    said = []
    for output in range(min(count, _OUTPUTS)):
        said += _poles_of(fitted, output, f"{fitted.called(output)}: " if count > 1 else "")
    if count > _OUTPUTS:
        said.append(f"Further outputs: poles(output={_OUTPUTS}), …")
    said = [f"It has {branch}." for branch in fit.branches] + said
    target = getattr(model, "target", "y")
    if not len(fitted.pole_table(0).position):
        return said
    if target == "square":
        said.append("There y² has the pole: y grows like its root, |x - p|^(-m/2).")
    elif target == "log":
        said.append("There log y has the pole: y grows or vanishes exponentially.")
    return said


def _systems(fitted: Fitted, count: int) -> list[str]:
    """List poles in s, and say whether systems are stable, and passive on the data."""
    said, name, (low, high) = [], fitted.names[0], fitted.domain[:, 0].tolist()
    x = torch.linspace(low, high, _PROBES, dtype=torch.float64)
    if low > 0:
        log = torch.linspace(math.log(low), math.log(high), _PROBES, dtype=torch.float64)
        x = torch.cat([x, log.exp().clamp(low, high)])
    for j in range(min(count, _OUTPUTS)):
        table, of = fitted.pole_table(j), f"{fitted.called(j)}: " if count > 1 else ""
        p = table.position
        if not j or not fitted.fit.shared:
            error = torch.zeros(()) if table.position_se is None else table.position_se
            at_zero = p.abs() <= 2 * error
            stable = "all Re s < 0, stable" if (p.real < 0).all() else "not all Re s < 0, unstable"
            if at_zero.any() and (p.real < 0)[~at_zero].all():
                stable = "one at s = 0 within its error, which integrates; all others Re s < 0"
            listed = "; ".join(_rows(table, p.imag >= 0)) or "none"
            prefix = "" if fitted.fit.shared else of
            said.append(
                f"{prefix}Poles in s = i {name}, with their conjugates: {listed}: {stable}."
            )
        # a sharp resonance lies between the places of a grid
        at = torch.cat([x, p.imag[(p.imag > low) & (p.imag < high)]])[:, None]
        N, D = fitted.tuples(at)
        real = (N[:, j] / D[:, j]).real
        least = int(real.argmin())
        error = fitted.errors(at[least : least + 1])[0].expand(count)[j]
        kind = "passive" if real[least] >= 0 else "not passive"
        if -2 * error <= real[least] < 0:
            kind = "passive within its error"
        said.append(
            f"{of}Least real part on the data {float(real[least]):.3g}, at {name} = "
            f"{float(at[least, 0]):.4g}: {kind}, if this is the impedance or admittance of one "
            "port."
        )
    return said


def _curves(fitted: Fitted) -> str:
    low, high = fitted.domain
    drawn = torch.Generator().manual_seed(0)
    box = torch.rand(_PROBES, len(low), generator=drawn, dtype=torch.float64) * (high - low) + low
    D = fitted.tuples(box).D
    sides = ((D > 0).any(0) & (D < 0).any(0)).any()
    if not bool(sides):
        return "Nowhere: D keeps its sign between the smallest and the largest values."
    two = len(fitted.columns) == 2
    where = "lines, pole_curve()" if two else "surfaces; predict tells which rows are near"
    return f"Where D = 0, which changes its sign among the data: {where}."


def _poles_of(fitted: Fitted, output: int, prefix: str) -> list[str]:
    low, high = fitted.domain[:, 0].tolist()
    name, table = fitted.names[0], fitted.pole_table(output)
    p, half = table.position, (high - low) / 2
    real = table.inside if table.inside is not None else p.imag == 0
    near = (p.real >= low) & (p.real <= high) & (p.imag.abs() <= half) & ~real
    paired = fitted.fit.model.is_real
    if paired:
        near &= p.imag > 0
    said = []
    listed = _rows(table, real & ~table.spurious)
    if listed:
        said.append(f"{prefix}At {name} = {'; '.join(listed)}.")
    else:
        said.append(f"{prefix}No pole among the data, {name} from {low:g} to {high:g}.")
    apart = (p.real - (low + high) / 2).abs() - half
    outside = (p.imag.abs() <= _REAL * half) & (apart > 0) & (apart < half) & ~table.spurious
    if table.significance is not None:
        outside &= ~(table.significance <= SIGNIFICANT)  # nan: not known
    listed = _rows(table, outside)
    if listed:
        said.append(
            f"Beyond the data, at {name} = {'; '.join(listed)}; such poles stand for all that lies "
            "there, and ± does not cover that."
        )
    listed = _rows(table, near & ~table.spurious)
    if listed and not fitted.fit.branches:  # beside a branch point they stand for its cut
        pairs = "with their conjugates, " if paired else ""
        said.append(
            f"Complex poles beside the data, {pairs}resonances of half width |Im {name}|: "
            f"{'; '.join(listed)}."
        )
    return said


def _rows(table: PoleTable, kept: torch.Tensor) -> list[str]:
    nan = torch.full((len(kept),), torch.nan)
    errors = [nan if e is None else e for e in (table.position_se, table.residue_se)]
    columns = (table.position, table.residue, table.multiplicity, *errors)
    rows = list(zip(*(column[kept].tolist() for column in columns), strict=True))
    said = [_pole(*row) for row in islice(rows, _SHOWN)]
    return said + ([f"{len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else [])


def _pole(
    position: complex, residue: complex, multiplicity: int, position_se: float, residue_se: float
) -> str:
    text = with_error(position, position_se)
    if multiplicity > 1:
        text += f" of multiplicity {multiplicity}"
    if cmath.isfinite(residue):  # that of a function of y has none
        text += f" (residue {with_error(residue, residue_se)})"
    return text


def _bottom(fitted: Fitted) -> list[str]:
    fit, config = fitted.fit, fitted.thresholds
    said = []
    undefined = _undefined(fitted)
    if undefined:
        said.append(f"Where {' or '.join(undefined)}: the function is not defined there.")
    if fit.model.constant_denominator:
        if not undefined:
            said.append("No finite input: the denominator is constant.")
    else:
        if fitted.spread:
            said.append(
                "Where the standard error of y exceeds |y| and the typical size of y, "
                f"{config.scale:.3g}; in the gap where it exceeds a tenth of the larger."
            )
        said.append(
            f"Where |y| would exceed {config.scale / config.tau_infer:.2g}, so near D = 0 that no "
            f"digit is known; in the gap beyond {config.scale / config.tau_train:.2g}."
        )
    if fitted.affine:
        said.append("Where D is not above 0, beyond a pole.")
    labels = fitted.labels
    if labels is not None and labels.infinite + labels.bottom:
        counts = ((labels.infinite, "±inf"), (labels.bottom, "nan, taken as ⊥"))
        kinds = " and ".join(f"{count} {what}" for count, what in counts if count)
        said.append(
            f"Labelled rows: {kinds}; {labels.caught:.1%} of them are answered ⊥, and "
            f"{labels.lost:.1%} of the finite ones. {label_verdict(fitted)}"
        )
    return said


def _undefined(fitted: Fitted) -> list[str]:
    """Return the sides of 0 without an answer, as of functions of log x."""
    found = []
    for j, name in enumerate(fitted.names):
        if float(fitted.domain[0, j]) >= 0:
            X = fitted.domain[1:].clone()
            X[0, j] *= -1
            if bool(fitted.tuples(X).N.isnan().any()):
                found.append(f"{name} < 0")
    return found


def label_verdict(fitted: Fitted) -> str:
    """Say what labelled rows are, by what the model does with them."""
    labels = fitted.labels
    if labels is None or not labels.infinite + labels.bottom:
        return ""
    if labels.edge is not None:
        column, value, above = labels.edge
        what = "saturated" if labels.infinite > labels.bottom else "censored or out of reach"
        side = "beyond" if above else "below"
        return f"They are {what} {side} {value:.4g} of {fitted.names[column]}, rather than a pole."
    if fitted.region is not None:
        return (
            "They fill a region of the inputs, which a classifier tells: saturated, censored or "
            "out of reach, rather than a pole."
        )
    if labels.caught < _CAUGHT:
        return "The inputs do not explain the others."
    if labels.lost > _LOST:
        return "Finite rows are lost to them: labels and targets contradict each other."
    return "They lie where the model diverges, or is 0/0: a projective model belongs here."


def _doubts(fitted: Fitted) -> list[str]:
    fit, said = fitted.fit, []
    if fit.comparison and fit.comparison[0].error > _POOR and fit.name != "constant":
        said.append("It explains little more than a constant.")
    if _constant(fit):
        said.append("The columns explain nothing of y on unseen rows.")
    if fit.left_out:
        rows = ", ".join(str(row + 1) for row in fit.left_out[:_SHOWN])
        more = f" and {len(fit.left_out) - _SHOWN} more" if len(fit.left_out) > _SHOWN else ""
        said.append(f"{len(fit.left_out)} rows were left out as outliers (from 1: {rows}{more}).")
    if _few(fitted):
        said.append(f"Few rows: {fitted.rows} for {fit.model.free} coefficients.")
    labels = fitted.labels
    if labels is not None and fitted.region is None and labels.lost > _TOO_MANY:
        said.append(
            f"{labels.lost:.0%} of the finite rows are answered ⊥: this fit does not know them."
        )
    if fit.crosses:
        said.append(
            "A pole among the rows, which the affine topology has not, does clearly better."
        )
    if fit.cut:
        said.append(f"Not tried within the budget: {_listed(fit.cut)}.")
    if fit.model.systems and _evenly_spread(fitted.pole_table(0)):
        said.append(
            "So many real poles, spread evenly over the decades, may stand for a law that is no "
            "rational function: a diffusion (Warburg) or constant-phase element."
        )
    weak = _weak_poles(fitted)
    if weak:
        said.append(f"The noise could have made {weak} of the poles.")
    if fit.alternates:
        others = len(fit.alternates)
        models = f"{others} larger model{'s' if others > 1 else ''}"
        low, high = fitted.domain
        beyond = torch.stack([low - (high - low) / 4, high + (high - low) / 4])
        apart = float(fitted.disagreement(beyond).max())
        found = f"differ by up to {apart:.2g} of the answer" if apart else "agree nearby"
        said.append(
            f"On unseen rows {models} do{'es' if others == 1 else ''} as well; a quarter of the "
            f"range outside the data they {found}."
        )
    return said


def _evenly_spread(table: PoleTable) -> bool:
    """Tell whether many real poles lie at nearly equal ratios, as those of a cut do."""
    p = table.position
    if len(p) < _MANY or bool((p.imag != 0).any()):
        return False
    gaps = p.abs().log().sort().values.diff()
    ends = len(p) // 10  # of many, those at the ends lie ever farther apart
    gaps = gaps[ends : len(gaps) - ends]
    return bool(gaps.std() < _EVEN * gaps.mean())


def _advice(fitted: Fitted) -> list[str]:
    fit, said = fitted.fit, []
    better = better_tool(fit.comparison)
    if fit.crosses:
        said.append("Let the fit cross it: topology='projective'.")
    elif better is not None:
        said.append(
            f"Take {_TOOLS.get(better.name, better.name)} for predictions: it is the better tool "
            "here, ahead by more than a standard error."
        )
    elif _constant(fit):
        said.append("Measure what else y may depend on, or more rows.")
    elif fit.model.constant_denominator and fit.comparison and not fit.cut:
        said.append("Nothing here needs a pole: a plain model does it.")
    if fit.left_out:
        said.append("Look at the rows left out: left_out_, or that column of rows.csv.")
    if _unexplained(fitted):
        said.append("Were they not measured? Then leave them out: missing='drop', --nan missing.")
    if fit.cut:
        said.append("Give it more time: time_budget.")
    if _few(fitted):
        said.append("Measure more rows, most of all where y changes fast.")
    elif _weak_poles(fitted):
        said.append("Measure more rows near the poles.")
    one = fit.model.systems or not fit.model.is_real
    if fit.model.outputs == 2 and not one and not fit.model.constant_denominator:
        said.append(
            "If the two targets are real and imaginary part of one signal, declare them: complex "
            "y, --complex."
        )
    return said


def better_tool(comparison: tuple[Compared, ...]) -> Compared | None:
    """Return the model that is ahead of the delivered one by a standard error, if there is one."""
    if not comparison:
        return None
    ours, *others = comparison
    tools = (each for each in others if each.name in _TOOLS)
    best = min(tools, key=lambda each: each.error, default=None)
    if best is None or best.error + max(best.spread, ours.spread) >= ours.error:
        return None
    return best


def _constant(fit: ClosedForm) -> bool:
    return fit.name == "constant" and bool(fit.comparison)


def _few(fitted: Fitted) -> bool:
    return 0 < fitted.rows < max(_FEW_ROWS, _ROWS_EACH * min(fitted.fit.model.free, 20))


def _unexplained(fitted: Fitted) -> bool:
    labels = fitted.labels
    if labels is None or fitted.region is not None or not labels.infinite + labels.bottom:
        return False
    return labels.caught < _CAUGHT


def _weak_poles(fitted: Fitted) -> int:
    """Count listed poles among the data whose strength is not clear of 0."""
    model = fitted.fit.model
    complex_head = isinstance(model, ReadoutModel) and not model.is_real
    if len(fitted.columns) != 1 or complex_head or fitted.fit.model.constant_denominator:
        return 0
    table = fitted.pole_table(0)
    if table.significance is None or table.inside is None:
        return 0
    return int((table.inside & ~table.spurious & (table.significance < SIGNIFICANT)).sum())
