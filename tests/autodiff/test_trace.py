import contextlib
import math
import re
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import optimizer as hooks
from torch.overrides import TorchFunctionMode

from zeroproof import SCM, GradientPolicy, gradient_policy
from zeroproof.autodiff import trace_bottom
from zeroproof.errors import RangeError
from zeroproof.inference import StrictModule
from zeroproof.layers import ProjectiveMLP, Rational
from zeroproof.training import SCMTrainer, SCMTrainingLoss, TrainingConfig

NAN = math.nan
LINES = Path(__file__).read_text(encoding="utf-8").splitlines()


class Net(nn.Module):
    """x -> what `act` makes of one linear output of x; row 2 has x = 0 and no bias."""

    def __init__(self, act):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 1, bias=False))
        nn.init.ones_(self.body[0].weight)
        self.act = act

    def forward(self, x):
        return self.act(self.body(x))


X = torch.tensor([[1.0], [2.0], [0.0], [3.0]])
# what the model does -> (direction, what, operation, rows) of the findings
CASES = {
    "a logarithm behind where": (
        lambda z: torch.where(z > 0, z.log(), 0),
        [("forward", "inf", "log", (2,)), ("backward", "nan", "log", (2,))],
    ),
    "0 / 0": (
        lambda z: (z / z).nan_to_num(),
        [("forward", "nan", "div", (2,)), ("backward", "nan", "div", (2,))],
    ),
    "an overflow": (
        lambda z: (z * 40).exp().square().clamp(max=5.0),
        [("forward", "inf", "exp", (3,)), ("forward", "inf", "square", (1,))],
    ),
    "a slope at 0": (lambda z: z.sqrt(), [("backward", "inf", "sqrt", (2,))]),
    "inside of a function": (
        lambda z: nn.functional.normalize(z, dim=1, eps=0.0).nan_to_num(),
        [("forward", "nan", "normalize", (2,)), ("backward", "nan", "normalize", (2,))],
    ),
    "⊥ of an SCM value": (
        lambda z: (1 / SCM(z)).payload.nan_to_num(),
        [("forward", "⊥", "SCM.__rtruediv__", (2,))],
    ),
    "⊥ by a kernel": (
        lambda z: (SCM(z + 1) / SCM(z)).payload.nan_to_num(),
        [("forward", "⊥", "SCM.__truediv__", (2,))],
    ),
    "a mask of attention": (
        lambda z: torch.softmax(z.T.masked_fill(z.T == 0, -math.inf), 1).T,
        [],
    ),
    "nothing": (lambda z: z.tanh(), []),
}


@pytest.mark.parametrize("case", CASES)
def test_the_place_is_named(case):
    act, expected = CASES[case]
    net = Net(act)
    with trace_bottom(net) as trace:
        net(torch.ones(4, 1))  # nothing yet
        net(X).sum().backward()
    found = [(x.direction, x.what, x.operation, x.rows) for x in trace.findings]
    assert found[: len(expected)] == expected
    assert bool(found) == bool(expected)
    for finding in trace.findings:
        assert (finding.step, finding.module, finding.size) == (2, "Net", 4)
        spread = finding.operation == "square" and finding.direction == "forward"
        assert finding.before == ((3,) if spread else ())
        assert finding.file == __file__
        assert "lambda z:" in LINES[finding.line - 1]
    assert trace.steps == 2


def test_a_bad_row_is_not_blamed_on_an_operation():
    net = Net(torch.tanh)
    x = torch.tensor([[1.0], [NAN], [2.0]])
    with trace_bottom(net) as trace:
        net(x).nan_to_num().sum().backward()
    line = next(n for n, text in enumerate(LINES, 1) if "net(x).nan_to_num()" in text)
    first, second = str(trace).splitlines()[:2]
    assert first == (
        f"step 1, forward: the input of Net (test_trace.py:{line}) was nan already in row 1 of 3"
    )
    line = next(n for n, text in enumerate(LINES, 1) if "self.act(self.body(x))" in text)
    assert second == (  # 0 times the nan of that row
        f"step 1, backward: `tanh` in Net (test_trace.py:{line}) made the gradient nan in row 1 of "
        "3; the gradient that it got was finite"
    )


def test_what_turns_bad_in_a_second_row_is_named_though_another_was_bad():
    net = Net(lambda z: z.log())
    with trace_bottom(net) as trace:
        net(torch.tensor([[NAN], [0.0], [1.0]]))
    second = trace.findings[1]
    assert (second.operation, second.rows, second.before) == ("log", (1,), (0,))


def test_weights_that_are_not_finite_are_named():
    net = Net(torch.tanh)
    with torch.no_grad():
        net.body[0].weight.fill_(NAN)
    with trace_bottom(net) as trace:
        net(X)
    first = trace.findings[0]
    assert (first.operation, first.module, first.before) == (
        "linear",
        "body.0",
        ("body.0.weight",),
    )
    assert "its operands were not finite already: body.0.weight" in str(first)


def test_layers_and_the_loss_are_watched_too():
    net = nn.Sequential(nn.Linear(1, 1), Rational((1, 1), init=([1, 0], [0, 1]), returns="tensor"))
    with torch.no_grad():
        net[0].weight.zero_(), net[0].bias.zero_()
    with trace_bottom(net) as trace:
        y = net(X).nan_to_num()
        (y.mean() / 0).backward()
    layer, loss = trace.findings[:2]
    assert (layer.what, layer.operation, layer.module, layer.rows) == (
        "⊥",
        "Rational",
        "1",
        (0, 1, 2, 3),
    )
    assert (loss.operation, loss.module, loss.rows) == ("div", "", ())
    assert "in no module (test_trace.py:" in str(loss)


