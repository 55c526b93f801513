"""What implicit, margin and sign loss share: rows, weights, reductions, policies and transforms."""

import math

import pytest
import torch

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.losses import implicit_loss, margin_loss, sign_consistency_loss
from zeroproof.losses.gradients import mean, parts, weighted

LOSSES = {
    "detached": implicit_loss,
    "attached": lambda *x, **o: implicit_loss(*x, normalizer="attached", **o),
    "chordal": lambda *x, **o: implicit_loss(*x, normalizer="chordal", **o),
    "oriented": lambda *x, **o: implicit_loss(*x, oriented=True, **o),
    "margin": lambda N, D, *_, **o: margin_loss(D, 3.0, **o),
    "margin-angle": lambda N, D, *_, **o: margin_loss(
        D, 1.0, N=N, relative=True, score="angle", **o
    ),
    "sign": lambda *x, **o: sign_consistency_loss(*x, 10.0, **o),
    "sign-angle": lambda *x, **o: sign_consistency_loss(*x, 10.0, variant="angle", **o),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def tuples(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(4)]


def gradients(loss, values, policy=GradientPolicy.PROJECT, factor=1.0, **options):
    N, D = (x.clone().requires_grad_() for x in values[:2])
    total = factor * loss(N, D, *values[2:], **options).sum()
    with gradient_policy(policy):
        total.backward()
    zero = torch.zeros_like
    return tuple(zero(x) if x.grad is None else x.grad for x in (N, D))


def finite_tuples(*shape):
    values = tuples(*shape)
    values[1] = values[1].sign() * 0.5  # within every margin
    return values


@every_loss
def test_sum_and_mean_follow_none(loss):
    values = finite_tuples(6, 2)
    losses = loss(*values, reduction="none")
    assert losses.shape == (6, 2)
    assert (losses > 0).all()
    torch.testing.assert_close(loss(*values, reduction="sum"), losses.sum())
    torch.testing.assert_close(loss(*values), losses.mean())


@every_loss
@pytest.mark.parametrize("width", [3, 1], ids=["entries", "rows"])
def test_weights_make_a_weighted_mean(loss, width):
    values, weight = finite_tuples(4, 3), torch.tensor([1.0, 0.0, 2.5, 0.5])[:, None]
    weight = weight.expand(4, width).contiguous()
    losses, w = loss(*values, reduction="none").double(), weight.double().expand(4, 3)
    for reduction, expected in (
        ("mean", (w * losses).sum() / w.sum()),
        ("sum", (w * losses).sum()),
        ("none", w * losses),
    ):
        got = loss(*values, weight=weight, reduction=reduction)
        torch.testing.assert_close(got, expected.float())


@every_loss
def test_a_mask_is_the_same_as_leaving_rows_out(loss):
    values, mask = finite_tuples(5), torch.tensor([True, False, True, True, False])
    left = [x[mask] for x in values]
    torch.testing.assert_close(loss(*values, mask=mask), loss(*left))
    for mine, wanted in zip(gradients(loss, values, mask=mask), gradients(loss, left), strict=True):
        torch.testing.assert_close(mine[mask], wanted)
        assert (mine[~mask] == 0).all()


@every_loss
@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0], ids=str)
def test_an_entry_with_an_unusable_weight_does_not_count(loss, bad):
    values, weight = finite_tuples(4), torch.tensor([1.0, bad, 2.0, 1.0])
    usable = torch.tensor([1.0, 0.0, 2.0, 1.0])
    assert loss(*values, weight=weight) == loss(*values, weight=usable)


LOOKS_AT = [  # the margin looks at D, and at N where it is given
    pytest.param(loss, which, id=f"{name}-{operand}")
    for name, loss in LOSSES.items()
    for which, operand in enumerate(("N", "D", "Y_n", "Y_d"))
    if operand in {"margin": "D", "margin-angle": "ND"}.get(name, operand)
]


