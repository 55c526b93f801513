import copy
import dataclasses
import inspect
import math
import pickle

import pytest
import torch

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.inference import strict_inference
from zeroproof.losses import (
    Parts,
    implicit_loss,
    margin_loss,
    mixed_rows,
    rejection_loss,
    sign_consistency_loss,
    soft_coverage,
)
from zeroproof.projective import denominator_score
from zeroproof.training.loss import SCMTrainingLoss
from zeroproof.training.targets import lift_targets


def batch(n=12, k=2):
    generator = torch.Generator().manual_seed(4)
    N, D = torch.randn(2, n, k, generator=generator)
    D = D * 1e-3
    y = torch.randn(n, k, generator=generator)
    y[0, 0], y[1, 0], y[2, 0] = math.inf, -math.inf, math.nan
    return (N, D), lift_targets(y), ~torch.isnan(y)


def gradients(loss_fn, outputs, targets, policy=GradientPolicy.PROJECT, **options):
    N, D = (x.clone().requires_grad_() for x in outputs)
    total = loss_fn(outputs=(N, D), targets=targets, **options)
    with gradient_policy(policy):
        return torch.autograd.grad(total, (N, D))


OPTIONS = {
    "guide": {},
    "gauge-free": {
        "normalizer": "chordal",
        "relative_margin": True,
        "score": "angle",
        "scale": 3.0,
        "sign_variant": "angle",
        "temperature": 1e-3,
        "lambda_separation": 0.1,
        "turned": True,
    },
    "weights": {
        "lambda_margin": 2.0,
        "lambda_sign": 0.25,
        "lambda_rejection": 5.0,
        "tau_train": 1e-2,
        "tau_sing": 0.5,
        "gamma": 1e-3,
        "target_coverage": 1.0,
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_total_is_the_weighted_sum_of_the_single_losses(options):
    (N, D), (Y_n, Y_d), mask = batch()
    loss_fn = SCMTrainingLoss(**options)
    tau, score, scale = loss_fn.tau_train, loss_fn.score, loss_fn.scale
    finite = Y_d != 0
    share = soft_coverage(denominator_score(N, D, score, scale)[finite], tau, loss_fn.temperature)
    expected = {
        "fit": implicit_loss(N, D, Y_n, Y_d, loss_fn.gamma, normalizer=loss_fn.normalizer),
        "margin": margin_loss(
            D, tau, N=N, mask=finite, relative=loss_fn.relative_margin, score=score, scale=scale
        ),
        "sign": sign_consistency_loss(
            N,
            D,
            Y_n,
            Y_d,
            loss_fn.tau_sing,
            variant=loss_fn.sign_variant,
            turned=loss_fn.turned,
            mask=mask,
        ),
        "rejection": rejection_loss(share, loss_fn.target_coverage),
    }
    expected["masked_rows"] = torch.tensor(0)
    expected["total"] = (
        expected["fit"]
        + loss_fn.lambda_margin * expected["margin"]
        + loss_fn.lambda_sign * expected["sign"]
        + loss_fn.lambda_rejection * expected["rejection"]
    )
    if loss_fn.lambda_separation:
        s, softplus = denominator_score(N, D, "angle", scale), torch.nn.functional.softplus
        sides = softplus((0.1 - s[finite]) / 0.05), softplus((s[~finite] - 0.1) / 0.05)
        expected["separation"] = sum(side.mean() for side in sides)
        expected["total"] = expected["total"] + loss_fn.lambda_separation * expected["separation"]
    got = loss_fn.components(outputs=(N, D), targets=(Y_n, Y_d), mask=mask)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value)
    total = loss_fn(outputs=(N, D), targets=(Y_n, Y_d), mask=mask)
    torch.testing.assert_close(total, got["total"])


def test_the_guides_call():
    loss_fn = SCMTrainingLoss(
        lambda_margin=0.1,
        lambda_sign=1.0,
        lambda_rejection=0.01,
        tau_train=1e-4,
        tau_sing=1e-3,
        gamma=1e-9,
    )
    assert loss_fn == SCMTrainingLoss()
    outputs, targets, _ = batch()
    total = loss_fn(outputs=outputs, targets=targets)
    assert total.shape == ()
    assert torch.isfinite(total)


def test_tau_train_of_a_call_replaces_the_field():
    outputs, targets, _ = batch()
    one = SCMTrainingLoss(tau_train=1e-2)(outputs=outputs, targets=targets)
    assert SCMTrainingLoss()(outputs=outputs, targets=targets, tau_train=1e-2) == one
    assert SCMTrainingLoss()(outputs=outputs, targets=targets) != one


def test_the_mask_reaches_the_sign_part_alone():
    outputs, targets, mask = batch()
    free = SCMTrainingLoss().components(outputs, targets)
    masked = SCMTrainingLoss().components(outputs, targets, mask=mask)
    assert free["sign"] != masked["sign"]
    for name in ("fit", "margin", "rejection"):
        assert free[name] == masked[name]


INF, NAN = math.inf, math.nan
FITS = ({}, {"normalizer": "attached"}, {"normalizer": "chordal"}, {"oriented": True})
MARGINS = (
    {},
    {"relative_margin": True, "score": "angle"},
)


@pytest.mark.parametrize("margin", MARGINS, ids=["guide", "angle"])
@pytest.mark.parametrize("fit", FITS, ids=["detached", "attached", "chordal", "oriented"])
def test_the_least_loss_of_a_singular_label_is_a_singular_tuple(fit, margin):
    y = torch.tensor([-2.0, 0.5, 3.0]).repeat(20, 1)  # beside them, answered rightly
    label = torch.tensor([INF, -INF, NAN, INF, -INF]).repeat_interleave(4)
    starts = torch.tensor([[1.0, 0.5], [1.0, -0.5], [-1.0, 0.5], [-0.3, -2.0]]).repeat(5, 1)
    free = starts.clone().requires_grad_()
    targets = torch.cat([y, label[:, None]], 1)
    Y_n, Y_d = lift_targets(targets)
    known = ~torch.isnan(targets)
    loss_fn = SCMTrainingLoss(**fit, **margin)
    optimizer = torch.optim.Adam([free], lr=0.1)
    for step in range(1200):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1, 0.97 ** (step - 500))
        N, D = torch.cat([y, free[:, :1]], 1), torch.cat([torch.ones_like(y), free[:, 1:]], 1)
        optimizer.zero_grad()
        with gradient_policy(GradientPolicy.PROJECT):
            loss_fn(outputs=(N, D), targets=(Y_n, Y_d), mask=known).backward()
        optimizer.step()
        with torch.no_grad():
            free /= free.norm(dim=1, keepdim=True)  # the value has no size
    N, D = free.detach().T
    # between two signs the fit of a quotient has a barrier: N = 0, where it is infinite
    barred = loss_fn.normalizer != "chordal" and not loss_fn.oriented
    towards = starts[:, 0] * label > 0
    assert strict_inference(N, D).bottom_mask[towards | torch.isnan(label) | (not barred)].all()
    assert (N * label)[towards].min() > 0
    # and the singular tuple costs nothing: what is left of the total is the finite rows' share
    N, D = torch.where(known, Y_n, 1), Y_d
    least = loss_fn.components(outputs=(N, D), targets=(Y_n, Y_d), mask=known)
    assert all(least[name].abs() < 1e-12 for name in ("fit", "margin", "sign", "rejection"))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_without_a_finite_target_margin_and_coverage_are_a_connected_zero(compiled):
    N, D = (torch.full((3, 1), 1e-5, requires_grad=True) for _ in "ND")
    targets = lift_targets(torch.tensor([[INF], [-INF], [NAN]]))
    loss_fn = SCMTrainingLoss(relative_margin=True, lambda_sign=0)
    found = loss_fn.components(outputs=(N, D), targets=targets)
    assert found["margin"] == found["rejection"] == 0
    assert found["margin"].requires_grad
    assert found["rejection"].requires_grad
    summed = loss_fn.combine(loss_fn.parts(outputs=(N, D), targets=targets))
    assert summed["total"] == found["total"]
    call = loss_fn.__call__
    call = torch.compile(call, fullgraph=True, backend="aot_eager") if compiled else call
    total = call(outputs=(N, D), targets=targets)
    torch.testing.assert_close(total, found["fit"])
    alone = SCMTrainingLoss(lambda_margin=0, lambda_sign=0, lambda_rejection=0)
    wanted = gradients(alone, (N, D), targets)
    for mine, fit in zip(gradients(loss_fn, (N, D), targets), wanted, strict=True):
        torch.testing.assert_close(mine, fit)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=str)
