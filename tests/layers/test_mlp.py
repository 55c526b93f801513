import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from zeroproof.autodiff import GradientPolicy, register_policy
from zeroproof.errors import RangeError, ShapeError
from zeroproof.layers import ProjectiveMLP, Rational
from zeroproof.training import SCMTrainingLoss, lift_targets

SPECS = {
    "defaults": {"in_features": 3, "out_features": 1},
    "separate": {"in_features": 2, "out_features": 4, "shared_denominator": False},
    "deep": {"in_features": 1, "out_features": 1, "hidden": (8, 4, 2), "activation": "silu"},
    "no hidden layer": {"in_features": 2, "out_features": 1, "hidden": ()},
}


@pytest.mark.parametrize("arguments", SPECS.values(), ids=SPECS.keys())
def test_it_is_rebuilt_from_its_spec_and_state(arguments):
    columns = arguments["in_features"]
    model = ProjectiveMLP(**arguments, x_mean=[2.0] * columns, x_std=[0.5] * columns)
    rebuilt = ProjectiveMLP.from_spec(json.loads(json.dumps(model.spec())))
    assert rebuilt.spec() == model.spec()
    rebuilt.load_state_dict(model.state_dict())
    x = torch.randn(5, columns)
    for a, b in zip(model(x), rebuilt(x), strict=True):
        assert torch.equal(a, b)


def test_same_seed_same_model():
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(ProjectiveMLP(2, 1)(torch.ones(1, 2)))
    assert torch.equal(outputs[0].N, outputs[1].N)
    assert torch.equal(outputs[0].D, outputs[1].D)


def test_inputs_are_standardised():
    torch.manual_seed(0)
    plain = ProjectiveMLP(2, 1)
    scaled = ProjectiveMLP(2, 1, x_mean=torch.tensor([10.0, -4.0]), x_std=[2.0, 8.0])
    scaled.trunk, scaled.head = plain.trunk, plain.head
    z = torch.tensor([[0.5, -1.0], [0.0, 2.0]])
    x = z * torch.tensor([2.0, 8.0]) + torch.tensor([10.0, -4.0])
    assert torch.equal(scaled(x).N, plain(z).N)
    assert {"x_mean", "x_std"} <= set(dict(scaled.named_buffers()))


def test_no_hidden_layer_is_a_head_on_the_inputs():
    model = ProjectiveMLP(2, 1, hidden=())
    x = torch.randn(3, 2)
    assert torch.equal(model(x).N, model.head(x).N)


def test_a_policy_registered_on_the_model_reaches_its_head():
    model = ProjectiveMLP(2, 1)
    with register_policy(model, GradientPolicy.REJECT):
        model(torch.ones(1, 2)).N.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


BAD = [
    ({"in_features": 0}, RangeError, "in_features must be a whole number of at least 1, got 0"),
    ({"out_features": -1}, RangeError, "out_features must be a whole number"),
    ({"hidden": (8, 0)}, RangeError, "hidden must be a whole number of at least 1, got 0"),
    ({"activation": "relu"}, RangeError, "activation must be one of 'tanh', 'silu', got 'relu'"),
    ({"x_mean": [0.0]}, ShapeError, r"x_mean must hold one number for each of 2 columns.*\(1,\)"),
    ({"x_std": torch.ones(2, 1)}, ShapeError, "x_std must hold one number for each of 2 columns"),
    ({"x_mean": [0.0, float("nan")]}, RangeError, "x_mean must hold finite numbers"),
    ({"x_std": [1.0, 0.0]}, RangeError, "x_std must be above 0"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_arguments_are_checked(change, error, message):
    arguments = {"in_features": 2, "out_features": 1} | change
    with pytest.raises(error, match=message):
        ProjectiveMLP(**arguments)


@pytest.mark.parametrize("spec", [{"in_features": 2}, {"width": 3}], ids=["missing", "unknown"])
def test_a_spec_with_other_entries_is_refused(spec):
    with pytest.raises(RangeError, match="spec must hold the arguments of ProjectiveMLP, got"):
        ProjectiveMLP.from_spec(spec)


@pytest.mark.parametrize("shape", [(), (3,), (5, 1)], ids=str)
def test_the_number_of_columns_is_checked(shape):
    with pytest.raises(ShapeError, match=r"inputs must have the shape \(\*batch, 2\), got"):
        ProjectiveMLP(2, 1)(torch.zeros(shape))


@pytest.mark.parametrize("context", [lambda: torch.device("meta"), FakeTensorMode])
def test_models_and_losses_run_where_tensors_have_no_values(context):
    loss_fns = [SCMTrainingLoss(), SCMTrainingLoss(normalizer="chordal", score="angle")]
    with context():
        model = ProjectiveMLP(2, 1, x_mean=[0.0, 1.0], x_std=torch.ones(2))
        outputs = model(torch.ones(5, 2))
        assert outputs.N.shape == outputs.D.shape == (5, 1)
        targets = lift_targets(torch.ones(5, 1))
        sum(loss_fn(outputs=outputs, targets=targets) for loss_fn in loss_fns).backward()
        assert all(p.grad.shape == p.shape for p in model.parameters())
        layer = Rational((3, 2))
        layer(torch.ones(5, 2)).payload.sum().backward()
        assert all(p.grad.shape == p.shape for p in layer.parameters())


def test_a_model_without_weights_yet_is_built_and_filled():
    accelerate = pytest.importorskip("accelerate")
    with accelerate.init_empty_weights(include_buffers=True):
        empty = ProjectiveMLP(1, 1, x_std=[2.0])
    assert {x.device.type for x in empty.state_dict().values()} == {"meta"}
    whole, x = ProjectiveMLP(1, 1, x_std=[2.0]), torch.ones(3, 1)
    empty.load_state_dict(whole.state_dict(), assign=True)
    assert torch.equal(empty(x).N, whole(x).N)
    assert ProjectiveMLP(1, 1).to("meta")(x.to("meta")).D.is_meta
