"""The policy acts while backward runs: on SCM division, on decoding and at a bare gate alike."""

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zeroproof.autodiff import GradientPolicy, gradient_policy
from zeroproof.autodiff.policies import gate
from zeroproof.projective.decoding import decode_scored
from zeroproof.scm.division import divide

CLAMP, PROJECT, REJECT, PASSTHROUGH = GradientPolicy
Divide = Callable[[Tensor, Tensor], Tensor]
Leaves = Callable[..., tuple[Tensor, Tensor]]
Check = Callable[[Tensor, Tensor, GradientPolicy], None]
Table = dict[GradientPolicy, tuple[list[float], list[float]]]
every = pytest.mark.parametrize("policy", list(GradientPolicy), ids=lambda p: p.name)

N0, D0 = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.0, -2.0])


@every
def test_context_around_backward_alone(
    leaves: Leaves, assert_gradients: Check, act: Divide, policy: GradientPolicy
) -> None:
    N, D = leaves()
    value = act(N, D)
    with gradient_policy(policy):
        value.backward(torch.ones(3))
    assert_gradients(N, D, policy)


def test_context_around_forward_alone_does_nothing(
    leaves: Leaves, assert_gradients: Check, act: Divide
) -> None:
    N, D = leaves()
    with gradient_policy(REJECT):
        value = act(N, D)
    value.backward(torch.ones(3))
    assert_gradients(N, D, CLAMP)


def test_inner_context_at_backward_beats_outer(
    leaves: Leaves, assert_gradients: Check, act: Divide
) -> None:
    N, D = leaves()
    with gradient_policy(REJECT):
        value = act(N, D)
        with gradient_policy(PROJECT):
            value.backward(torch.ones(3))
    assert_gradients(N, D, PROJECT)


def test_one_graph_two_backward_passes_two_policies(
    leaves: Leaves, assert_gradients: Check, act: Divide
) -> None:
    N, D = leaves()
    value = act(N, D)
    for policy in (REJECT, PROJECT):
        N.grad = D.grad = None
        with gradient_policy(policy):
            value.backward(torch.ones(3), retain_graph=True)
        assert_gradients(N, D, policy)


@pytest.mark.parametrize("fixed", list(GradientPolicy), ids=lambda p: p.name)
@pytest.mark.parametrize("kernel", ["division", "decoding"])
def test_policy_fixed_for_one_call(
    leaves: Leaves, assert_gradients: Check, kernel: str, fixed: GradientPolicy
) -> None:
    N, D = leaves()
    if kernel == "division":
        value, _ = divide(N, D, D == 0, int(fixed))
    else:
        value, _ = decode_scored(N, D, D.detach().abs(), 1e-6, int(fixed))
    with gradient_policy(CLAMP if fixed is PROJECT else PROJECT):
        value.backward(torch.ones(3))
    assert_gradients(N, D, fixed)


def test_bound_of_clamp_follows_the_loss_scale(
    leaves: Leaves, EXPECTED: Table, act: Divide
) -> None:
    N, D = leaves()
    value = act(N, D)
    with gradient_policy(CLAMP, loss_scale=64.0):
        value.backward(torch.full((3,), 64.0))
    assert N.grad is not None
    assert D.grad is not None
    assert (N.grad / 64).tolist() == EXPECTED[CLAMP][0]
    assert (D.grad / 64).tolist() == EXPECTED[CLAMP][1]


def test_complex_gradients_are_clamped_in_modulus(act: Divide) -> None:
    N = torch.tensor([1 + 1j, 1j], requires_grad=True)
    D = torch.tensor([0.03 + 0.04j, 0j])
    act(N, D).backward(torch.ones(2, dtype=torch.complex64))
    assert N.grad is not None
    torch.testing.assert_close(N.grad, torch.tensor([0.6 + 0.8j, 0]))


# --- torch's transformations


@every
def test_functional_gradients(EXPECTED: Table, act: Divide, policy: GradientPolicy) -> None:
    expected = tuple(torch.tensor(g) for g in EXPECTED[policy])
    with gradient_policy(policy):
        summed = torch.func.grad(lambda n, d: act(n, d).sum(), argnums=(0, 1))
        torch.testing.assert_close(summed(N0, D0), expected)
        each = torch.func.vmap(torch.func.grad(act, argnums=(0, 1)))
        torch.testing.assert_close(each(N0, D0), expected)
        jacobian = torch.func.jacrev(act)(N0, D0)
    if policy is not PASSTHROUGH:  # whose rows hold 0 · inf
        torch.testing.assert_close(jacobian, torch.diag(expected[0]))


