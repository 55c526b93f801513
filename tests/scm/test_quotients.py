"""Division and decoding by Numba's loops against the operations of torch that all else records."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from zeroproof import native
from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.inference import InferenceConfig, strict_inference
from zeroproof.projective import decode
from zeroproof.scm import SCM, division_loops
from zeroproof.scm.division import divide, divisible, quotients

INF, NAN = math.inf, math.nan
EDGES = [0.0, 1e-45, 1e-38, 1e-20, 9.9e-7, 1e-6, 1e-5, 1e-4, 0.5, 1.0, 1e4, 1e20, 3e38, INF, NAN]
Pair = tuple[Tensor, Tensor]

SHAPES: dict[str, Callable[[Tensor, Tensor], Pair]] = {
    "flat": lambda N, D: (N, D),
    "column": lambda N, D: (N.unsqueeze(1), D.unsqueeze(1)),
    "transposed": lambda N, D: (N.reshape(5, -1).T, D.reshape(5, -1).T),
    "halves of one tensor": lambda N, D: torch.stack([N, D], -1).unbind(-1),  # pyright: ignore[reportReturnType]
    "shared": lambda N, D: (N.reshape(-1, 5), D.reshape(-1, 5)[:, :1]),
}
DATA = ["edges", "sound", "mostly sound", "huge", "tiny"]
CASES = [*(("flat", data) for data in DATA), *((shape, "edges") for shape in list(SHAPES)[1:])]


def tuples(data: str) -> Pair:
    if data == "edges":
        signed = [*EDGES, *(-x for x in EDGES)]
        N, D = zip(*itertools.product(signed, signed), strict=True)
        return torch.tensor(N), torch.tensor(D)
    N, D = torch.randn(2, 5000)
    D = D.sign() * (D.abs() + 0.1)
    if data == "mostly sound":
        D[7], D[70], D[140], D[200], N[250], N[270] = 0, 1e-8, 1e-5, INF, NAN, INF
    if data in ("huge", "tiny"):
        D, N = (x * (1e30 if data == "huge" else 1e-30) for x in (D, N))
    return N, D


def plainly(call: Callable[[], object]) -> object:
    with native.disabled():
        return call()


def assert_same(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def _angle(N: Tensor, D: Tensor, **options: float) -> object:
    return tuple(strict_inference(N, D, InferenceConfig(score="angle", **options)))  # pyright: ignore[reportArgumentType]


def _division(N: Tensor, D: Tensor, bottom: Tensor) -> object:
    N, D = torch.broadcast_tensors(N, D)
    return divide(N, D, ~torch.isfinite(N) | ~torch.isfinite(D) | bottom)


CALLS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "division": lambda N, D: _division(N, D, torch.tensor(False)),
    "division, more ⊥": lambda N, D: _division(N, D, N < 0),
    "decode": decode,
    "decode at τ = 0.5": lambda N, D: decode(N, D, 0.5),
    "decode, τ underflows": lambda N, D: decode(N, D, 1e-300),
    "strict": lambda N, D: tuple(strict_inference(N, D)),
    "strict, no gap": lambda N, D: tuple(strict_inference(N, D, InferenceConfig(tau_infer=1e-3))),
    "angle": _angle,
    "angle, coarse": lambda N, D: _angle(N, D, tau_infer=0.1, tau_train=0.3),
    "angle near 1": lambda N, D: _angle(N, D, tau_infer=0.9),
    "angle, scaled": lambda N, D: _angle(N, D, scale=3e4),
}


@pytest.mark.parametrize(("shape", "data"), CASES)
@pytest.mark.parametrize("name", CALLS)
def test_values_and_masks_are_those_of_torch(name: str, shape: str, data: str) -> None:
    N, D = SHAPES[shape](*tuples(data))
    assert_same(CALLS[name](N, D), plainly(lambda: CALLS[name](N, D)))


@pytest.mark.parametrize("wanted", ["N", "D", "ND"])
@pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda p: p.name)
@pytest.mark.parametrize(("shape", "data"), [*CASES[:2], *CASES[-4:]])
def test_gradients_are_those_of_torch(
    shape: str, data: str, policy: GradientPolicy, wanted: str
) -> None:
    N, D = SHAPES[shape](*(x.clone() for x in tuples(data)))
    leaves = [x.detach().requires_grad_() for x, name in ((N, "N"), (D, "D")) if name in wanted]
    N, D = (leaves[0] if "N" in wanted else N), (leaves[-1] if "D" in wanted else D)
    g = torch.randn(N.shape) * 3
    g.view(-1)[::11], g.view(-1)[5] = 0, INF

    def gradients() -> tuple[Tensor, ...]:
        value, _ = decode(N, D)
        with gradient_policy(policy):
            return torch.autograd.grad(value, leaves, g)

    assert_same(gradients(), plainly(gradients))


def test_loops_serve_single_precision_and_their_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    N, D = tuples("mostly sound")
    value, _ = decode(N.requires_grad_(), D)
    called = []
    monkeypatch.setattr(division_loops, "pullback", lambda *x: called.append(x) or (N, D))
    value.sum().backward()
    assert len(called) == 1
    assert quotients(N.double(), D.double()) is None
    with native.disabled():
        assert quotients(N, D) is None


def test_a_division_of_pairs_is_done_by_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    (N, D), called, plain = tuples("sound"), [], division_loops.divide
    monkeypatch.setattr(division_loops, "divide", lambda *x: called.append(x) or plain(*x))
    divide(N, D, torch.zeros_like(N, dtype=torch.bool))
    assert len(called) == 1


def test_by_default_small_denominators_are_sound_and_the_context_has_the_policy() -> None:
    N, D = torch.tensor([2.0], requires_grad=True), torch.tensor([1e-3])
    found = quotients(N, D)
    assert found is not None
    (g,) = torch.autograd.grad(found[0], N)
    assert g.item() == 1.0  # CLAMP


class _Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *_: Tensor) -> None:
        return None


@pytest.mark.usefixtures("both_ways")
def test_no_gradient_comes_back_where_none_arrives() -> None:
    N, D = (x.requires_grad_() for x in tuples("sound"))
    _Nothing.apply(decode(N, D)[0]).sum().backward()
    assert N.grad is None
    assert D.grad is None


@pytest.mark.usefixtures("both_ways")
def test_second_derivatives_in_batches_and_in_forward_mode_are_plain() -> None:
    N, D = (x[:300].requires_grad_() for x in tuples("mostly sound"))

    def value(N: Tensor, D: Tensor) -> Tensor:
        return decode(N, D)[0].nan_to_num()

    with gradient_policy(GradientPolicy.PROJECT):
        first = torch.autograd.grad(value(N, D).sum(), (N, D), create_graph=True)
        second = torch.autograd.grad(first[1].sum(), (N, D))
        basis = torch.eye(3, len(N))
        (rows,) = torch.autograd.grad(value(N, D), N, basis, is_grads_batched=True)
    sound = ~decode(N, D)[1]
    expected = torch.where(sound, -1 / D / D, 0).detach()
    torch.testing.assert_close(second[0], expected, rtol=1e-6, atol=0)
    assert_same(rows, basis * first[0].detach())


def test_a_recorder_sees_plain_operations() -> None:
    graph = make_fx(lambda N, D: decode(N, D)[0])(*tuples("sound"))
    N, D = tuples("mostly sound")
    assert_same(graph(N, D), decode(N, D)[0])


@pytest.mark.usefixtures("both_ways")
def test_a_graph_is_recorded_only_where_a_gradient_is_wanted() -> None:
    N, D = tuples("sound")
    value, bottom = decode(N, D.requires_grad_())
    assert value.requires_grad
    assert not bottom.requires_grad
    with torch.no_grad():
        assert not decode(N, D)[0].requires_grad
    assert torch.autograd.grad(value.sum(), D)[0] is not None


@pytest.mark.usefixtures("both_ways")
def test_the_angle_limits_the_quotient() -> None:
    y = torch.tensor([0.0, 1.0, 99.9, 100.1, 999.0, 1001.0, 1e30])
    config = InferenceConfig(score="angle", tau_infer=1e-3, tau_train=1e-2)
    for size in (1e-7, 1.0, -1e7):
        _, bottom, gap = strict_inference(y * size, torch.full_like(y, size), config)
        assert bottom.tolist() == [False] * 5 + [True] * 2
        assert gap.tolist() == [False] * 3 + [True] * 2 + [False] * 2


def test_what_is_not_divisible() -> None:
    one = torch.ones(2, 3)
    assert divisible(one, one[:, :1])
    assert not divisible(one, one[:, :2])
    assert not divisible(one, one[0, :1])
    assert not divisible(one.half(), one.half())
    assert not divisible(one, one.double())
    assert not divisible(one[:0], one[:0])
    assert not divisible(one.to("meta"), one.to("meta"))


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SCM": lambda N, D: (SCM(N) / SCM(D)).payload,
    "strict": lambda N, D: strict_inference(N, D).decoded,
    "angle": lambda N, D: strict_inference(N, D, InferenceConfig(score="angle")).decoded,
    "decode": lambda N, D: decode(N, D)[0],
}


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("denominator", [2.0, 0.0])
@pytest.mark.parametrize("name", WAYS)
def test_all_outputs_of_a_flat_tensor_may_share_one_denominator(
    name: str, denominator: float
) -> None:
    for shape, shared in ((1, 1), (50, 1), (5000, 1), ((5, 10), (5, 1))):
        N, D = torch.randn(shape), torch.full_like(torch.empty(shared), denominator)
        g = torch.randn_like(N)
        value = WAYS[name](N.requires_grad_(), D.requires_grad_())
        with gradient_policy(GradientPolicy.PROJECT):
            g_N, g_D = torch.autograd.grad(value, (N, D), g)
        sound = denominator != 0
        expected = (g.double() / 2, -(g.double() * N.detach()).sum(-1, keepdim=True) / 4)
        assert_same(value, N / 2 if sound else torch.full_like(N, NAN))
        torch.testing.assert_close(g_N, (expected[0] * sound).float())
        torch.testing.assert_close(g_D, (expected[1] * sound).float(), rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("shared", [False, True])
def test_an_infinite_denominator_is_bottom(name: str, shared: bool) -> None:
    N, D = torch.randn(10, 2), torch.ones(10, 1 if shared else 2)
    D[1], D[3] = INF, -INF
    value = WAYS[name](N, D)
    assert torch.equal(value.isnan(), D.isinf().expand(N.shape))
    assert_same(value, torch.where(value.isnan(), NAN, N))


def test_an_infinite_denominator_is_bottom_to_the_loops_though_nobody_marked_it() -> None:
    N, D = torch.randn(10), torch.full((10,), INF)
    found = quotients(N, D)
    assert found is not None
    assert found[1].all()


@pytest.mark.parametrize("name", WAYS)
def test_the_defaults_of_torch_do_not_matter(name: str) -> None:
    N, D = tuples("mostly sound")

    def results() -> Pair:
        leaf = N.clone().requires_grad_()
        value = WAYS[name](leaf, D)
        return value.detach(), torch.autograd.grad(value, leaf, torch.ones_like(N))[0]

    with native.disabled():
        expected = results()
        with torch.device("meta"):
            assert_same(results(), expected)
        torch.set_default_dtype(torch.float64)
        try:
            assert_same(results(), expected)
        finally:
            torch.set_default_dtype(torch.float32)
