import math

import pytest
import torch
from torch import nn

from zeroproof.autodiff import GradientPolicy, active_policy
from zeroproof.errors import DataError, RangeError, ShapeError, TrainingError
from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.integrations.objective import ProjectiveObjective
from zeroproof.training import SCMTrainingLoss, TrainingConfig, lift_targets
from zeroproof.training.step import added

N = torch.tensor([[1.0], [2.0], [-1.0]])
D = torch.tensor([[0.5], [1e-3], [1e-9]])
Y = torch.tensor([[2.0], [math.inf], [math.nan]])


def test_targets_are_lifted_and_unknown_signs_masked():
    loss_fn = SCMTrainingLoss()
    expected = loss_fn(outputs=(N, D), targets=lift_targets(Y, scale=4.0), mask=~torch.isnan(Y))
    config = TrainingConfig(target_scale=4.0)
    assert ProjectiveObjective(loss_fn, config)((N, D), Y) == expected
    unmasked = loss_fn(outputs=(N, D), targets=lift_targets(Y, scale=4.0))
    assert unmasked != expected


def test_thresholds_are_drawn_where_gradients_are_enabled_and_are_the_largest_elsewhere():
    drawn = []

    def loss_fn(outputs, targets, tau_train):
        drawn.append(tau_train)
        return outputs[0].sum()

    objective = ProjectiveObjective(loss_fn, TrainingConfig(tau_train_min=1e-3, tau_train_max=1e-1))
    for _ in range(20):
        objective((N, D), Y)
    assert len(set(drawn)) == 20
    assert all(1e-3 <= tau <= 1e-1 for tau in drawn)
    with torch.no_grad():
        objective((N, D), Y)
    assert drawn[-1] == 1e-1


class Module(nn.Module):
    def forward(self, outputs, targets, **options):
        return torch.tensor(float(len(options)))


@pytest.mark.parametrize(
    ("loss_fn", "options"),
    [(Module(), 2), (lambda outputs, targets: torch.tensor(0.0), 0)],
    ids=["any option", "none"],
)
def test_a_loss_gets_the_options_it_accepts(loss_fn, options):
    assert ProjectiveObjective(loss_fn)((N, D), Y) == options


def test_the_loss_never_runs_in_half_precision():
    def loss_fn(outputs, targets):
        square = outputs[0].T @ outputs[0]  # autocast would make it bfloat16
        assert square.dtype == outputs[1].dtype == torch.float32
        return square.sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ProjectiveObjective(loss_fn)((N.bfloat16(), D.bfloat16()), Y) == 6


def test_a_mapping_may_hold_the_pair():
    objective = ProjectiveObjective(SCMTrainingLoss())
    assert objective({"N": N, "D": D, "hidden": None}, Y) == objective((N, D), Y)


@pytest.mark.parametrize("outputs", [N, (N, D, N), {"N": N}, (N, None)])
def test_other_outputs_are_refused(outputs):
    with pytest.raises(TrainingError, match=r"must return a pair of tensors \(N, D\)"):
        ProjectiveObjective(SCMTrainingLoss())(outputs, Y)


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="the targets y of a batch must have the shape of N"):
        ProjectiveObjective(SCMTrainingLoss())((N, D), Y[:, 0])


def test_what_belongs_to_the_loop_is_refused():
    with pytest.raises(RangeError, match="use_amp must be left to the training loop"):
        ProjectiveObjective(SCMTrainingLoss(), TrainingConfig(use_amp=True))
    with pytest.raises(RangeError, match="loss_fn must be callable, got int"):
        ProjectiveObjective(3)


def test_answers_come_in_the_units_of_y_with_the_masks_of_the_model():
    config = TrainingConfig(
        target_scale=10.0, tau_infer=1e-5, tau_train_min=0.3, tau_train_max=0.3, score="angle"
    )
    objective = ProjectiveObjective(SCMTrainingLoss(), config)
    decoded, bottom, gap = objective.decode((N.clone().requires_grad_(), D))
    own = strict_inference(
        N.detach(), D, InferenceConfig(tau_infer=1e-5, tau_train=0.3, score="angle")
    )
    torch.testing.assert_close(decoded, own.decoded * 10, equal_nan=True)
    assert torch.equal(bottom, own.bottom_mask)
    assert torch.equal(gap, own.gap_mask)
    assert gap.tolist() == [[False], [True], [False]]
    assert not decoded.requires_grad