def test_derivatives_with_bottom_rows_against_finite_differences(act: Divide) -> None:
    # ⊥ rows count as 0: their derivatives of both orders must be exactly that
    N = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    D = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    weight = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)

    def masked(n: Tensor, d: Tensor) -> Tensor:
        return act(n, d + weight * 0).nan_to_num()

    with gradient_policy(PROJECT):
        assert torch.autograd.gradcheck(masked, (N, D))
        assert torch.autograd.gradgradcheck(masked, (N, D))


@pytest.mark.parametrize("policy", [CLAMP, PROJECT], ids=lambda p: p.name)
def test_second_derivatives_are_zero_at_bottom(
    leaves: Leaves, act: Divide, policy: GradientPolicy
) -> None:
    N, D = leaves(torch.float64)
    with gradient_policy(policy):
        first = torch.autograd.grad(act(N, D), (N, D), torch.ones(3).double(), create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), (N, D))
    for gradient in (*first, *second):
        assert torch.isfinite(gradient).all()
        assert gradient[2] != 0
        assert gradient[1] == 0


@every
def test_activation_checkpointing(
    leaves: Leaves, assert_gradients: Check, act: Divide, policy: GradientPolicy
) -> None:
    N, D = leaves()
    value = torch.utils.checkpoint.checkpoint(act, N, D, use_reentrant=False)
    with gradient_policy(policy):
        value.backward(torch.ones(3))
    assert_gradients(N, D, policy)


def test_meta_tensors(act: Divide) -> None:
    N, D = (x.detach().to("meta").requires_grad_() for x in (N0, D0))
    act(N, D).sum().backward()
    assert N.grad is not None
    assert N.grad.device.type == "meta"


# --- the bare gate


def test_gate_is_the_identity(leaves: Leaves) -> None:
    N, D = leaves()
    gated = gate(N, D, D == 0)
    torch.testing.assert_close(gated, (N0, D0))


@every
def test_gate_acts_on_each_gradient(leaves: Leaves, policy: GradientPolicy) -> None:
    N, D = leaves()
    n, d = gate(N, D, D == 0)
    with gradient_policy(policy):
        (5 * n - 0.5 * d).sum().backward()
    expected = {
        CLAMP: ([1.0, 0.0, 1.0], [-0.5, 0.0, -0.5]),
        PROJECT: ([5.0, 0.0, 5.0], [-0.5, 0.0, -0.5]),
        REJECT: ([0.0] * 3, [0.0] * 3),
        PASSTHROUGH: ([5.0] * 3, [-0.5] * 3),
    }[policy]
    assert N.grad is not None
    assert D.grad is not None
    assert (N.grad.tolist(), D.grad.tolist()) == expected


def test_shared_denominator_is_masked_where_all_its_tuples_are_bottom() -> None:
    N = torch.ones(3, 2, requires_grad=True)
    D = torch.ones(3, 1, requires_grad=True)
    bottom = torch.tensor([[True, True], [True, False], [False, False]])
    n, d = gate(N, D, bottom)
    with gradient_policy(PROJECT):
        (2 * n.sum() + 3 * d.sum()).backward()
    assert N.grad is not None
    assert D.grad is not None
    assert N.grad.tolist() == [[0.0, 0.0], [0.0, 2.0], [2.0, 2.0]]
    assert D.grad.tolist() == [[0.0], [3.0], [3.0]]


def test_gate_takes_the_same_tensor_twice() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    n, d = gate(x, x, torch.tensor([False]))
    with gradient_policy(PROJECT):
        (n * d).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == 4


@pytest.mark.parametrize(
    "without",
    [torch.no_grad, torch.inference_mode],
    ids=lambda context: context.__name__,
)
def test_no_gate_when_gradients_are_off(
    leaves: Leaves,
    without: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    N, D = leaves()
    with without():
        n, d = gate(N, D, D == 0)
    assert n is N
    assert d is D
