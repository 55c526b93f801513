"""When the trainer stops early, and whose weights it keeps."""

import pytest
import torch
from torch import nn

from zeroproof.training import SCMTrainingLoss

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


@pytest.mark.parametrize("with_validation", [False, True])
def test_training_stops_after_patience_epochs_below_the_threshold(
    Fixed, trained, zero_loss, with_validation
):
    x = torch.ones(4, 1)
    low, options = Fixed(1.0, 1.0, 0.0, 0.0), {"max_epochs": 9, "coverage_patience": 3}
    loader = {"val_loader": [(x, x)]} if with_validation else {}
    trainer = trained(low, loss_fn=zero_loss, data=[(x, x)], **loader, **options)
    assert len(trainer.history) == 3
    assert trainer.stop_reason == "coverage"
    enough = {"coverage_threshold": 0.5, **options}
    trainer = trained(low, loss_fn=zero_loss, data=[(x, x)], **loader, **enough)
    assert len(trainer.history) == 9
    assert trainer.stop_reason == "max_epochs"


@pytest.mark.parametrize(("validated", "epochs"), [("covered", 5), ("bottom", 2)])
def test_validation_coverage_decides_where_there_is_a_loader(trained, zero_loss, validated, epochs):
    class ByInput(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.weight * torch.ones_like(x), x + 0 * self.weight

    covered, bottom = (torch.ones(2, 1),) * 2, (torch.zeros(2, 1),) * 2
    data = {"covered": (bottom, covered), "bottom": (covered, bottom)}[validated]
    trainer = trained(
        ByInput(),
        loss_fn=zero_loss,
        data=data[:1],
        val_loader=data[1:],
        max_epochs=5,
        coverage_patience=2,
    )
    assert len(trainer.history) == epochs


def test_keep_best_restores_the_weights_of_the_best_epoch(trained, seeded, weights):
    snapshots = []

    def loss_fn(outputs, targets):
        if not outputs[0].requires_grad:  # validation, once per epoch
            snapshots.append(weights(model))
            return torch.tensor([3.0, 1.0, 2.0][len(snapshots) - 1])
        return FIT(outputs=outputs, targets=targets)

    model = seeded()
    trainer = trained(model, loss_fn=loss_fn, val_loader=[(X, Y)], max_epochs=3, keep_best=True)
    assert trainer.best_epoch == 1
    assert torch.equal(weights(model), snapshots[1])
    assert not torch.equal(weights(model), snapshots[2])


def test_without_keep_best_the_last_weights_stay(trained):
    trainer = trained(max_epochs=2)
    assert trainer.best_epoch is None
