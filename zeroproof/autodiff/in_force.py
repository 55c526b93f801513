"""Which gradient policy is in force: of a module, of a context, or CLAMP. `gate.py` acts on it.

A ContextVar alone is invisible to autograd's worker threads, where it would silently read the
default. Torch's own thread-local stash does reach them, but leaks between asyncio tasks of one
thread; so the stash carries the id of the thread that entered the context and is believed only on a
different thread.
"""

import contextlib
import enum
import functools
import math
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

from zeroproof._checks import positive
from zeroproof.autodiff.torch_internals import stash, stashed
from zeroproof.errors import RangeError

__all__ = [
    "GradientPolicy",
    "Ruling",
    "active_policy",
    "checked_policy",
    "gradient_policy",
    "note_registrations",
    "open_scopes",
    "policy_in_force",
    "registrations",
    "ruling_in_force",
    "scope_of",
    "scoped",
]


class GradientPolicy(enum.IntEnum):
    """What happens to a gradient at an operation that can make ⊥.

    | policy | at ⊥ | elsewhere |
    |---|---|---|
    | `CLAMP` | 0 | clamped to [-1, 1]; a complex gradient to modulus 1 |
    | `PROJECT` | 0 | unchanged |
    | `REJECT` | 0 | 0 |
    | `PASSTHROUGH` | raw IEEE gradient | unchanged |

    Forward mode (`torch.func.jvp`, dual tensors) has no policy: tangents are as under `PROJECT`.
    """

    CLAMP = 0
    PROJECT = 1
    REJECT = 2
    PASSTHROUGH = 3


class _State(NamedTuple):
    policy: GradientPolicy
    loss_scale: float


_DEFAULT = _State(GradientPolicy.CLAMP, 1.0)
_context: ContextVar[_State | None] = ContextVar("zeroproof_gradient_policy", default=None)
_STASH = "zeroproof_gradient_policy"


def checked_policy(policy: object) -> GradientPolicy:
    """Return a policy that is one.

    Raises:
        RangeError: It is not.
    """
    if isinstance(policy, GradientPolicy):
        return policy
    names = ", ".join(member.name for member in GradientPolicy)
    raise RangeError(f"policy must be a GradientPolicy ({names}), got {policy!r}")


@contextlib.contextmanager
def gradient_policy(
    policy: GradientPolicy, *, loss_scale: float | None = None
) -> Iterator[GradientPolicy]:
    """Set the gradient policy for every backward pass that runs inside the `with` block.

    The policy is read while backward runs, so only `backward()` has to stand inside. Blocks nest.

    Args:
        policy: The policy in force where no layer has one registered.
        loss_scale: Factor by which the loss was multiplied before backward (a GradScaler's scale);
            CLAMP's bound is multiplied by it. `None` keeps the surrounding value, 1 at the outside.

    Raises:
        RangeError: `policy` is not a `GradientPolicy`, or `loss_scale` not a finite number above 0.

    Examples:
        >>> import torch
        >>> from zeroproof.scm import SCM
        >>> x = torch.tensor([0.5, 0.0], requires_grad=True)
        >>> y = (1 / SCM(x)).to_ieee().nan_to_num().sum()
        >>> with gradient_policy(GradientPolicy.PROJECT):
        ...     y.backward()
        >>> x.grad
        tensor([-4.,  0.])
    """
    policy = checked_policy(policy)
    scale = _state().loss_scale if loss_scale is None else positive(loss_scale, "loss_scale")
    state, previous = _State(policy, scale), stashed(_STASH)
    token = _context.set(state)
    stash(_STASH, (threading.get_ident(), state))
    try:
        yield policy
    finally:
        _context.reset(token)
        stash(_STASH, previous)


def _state() -> _State:
    state = _context.get()
    if state is not None:
        return state
    entry: tuple[int, _State] | None = stashed(_STASH)
    if entry is None or entry[0] == threading.get_ident():
        return _DEFAULT
    return entry[1]


def active_policy() -> GradientPolicy:
    """Return the policy of the surrounding `gradient_policy` block, CLAMP outside of any."""
    return _state().policy


def policy_in_force(fixed: int) -> tuple[GradientPolicy, float]:
    """Return (policy, CLAMP's bound); the policy is `fixed` unless that is negative."""
    state = _state()
    return (GradientPolicy(fixed) if fixed >= 0 else state.policy), state.loss_scale


class Ruling(NamedTuple):
    """What the policy in force asks for: Python values in eager, scalar tensors when compiled."""

    masked: Any  # true: gradients at ⊥ are 0
    bound: Any  # |gradient| may not exceed this
    closed: Any  # true: every gradient is 0


def ruling_in_force(fixed: int) -> Ruling:
    """Return what the policy in force asks for; it is `fixed` unless that is negative."""
    return _ruling(*policy_in_force(fixed))


@functools.lru_cache(maxsize=64)
def _ruling(policy: GradientPolicy, bound: float) -> Ruling:
    return Ruling(
        masked=policy is not GradientPolicy.PASSTHROUGH,
        bound=bound if policy is GradientPolicy.CLAMP else math.inf,
        closed=policy is GradientPolicy.REJECT,
    )


_scopes = threading.local()
_registered: frozenset[int] = frozenset()  # looked at first: no operation pays for more


def open_scopes() -> list[list[Any]]:
    """Return [policy code, whether it was asked for] of the registered forwards that run here."""
    if not hasattr(_scopes, "open"):
        _scopes.open = []
    return _scopes.open


def scoped(fixed: int) -> int:
    """Return a policy code: `fixed`, or that of the registered module whose forward runs, or -1."""
    if not _registered:
        return fixed
    scopes = open_scopes()
    if scopes:
        scopes[-1][1] = True
        return fixed if fixed >= 0 else scopes[-1][0]
    return fixed


@contextlib.contextmanager
def scope_of(code: int) -> Iterator[None]:
    """Let operations follow a policy code as if in the forward of a module registered with it."""
    open_scopes().append([code, True])
    try:
        yield
    finally:
        open_scopes().pop()


def note_registrations(codes: frozenset[int]) -> None:
    """Say which policies are registered on some module."""
    global _registered  # noqa: PLW0603 - see there
    _registered = codes


def registrations() -> frozenset[int]:
    """Return the policies that are registered on some module."""
    return _registered
