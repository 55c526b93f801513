"""The combined objective: fit, margin, sign and rejection in one callable."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zeroproof._checks import in_range, one_of, positive, threshold, widen
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
from zeroproof.errors import RangeError
from zeroproof.losses.coverage import rejection_loss
from zeroproof.losses.gradients import (
    APART,
    LossRecipe,
    Parts,
    Terms,
    combined,
    finite_rows,
    loss_type,
    mean,
    parts,
    terms,
    weighted,
)
from zeroproof.losses.implicit import NORMALIZERS
from zeroproof.losses.sign import VARIANTS
from zeroproof.projective.angle import SCORES

__all__ = ["SCMTrainingLoss"]

Tuples = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class SCMTrainingLoss:
    r"""Total loss of a projective model.

    Formula: L = L_fit + λ_margin·L_margin + λ_sign·L_sign + λ_rejection·max(0, target -
    coverage)² + λ_separation·L_separation, with `implicit_loss`, `margin_loss`,
    `sign_consistency_loss` and the `soft_coverage` of the outputs at τ_train. The gradient policy
    acts on each part as it leaves that loss, and never on the coverage.

    Margin and coverage count entries (row, output) whose target is finite: Y_d other than 0, of
    whatever size. So no tuple costs less than ⟨±1, 0⟩ where the label is ±inf or ⊥, and a coverage
    is a share of the finite targets. A part that has nothing to count is a connected 0.

    L_separation = mean of softplus((0.1 - s) / 0.05) over finite targets + mean of
    softplus((s - 0.1) / 0.05) over singular ones (Y_d = 0), s the angle score. It teaches regions
    of ⊥, with a λ of 0.1, and disturbs poles.

    Any callable of the form `loss_fn(outputs=(N, D), targets=(Y_n, Y_d))` may stand in its place.
    Change a field with `dataclasses.replace`.

    Args:
        lambda_margin: λ_margin; a weight of 0 skips its part and the work for it.
        lambda_sign: λ_sign. Use 0 where +∞ and -∞ are one point: poles whose sides differ in sign.
        lambda_rejection: λ_rejection.
        lambda_separation: λ_separation.
        tau_train: τ_train of margin and coverage, in the units of the score.
        tau_sing: τ_sing, which targets are singular.
        gamma: γ of the fit.
        target_coverage: The share of finite answers asked for where targets are finite.
        normalizer: Of the fit: `"detached"`, `"attached"` or `"chordal"`.
        oriented: Fit 2(1 - cos) instead, which tells +∞ from -∞ on all targets.
        relative_margin: Divide the margin's distance by τ_train.
        sign_variant: `"cosine"` or `"angle"`.
        turned: Turn sign targets to the side of D (`sign_consistency_loss`); not if oriented.
        score: `"denominator"` or `"angle"`, for margin and coverage.
        scale: Scale of the targets for the score `"angle"` and the separation, in the units of
            N / D.
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
    lambda_separation: float = 0.0
    tau_train: float = TAU_TRAIN.value
    tau_sing: float = TAU_SING.value
    gamma: float = GAMMA.value
    target_coverage: float = TARGET_COVERAGE.value
    normalizer: str = "detached"
    oriented: bool = False
    relative_margin: bool = False
    sign_variant: str = "cosine"
    turned: bool = False
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
        in_range(self.lambda_separation, LAMBDA_MARGIN, name="lambda_separation")
        one_of(self.normalizer, NORMALIZERS, "normalizer")
        one_of(self.sign_variant, VARIANTS, "sign_variant")
        one_of(self.score, SCORES, "score")
        positive(self.scale, "scale")
        if self.turned and self.oriented:
            raise RangeError(
                "turned must be False with oriented=True, which asks for one side of D; got both"
            )

    def __call__(
        self,
        outputs: Tuples,
        targets: Tuples,
        tau_train: float | None = None,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the total loss, a scalar.

        Args:
            outputs: (N, D) of the model, `(*batch, k)` each, or D `(*batch, 1)`.
            targets: (Y_n, Y_d), as `lift_targets` gives them.
            tau_train: τ_train for this call instead of the field.
            mask: True where the sign of the target is known: `~isnan(y)`. It restricts the sign
                loss, and makes an oriented fit accept either sign elsewhere; nothing else.
            weight: How much every entry counts, in every part: 0 for a missing label; one that is
                negative or not finite does not count. In the shape of N or `(*batch, 1)`.

        Raises:
            ShapeError: The shapes do not belong together.
            RangeError: τ_train is not legal.
        """
        N, D, Y_n, Y_d = (widen(x) for x in (*outputs, *targets))
        recipe = self._recipe(tau_train)
        joint = recipe._replace(separation=0.0)

        def plain(N: Tensor, D: Tensor) -> Tensor:
            losses = _weighed(terms((N, D, Y_n, Y_d), mask, joint), mask, weight)
            return self._combined(_means(losses))["total"].to(loss_type(N, D, Y_n, Y_d))

        total = combined((N, D, Y_n, Y_d), mask, weight, joint, plain)
        if self.lambda_separation:  # by itself: no kernel has it
            recipe = recipe._replace(factors=(0.0,) * 4)
            for term in _weighed(terms((N, D, Y_n, Y_d), None, recipe), None, weight).values():
                total = total + self.lambda_separation * mean(term).to(total.dtype)
        return total

    def components(
        self,
        outputs: Tuples,
        targets: Tuples,
        tau_train: float | None = None,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `total`, and without their λ `fit`, `margin`, `sign`, `rejection`; 0: skipped.

        `separation` is there if it is asked for.
        `masked_rows` is the number of rows left out because N, D or a target is not finite there.
        """
        losses = self._terms(outputs, targets, tau_train, mask, weight)
        found = self._combined(_means(losses))
        dtype = loss_type(*outputs, *targets)
        found = {name: value.to(dtype) for name, value in found.items()}
        return {**found, "masked_rows": _masked_rows(outputs, targets).total}

    def parts(
        self,
        outputs: Tuples,
        targets: Tuples,
        tau_train: float | None = None,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> dict[str, Parts]:
        """Return sum and weight of `fit`, `margin`, `sign`, `coverage`, those not skipped.

        Those of `masked_rows` are the rows left out and all rows. Parts of several batches or ranks
        add up entry by entry; `combine` makes the loss of all of them.
        """
        dtype = loss_type(*outputs, *targets)
        losses = self._terms(outputs, targets, tau_train, mask, weight)
        counted = {
            name: Parts._make(x.to(dtype) for x in parts(term)) for name, term in losses.items()
        }
        return {**counted, "masked_rows": _masked_rows(outputs, targets)}

    def combine(self, parts: dict[str, Parts]) -> dict[str, Tensor]:
        """Return what `components` returns, from parts that were added up."""
        means = {
            name: _or_whole(name, total / torch.where(weight > 0, weight, 1), weight > 0)
            for name, (total, weight) in parts.items()
            if name != "masked_rows"
        }
        return {**self._combined(means), "masked_rows": parts["masked_rows"].total}

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
        if APART[0] in means:
            parts["separation"] = means[APART[0]] + means[APART[1]]
            total = total + self.lambda_separation * parts["separation"]
        return {**parts, "total": total}

    def _recipe(self, tau_train: float | None) -> LossRecipe:
        tau = self.tau_train if tau_train is None else tau_train
        if self.lambda_margin:
            threshold(tau, TAU_TRAIN, self.score if self.relative_margin else "denominator")
        elif self.lambda_rejection:
            in_range(tau, TAU_TRAIN, name="tau")
        return LossRecipe(
            factors=(1.0, self.lambda_margin, self.lambda_sign, self.lambda_rejection),
            fit="oriented" if self.oriented else self.normalizer,
            gamma=self.gamma,
            tau=tau,
            relative=self.relative_margin,
            score=self.score,
            scale=self.scale,
            temperature=self.temperature,
            tau_sing=self.tau_sing,
            sign_variant=self.sign_variant,
            turned=self.turned,
            separation=self.lambda_separation,
            target_coverage=self.target_coverage,
        )

    def _terms(
        self,
        outputs: Tuples,
        targets: Tuples,
        tau_train: float | None,
        mask: Tensor | None,
        weight: Tensor | None,
    ) -> dict[str, Terms]:
        N, D, Y_n, Y_d = (widen(x) for x in (*outputs, *targets))
        return _weighed(terms((N, D, Y_n, Y_d), mask, self._recipe(tau_train)), mask, weight)


def _weighed(
    found: dict[str, tuple[Tensor, Tensor]], mask: Tensor | None, weight: Tensor | None
) -> dict[str, Terms]:
    return {
        name: weighted(*term, weight=weight, mask=mask if name == "sign" else None)
        for name, term in found.items()
    }


def _means(losses: dict[str, Terms]) -> dict[str, Tensor]:
    return {
        name: _or_whole(name, mean(term), (term.weights > 0).any()) for name, term in losses.items()
    }


def _or_whole(name: str, value: Tensor, counted: Tensor) -> Tensor:
    """Return a mean; the coverage of no entry is 1, so that nothing is lacking."""
    return torch.where(counted, value, 1) if name == "coverage" else value


def _masked_rows(outputs: Tuples, targets: Tuples) -> Parts:
    rows = finite_rows(*(widen(x.detach()) for x in (*outputs, *targets)))
    return Parts((~rows).sum(), torch.full_like(rows, fill_value=True).sum())
