"""Half, single and double precision, autocast and complex numbers."""

import torch

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

TYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "autocast float16": torch.float16,
    "autocast bfloat16": torch.bfloat16,
}
# a few roundings of a number; of gradients more, whose terms may be larger than their sum
STEPS = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1e-6}


def _close(got, expected, step):
    got = [x.to(y.dtype) for x, y in zip(got, expected, strict=True)]
    for x, y in zip(got, expected, strict=True):
        size = float(torch.where(torch.isfinite(y), y, 0).abs().amax()) if y.numel() else 0.0
        tolerance = {"rtol": 8 * step, "atol": 8 * step * max(size, 1.0)}
        assert_same(x, y, **(tolerance if y.is_floating_point() else {"rtol": 0, "atol": 0}))


def _rounded(function: Function, dtype: torch.dtype):
    """Yield inputs that `dtype` holds exactly."""
    for inputs in (function.sound(torch.float64), function.bottom(torch.float64)):
        yield tuple(x.to(dtype).to(torch.float64) for x in inputs)


def _narrow(function: Function, dtype: torch.dtype) -> None:
    narrow, wide = function.build(dtype), function.build(torch.float64)
    if isinstance(wide, torch.nn.Module):
        wide.load_state_dict(narrow.state_dict())
    for inputs in _rounded(function, dtype):
        for policy in POLICIES:
            got = gradients(narrow, tuple(x.to(dtype) for x in inputs), function.learning, policy)
            expected = gradients(wide, inputs, function.learning, policy)
            for x, y in zip(got, expected, strict=True):
                _close(x, y, STEPS[dtype])


@each_in("float16", "bfloat16", "float32")
def test_narrow_numbers_give_what_wide_ones_give_but_for_rounding(function, cell):
    tried(lambda f: _narrow(f, TYPES[cell]), function, cell)


def _cast(function: Function, dtype: torch.dtype) -> None:
    call = function.build(torch.float32)
    for inputs in (function.sound(), function.bottom()):

        def cast(*x):
            with torch.autocast("cpu", dtype):
                return call(*x)

        expected = gradients(call, inputs, function.learning)
        got = gradients(cast, inputs, function.learning)
        assert all(x.dtype == y.dtype for x, y in zip(got[0], expected[0], strict=True))
        _close(got[0], expected[0], STEPS[dtype])
        _close(got[1], expected[1][: len(got[1])], STEPS[dtype])


@each_in("autocast float16", "autocast bfloat16")
def test_autocast_leaves_meadow_values_tuples_and_losses_in_single_precision(function, cell):
    tried(lambda f: _cast(f, TYPES[cell]), function, cell)


def _checked(function: Function, dtype: torch.dtype) -> None:
    call, inputs = function.build(dtype), function.sound(dtype, (2,))
    smooth = function.smooth(dtype, inputs)
    leaves = [x.clone().requires_grad_(k in function.learning) for k, x in enumerate(inputs)]
    with gradient_policy(GradientPolicy.PROJECT):
        torch.autograd.gradcheck(lambda *x: tuple(numbers(smooth(*x))), leaves)
        if isinstance(call, torch.nn.Module):
            parameters = tuple(call.parameters())
            torch.autograd.gradcheck(lambda *_: tuple(numbers(call(*inputs))), parameters)
    if function.frozen is not None:
        expected = gradients(smooth, inputs, function.learning)
        assert_same(gradients(call, inputs, function.learning), expected)


@each_in("float64")
def test_gradients_are_finite_differences(function, cell):
    tried(lambda f: _checked(f, torch.float64), function, cell)


def _forward(function: Function) -> None:
    """Compare forward mode with the gradient, of which it takes the real inner product."""
    call = function.build(torch.complex128)
    for inputs in (function.sound(torch.complex128), function.bottom(torch.complex128)):
        act, learning = of_learning(function, call, inputs)
        tangents = tangents_of(learning)
        _, slope = torch.func.jvp(lambda *x: scalar(act(*x)), learning, tangents)  # noqa: B023
        _, found = gradients(call, inputs, function.learning)
        pairs = zip(found, tangents, strict=False)  # gradients of parameters follow those of inputs
        assert_same(slope, sum((g.conj() * t).real.sum() for g, t in pairs))


def _complex(function: Function) -> None:
    _checked(function, torch.complex128)
    _forward(function)
    call = function.build(torch.complex64)
    outputs, found = gradients(call, function.bottom(torch.complex64), function.learning)
    assert all(torch.isfinite(x).all() for x in found)
    assert scalar(outputs).isfinite()
    wide = gradients(
        function.build(torch.complex128), function.bottom(torch.complex128), function.learning
    )
    for x, y in zip((outputs, found), wide, strict=True):
        masks = [z for z in tensors(y) if z.dtype == torch.bool]
        assert_same([z for z in x if z.dtype == torch.bool], masks)


@each_in("complex")
def test_complex_numbers_have_finite_differences_and_bottom(function, cell):
    tried(_complex, function, cell)
