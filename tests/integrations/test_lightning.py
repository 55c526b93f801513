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
from zeroproof.inference import InferenceConfig, StrictModule
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
        loss = float(module.objective(module.model(X), Y))
    assert logged["val_loss"] == pytest.approx(loss)
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
    hooked.register_hook(lambda _: bounds.append(policies.ruling_in_force(-1).bound))
    callbacks = [ProjectiveCallback(CLAMP)] if own else []
    trainer(plugins=[plugin], callbacks=callbacks).fit(module, loader)
    assert bounds == [256.0] * 3


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


class Given(nn.Module):
    """Answers that are the inputs: ⟨1, x⟩."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.one * torch.ones_like(x), x


def loaders(*data):
    return [DataLoader(batches, batch_size=None) for batches in data]


def test_shares_are_of_answers_and_losses_of_labels_whatever_the_batches(trainer, model):
    """Two answers in one batch and eighteen in the other: 2 of 20 are finite."""
    unequal = [(torch.ones(2, 1, 1), torch.ones(2, 1, 1)), (torch.zeros(2, 9, 1),) * 2]
    module = ProjectiveLightning(Given(), LOSS, optimizer=sgd)
    (logged,) = trainer().validate(module, loaders(unequal)[0], verbose=False)
    assert logged["val_coverage"] == pytest.approx(0.1)
    assert logged["val_gap"] == 0

    y = Y.clone()
    y[5], y[9] = math.inf, math.nan
    module = ProjectiveLightning(model(), LOSS, optimizer=sgd)
    with torch.no_grad():
        loss = float(module.objective(module.model(X), y))
    for size in (1, 5, 24):
        loader = DataLoader(TensorDataset(X, y), batch_size=size)
        for evaluate, part in ((trainer().validate, "val"), (trainer().test, "test")):
            (logged,) = evaluate(module, loader, verbose=False)
            assert logged[f"{part}_loss"] == pytest.approx(loss, rel=1e-6)
            assert set(logged) == {f"{part}_{name}" for name in ("loss", "coverage", "gap")}


def test_several_loaders_are_told_apart(trainer):
    ones, zeros = (torch.ones(3, 1),) * 2, (torch.zeros(4, 1),) * 2
    several = loaders([ones, ones], [ones, zeros])
    module = ProjectiveLightning(Given(), LOSS, optimizer=sgd)
    first, second = trainer().validate(module, several, verbose=False)
    assert first["val_coverage/dataloader_idx_0"] == 1
    assert second["val_coverage/dataloader_idx_1"] == pytest.approx(3 / 7)
    assert first["val_loss/dataloader_idx_0"] < 1e-6 < second["val_loss/dataloader_idx_1"]
    tested = trainer().test(module, several, verbose=False)
    assert tested[1]["test_loss/dataloader_idx_1"] == second["val_loss/dataloader_idx_1"]
    assert [len(part) for part in trainer().predict(module, several)] == [2, 2]
    fitted = trainer()
    fitted.fit(module, loaders([ones])[0], several)
    assert "val_loss/dataloader_idx_1" in fitted.logged_metrics


def test_labels_weigh_in_every_step(trainer, model, weights):
    kept = torch.rand(24, 1, generator=torch.Generator().manual_seed(0)) > 0.4
    y = torch.where(kept, Y, math.nan)
    for part in ("train", "val"):
        found = []
        for batch in ({"x": X, "y": y, "weight": kept}, {"x": X, "y": Y, "weight": 3.0 * kept}, 0):
            few = {"x": X[kept[:, 0]], "y": Y[kept[:, 0]]}
            module = ProjectiveLightning(model(), LOSS, optimizer=sgd)
            (loader,) = loaders([batch or few])
            if part == "train":
                trainer().fit(module, loader)
                found.append(weights(module.model))
            else:
                (logged,) = trainer().validate(module, loader, verbose=False)
                found.append(torch.tensor(logged["val_loss"]))
        for other in found[:2]:
            torch.testing.assert_close(other, found[2], rtol=1e-5, atol=1e-7)


def test_predictions_are_those_of_eval_mode_and_leave_the_mode_alone():
    module = ProjectiveLightning(nn.Sequential(nn.Dropout(0.5), Given()), LOSS).train()
    x = torch.ones(64, 1)
    assert (module.predict_step(x).decoded == 1).all()
    assert all(part.training for part in module.modules())


def test_a_strict_module_predicts_at_its_own_thresholds(model, loader, trainer):
    own = InferenceConfig(tau_infer=0.95, tau_train=0.97, score="angle", scale=2.0)
    strict = StrictModule(model(), own)
    module = ProjectiveLightning(strict, LOSS, config=TrainingConfig(target_scale=5.0))
    trainer().fit(module, loader, loader)
    assert strict.training
    (result,) = trainer().predict(module, DataLoader(X, batch_size=len(X)))
    decoded, bottom, gap = strict.eval()(X)
    assert 0 < bottom.sum() < len(X)
    torch.testing.assert_close(result.decoded, 5 * decoded, equal_nan=True)
    assert torch.equal(result.bottom_mask, bottom)
    assert torch.equal(result.gap_mask, gap)


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