def test_strict_answers_and_a_raw_policy():
    module = StrictModule(ProjectiveMLP(1, 1)).eval()
    with trace_bottom(module) as trace:
        module(torch.tensor([[NAN], [1.0]]))
    assert [(x.operation, x.what, x.rows) for x in trace.findings] == [
        ("input", "nan", (0,)),
        ("StrictModule", "⊥", (0,)),
    ]
    x = X.clone().requires_grad_()
    with trace_bottom(module) as trace, gradient_policy(GradientPolicy.PASSTHROUGH):
        (1 / SCM(x)).payload.nan_to_num().sum().backward()
    assert [(x.direction, x.operation) for x in trace.findings][1:] == [
        ("backward", "SCM.__rtruediv__")
    ]


def test_a_whole_run_with_a_trainer():
    x = torch.linspace(-1, 1, 32)[:, None]
    model = ProjectiveMLP(1, 1)
    data = torch.utils.data.TensorDataset(x, 1 / (x - 0.3))
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    adam = torch.optim.Adam(model.parameters())
    with trace_bottom(model) as trace:
        SCMTrainer(
            model, adam, SCMTrainingLoss(), loader, config=TrainingConfig(max_epochs=2)
        ).fit()
    assert trace.steps >= 8
    assert trace.findings == [], str(trace)


class Counting(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("closure", [False, True])
def test_steps_of_an_optimizer_are_left_alone_and_modes_keep_their_order(closure):
    net, seen = Net(torch.tanh), []

    class Optimizer(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(len(torch.overrides._get_current_function_mode_stack()))
            return super().step(closure)

    optimizer = Optimizer(net.parameters(), lr=0.1)

    def loss():
        optimizer.zero_grad()
        loss = net(X).sum()
        loss.backward()
        return loss

    with Counting(), trace_bottom(net) as trace:
        for _ in range(2):
            with torch.device("cpu"):
                loss() if not closure else None
                optimizer.step(*[loss] * closure)
                assert (
                    torch.overrides._get_current_function_mode_stack()[-1].__class__.__name__
                    == "DeviceContext"
                )
    assert trace.steps == 2
    assert seen == [2, 2]  # those of the user
    assert torch.overrides._get_current_function_mode_stack() == []


def test_nothing_is_left_behind_after_an_error_either():
    net = Net(lambda z: z.log())
    before = (dict(hooks._global_optimizer_pre_hooks), len(net._forward_pre_hooks))
    with contextlib.suppress(KeyError), trace_bottom(net) as trace:
        held = net(X).sum()
        raise KeyError
    assert (dict(hooks._global_optimizer_pre_hooks), len(net._forward_pre_hooks)) == before
    assert torch.overrides._get_current_function_mode_stack() == []
    found = len(trace.findings)
    held.backward()  # a graph made in the block
    net(X)
    assert (len(trace.findings), trace.steps) == (found, 1)


def test_a_compiled_model_is_looked_into():
    net = Net(lambda z: z.log())
    compiled = torch.compile(net, backend="eager")
    compiled(X)
    with trace_bottom(net) as trace:
        compiled(X)
    assert trace.findings[0].operation == "log"
    assert trace.findings[0].rows == (2,)


def test_tensors_without_values_are_passed_over():
    net = Net(lambda z: z.log()).to("meta")
    with trace_bottom(net) as trace:
        net(X.to("meta"))
        torch.func.vmap(torch.log)(X)
        torch.func.grad(lambda z: z.log().sum())(X)
    assert str(trace) == "every value and gradient of 1 steps was finite"


def test_findings_end_at_sixteen():
    net = Net(torch.tanh)
    with trace_bottom(net) as trace:
        for act in ["log", "log2", "log10", "reciprocal", "rsqrt", "digamma", "lgamma"] * 3:
            for k in range(3):
                eval(compile("\n" * k + f"torch.{act}(X)", "made.py", "eval"))
    assert len(trace.findings) == 16


def test_a_graph_is_let_go():
    kept = []
    net = Net(lambda z: kept.append(weakref.ref(z)) or z.exp())
    with trace_bottom(net):
        loss = net(X).sum()
        loss.backward()
        del loss
        assert kept[0]() is None


def test_no_model_is_refused():
    with (
        pytest.raises(RangeError, match=r"model must be a torch\.nn\.Module, got function"),
        trace_bottom(lambda x: x),  # pyright: ignore[reportArgumentType]
    ):
        pass


PAGE = Path(__file__).parents[2] / "docs" / "which-operation.md"
BLOCKS = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)


def test_the_page_shows_what_is_printed(capsys):
    text, namespace, shown = PAGE.read_text(encoding="utf-8"), {"__name__": "page"}, 0
    for block in BLOCKS.finditer(text):
        kind, source = block.groups()
        if kind == "python":
            blank = "\n" * text[: block.start(2)].count("\n")
            exec(compile(blank + source, str(PAGE), "exec"), namespace)
        else:
            assert capsys.readouterr().out == source
            shown += 1
    assert shown == 4
