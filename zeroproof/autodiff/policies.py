"""Which gradient policy is in force: of a layer, of a context, or CLAMP. `gate.py` acts on it.

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
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple

from torch import nn

from zeroproof._checks import positive
from zeroproof.autodiff.torch_internals import stash, stashed
from zeroproof.errors import RangeError

__all__ = [
    "GradientPolicy",
    "PolicyModule",
    "Registration",
    "active_policy",
    "gradient_policy",
    "register_policy",
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


def _policy(policy: object) -> GradientPolicy:
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
    policy = _policy(policy)
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


class PolicyModule(nn.Module):
    """Base of every layer that `register_policy` reaches.

    Attributes:
        policy_code: The registered policy as an integer, -1 where none is registered. Layers hand
            it to the operations they call. A copy or an unpickled layer starts without
            registration.
    """

    policy_code: int = -1

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("policy_code", None)
        return state


_registered: weakref.WeakKeyDictionary[nn.Module, GradientPolicy] = weakref.WeakKeyDictionary()
_governed: weakref.WeakSet[PolicyModule] = weakref.WeakSet()


class Registration:
    """Handle of one `register_policy` call; as a context manager it restores what was before."""

    def __init__(self, module: nn.Module, previous: GradientPolicy | None) -> None:
        self._module = weakref.ref(module)
        self._previous = previous

    def __enter__(self) -> "Registration":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        module = self._module()
        if module is not None:
            _assign(module, self._previous)


def register_policy(module: nn.Module, policy: GradientPolicy | None) -> Registration:
    """Fix the policy of a layer and of every zeroproof layer inside it, whatever the context says.

    Precedence: the policy registered on the nearest enclosing module, then the context active while
    backward runs, then CLAMP. It holds for this instance alone, until it is replaced by a second
    call or removed by `None`, and as long as `module` lives. Layers added to it later are reached
    by calling again.

    Args:
        module: A zeroproof layer, or any module that contains some.
        policy: The policy, or `None` to remove the registration.

    Returns:
        A handle that may be used as a context manager: `with register_policy(layer, policy): ...`
        restores the previous registration at its end.

    Raises:
        RangeError: `policy` is no `GradientPolicy`, or `module` no `nn.Module`.

    Examples:
        >>> from zeroproof.layers import Rational
        >>> layer = Rational(degrees=(3, 2))
        >>> with register_policy(layer, GradientPolicy.PROJECT):
        ...     pass  # forward and backward of `layer` follow PROJECT here
    """
    if not isinstance(module, nn.Module):
        raise RangeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    previous = _registered.get(module)
    _assign(module, None if policy is None else _policy(policy))
    return Registration(module, previous)


def _assign(module: nn.Module, policy: GradientPolicy | None) -> None:
    if policy is None:
        _registered.pop(module, None)
    else:
        if module not in _registered:
            # layers may outlive the module through which they were reached, its registration not
            weakref.finalize(module, _refresh).atexit = False
        _registered[module] = policy
    _refresh()


def _refresh() -> None:
    """Find every layer's policy anew, so that the nearest ancestor wins whatever came first."""
    nearest: dict[PolicyModule, tuple[int, int]] = {}
    for root, policy in list(_registered.items()):
        for path, layer in root.named_modules(remove_duplicate=False):
            if isinstance(layer, PolicyModule):
                depth = path.count(".") + 1 if path else 0
                if layer not in nearest or depth < nearest[layer][0]:
                    nearest[layer] = (depth, int(policy))
    for layer in list(_governed):
        if layer not in nearest:
            layer.policy_code = -1
            _governed.discard(layer)
    for layer, (_, code) in nearest.items():
        layer.policy_code = code
        _governed.add(layer)
