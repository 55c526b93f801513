import math

import pytest
import torch
from torch.func import functional_call, grad, jacrev, jvp, vmap

from zeroproof.autodiff import GradientPolicy, gradient_policy, register_policy
from zeroproof.layers import ProjectiveHead, ProjectiveMLP
from zeroproof.losses import implicit_loss
from zeroproof.projective.tuples import tangential

SIZES = (1e-30, 1e-12, 1.0, 1e12, 1e30)


def through(N, D, g_N, g_D, fixed=-1):
    """Send a gradient backward."""
    N, D = (x.clone().requires_grad_() for x in (N, D))
    pair = tangential(N, D, fixed, D)
    return torch.autograd.grad(pair, (N, D), (g_N, g_D))


def wanted(N, D, g_N, g_D):
    """The formula, row by row or output by output, in double precision."""
    wide = torch.complex128 if N.is_complex() else torch.float64
    N, D, g_N, g_D = (x.to(wide) for x in (N, D, g_N, g_D))
    along = (g_N * N.conj()).real + (0 if N.shape != D.shape else (g_D * D.conj()).real)
    size = N.abs().square() + (0 if N.shape != D.shape else D.abs().square())
    if N.shape != D.shape:
        along = along.sum(-1, keepdim=True) + (g_D * D.conj()).real
        size = size.sum(-1, keepdim=True) + D.abs().square()
    return g_N - along / size * N, g_D - along / size * D


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("width", [1, 2, 3], ids=lambda k: f"D of {k}")
def test_what_is_left_is_orthogonal_at_every_size(dtype, width):
    torch.manual_seed(0)
    outputs = 3 if width != 2 else 2
    for size in SIZES:
        N, g_N = torch.randn(2, 40, outputs, dtype=dtype)
        D, g_D = torch.randn(2, 40, width, dtype=dtype)
        mixed = size if size != 1 else 10 ** (60 * torch.rand(40, 1) - 30)  # all sizes in one batch
        N, D = (mixed * N).to(dtype), (mixed * D).to(dtype)
        found, true = through(N, D, g_N, g_D), wanted(N, D, g_N, g_D)
        for mine, exact in zip(found, true, strict=True):
            assert (mine - exact).abs().max() < (1e-12 if dtype == torch.float64 else 3e-6)


def test_without_a_direction_the_gradient_stays():
    N = torch.tensor([[0.0], [math.nan], [math.inf], [3.0], [2.0]])
    D = torch.tensor([[0.0], [1.0], [1.0], [4.0], [1.0]])
    g_N, g_D = torch.ones(5, 1), 2 * torch.ones(5, 1)
    g_N[4] = math.inf
    by_N, by_D = through(N, D, g_N, g_D)
    assert torch.equal(by_N[[0, 1, 2, 4]], g_N[[0, 1, 2, 4]])
    assert torch.equal(by_D[[0, 1, 2, 4]], g_D[[0, 1, 2, 4]])
    torch.testing.assert_close(torch.stack((by_N[3], by_D[3])), torch.tensor([[-0.32], [0.24]]))


def test_a_loss_free_of_size_keeps_its_gradient():
    N, D, Y_n = torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for radial in (False, True):
        n, d = (x.clone().requires_grad_() for x in (N, D))
        pair = (n, d) if radial else tangential(n, d, -1, d)
        loss = implicit_loss(*pair, Y_n, torch.ones_like(Y_n), normalizer="chordal")
        found.append(torch.autograd.grad(loss, (n, d)))
    torch.testing.assert_close(*found)


def head_gradient(head, policy=GradientPolicy.PROJECT):
    head.zero_grad()
    with gradient_policy(policy):
        N, D = head(torch.ones(1, 1))
        (5 * N + D).sum().backward()
    return torch.cat([head.numerator.bias.grad, head.denominator.bias.grad])


def test_policies_come_first_and_passthrough_is_raw():
    head = ProjectiveHead(1, 1)
    with torch.no_grad():
        head.numerator.weight.zero_(), head.denominator.weight.zero_()
        head.numerator.bias.fill_(3.0), head.denominator.bias.fill_(4.0)
    z = torch.tensor([3.0, 4.0]) / 5
    raw = torch.tensor([5.0, 1.0])
    clean = raw - (raw @ z) * z
    torch.testing.assert_close(head_gradient(head), clean)
    assert torch.equal(head_gradient(head, GradientPolicy.PASSTHROUGH), raw)
    with register_policy(head, GradientPolicy.PASSTHROUGH):
        assert torch.equal(head_gradient(head), raw)
    with register_policy(head, GradientPolicy.CLAMP):  # what is cut has no part along z either
        assert head_gradient(head) @ z == pytest.approx(0, abs=1e-6)
    with register_policy(head, GradientPolicy.REJECT):
        assert not head_gradient(head).any()
    head.radial = True
    assert torch.equal(head_gradient(head), raw)
    head.radial = False
    assert torch.equal(head_gradient(head.eval()), raw)


