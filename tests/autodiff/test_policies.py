import asyncio
import contextvars
import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeroproof.autodiff import (
    GradientPolicy,
    active_policy,
    gradient_policy,
    register_policy,
)
from zeroproof.autodiff.policies import PolicyModule, _stash, _stashed, ruling_in_force
from zeroproof.errors import RangeError
from zeroproof.projective import decode
from zeroproof.projective.decoding import decode_scored
from zeroproof.scm import SCM
from zeroproof.scm.division import divide

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy
Act = Callable[[Tensor, Tensor], Tensor]


class Ratio(PolicyModule):
    """The smallest layer that a policy can be registered on."""

    def forward(self, N: Tensor, D: Tensor) -> Tensor:
        return divide(N, D, D == 0, self.policy_code)[0]


class Decoder(PolicyModule):
    """The same, through decoding."""

    def forward(self, N: Tensor, D: Tensor) -> Tensor:
        return decode_scored(N, D, D.detach().abs(), 1e-6, self.policy_code)[0]


def scm_division(N: Tensor, D: Tensor) -> Tensor:
    return (SCM(N) / SCM(D)).payload


def decoding(N: Tensor, D: Tensor) -> Tensor:
    return decode(N, D)[0]


layers = pytest.mark.parametrize("kind", [Ratio, Decoder])
both = pytest.mark.parametrize("act", [scm_division, decoding], ids=lambda act: act.__name__)


def in_force(layer: Callable[[Tensor, Tensor], Tensor]) -> GradientPolicy:
    """Find out from gradients alone which policy acts in a layer."""
    N = torch.tensor([1.0, 1.0], requires_grad=True)
    layer(N, torch.tensor([0.1, 0.0])).backward(torch.ones(2))
    assert N.grad is not None
    finite, at_bottom = N.grad.tolist()
    if at_bottom != 0:
        return PASSTHROUGH
    return {1.0: CLAMP, 10.0: PROJECT, 0.0: REJECT}[finite]


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(1, 1), nn.Sequential(Ratio()))
        self.other = Ratio()

    @property
    def deep(self) -> Ratio:
        inner = self.block[1]
        assert isinstance(inner, nn.Sequential)
        layer = inner[0]
        assert isinstance(layer, Ratio)
        return layer


def test_values_are_settled() -> None:
    assert [policy.name for policy in GradientPolicy] == [
        "CLAMP",
        "PROJECT",
        "REJECT",
        "PASSTHROUGH",
    ]


def test_clamp_is_the_default() -> None:
    assert active_policy() is CLAMP
    assert in_force(Ratio()) is CLAMP


@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda p: p.name)
def test_context_is_in_force_inside_alone(policy: GradientPolicy) -> None:
    with gradient_policy(policy) as entered:
        assert entered is active_policy() is policy
        assert in_force(Ratio()) is policy
    assert active_policy() is CLAMP


def test_contexts_nest() -> None:
    with gradient_policy(PROJECT):
        with gradient_policy(REJECT):
            assert in_force(Ratio()) is REJECT
        assert in_force(Ratio()) is PROJECT
    assert in_force(Ratio()) is CLAMP


@both
def test_context_restores_after_an_exception(act: Act) -> None:
    with gradient_policy(PROJECT):
        with pytest.raises(KeyError), gradient_policy(REJECT):
            raise KeyError
        assert in_force(act) is PROJECT
    assert active_policy() is CLAMP


@pytest.mark.parametrize("bad", ["PROJECT", 1, None], ids=repr)
def test_unknown_policy_is_refused(bad: object) -> None:
    sentence = r"policy must be a GradientPolicy \(CLAMP, PROJECT, REJECT, PASSTHROUGH\), got"
    with pytest.raises(RangeError, match=sentence), gradient_policy(bad):  # pyright: ignore[reportArgumentType]
        pass
    if bad is not None:
        with pytest.raises(RangeError, match=sentence):
            register_policy(Ratio(), bad)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf"), True], ids=repr)
def test_illegal_loss_scale_is_refused(bad: float) -> None:
    with (
        pytest.raises(RangeError, match="loss_scale must be a finite number above 0, got"),
        gradient_policy(CLAMP, loss_scale=bad),
    ):
        pass