@pytest.mark.parametrize(("loss", "which"), LOOKS_AT)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda policy: policy.name)
def test_a_row_that_is_not_finite_is_left_out(loss, which, bad, policy):
    values = finite_tuples(4, 2)
    values[which] = values[which].clone()
    values[which][1, 0] = bad
    rest = [x[[0, 2, 3]] for x in values]
    torch.testing.assert_close(loss(*values), loss(*rest))
    losses = loss(*values, reduction="none")
    assert (losses[1] == 0).all()
    assert (losses[0] > 0).all()
    for mine, wanted in zip(
        gradients(loss, values, policy), gradients(loss, rest, policy), strict=True
    ):
        torch.testing.assert_close(mine[[0, 2, 3]], wanted)
        raw = policy is GradientPolicy.PASSTHROUGH and mine.any()  # what the loss depends on
        assert (mine[1].isnan() if raw else mine[1] == 0).all()


@every_loss
@pytest.mark.parametrize("how", ["nan", "mask", "weight", "empty"])
def test_a_loss_of_nothing_is_a_connected_zero(loss, how):
    N, D, Y_n, Y_d = finite_tuples(0 if how == "empty" else 3)
    options = {}
    if how == "nan":
        N, D = N * math.nan, D * math.nan
    elif how != "empty":
        options[how] = torch.zeros(3, dtype=torch.bool if how == "mask" else torch.float32)
    N.requires_grad_(), D.requires_grad_()
    for reduction in ("mean", "sum"):
        total = loss(N, D, Y_n, Y_d, reduction=reduction, **options)
        assert total == 0
        total.backward()
    assert (D.grad == 0).all()


@every_loss
def test_policies_act_on_the_gradients_that_leave_the_loss(loss):
    values = finite_tuples(8)
    raw = gradients(loss, values, factor=100.0)
    assert any((g.abs() > 1).any() for g in raw)
    passed = gradients(loss, values, GradientPolicy.PASSTHROUGH, factor=100.0)
    clamped = gradients(loss, values, GradientPolicy.CLAMP, factor=100.0)
    rejected = gradients(loss, values, GradientPolicy.REJECT, factor=100.0)
    for project, passthrough, clamp, reject in zip(raw, passed, clamped, rejected, strict=True):
        torch.testing.assert_close(passthrough, project)
        torch.testing.assert_close(clamp, project.clamp(-1, 1))
        assert (reject == 0).all()


@every_loss
def test_clamp_follows_the_loss_scale(loss):
    values = finite_tuples(8)
    N, D = (x.clone().requires_grad_() for x in values[:2])
    scale = 64.0
    with gradient_policy(GradientPolicy.CLAMP, loss_scale=scale):
        (100 * scale * loss(N, D, *values[2:])).backward()
    unscaled = gradients(loss, values, GradientPolicy.CLAMP, factor=100.0)
    torch.testing.assert_close(D.grad / scale, unscaled[1])


@every_loss
def test_the_origin_has_no_gradient_and_infinity_keeps_its_own(loss, request):
    values = [torch.tensor(x) for x in ([0.0, 1.0], [0.0, 0.0], [1.0, 2.0], [1.0, 1.0])]
    g_N, g_D = gradients(loss, values)
    name = request.node.callspec.id
    if name != "margin":  # which cannot know N
        assert g_N[0] == 0
        assert g_D[0] == 0
    # the guide's margin |D| has a kink at 0; every other loss is smooth at a point at infinity
    assert (g_D[1] == 0) == (name == "margin")


SHAPES = [
    pytest.param((4,), (4, 1), (4,), (4,), id="D-column"),
    pytest.param((4, 1), (4, 1), (4,), (4,), id="Y-vector"),
    pytest.param((4, 2), (4, 2), (4, 1), (4, 1), id="Y-narrow"),
    pytest.param((4, 2), (2,), (4, 2), (4, 2), id="D-fewer-dims"),
    pytest.param((4, 2), (1, 1), (4, 2), (4, 2), id="D-one"),
    pytest.param((4, 2), (4, 2), (4, 2), (1, 1), id="Y_d-one"),
]


@pytest.mark.parametrize(("N", "D", "Y_n", "Y_d"), SHAPES)
@pytest.mark.parametrize("loss", [implicit_loss, sign_consistency_loss])
def test_nothing_is_broadcast_silently(loss, N, D, Y_n, Y_d):
    with pytest.raises(ShapeError, match="must have"):
        loss(torch.ones(N), torch.ones(D), torch.ones(Y_n), torch.ones(Y_d))


