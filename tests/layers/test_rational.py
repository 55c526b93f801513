import copy
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zeroproof.autodiff import GradientPolicy, gradient_policy, register_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.layers import ProjectiveRational, Rational
from zeroproof.projective import Pair
from zeroproof.scm import SCM

INF, NAN = math.inf, math.nan
COMPILED = pytest.mark.filterwarnings(  # dynamo's own
    "ignore:.*should not be instantiated:DeprecationWarning"
)
RECIPROCAL = ([1.0, 0.0], [0.0, 1.0])  # 1 / x in monomials


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("degrees", [(1, 0), (3, 2), (5, 4)], ids=str)
def test_it_starts_as_the_identity(basis, degrees):
    layer = Rational(degrees, "tensor", basis=basis, domain=(-3, 5), dtype=torch.float64)
    x = torch.linspace(-3, 5, 50, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x, rtol=1e-14, atol=1e-14)


halves = st.integers(-20, 20).map(lambda k: Fraction(k, 2))


@given(
    x=halves,
    P=st.lists(st.integers(-3, 3), min_size=3, max_size=3),
    Q=st.lists(st.integers(-3, 3), min_size=4, max_size=4),
)
def test_bottom_is_exactly_where_q_is_zero(x, P, Q):
    layer = Rational((2, 3), init=(P, Q), dtype=torch.float64)
    value = layer(torch.tensor([float(x)], dtype=torch.float64))
    p, q = (sum(c * x**k for k, c in enumerate(column)) for column in (P, Q))
    assert value.bottom.item() == (q == 0)
    expected = NAN if q == 0 else float(p / q)
    assert value.payload.item() == pytest.approx(expected, rel=1e-15, nan_ok=True)


BOTTOMS = {
    "zero of Q": torch.tensor([0.0]),
    "nan": torch.tensor([NAN]),
    "inf": torch.tensor([INF]),
    "minus inf": torch.tensor([-INF]),
    "quotient overflows": torch.tensor([1e-40]),
    "SCM bottom": SCM(torch.tensor([2.0]), torch.tensor([True])),
}


@pytest.mark.parametrize("returns", ["scm", "tensor"])
@pytest.mark.parametrize("x", BOTTOMS.values(), ids=BOTTOMS.keys())
def test_the_ways_to_bottom(x, returns):
    value = Rational((1, 1), returns, init=RECIPROCAL)(x)
    if returns == "scm":
        assert isinstance(value, SCM)
        assert value.bottom.all()
        value = value.payload
    assert isinstance(value, torch.Tensor)
    assert value.isnan().all()


