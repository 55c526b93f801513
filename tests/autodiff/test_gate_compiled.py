"""Compiled graphs follow the policy that is in force while their backward runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zeroproof.autodiff import GradientPolicy, gradient_policy, register_policy
from zeroproof.autodiff.policies import PolicyModule, gate
from zeroproof.losses import implicit_loss, margin_loss
from zeroproof.projective import decode
from zeroproof.scm.division import divide
from zeroproof.training import SCMTrainingLoss

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy
Divide = Callable[[Tensor, Tensor], Tensor]
Leaves = Callable[..., tuple[Tensor, Tensor]]
Check = Callable[[Tensor, Tensor, GradientPolicy], None]
every = pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda p: p.name)

TAKING: dict[str, Callable[..., Tensor]] = {
    "decode": lambda N, D, tau: decode(N, D, tau)[0].nan_to_num().sum(),
    "margin": lambda N, D, tau: margin_loss(D, tau_train=tau),
    "implicit": lambda N, D, tau: implicit_loss(N, D, torch.ones_like(N), D.detach(), gamma=tau),
    "training": lambda N, D, tau: SCMTrainingLoss()(
        outputs=(N, D), targets=(N.detach(), D.detach()), tau_train=tau
    ),
}
N0, D0 = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.0, -2.0])


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(
    ("name", "dynamic"),
    [
        ("decode", None),
        ("margin", True),
        ("training", None),
        pytest.param("implicit", True, marks=pytest.mark.slow),
        pytest.param("training", True, marks=pytest.mark.slow),
    ],
)
def test_compiled_graphs_take_thresholds_that_vary(name: str, dynamic: bool | None) -> None:
    act = TAKING[name]
    run = torch.compile(act, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for tau in (1e-4, 2e-4, 3e-4):
        D = torch.tensor([1e-5, 1.5e-4, 0.5, 0.0], requires_grad=True)
        N = torch.ones(4, requires_grad=True)
        gradients = []
        for each in (act, run):
            loss = each(N, D, tau)
            gradients.append((loss, *torch.autograd.grad(loss, (N, D), allow_unused=True)))
        torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_in_one_graph_without_recompiles(
    leaves: Leaves, assert_gradients: Check, act: Divide
) -> None:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(act, fullgraph=True, backend=backend)
    for policy in (*GradientPolicy, CLAMP):
        N, D = leaves()
        value = compiled(N, D)
        torch.testing.assert_close(value, act(N0, D0), equal_nan=True)
        with gradient_policy(policy):
            value.backward(torch.ones(3))
        assert_gradients(N, D, policy)
    N, D = leaves()
    with gradient_policy(CLAMP, loss_scale=20.0):
        compiled(N, D).backward(torch.ones(3))
    assert N.grad is not None
    assert N.grad.tolist() == [10.0, 0.0, -0.5]
    assert len(graphs) == 1


class Ratio(PolicyModule):
    def forward(self, N: Tensor, D: Tensor) -> Tensor:
        return divide(N, D, D == 0, self.policy_code)[0]


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_layer_follows_its_registration(leaves: Leaves, assert_gradients: Check) -> None:
    layer = Ratio()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for policy in (PROJECT, REJECT, PASSTHROUGH):
        register_policy(layer, policy)
        N, D = leaves()
        with gradient_policy(CLAMP):
            compiled(N, D).backward(torch.ones(3))
        assert_gradients(N, D, policy)


@every
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own
def test_compiled_autograd(
    leaves: Leaves, assert_gradients: Check, act: Divide, policy: GradientPolicy
) -> None:
    def compiler(graph: Any) -> Any:
        return torch.compile(graph, backend="aot_eager", fullgraph=True)

    N, D = leaves()
    value = act(N, D)
    with torch._dynamo.compiled_autograd._enable(compiler), gradient_policy(policy):
        value.backward(torch.ones(3))
    assert_gradients(N, D, policy)


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
def test_compiled_gate_follows_the_policy(shared: bool) -> None:
    def double(N: Tensor, D: Tensor) -> Tensor:
        n, d = gate(N, D, N.isnan())
        return 2 * (n * d).nansum()

    compiled = torch.compile(double, fullgraph=True, backend="aot_eager")
    for policy in GradientPolicy:
        grads = []
        for run in (double, compiled):
            N = torch.tensor([[1.0, 2.0]], requires_grad=True)
            D = torch.tensor([[3.0]] if shared else [[3.0, 0.2]], requires_grad=True)
            with gradient_policy(policy):
                grads.append(torch.autograd.grad(run(N, D), (N, D)))
        torch.testing.assert_close(grads[0], grads[1])
