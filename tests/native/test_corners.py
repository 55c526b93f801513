"""What kernels meet in the wild: dependent tensors, hooks, batches of gradients, odd tensors."""

import threading
from pathlib import Path

import pytest
import torch

from zeroproof import SCM, native
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.inference import strict_inference
from zeroproof.layers import Rational, rational_formulas, rational_loops
from zeroproof.losses import formulas, implicit_loss, loops, margin_loss, sign_consistency_loss
from zeroproof.scm import division, division_loops
from zeroproof.training import SCMTrainingLoss

both_ways = pytest.mark.usefixtures("both_ways")
LOSSES = {
    "all parts": lambda *x: SCMTrainingLoss(normalizer="chordal", temperature=0.5)(x[:2], x[2:]),
    "implicit": lambda *x: implicit_loss(*x, normalizer="chordal"),
    "margin": lambda N, D, *_: margin_loss(D, 3.0, N=N, relative=True),
    "sign": lambda *x: sign_consistency_loss(*x, tau_sing=2.0),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
TARGETS = torch.ones(7), torch.linspace(0.1, 1, 7)


def dependent(loss, x):
    N = x * 1
    return loss(N, N * N + 1, *(y.to(x.dtype) for y in TARGETS))


@both_ways
@every_loss
def test_recorded_gradients_of_tuples_that_depend_on_each_other(loss):
    x = torch.linspace(0.5, 2, 7).requires_grad_()
    with gradient_policy(GradientPolicy.PROJECT):
        (first,) = torch.autograd.grad(dependent(loss, x), x)
        (again,) = torch.autograd.grad(dependent(loss, x), x, create_graph=True)
        torch.testing.assert_close(again, first, rtol=1e-4, atol=1e-6)
        (bend,) = torch.autograd.grad(again.sum(), x)
        wide = x.detach().double().requires_grad_()
        step = 1e-5
        ahead, behind = (
            torch.autograd.grad(dependent(loss, wide + h), wide)[0] for h in (step, -step)
        )
    torch.testing.assert_close(bend.double(), (ahead - behind) / (2 * step), rtol=1e-2, atol=1e-4)


@both_ways
@every_loss
def test_one_tensor_may_be_both(loss):
    x = torch.linspace(0.5, 2, 7).requires_grad_()
    with gradient_policy(GradientPolicy.PROJECT):
        (first,) = torch.autograd.grad(loss(x, x, *TARGETS), x)
        (again,) = torch.autograd.grad(loss(x, x, *TARGETS), x, create_graph=True)
    torch.testing.assert_close(again, first, rtol=1e-4, atol=1e-6)


@both_ways
@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_act_once(create_graph):
    def gradient(factor):
        N = torch.linspace(0.5, 2, 7).requires_grad_()
        seen = N * 1
        seen.register_hook(lambda g: factor * g)
        loss = LOSSES["all parts"](seen, torch.ones(7), *TARGETS)
        return torch.autograd.grad(loss, N, create_graph=create_graph)[0]

    torch.testing.assert_close(gradient(2.0), 2 * gradient(1.0))


@both_ways
@every_loss
def test_batches_of_gradients(loss):
    N, D = torch.randn(2, 7)
    D = (D + 3).requires_grad_()
    with gradient_policy(GradientPolicy.PROJECT):
        slopes = torch.tensor([1.0, -2.0, 0.0])
        options = {"is_grads_batched": True}
        (rows,) = torch.autograd.grad(loss(N, D, *TARGETS), D, slopes, **options)
        (one,) = torch.autograd.grad(loss(N, D, *TARGETS), D)
    torch.testing.assert_close(rows, slopes[:, None] * one, rtol=1e-4, atol=1e-6)


@both_ways
def test_what_leaves_the_range_is_infinite():
    N, D, Y_n, Y_d = torch.randn(4, 100)
    weight = torch.full((100,), 1e300, dtype=torch.float64)
    assert implicit_loss(N, D, Y_n, Y_d, weight=weight, reduction="sum") == torch.inf
    huge = SCMTrainingLoss(lambda_margin=1e30, tau_train=1e10)
    assert huge((N, D), (Y_n, Y_d)) == torch.inf


@both_ways
def test_the_default_type_does_not_matter():
    N, D = torch.randn(2, 5000)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert strict_inference(N, D).decoded.dtype == torch.float32
        assert (SCM(N) / SCM(D)).payload.dtype == torch.float32
        assert Rational((3, 2), dtype=torch.float32)(N).payload.dtype == torch.float32
        assert SCMTrainingLoss()((N, D), (N, D)).dtype == torch.float32
    finally:
        torch.set_default_dtype(before)


@both_ways
def test_the_default_device_does_not_matter():
    N, D = torch.randn(2, 5000)
    layer = Rational((3, 2))
    with torch.device("meta"):
        D.requires_grad_()
        Y_d = torch.ones_like(D).masked_fill_(N > 1, 0)  # some are singular
        loss = SCMTrainingLoss()((N, D), (N, Y_d.detach())) + implicit_loss(N, D, N, D.detach())
        assert loss.device.type == "cpu"
        loss.backward()
        assert strict_inference(N, D).decoded.device.type == "cpu"
        layer(N.requires_grad_()).payload.sum().backward()
    assert N.grad is not None
    assert N.grad.device.type == "cpu"


@both_ways
def test_negative_views():
    x = torch.randn(5000, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(Rational((3, 2))(x).payload, x.clone())
    torch.testing.assert_close(Rational((3, 2), channels=2)(x.view(-1, 2)).payload, x.view(-1, 2))
    assert implicit_loss(x, torch.ones(5000), x, torch.ones(5000)) == 0
    torch.testing.assert_close(strict_inference(x, torch.ones(5000)).decoded, x.clone())


@both_ways
def test_targets_made_for_inference():
    with torch.inference_mode():
        targets = torch.randn(2, 50).unbind()
    assert all(y.is_inference() for y in targets)
    N, D = torch.randn(2, 50).unbind()
    N.requires_grad_()
    (got,) = torch.autograd.grad(implicit_loss(N, D, *targets), N)
    (wanted,) = torch.autograd.grad(implicit_loss(N, D, *(y.clone() for y in targets)), N)
    torch.testing.assert_close(got, wanted)


def test_a_pause_begun_between_forward_and_backward_holds(monkeypatch):
    N, D = torch.randn(2, 50).unbind()
    N.requires_grad_()
    loss = SCMTrainingLoss()((N, D), (N.detach(), D)) + implicit_loss(N, D, D, D)
    monkeypatch.setattr(loops, "gradients", None)  # called, it would fail
    with native.disabled():
        loss.backward()
    assert N.grad is not None
    assert N.grad.isfinite().all()


def test_pauses_of_several_threads_may_overlap():
    entered, leave = threading.Event(), threading.Event()

    def pause():
        with native.disabled():
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=pause)
    with native.disabled():
        other.start()
        assert entered.wait(10)
    assert not native.available()
    leave.set()
    other.join()
    assert native.available()


def test_kernels_kept_on_disk_are_those_of_all_sources():
    for kernel in (loops._sums, rational_loops._pullback, division_loops._pullback):
        assert kernel._cache._cache_file._source_stamp == native._stamp()
    # formulas whose code they take from other files too: an edited one must not run as it was
    for file in (formulas, rational_formulas, division, loops, rational_loops, division_loops):
        assert Path(file.__file__) in native._SOURCES


def test_a_covered_row_far_from_the_threshold_has_no_slope():
    loss_fn = SCMTrainingLoss(
        score="angle", tau_train=0.5, scale=0.1, lambda_rejection=1.0, temperature=1e-5
    )
    for N in (torch.tensor([1.4e-45, 1.0]), torch.tensor([1.0, 1.0])):
        n, d = N.clone().requires_grad_(), N.clone().requires_grad_()
        with gradient_policy(GradientPolicy.REJECT):
            loss_fn((n, d), (torch.ones(2), torch.ones(2))).backward()
        assert n.grad is not None
        assert n.grad.tolist() == [0, 0]
