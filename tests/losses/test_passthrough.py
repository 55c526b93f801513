"""PASSTHROUGH is raw: where a formula has no derivative, its gradient is nan, not 0."""

import math

import pytest
import torch

from zeroproof import GradientPolicy, gradient_policy
from zeroproof.losses import implicit_loss, margin_loss, sign_consistency_loss
from zeroproof.training import SCMTrainingLoss

N = [math.nan, math.inf, 0.0, 1.0, 1.0]
D = [1.0, 1.0, 0.0, math.nan, 2.0]
ONE, ZERO = torch.ones(5), torch.zeros(5)


def fit(N, D, **options):
    return implicit_loss(N, D, ONE, ONE * 3, **options)


def sign(N, D, **options):
    return sign_consistency_loss(N, D, ONE, ZERO, **options)


def total(N, D):
    return SCMTrainingLoss(normalizer="chordal")(outputs=(N, D), targets=(ONE, ONE * 3))


# whether ⟨0, 0⟩ has no derivative: where a loss is of the angle, but not where γ or τ alone matter
LOSSES = {
    "detached": (fit, False),
    "chordal": (lambda N, D, **o: fit(N, D, normalizer="chordal", **o), True),
    "oriented": (lambda N, D, **o: fit(N, D, oriented=True, **o), True),
    "sign": (sign, True),
    "sign by angle": (lambda N, D, **o: sign(N, D, variant="angle", **o), True),
    "margin": (lambda N, D, **o: margin_loss(D, 3.0, N=N, **o), False),
    "total": (total, True),
}
CASES = [
    *((name, "sum") for name in LOSSES),
    *((name, "none") for name in LOSSES if name != "total"),
    *((name, "compiled") for name in ("total", "chordal")),  # one for each kind of code
]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_row_without_a_derivative_has_the_gradient_nan(name, way):
    loss, at_origin = LOSSES[name]
    call = {"none": lambda *x: loss(*x, reduction="none").sum()}.get(way, loss)
    if way == "compiled":
        call = torch.compile(call, fullgraph=True, backend="aot_eager")
    for dtype in (torch.float32,) if way == "compiled" else (torch.float32, torch.float64):
        found = {}
        for policy in (GradientPolicy.PASSTHROUGH, GradientPolicy.PROJECT):
            tuples = [torch.tensor(z, dtype=dtype, requires_grad=True) for z in (N, D)]
            with gradient_policy(policy):
                call(*tuples).backward()
            found[policy.name] = torch.stack([z.grad for z in tuples])
        raw, masked = found["PASSTHROUGH"], found["PROJECT"]
        assert torch.isfinite(masked).all()
        assert torch.isnan(raw[:, [0, 1, 3]]).all()
        assert torch.isnan(raw[:, 2]).all() == at_origin
        torch.testing.assert_close(raw[:, 4], masked[:, 4])
