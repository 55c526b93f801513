"""Every machine gives the float64 value: loops, torch in chunks, a compiled graph, autograd."""

import itertools
import math

import pytest
import torch

from zeroproof import native
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.losses import (
    gradients,
    implicit_loss,
    loops,
    margin_loss,
    sign_consistency_loss,
)
from zeroproof.losses.total import SCMTrainingLoss


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()  # what was compiled counts towards the limit of recompilations
    yield
    torch.compiler.reset()


KINDS = ("random", "near", "opposite", "zeros", "singular", "tiny", "huge", "bad")
TOTALS = {
    "guide": {},
    "attached": {"normalizer": "attached"},
    "chordal": {"normalizer": "chordal", "relative_margin": True, "tau_train": 0.5},
    "oriented": {"oriented": True, "lambda_rejection": 3.0},
    "angle": {
        "normalizer": "chordal",
        "relative_margin": True,
        "score": "angle",
        "scale": 3.0,
        "tau_train": 0.3,
        "temperature": 0.1,
        "sign_variant": "angle",
        "turned": True,
    },
    "strong": {"lambda_margin": 50.0, "lambda_rejection": 30.0, "tau_train": 0.5},
    "fit": {"lambda_margin": 0.0, "lambda_sign": 0.0, "lambda_rejection": 0.0, "gamma": 1e-3},
    "sharp": {"temperature": 1e-6, "target_coverage": 1.0, "lambda_rejection": 30.0},
}
APART = {"normalizer": "chordal", "lambda_separation": 0.1}  # by autograd of its values alone
SINGLE = {
    "detached": implicit_loss,
    "attached": lambda *x, **k: implicit_loss(*x, normalizer="attached", **k),
    "chordal": lambda *x, **k: implicit_loss(*x, normalizer="chordal", **k),
    "oriented": lambda *x, **k: implicit_loss(*x, oriented=True, **k),
    "margin": lambda N, D, *_, **k: margin_loss(D, 0.3, N=N, **k),
    "margin of D alone": lambda _, D, *__, **k: margin_loss(D, 0.3, relative=True, **k),
    "margin, angle": lambda N, D, *_, **k: margin_loss(D, 0.3, N=N, score="angle", **k),
    "sign": sign_consistency_loss,
    "sign, angle": lambda *x, **k: sign_consistency_loss(*x, variant="angle", **k),
}
slow = pytest.mark.slow
every_total = pytest.mark.parametrize("options", TOTALS.values(), ids=TOTALS.keys())
every_single = pytest.mark.parametrize("loss", SINGLE.values(), ids=SINGLE.keys())


def draw(kind, n=1500, seed=3):
    """Outputs, targets and known signs of n numbers, n more than one block of the loops."""
    make = torch.Generator().manual_seed(seed)

    def chance(share):
        return torch.rand(n, generator=make) < share

    N, D, Y_n = torch.randn(3, n, generator=make)
    Y_d = torch.where(chance(0.1), 0.0, 1.0)
    if kind in ("near", "opposite"):
        size = 10 ** (6 * torch.rand(n, generator=make) - 8)
        side = -1 if kind == "opposite" else 1
        N, D = side * (Y_n + size * N), side * (Y_d + size * D)
    if kind == "zeros":
        for x in (N, D, Y_n, Y_d):
            x[chance(0.4)] = 0.0
    if kind == "singular":
        Y_d, D = torch.where(chance(0.5), 0.0, 1e-4), 1e-3 * D
    if kind in ("tiny", "huge"):
        N, D = (x * (1e-30 if kind == "tiny" else 1e30) for x in (N, D))
    if kind == "bad":
        for x in (N, D, Y_n):
            x[chance(0.01)], x[chance(0.01)] = math.nan, -math.inf
    return [N, D, Y_n, Y_d], ~chance(0.2)


def weights(N):
    """One for every row, some of which do not count."""
    weight = 10 * torch.rand(N.shape if N.ndim == 1 else (len(N), 1))
    weight.view(-1)[::17], weight.view(-1)[1::19] = -1.0, math.nan
    return weight


def results(call, tuples, policy=GradientPolicy.PROJECT, factor=1.0):
    N, D = (x.clone().requires_grad_() for x in tuples[:2])
    value = call(N, D, *tuples[2:])
    with gradient_policy(policy):
        found = torch.autograd.grad(factor * value, (N, D), allow_unused=True)
    N, D = (torch.zeros_like(x) if g is None else g for g, x in zip(found, (N, D), strict=True))
    return value.detach(), N, D


