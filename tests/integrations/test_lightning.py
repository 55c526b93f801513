import math
import pickle

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.autodiff import GradientPolicy, active_policy, gradient_policy, policies
from zeroproof.errors import DataError, RangeError, TrainingError
from zeroproof.inference import InferenceConfig
from zeroproof.integrations.lightning import ProjectiveCallback, ProjectiveLightning
from zeroproof.training import TrainingConfig

from .conftest import LOSS, X, Y

PROJECT, CLAMP, REJECT = GradientPolicy.PROJECT, GradientPolicy.CLAMP, GradientPolicy.REJECT


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.fixture
def trainer(tmp_path):
    def build(**options):
        return pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **{"max_epochs": 1, **options},
        )

    return build


class Own(pl.LightningModule):
    """What a user may have written: nothing in it knows of policies."""

    def __init__(self, model, returns="pair"):
        super().__init__()
        self.model, self.returns = model, returns

    def training_step(self, batch, batch_idx):
        x, y = batch
        N, D = self.model(x)
        loss = LOSS(outputs=(N, D), targets=(y, torch.ones_like(y)))
        return {"loss": loss, "N": N, "D": D} if self.returns == "pair" else loss

    validation_step = training_step

    def configure_optimizers(self):
        return sgd(self.parameters())


@pytest.mark.parametrize("policy", [PROJECT, CLAMP, REJECT])
def test_two_epochs_are_those_of_a_loop_written_by_hand(
    policy, model, loader, trainer, by_hand, weights
):
    config = TrainingConfig(gradient_policy=policy, target_scale=0.1)
    module = ProjectiveLightning(model(), LOSS, optimizer=sgd, config=config)
    trainer(max_epochs=2).fit(module, loader)
    expected = by_hand(model(), [*loader, *loader], policy, scale=0.1)
    torch.testing.assert_close(weights(module.model), weights(expected), rtol=0, atol=0)


def test_policies_differ_so_that_the_comparison_says_something(model, loader, by_hand, weights):
    results = [weights(by_hand(model(), loader, p)) for p in (PROJECT, REJECT)]
    # LOSS holds a rejection part that no policy silences; coverage is full here, so it is 0
    torch.testing.assert_close(results[1], weights(model()), rtol=0, atol=1e-6)
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_it_logs_loss_coverage_and_gap_of_every_epoch(model, loader, trainer):
    low, high = model()(X)[1].abs().quantile(torch.tensor([0.3, 0.6])).tolist()
    config = TrainingConfig(tau_infer=low, tau_train_min=high, tau_train_max=high)
    module, fitted = ProjectiveLightning(model(), LOSS, optimizer=sgd, config=config), trainer()
    fitted.fit(module, loader, DataLoader(TensorDataset(X, Y), batch_size=9))
    logged = {name: float(x) for name, x in fitted.logged_metrics.items()}
    names = {f"{part}_{name}" for part in ("train", "val") for name in ("loss", "coverage", "gap")}
    assert set(logged) == names
    _, bottom, gap = module.objective.decode(module.model(X))
    coverage, gap = 1 - float(bottom.float().mean()), float(gap.float().mean())
    assert 0 < gap < coverage < 1
    assert logged["val_coverage"] == pytest.approx(coverage)
    assert logged["val_gap"] == pytest.approx(gap)
    with torch.no_grad():
        losses = [
            len(x) * float(module.objective(module.model(x), y))
            for x, y in zip(X.split(9), Y.split(9), strict=True)
        ]
    assert logged["val_loss"] == pytest.approx(sum(losses) / len(X))
    assert 0 < logged["train_coverage"] < 1


def test_predictions_are_strict_and_in_the_units_of_y(model, trainer):
    module = ProjectiveLightning(model(), LOSS, config=TrainingConfig(target_scale=5.0))
    x = torch.tensor([[0.5], [math.inf], [math.nan], [-0.5]])
    with torch.no_grad():
        N, D = model()(x)
    for form in ((x,), (x, x)):
        (result,) = trainer().predict(module, DataLoader(TensorDataset(*form), batch_size=4))
        assert result.bottom_mask.flatten().tolist() == [False, True, True, False]
        torch.testing.assert_close(result.decoded[[0, 3]], (5 * N / D)[[0, 3]])
    assert torch.equal(module.predict_step(x).bottom_mask, result.bottom_mask)
    torch.testing.assert_close(module(x[:1])[0], N[:1])  # a call is the model's own


def test_batches_may_have_several_inputs_or_names(model, trainer):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, a, b):
            return dict(zip("ND", self.inner(a - b), strict=True))

    for data in ([(X, X / 2, Y)], [{"a": X, "b": X / 2, "y": Y}]):
        module = ProjectiveLightning(Two(), LOSS, optimizer=sgd)
        before = [p.clone() for p in module.parameters()]
        trainer().fit(module, DataLoader(data, batch_size=None))
        assert any((p != q).any() for p, q in zip(before, module.parameters(), strict=True))


