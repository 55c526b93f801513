"""The one pass over all parts, and the compiled one, against the plain losses."""

import math

import pytest
import torch

from zeroproof import native
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.training import loss as module
from zeroproof.training.loss import SCMTrainingLoss
from zeroproof.training.targets import lift_targets

OPTIONS = {
    "guide": {},
    "attached": {"normalizer": "attached"},
    "chordal": {"normalizer": "chordal", "relative_margin": True},
    "angle": {
        "normalizer": "chordal",
        "relative_margin": True,
        "score": "angle",
        "scale": 3.0,
        "tau_train": 0.3,
        "sign_variant": "angle",
    },
    "flat angle": {"score": "angle", "tau_train": 0.3, "sign_variant": "angle"},
    "no gamma": {"gamma": 0.0},
    "strong": {"lambda_margin": 50.0, "lambda_rejection": 30.0, "tau_train": 0.5},
    "fit": {"lambda_margin": 0.0, "lambda_sign": 0.0, "lambda_rejection": 0.0},
    "sign": {"lambda_margin": 0.0, "lambda_rejection": 0.0, "tau_sing": 0.5},
    "sharp": {"temperature": 1e-6, "target_coverage": 1.0},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
every_policy = pytest.mark.parametrize(
    "policy", list(GradientPolicy), ids=lambda policy: policy.name
)


def draw(n, kind, seed=3):
    """Outputs, targets and mask of n numbers."""
    make = torch.Generator().manual_seed(seed)
    N, D, y = torch.randn(3, n, generator=make)
    bottom = torch.rand(n, generator=make) < (0.6 if kind == "bottom" else 0.05)
    y[bottom] = torch.tensor([math.inf, -math.inf, math.nan])[torch.arange(int(bottom.sum())) % 3]
    Y_n, Y_d = lift_targets(y)
    if kind == "bottom":
        D[torch.rand(n, generator=make) < 0.3] *= 1e-6
        D[torch.rand(n, generator=make) < 0.1] = 0.0
        D[::7] = -0.0
        N[torch.rand(n, generator=make) < 0.1] = 0.0
    if kind == "extreme":
        N, D, Y_n = (x * 10 ** (60 * torch.rand(n, generator=make) - 30) for x in (N, D, Y_n))
    if kind == "subnormal":
        x = 10 ** (-4 * torch.rand(n, generator=make) - 37)
        x[::2] = 1.0
        N, D, Y_n = N * x, D * x, torch.where(Y_d == 0, Y_n, Y_n * x)
        Y_d = torch.where(torch.rand(n, generator=make) < 0.3, Y_d * x, Y_d)
        D[::5], N[::7] = 0.0, 0.0
    if kind == "huge":
        N, D = N.clamp(-3, 3) * 1e38, D.clamp(-3, 3) * 1e38
        Y_n, Y_d = Y_n.clamp(-3, 3) * 1e38, torch.where(y > 0, 1e38, 1.0) * Y_d
        D[::5], N[::7] = 0.0, 1.0
    if kind == "bad":
        for x in (N, D, Y_n):
            x[torch.rand(n, generator=make) < 0.01] = math.nan
            x[torch.rand(n, generator=make) < 0.01] = -math.inf
    return [N, D, Y_n, Y_d], ~torch.isnan(y)


KINDS = pytest.mark.parametrize("kind", ["random", "bottom", "extreme", "bad"])


def results(loss_fn, tuples, mask=None, policy=GradientPolicy.PROJECT, factor=1.0):
    N, D = (x.clone().requires_grad_() for x in tuples[:2])
    total = loss_fn(outputs=(N, D), targets=tuple(tuples[2:]), mask=mask)
    with gradient_policy(policy):
        return total.detach(), *torch.autograd.grad(factor * total, (N, D))


@pytest.fixture
def plain(monkeypatch):
    """Return a function that runs the plain losses."""

    def run(*args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(module, "fusible", lambda *_: False)
            return results(*args, **options)

    return run


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("zeroproof.losses._fused.CHUNK", 64)
    monkeypatch.setattr("zeroproof.losses._fused.BLOCK", 64)


@every_option
@KINDS
@every_policy
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_one_pass_equals_the_plain_losses(options, kind, policy, dtype, plain):
    tuples, mask = draw(600, kind)
    tuples = [x.to(dtype) for x in tuples]
    loss_fn = SCMTrainingLoss(**options)
    with native.disabled():
        got = results(loss_fn, tuples, mask, policy, 300.0)
        same(got, plain(loss_fn, tuples, mask, policy, 300.0), tuples)


@every_option
@KINDS
@every_policy
def test_native_kernels_equal_the_plain_losses(options, kind, policy, plain):
    tuples, mask = draw(1500, kind)  # several blocks, and a part of one
    loss_fn = SCMTrainingLoss(**options)
    got = results(loss_fn, tuples, mask, policy, 300.0)
    # where float32 saturates, so do the kernels: float64 is the better reference elsewhere
    saturates = kind == "extreme" or loss_fn.gamma == 0
    same(got, plain(loss_fn, tuples if saturates else wide(tuples), mask, policy, 300.0), tuples)


@KINDS
@every_policy
def test_an_oriented_fit_by_native_kernels(kind, policy, plain):
    tuples, mask = draw(1500, kind)
    loss_fn = SCMTrainingLoss(oriented=True, lambda_rejection=3.0)
    for known in (None, mask):
        got = results(loss_fn, tuples, known, policy, 300.0)
        same(got, plain(loss_fn, wide(tuples), known, policy, 300.0), tuples)


def same(got, wanted, tuples, least=1e-30):
    digits = 2e-5 if tuples[0].dtype == torch.float32 else 1e-12
    assert got[0].isfinite()
    torch.testing.assert_close(got[0], wanted[0], rtol=digits, atol=0.0, check_dtype=False)
    for mine, wanted_one, x in zip(got[1:], wanted[1:], tuples, strict=False):
        assert not mine.isnan().any()
        inside = wanted_one.clamp(-1e37, 1e37)  # beyond, both are infinite
        error = (mine.clamp(-1e37, 1e37) - inside).abs()
        # where the terms of a gradient cancel, rounding is relative to them
        terms = inside.abs().median() + 1 / x.abs().nan_to_num(1.0, 1.0, 1.0).clamp(least, 1e30)
        assert (error <= digits * (inside.abs() + terms)).all()


@pytest.mark.parametrize("options", [{}, OPTIONS["angle"], OPTIONS["strong"]])
@every_policy
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("which", ["D", "Y_d", "both"])
def test_shared_denominators(options, policy, which, plain, both_ways):
    tuples, mask = draw(600, "bottom")
    tuples = [x.view(-1, 3) for x in tuples]
    for i in {"D": [1], "Y_d": [3], "both": [1, 3]}[which]:
        tuples[i] = tuples[i][:, :1]
    loss_fn = SCMTrainingLoss(**options)
    for known in (None, mask.view(-1, 3), mask.view(-1, 3)[:, :1]):
        got = results(loss_fn, tuples, known, policy, 300.0)
        like = wide(tuples) if both_ways == "native" else tuples
        same(got, plain(loss_fn, like, known, policy, 300.0), tuples)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("shape", [(), (1,), (600,), (600, 1), (20, 10, 3), (1, 600)], ids=str)
def test_every_shape_and_stride(shape, plain):
    n = math.prod(shape)
    tuples, mask = draw(n, "random")
    tuples = [torch.stack((x, x), -1)[..., 0].view(-1)[:n] for x in tuples]
    tuples = [x.as_strided(shape, x.view(shape).stride()) for x in tuples]
    same(
        results(SCMTrainingLoss(), tuples, mask.view(shape)),
        plain(SCMTrainingLoss(), tuples, mask.view(shape)),
        tuples,
    )
    wide = [x.unsqueeze(-1).expand(*shape, 2) for x in tuples]  # strides of 0
    same(results(SCMTrainingLoss(), wide), plain(SCMTrainingLoss(), wide), wide)


@pytest.mark.usefixtures("both_ways")
def test_backward_keeps_the_four_tensors_alone():
    (N, D, Y_n, Y_d), _ = draw(100_000, "random")
    N.requires_grad_(), D.requires_grad_()
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        SCMTrainingLoss()(outputs=(N, D), targets=(Y_n, Y_d))
    assert kept.keys() == {x.untyped_storage().data_ptr() for x in (N, D, Y_n, Y_d)}


@pytest.mark.parametrize(
    "name", ["attached", "chordal", "angle"]
)  # a detached one has no true gradient
def test_second_derivatives_go_through_the_plain_losses(name):
    (N, D, Y_n, Y_d), mask = draw(8, "random")
    Y_n, Y_d = Y_n.double(), Y_d.double()
    D = D.sign() * (D.abs() + 0.4)  # off the kinks of the margin
    loss_fn = SCMTrainingLoss(**OPTIONS[name])

    def loss(N, D):
        return loss_fn(outputs=(N, D), targets=(Y_n, Y_d), mask=mask)

    inputs = tuple(x.double().requires_grad_() for x in (N, D))
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.autograd.gradcheck(loss, inputs)
        assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.usefixtures("both_ways")
def test_without_a_gradient_the_value_is_the_same():
    (N, D, Y_n, Y_d), _ = draw(600, "bad")
    wanted = SCMTrainingLoss()(outputs=(N.clone().requires_grad_(), D), targets=(Y_n, Y_d))
    for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with context:
            got = SCMTrainingLoss()(outputs=(N, D), targets=(Y_n, Y_d))
        assert got == wanted
        assert not got.requires_grad


@pytest.mark.usefixtures("both_ways")
def test_one_gradient_alone():
    (N, D, Y_n, Y_d), _ = draw(600, "random")
    both = results(SCMTrainingLoss(), (N, D, Y_n, Y_d))
    total = SCMTrainingLoss()(outputs=(N, D.requires_grad_()), targets=(Y_n, Y_d))
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.equal(torch.autograd.grad(total, D)[0], both[2])


def test_targets_may_learn():
    (N, D, Y_n, Y_d), _ = draw(600, "random")
    total = SCMTrainingLoss()(outputs=(N, D), targets=(Y_n.requires_grad_(), Y_d))
    assert (torch.autograd.grad(total, Y_n)[0] != 0).any()


def test_per_sample_gradients_equal_those_of_a_loop():
    tuples, _ = draw(30, "random")
    tuples = [x.view(3, 10) for x in tuples]

    def loss(N, D, Y_n, Y_d):
        return SCMTrainingLoss()(outputs=(N, D), targets=(Y_n, Y_d))

    with gradient_policy(GradientPolicy.PROJECT):
        got = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(*tuples)
    for i in range(3):
        _, *wanted = results(SCMTrainingLoss(), [x[i] for x in tuples])
        for mine, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(mine[i], other)


def test_forward_derivatives_follow_the_plain_losses():
    (N, D, Y_n, Y_d), _ = draw(600, "random")
    tangent = torch.ones_like(N)

    def loss(N):
        return SCMTrainingLoss()(outputs=(N, D), targets=(Y_n, Y_d))

    _, slope = torch.func.jvp(loss, (N,), (tangent,))
    with torch.autograd.forward_ad.dual_level():
        dual = loss(torch.autograd.forward_ad.make_dual(N, tangent))
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(tangent, slope, check_dtype=False)
    _, g_N, _ = results(SCMTrainingLoss(), (N, D, Y_n, Y_d))
    torch.testing.assert_close(g_N.sum(), slope, check_dtype=False)


# dynamo itself instantiates autograd.Function, which torch deprecates
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "name", ["guide", "fit", "chordal", "angle", "flat angle", "no gamma", "strong", "sharp"]
)
def test_the_compiled_loss_equals_the_plain_one(name, plain):
    torch.compiler.reset()  # other tests count towards the limit of recompilations
    loss_fn = SCMTrainingLoss(**OPTIONS[name])
    compiled = torch.compile(loss_fn.__call__, fullgraph=True, backend="aot_eager")
    for kind in ("random", "bottom", "bad", "extreme", "subnormal", "huge"):
        tuples, mask = draw(600, kind)
        if kind == "subnormal" and loss_fn.gamma == 0:
            continue  # the loss itself is beyond float32
        # where float32 saturates, so does the compiled loss: float64 is the better reference
        saturates = kind in ("extreme", "huge") or loss_fn.gamma == 0
        like = tuple if saturates else wide
        least = 1e-38 if kind == "subnormal" else 1e-30
        for shape in ((600,), (200, 3)):
            tuples, mask = [x.view(shape) for x in tuples], mask.view(shape)
            for policy in GradientPolicy:
                got = results(compiled, tuples, mask, policy, 300.0)
                wanted = plain(loss_fn, like(tuples), mask, policy, 300.0)
                same(within_range(got, wanted), wanted, tuples, least)
        shared = [tuples[0], tuples[1][:, :1], tuples[2], tuples[3]]
        got = results(compiled, shared, mask, GradientPolicy.CLAMP, 300.0)
        wanted = plain(loss_fn, like(shared), mask, GradientPolicy.CLAMP, 300.0)
        same(within_range(got, wanted), wanted, shared, least)


def within_range(got, wanted):
    """Replace numbers whose reference is beyond float32: parts of opposite signs saturate there."""
    pairs = zip(got[1:], wanted[1:], strict=True)
    beyond = [torch.where((b.abs() > 1e37) & ~a.isnan(), b, a) for a, b in pairs]
    return got[0], *beyond


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["guide", "chordal", "angle", "flat angle"])
def test_a_compiled_gradient_at_both_ends_of_the_range(name, plain):
    torch.compiler.reset()
    loss_fn = SCMTrainingLoss(**OPTIONS[name])
    compiled = torch.compile(loss_fn.__call__, fullgraph=True, backend="aot_eager")
    near = torch.tensor([1e-39, 1e-39, 1e-45, 0.0, 1.0, 2.0])
    tuples = [near, torch.tensor([0.0, 1e-39, 0.0, 1e-45, 1.0, 2.0]), *torch.ones(2, 6)]
    for policy in (GradientPolicy.CLAMP, GradientPolicy.REJECT):
        wanted = plain(loss_fn, wide(tuples), None, policy)
        same(results(compiled, tuples, None, policy), wanted, tuples)
    ends = torch.tensor([2e38, 1.0, 2e38, 3.0, 3.4e38, 2.0])
    tuples = [ends, ends, ends, ends * torch.tensor([1.0, 2.0, -1.0, 1.0, 1.0, 1.0])]
    for policy in GradientPolicy:
        wanted = plain(loss_fn, wide(tuples), None, policy)
        same(results(compiled, tuples, None, policy), wanted, tuples)


def wide(tuples):
    return [x.double() for x in tuples]
