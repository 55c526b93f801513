"""Every operation under torch's transformations: one graph, the same answer, finite gradients."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.scm import SCM, cos, exp, log, sin, sqrt, tan, weak_sign
from zeroproof.testing import assert_close_scm

NAN = float("nan")
Function = Callable[[Tensor, Tensor], SCM]

FUNCTIONS: dict[str, Function] = {
    "field": lambda a, b: (1 - SCM(a) * 2) / SCM(b) + a / SCM(b) - b + -SCM(a),
    "same operand": lambda a, b: SCM(a) / SCM(a) + (x := SCM(b)) * x,
    "powers": lambda a, b: SCM(a) ** 3 + SCM(b) ** -2 + SCM(a) ** 0.5 + 2 ** SCM(b) + a ** SCM(b),
    "functions": lambda a, b: exp(a) + log(a) + sqrt(b) + sin(a) + cos(b) + tan(a),
    "sign": lambda a, b: weak_sign(a) * SCM(b).inv(),
}
A = torch.tensor([0.5, 2.0, -1.0, 0.0, NAN])
B = torch.tensor([1.0, 0.0, 2.0, 3.0, 1.0])


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def loss(x: SCM) -> Tensor:
    return torch.where(x.bottom, 0, x.payload).sum()


def gradients(function: Function, policy: GradientPolicy) -> tuple[Tensor, Tensor]:
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    value = loss(function(a, b))
    with gradient_policy(policy):
        g_a, g_b = torch.autograd.grad(value, (a, b))
    return g_a, g_b


class Counter:
    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


def everything(a: Tensor, b: Tensor) -> list[SCM]:
    return [function(a, b) for function in FUNCTIONS.values()]


def test_compiled_in_one_graph_for_all_policies() -> None:
    counter = Counter()
    compiled = torch.compile(everything, fullgraph=True, backend=counter)
    for policy in GradientPolicy:
        for got, wanted in zip(compiled(A, B), everything(A, B), strict=True):
            assert_close_scm(got, wanted)
        found = []
        for call in (compiled, everything):
            a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
            total = torch.stack([loss(x) for x in call(a, b)]).sum()
            with gradient_policy(policy):
                found.append(torch.autograd.grad(total, (a, b)))
        torch.testing.assert_close(*found, equal_nan=True)
    assert counter.graphs == 2  # one without gradients, one with


class _Model(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.function(a * self.scale, b)


def test_exported_saved_and_loaded(tmp_path: Any) -> None:
    program = torch.export.export(_Model(everything), (A, B))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert all(target.startswith("aten.") for target in targets)
    torch.export.save(program, tmp_path / "program.pt2")
    module = torch.export.load(tmp_path / "program.pt2").module()
    for result, wanted in zip(module(A, B), everything(A, B), strict=True):
        assert isinstance(result, SCM)
        assert_close_scm(result, wanted)
    scale = dict(module.named_parameters())["scale"]
    for k in range(len(FUNCTIONS)):
        value = loss(module(A.nan_to_num(), B)[k])
        (gradient,) = torch.autograd.grad(value, scale, allow_unused=True)
        assert gradient is not None
        assert torch.isfinite(gradient)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: SCM(a) / SCM(b),
        lambda a, b: SCM(a) * SCM(b) / 1,
        lambda a, b: (SCM(a) ** 0.5) * sqrt(b),
    ],
    ids=["overflow of a quotient", "overflow of a product", "infinite slope"],
)
def test_exported_gradients_are_finite_at_overflow_and_infinite_slopes(function: Function) -> None:
    a, b = torch.tensor([1e30, 0.0, 4.0]), torch.tensor([1e-30, 1e30, 0.0])
    program = torch.export.export(_Model(function), (a, b))
    module = program.module()
    a.requires_grad_()
    b.requires_grad_()
    for gradient in torch.autograd.grad(loss(module(a, b)), (a, b)):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_and_functional_gradients(name: str) -> None:
    function = FUNCTIONS[name]
    mapped = torch.func.vmap(function)(A, B)
    assert_close_scm(mapped, function(A, B))
    each = torch.func.vmap(torch.func.grad(lambda a, b: loss(function(a, b)), argnums=(0, 1)))
    torch.testing.assert_close(each(A, B), gradients(function, GradientPolicy.CLAMP))
    jacobian = torch.func.jacrev(lambda a: function(a, B).payload)(A)
    expected = torch.diag(gradients(function, GradientPolicy.CLAMP)[0])
    torch.testing.assert_close(jacobian, expected)


def test_vmap_takes_scm_values() -> None:
    x = SCM(A.reshape(5, 1))
    result = torch.func.vmap(lambda row: row / row + 1)(x)
    assert_close_scm(result, x / x + 1)


def test_compiled_function_takes_and_returns_scm_values() -> None:
    compiled = torch.compile(lambda x: (x / x)[1:], fullgraph=True, backend="aot_eager")
    assert_close_scm(compiled(SCM(A)), (SCM(A) / SCM(A))[1:])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_meta_tensors_need_no_values(name: str) -> None:
    a, b = (t.to("meta").requires_grad_() for t in (A, B))
    x = FUNCTIONS[name](a, b)
    assert x.payload.device.type == x.bottom.device.type == "meta"
    loss(x).backward()
    assert a.grad is not None
    assert a.grad.shape == a.shape


def test_activation_checkpointing() -> None:
    function = FUNCTIONS["field"]
    a = A.clone().requires_grad_()
    x = torch.utils.checkpoint.checkpoint(function, a, B, use_reentrant=False)
    with gradient_policy(GradientPolicy.PROJECT):
        loss(x).backward()
    torch.testing.assert_close(a.grad, gradients(function, GradientPolicy.PROJECT)[0])


def test_autocast() -> None:
    weight = torch.ones(5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = 1 / SCM(weight @ A.nan_to_num() - 1.5) + log(weight.sum() - 24)
        assert x.payload.dtype == torch.float32
    assert x.bottom.all()
    loss(x).backward()
    assert weight.grad is not None
    assert not weight.grad.any()


# shapes are checked on the host, which a trace remarks on
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace() -> None:
    def decoded(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        payload, bottom = SCM(a) / SCM(b)
        return payload, bottom

    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.trace"):  # as long as torch ships it
        traced = torch.jit.trace(decoded, (A, B))  # pyright: ignore[reportPrivateImportUsage]
    for actual, expected in zip(traced(B, A), decoded(B, A), strict=True):
        torch.testing.assert_close(actual, expected, equal_nan=True)


def test_no_gate_without_gradients() -> None:
    with torch.no_grad():
        x = SCM(A.clone().requires_grad_()).inv()
    assert x.payload.grad_fn is None
