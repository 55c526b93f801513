import math

import pytest
import torch
from torch import nn

from zeroproof.autodiff import GradientPolicy, gradient_policy, register_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.inference import InferenceConfig, StrictModule, StrictResult, strict_inference
from zeroproof.layers import ProjectiveMLP, ProjectiveRational
from zeroproof.projective import Pair

INF, NAN = math.inf, math.nan


def assert_same(result, expected):
    for x, y in zip(result, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


class Constant(nn.Module):
    """Answers 1 whatever comes in."""

    def __init__(self, output=None):
        super().__init__()
        self.output = output

    def forward(self, x, *others, **options):
        return self.output if self.output is not None else (torch.ones(len(x), 2),) * 2


class Returning(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ProjectiveMLP(3, 2, hidden=(8,), shared_denominator=True)


@pytest.fixture
def x():
    torch.manual_seed(1)
    x = torch.randn(6, 3)
    x[1, 0], x[2, 1], x[4, 2] = NAN, INF, -INF
    return x


def test_training_mode_passes_the_pair_through(model):
    x = torch.randn(4, 3)
    result = StrictModule(model).train()(x)
    assert isinstance(result, Pair)
    assert_same(result, model(x))


def test_eval_mode_decodes_with_its_config(model):
    x = torch.randn(4, 3)
    config = InferenceConfig(tau_infer=1.0, tau_train=1.1)
    result = StrictModule(model, config).eval()(x)
    assert isinstance(result, StrictResult)
    assert_same(result, strict_inference(*model(x), config))


@pytest.mark.parametrize("bad", [NAN, INF, -INF], ids=str)
def test_rows_with_an_input_that_is_not_finite_are_bottom_whatever_the_model_says(bad):
    x = torch.zeros(3, 4)
    x[1, 2] = bad
    decoded, bottom, gap = StrictModule(Constant()).eval()(x)
    assert bottom.tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert torch.equal(bottom, decoded.isnan())
    assert not gap.any()


def test_a_broken_row_cannot_spread_through_batch_statistics():
    class Centred(nn.Module):
        def forward(self, x):
            return x - x.mean(0), torch.ones_like(x)

    x = torch.tensor([[1.0], [NAN], [5.0]])
    decoded, _, _ = StrictModule(Centred()).eval()(x)
    assert decoded[[0, 2]].tolist() == [[-1.0], [3.0]]


INPUTS = {
    "second positional": lambda bad: ((torch.zeros(3, 1), bad), {}),
    "keyword": lambda bad: ((torch.zeros(3, 1),), {"extra": bad}),
    "nested": lambda bad: (({"a": torch.zeros(3, 1), "b": [bad]},), {}),
    "with a mask and a number": lambda bad: (
        (bad, torch.ones(3, dtype=torch.bool), torch.tensor(1.0), 2, None),
        {"text": "x"},
    ),
    "one row for all": lambda bad: ((bad, torch.zeros(1, 7)), {}),
}


@pytest.mark.parametrize("make", INPUTS.values(), ids=INPUTS.keys())
def test_several_inputs_are_gated_together(make):
    bad = torch.zeros(3, 2, 2)
    bad[2, 1, 0] = NAN
    args, options = make(bad)
    ones = torch.ones(3, 1)
    _, bottom, _ = StrictModule(Constant((ones, ones))).eval()(*args, **options)
    assert bottom.tolist() == [[False], [False], [True]]


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2)], ids=str)
def test_rows_reach_outputs_of_any_rank(shape):
    x = torch.tensor([0.0, NAN, 0.0])
    ones = torch.ones(shape)
    _, bottom, _ = StrictModule(Constant((ones, ones))).eval()(x)
    assert torch.equal(bottom, x.isnan().reshape(-1, *[1] * (len(shape) - 1)).expand(shape))


def test_an_input_without_rows_breaks_every_row():
    ones = torch.ones(3, 1)
    module = StrictModule(Constant((ones, ones))).eval()
    assert module(torch.zeros(3), torch.tensor(NAN)).bottom_mask.all()
    assert not module(torch.zeros(3), torch.tensor(1)).bottom_mask.any()