def loss_of(N, D):
    return (N - 1).square().mean() + 3 * D.square().mean()  # depends on size


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ProjectiveMLP(1, 2, hidden=(8,))


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_transforms_that_train_do_as_eager_mode_does(model):
    x = torch.randn(16, 1)
    wanted = gradients_of(model, loss_of(*model(x)))
    p = {name: value.detach() for name, value in model.named_parameters()}

    def f(p, x):
        return loss_of(*functional_call(model, p, (x,)))

    members = {name: value.expand(3, *value.shape) for name, value in p.items()}
    ensembles = (
        vmap(grad(f), (0, None))(members, x),
        grad(lambda q: vmap(f, (0, None))(q, x).sum())(members),
    )
    rows = vmap(grad(lambda p, row: f(p, row[None])), (None, 0))(p, x)
    live = dict(model.named_parameters())
    outer = gradients_of(model, vmap(lambda row: f(live, row[None]))(x).mean())
    for name, true in wanted.items():
        torch.testing.assert_close(grad(f)(p, x)[name], true)
        for member in ensembles:
            torch.testing.assert_close(member[name][1], true)
        torch.testing.assert_close(rows[name].mean(0), true)
        torch.testing.assert_close(outer[name], true)
    model.head.radial = True
    whole = gradients_of(model, loss_of(*model(x)))
    assert max((whole[name] - wanted[name]).abs().max() for name in wanted) > 0.1


def test_derivatives_that_are_values_are_whole(model):
    x = torch.randn(16, 1)

    def slope(radial, by):
        """Gradients of a loss of dN/dx, which has no direction of its own."""
        model.head.radial = radial
        live = dict(model.named_parameters())
        if by == "torch.func":
            one = lambda row: functional_call(model, live, (row[None],))[0].sum()  # noqa: E731
            dN = vmap(grad(one))(x)
        else:
            inputs = x.clone().requires_grad_()
            (dN,) = torch.autograd.grad(model(inputs)[0].sum(), inputs, create_graph=True)
        return dN.detach(), gradients_of(model, dN.square().mean())

    true, wanted = slope(True, "autograd")
    for by in ("autograd", "torch.func"):
        value, found = slope(False, by)
        torch.testing.assert_close(value, true)
        for name, g in wanted.items():
            torch.testing.assert_close(found[name], g)

    def by_bias(b):
        return loss_of(*functional_call(model, {"head.numerator.bias": b}, (x,)))

    bias = model.head.numerator.bias.detach()
    torch.testing.assert_close(jacrev(jacrev(by_bias))(bias), torch.eye(2))
    torch.testing.assert_close(torch.func.hessian(by_bias)(bias), torch.eye(2))

    def numerators(b):
        return functional_call(model, {"head.numerator.bias": b}, (x,))[0]

    _, tangent = jvp(numerators, (bias,), (torch.ones(2),))
    assert torch.equal(tangent, torch.ones(16, 2))


def test_a_policy_acts_inside_vmap():
    head = ProjectiveHead(1, 1)
    register_policy(head, GradientPolicy.REJECT)
    live = dict(head.named_parameters())
    N, _ = vmap(lambda row: functional_call(head, live, (row[None],)))(torch.ones(4, 1))
    N.sum().backward()
    assert not head.numerator.weight.grad.any()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
@pytest.mark.parametrize("shared", [True, False])
def test_compiled_it_is_the_same_and_follows_the_policy(shared):
    head = ProjectiveHead(3, 2, shared_denominator=shared)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    h = torch.randn(6, 3)
    for policy in (GradientPolicy.PROJECT, GradientPolicy.PASSTHROUGH, GradientPolicy.PROJECT):
        with gradient_policy(policy):
            found = [gradients_of(head, loss_of(*run(h))) for run in (head, compiled)]
        torch.testing.assert_close(*found)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_plain_graphs_record_nothing():
    head = ProjectiveHead(3, 2)
    h = torch.randn(6, 3)
    program = torch.export.export(head, (h,))
    assert not [node for node in program.graph.nodes if "autograd" in str(node.target)]
    for run in (program.module(), torch.jit.trace(head, h), torch.jit.script(head)):
        for x, y in zip(run(h), head(h), strict=True):
            assert torch.equal(x, y)
