"""Every snippet of the training guide, in its order and its words, with data and models added."""

import itertools
import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from zeroproof.layers import ProjectiveMLP, Rational
from zeroproof.projective import chordal_distance

N = torch.tensor([[1.0], [2.0], [3.0], [-1.0]])
D = torch.tensor([[2.0], [5e-5], [1e-7], [0.0]])
Y_n = torch.tensor([[1.0], [1.0], [-1.0], [1.0]])
Y_d = torch.tensor([[3.0], [0.0], [0.0], [1.0]])


def pole(rows=128):
    x = torch.linspace(-1, 1, rows)[:, None]
    return x, 1 / (x + 1.05)


def loader(rows=128, batch=32):
    return DataLoader(TensorDataset(*pole(rows)), batch_size=batch, shuffle=True)


def double(x):
    return x.double()


@torch.no_grad()
def distance(model):
    x, y = pole()
    return float(chordal_distance(*model(x), y, torch.ones_like(y)).mean())


@pytest.fixture
def model():
    torch.manual_seed(1)
    return ProjectiveMLP(1, 1, hidden=(32,))


# --- Projective learning


def test_lift_targets():
    y_true = torch.tensor([2.5, math.inf, -math.inf])

    from zeroproof.training.targets import lift_targets

    # Finite targets: y_finite → ⟨y_finite, 1⟩
    # Infinite targets: ±inf → ⟨±1, 0⟩
    targets_n, targets_d = lift_targets(y_true)

    assert targets_n.tolist() == [2.5, 1.0, -1.0]
    assert targets_d.tolist() == [1.0, 0.0, 0.0]


def test_encoding_decoding_and_detached_renormalization():
    from zeroproof.projective import decode, encode, renormalize

    assert [x.tolist() for x in encode(torch.tensor([7.0, math.nan]))] == [[7.0, 1.0], [1.0, 0.0]]
    value, bottom = decode(N, D, 1e-6)
    assert value[:2, 0].tolist() == pytest.approx([0.5, 40000.0])
    assert bottom.flatten().tolist() == [False, False, True, True]
    S = (double(N) ** 2 + double(D) ** 2).sqrt() + 1e-9
    scaled_N, scaled_D = renormalize(N, D)
    torch.testing.assert_close(double(scaled_N), double(N) / S, rtol=1e-6, atol=0)
    torch.testing.assert_close(double(scaled_D), double(D) / S, rtol=1e-6, atol=0)


def test_a_policy_around_backward():
    layer = Rational(degrees=(1, 1), returns="tensor")
    x = torch.tensor([0.5, 2.0], requires_grad=True)
    loss = (layer(x) * 5).sum()

    from zeroproof.autodiff.policies import GradientPolicy, gradient_policy

    with gradient_policy(GradientPolicy.PROJECT):
        loss.backward()

    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([5.0, 5.0]))  # CLAMP would have given 1


def test_the_gap_region():
    from zeroproof.inference import InferenceConfig, strict_inference

    decoded, bottom_mask, gap_mask = strict_inference(
        N, D, config=InferenceConfig(tau_infer=1e-6, tau_train=1e-4)
    )

    assert decoded[:2, 0].tolist() == pytest.approx([0.5, 40000.0])
    assert decoded[2:].isnan().all()
    assert bottom_mask.flatten().tolist() == [False, False, True, True]
    assert gap_mask.flatten().tolist() == [False, True, False, False]
    assert gap_mask.sum() == 1


# --- Gradient policies


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CLAMP", [[0.0, 1.0], [0.0, -1.0]]),
        ("PROJECT", [[0.0, 5.0], [0.0, -10.0]]),
        ("REJECT", [[0.0, 0.0], [0.0, 0.0]]),
        ("PASSTHROUGH", [[math.inf, 5.0], [-math.inf, -10.0]]),
    ],
)
def test_policy_options(name, expected):
    from zeroproof.autodiff.policies import GradientPolicy, gradient_policy
    from zeroproof.scm import SCM

    n = torch.tensor([1.0, 1.0], requires_grad=True)
    d = torch.tensor([0.0, 0.5], requires_grad=True)
    quotient = SCM(n) / SCM(d)
    with gradient_policy(GradientPolicy[name]):
        quotient.payload.backward(torch.full((2,), 2.5))
    assert [n.grad.tolist(), d.grad.tolist()] == expected


