"""StrictModule through `torch.jit.script`: the same answers, in eval mode, from one input."""

import io
import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.errors import RangeError
from zeroproof.inference import InferenceConfig, StrictModule
from zeroproof.layers import ProjectiveHead, ProjectiveMLP
from zeroproof.projective import Pair

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of TorchScript
INF, NAN = math.inf, math.nan
CONFIGS = {
    "denominator": InferenceConfig(tau_infer=0.4, tau_train=0.9),
    "angle": InferenceConfig(score="angle", scale=0.5, tau_infer=0.4, tau_train=0.9),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


class Split(nn.Module):
    """Reads the tuples off its input: half of the columns are N, the others D."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        N, D = torch.chunk(x, 2, -1)
        return N, D


class Shared(nn.Module):
    def forward(self, x: Tensor) -> Pair:
        return Pair(x[..., 1:], x[..., :1])


class Widened(nn.Module):
    """Answers far larger and smaller than its input, beyond the range of float32."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x * 1e38, (x - 1) * 1e-38]


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 3)
        self.head = ProjectiveHead(3, 2)

    def forward(self, x: Tensor) -> Pair:
        return self.head(torch.tanh(self.hidden(x)))


class Counting(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x > 0).to(torch.int64), torch.ones_like(x, dtype=torch.int64)


MODELS = {
    "tuple": Split,
    "pair": Shared,
    "list": Widened,
    "integers": Counting,
    "head": lambda: ProjectiveHead(4, 2, shared_denominator=False),
    "trunk": Trunk,
    "mlp": lambda: ProjectiveMLP(4, 2, hidden=(3,), activation="silu"),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


def rows(dtype: torch.dtype = torch.float32) -> Tensor:
    numbers = [0.0, 1.0, -0.3, 2.5, NAN, INF, -INF]
    return torch.tensor([x for x in product(numbers, repeat=4) if len(set(x)) > 1], dtype=dtype)


def assert_same(got, expected):
    assert got._fields == expected._fields
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


@every_config
@every_model
def test_the_scripted_module_answers_as_the_eager_one(make, config):
    torch.manual_seed(0)
    module = StrictModule(make(), config).eval()
    scripted, form = torch.jit.script(module), module.__prepare_scriptable__()
    for x in (rows(), rows()[:1], rows()[:0], rows()[:2392].reshape(-1, 2, 4)):
        assert_same(scripted(x), module(x))
        assert_same(form(x), module(x))  # what is compiled is a module of its own


@every_config
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_it_answers_so_in_every_precision(config, dtype):
    module = StrictModule(Split(), config).eval()
    for form in (torch.jit.script(module), module.__prepare_scriptable__()):
        assert_same(form(rows(dtype)), module(rows(dtype)))


@pytest.mark.parametrize("x", [torch.tensor(NAN), torch.tensor(2.0), torch.tensor([0.0, INF, 3])])
def test_inputs_without_columns(x):
    module = StrictModule(Widened()).eval()
    for form in (torch.jit.script(module), module.__prepare_scriptable__()):
        assert_same(form(x), module(x))


def test_it_survives_a_file_and_freezing():
    module = StrictModule(Trunk()).eval()
    scripted = torch.jit.script(module)
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    assert_same(torch.jit.load(file)(rows()), module(rows()))
    assert_same(torch.jit.freeze(scripted)(rows()), module(rows()))


def test_gradients_are_the_plain_ones_and_finite_beside_bottom():
    module = StrictModule(Trunk(), CONFIGS["denominator"]).eval()
    scripted, gradients = torch.jit.script(module), []
    for each in (module, scripted):
        with gradient_policy(GradientPolicy.PROJECT):
            loss = each(rows()).decoded.nan_to_num().sum()
            gradients.append(torch.autograd.grad(loss, list(module.parameters())))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.filterwarnings("ignore:.*left out of training")
def test_scripting_leaves_the_module_as_it_was():
    module = StrictModule(Trunk()).eval()
    head = module.model.head
    torch.jit.script(module)
    assert module.model.head is head
    assert isinstance(module.train()(rows()), Pair)


def test_a_module_that_trains_is_not_scripted():
    with pytest.raises(RangeError, match="must be in eval mode to be scripted; call eval"):
        torch.jit.script(StrictModule(Split()))


def test_a_scripted_module_refuses_training_mode():
    module = StrictModule(Split()).eval()
    for form in (torch.jit.script(module), module.__prepare_scriptable__()):
        with pytest.raises((torch.jit.Error, RuntimeError), match="only answers in eval mode"):
            form.train()(rows())


class Two(nn.Module):
    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        return x, other


def test_a_model_of_several_inputs_is_sent_elsewhere():
    with pytest.raises(RangeError, match=r"needs a model with one input.*Two\(x, other\)"):
        torch.jit.script(StrictModule(Two()).eval())


class Summed(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:2], x[:2]


class Crooked(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x[:, :3]


class Uneven(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x[:1, :1]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Summed(), "keep the rows of the inputs"),
        (Crooked(), "must have equal shapes"),
        (Uneven(), "must have equal shapes"),
    ],
)
def test_shapes_are_checked_in_scripts_too(model, message):
    module = StrictModule(model).eval()
    for form in (torch.jit.script(module), module.__prepare_scriptable__()):
        with pytest.raises((torch.jit.Error, ValueError), match=message):
            form(rows())
