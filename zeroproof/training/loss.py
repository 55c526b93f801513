"""The combined objective: fit, margin, sign and rejection in one callable."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zeroproof._checks import in_range, one_of, positive
from zeroproof.defaults import (
    GAMMA,
    LAMBDA_MARGIN,
    LAMBDA_REJECTION,
    LAMBDA_SIGN,
    TARGET_COVERAGE,
    TAU_SING,
    TAU_TRAIN,
    TEMPERATURE,
)
from zeroproof.losses._chunks import Recipe, usual
from zeroproof.losses._fused import Plan, Sums, fused_total, fusible
from zeroproof.losses._reduction import Parts, Terms, finite_rows, mean, parts, weighted
from zeroproof.losses._traced import Weights, traceable, traced_total
from zeroproof.losses.coverage import rejection_loss, soft_values
from zeroproof.losses.implicit import NORMALIZERS, implicit_values
from zeroproof.losses.margin import margin_values
from zeroproof.losses.sign import VARIANTS, sign_values
from zeroproof.projective.angle import SCORES, denominator_score
from zeroproof.projective.gauge import widen

__all__ = ["SCMTrainingLoss"]

Tuples = tuple[Tensor, Tensor]
FourTensors = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class SCMTrainingLoss:
    r"""Total loss of a projective model.

    Formula: L = L_fit + λ_margin·L_margin + λ_sign·L_sign + λ_rejection·max(0, target -
    coverage)², with `implicit_loss`, `margin_loss`, `sign_consistency_loss` and the
    `soft_coverage` of the outputs at τ_train. The gradient policy acts on each of the first three
    as it leaves that loss, and never on the last.

    Any callable of the form `loss_fn(outputs=(N, D), targets=(Y_n, Y_d))` may stand in its place.
    Change a field with `dataclasses.replace`.

    Args:
        lambda_margin: λ_margin; a weight of 0 skips its part and the work for it.
        lambda_sign: λ_sign. Use 0 where +∞ and -∞ are one point: poles whose sides differ in sign.
        lambda_rejection: λ_rejection.
        tau_train: τ_train of margin and coverage, in the units of the score.
        tau_sing: τ_sing, which targets are singular.
        gamma: γ of the fit.
        target_coverage: The share of finite answers asked for.
        normalizer: Of the fit: `"detached"`, `"attached"` or `"chordal"`.
        oriented: Fit 2(1 - cos) instead, which tells +∞ from -∞ on all targets.
        relative_margin: Divide the margin's distance by τ_train.
        sign_variant: `"cosine"` or `"angle"`.
        score: `"denominator"` or `"angle"`, for margin and coverage.
        scale: Scale of the targets for the score `"angle"`, in the units of N / D.
        temperature: T of the soft coverage, in the units of the score.

    Raises:
        RangeError: A field outside what it may be.

    Examples:
        >>> loss_fn = SCMTrainingLoss(normalizer="chordal")
        >>> one, zero = torch.ones(2), torch.zeros(2)
        >>> loss_fn(outputs=(one, one), targets=(one, zero))
        tensor(0.7929)
    """

    lambda_margin: float = LAMBDA_MARGIN.value
    lambda_sign: float = LAMBDA_SIGN.value
    lambda_rejection: float = LAMBDA_REJECTION.value
    tau_train: float = TAU_TRAIN.value
    tau_sing: float = TAU_SING.value
    gamma: float = GAMMA.value
    target_coverage: float = TARGET_COVERAGE.value
    normalizer: str = "detached"
    oriented: bool = False
    relative_margin: bool = False
    sign_variant: str = "cosine"
    score: str = "denominator"
    scale: float = 1.0
    temperature: float = TEMPERATURE.value

    def __post_init__(self) -> None:
        for parameter in (
            LAMBDA_MARGIN,
            LAMBDA_SIGN,
            LAMBDA_REJECTION,
            TAU_TRAIN,
            TAU_SING,
            GAMMA,
            TARGET_COVERAGE,
            TEMPERATURE,
        ):
            in_range(getattr(self, parameter.name), parameter)
        one_of(self.normalizer, NORMALIZERS, "normalizer")
        one_of(self.sign_variant, VARIANTS, "sign_variant")
        one_of(self.score, SCORES, "score")
        positive(self.scale, "scale")

    def __call__(
        self,
        outputs: Tuples,
        targets: Tuples,
        tau_train: float | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the total loss, a scalar.

        Args:
            outputs: (N, D) of the model, `(*batch, k)` each, or D `(*batch, 1)`.
            targets: (Y_n, Y_d), as `lift_targets` gives them.
            tau_train: τ_train for this call instead of the field.
            mask: True where the sign of the target is known: `~isnan(y)`. It restricts the sign
                loss, and makes an oriented fit accept either sign elsewhere; nothing else.

        Raises:
            ShapeError: The shapes do not belong together.
            RangeError: τ_train is not legal.
        """
        recipe = self._recipe(tau_train)
        if recipe is not None:
            N, D, Y_n, Y_d = (widen(x) for x in (*outputs, *targets))
            tuples = (N, D, Y_n, Y_d)
            if torch.compiler.is_compiling():
                if not self.oriented and traceable(tuples, mask, recipe):
                    return traced_total(tuples, mask, recipe, self._weights())
            elif fusible(tuples, mask):
                return fused_total(tuples, mask, self._plan(recipe))
        return self._plain_total(outputs, targets, tau_train, mask)

    def _plain_total(
        self, outputs: Tuples, targets: Tuples, tau_train: float | None, mask: Tensor | None
    ) -> Tensor:
        return self._combined(self._means(outputs, targets, tau_train, mask))["total"]

    def _recipe(self, tau_train: float | None) -> Recipe | None:
        """Return what the one pass needs to know, `None` where it cannot stand in."""
        recipe = Recipe(
            normalizer="oriented" if self.oriented else self.normalizer,
            gamma=self.gamma,
            tau=self.tau_train if tau_train is None else tau_train,
            relative=self.relative_margin,
            score=self.score,
            scale=self.scale,
            temperature=self.temperature,
            tau_sing=self.tau_sing,
            sign_variant=self.sign_variant,
            margin=self.lambda_margin != 0,
            sign=self.lambda_sign != 0,
            coverage=self.lambda_rejection != 0,
        )
        return recipe if usual(recipe) else None

    def _weights(self) -> Weights:
        return Weights(
            self.lambda_margin, self.lambda_sign, self.lambda_rejection, self.target_coverage
        )

    def _plan(self, recipe: Recipe) -> Plan:
        def plain(tuples: FourTensors, mask: Tensor | None) -> dict[str, Terms]:
            return self._terms(tuples[:2], tuples[2:], recipe.tau, mask)

        def whole(tuples: FourTensors, mask: Tensor | None) -> Tensor:
            return self._plain_total(tuples[:2], tuples[2:], recipe.tau, mask)

        return Plan(recipe, plain, self._joined, whole)

    def _joined(self, sums: Sums) -> tuple[float, tuple[float, float, float, float]]:
        """Return the total, and its derivative by each of the four sums."""
        shares = [1 / weight if weight else 0.0 for weight in sums[1::2]]
        fit, margin, sign, coverage = (
            x * share for x, share in zip(sums[::2], shares, strict=True)
        )
        lacking = max(0.0, self.target_coverage - coverage)
        total = fit + self.lambda_margin * margin + self.lambda_sign * sign
        total += self.lambda_rejection * lacking**2
        return total, (
            shares[0],
            self.lambda_margin * shares[1],
            self.lambda_sign * shares[2],
            -2 * self.lambda_rejection * lacking * shares[3],
        )

    def components(
        self,
        outputs: Tuples,
        targets: Tuples,
        tau_train: float | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `total`, and without their λ `fit`, `margin`, `sign`, `rejection`; 0: skipped.

        `masked_rows` is the number of rows left out because N, D or a target is not finite there.
        """
        means = self._means(outputs, targets, tau_train, mask)
        return {**self._combined(means), "masked_rows": _masked_rows(outputs, targets).total}

    def parts(
        self,
        outputs: Tuples,
        targets: Tuples,
        tau_train: float | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Parts]:
        """Return sum and weight of `fit`, `margin`, `sign` and `coverage`, those not skipped.

        Those of `masked_rows` are the rows left out and all rows. Parts of several batches or ranks
        add up entry by entry; `combine` makes the loss of all of them.
        """
        terms = self._terms(outputs, targets, tau_train, mask)
        counted = {name: parts(term) for name, term in terms.items()}
        return {**counted, "masked_rows": _masked_rows(outputs, targets)}

    def combine(self, parts: dict[str, Parts]) -> dict[str, Tensor]:
        """Return what `components` returns, from parts that were added up."""
        means = {
            name: total / torch.where(weight > 0, weight, 1)
            for name, (total, weight) in parts.items()
            if name != "masked_rows"
        }
        return {**self._combined(means), "masked_rows": parts["masked_rows"].total}

    def _means(
        self, outputs: Tuples, targets: Tuples, tau_train: float | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        terms = self._terms(outputs, targets, tau_train, mask)
        return {name: mean(term) for name, term in terms.items()}

    def _combined(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        total = means["fit"]
        parts = {"fit": total}
        for name, factor in (
            ("margin", self.lambda_margin),
            ("sign", self.lambda_sign),
            ("rejection", self.lambda_rejection),
        ):
            if factor == 0:
                parts[name] = total.new_zeros(())
                continue
            if name == "rejection":
                parts[name] = rejection_loss(means["coverage"], self.target_coverage)
            else:
                parts[name] = means[name]
            total = total + factor * parts[name]
        return {**parts, "total": total}

    def _terms(
        self, outputs: Tuples, targets: Tuples, tau_train: float | None, mask: Tensor | None
    ) -> dict[str, Terms]:
        N, D = outputs
        tau = self.tau_train if tau_train is None else tau_train
        fitted = targets
        if self.oriented and mask is not None:
            fitted = _nearer_of_two_signs(outputs, targets, mask)
        fit = implicit_values(
            N, D, *fitted, self.gamma, normalizer=self.normalizer, oriented=self.oriented
        )
        terms = {"fit": weighted(*fit)}
        if self.lambda_margin:
            margin = margin_values(
                D, tau, N, relative=self.relative_margin, score=self.score, scale=self.scale
            )
            terms["margin"] = weighted(*margin)
        if self.lambda_sign:
            sign = sign_values(N, D, *targets, self.tau_sing, variant=self.sign_variant)
            terms["sign"] = weighted(*sign, mask=mask)
        if self.lambda_rejection:
            terms["coverage"] = self._covered(N, D, tau)
        return terms

    def _covered(self, N: Tensor, D: Tensor, tau: float) -> Terms:
        finite = torch.isfinite(N) & torch.isfinite(D)
        # safe before the score, whose own division would answer nan with nan gradients
        score = denominator_score(
            torch.where(finite, N, 1),
            torch.where(finite, D, 1),
            self.score,
            self.scale,
        )
        score = torch.where(finite, score, -torch.inf)
        return weighted(soft_values(score, tau, self.temperature), torch.ones_like(finite))


def _masked_rows(outputs: Tuples, targets: Tuples) -> Parts:
    rows = finite_rows(*(widen(x.detach()) for x in (*outputs, *targets)))
    return Parts((~rows).sum(), torch.full_like(rows, fill_value=True).sum())


def _nearer_of_two_signs(outputs: Tuples, targets: Tuples, mask: Tensor) -> Tuples:
    """Turn targets of unknown sign to the side of the outputs: 1 - cos becomes 1 - abs(cos)."""
    N, D = (widen(x.detach()) for x in outputs)
    Y_n, Y_d = (widen(x) for x in targets)
    along = N * Y_n.conj() + D * Y_d.conj()
    along = along.real if along.is_complex() else along
    turn = torch.where(~mask & (along < 0), -1, 1)
    return Y_n * turn, Y_d * turn