@every_loss
def test_a_shared_denominator_is_the_same_as_a_repeated_one(loss):
    N, D, Y_n, Y_d = finite_tuples(4, 3)
    D, Y_d = D[:, :1], Y_d[:, :1]
    wide = [N, D.repeat(1, 3), Y_n, Y_d.repeat(1, 3)]
    torch.testing.assert_close(loss(N, D, Y_n, Y_d), loss(*wide))
    g_N, g_D = gradients(loss, [N, D, Y_n, Y_d])
    wide_N, wide_D = gradients(loss, wide)
    torch.testing.assert_close(g_N, wide_N)
    torch.testing.assert_close(g_D, wide_D.sum(-1, keepdim=True))


@every_loss
@pytest.mark.parametrize("name", ["weight", "mask"])
@pytest.mark.parametrize("shape", [(4,), (2,), (1, 2), (4, 3), ()], ids=str)
def test_weights_and_masks_of_other_shapes_are_refused(loss, name, shape):
    x = torch.ones(shape, dtype=torch.bool if name == "mask" else torch.float32)
    with pytest.raises(ShapeError, match=rf"{name} must have the shape of the loss, \(4, 2\)"):
        loss(*tuples(4, 2), **{name: x})


def test_masks_are_boolean_and_weights_real():
    with pytest.raises(RangeError, match=r"mask must be boolean.*got torch.float32"):
        implicit_loss(*tuples(3), mask=torch.ones(3))
    with pytest.raises(RangeError, match=r"weight must be real, got torch.complex64"):
        implicit_loss(*tuples(3), weight=torch.ones(3, dtype=torch.complex64))


def test_parts_of_batches_add_up_to_the_mean_of_all():
    values = torch.rand(10)
    counts, weight = torch.arange(10) % 3 != 0, torch.rand(10)
    batches = [
        parts(weighted(values[rows], counts[rows], weight[rows]))
        for rows in (slice(0, 1), slice(1, 4), slice(4, 10))
    ]
    total, count = (sum(x) for x in zip(*batches, strict=True))
    torch.testing.assert_close(total / count, mean(weighted(values, counts, weight)))


def test_a_mean_of_large_losses_does_not_overflow():
    values = torch.full((100,), 3e38)
    assert mean(weighted(values, torch.ones(100, dtype=torch.bool))).item() == pytest.approx(3e38)


@pytest.mark.parametrize("size", [3e38, 1.0, 1e-45], ids=str)
def test_the_size_of_the_weights_does_not_matter(size):
    values, counts = torch.tensor([1.0, 2.0, 6.0, 9.0]), torch.tensor([True, True, True, False])
    assert mean(weighted(values, counts, torch.full((4,), size))).item() == pytest.approx(3)


@pytest.mark.parametrize("size", [1e308, 1e-60, 5e-324], ids=str)
def test_double_weights_of_single_losses_keep_their_range(size):
    values, counts = torch.tensor([1.0, 2.0, 6.0]), torch.ones(3, dtype=torch.bool)
    got = mean(weighted(values, counts, torch.full((3,), size, dtype=torch.float64)))
    assert got.item() == pytest.approx(3)
    assert got.dtype == torch.float32


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_double_weights_leave_the_type_of_the_loss(reduction):
    weight = torch.ones(3, dtype=torch.float64)
    assert (
        implicit_loss(*finite_tuples(3), weight=weight, reduction=reduction).dtype == torch.float32
    )


def test_weights_may_be_learned():
    weight = torch.ones(3, requires_grad=True)
    implicit_loss(*finite_tuples(3), normalizer="chordal", weight=weight).backward()
    assert (weight.grad != 0).all()
    assert weight.grad.sum().abs() < 1e-6  # a common factor changes nothing


@every_loss
def test_no_input_is_changed_in_place(loss):
    values = finite_tuples(4)
    before = [x.clone() for x in values]
    gradients(loss, values)
    for x, was in zip(values, before, strict=True):
        assert torch.equal(x, was)