@pytest.mark.parametrize("kind", [tuple, list, Pair._make])
def test_any_sequence_of_two_tensors_is_a_pair(kind):
    output = kind([torch.ones(2, 3), torch.full((2, 1), 4.0)])
    module = StrictModule(Returning(output))
    assert isinstance(module.train()(torch.zeros(2)), Pair)
    assert torch.equal(module.eval()(torch.zeros(2)).decoded, torch.full((2, 3), 0.25))


NOT_A_PAIR = {
    "tensor": (torch.ones(2, 3), r"got one tensor of shape \(2, 3\)"),
    "three": ((torch.ones(2),) * 3, r"got tuple of \(Tensor, Tensor, Tensor\)"),
    "floats": ([1.0, torch.ones(2)], r"got list of \(float, Tensor\)"),
    "dict": ({"N": torch.ones(2)}, "got dict"),
    "none": (None, "got NoneType"),
}


@pytest.mark.parametrize(("output", "came"), NOT_A_PAIR.values(), ids=NOT_A_PAIR.keys())
@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_returns_no_pair_is_named(output, came, training):
    with pytest.raises(RangeError, match=rf"the model must return \(N, D\), two tensors, {came}"):
        StrictModule(Returning(output)).train(training)(torch.zeros(2))


def test_shapes_are_checked():
    ones = torch.ones(3, 2)
    with pytest.raises(ShapeError, match="N and D must have equal shapes"):
        StrictModule(Constant((ones, torch.ones(2, 3))))(torch.zeros(3))
    module = StrictModule(Constant((ones, ones))).eval()
    with pytest.raises(ShapeError, match="same number of rows, in dimension 0, got 3 and 4"):
        module(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ShapeError, match=r"N must keep the 6 rows of the inputs .* got \(3, 2\)"):
        module(torch.zeros(6))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((abs,), "model must be a torch.nn.Module, got builtin_function_or_method"),
        ((nn.Identity(), 1e-6), "config must be an InferenceConfig, got float"),
    ],
)
def test_construction_is_checked(args, message):
    with pytest.raises(RangeError, match=message):
        StrictModule(*args)


def _input_gradient(module, policy):
    """Gradient on the weights of a head whose outputs are 6 / 2 and, for a zero row, 6 / 0."""
    N = torch.tensor([[6.0], [6.0]], requires_grad=True)
    D = torch.tensor([[2.0], [0.0]], requires_grad=True)
    module.model.output = (N, D)
    output = module(torch.zeros(2))
    value = output.decoded if isinstance(output, StrictResult) else 3 * output.N + 0 * output.D
    with gradient_policy(policy):
        return [g.flatten().tolist() for g in torch.autograd.grad(value.sum(), (N, D))]


@pytest.mark.parametrize("training", [True, False])
def test_a_registered_policy_beats_the_context(training):
    module = StrictModule(Constant()).train(training)
    register_policy(module, GradientPolicy.REJECT)
    assert _input_gradient(module, GradientPolicy.PROJECT) == [[0.0, 0.0], [0.0, 0.0]]
    register_policy(module, GradientPolicy.CLAMP)
    # ⟨6, 0⟩ is a point at infinity for tuples, ⊥ when it is decoded
    expected = [[1.0, 1.0], [0.0, 0.0]] if training else [[0.5, 0.0], [-1.0, 0.0]]
    assert _input_gradient(module, GradientPolicy.PASSTHROUGH) == expected


def test_without_registration_eval_follows_the_context_and_training_is_untouched():
    module = StrictModule(Constant())
    assert _input_gradient(module.train(), GradientPolicy.REJECT) == [[3.0, 3.0], [0.0, 0.0]]
    assert _input_gradient(module.eval(), GradientPolicy.REJECT) == [[0.0, 0.0], [0.0, 0.0]]


def test_gradients_of_good_rows_stay_finite_beside_broken_ones(model, x):
    module = StrictModule(model).eval()
    with gradient_policy(GradientPolicy.PROJECT):
        module(x).decoded.nan_to_num().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_rational_model_knows_its_pole():
    model = ProjectiveRational((1, 1), basis="monomial")
    with torch.no_grad():
        model.numerator.copy_(torch.tensor([[1.0], [0.0]]))
        model.denominator.copy_(torch.tensor([[-1.0], [1.0]]))
    decoded, bottom, _ = StrictModule(model).eval()(torch.tensor([[0.0], [1.0], [3.0]]))
    assert bottom.flatten().tolist() == [False, True, False]
    assert decoded[[0, 2]].flatten().tolist() == [-1.0, 0.5]