def test_usage_of_policies(model):
    inputs, y = pole()
    targets = (y, torch.ones_like(y))
    my_rational_layer = Rational(degrees=(2, 1))

    def loss_fn(outputs, targets):
        return SCMTrainingLoss()(outputs=outputs, targets=targets)

    from zeroproof.autodiff.policies import GradientPolicy, gradient_policy
    from zeroproof.training.loss import SCMTrainingLoss

    # Global policy
    with gradient_policy(GradientPolicy.PROJECT):
        outputs = model(inputs)
        loss = loss_fn(outputs, targets)
        loss.backward()

    # Per-layer policy (advanced)
    from zeroproof.autodiff.policies import register_policy

    register_policy(my_rational_layer, GradientPolicy.PROJECT)

    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert max(float(g.abs().max()) for g in gradients) > 0
    x = torch.tensor([0.5], requires_grad=True)
    (my_rational_layer(x).payload * 5).sum().backward()  # the context's CLAMP would have given 1
    assert x.grad.tolist() == pytest.approx([5.0])


# --- Loss functions


def test_implicit_loss():
    from zeroproof.losses.implicit import implicit_loss

    # For projective outputs (N, D) and targets (Y_n, Y_d)
    loss_fit = implicit_loss(N, D, Y_n, Y_d)

    n, d, y_n, y_d = map(double, (N, D, Y_n, Y_d))
    E = (n * y_d - d * y_n) ** 2
    expected = (E / (d**2 * y_d**2 + n**2 * y_n**2 + 1e-9)).mean()
    assert float(loss_fit) == pytest.approx(float(expected), rel=1e-5)


def test_margin_loss():
    from zeroproof.losses.margin import margin_loss

    loss_margin = margin_loss(D, tau_train=1e-4)

    expected = ((1e-4 - double(D).abs()).clamp(min=0) ** 2).mean()
    assert float(loss_margin) == pytest.approx(float(expected), rel=1e-4)


def test_sign_consistency_loss():
    from zeroproof.losses.sign import sign_consistency_loss

    loss_sign = sign_consistency_loss(N, D, Y_n, Y_d, tau_sing=1e-3)

    n, d, y_n, y_d = map(double, (N, D, Y_n, Y_d))
    cosine = (n * y_n + d * y_d) / (n.hypot(d) * y_n.hypot(y_d))
    expected = (1 - cosine)[y_d.abs() < 1e-3].mean()
    assert float(loss_sign) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss_sign) == pytest.approx(1.0, rel=1e-5)  # one aligned, one opposite


def test_coverage_and_rejection_loss():
    bottom_mask = torch.tensor([False, False, False, True])

    from zeroproof.losses.coverage import rejection_loss

    # Compute coverage
    coverage = (bottom_mask.logical_not()).float().mean()

    # Penalize if below threshold
    loss_rej = rejection_loss(coverage, target_coverage=0.95)

    assert float(coverage) == 0.75
    assert float(loss_rej) == pytest.approx(0.2**2)
    assert float(rejection_loss(torch.tensor(0.96), target_coverage=0.95)) == 0.0


def test_combined_objective():
    from zeroproof.losses.coverage import rejection_loss, soft_coverage
    from zeroproof.losses.implicit import implicit_loss
    from zeroproof.losses.margin import margin_loss
    from zeroproof.losses.sign import sign_consistency_loss
    from zeroproof.training.loss import SCMTrainingLoss

    loss_fn = SCMTrainingLoss(
        lambda_margin=0.1,
        lambda_sign=1.0,
        lambda_rejection=0.01,
        tau_train=1e-4,
        tau_sing=1e-3,
        gamma=1e-9,
    )

    total_loss = loss_fn(outputs=(N, D), targets=(Y_n, Y_d))

    finite = Y_d != 0  # margin and coverage of the combined loss follow the labels
    expected = (
        implicit_loss(N, D, Y_n, Y_d)
        + 0.1 * margin_loss(D, tau_train=1e-4, mask=finite)
        + 1.0 * sign_consistency_loss(N, D, Y_n, Y_d, tau_sing=1e-3)
        + 0.01 * rejection_loss(soft_coverage(D[finite].abs(), 1e-4), target_coverage=0.95)
    )
    torch.testing.assert_close(total_loss, expected)
    assert loss_fn == SCMTrainingLoss()  # the guide spells out the defaults


# --- Training loop


