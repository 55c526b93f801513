"""Losses in the matrix of transforms."""

from dataclasses import replace

from tests.transforms.functions import Input, computed
from zeroproof import losses
from zeroproof.defaults import GAMMA
from zeroproof.estimators import trained
from zeroproof.integrations.objective import ProjectiveObjective
from zeroproof.training import SCMTrainingLoss, TrainingConfig

__all__ = ["LOSSES"]

NAN = float("nan")
N, D = Input(signed=True, bottom=0.0), Input(signed=True, bottom=0.0)
TARGET = Input(signed=True, bottom=NAN)
SINGULAR = Input(0.1, 0.4)  # |Y_d| below the τ_sing used here
KNOWN = Input(signed=True, learns=False)
KNOWN_SINGULAR = Input(0.0, 0.4, learns=False)
FAMILY, TOTAL = "Losses", "Combined losses"

ORIENTED = {"complex": "The angle between two signs is defined for real tuples: a RangeError."}
SHARE = {"complex": "A share of entries is real: a RangeError."}
PLAIN = SCMTrainingLoss(tau_sing=0.5)


def _loss(name, covers, call, *inputs, **options):
    return computed(name, FAMILY, covers, call, *inputs, **options)


def _detached(N, D, Y_n, Y_d):
    """Return the mean of E / (S + γ) with the S of these tuples."""
    size = (D * Y_d).abs().square() + (N * Y_n).abs().square() + GAMMA.value
    size = size.detach()
    return lambda N, D, Y_n, Y_d: ((N * Y_d - D * Y_n).abs().square() / size).mean()


def _detached_total(N, D, Y_n, Y_d):
    """Return the same with the other parts of the combined loss."""
    fit, other = _detached(N, D, Y_n, Y_d), replace(PLAIN, normalizer="chordal")

    def total(N, D, Y_n, Y_d):
        rest = other(outputs=(N, D), targets=(Y_n, Y_d))
        chordal = losses.implicit_loss(N, D, Y_n, Y_d, normalizer="chordal")
        return fit(N, D, Y_n, Y_d) + rest - chordal

    return total


def _implicit(name, **options):
    return _loss(
        name,
        (losses.implicit_loss,),
        lambda N, D, Y_n, Y_d: losses.implicit_loss(N, D, Y_n, Y_d, **options),
        N,
        D,
        TARGET,
        Input(),
        frozen=None if options else _detached,
    )


def _total(name, loss_fn, **options):
    return computed(
        name,
        TOTAL,
        (SCMTrainingLoss,),
        lambda N, D, Y_n, Y_d: loss_fn(outputs=(N, D), targets=(Y_n, Y_d)),
        N,
        D,
        KNOWN,
        KNOWN_SINGULAR,
        **options,
    )


def _objective(N, D, y):
    config = TrainingConfig(tau_train_min=1e-3, tau_train_max=1e-3)
    return ProjectiveObjective(SCMTrainingLoss(normalizer="chordal"), config)((N, D), y)


SINGLE = (
    _implicit("implicit_loss"),
    _implicit("implicit_loss, attached", normalizer="attached"),
    _implicit("implicit_loss, chordal", normalizer="chordal"),
    _implicit("implicit_loss, oriented", oriented=True),
    _loss(
        "implicit_loss, none",
        (),
        lambda N, D, Y_n, Y_d: losses.implicit_loss(
            N, D, Y_n, Y_d, normalizer="chordal", reduction="none"
        ),
        N,
        D,
        TARGET,
        Input(),
    ),
    _loss(
        "margin_loss",
        (losses.margin_loss,),
        lambda D: losses.margin_loss(D, 3.0),
        D,
    ),
    _loss(
        "margin_loss, relative",
        (),
        lambda N, D: losses.margin_loss(D, 3.0, N=N, relative=True),
        N,
        D,
    ),
    _loss(
        "margin_loss by angle",
        (),
        lambda N, D: losses.margin_loss(D, 1.0, N=N, relative=True, score="angle", scale=0.5),
        N,
        D,
    ),
    _loss(
        "sign_consistency_loss",
        (losses.sign_consistency_loss,),
        lambda N, D, Y_n, Y_d: losses.sign_consistency_loss(N, D, Y_n, Y_d, 0.5),
        N,
        D,
        TARGET,
        SINGULAR,
    ),
    _loss(
        "sign_consistency_loss by angle",
        (),
        lambda N, D, Y_n, Y_d: losses.sign_consistency_loss(N, D, Y_n, Y_d, 0.5, variant="angle"),
        N,
        D,
        TARGET,
        SINGULAR,
        reasons=ORIENTED,
    ),
    _loss(
        "soft_coverage",
        (losses.soft_coverage,),
        lambda score: losses.soft_coverage(score, 1.0, 0.5),
        Input(bottom=NAN),
        reasons=SHARE,
    ),
    _loss(
        "rejection_loss",
        (losses.rejection_loss,),
        lambda score: losses.rejection_loss(losses.soft_coverage(score, 1.0, 0.5), 0.95),
        Input(bottom=NAN),
        reasons=SHARE,
    ),
)

TOTALS = (
    _total("SCMTrainingLoss", PLAIN, frozen=_detached_total),
    _total(
        "SCMTrainingLoss, chordal, by angle",
        SCMTrainingLoss(
            normalizer="chordal",
            score="angle",
            relative_margin=True,
            tau_train=0.9,
            tau_sing=0.5,
            temperature=0.1,
        ),
    ),
    _total(
        "SCMTrainingLoss, attached",
        SCMTrainingLoss(normalizer="attached", tau_train=1.5, temperature=0.5),
    ),
    _total(
        "SCMTrainingLoss, oriented, sign by angle",
        SCMTrainingLoss(oriented=True, sign_variant="angle", tau_sing=0.5),
        reasons=ORIENTED,
    ),
    computed(
        "ProjectiveObjective",
        TOTAL,
        (ProjectiveObjective,),
        _objective,
        N,
        D,
        Input(signed=True, bottom=float("inf"), learns=False),
    ),
    computed(
        "ChordalLoss",
        TOTAL,
        (trained.ChordalLoss,),
        lambda N, D, Y_n, Y_d: trained.ChordalLoss(1.0)((N, D), (Y_n, Y_d)),
        N,
        D,
        KNOWN,
        Input(1.0, 1.0, learns=False),
        reasons={"complex": "Its weights are powers of real targets: a RangeError for others."},
    ),
    computed(
        "squared_loss",
        TOTAL,
        (trained.squared_loss,),
        lambda N, D, Y_n: trained.squared_loss((N, D), (Y_n, D)),
        Input(signed=True),
        Input(signed=True),
        KNOWN,
    ),
)

LOSSES = (*SINGLE, *TOTALS)