def test_under_bf16_mixed_tuples_and_loss_are_float32(loader, trainer):
    seen = []

    def loss_fn(outputs, targets):
        seen.append((outputs[0].dtype, outputs[1].dtype, torch.is_autocast_enabled("cpu")))
        return LOSS(outputs=outputs, targets=targets)

    class Spied(nn.Linear):
        def forward(self, x):
            outputs = super().forward(x)
            seen.append(outputs.dtype)
            return outputs[:, :1], outputs[:, 1:]

    module = ProjectiveLightning(Spied(1, 2), loss_fn, optimizer=sgd)
    losses = []
    module.backward = lambda loss: (losses.append(loss), ProjectiveLightning.backward(module, loss))
    trainer(precision="bf16-mixed").fit(module, loader)
    assert set(seen) == {torch.bfloat16, (torch.float32, torch.float32, False)}
    assert {loss.dtype for loss in losses} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("own", [False, True], ids=["module", "callback"])
def test_the_bound_of_clamp_follows_the_loss_scale(own, model, loader, trainer, monkeypatch):
    bounds = []
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    module = (
        Own(model(), returns="loss")
        if own
        else ProjectiveLightning(
            model(), LOSS, optimizer=sgd, config=TrainingConfig(gradient_policy=CLAMP)
        )
    )
    hooked = next(module.parameters())
    hooked.register_hook(lambda _: bounds.append(policies.policy_in_force(-1)))
    callbacks = [ProjectiveCallback(CLAMP)] if own else []
    trainer(plugins=[plugin], callbacks=callbacks).fit(module, loader)
    assert bounds == [(CLAMP, 256.0)] * 3


@pytest.mark.parametrize("policy", [PROJECT, REJECT])
def test_the_callback_acts_in_a_module_of_the_user(
    policy, model, loader, trainer, by_hand, weights
):
    module = Own(model())
    fitted = trainer(callbacks=[ProjectiveCallback(policy)])
    fitted.fit(module, loader, loader)
    expected = weights(by_hand(model(), loader, policy))
    torch.testing.assert_close(weights(module.model), expected, rtol=0, atol=0)
    assert float(fitted.logged_metrics["train_coverage"]) == 1
    assert float(fitted.logged_metrics["val_gap"]) == 0
    assert active_policy() is CLAMP


def test_the_callback_counts_by_its_own_thresholds_or_not_at_all(model, loader, trainer):
    decoding = InferenceConfig(tau_infer=1e6)
    fitted = trainer(callbacks=[ProjectiveCallback(decoding=decoding)])
    fitted.fit(Own(model()), loader)
    assert float(fitted.logged_metrics["train_coverage"]) == 0
    silent = trainer(callbacks=[ProjectiveCallback()])
    silent.fit(Own(model(), returns="loss"), loader, loader)
    assert silent.logged_metrics == {}


@pytest.mark.parametrize("own", [False, True], ids=["module", "callback"])
def test_the_context_is_closed_if_backward_raises(own, model, loader, trainer):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            assert active_policy() is REJECT
            raise ArithmeticError("broken on purpose")

    class Faulty(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x):
            N, D = self.inner(x)
            return Broken.apply(N), D

    config = TrainingConfig(gradient_policy=REJECT)
    module = Own(Faulty()) if own else ProjectiveLightning(Faulty(), LOSS, config=config)
    callbacks = [ProjectiveCallback(REJECT)] if own else []
    with gradient_policy(PROJECT):
        with pytest.raises(ArithmeticError, match="broken on purpose"):
            trainer(callbacks=callbacks).fit(module, loader)
        assert active_policy() is PROJECT


def test_a_callback_can_be_pickled():
    assert pickle.loads(pickle.dumps(ProjectiveCallback(REJECT))).policy is REJECT


def test_nothing_is_left_behind(model, loader, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer().fit(ProjectiveLightning(model(), LOSS), loader)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_used_is_refused(model, loader, trainer):
    with pytest.raises(RangeError, match=r"policy must be a GradientPolicy .*, got 'PROJECT'"):
        ProjectiveCallback("PROJECT")
    with pytest.raises(RangeError, match="max_epochs must be left to the training loop"):
        ProjectiveLightning(model(), LOSS, config=TrainingConfig(max_epochs=3))
    with pytest.raises(DataError, match=r"a batch must be a pair \(x, y\)"):
        trainer().fit(ProjectiveLightning(model(), LOSS), DataLoader(TensorDataset(X)))
    with pytest.raises(TrainingError, match=r"must return a pair of tensors \(N, D\)"):
        trainer().fit(ProjectiveLightning(nn.Linear(1, 1), LOSS), loader)


class Watched(nn.Module):
    """Note the policy in force in forward."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, set()

    def forward(self, x):
        self.seen.add(active_policy())
        return self.model(x)


@pytest.mark.parametrize(("policy", "inside"), [(PROJECT, PROJECT), (REJECT, PROJECT)])
def test_derivatives_in_forward_are_values(policy, inside, model, loader, trainer):
    net = Watched(model())
    config = TrainingConfig(gradient_policy=policy)
    module = ProjectiveLightning(net, LOSS, optimizer=sgd, config=config)
    trainer(num_sanity_val_steps=0).fit(module, loader, loader)
    assert net.seen == {inside}


def test_the_callback_holds_its_policy_around_forward_and_validation(model, loader, trainer):
    net = Watched(model())
    callback = ProjectiveCallback(PROJECT)
    trainer(callbacks=[callback], num_sanity_val_steps=0).fit(Own(net), loader, loader)
    assert net.seen == {PROJECT}
    assert active_policy() is CLAMP
