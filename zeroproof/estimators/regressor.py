"""ProjectiveRegressor: rational functions and their poles behind fit, predict and score."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroproof._checks import one_of, positive
from zeroproof._extras import require
from zeroproof.errors import (
    DataError,
    NotFittedError,
    RangeError,
    RunFolderError,
    ZeroProofError,
)
from zeroproof.estimators.batches import sampled, solved_from
from zeroproof.estimators.closed_form import FAILURES, ClosedForm, fit_closed_form
from zeroproof.estimators.fitted import Fitted, skill
from zeroproof.estimators.labels import Labels, find_edge
from zeroproof.estimators.options import (
    Asked,
    as_array,
    checked_request,
    checked_rows,
    columns_to_keep,
    read_groups,
    read_targets,
    read_weight,
    rows_of,
)
from zeroproof.estimators.raced import fit_by_race, raced
from zeroproof.estimators.stored import load, save
from zeroproof.estimators.summary import summary, summary_html
from zeroproof.estimators.thresholds import limits_of
from zeroproof.estimators.uncertainty import spread_of
from zeroproof.inference import InferenceConfig, StrictResult
from zeroproof.projective.tuples import target_scale
from zeroproof.solve.poles import PoleTable
from zeroproof.solve.race import Budget

require("sklearn", extra="sklearn")
from sklearn.base import BaseEstimator, RegressorMixin  # noqa: E402  (said by name if it is absent)
from sklearn.exceptions import NotFittedError as SklearnNotFittedError  # noqa: E402
from sklearn.utils.validation import validate_data  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402  (comes with scikit-learn)

__all__ = ["ProjectiveRegressor"]

_SHOWN = 3000  # rows kept for pictures
_SMALL = 2_000_000  # numbers in X
_LEAST_SCALE = 1e-50  # of the largest target
_SMALLEST_MEDIAN = 1e-5  # of the large targets


class _NotFittedError(NotFittedError, SklearnNotFittedError):
    """Both families' error."""


@contextmanager
def _threads(X: Tensor) -> Iterator[None]:
    """Keep small problems in one thread: a second one doubles the CPU seconds and gains nothing."""
    before = torch.get_num_threads()
    if X.numel() > _SMALL:
        yield
        return
    try:
        torch.set_num_threads(1)
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