def exact(call, tuples, *args):
    """Return what autograd makes of the values in float64, machines aside."""
    with native.disabled(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "_alike", lambda *_: False)
        return results(call, [x.double() for x in tuples], *args)


def same(got, wanted, tuples, digits=1e-6, rest=1e-13):
    """Compare; `rest` is the rounding of angles, what is left where the terms of one cancel."""
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=digits, atol=1e-38)
    N, D = (x.double().nan_to_num(1.0, 1.0, 1.0).abs() for x in tuples[:2])
    m = torch.maximum(N, D)
    # what a gradient by this tuple may be: of the loss times 30, by one of so many entries
    size = 30 * wanted[0].clamp(min=1) / torch.where(m > 0, m, 1) / m.numel()
    end = torch.finfo(torch.float32).max
    for pair in zip(got[1:], wanted[1:], strict=True):
        assert torch.equal(*(z.isnan() for z in pair))  # under PASSTHROUGH, at the same places
        mine, true = (z.nan_to_num(0, math.inf, -math.inf) for z in pair)
        assert mine.isfinite().all()
        bounded = true.clamp(-end, end)
        terms = size if size.shape == true.shape else size.amax(-1, keepdim=True)
        error = (mine.double() - bounded).abs()
        assert (error - digits * bounded.abs() - rest * terms <= 1e-44).all()


@every_total
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("both_ways")
def test_the_combined_loss_is_that_of_float64(options, kind):
    tuples, known = draw(kind)
    case = KINDS.index(kind) + list(TOTALS.values()).index(options)
    policy = list(GradientPolicy)[case % 4]  # every policy and layout meets every kind
    layouts = (((-1,), known), ((-1, 3), known.view(-1, 3)[:, :1]), ((-1, 3), None))
    shape, mask = layouts[case % 3]
    x = [z.view(shape) for z in tuples]
    x[1], x[3] = (z[:, :1] if mask is None else z for z in (x[1], x[3]))
    weight = None if case % 5 else weights(x[0])

    def call(N, D, Y_n, Y_d):
        return SCMTrainingLoss(**options)((N, D), (Y_n, Y_d), mask=mask, weight=weight)

    same(results(call, x, policy, 30.0), exact(call, x, policy, 30.0), x)


COUNTING = (
    {"mask": True},
    {"weight": True},
    {"weight": True, "mask": True},
    {"weight": True, "reduction": "sum"},
)


@every_single
@pytest.mark.usefixtures("both_ways")
def test_single_losses_are_those_of_float64(loss):
    for asked, kind, shape in zip(
        (*COUNTING, {}), (*KINDS[:4], "bad"), itertools.cycle(((-1,), (-1, 3)))
    ):
        tuples, mask = draw(kind)
        x, counting = [z.view(shape) for z in tuples], dict(asked)
        if "mask" in counting:
            counting["mask"] = mask.view(shape)
        if "weight" in counting:
            counting["weight"] = weights(x[0])

        def call(*x, counting=counting):
            return loss(*x, **counting)

        for policy in (GradientPolicy.PROJECT, GradientPolicy.CLAMP):
            same(results(call, x, policy, 30.0), exact(call, x, policy, 30.0), x)


