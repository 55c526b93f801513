"""Every way to compute a rational layer against a simple reference in float64."""

import copy
import math

import pytest
import torch

from zeroproof import native
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.layers import ProjectiveRational, Rational
from zeroproof.layers.basis import chebyshev_basis, derivative, monomial_basis, polynomial_reach
from zeroproof.scm import SCM

INF, NAN = math.inf, math.nan
COEFFICIENTS = ([0.5, 1.0, 0.1, 0.2, -0.1, 0.1], [1.0, 0.1, 0.2, -0.1, 0.1])
POLE = ([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0])  # 1 / x

INPUTS = {
    "random": torch.randn(333, generator=torch.Generator().manual_seed(0)),
    "bottoms": torch.tensor([0.0, 1.5, NAN, -2.0, INF]).repeat(60),
    "large": torch.tensor([1e5, -3e6, 1e20, 3e38, 2.0, -1e12]).repeat(50),
    "denormal": torch.tensor([1e-40, -1e-42, 1e-38, 1e-30, 1.0]).repeat(50),
}


both_ways = pytest.mark.usefixtures("both_ways")


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    torch.compiler.reset()


def _columns(x, degree, basis):
    return (monomial_basis if basis == "monomial" else chebyshev_basis)(x, degree)


def _reference(x, g, P, Q, basis, policy, bottom):
    """Value and gradients in float64, where `bottom` says what is ⊥."""
    x, g, P, Q = (z.double() for z in (x, g, P, Q))
    x = torch.where(bottom, 0, x)
    p, q = (_columns(x, len(c) - 1, basis) @ c for c in (P, Q))
    q = torch.where(bottom, 1, q)
    g_P, g_Q = g / q, -g * p / q / q
    if policy is GradientPolicy.CLAMP:
        g_P, g_Q = g_P.clamp(-1, 1), g_Q.clamp(-1, 1)
    kill = bottom | (policy is GradientPolicy.REJECT)
    g_P, g_Q = (torch.where(kill, 0, z) for z in (g_P, g_Q))
    slopes = [derivative(c, basis) for c in (P, Q)]
    slope_P, slope_Q = (_columns(x, len(c) - 1, basis) @ c for c in slopes)
    rows, sizes = [], [torch.ones(())]  # how large the terms of a sum are, which may cancel
    for c, z in ((P, g_P), (Q, g_Q)):
        columns = _columns(x, len(c) - 1, basis)
        rows.append(columns.mT @ z)
        size = columns.abs().mT @ (z.abs() + 1e-40)  # and denormals
        sizes.append(size if z.abs().max() < 1e38 else torch.full_like(size, INF))
    values = torch.where(bottom, NAN, p / q), g_P * slope_P + g_Q * slope_Q, *rows
    return values, sizes


def _results(layer, x, g, policy):
    x = x.clone().requires_grad_()
    y = layer(x)
    with gradient_policy(policy):
        gradients = torch.autograd.grad(y.payload, (x, *layer.parameters()), g)
    return y.payload.detach(), y.bottom, gradients


@both_ways
@pytest.mark.parametrize("policy", list(GradientPolicy)[:3])
@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("coefficients", [COEFFICIENTS, POLE], ids=["regular", "pole"])
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS.keys())
def test_kernels_agree_with_the_reference(x, coefficients, basis, policy):
    layer = Rational((5, 4), basis=basis, init=coefficients)
    g = torch.randn_like(x) / 100  # g / 1e-38 is a float32 still
    value, bottom, gradients = _results(layer, x, g, policy)
    assert torch.equal(bottom, value.isnan())
    if coefficients is POLE:  # T_1 is x too
        assert torch.equal(bottom, ~(1 / x).isfinite() | ~x.isfinite() | (x.abs() > 1e30))
    expected, sizes = _reference(x, g, layer.numerator, layer.denominator, basis, policy, bottom)
    torch.testing.assert_close(value.double(), expected[0], rtol=2e-5, atol=1e-6, equal_nan=True)
    for got, wanted, size in zip(gradients, expected[1:], sizes, strict=True):
        fits = (wanted.abs() < 1e37) & (size < 1e37)
        assert got[fits].isfinite().all()
        error = (got.double() - wanted).abs() <= 1e-4 * wanted.abs() + 1e-5 * size
        assert (error | ~fits).all()


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS.keys())
def test_loops_and_operations_of_torch_give_the_same_mask(x, basis):
    layer = Rational((5, 4), basis=basis, domain=(-2, 3), init=POLE)
    g = torch.randn_like(x)
    value, bottom, gradients = _results(layer, x, g, GradientPolicy.CLAMP)
    with native.disabled():
        plain_value, plain_bottom, plain_gradients = _results(layer, x, g, GradientPolicy.CLAMP)
    assert torch.equal(bottom, plain_bottom)
    torch.testing.assert_close(value, plain_value, rtol=1e-4, atol=1e-6, equal_nan=True)
    for a, b in zip(gradients, plain_gradients, strict=True):
        # where powers overflow, inf or nan depends on the order
        a, b = (torch.where(z.isfinite(), z, NAN) for z in (a, b))  # noqa: PLW2901
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)