def test_finite_labels_alone_count_in_every_type(dtype):
    (N, D), targets, _ = batch()
    N, D, Y_n, Y_d = (x.to(dtype) for x in (N, D, *targets))
    loss_fn = SCMTrainingLoss(relative_margin=True, lambda_rejection=3.0, temperature=1e-3)
    finite = Y_d != 0
    found = loss_fn.components((N, D), (Y_n, Y_d))
    wanted = margin_loss(D, 1e-4, N=N, relative=True, mask=finite)
    torch.testing.assert_close(found["margin"], wanted)
    share = soft_coverage(D.abs()[finite], 1e-4, 1e-3)
    torch.testing.assert_close(found["rejection"], rejection_loss(share))
    torch.testing.assert_close(loss_fn((N, D), (Y_n, Y_d)), found["total"])


def test_what_is_finite_does_not_depend_on_the_size_of_a_target_tuple():
    (N, D), (Y_n, Y_d), _ = batch()
    loss_fn = SCMTrainingLoss(relative_margin=True, lambda_sign=0, gamma=0)
    wanted = loss_fn.components((N, D), (Y_n, Y_d))
    got = loss_fn.components((N, D), (1e-6 * Y_n, 1e-6 * Y_d))
    for name in ("margin", "rejection"):
        torch.testing.assert_close(got[name], wanted[name])


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_a_weight_counts_in_every_part_as_so_many_rows(options):
    outputs, targets, mask = batch()
    times = torch.tensor([1, 2, 1, 0, 1, 3, 1, 0, 1, 2, 1, 1])
    rows = torch.arange(12).repeat_interleave(times)
    loss_fn = SCMTrainingLoss(**options)
    repeated = [tuple(x[rows] for x in pair) for pair in (outputs, targets)]
    wanted = loss_fn.components(*repeated, mask=mask[rows])
    weight = times[:, None].float()
    weight[3], weight[7] = -1.0, NAN  # as good as 0
    weighed = {"mask": mask, "weight": weight}
    got = loss_fn.components(outputs, targets, **weighed)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, msg=name)
    torch.testing.assert_close(loss_fn(outputs, targets, **weighed), wanted["total"])
    summed = loss_fn.combine(loss_fn.parts(outputs, targets, **weighed))
    torch.testing.assert_close(summed["total"], wanted["total"])
    mine = gradients(loss_fn, outputs, targets, **weighed)
    N, D = (x.clone().requires_grad_() for x in outputs)
    again = loss_fn((N[rows], D[rows]), repeated[1], mask=mask[rows])
    with gradient_policy(GradientPolicy.PROJECT):
        for g, true in zip(mine, torch.autograd.grad(again, (N, D)), strict=True):
            torch.testing.assert_close(g, true)


