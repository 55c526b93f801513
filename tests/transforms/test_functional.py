"""`torch.func`, forward mode and gradients of gradients, against autograd and loops."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tests.transforms.functions import Function
from tests.transforms.table import (
    POLICIES,
    assert_same,
    each_in,
    gradients,
    numbers,
    of_learning,
    scalar,
    tangents_of,
    tensors,
    tried,
)
from zeroproof.autodiff import GradientPolicy, gradient_policy

PROJECT = GradientPolicy.PROJECT


def pieces(call: Callable[..., object]) -> Callable[..., Tensor]:
    """Return a function of one vector: all numbers of the output, ⊥ as a 0 without slope."""

    def act(*inputs: Tensor) -> Tensor:
        found = [torch.where(torch.isfinite(x), x, 0) for x in numbers(call(*inputs))]
        return torch.cat([x.reshape(-1) for x in found])

    return act


def jacobian(function: Function, call: Callable[..., object], inputs: tuple[Tensor, ...]):
    """Return the Jacobian of `pieces`, row by row by plain autograd, under PROJECT."""
    act, learning = of_learning(function, pieces(call), inputs)
    leaves = [x.detach().requires_grad_() for x in learning]
    rows = []
    with gradient_policy(PROJECT):
        for y in act(*leaves):
            if y.requires_grad:
                found = torch.autograd.grad(
                    y, leaves, retain_graph=True, materialize_grads=True, allow_unused=True
                )
            else:
                found = [torch.zeros_like(x) for x in leaves]
            rows.append(found)
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def prepared(function: Function):
    """Yield (call, sound inputs) and (call, inputs that make ⊥), in double precision."""
    call = function.build(torch.float64)
    for inputs in (function.sound(torch.float64), function.bottom(torch.float64)):
        yield call, inputs


def _vmap(function: Function) -> None:
    call = function.build(torch.float64)
    stacks = [
        torch.stack(pair)
        for pair in zip(function.sound(torch.float64), function.bottom(torch.float64), strict=True)
    ]
    batches = list(zip(*stacks, strict=True))
    mapped = torch.func.vmap(lambda *x: tuple(tensors(call(*x))))(*stacks)
    expected = [torch.stack(x) for x in zip(*(tensors(call(*x)) for x in batches), strict=True)]
    assert_same(list(mapped), expected)
    act = torch.func.grad(lambda *x: scalar(call(*x)), argnums=function.learning)
    with gradient_policy(PROJECT):
        mapped = torch.func.vmap(act)(*stacks)
    rows = [gradients(call, x, function.learning)[1] for x in batches]
    expected = [torch.stack(x) for x in list(zip(*rows, strict=True))[: len(function.learning)]]
    assert_same(list(mapped), expected)


@each_in("vmap")
def test_vmap_is_a_loop(function, cell):
    tried(_vmap, function, cell)


def _grad(function: Function) -> None:
    for call, inputs in prepared(function):
        for policy in POLICIES:
            act = torch.func.grad(lambda *x: scalar(call(*x)), argnums=function.learning)  # noqa: B023
            with gradient_policy(policy):
                got = act(*inputs)
            _, expected = gradients(call, inputs, function.learning, policy)
            assert_same(list(got), expected[: len(got)])


@each_in("grad")
def test_grad_is_the_gradient_of_autograd_under_every_policy(function, cell):
    tried(_grad, function, cell)


def _jacrev(function: Function) -> None:
    for call, inputs in prepared(function):
        act, learning = of_learning(function, pieces(call), inputs)
        with gradient_policy(PROJECT):
            got = torch.func.jacrev(act, argnums=tuple(range(len(learning))))(*learning)
        assert_same(list(got), jacobian(function, call, inputs))


@each_in("jacrev")
def test_jacrev_is_the_jacobian_row_by_row(function, cell):
    tried(_jacrev, function, cell)


def _jacfwd(function: Function) -> None:
    for call, inputs in prepared(function):
        act, learning = of_learning(function, pieces(call), inputs)
        got = torch.func.jacfwd(act, argnums=tuple(range(len(learning))))(*learning)
        assert_same(list(got), jacobian(function, call, inputs))


@each_in("jacfwd")
def test_jacfwd_is_the_jacobian_row_by_row(function, cell):
    tried(_jacfwd, function, cell)


def _jvp(function: Function) -> None:
    for call, inputs in prepared(function):
        act, learning = of_learning(function, pieces(call), inputs)
        tangents = tangents_of(learning)
        slopes = jacobian(function, call, inputs)
        expected = sum(
            (slope * t).flatten(1).sum(1) for slope, t in zip(slopes, tangents, strict=True)
        )
        assert_same(torch.func.jvp(act, learning, tangents), (act(*learning), expected))
        for recorded in (False, True):  # kernels without a gradient must not lose tangents
            with torch.set_grad_enabled(recorded), forward_ad.dual_level():
                duals = [
                    forward_ad.make_dual(x.clone().requires_grad_(recorded), t)
                    for x, t in zip(learning, tangents, strict=True)
                ]
                assert_same(forward_ad.unpack_dual(act(*duals)).tangent, expected)


@each_in("jvp")
def test_jvp_moves_values_as_the_jacobian_says_and_bottom_not_at_all(function, cell):
    tried(_jvp, function, cell)


def _smooth(function: Function):
    """Return (a scalar function of the inputs that learn, those inputs), away from ⊥."""
    call = function.build(torch.float64)
    act, learning = of_learning(function, call, function.sound(torch.float64, (2,)))
    return lambda *x: scalar(act(*x)), learning


def _second(act: Callable[..., Tensor], learning: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the rows of second derivatives by plain autograd."""
    leaves = [x.detach().requires_grad_() for x in learning]
    with gradient_policy(PROJECT):
        first = torch.autograd.grad(
            act(*leaves), leaves, create_graph=True, materialize_grads=True, allow_unused=True
        )
        rows = []
        for g in torch.cat([x.reshape(-1) for x in first]):
            if g.requires_grad:
                rows.append(
                    torch.autograd.grad(
                        g, leaves, retain_graph=True, materialize_grads=True, allow_unused=True
                    )
                )
            else:
                rows.append([torch.zeros_like(x) for x in leaves])
    return [torch.cat([x.reshape(-1) for x in row]) for row in rows]