@pytest.mark.parametrize("validated", [True, False], ids=["with val_loader", "without"])
def test_using_scmtrainer(model, validated):
    from zeroproof.autodiff.policies import GradientPolicy
    from zeroproof.training import SCMTrainer, TrainingConfig
    from zeroproof.training.loss import SCMTrainingLoss

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss_fn = SCMTrainingLoss()
    train_loader = loader(batch=64)
    val_loader = loader(batch=64) if validated else None
    start = distance(model)

    trainer = SCMTrainer(
        model=model,
        optimizer=optimizer,
        loss_fn=loss_fn,
        train_loader=train_loader,
        val_loader=val_loader,  # optional
        config=TrainingConfig(
            max_epochs=100,
            gradient_policy=GradientPolicy.PROJECT,
            coverage_threshold=0.90,
            coverage_patience=10,
            use_amp=True,  # mixed precision
            grad_accumulation_steps=1,
            tau_train_min=1e-4,
            tau_train_max=1e-4,
        ),
    )

    history = trainer.fit()

    assert len(history) == 100
    assert distance(model) < start / 10
    assert ("val_coverage" in history[-1]) is validated


def test_manual_training_loop(model, capsys):
    from zeroproof.inference import strict_inference
    from zeroproof.losses.implicit import implicit_loss
    from zeroproof.losses.margin import margin_loss
    from zeroproof.losses.sign import sign_consistency_loss

    torch.manual_seed(0)
    num_epochs, train_loader = 30, loader()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    start = distance(model)

    from zeroproof.autodiff.policies import GradientPolicy, gradient_policy
    from zeroproof.training.targets import lift_targets

    model.train()
    for _epoch in range(num_epochs):
        for batch_x, batch_y in train_loader:
            # Lift targets to projective tuples
            Y_n, Y_d = lift_targets(batch_y)

            # Forward pass
            N, D = model(batch_x)  # projective outputs

            # Compute losses
            loss_fit = implicit_loss(N, D, Y_n, Y_d)
            loss_margin = margin_loss(D, tau_train=1e-4)
            loss_sign = sign_consistency_loss(N, D, Y_n, Y_d)

            total_loss = loss_fit + 0.1 * loss_margin + 1.0 * loss_sign

            # Backward with gradient policy
            optimizer.zero_grad()
            with gradient_policy(GradientPolicy.PROJECT):
                total_loss.backward()
            optimizer.step()

            # Monitor coverage
            _, bottom_mask, _ = strict_inference(N, D)
            coverage = (~bottom_mask).float().mean()
            print(f"Coverage: {coverage:.3f}")

    assert distance(model) < start / 10
    assert capsys.readouterr().out.startswith("Coverage: 1.000\n")


# --- Adaptive loss strategies


def test_coverage_control():
    num_epochs, current_coverage, seen = 30, torch.tensor(0.7), []

    from zeroproof.losses.coverage import rejection_loss
    from zeroproof.training.adaptive import AdaptiveCoverageScheduler

    scheduler = AdaptiveCoverageScheduler(
        initial_coverage=0.80, target_coverage=0.95, warmup_epochs=20
    )

    for epoch in range(num_epochs):
        target_cov = scheduler.step(epoch)
        loss_rej = rejection_loss(current_coverage, target_coverage=target_cov)
        seen.append(target_cov)
        assert float(loss_rej) == pytest.approx((target_cov - 0.7) ** 2, rel=1e-5)

    assert seen[0] == 0.80
    assert seen[10] == pytest.approx(0.875)
    assert seen[20:] == [0.95] * 10
    assert all(a < b for a, b in itertools.pairwise(seen[:21]))


def test_threshold_perturbation():
    train_loader, taus = loader(batch=4), []

    from zeroproof.losses.margin import margin_loss
    from zeroproof.training.thresholds import perturbed_threshold

    for _batch in train_loader:
        tau = perturbed_threshold(
            tau_train_min=1e-4,
            tau_train_max=2e-4,
            mode="uniform",  # or 'log_uniform'
        )
        loss_margin = margin_loss(D, tau_train=tau)
        taus.append(tau)
        expected = ((tau - double(D).abs()).clamp(min=0) ** 2).mean()
        assert float(loss_margin) == pytest.approx(float(expected), rel=1e-4)

    assert len(set(taus)) == len(taus) == 32
    assert all(isinstance(tau, float) and 1e-4 <= tau <= 2e-4 for tau in taus)
    assert 1e-4 <= perturbed_threshold(1e-4, 2e-4, mode="log_uniform") <= 2e-4
