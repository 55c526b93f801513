"""Memory layouts, broadcasting, empty batches and scalars."""

import torch

from tests.transforms.functions import BATCH, OUTPUTS, Function
from tests.transforms.table import assert_same, each_in, gradients, numbers, tensors, tried
from zeroproof.errors import ShapeError


def _scattered(x: torch.Tensor) -> torch.Tensor:
    """Return the same numbers, of which no two lie side by side and rows run the other way."""
    if x.ndim == 0:
        return torch.stack([x, x])[1]
    wide = x.new_full((*x.shape[::-1], 3), 7.0)
    wide[..., 1] = x.permute(*range(x.ndim - 1, -1, -1))
    return wide[..., 1].permute(*range(x.ndim - 1, -1, -1))


def _layouts(function: Function) -> None:
    call = function.build(torch.float32)
    for inputs in (function.sound(), function.bottom()):
        scattered = tuple(_scattered(x) for x in inputs)
        assert not any(x.is_contiguous() for x in scattered)
        expected = gradients(call, inputs, function.learning)
        assert_same(gradients(call, scattered, function.learning), expected)
        # the gradient of the layout itself: to numbers behind it
        leaves = [x.clone().requires_grad_() for x in inputs]
        outputs = call(*(_scattered(x) for x in leaves))
        assert_same([x.detach() for x in tensors(outputs)], expected[0])


@each_in("non-contiguous")
def test_numbers_may_lie_anywhere_in_memory(function, cell):
    tried(_layouts, function, cell)


def _expanded(function: Function) -> None:
    call = function.build(torch.float32)
    rows = tuple(x[:1] for x in function.bottom())
    expanded = tuple(x.expand(*BATCH, -1) for x in rows)
    assert all(x.stride(0) == 0 for x in expanded)
    expected = gradients(call, tuple(x.contiguous() for x in expanded), function.learning)
    assert_same(gradients(call, expanded, function.learning), expected)

    def of_one_row(*x: torch.Tensor) -> object:
        return call(*(y.expand(*BATCH, -1) for y in x))

    outputs, found = gradients(of_one_row, rows, function.learning)
    assert_same(outputs, expected[0])
    sums = [g.sum(0, keepdim=True) for g in expected[1][: len(found)]]
    assert_same(found, sums, rtol=1e-4, atol=1e-5)
    if function.broadcasts:
        _operands(function)


def _operands(function: Function) -> None:
    """Compare operands of shapes (4, 1) and (2,), and (2,) and (4, 1), with expanded ones."""
    call = function.build(torch.float64)
    x, y = function.bottom(torch.float64)
    for operands in ((x[:, :1], y[0]), (x[0], y[:, :1])):

        def expanded(*z: torch.Tensor) -> object:
            return call(*(part.expand(*BATCH, OUTPUTS).clone() for part in z))

        got = gradients(call, operands, function.learning)
        assert_same(got, gradients(expanded, operands, function.learning))


@each_in("broadcast")
def test_one_row_may_stand_for_many(function, cell):
    tried(_expanded, function, cell)


def _empty(function: Function) -> None:
    call = function.build(torch.float32)
    outputs, _ = gradients(call, function.sound(), function.learning)
    got, found = gradients(call, function.sound(batch=(0,)), function.learning)
    for x, y in zip(got, outputs, strict=True):
        rows = y.ndim > 0 and y.shape[0] in {BATCH[0], BATCH[0] * OUTPUTS}
        assert x.shape == ((0, *y.shape[1:]) if rows else y.shape)
        assert x.dtype == y.dtype
    assert all((x == 0).all() for x in found)


@each_in("zero rows")
def test_an_empty_batch_has_answers_without_rows_and_zero_gradients(function, cell):
    tried(_empty, function, cell)


def _scalars(function: Function) -> None:
    call = function.build(torch.float32)
    for of_rows in (function.sound(), function.bottom()):
        inputs = tuple(x.reshape(-1)[0] for x in of_rows)
        entries = tuple(x.reshape(-1)[:1] for x in of_rows)
        outputs, found = gradients(call, inputs, function.learning)
        expected, slopes = gradients(call, entries, function.learning)
        assert_same([x.reshape(-1) for x in outputs], [x.reshape(-1) for x in expected])
        assert_same([x.reshape(-1) for x in found], [x.reshape(-1) for x in slopes])
        assert all(x.numel() <= y.numel() for x, y in zip(numbers(outputs), expected, strict=False))


@each_in("0-d")
def test_scalars_are_answered_as_vectors_of_one_entry(function, cell):
    tried(_scalars, function, cell, (ShapeError,))