def _hessian(function: Function) -> None:
    act, learning = _smooth(function)
    with gradient_policy(PROJECT):
        blocks = torch.func.hessian(act, argnums=tuple(range(len(learning))))(*learning)
    got = [
        torch.cat([block.flatten(x.ndim).reshape(x.numel(), -1) for block in row], 1)
        for x, row in zip(learning, blocks, strict=True)
    ]
    assert_same(torch.cat(got), torch.stack(_second(act, learning)))


@each_in("hessian")
def test_hessian_is_the_gradient_of_gradients(function, cell):
    tried(_hessian, function, cell)


def _differences(act: Callable[..., Tensor], learning: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the rows of second derivatives as central differences of the first."""
    rows = []
    for k, x in enumerate(learning):
        for place in range(x.numel()):
            ends = []
            for step in (1e-6, -1e-6):
                leaves = [y.detach().clone() for y in learning]
                leaves[k].view(-1)[place] += step
                leaves = [y.requires_grad_() for y in leaves]
                with gradient_policy(PROJECT):
                    found = torch.autograd.grad(
                        act(*leaves), leaves, materialize_grads=True, allow_unused=True
                    )
                ends.append(torch.cat([g.reshape(-1) for g in found]))
            rows.append((ends[0] - ends[1]) / 2e-6)
    return rows


def _double_backward(function: Function) -> None:
    act, learning = _smooth(function)
    inputs = function.sound(torch.float64, (2,))
    frozen, _ = of_learning(function, function.smooth(torch.float64, inputs), inputs)
    differences = _differences(lambda *x: scalar(frozen(*x)), learning)
    got = torch.stack(_second(act, learning))
    assert_same(got.T, torch.stack(differences), rtol=1e-5, atol=1e-6)


@each_in("double backward")
def test_a_gradient_of_gradients_is_their_finite_difference(function, cell):
    tried(_double_backward, function, cell)