def test_scm_and_tensor_inputs_give_the_same():
    x = torch.tensor([2.0, 0.0, NAN])
    layer = Rational((1, 1), init=RECIPROCAL)
    a, b = layer(x), layer(SCM(x))
    assert a.bottom.tolist() == b.bottom.tolist() == [False, True, True]
    assert a.payload[0] == b.payload[0] == 0.5


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("policy", [GradientPolicy.PROJECT, GradientPolicy.CLAMP])
def test_overflowing_polynomials_are_bottom_with_zero_gradient(basis, policy):
    layer = Rational((5, 4), basis=basis, init=([1.0] * 6, [1.0] * 5))
    x = torch.tensor([1e20, -3e38, INF, NAN, 0.5], requires_grad=True)
    value = layer(x)
    assert value.bottom.tolist() == [True, True, True, True, False]
    with gradient_policy(policy):
        value.payload.nan_to_num().sum().backward()
    assert x.grad is not None
    assert x.grad[:4].tolist() == [0.0] * 4
    alone = Rational((5, 4), basis=basis, init=([1.0] * 6, [1.0] * 5))
    with gradient_policy(policy):
        alone(torch.tensor([0.5])).payload.sum().backward()
    for p, q in zip(layer.parameters(), alone.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_never_shows_inf(dtype):
    layer = Rational((5, 4), "tensor", init=([0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0])).to(dtype)
    x = torch.tensor([2.0, 3e4, -3e4, INF], dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    assert not y.isinf().any()
    assert y[0] == 32.0
    if dtype == torch.float16:
        assert y[1:].isnan().all()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_inside_autocast_it_stays_in_float32(half):
    layer = Rational((5, 4), "tensor")
    x = torch.randn(9).to(half)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, x.float())


def test_it_fits_into_a_sequential_model():
    model = nn.Sequential(nn.Linear(2, 3), Rational(returns="tensor"), nn.Linear(3, 1))
    x = torch.randn(4, 2)
    torch.testing.assert_close(model(x), model[2](model[0](x)))


def test_channels_have_coefficients_of_their_own():
    layer = Rational((2, 1), "tensor", channels=3)
    with torch.no_grad():
        layer.numerator[0] = torch.tensor([0.0, 1.0, 2.0])
    x = torch.randn(4, 3)
    assert torch.equal(layer(x), x + torch.tensor([0.0, 1.0, 2.0]))
    with pytest.raises(ShapeError, match=r"x must have the shape \(\*batch, 3\), got \(4,\)"):
        layer(torch.zeros(4))


def _random_rational(basis="monomial", dtype=torch.float64, channels=None):
    layer = Rational((3, 2), "tensor", basis=basis, dtype=dtype, channels=channels)
    with torch.no_grad():
        layer.numerator.normal_()
        layer.denominator.normal_(std=0.1)
        layer.denominator[0] = 1.0
    return layer


def _of_parameters(layer):
    """The layer as a function of x, numerator and denominator."""

    def function(x, P, Q):
        parameters = {"numerator": P, "denominator": Q}
        return torch.func.functional_call(layer, parameters, (x,))

    return function


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradcheck(basis, channels, dtype):
    layer = _random_rational(basis, dtype, channels)
    x = torch.rand(4, 3, dtype=dtype, requires_grad=True)
    with gradient_policy(GradientPolicy.PROJECT):
        inputs = (x, layer.numerator, layer.denominator)
        assert torch.autograd.gradcheck(_of_parameters(layer), inputs)
        if channels is None and dtype == torch.float64:
            assert torch.autograd.gradgradcheck(_of_parameters(layer), inputs)


# 6 / x at 2 and at 0: dL/dP and dL/dQ with dL/dy = 1
EXPECTED = {
    GradientPolicy.CLAMP: ([0.5, 0.0], [-1.0, 0.0]),
    GradientPolicy.PROJECT: ([0.5, 0.0], [-1.5, 0.0]),
    GradientPolicy.REJECT: ([0.0, 0.0], [0.0, 0.0]),
    GradientPolicy.PASSTHROUGH: ([0.5, INF], [-1.5, -INF]),
}


def _constant_gradients(registered, context):
    """Gradients of the constant coefficients, one channel each for x = 2 and x = 0."""
    layer = Rational((0, 1), "tensor", channels=2, init=([6.0], [0.0, 1.0]))
    if registered is not None:
        register_policy(layer, registered)
    y = layer(torch.tensor([2.0, 0.0]))
    with gradient_policy(context):
        y.sum().backward()
    assert layer.numerator.grad is not None
    assert layer.denominator.grad is not None
    return layer.numerator.grad[0].tolist(), layer.denominator.grad[0].tolist()


@pytest.mark.parametrize("policy", EXPECTED)
def test_policies_act_on_p_and_q(policy):
    assert _constant_gradients(None, policy) == EXPECTED[policy]
    assert _constant_gradients(policy, GradientPolicy.REJECT) == EXPECTED[policy]
    assert _constant_gradients(policy, GradientPolicy.PASSTHROUGH) == EXPECTED[policy]


@COMPILED
@pytest.mark.parametrize(
    ("returns", "policy"), [("scm", None), ("tensor", GradientPolicy.CLAMP)], ids=str
)
def test_compiled_forward_and_backward(returns, policy):
    eager = Rational((3, 2), returns, init=([1, 2, 3, 4], [1, -1, 0]))
    values, gradients = [], []
    for compiling in (False, True):
        layer = copy.deepcopy(eager)
        if policy is not None:
            register_policy(layer, policy)
        run = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiling else layer
        x = torch.tensor([0.5, 1.0, 2.0, INF, 1e20], requires_grad=True)
        y = run(x)
        assert isinstance(y, SCM if returns == "scm" else torch.Tensor)
        values.append(y.payload if isinstance(y, SCM) else y)
        with gradient_policy(GradientPolicy.PROJECT):
            values[-1].nan_to_num().sum().backward()
        gradients.append([x.grad, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(*values, equal_nan=True)
    assert values[0].isnan().tolist() == [False, True, False, True, True]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_vmap_and_func_grad():
    layer = _random_rational()
    x = torch.rand(5, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))
    with gradient_policy(GradientPolicy.PROJECT):
        slopes = torch.func.vmap(torch.func.grad(layer))(x[:, 0])
        points = x[:, 0].clone().requires_grad_()
        (expected,) = torch.autograd.grad(layer(points).sum(), points)
    torch.testing.assert_close(slopes, expected)


BAD = [
    (
        {"degrees": (-1, 2)},
        RangeError,
        r"degrees\[0\] must be a whole number of at least 0, got -1",
    ),
    (
        {"degrees": (2, -1)},
        RangeError,
        r"degrees\[1\] must be a whole number of at least 0, got -1",
    ),
    ({"degrees": (1.5, 2)}, RangeError, r"degrees\[0\] must be a whole number"),
    ({"degrees": 3}, RangeError, r"degrees must be \(p, q\), .* got 3"),
    ({"degrees": (1, 2, 3)}, RangeError, r"degrees must be \(p, q\)"),
    ({"basis": "fourier"}, RangeError, "basis must be one of 'monomial', 'chebyshev'"),
    ({"domain": (1, 0)}, RangeError, r"domain must be \(low, high\) with low < high"),
]
BAD_RATIONAL = [
    *BAD,
    ({"returns": "numpy"}, RangeError, "returns must be one of 'scm', 'tensor', got 'numpy'"),
    ({"degrees": (0, 2)}, RangeError, r"degrees\[0\] must be at least 1 for the identity, got 0"),
    ({"init": "zero"}, RangeError, "init must be one of 'identity', 'relu', .* got 'zero'"),
    (
        {"degrees": (3, 2), "init": "gelu"},
        RangeError,
        r"degrees must be \(5, 4\) for init='gelu', got \(3, 2\)",
    ),
    ({"init": ([1.0], [1.0])}, ShapeError, "init must hold 6 and 5 coefficients, got 1 and 1"),
    ({"channels": 0}, RangeError, "channels must be a whole number of at least 1, got 0"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_RATIONAL)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        Rational(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"), [*BAD, ({"out_features": 0}, RangeError, "out_features")]
)
def test_arguments_of_the_projective_layer_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        ProjectiveRational(**arguments)


@pytest.mark.parametrize("shape", [(), (4,), (4, 2)], ids=str)
def test_the_projective_layer_takes_one_column(shape):
    with pytest.raises(ShapeError, match=r"x must have the shape \(\*batch, 1\), got .*unsqueeze"):
        ProjectiveRational()(torch.zeros(shape))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("batch", [(), (5,), (2, 5), (0,)], ids=str)
def test_shapes_of_the_projective_layer(batch, shared):
    layer = ProjectiveRational((3, 2), out_features=4, shared_denominator=shared)
    pair = layer(torch.zeros(*batch, 1))
    assert isinstance(pair, Pair)
    assert pair.N.shape == (*batch, 4)
    assert pair.D.shape == (*batch, 1 if shared else 4)
    assert torch.equal(pair.D, torch.ones_like(pair.D))


@pytest.mark.parametrize("degrees", [(0, 0), (5, 4)], ids=str)
def test_tuples_are_not_finite_where_x_is_not_or_powers_overflow(degrees):
    layer = ProjectiveRational(degrees, out_features=2)
    with torch.no_grad():
        layer.denominator.fill_(1.0)
    x = torch.tensor([[0.5], [NAN], [INF], [1e30]], requires_grad=True)
    N, D = layer(x)
    finite = [True, False, False, degrees == (0, 0)]
    assert N.isfinite().all(-1).tolist() == finite
    assert D.isfinite().all(-1).tolist() == finite
    (N.nan_to_num().sum() + D.nan_to_num().sum()).backward()
    assert x.grad is None or x.grad.isfinite().all()  # None: constants do not depend on x
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("policy", [None, GradientPolicy.PROJECT])
def test_gradcheck_of_the_projective_layer(basis, dtype, policy):
    layer = ProjectiveRational((3, 2), out_features=2, basis=basis, dtype=dtype)
    if policy is not None:
        register_policy(layer, policy)
    x = torch.randn(4, 1, dtype=dtype, requires_grad=True)
    inputs = (x, layer.numerator, layer.denominator)
    assert torch.autograd.gradcheck(_of_parameters(layer), inputs)


@pytest.mark.parametrize("policy", GradientPolicy)
def test_a_registered_policy_reaches_the_projective_layer(policy):
    layer = ProjectiveRational((0, 0))
    around = nn.ModuleList([layer])
    register_policy(around, policy)
    with gradient_policy(GradientPolicy.PASSTHROUGH):
        (5 * layer(torch.zeros(1, 1)).N).sum().backward()
    assert layer.numerator.grad is not None
    expected = {GradientPolicy.CLAMP: 1.0, GradientPolicy.REJECT: 0.0}.get(policy, 5.0)
    assert layer.numerator.grad.item() == expected


@COMPILED
def test_the_projective_layer_compiles_in_one_graph():
    layer = ProjectiveRational((3, 2), out_features=2)
    register_policy(layer, GradientPolicy.PROJECT)
    x = torch.randn(5, 1)
    gradients = []
    for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        N, D = run(x)
        gradients.append(torch.autograd.grad((N / D).sum(), list(layer.parameters())))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_representations_name_degrees_and_basis():
    assert repr(Rational((3, 2))) == "Rational(degrees=(3, 2), basis='monomial', returns='scm')"
    assert "domain=(-2.0, 2.0)" in repr(ProjectiveRational(domain=(-2, 2)))