@pytest.mark.usefixtures("both_ways")
def test_an_entry_without_weight_is_as_if_it_were_another_output():
    outputs, (Y_n, Y_d), _ = batch()
    weight = torch.ones_like(Y_n)
    weight[4:, 1] = 0  # labels that are missing, whatever stands there
    other = Y_n.clone(), Y_d.clone()
    other[0][4:, 1], other[1][4:, 1] = 77.0, 0.0
    loss_fn = SCMTrainingLoss(relative_margin=True)
    assert loss_fn(outputs, other, weight=weight) == loss_fn(outputs, (Y_n, Y_d), weight=weight)
    assert not gradients(loss_fn, outputs, other, weight=weight)[0][4:, 1].any()


def test_a_turned_sign_costs_nothing_at_a_crossed_pole():
    x = torch.tensor([-1e-4, 1e-4])
    N, D = torch.ones(2), x  # 1 / x
    Y_n, Y_d = lift_targets(torch.tensor([-INF, INF]))
    assert sign_consistency_loss(N, D, Y_n, Y_d).item() == pytest.approx(1)  # its floor
    assert sign_consistency_loss(N, D, Y_n, Y_d, turned=True) < 1e-7
    assert sign_consistency_loss(-N, D, Y_n, Y_d, turned=True).item() == pytest.approx(2)
    assert sign_consistency_loss(-N, -D, Y_n, Y_d, turned=True) < 1e-7
    # a small denominator of its own has a side already
    for side in (1.0, -1.0):
        small = (side * torch.ones(2), side * torch.full((2,), 1e-5))
        assert sign_consistency_loss(N, D.abs(), *small, turned=True) < 1e-7
    phase = torch.polar(torch.ones(2), torch.tensor([0.3, 2.0]))
    complex_pair = (N * phase, 1e-5 * phase, Y_n.abs() + 0j, Y_d + 0j)
    assert sign_consistency_loss(*complex_pair, turned=True) < 1e-7


@pytest.mark.parametrize("options", [{"turned": True}, {"lambda_separation": 0.1}], ids=str)
def test_no_tuple_costs_less_than_the_singular_one(options):
    N, D = torch.randn(2, 100, generator=torch.Generator().manual_seed(1))
    loss_fn = SCMTrainingLoss(relative_margin=True, **options)
    for label in (INF, -INF):
        targets = lift_targets(torch.tensor([label]))
        least = loss_fn(outputs=targets, targets=targets)
        assert least <= 0.1 * 0.127  # softplus(-2)
        for n, d in zip(N, D * 1e-3, strict=True):
            assert loss_fn(outputs=(n[None], d[None]), targets=targets) > least


