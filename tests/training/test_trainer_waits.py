"""What a step costs beside the model: no waiting for the device, few operations, no memory."""

import copy
import gc
import types
from collections import Counter

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.training import (
    Callback,
    SCMTrainer,
    SCMTrainingLoss,
    TrainingConfig,
    lift_targets,
    report,
    step,
)

# bad batches are made on purpose here
pytestmark = pytest.mark.filterwarnings("ignore:.*left out of training")
X = torch.linspace(-1, 1, 24)[:, None]
Y = 1 / (X - 0.3)
BAD = (torch.full_like(X, torch.nan), Y)
FUSED = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-4, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9, fused=True),
}
OPTIONS = ({}, {"max_grad_norm": 0.05}, {"grad_accumulation_steps": 2})
# what a tensor's values decide: the sizes of an answer, or something on the host
READING = {
    "aten._local_scalar_dense",
    "aten.equal",
    "aten.is_nonzero",
    "aten.masked_select",
    "aten.nonzero",
    "aten.unique_dim",
    "aten._unique2",
}
STEPS_ALONE = {"target_scale": 1.0, "readout": None, "calibrate": False}
COPYING = {"tolist", "numpy", "cpu", "__array__", "__repr__", "__format__"}


class Operations(TorchDispatchMode):
    """Counts the operations that reach torch's kernels."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen[str(function.overloadpacket)] += 1
        if function is torch.ops.aten.index.Tensor:  # by a mask, whose trues are counted first
            self.seen["aten.nonzero"] += any(
                i is not None and i.dtype == torch.bool for i in args[1]
            )
        return function(*args, **(kwargs or {}))

    @property
    def all(self):
        return sum(n for name, n in self.seen.items() if name.startswith("aten."))

    @property
    def reads(self):
        return sum(self.seen[name] for name in READING)


class Copies(TorchFunctionMode):
    """Counts the copies to the host that are no operation of a CPU's tensors."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen += getattr(function, "__name__", "") in COPYING
        return function(*args, **(kwargs or {}))


@pytest.fixture(name="accelerator")
def behave_as_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(step, "reads_are_free", lambda device: False)


@pytest.fixture(name="build")
def build_trainer(seeded, squared):
    def build(data, *, optimizer="Adam", callbacks=(), trunk=(), **options):
        model = seeded(trunk=copy.deepcopy(list(trunk)))
        config = TrainingConfig(
            **{
                "max_epochs": 1,
                "progress": False,
                "coverage_threshold": 0,
                **STEPS_ALONE,
                **options,
            }
        )
        optimizer = FUSED[optimizer](model.parameters())
        return SCMTrainer(model, optimizer, squared, data, config=config, callbacks=callbacks)

    return build


def reads(trainer):
    with Copies() as copies, Operations() as operations:
        trainer.fit()
    return copies.seen + operations.reads


