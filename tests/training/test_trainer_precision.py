"""The trainer in mixed, single and double precision."""

import pytest
import torch
from accelerate import Accelerator

from zeroproof.autodiff import GradientPolicy
from zeroproof.errors import TrainingError
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
FIT = SCMTrainingLoss(normalizer="chordal", lambda_margin=0, lambda_sign=0, lambda_rejection=0)


class Recorder:
    """A loss that notes the types it is given."""

    def __init__(self):
        self.dtypes = set()

    def __call__(self, outputs, targets):
        loss = FIT(outputs=outputs, targets=targets)
        self.dtypes |= {x.dtype for x in (*outputs, *targets, loss)}
        return loss


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_is_the_forward_alone(Tuples, trained, weights, dtype):
    class Watched(Tuples):
        def forward(self, x):
            N, D = super().forward(x)
            seen.add(N.dtype)
            return N, D

    seen, loss_fn = set(), Recorder()
    torch.manual_seed(3)
    model = Watched()
    before = weights(model)
    options = {"use_amp": True, "amp_dtype": dtype, "max_epochs": 2, "val_loader": [(X, Y)]}
    options["calibrate"] = False  # a deployed model is not run in half precision
    trainer = trained(model, loss_fn=loss_fn, data=[(X, Y)] * 3, **options)
    assert seen == {dtype or torch.bfloat16}
    assert loss_fn.dtypes == {torch.float32}
    assert not torch.equal(before, weights(model))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    full = trained(data=[(X, Y)] * 3, max_epochs=2)
    assert trainer.history[1]["train_loss"] == pytest.approx(full.history[1]["train_loss"], rel=0.1)


def test_float16_finds_its_loss_scale_by_skipping(trained, squared):
    def large(outputs, targets):
        return 1e3 * squared(outputs, targets)

    trainer = trained(
        loss_fn=large,
        data=[(X, Y)] * 30,
        use_amp=True,
        amp_dtype=torch.float16,
        rate=1e-6,
        gradient_policy=GradientPolicy.CLAMP,
    )
    assert 0 < trainer.history[0]["skipped_steps"] < 30


def test_float16_that_never_works_says_so(trained, squared):
    def loss_fn(outputs, targets):
        return (0 * outputs[0]).sqrt().sum() + squared(outputs, targets)

    with pytest.raises(TrainingError, match="float16 gradients stayed non-finite"):
        trained(loss_fn=loss_fn, data=[(X, Y)] * 99, use_amp=True, amp_dtype=torch.float16)


def test_trainers_of_both_precisions_live_in_one_process(trained):
    for use_amp in (True, False, True):
        assert trained(use_amp=use_amp).history[0]["skipped_steps"] == 0


def test_an_accelerator_may_be_handed_over(seeded):
    model = seeded()
    accelerator = Accelerator(mixed_precision="no")
    trainer = SCMTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        FIT,
        [(X, Y)],
        config=TrainingConfig(max_epochs=1, progress=False),
        accelerator=accelerator,
    )
    assert trainer.accelerator is accelerator
    assert len(trainer.fit()) == 1


def test_double_precision_stays_double(trained, seeded):
    loss_fn = Recorder()
    trained(seeded().double(), loss_fn=loss_fn, data=[(X.double(), Y.double())])
    assert loss_fn.dtypes == {torch.float64}