@both_ways
def test_a_zero_gradient_stays_zero_where_a_power_overflows():
    layer = Rational((5, 4), "tensor")
    x = torch.tensor([1e12, 0.5], requires_grad=True)
    layer(x).backward(torch.tensor([0.0, 1.0]))
    assert layer.numerator.grad is not None
    assert layer.numerator.grad.tolist() == [0.5**k for k in range(6)]


@both_ways
def test_only_x_and_coefficients_are_kept():
    layer, x, sizes = Rational((5, 4)), torch.randn(20_000, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        y = layer(x)
    assert sum(sizes) < 4.1 * x.numel()
    y.payload.sum().backward()


@both_ways
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (7, 11), (200,)], ids=str)
def test_shapes_and_strides(shape):
    layer = Rational((5, 4), init=COEFFICIENTS)
    x = torch.randn(*shape, 2)[..., 0].requires_grad_()
    y = layer(x)
    assert y.shape == y.bottom.shape == shape
    y.payload.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape
    with torch.no_grad():
        assert torch.equal(layer(x.contiguous()).payload, y.payload)


@both_ways
def test_coefficient_sums_do_not_drift():
    layer = Rational((1, 1), "tensor")
    x = torch.full((100_000,), 0.1)
    layer(x).backward(torch.full_like(x, 0.1))
    assert layer.numerator.grad is not None
    expected = 100_000 * x[0].double() * torch.tensor([1.0, x[0].item()], dtype=torch.float64)
    torch.testing.assert_close(layer.numerator.grad.double(), expected, rtol=1e-6, atol=0)


def test_batched_and_higher_derivatives():
    layer = Rational((5, 4), "tensor", init=COEFFICIENTS, dtype=torch.float64)
    x = torch.randn(70, dtype=torch.float64, requires_grad=True)
    with gradient_policy(GradientPolicy.PROJECT):
        (rows,) = torch.autograd.grad(
            layer(x), x, torch.eye(70, dtype=torch.float64), is_grads_batched=True
        )
        (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        torch.testing.assert_close(rows, torch.diag(slope.detach()))
        torch.testing.assert_close(torch.func.jacrev(layer)(x.detach()), rows)
        (bend,) = torch.autograd.grad(slope.sum(), x)
        (ahead,) = torch.autograd.grad(layer(x + 1e-6).sum(), x)
    torch.testing.assert_close(bend, (ahead - slope.detach()) / 1e-6, rtol=1e-3, atol=1e-3)


@both_ways
def test_bottoms_of_an_scm_input_stay_wherever_their_payload_is():
    layer = Rational((5, 4), init=COEFFICIENTS)
    bottom = torch.zeros(200, dtype=torch.bool)
    bottom[[3, 150]] = True
    x = SCM(torch.randn(200, requires_grad=True), bottom)
    assert torch.equal(layer(x).bottom, bottom)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("size", "basis"), [(60, "chebyshev"), (8192, "monomial"), (8209, "chebyshev")], ids=str
)  # one row, rows, a prime
def test_compiled_agrees_with_eager(size, basis):
    layer = Rational((3, 2), basis=basis, init=([0, 1, 0.5, 1], [0, 1, 0.1]))
    x = torch.randn(size)
    x[:4] = torch.tensor([0.0, NAN, 1e30, INF])
    g = torch.randn_like(x)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    for given in (x, SCM(x, x > 2)):
        results = []
        for run in (layer, compiled):
            inner = given.clone().requires_grad_() if isinstance(given, torch.Tensor) else given
            gradients = []
            for policy in list(GradientPolicy)[:3]:
                y = run(inner)
                with gradient_policy(policy):
                    gradients += torch.autograd.grad(
                        y.payload.nan_to_num(), list(run.parameters()), g
                    )
            results.append((y, gradients))
        (a, a_gradients), (b, b_gradients) = results
        assert b.bottom.dtype == torch.bool
        assert torch.equal(a.bottom, b.bottom)
        torch.testing.assert_close(a.payload, b.payload, equal_nan=True, rtol=1e-3, atol=1e-5)
        for p, q in zip(a_gradients, b_gradients, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-3)  # next to a pole