# dynamo itself instantiates autograd.Function, which torch deprecates
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "name",
    [
        "oriented",
        "angle",
        *(pytest.param(x, marks=slow) for x in ("guide", "attached", "chordal", "strong")),
    ],
)
def test_a_compiled_loss_is_that_of_float64(name):
    loss_fn = SCMTrainingLoss(**TOTALS[name])
    compiled = torch.compile(loss_fn.__call__, fullgraph=True, backend="aot_eager")
    for kind in KINDS:
        tuples, mask = draw(kind, 600)
        for shape, shared in (((600,), False), ((200, 3), True)):
            x, known = [z.view(shape) for z in tuples], mask.view(shape)
            x[1] = x[1][:, :1] if shared else x[1]
            counts = {"mask": known, "weight": weights(x[0]) if shared else None}
            for policy in GradientPolicy if not shared else [GradientPolicy.CLAMP]:
                calls = [
                    lambda N, D, *y, f=f, c=counts: f((N, D), y, **c) for f in (compiled, loss_fn)
                ]
                got = results(calls[0], x, policy, 30.0)
                wanted = exact(calls[1], x, policy, 30.0)
                same(got, wanted, x, rest=1e-6)  # in float32, N·Y_d - D·Y_n may cancel


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_options_beyond_single_precision_are_compiled_in_float64():
    tuples, _ = draw("random", 60)
    tuples[0] *= 1e30
    loss_fn = SCMTrainingLoss(score="angle", scale=1e30, tau_train=0.5, temperature=1e-30)
    compiled = torch.compile(loss_fn.__call__, fullgraph=True, backend="aot_eager")
    got = results(lambda N, D, *y: compiled((N, D), y), tuples)
    same(got, exact(lambda N, D, *y: loss_fn((N, D), y), tuples), tuples)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "name", ["angle", *(pytest.param(x, marks=slow) for x in ("guide", "chordal"))]
)
def test_a_compiled_gradient_at_both_ends_of_the_range(name):
    loss_fn = SCMTrainingLoss(**TOTALS[name])
    compiled = torch.compile(loss_fn.__call__, fullgraph=True, backend="aot_eager")
    near = torch.tensor([1e-39, 1e-39, 1e-45, 0.0, 1.0, 2.0])
    ends = torch.tensor([2e38, 1.0, 2e38, 3.0, 3.4e38, 2.0])
    signs = torch.tensor([1.0, 2.0, -1.0, 1.0, 1.0, 1.0])
    for x in (
        [near, torch.tensor([0.0, 1e-39, 0.0, 1e-45, 1.0, 2.0]), *torch.ones(2, 6)],
        [ends, ends, ends, ends.clamp(max=3e38) * signs],
    ):
        for policy in GradientPolicy:
            got = results(lambda N, D, *y: compiled((N, D), y), x, policy)
            wanted = exact(lambda N, D, *y: loss_fn((N, D), y), x, policy)
            torch.testing.assert_close(got[0].double(), wanted[0], rtol=2e-5, atol=0)
            for mine, true in zip(got[1:], wanted[1:], strict=True):
                assert not mine.isnan().any()
                inside = true.abs() < 1e37
                torch.testing.assert_close(
                    mine.double()[inside], true[inside], rtol=2e-5, atol=1e-9
                )


@pytest.mark.parametrize("kind", ["opposite", "random"])
def test_a_chordal_gradient_does_not_end_where_the_loss_is_one(kind):
    (N, D, Y_n, Y_d), _ = draw("near")
    N, D = (-D, N) if kind == "opposite" else (N, D)  # at right angles: the other end of the line
    loss = SINGLE["chordal"]
    for call in (loss, lambda *x: loss(*x, reduction="none").mean()):
        _, g_N, g_D = results(call, [N, D, Y_n, Y_d])
        # exact products: where neither sine nor cosine is 0, the gradient is not
        cosine, sine = N.double() * Y_n + D.double() * Y_d, N.double() * Y_d - D.double() * Y_n
        inside = (cosine != 0) & (sine != 0)
        assert inside.float().mean() > 0.9
        assert ((g_N != 0) | (g_D != 0))[inside].all()


@every_single
def test_nothing_counts(loss):
    tuples, _ = draw("random", 60)
    for counting in ({"mask": torch.zeros(60, dtype=torch.bool)}, {"weight": torch.zeros(60)}):
        value, *found = results(lambda *x, c=counting: loss(*x, **c), tuples)
        assert value == 0
        assert not any(g.any() for g in found)


@pytest.fixture
def served(monkeypatch):
    """Count how often kernels stood in for torch."""
    calls, sums = [], loops.sums
    monkeypatch.setattr(loops, "sums", lambda *x: calls.append(1) or sums(*x))
    return calls


@pytest.mark.parametrize(
    ("counting", "by_kernels"),
    [
        ({}, True),
        ({"weight": torch.rand(60)}, True),
        ({"reduction": "none"}, False),
        ({"weight": torch.rand(60, requires_grad=True)}, False),
        ({"weight": torch.arange(60)}, False),
    ],
    ids=["mean", "weights", "none", "weights that learn", "whole weights"],
)
def test_what_is_left_to_autograd(counting, by_kernels, served):
    tuples, _ = draw("random", 60)
    implicit_loss(*tuples, **counting)
    assert bool(served) == by_kernels