class ProjectiveRegressor(RegressorMixin, BaseEstimator):
    r"""Fit y = N(x) / D(x) in closed form, poles included.

    Nothing is trained: given features H of the inputs, N = H a and D = H b are the extreme singular
    vector of small triangular factors. What the features are, which columns enter linearly and how
    large the model is, is found on held-out rows, unless it is said. No singular row is needed; if
    y holds ±inf or nan they are used.

    Args:
        features: `"auto"` searches transforms of columns and target, linear columns, polynomials
            and random features; `"chebyshev"` (degree in each column), `"polynomial"` (total
            degree), `"random"` (tanh waves), `"fourier"` (cosines), or an `nn.Module` that maps
            `(n, d)` to `(n, features)` and is used as it is.
        degrees: (p, q) of N and D, or one number for both, for polynomials; found if None.
        topology: `"projective"`: +∞ and -∞ are one point, and a fit may cross a pole.
            `"affine"`: they differ; D keeps its sign on the data, and beyond a pole is ⊥.
            `"auto"`: projective.
        shared_denominator: One D for all outputs (True), one each (False), or whichever does
            better on held-out rows (`"auto"`).
        linear_in: Columns, by index or name, in which N is linear and of which D is free; found
            among others if None and features are `"auto"`. `[]`: none.
        scale: Scale s of y in tuple space: `"median"` of \|y\|, or a number in the units of y.
        weight_power: Of the polish: it minimises Σ w \|ŷ - y\|² / (1 + \|y/s\|²)^weight_power; 0
            is ordinary least squares, 1 relative errors.
        polish: `"auto"`: always when degrees are given, else only if the objective falls on
            held-out rows; `"none"`.
        time_budget: CPU seconds of this process for the whole fit; what they did not suffice for
            is named in `fit_.cut`. The search estimates its steps from their size, so that the
            same seed gives the same answer.
        symmetry: Of complex y over one column, a frequency. `"conjugate"`: y is the response of a
            real system, H(s) at s = ix with real coefficients, so that poles are real or come in
            conjugate pairs; `poles`, `residues` and `roots` are then those in s, in the units of x.
            `"auto"`: that, unless free complex coefficients do better on held-out rows. `"none"`:
            free coefficients; poles are those in x.
        missing: nan in y is ⊥ of unknown sign (`"bottom"`), or such rows are left out (`"drop"`).
        random_state: Seed of held-out rows and random features; None is 0.
        verbose: Show in a terminal or notebook how much of the time budget is spent.

    Attributes:
        fitted_: Everything that answers rows; `fitted_.fit` says what was chosen and why.
        labels_: How many targets were ±inf, ⊥ or missing, which share of the labelled ones is
            answered ⊥ (`caught`), and which of the finite ones (`lost`).
        left_out_: Rows that no model explains, and that the fit left out: outliers.
        thresholds_: `InferenceConfig` with the angle score and the scale of y.

    Examples:
        >>> x = np.linspace(-1, 1, 300)[:, None]
        >>> model = ProjectiveRegressor().fit(x, np.tan(3 * x[:, 0]))
        >>> print(model.poles(within=True).real.round(9) + 0.0)
        [-0.52359878  0.52359878]
    """

    def __init__(
        self,
        features: Any = "auto",
        degrees: int | tuple[int, int] | None = None,
        topology: str = "auto",
        shared_denominator: bool | str = "auto",
        linear_in: Any = None,
        scale: str | float = "median",
        weight_power: float = 0.0,
        polish: str = "auto",
        time_budget: float = 10.0,
        missing: str = "bottom",
        random_state: Any = None,
        symmetry: str = "none",
        verbose: bool = False,
    ) -> None:
        self.features = features
        self.degrees = degrees
        self.topology = topology
        self.shared_denominator = shared_denominator
        self.linear_in = linear_in
        self.scale = scale
        self.weight_power = weight_power
        self.polish = polish
        self.time_budget = time_budget
        self.missing = missing
        self.random_state = random_state
        self.symmetry = symmetry
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit.

        Args:
            X: `(n, d)`, finite: an array, a pandas or polars frame, or a tensor.
            y: `(n,)` or `(n, k)`, real or complex; ±inf and nan are singular.
            sample_weight: `(n,)`, at least 0; a weight of 0 leaves a row out. For known standard
                errors σ of y: 1 / σ².
            groups: Labels, `(n,)`, numbers or text: of the sample, the day, the person that a row
                was measured on. Rows of one group are never fitted and held out at once. At
                most 30 are left out one by one, more in ten folds.
                All figures on unseen rows are then those on unseen groups.

        Raises:
            DataError: No row, rows of X that are not finite, only constant columns, an output
                without a finite target, y that is not numbers, fewer than two groups.
            ShapeError: X, y, sample_weight and groups do not belong together.
            RangeError: An option that is not legal, or a time budget too small for anything.

        Warns:
            UserWarning: Columns that tell nothing, fewer rows than features, an affine fit that
                crosses a pole all the same.
        """
        X = self._rows(X, reset=True)
        given = X.shape[1]
        outputs = tuple(map(str, getattr(y, "columns", ())))
        y, use = read_targets(y, len(X), self.missing)
        weight = weighted = read_weight(sample_weight, len(X))
        use &= weight > 0
        if not use.all():
            X, y, weight = X[use], y[use], weight[use]
        seen = list(getattr(self, "feature_names_in_", []))
        columns = columns_to_keep(X, seen)
        X = X if len(columns) == given else X[:, columns]
        if len(X) <= X.shape[1]:
            warnings.warn(
                f"{len(X)} rows for {X.shape[1]} columns: a smaller basis is used", stacklevel=2
            )
        told = np.isfinite(y.reshape(len(y), -1)).T
        if not all((X[rows] != X[rows][:1]).any() for rows in told):
            raise DataError("every output must have finite targets at two inputs, got one input")
        scale = self._scale(y)
        asked = Asked(**{name: getattr(self, name) for name in Asked._fields})
        request = checked_request(asked, y, seen, columns, scale)
        group = None if groups is None else read_groups(groups, use, y)
        rows = rows_of(X, y, weight, scale, group)
        names = tuple(str(seen[i]) if seen else f"x{i}" for i in columns)
        quiet = warnings.catch_warnings(), np.errstate(all="ignore")
        with quiet[0], quiet[1], _threads(rows.X), self._bar(request.budget) as bar:
            request = request._replace(clock=Budget(request.budget, bar))
            warnings.simplefilter("ignore", UserWarning)  # candidates' own: few rows, common zeros
            try:
                fit = (fit_by_race if raced(rows, request) else fit_closed_form)(rows, request)
            except FAILURES as error:
                if isinstance(error, ZeroProofError):
                    raise
                raise DataError(
                    "X and y must allow some fit in float64, got none on "
                    f"{len(X)} rows: change their units, or leave extreme rows out"
                ) from error
            fit = fit._replace(cut=tuple(request.clock.cut))
            explained = rows.weight.clone()
            explained[list(fit.left_out)] = 0
            spread = spread_of(fit, rows.X, rows.y * scale, explained)
        self.left_out_ = np.flatnonzero(use)[list(fit.left_out)]
        fit = fit._replace(left_out=tuple(self.left_out_.tolist()))
        thresholds, region = limits_of(
            fit, rows.X, rows.y, scale, known=bool(spread), seed=request.seed
        )
        fitted = Fitted(
            fit=fit,
            thresholds=thresholds,
            columns=tuple(columns),
            names=names,
            domain=torch.stack([rows.X.amin(0), rows.X.amax(0)]),
            affine=request.affine,
            sign=self._orientation(fit, rows.X) if request.affine else torch.ones(1).double(),
            flat=y.ndim == 1,
            seen=tuple(map(str, seen)) or given,
            spread=spread,
            region=region,
            rows=len(X),
            outputs=outputs,
            groups=0 if group is None else len(np.unique(group)),
        )
        bottom = fitted.strict(rows.X).bottom_mask
        singular = ~torch.isfinite(rows.y)
        self.labels_ = Labels(
            infinite=int(torch.isinf(rows.y).any(1).sum()),
            bottom=int(torch.isnan(rows.y).any(1).sum()),
            missing=int((~use & (weighted > 0)).sum()),
            caught=float(bottom[singular].double().mean()),
            lost=float(bottom[~singular & (explained > 0)[:, None]].double().mean()),
            edge=find_edge(rows.X, singular.any(1)),
        )
        self.fitted_ = fitted._replace(labels=self.labels_)
        part = np.random.default_rng(0).permutation(len(X))[:_SHOWN]
        self._shown = X[part], y[part], np.isin(np.flatnonzero(use)[part], self.left_out_)
        return self

    @contextmanager
    def _bar(self, seconds: float) -> Iterator[Any]:
        if not self.verbose:
            yield None
            return
        tqdm = require("tqdm.auto", extra="train").tqdm
        form = "{desc}: {n:.1f} of {total:.0f} CPU s |{bar}|"
        with tqdm(total=seconds, desc="fit", bar_format=form, leave=False) as bar:
            yield bar

    def predict(self, X: Any, on_bottom: str | float = "nan", *, return_std: bool = False) -> Any:
        """Return N / D, `(n,)` or `(n, k)` as y was.

        Args:
            X: `(n, d)`; a row that is not finite is ⊥.
            on_bottom: What stands for ⊥: `"nan"`, a number, or `"raise"`.
            return_std: Return (answers, standard errors): how far the fit itself may be off, not
                how far a new measurement scatters. They grow without bound towards a pole; nan
                where they are not known.

        Raises:
            NotFittedError: Before `fit`.
            DataError: With `"raise"`, if an answer is ⊥.

        Warns:
            UserWarning: Rows outside the data where admissible fits disagree.
        """
        decoded: NDArray[Any]
        decoded, bottom, _ = self._answers(X)
        decoded = self._filled(decoded, bottom, on_bottom)
        if not return_std:
            return decoded
        error = self.fitted_.errors(self._seen(X))
        return decoded, error.expand(len(decoded), -1).numpy().reshape(decoded.shape)

    def _filled(
        self, decoded: NDArray[Any], bottom: NDArray[Any], on_bottom: str | float
    ) -> NDArray[Any]:
        if isinstance(on_bottom, str):
            if one_of(on_bottom, ("nan", "raise"), "on_bottom") == "raise" and bottom.any():
                first = np.flatnonzero(bottom.reshape(len(bottom), -1).any(1))
                raise DataError(
                    f"every answer must be finite, got ⊥ in {len(first)} rows, first {first[0]}"
                )
            return decoded
        if isinstance(on_bottom, bool) or not isinstance(on_bottom, int | float | np.number):
            raise RangeError(f"on_bottom must be 'nan', 'raise' or a number, got {on_bottom!r}")
        decoded[bottom] = on_bottom
        return decoded

    def predict_strict(self, X: Any) -> StrictResult:
        """Return answers with masks, arrays of the shape of y.

        Args:
            X: `(n, d)`; a row that is not finite is ⊥.
        """
        return StrictResult._make(self._answers(X))

    def _answers(self, X: Any) -> list[Any]:
        rows = self._seen(X)
        result = self.fitted_.strict(rows)
        self.fitted_.warn_outside(rows, stacklevel=4)
        return [(part[:, 0] if self.fitted_.flat else part).numpy() for part in result]

    def tuples(self, X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return ⟨N, D⟩ in the units of y: `(n, k)`, D `(n, 1)` where it is shared."""
        rows = self._seen(X)
        N, D = self.fitted_.tuples(rows)
        return N.numpy(), D.numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return 1 - E / E₀, E the mean squared chordal distance, E₀ that of the best constant.

        1 is perfect, 0 no better than one tuple for all rows. Rows with ±inf and nan count.
        """
        rows = self._seen(X)
        y, use = read_targets(y, len(rows), self.missing)
        weight = torch.from_numpy(read_weight(sample_weight, len(rows)) * use)
        N, D = self.fitted_.tuples(rows)
        targets, scale = torch.from_numpy(y.reshape(len(y), -1)), self.thresholds_.scale
        return skill(N / scale, D, targets / scale, weight)

    def poles(self, *, within: bool = False, output: int = 0, all: bool = False) -> NDArray[Any]:  # noqa: A002
        """Return the distinct poles of a model of one column, complex, sorted by real part.

        Args:
            within: Only those on [min x, max x]; random features and modules have no others.
            output: Which output, if their denominators differ.
            all: Spurious ones too (a zero of N cancels them).
        """
        table = self.pole_table(output=output)
        kept = torch.ones_like(table.spurious) if all else ~table.spurious
        if within:
            kept &= table.inside if table.inside is not None else False
        return table.position[kept].numpy()

    def residues(self, *, within: bool = False, output: int = 0, all: bool = False) -> NDArray[Any]:  # noqa: A002
        """Return the coefficients of 1 / (x - p) in the order of `poles`, in units of y times x."""
        table = self.pole_table(output=output)
        wanted = self.poles(within=within, output=output, all=all)
        return table.residue.numpy()[np.isin(table.position.numpy(), wanted)]

    def pole_table(self, *, output: int = 0) -> PoleTable:
        """Return all that is known of each pole: position, residue, standard errors."""
        self._must_be_fitted()
        self._one_column("poles()")
        return self.fitted_.pole_table(output)

    def roots(self, *, output: int = 0) -> NDArray[Any]:
        """Return the zeros of N of a model of one column, complex, by multiplicity."""
        self._must_be_fitted()
        self._one_column("roots()")
        return self.fitted_.roots(output).numpy()

    def pole_curve(self, *, output: int = 0, points: int = 201) -> list[NDArray[np.float64]]:
        """Return the lines D = 0 of a model of two columns, each `(k, 2)`, over the data's box.

        Only where D changes its sign: lines of even poles, as of 1 / u², are not seen.
        """
        self._must_be_fitted()
        count = len(self.fitted_.columns)
        if count != 2:
            raise RangeError(f"pole_curve() needs a model of two columns, got {count}")
        lines = self.fitted_.fit.model.pole_curve(self.fitted_.domain, output, points)
        return [line.numpy() for line in lines]

    @property
    def fit_(self) -> ClosedForm:
        """Return what was chosen, and `comparison`: the fit beside plain models on unseen rows."""
        self._must_be_fitted()
        return self.fitted_.fit

    def summary(self) -> str:
        """Say in words what y is, how well that is known, where it diverges, and what to doubt."""
        self._must_be_fitted()
        return summary(self.fitted_)

    def _repr_html_inner(self) -> str:
        """Return the summary for a notebook; before `fit`, scikit-learn's own picture."""
        if hasattr(self, "fitted_"):
            return summary_html(self.fitted_)
        return super()._repr_html_inner()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle | ({"text/html": self._repr_html_inner()} if "text/html" in bundle else {})

    def plot(self, X: Any = None, y: Any = None, ax: Any = None) -> Any:
        """Draw data and fit: a curve for one column, predictions against targets for several.

        Args:
            X: Rows to show; those of the fit by default (3000 at most; after `load`, give them).
            y: Their targets.
            ax: A `matplotlib.axes.Axes` to draw the upper panel alone into; of several targets an
                array or a list of them, one for each.

        Returns:
            A `matplotlib.figure.Figure`, which shows itself in a notebook, or `ax`.
        """
        self._must_be_fitted()
        if X is None:
            if not hasattr(self, "_shown"):
                raise DataError("plot() needs X and y after `load`, got none")
            X, y, left_out = self._shown
            return self.fitted_.picture(X, y, left_out=left_out, ax=ax)
        rows = self._rows(X, reset=False)[:, self.fitted_.columns]
        y, _ = read_targets(y, len(rows), "bottom")
        return self.fitted_.picture(rows, y, ax=ax)

    def save(self, path: str | Path) -> None:
        """Write the model into a folder: safetensors and JSON, no pickle; replaces one there."""
        self._must_be_fitted()
        save(self.fitted_, self.get_params(deep=False), Path(path))

    @classmethod
    def load(cls, path: str | Path, features: Any = None) -> "ProjectiveRegressor":
        """Read a model that `save` wrote.

        Args:
            path: The folder.
            features: The `nn.Module` whose weights were saved, if features were one.

        Raises:
            RunFolderError: It is no such folder, is damaged, or of another format version.
        """
        fitted, options, _ = load(Path(path), features)
        strange = sorted(options.keys() - cls().get_params().keys())
        if strange:
            raise RunFolderError(f"{path} must hold a whole model, but has an option {strange[0]}")
        model = cls(**options)
        model.fitted_, model.left_out_ = fitted, np.array(fitted.fit.left_out, dtype=int)
        if fitted.labels is not None:
            model.labels_ = fitted.labels
        seen = fitted.seen  # as scikit-learn's `validate_data` notes it at fit
        vars(model)["n_features_in_"] = seen if isinstance(seen, int) else len(seen)
        if not isinstance(seen, int):
            vars(model)["feature_names_in_"] = np.array(seen, dtype=object)
        return model

    def fit_batches(self, batches: Iterable[tuple[Any, Any]]) -> Self:
        """Fit rows that arrive in blocks (X, y), in memory that does not grow with their number.

        What to fit is found on a sample of the rows; the coefficients are then solved from all of
        them, which are read again for every sweep: a list, a DataLoader, an object with `__iter__`.
        Under `torch.distributed` every process passes its own blocks.
        """
        sample = sampled(batches)
        self.fit(sample.X, sample.y)
        self.fitted_ = solved_from(
            self.fitted_, batches, sample, self.missing, float(self.weight_power)
        )
        return self

    def __sklearn_tags__(self) -> Any:
        """Say that targets may have several columns."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @property
    def thresholds_(self) -> InferenceConfig:
        """Thresholds on the angle score, with the scale of y."""
        return self.fitted_.thresholds

    def _scale(self, y: NDArray[Any]) -> float:
        if isinstance(self.scale, str):
            one_of(self.scale, ("median",), "scale")
            scale, size = target_scale(torch.from_numpy(y)), np.abs(y[np.isfinite(y)])
            large = float(np.quantile(size, 0.95)) if len(size) else 0.0
            return large if scale < _SMALLEST_MEDIAN * large else scale  # most may be all but 0
        scale = float(positive(self.scale, "scale"))
        largest = float(np.abs(y[np.isfinite(y)]).max())
        if largest and not _LEAST_SCALE < scale / largest < 1 / _LEAST_SCALE:
            raise RangeError(f"scale must be of the size of y, {largest:.3g}, got {scale:.3g}")
        return scale

    def _orientation(self, fit: ClosedForm, X: Tensor) -> Tensor:
        """Return the sign of each D on most rows; warn where it is not that of all."""
        D = fit.model.tuples(X).D
        sign = torch.where(D.sign().sum(0) < 0, -1.0, 1.0).double()
        if fit.crosses or bool((D * sign < 0).any()):
            warnings.warn(
                "D changes its sign between rows: the data cross a pole, where the affine "
                "topology has no answer; use topology='projective'",
                stacklevel=3,
            )
        return sign

    def _rows(self, X: Any, *, reset: bool) -> NDArray[np.float64]:
        def read() -> Any:
            given = as_array(X)
            return validate_data(
                self, given, reset=reset, dtype=np.float64, ensure_all_finite=False
            )

        return checked_rows(read, X)

    def _seen(self, X: Any) -> Tensor:
        self._must_be_fitted()
        return torch.from_numpy(np.array(self._rows(X, reset=False)[:, self.fitted_.columns]))

    def _one_column(self, what: str) -> None:
        count = len(self.fitted_.columns)
        if count != 1:
            raise RangeError(
                f"{what} needs a model of one column, got {count}; "
                "pole_curve() shows where D = 0 for two"
            )

    def _must_be_fitted(self) -> None:
        if not hasattr(self, "fitted_"):
            raise _NotFittedError("ProjectiveRegressor must be fitted first: call fit(X, y)")
