import copy
import math

import pytest
import torch

from zeroproof.autodiff import GradientPolicy, gradient_policy, register_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.layers import ProjectiveHead
from zeroproof.projective import Pair
from zeroproof.projective.tuples import gated


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("batch", [(), (5,), (5, 4), (0,)], ids=str)
def test_shapes(shared, batch):
    pair = ProjectiveHead(3, 2, shared_denominator=shared)(torch.randn(*batch, 3))
    assert isinstance(pair, Pair)
    assert pair.N.shape == (*batch, 2)
    assert pair.D.shape == (*batch, 1 if shared else 2)


def test_it_is_linear_in_the_features():
    head = ProjectiveHead(3, 2)
    h = torch.randn(5, 3)
    N, D = head(h)
    assert torch.equal(N, head.numerator(h))
    assert torch.equal(D, head.denominator(h))


@pytest.mark.parametrize("in_features", [1, 16, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_training_starts_away_from_poles(in_features, dtype):
    head = ProjectiveHead(in_features, 2, dtype=dtype)
    D = head(torch.tanh(torch.randn(200, in_features))).D
    assert (D - 1).abs().max() < 0.5
    assert (D - 1).abs().max() > 0  # the features reach it


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("policy", [None, GradientPolicy.PROJECT])
def test_gradcheck(dtype, shared, policy):
    head = ProjectiveHead(3, 2, shared_denominator=shared, dtype=dtype, radial=True)
    if policy is not None:
        register_policy(head, policy)
    h = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, *_: head(h), (h, *head.parameters()))
    head.radial = False  # derivatives of derivatives are whole
    assert torch.autograd.gradgradcheck(lambda h, *_: head(h), (h, *head.parameters()))


@pytest.mark.parametrize(
    ("features", "parameters", "result"),
    [
        (torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float64, torch.float32, torch.float64),
        (torch.float32, torch.complex64, torch.complex64),
    ],
    ids=str,
)
def test_dtypes_are_promoted_to_at_least_float32(features, parameters, result):
    head = ProjectiveHead(3, 2, dtype=parameters)
    N, D = head(torch.randn(4, 3).to(features))
    assert N.dtype == D.dtype == result
    (N.abs().sum() + D.abs().sum()).backward()
    assert all(p.grad is not None and p.grad.dtype == parameters for p in head.parameters())


def test_inside_autocast_it_stays_in_float32():
    head = ProjectiveHead(3, 2)
    h = torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(h)
    for x, y in zip(inside, head(h), strict=True):
        assert torch.equal(x, y)


# gradients 3 and -3 sent to tuples ⟨1, 1⟩, ⟨1, 0⟩, ⟨0, 0⟩ and ⟨nan, 1⟩
POLICIES = {
    GradientPolicy.CLAMP: ([1.0, 1.0, 0.0, 0.0], [-1.0, -1.0, 0.0, 0.0]),
    GradientPolicy.PROJECT: ([3.0, 3.0, 0.0, 0.0], [-3.0, -3.0, 0.0, 0.0]),
    GradientPolicy.REJECT: ([0.0] * 4, [0.0] * 4),
    GradientPolicy.PASSTHROUGH: ([3.0] * 4, [-3.0] * 4),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_gated_tuples(policy):
    N = torch.tensor([1.0, 1.0, 0.0, math.nan], requires_grad=True)
    D = torch.tensor([1.0, 0.0, 0.0, 1.0], requires_grad=True)
    pair = gated(N, D, int(policy))
    (3 * pair.N - 3 * pair.D).sum().backward()
    assert N.grad is not None
    assert D.grad is not None
    assert (N.grad.tolist(), D.grad.tolist()) == POLICIES[policy]


@pytest.mark.parametrize("policy", GradientPolicy)
def test_a_registered_policy_reaches_the_head(policy):
    head = ProjectiveHead(1, 1, radial=True)
    with torch.no_grad():
        head.numerator.weight.fill_(0.0)
        head.numerator.bias.fill_(2.0)

    def gradient():
        head.zero_grad()
        (5 * head(torch.ones(1, 1)).N).sum().backward()
        assert head.numerator.bias.grad is not None
        return head.numerator.bias.grad.item()

    expected = {GradientPolicy.CLAMP: 1.0, GradientPolicy.REJECT: 0.0}.get(policy, 5.0)
    with register_policy(head, policy), gradient_policy(GradientPolicy.REJECT):
        assert gradient() == expected
    with gradient_policy(policy):  # without one the losses gate, not the head
        assert gradient() == 5.0


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
def test_compiled_forward_and_backward():
    eager = ProjectiveHead(3, 2)
    h = torch.randn(4, 3)
    results = []
    for compiling in (False, True):
        head = copy.deepcopy(eager)
        register_policy(head, GradientPolicy.CLAMP)
        run = torch.compile(head, fullgraph=True, backend="aot_eager") if compiling else head
        N, D = run(h)
        (7 * N / D).sum().backward()
        results.append([N, D, *(p.grad for p in head.parameters())])
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 1), "in_features"), ((1, 0), "out_features"), ((1.5, 1), "in_")]
)
def test_widths_are_checked(arguments, name):
    with pytest.raises(RangeError, match=f"{name}.* must be a whole number of at least 1"):
        ProjectiveHead(*arguments)


@pytest.mark.parametrize("shape", [(), (2,), (5, 4)], ids=str)
def test_the_width_of_the_features_is_checked(shape):
    with pytest.raises(ShapeError, match=r"features must have the shape \(\*batch, 3\), got"):
        ProjectiveHead(3, 1)(torch.zeros(shape))


def test_its_representation_names_the_denominators():
    assert "shared_denominator=True" in repr(ProjectiveHead(3, 1))