# --- waiting


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize(
    ("optimizer", "options"), list(zip(FUSED, (*OPTIONS, {}), strict=True)), ids=str
)
def test_reads_happen_at_log_lines_and_ends_of_epochs_alone(build, optimizer, options):
    def count(steps, log_every):
        data = [(X, Y)] * steps * options.get("grad_accumulation_steps", 1)
        return reads(build(data, optimizer=optimizer, log_every=log_every, **options))

    assert count(40, 10) == count(80, 20)
    assert count(40, 10) > count(40, 20) > count(40, 40) > 0


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("data", [[(X, Y)], [(X, Y), BAD]], ids=["finite", "skipped"])
def test_a_skipped_step_is_not_read_either(build, data):
    alike = reads(build([(X, Y)] * 40, log_every=10))
    assert reads(build(data * (40 // len(data)), log_every=10)) == alike


def test_where_reads_are_free_every_step_is_read(build):
    # the counter counts: the other tests of this file can fail
    counts = [reads(build([(X, Y)] * steps, log_every=steps)) for steps in (40, 80)]
    assert counts[1] - counts[0] >= 40


@pytest.mark.usefixtures("accelerator")
def test_an_optimizer_that_cannot_be_told_is_asked_in_every_step(seeded, squared):
    def count(steps):
        model = seeded()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        config = TrainingConfig(max_epochs=1, progress=False, log_every=steps, **STEPS_ALONE)
        return reads(SCMTrainer(model, optimizer, squared, [(X, Y)] * steps, config=config))

    assert count(80) - count(40) == 2 * 40  # are inputs finite, is the step


class Told(torch.optim.Optimizer):
    """Gradient descent on any device, told by a tensor whether to stand still."""

    _step_supports_amp_scaling = True

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                change = torch.where(self.found_inf > 0, 0, parameter.grad)
                parameter.sub_(change, alpha=group["lr"])


class Uploads(TorchDispatchMode):
    """Counts the copies of the host's numbers to the meta device that a host waits for."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            goes = torch.device(kwargs.get("device") or "cpu").type == "meta"
            self.seen += goes and not kwargs.get("non_blocking", False)
        return function(*args, **kwargs)


class Steps(Callback):
    """Counts the steps made, and the uploads that came with them."""

    def __init__(self, uploads):
        self.uploads, self.made, self.waited = uploads, 0, 0

    def on_epoch_begin(self, trainer):
        self.uploads.seen = 0

    def on_batch_end(self, trainer):
        self.made, self.waited = trainer.step, self.uploads.seen


@pytest.mark.parametrize(
    "options", [*OPTIONS, {"ema_decay": 0.9}, {"tau_train_max": 1e-3}], ids=str
)
def test_a_device_is_neither_read_nor_sent_numbers_before_the_end_of_the_epoch(seeded, options):
    # tensors of the meta device have no values, so reading one is an error
    model = seeded(trunk=[nn.BatchNorm1d(8)]).to("meta")
    steps = Steps(uploads := Uploads())
    options = {"device": "meta", "log_every": 100, **STEPS_ALONE, **options}
    config = TrainingConfig(max_epochs=1, progress=False, **options)
    data = [(X, Y)] * 20 * options.get("grad_accumulation_steps", 1)
    trainer = SCMTrainer(
        model, Told(model.parameters()), SCMTrainingLoss(), data, config=config, callbacks=[steps]
    )
    with uploads, pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        trainer.fit()
    assert (steps.made, steps.waited) == (20, 0)


# --- a step that is not finite, told to the optimizer by a tensor


def outcome(trainer):
    trainer.fit()
    row = {k: v for k, v in trainer.history[0].items() if not k.startswith("time_")}
    return row, trainer.model.state_dict(), trainer.optimizer.state_dict()["state"]


def same_bits(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            same_bits(value, other[name])
        else:
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
@pytest.mark.parametrize("optimizer", FUSED)
def test_a_step_the_optimizer_is_told_to_skip_leaves_nothing_behind(build, optimizer, options):
    good, other = (X, Y), (X / 2, Y)
    kind = {"optimizer": optimizer, "trunk": [nn.BatchNorm1d(8)], **options}
    row, *states = outcome(build([BAD, good, BAD, other, BAD], **kind))
    assert row["skipped_steps"] == 3
    _, *expected = outcome(build([good, other], **kind))
    for state, without in zip(states, expected, strict=True):
        same_bits(state, without)


@pytest.mark.parametrize("options", [*OPTIONS, {"ema_decay": 0.9}], ids=str)
@pytest.mark.parametrize("optimizer", FUSED)
def test_the_run_is_that_of_a_device_that_may_be_read(build, monkeypatch, optimizer, options):
    # of a window with a bad batch the rest is kept where it is seen, and skipped where it is not
    bad = [] if "grad_accumulation_steps" in options else [BAD]
    data = [(X, Y), (X / 2, Y), *bad, (X, Y), (X, Y), (X, Y)]
    runs = []
    for free in (True, False):
        monkeypatch.setattr(step, "reads_are_free", lambda device, free=free: free)
        trunk = [nn.BatchNorm1d(8)]
        runs.append(outcome(build(data, optimizer=optimizer, trunk=trunk, **options)))
    (row, *states), (other_row, *other_states) = runs
    assert row["skipped_steps"] == len(bad)
    assert ("grad_norm" in row) == ("max_grad_norm" in options)
    assert other_row == pytest.approx(row, rel=1e-6)
    for state, other in zip(states, other_states, strict=True):
        same_bits(state, other)


# --- operations


def bare_loop(model, optimizer, loss_fn, steps):
    for _ in range(steps):
        loss = loss_fn(outputs=model(X), targets=lift_targets(Y))
        optimizer.zero_grad(set_to_none=True)
        with gradient_policy(GradientPolicy.PROJECT):
            loss.backward()
        optimizer.step()


@pytest.mark.parametrize(("options", "most"), [({}, 16), ({"max_grad_norm": 1.0}, 26)], ids=str)
def test_a_step_adds_few_operations_to_those_of_a_bare_loop(build, squared, options, most):
    def ours(steps):
        trainer = build([(X, Y)] * steps, log_every=1000, **options)
        with Operations() as operations:
            trainer.fit()
        return operations.all

    def bare(steps):
        trainer = build([(X, Y)])
        with Operations() as operations:
            bare_loop(trainer.model, trainer.optimizer, squared, steps)
        return operations.all

    added = (ours(40) - ours(20)) - (bare(40) - bare(20))
    assert added / 20 <= most


# --- memory


def tensors_of(*roots):
    """Count the tensors that can be reached from objects, but not by way of code."""
    code = (type, types.ModuleType, types.FunctionType, types.MethodType, types.FrameType)
    seen, waiting, found = set(), list(roots), 0
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, code):
            continue
        seen.add(id(each))
        found += issubclass(type(each), torch.Tensor)
        waiting.extend(gc.get_referents(each))
    return found


class Holdings(Callback):
    """Counts the tensors of a trainer, and the entries of its tally, after some steps."""

    def __init__(self, *steps):
        self.steps, self.seen = steps, []

    def on_batch_end(self, trainer):
        if trainer.step in self.steps:
            tensors = tensors_of(vars(trainer))
            lists = [len(x) for x in vars(trainer._progress.tally).values() if isinstance(x, list)]
            self.seen.append((tensors, lists))


@pytest.mark.parametrize(
    ("free", "options", "epochs"),
    [
        (True, {}, 1),
        (False, {}, 20),
        (True, {"ema_decay": 0.9, "max_grad_norm": 1.0}, 20),
        (False, {"ema_decay": 0.9, "max_grad_norm": 1.0}, 1),
    ],
    ids=str,
)
def test_ten_times_the_steps_hold_no_more(build, monkeypatch, free, options, epochs):
    monkeypatch.setattr(step, "reads_are_free", lambda device: free)
    watch = Holdings(45, 415)  # five steps after a log line, if there is more than one epoch too
    build(
        [(X, Y)] * (500 // epochs),
        max_epochs=epochs,
        log_every=10,
        tau_train_max=1e-3,
        callbacks=[watch],
        **options,
    ).fit()
    assert watch.seen[0] == watch.seen[1]


@pytest.mark.parametrize("free", [True, False], ids=["read", "told"])
def test_a_long_epoch_without_a_log_line_holds_a_limited_number(build, monkeypatch, free):
    monkeypatch.setattr(step, "reads_are_free", lambda device: free)
    monkeypatch.setattr(report, "_READS", 16)
    monkeypatch.setattr(report, "_ENTRIES", 4 * len(X))
    watch = Holdings(37, 37 + 20 * 16)
    build([(X, Y)] * 400, log_every=1000, callbacks=[watch]).fit()
    assert watch.seen[0] == watch.seen[1]