def test_the_deployed_model_answers_alike_and_refuses_inputs_that_are_not_finite():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.ones_like(x), torch.full_like(x, 0.5)

    objective = ProjectiveObjective(SCMTrainingLoss(), TrainingConfig(target_scale=3.0))
    decoded, bottom, _ = objective.strict(Fixed())(torch.tensor([[1.0], [math.inf]]))
    assert decoded[0] == 6
    assert bottom.tolist() == [[False], [True]]


def test_the_policy_is_that_of_the_config():
    config = TrainingConfig(gradient_policy=GradientPolicy.REJECT)
    with ProjectiveObjective(SCMTrainingLoss(), config).policy():
        assert active_policy() is GradientPolicy.REJECT
    assert active_policy() is GradientPolicy.CLAMP


def mean_square(outputs, targets, weight=None):
    squares = (outputs[0] - targets[0]).square()
    weight = torch.ones_like(squares) if weight is None else weight.expand(squares.shape)
    return (weight * squares).sum() / weight.sum().clamp(min=1e-30)


@pytest.mark.parametrize(
    "loss_fn", [SCMTrainingLoss(normalizer="chordal"), mean_square], ids=["parts", "a mean"]
)
def test_the_loss_of_all_rows_does_not_hang_on_how_they_are_batched(loss_fn):
    torch.manual_seed(0)
    n, d, y = torch.randn(3, 20, 2, dtype=torch.float64)
    d[:4] *= 1e-3
    if loss_fn is not mean_square:
        y[3, 0], y[7, 1], y[8] = math.inf, math.nan, -math.inf
    weight = torch.rand(20, 2).double() * (torch.rand(20, 2) > 0.3)
    objective = ProjectiveObjective(loss_fn)
    for w in (None, weight, weight[:, :1], weight > 0):
        whole = objective((n, d), y, w)
        for size in (1, 3, 20):
            sums = {}
            for batch in torch.arange(20).split(size):
                w_batch = None if w is None else w[batch]
                added(sums, objective.parts((n[batch], d[batch]), y[batch], w_batch))
            assert float(objective.combine(sums)) == pytest.approx(float(whole), rel=1e-9)


@pytest.mark.parametrize("missing", [0.0, False])
def test_a_missing_label_is_none_whatever_it_says(missing):
    """A nan is ⊥; where there is no label, nothing is taught, not even a pole."""
    objective = ProjectiveObjective(SCMTrainingLoss(normalizer="chordal"))
    n, d = torch.randn(6, 1).requires_grad_(), torch.randn(6, 1).requires_grad_()
    y = torch.tensor([[1.0], [math.nan], [2.0], [math.inf], [-100.0], [math.nan]])
    kept = [0, 2, 5]
    weight = torch.full((6, 1), missing)
    weight[kept] = 1
    loss = objective((n, d), y, weight)
    few = objective((n[kept], d[kept]), y[kept])
    torch.testing.assert_close(loss, few)
    gradients = torch.autograd.grad(loss, (n, d))
    assert all((g[[1, 3, 4]] == 0).all() for g in gradients)
    assert loss == objective((n, d), y, weight[:, 0])  # one number for each row
    assert loss != objective((n, d), y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.tensor([1.0, -1.0, 0.0]), "must hold finite numbers of at least 0 .*, got -1.0"),
        (torch.tensor([1.0, math.nan, 0.0]), "must hold finite numbers of at least 0 .*, got nan"),
        (torch.ones(2), r"in the shape of the targets, \(3, 1\), or of their leading .* \(2,\)"),
        ([1.0, 1.0, 1.0], "must be a real tensor in the shape of the targets"),
    ],
)
def test_what_is_no_weight_is_refused(weight, message):
    with pytest.raises(DataError, match=message):
        ProjectiveObjective(SCMTrainingLoss())((N, D), Y, weight)


def test_a_loss_without_weights_is_not_asked_to_weigh():
    objective = ProjectiveObjective(lambda outputs, targets: outputs[0].sum())
    assert objective((N, D), Y, torch.ones(3, dtype=torch.bool)) == 2
    with pytest.raises(TrainingError, match="loss_fn must accept weight= to be trained on labels"):
        objective((N, D), Y, torch.tensor([True, False, True]))


def test_it_runs_where_tensors_have_no_values():
    with torch.device("meta"):
        objective, outputs = ProjectiveObjective(SCMTrainingLoss()), torch.ones(2, 3, 1)
        loss = objective(tuple(outputs), torch.ones(3, 1), torch.ones(3))
        assert (loss.shape, objective.decode(tuple(outputs)).gap_mask.shape) == ((), (3, 1))