def test_rows_that_contradict_themselves_are_found():
    Y_d = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    weight = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    shared = torch.ones(4, 1)
    assert mixed_rows(Y_d, shared).tolist() == [True, False, False, True]
    assert mixed_rows(Y_d, shared, weight).tolist() == [True, False, False, False]
    assert not mixed_rows(Y_d, torch.ones(4, 2)).any()


def test_an_oriented_fit_accepts_either_sign_where_it_is_unknown():
    D, zero = torch.zeros(2), torch.zeros(2)
    outputs, targets = (torch.tensor([-1.0, -1.0]), D), (torch.ones(2), zero)
    loss_fn = SCMTrainingLoss(oriented=True, lambda_sign=0)
    mask = torch.tensor([True, False])
    assert loss_fn.components(outputs, targets)["fit"] == 4
    assert loss_fn.components(outputs, targets, mask=mask)["fit"] == 2
    turned = (torch.full((2,), -0.6), torch.full((2,), 0.8))
    unknown = loss_fn.components(turned, targets, mask=torch.zeros(2, dtype=torch.bool))
    assert unknown["fit"].item() == pytest.approx(2 * (1 - 0.6))


@pytest.mark.parametrize("part", ["margin", "sign", "rejection"])
def test_a_weight_of_zero_skips_its_part(part, monkeypatch):
    outputs, targets, _ = batch()
    worker = {"margin": "margin", "sign": "sign", "rejection": "covered"}[part]

    def fail(*_, **__):
        raise AssertionError(part)

    monkeypatch.setattr(f"zeroproof.losses.formulas.{worker}", fail)
    loss_fn = SCMTrainingLoss(**{f"lambda_{part}": 0.0})
    components = loss_fn.components(outputs, targets)
    assert components[part] == 0
    with pytest.raises(AssertionError, match=part):
        SCMTrainingLoss().components(outputs, targets)


def test_under_reject_only_coverage_is_learned_from():
    outputs, targets, _ = batch()
    loss_fn = SCMTrainingLoss(temperature=1e-3)
    g_N, g_D = gradients(loss_fn, outputs, targets, GradientPolicy.REJECT)
    assert (g_N == 0).all()
    assert (g_D != 0).any()
    silent = gradients(
        SCMTrainingLoss(lambda_rejection=0.0), outputs, targets, GradientPolicy.REJECT
    )
    assert all((g == 0).all() for g in silent)