@pytest.mark.usefixtures("both_ways")
def test_tiny_and_huge_weights_are_in_proportion():
    tuples, _ = draw("random", 60)
    for size in (1e-300, 1e300):
        weight = torch.rand(60, dtype=torch.float64)
        wanted = implicit_loss(*tuples, weight=weight)
        torch.testing.assert_close(implicit_loss(*tuples, weight=size * weight), wanted)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("shape", [(), (1,), (600,), (600, 1), (20, 10, 3), (1, 600)], ids=str)
def test_every_shape_and_stride(shape):
    n = math.prod(shape)
    tuples, _ = draw("random", n)
    tuples = [torch.stack((x, x), -1)[..., 0].view(-1)[:n] for x in tuples]
    tuples = [x.as_strided(shape, x.view(shape).stride()) for x in tuples]
    wide = [x.unsqueeze(-1).expand(*shape, 2) for x in tuples]  # strides of 0

    def call(N, D, Y_n, Y_d):
        return SCMTrainingLoss()((N, D), (Y_n, Y_d))

    for x in (tuples, wide):
        got, wanted = results(call, x), exact(call, x)
        for mine, true in zip(got, wanted, strict=True):
            torch.testing.assert_close(mine.double(), true, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_many_rows_are_taken_chunk_by_chunk(dtype, monkeypatch):
    tuples, mask = draw("bad", 600)
    tuples = [x.to(dtype) for x in tuples]

    def call(N, D, Y_n, Y_d):
        return SCMTrainingLoss()((N, D), (Y_n, Y_d), mask=mask)

    with native.disabled():
        wanted = results(call, tuples)
        monkeypatch.setattr(gradients, "CHUNK", 64)
        got = results(call, tuples)
        shared = [x.view(-1, 3) for x in tuples]
        shared[1] = shared[1][:, :1]
        mask = mask.view(-1, 3)[:, :1]
        same(results(call, shared), exact(call, shared), shared)
    for mine, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.usefixtures("both_ways")
def test_backward_keeps_the_four_tensors_alone():
    (N, D, Y_n, Y_d), _ = draw("random", 100_000)
    N.requires_grad_(), D.requires_grad_()
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        SCMTrainingLoss()(outputs=(N, D), targets=(Y_n, Y_d))
    assert kept.keys() == {x.untyped_storage().data_ptr() for x in (N, D, Y_n, Y_d)}


@pytest.mark.parametrize("options", [TOTALS["attached"], TOTALS["chordal"], TOTALS["angle"], APART])
def test_second_derivatives(options):  # a detached loss has no true gradient
    (N, D, Y_n, Y_d), mask = draw("random", 8)
    Y_n, Y_d = Y_n.double(), Y_d.double()
    D = D.sign() * (D.abs() + 0.4)  # off the kinks of the margin

    def loss(N, D):
        return SCMTrainingLoss(**options)((N, D), (Y_n, Y_d), mask=mask)

    inputs = tuple(x.double().requires_grad_() for x in (N, D))
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.autograd.gradcheck(loss, inputs)
        assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.usefixtures("both_ways")
def test_without_a_gradient_the_value_is_the_same():
    (N, D, Y_n, Y_d), _ = draw("bad", 600)
    wanted = SCMTrainingLoss()(outputs=(N.clone().requires_grad_(), D), targets=(Y_n, Y_d))
    for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with context:
            got = SCMTrainingLoss()(outputs=(N, D), targets=(Y_n, Y_d))
        assert got == wanted
        assert not got.requires_grad


@pytest.mark.usefixtures("both_ways")
def test_one_gradient_alone():
    (N, D, *targets), _ = draw("random", 600)
    _, _, both = results(lambda N, D, *y: SCMTrainingLoss()((N, D), y), (N, D, *targets))
    total = SCMTrainingLoss()(outputs=(N, D.requires_grad_()), targets=targets)
    with gradient_policy(GradientPolicy.PROJECT):
        assert torch.equal(torch.autograd.grad(total, D)[0], both)


def test_targets_may_learn():
    (N, D, Y_n, Y_d), _ = draw("random", 600)
    total = SCMTrainingLoss()(outputs=(N, D), targets=(Y_n.requires_grad_(), Y_d))
    assert (torch.autograd.grad(total, Y_n)[0] != 0).any()