@both_ways
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS.keys())
def test_tuples_agree_with_the_reference(x, basis, shared):
    layer = ProjectiveRational(
        (3, 2), out_features=2, basis=basis, domain=(-2, 3), shared_denominator=shared
    )
    with torch.no_grad():
        layer.denominator.normal_()
    column = x.repeat(8).unsqueeze(-1).requires_grad_()  # more than one block
    N, D = layer(column)
    g = torch.randn_like(N), torch.randn_like(D)
    found = torch.autograd.grad((N, D), (column, *layer.parameters()), g)
    reach = (polynomial_reach(column, c, basis, (-2, 3)).all(-1) for c in layer.parameters())
    beyond = ~torch.stack([*reach]).all(0)
    assert torch.equal(N.isnan().all(-1), beyond)
    assert torch.equal(D.isnan().all(-1), beyond)
    wide = [z.detach().double().requires_grad_() for z in (column[~beyond], *layer.parameters())]
    t = wide[0] if basis == "monomial" else (wide[0] - 0.5) / 2.5
    values = [_columns(t[:, 0], len(c) - 1, basis) @ c for c in wide[1:]]
    kept = [z[~beyond].double() for z in g]
    wanted = torch.autograd.grad(values, wide, kept)
    for got, true in zip((N, D), values, strict=True):
        torch.testing.assert_close(got[~beyond].double(), true, rtol=1e-5, atol=1e-5)
    assert not found[0][beyond].any()
    for got, true in zip((found[0][~beyond], *found[1:]), wanted, strict=True):
        size = true.abs().max().item() if true.numel() else 0.0
        torch.testing.assert_close(got.double(), true, rtol=1e-4, atol=1e-6 * size)


def test_second_derivatives_of_tuples():
    layer = ProjectiveRational((3, 2), out_features=2, dtype=torch.float64)

    def function(x, P, Q):
        return torch.func.functional_call(layer, {"numerator": P, "denominator": Q}, (x,))

    x = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(function, (x, *layer.parameters()))


LAYERS = {
    "quotient": lambda: Rational((5, 4), "tensor", init=COEFFICIENTS),
    "tuples": lambda: ProjectiveRational((5, 4), out_features=2, basis="monomial"),
}


def _everything(layer, x):
    """Values and gradients by torch operations alone, backward included."""
    leaf = x.clone().requires_grad_()
    with native.disabled(), gradient_policy(GradientPolicy.PROJECT):
        y = layer(leaf)
        parts = (y,) if isinstance(y, torch.Tensor) else tuple(y)
        g = [torch.full_like(part, 0.3) for part in parts]
        return *parts, *torch.autograd.grad(parts, (leaf, *layer.parameters()), g)


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_takes_no_digits(name):
    layer, x = LAYERS[name](), torch.randn(333, 1)
    expected = _everything(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = _everything(layer, x)
        assert torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("x", [INPUTS["random"], INPUTS["bottoms"]], ids=["random", "bottoms"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_defaults_of_torch_do_not_matter(name, x):
    layer, x = LAYERS[name](), x.unsqueeze(-1)
    expected = _everything(layer, x)
    with torch.device("meta"):
        found = _everything(layer, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    torch.set_default_dtype(torch.float64)
    try:
        found = _everything(layer, x)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_layer_may_be_made_on_another_device():
    with torch.device("meta"):
        assert Rational.from_safe([0, 1], [1, 2], basis="chebyshev").numerator.is_meta