def test_clamp_bounds_every_part_on_its_own():
    outputs, targets, _ = batch()
    loss_fn = SCMTrainingLoss(lambda_margin=0, lambda_sign=0, lambda_rejection=0)
    raw = gradients(loss_fn, outputs, targets)
    clamped = gradients(loss_fn, outputs, targets, GradientPolicy.CLAMP)
    assert raw[1].abs().max() > 1
    for mine, free in zip(clamped, raw, strict=True):
        torch.testing.assert_close(mine, free.clamp(-1, 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("which", ["N", "D"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda policy: policy.name)
def test_one_bad_row_spoils_neither_loss_nor_gradients(bad, which, options, policy):
    (N, D), targets, mask = batch()
    (N if which == "N" else D)[3, 0] = bad
    loss_fn = SCMTrainingLoss(**options)
    assert torch.isfinite(loss_fn(outputs=(N, D), targets=targets, mask=mask))
    g_N, g_D = gradients(loss_fn, (N, D), targets, policy, mask=mask)
    sound = torch.arange(len(N)) != 3
    assert torch.isfinite(g_N[sound]).all()
    assert torch.isfinite(g_D[sound]).all()
    for g in (g_N, g_D):
        assert torch.isnan(g[3, 0]) if policy is GradientPolicy.PASSTHROUGH else g[3, 0] == 0
    assert (g_D[4:] != 0).any()


@pytest.mark.parametrize("which", range(4), ids=["N", "D", "Y_n", "Y_d"])
def test_rows_left_out_are_counted(which):
    outputs, targets, _ = batch()
    tuples = [*(x.clone().requires_grad_() for x in outputs), *(x.clone() for x in targets)]
    with torch.no_grad():
        tuples[which][3, 0], tuples[which][5] = math.nan, math.inf  # 3 entries of 2 rows
    loss_fn = SCMTrainingLoss()
    masked = loss_fn.components(tuple(tuples[:2]), tuple(tuples[2:]))["masked_rows"]
    assert masked.shape == ()
    assert masked == 2
    assert not masked.requires_grad
    part = loss_fn.parts(tuple(tuples[:2]), tuple(tuples[2:]))["masked_rows"]
    assert part == Parts(torch.tensor(2), torch.tensor(12))


def test_a_batch_of_bad_rows_gives_a_finite_connected_loss():
    N, D = (torch.full((3,), math.nan, requires_grad=True) for _ in "ND")
    total = SCMTrainingLoss()(outputs=(N, D), targets=(torch.ones(3), torch.ones(3)))
    assert torch.isfinite(total)
    for gradient in torch.autograd.grad(total, (N, D)):
        assert (gradient == 0).all()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_parts_of_batches_combine_to_the_loss_of_all_rows(options):
    outputs, targets, mask = batch()
    loss_fn = SCMTrainingLoss(**options)
    whole = loss_fn.components(outputs, targets, mask=mask)
    summed = {}
    for rows in (slice(0, 2), slice(2, 5), slice(5, 12)):
        pieces = loss_fn.parts(
            outputs=tuple(x[rows] for x in outputs),
            targets=tuple(x[rows] for x in targets),
            mask=mask[rows],
        )
        for name, part in pieces.items():
            before = summed.get(name, (0, 0))
            summed[name] = Parts(before[0] + part.total, before[1] + part.weight)
    combined = loss_fn.combine(summed)
    for name, value in whole.items():
        torch.testing.assert_close(combined[name], value)


def test_half_precision_outputs_give_a_float32_loss():
    (N, D), targets, _ = batch()
    assert SCMTrainingLoss()(outputs=(N.half(), D.half()), targets=targets).dtype == torch.float32


def test_it_is_a_value():
    loss_fn = SCMTrainingLoss(tau_train=1e-3)
    assert copy.deepcopy(loss_fn) == loss_fn
    assert pickle.loads(pickle.dumps(loss_fn)) == loss_fn
    assert dataclasses.replace(loss_fn, target_coverage=0.8).tau_train == 1e-3
    assert "tau_train=0.001" in repr(loss_fn)
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss_fn.gamma = 1.0


def test_a_trainer_can_see_what_it_accepts():
    names = list(inspect.signature(SCMTrainingLoss()).parameters)
    assert names == ["outputs", "targets", "tau_train", "mask", "weight"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lambda_margin": -1.0}, r"lambda_margin must lie in \[0, inf\), got -1.0"),
        ({"lambda_sign": math.nan}, r"lambda_sign must lie in \[0, inf\), got nan"),
        ({"lambda_rejection": math.inf}, r"lambda_rejection must lie in \[0, inf\), got inf"),
        ({"lambda_separation": -0.1}, r"lambda_separation must lie in \[0, inf\), got -0.1"),
        ({"tau_train": 0.0}, r"tau_train must lie in \(0, inf\), got 0.0"),
        ({"tau_sing": 0.0}, r"tau_sing must lie in \(0, inf\), got 0.0"),
        ({"gamma": 2.0}, r"gamma must lie in \[0, 1\], got 2.0"),
        ({"target_coverage": 95}, r"target_coverage must lie in \[0, 1\], got 95"),
        ({"temperature": 0.0}, r"temperature must lie in \(0, inf\), got 0.0"),
        ({"normalizer": "unit"}, "normalizer must be one of 'detached'"),
        ({"sign_variant": "sine"}, "sign_variant must be one of 'cosine', 'angle'"),
        ({"score": "size"}, "score must be one of 'denominator', 'angle'"),
        ({"scale": 0.0}, "scale must be a finite number above 0"),
        ({"turned": True, "oriented": True}, "turned must be False with oriented=True"),
    ],
)
def test_options_are_checked_when_it_is_made(options, match):
    with pytest.raises(RangeError, match=match):
        SCMTrainingLoss(**options)


def test_arguments_of_a_call_are_checked():
    outputs, targets, mask = batch()
    with pytest.raises(RangeError, match=r"tau_train must lie in \(0, inf\), got -1.0"):
        SCMTrainingLoss()(outputs=outputs, targets=targets, tau_train=-1.0)
    with pytest.raises(ShapeError, match="mask must have the shape of the loss"):
        SCMTrainingLoss()(outputs=outputs, targets=targets, mask=mask[:, 0])
    with pytest.raises(ShapeError, match="Y_n must have the shape of N"):
        SCMTrainingLoss()(outputs=outputs, targets=tuple(x[:, :1] for x in targets))
