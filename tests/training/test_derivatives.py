"""Derivatives that are values of a model: right in training and validation, whatever they pass."""

import pytest
import torch
from torch import nn

from zeroproof import GradientPolicy, register_policy
from zeroproof.autodiff import active_policy
from zeroproof.layers import ProjectiveHead, Rational
from zeroproof.scm import SCM
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

STEPS_ALONE = {
    "max_epochs": 1,
    "progress": False,
    "target_scale": 1.0,
    "readout": None,
    "calibrate": False,
}

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy
FIT = SCMTrainingLoss(normalizer="chordal", lambda_sign=0, lambda_margin=0, lambda_rejection=0)


class Force(nn.Module):
    """-∇(q / r) of a point charge by meadow arithmetic, and its charge learns."""

    def __init__(self, charge=1.0):
        super().__init__()
        self.charge = nn.Parameter(torch.tensor(charge))

    def forward(self, place):
        place = place.detach().requires_grad_()
        energy = (self.charge / SCM(place.norm(dim=1, keepdim=True))).payload
        (force,) = torch.autograd.grad(-energy.sum(), place, create_graph=True)
        return force, torch.ones_like(force)


class Riccati(nn.Module):
    """y' - 1 - y² for y = p(x) / q(x), Taylor sums of sin and cos: 0 through the pole of tan."""

    def __init__(self):
        super().__init__()
        sine = [0, 1, 0, -1 / 6, 0, 1 / 120, 0, -1 / 5040, 0, 1 / 362880, 0, -1 / 39916800]
        cosine = [1, 0, -1 / 2, 0, 1 / 24, 0, -1 / 720, 0, 1 / 40320, 0, -1 / 3628800]
        self.y = Rational((11, 10), init=(sine, cosine), basis="monomial", returns="tensor")

    def forward(self, x):
        x = x.detach().requires_grad_()
        y = self.y(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        size = 1 + y * y
        return (slope - size) / size, torch.ones_like(x)


def fit(model, x, y, rate=0.0, **options):
    trainer = SCMTrainer(
        model,
        torch.optim.SGD(model.parameters(), rate),
        FIT,
        [(x, y)],
        [(x, y)] * 2,
        config=TrainingConfig(**{**STEPS_ALONE, **options}),
    )
    trainer.fit()
    return trainer


@pytest.mark.parametrize("policy", [PROJECT, REJECT, PASSTHROUGH])
def test_a_force_near_the_pole_is_not_clamped(policy):
    place = torch.tensor([[0.03, 0.04], [3.0, 4.0]], dtype=torch.float64)
    right = place / place.norm(dim=1, keepdim=True) ** 3  # up to 400
    trainer = fit(Force().double(), place, right, gradient_policy=policy)
    for part in ("train", "val"):
        assert trainer.row[f"{part}_loss"] < 1e-20
    wrong = fit(Force(2.0).double(), place, right, gradient_policy=policy)
    gradient = wrong.model.charge.grad.item()
    assert gradient == 0 if policy is REJECT else gradient > 0  # it would learn, or shall not


def test_a_riccati_equation_holds_through_the_pole_of_its_solution():
    x = torch.tensor([[1.5], [1.57], [1.5707], [1.5709], [1.6]], dtype=torch.float64)
    residual = fit(Riccati().double(), x, torch.zeros_like(x))
    for part in ("train", "val"):
        assert residual.row[f"{part}_loss"] < 1e-9
    clamped = fit(Riccati().double(), x, torch.zeros_like(x), gradient_policy=CLAMP)
    assert clamped.row["val_loss"] > 0.1  # as that policy was asked for


def test_validation_records_gradients_only_for_a_model_that_needs_them():
    class Plain(ProjectiveHead):
        seen = ()

        def forward(self, h):
            self.seen = (*self.seen, (self.training, torch.is_grad_enabled(), active_policy()))
            return super().forward(h)

    model, x = Plain(1, 1), torch.ones(4, 1)
    fit(model, x, x, gradient_policy=REJECT)
    assert model.seen == ((True, True, PROJECT), *[(False, False, PROJECT)] * 2)


def test_an_error_of_the_model_in_validation_is_its_own():
    class Broken(ProjectiveHead):
        def forward(self, h):
            if not self.training:
                raise RuntimeError("no room")
            return super().forward(h)

    with pytest.raises(RuntimeError, match="no room"):
        fit(Broken(1, 1), torch.ones(4, 1), torch.ones(4, 1))


def test_the_attempt_without_gradients_leaves_no_trace_in_the_random_numbers():
    class Probed(Force):
        def forward(self, place):
            self.last = torch.rand(())
            return super().forward(place)

    place = torch.tensor([[0.3, 0.4]])
    model = Probed()
    fit(model, place, place, seed=4)
    torch.manual_seed(4)
    assert model.last == torch.stack([torch.rand(()) for _ in range(3)])[-1]


def test_a_policy_of_a_module_that_never_runs_is_said():
    class Spare(ProjectiveHead):
        def __init__(self):
            super().__init__(1, 1)
            self.layer, self.other = Rational((1, 1)), nn.Sequential(nn.Linear(1, 1))

    model, x = Spare(), torch.ones(4, 1)
    with (
        register_policy(model.layer, PROJECT),
        register_policy(model.other, PROJECT),
        pytest.warns(UserWarning, match="policy registered on (layer|other) acted on nothing") as w,
    ):
        fit(model, x, x)
    assert len(w) == 2


def test_a_force_may_stand_before_a_head_and_all_that_fit_does_at_its_end():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.force, self.head = Force(), ProjectiveHead(2, 1)

        def forward(self, place):
            N, D = self.force(place)
            return self.head(N / D.clamp_min(1e-3))

    place = torch.linspace(0.2, 1, 32).reshape(16, 2)
    trainer = fit(Residual(), place, place[:, :1], max_epochs=2, readout="auto", calibrate=True)
    assert trainer.solved is not None
    assert trainer.val_lost is not None