def test_loss_scale_is_inherited_by_inner_contexts() -> None:
    with gradient_policy(PROJECT, loss_scale=16.0):
        with gradient_policy(CLAMP):
            assert ruling_in_force(-1).bound == 16.0
        with gradient_policy(CLAMP, loss_scale=2.0):
            assert ruling_in_force(-1).bound == 2.0
    assert ruling_in_force(-1).bound == 1.0


def test_loss_scale_reaches_a_layer_with_a_policy_of_its_own() -> None:
    with gradient_policy(PROJECT, loss_scale=16.0):
        assert ruling_in_force(int(CLAMP)).bound == 16.0


@both
def test_three_threads_at_once_keep_their_policies(act: Act) -> None:
    barrier, seen = threading.Barrier(3), {}

    def work(policy: GradientPolicy) -> None:
        with gradient_policy(policy):
            barrier.wait(timeout=30)
            seen[policy] = in_force(act)
            barrier.wait(timeout=30)

    threads = [threading.Thread(target=work, args=(p,)) for p in (PROJECT, REJECT, PASSTHROUGH)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert seen == {PROJECT: PROJECT, REJECT: REJECT, PASSTHROUGH: PASSTHROUGH}
    assert active_policy() is CLAMP


def test_new_thread_starts_with_clamp() -> None:
    seen = []
    with gradient_policy(REJECT):
        thread = threading.Thread(target=lambda: seen.append(active_policy()))
        thread.start()
        thread.join(timeout=60)
    assert seen == [CLAMP]


def test_tasks_of_one_thread_do_not_leak() -> None:
    async def work(policy: GradientPolicy | None) -> list[GradientPolicy]:
        if policy is None:
            seen = []
            for _ in range(3):
                await asyncio.sleep(0)
                seen.append(in_force(Ratio()))
            return seen
        with gradient_policy(policy):
            await asyncio.sleep(0)
            seen = [in_force(Ratio())]
            await asyncio.sleep(0)
            return [*seen, in_force(Ratio())]

    async def main() -> list[list[GradientPolicy]]:
        return await asyncio.gather(work(PROJECT), work(None), work(REJECT))

    assert asyncio.run(main()) == [[PROJECT] * 2, [CLAMP] * 3, [REJECT] * 2]


@pytest.mark.parametrize(("owner", "expected"), [("other", REJECT), ("same", CLAMP)])
def test_stash_is_believed_on_a_different_thread_alone(
    owner: str, expected: GradientPolicy
) -> None:
    seen = []
    with gradient_policy(REJECT):
        home, state = _stashed()

    # as in a worker of autograd: torch's own stash came along, the context did not
    def worker() -> None:
        _stash((threading.get_ident() if owner == "same" else home, state))
        seen.append(contextvars.Context().run(active_policy))

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join(timeout=60)
    assert seen == [expected]


class _Deeper(torch.autograd.Function):
    """Backward that calls backward: past a depth of 60, autograd goes on in a worker thread."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: int, threads: set[int], act: Act) -> Tensor:
        ctx.depth, ctx.threads, ctx.act = depth, threads, act
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None, None]:
        with torch.enable_grad():
            x = torch.ones(1, requires_grad=True)
            if ctx.depth:
                _Deeper.apply(x, ctx.depth - 1, ctx.threads, ctx.act).backward()
            else:
                ctx.threads.add(threading.get_ident())
                ctx.act(x, torch.tensor([0.1])).backward()
        return x.grad, None, None, None


@pytest.mark.parametrize(
    ("policy", "expected"), [(CLAMP, 1.0), (PROJECT, 10.0), (REJECT, 0.0)], ids=str
)
@both
def test_policy_reaches_the_worker_threads_of_autograd(
    act: Act, policy: GradientPolicy, expected: float
) -> None:
    threads: set[int] = set()
    x = torch.ones(1, requires_grad=True)
    y = _Deeper.apply(x, 70, threads, act)
    with gradient_policy(policy):
        y.backward()
    assert threads.isdisjoint({threading.get_ident()})
    assert x.grad is not None
    assert x.grad.item() == expected


@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda p: p.name)
@layers
def test_registered_policy_beats_the_context(
    kind: type[PolicyModule], policy: GradientPolicy
) -> None:
    layer = kind()
    register_policy(layer, policy)
    for context in GradientPolicy:
        with gradient_policy(context):
            assert in_force(layer) is policy


def test_registration_holds_for_this_instance_alone() -> None:
    layer, other = Ratio(), Ratio()
    register_policy(layer, PROJECT)
    assert in_force(layer) is PROJECT
    assert in_force(other) is CLAMP
    assert Ratio.policy_code == -1


def test_second_registration_replaces_and_none_removes() -> None:
    layer = Ratio()
    register_policy(layer, PROJECT)
    register_policy(layer, REJECT)
    assert in_force(layer) is REJECT
    register_policy(layer, None)
    assert in_force(layer) is CLAMP
    with gradient_policy(PROJECT):
        assert in_force(layer) is PROJECT
    register_policy(layer, None)  # nothing to remove is no error


def test_registration_reaches_every_layer_inside() -> None:
    tower = Tower()
    register_policy(tower, PROJECT)
    assert in_force(tower.deep) is in_force(tower.other) is PROJECT


ORDERS = [("outer", "middle", "inner"), ("inner", "middle", "outer"), ("middle", "outer", "inner")]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_nearest_ancestor_wins_whatever_the_order(order: tuple[str, ...]) -> None:
    tower = Tower()
    modules = {"outer": tower, "middle": tower.block, "inner": tower.deep}
    wanted = {"outer": PROJECT, "middle": PASSTHROUGH, "inner": REJECT}
    for name in order:
        register_policy(modules[name], wanted[name])
    assert in_force(tower.deep) is REJECT
    assert in_force(tower.other) is PROJECT
    register_policy(tower.deep, None)
    assert in_force(tower.deep) is PASSTHROUGH
    register_policy(tower.block, None)
    assert in_force(tower.deep) is PROJECT
    register_policy(tower, None)
    assert in_force(tower.deep) is in_force(tower.other) is CLAMP


def test_context_manager_restores_what_was_before() -> None:
    tower = Tower()
    with register_policy(tower, PROJECT):
        with register_policy(tower.deep, REJECT):
            assert in_force(tower.deep) is REJECT
        assert in_force(tower.deep) is PROJECT
        with register_policy(tower, PASSTHROUGH):
            assert in_force(tower.other) is PASSTHROUGH
        assert in_force(tower.other) is PROJECT
    assert in_force(tower.other) is CLAMP


def test_context_manager_restores_after_an_exception() -> None:
    layer = Ratio()
    with pytest.raises(KeyError), register_policy(layer, REJECT):
        raise KeyError
    assert in_force(layer) is CLAMP


@pytest.mark.parametrize(
    "clone",
    [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_carry_no_registration(clone: object) -> None:
    layer = Ratio()
    register_policy(layer, REJECT)
    assert callable(clone)
    assert in_force(clone(layer)) is CLAMP
    assert in_force(layer) is REJECT


def test_registration_ends_with_the_module_it_was_made_on() -> None:
    layer = Ratio()
    wrapper = nn.Sequential(layer)
    register_policy(layer, PROJECT)
    register_policy(wrapper, REJECT)
    register_policy(layer, None)
    assert in_force(layer) is REJECT
    del wrapper
    gc.collect()
    assert in_force(layer) is CLAMP


def test_registration_keeps_nothing_alive() -> None:
    layer = Ratio()
    handle = register_policy(layer, REJECT)
    alive = weakref.ref(layer)
    del layer
    gc.collect()
    assert alive() is None
    with handle:  # the module is gone: there is nothing to restore
        pass


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(RangeError, match=r"module must be a torch\.nn\.Module, got int"):
        register_policy(3, PROJECT)  # pyright: ignore[reportArgumentType]


def test_state_dict_knows_nothing_of_policies() -> None:
    layer = Ratio()
    register_policy(layer, REJECT)
    assert layer.state_dict() == {}
