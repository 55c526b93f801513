"""How many kernels the default compiler makes of one call and its backward, and their numbers.

Counts do not vary from machine to machine as times do. A second kernel in one direction means that
something is written to memory and read again; a bool that a kernel writes takes longer than all
that it computes.
"""

import math
import re

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from zeroproof import SCM, GradientPolicy, gradient_policy
from zeroproof.inference import strict_inference
from zeroproof.layers import ProjectiveRational, Rational
from zeroproof.training import SCMTrainingLoss, lift_targets

torch_inductor = pytest.importorskip("torch._inductor.utils")
ROWS = 16_384  # long enough to be summed row by row
# dynamo itself instantiates autograd.Function, which torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    with torch._inductor.config.patch(fx_graph_cache=False):
        yield


def hard(*shape):
    """Return numbers of every size, ⊥ among them."""
    x = torch.randn(*shape)
    x[::7] *= 1e-30
    x[::11] *= 1e30
    x[::13] = 0
    x[::97], x[1::97], x[2::97] = math.inf, -math.inf, math.nan
    return x


def compiled(function):
    """Return (outputs, the number of kernels of every graph); no kernel writes bools."""
    outputs, codes = torch_inductor.run_and_get_code(function)
    kernels = [re.findall(r"void  kernel\((.*?)\)", code, re.DOTALL) for code in codes]
    assert not any(re.search(r"(?<!const )bool\*", each) for code in kernels for each in code)
    return outputs, [len(code) for code in kernels]


def gradients(run, tensors, policy=GradientPolicy.CLAMP):
    y = run()
    outputs = [y.payload] if isinstance(y, SCM) else [y] if isinstance(y, torch.Tensor) else [*y]
    with gradient_policy(policy):
        return outputs, torch.autograd.grad(outputs, tensors, [torch.ones_like(z) for z in outputs])


def agree(mine, wanted):
    for a, b in zip(mine, wanted, strict=True):
        # sums of coefficients' gradients cancel: by the largest of them
        size = b[b.isfinite()].abs().amax().item() if b.isfinite().any() else 1.0
        torch.testing.assert_close(
            a.double(), b.double(), rtol=3e-5, atol=3e-6 * size, equal_nan=True
        )


@pytest.mark.parametrize("returns", ["scm", pytest.param("tensor", marks=pytest.mark.slow)])
def test_a_rational_is_one_kernel_each_way(returns):
    layer = Rational((5, 4), returns, init="gelu")
    x = torch.randn(ROWS)
    x[::13], x[1::97], x[2::97] = 0, math.inf, math.nan
    x.requires_grad_()
    run = torch.compile(layer, fullgraph=True)
    tensors = (x, *layer.parameters())
    (outputs, slopes), counts = compiled(lambda: gradients(lambda: run(x), tensors))
    assert counts == [1, 1]
    wanted, wanted_slopes = gradients(lambda: layer(x), tensors)
    agree([*outputs, *slopes], [*wanted, *wanted_slopes])
    if returns == "scm":
        assert torch.equal(run(x).bottom, layer(x).bottom)


def test_rational_tuples_are_one_kernel_each_way():
    layer = ProjectiveRational((3, 2), out_features=2)
    x = torch.randn(ROWS, 1)
    x[1::97], x[2::97] = math.inf, math.nan
    x.requires_grad_()
    run = torch.compile(layer, fullgraph=True)
    tensors = (x, *layer.parameters())
    (outputs, slopes), counts = compiled(lambda: gradients(lambda: run(x), tensors))
    assert counts == [1, 1]
    wanted, wanted_slopes = gradients(lambda: layer(x), tensors)
    agree([*outputs, *slopes], [*wanted, *wanted_slopes])


def test_the_loss_is_one_kernel_each_way():
    N, D = torch.randn(ROWS), torch.randn(ROWS)
    N[::97], D[1::97], D[2::13], D[3::13] = math.nan, math.inf, 0, 1e-5
    Y_n, Y_d = lift_targets(torch.where(torch.rand(ROWS) < 0.1, math.inf, torch.randn(ROWS)))
    N.requires_grad_(), D.requires_grad_()
    loss = SCMTrainingLoss()
    run = torch.compile(loss.__call__, fullgraph=True)

    def value(f):
        return lambda: f(outputs=(N, D), targets=(Y_n, Y_d))

    (outputs, slopes), counts = compiled(lambda: gradients(value(run), (N, D)))
    assert counts == [1, 1]
    wanted, wanted_slopes = gradients(value(loss), (N, D))
    agree([*outputs, *slopes], [*wanted, *wanted_slopes])


def test_strict_inference_is_one_kernel():
    N, D = hard(ROWS), hard(ROWS).roll(5)
    run = torch.compile(strict_inference, fullgraph=True)
    result, counts = compiled(lambda: run(N, D))
    assert counts == [1]
    wanted = strict_inference(N, D)
    torch.testing.assert_close(result.decoded, wanted.decoded, equal_nan=True)
    assert torch.equal(result.bottom_mask, wanted.bottom_mask)
    assert torch.equal(result.gap_mask, wanted.gap_mask)


def test_a_division_of_meadow_values_is_one_kernel_each_way():
    x, y = (SCM(hard(ROWS).roll(k)) for k in (0, 5))
    tensors = (x.payload.requires_grad_(), y.payload.requires_grad_())
    run = torch.compile(lambda a, b: (a / b).payload, fullgraph=True)
    (outputs, slopes), counts = compiled(lambda: gradients(lambda: run(x, y), tensors))
    assert counts == [1, 1]
    for policy in GradientPolicy:  # one graph serves them all
        outputs, slopes = gradients(lambda: run(x, y), tensors, policy)
        wanted, wanted_slopes = gradients(lambda: (x / y).payload, tensors, policy)
        for a, b in zip([*outputs, *slopes], [*wanted, *wanted_slopes], strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)


def test_layers_for_any_number_of_rows_take_few_graphs():
    counter = CompileCounterWithBackend("aot_eager")
    layer = Rational((2, 1), "tensor")
    run = torch.compile(layer, fullgraph=True, backend=counter)
    for n in (10_000, 20_000, 30_000, 40_000):  # one with its own rows, one for all
        run(torch.randn(n, requires_grad=True)).sum().backward()
    assert counter.frame_count == 2
