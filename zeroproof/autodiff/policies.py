"""Gradient policies: of a context, and registered on a module."""

import warnings
import weakref
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from zeroproof.autodiff.gate import gate, governing
from zeroproof.autodiff.in_force import (
    GradientPolicy,
    active_policy,
    checked_policy,
    gradient_policy,
    note_registrations,
    open_scopes,
    policy_in_force,
)
from zeroproof.errors import RangeError

__all__ = [
    "GradientPolicy",
    "PolicyModule",
    "Registration",
    "active_policy",
    "gradient_policy",
    "idle",
    "policy_in_force",
    "register_policy",
]


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


class _Scope:
    """Hooks of a registered module: operations in its forward, and its tuples, follow its policy.

    A layer has none, since it hands on its own code. In a copy of the module they do nothing.
    """

    def __init__(self, module: nn.Module | None = None, code: int = -1) -> None:
        self.code, self._told = code, False
        self._handles: list[Any] = []
        if module is not None and not isinstance(module, PolicyModule):
            self._layers = any(isinstance(inner, PolicyModule) for inner in module.modules())
            self._handles = [
                module.register_forward_pre_hook(self.enter),
                module.register_forward_hook(self.leave, always_call=True),
            ]

    def enter(self, module: nn.Module, _: Any) -> None:
        if self.code >= 0:
            open_scopes().append([self.code, False])

    def leave(self, module: nn.Module, _: Any, output: Any) -> Any:
        if self.code < 0:
            return None
        _, used = open_scopes().pop()
        gated = _gated_output(output, self.code, layers=self._layers)
        acts = used or self._layers or gated is not None or output is None
        if not (acts or self._told or torch.compiler.is_compiling()):
            self._told = True
            warnings.warn(
                f"the policy registered on {type(module).__name__} acts on nothing: its forward "
                "ran no operation of zeroproof and returned no tuple (N, D)",
                stacklevel=4,
            )
        return gated

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def __deepcopy__(self, _: Any) -> "_Scope":
        return _Scope()

    def __reduce__(self) -> Any:
        return _Scope, ()


def _gated_output(output: Any, code: int, *, layers: bool) -> Any:
    """Return the tuples (N, D) of a registered module behind its gate; `None` for anything else.

    Those of a layer inside, which has the nearer policy, have a gate already.
    """
    if not (isinstance(output, tuple | list) and len(output) == 2):
        return None
    N, D = output
    numbers = (
        isinstance(N, Tensor) and isinstance(D, Tensor) and torch.bool not in {N.dtype, D.dtype}
    )
    if not numbers or D.shape not in (N.shape, (*N.shape[:-1], 1)):
        return None
    if layers if torch.compiler.is_compiling() else governing(N, D) >= 0:
        return None
    bottom = ((N == 0) & (D == 0)) | ~torch.isfinite(N) | ~torch.isfinite(D)
    pair = gate(N, D, bottom, code)
    kind: Any = type(output)
    return kind(*pair) if hasattr(output, "_fields") else kind(pair)


def idle(model: nn.Module) -> list[str]:
    """Return the modules inside `model`, by name, with a policy, but without any gradient."""
    registered = ((name, module) for name, module in model.named_modules() if module in _registered)
    learning = ((name, [p for p in m.parameters() if p.requires_grad]) for name, m in registered)
    return [name for name, ps in learning if ps and all(p.grad is None for p in ps)]


_registered: weakref.WeakKeyDictionary[nn.Module, _Scope] = weakref.WeakKeyDictionary()
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
    """Fix the policy of a module: of all that its forward does, whatever the context says.

    It holds for the zeroproof layers inside it, for operations on `SCM` values and losses in its
    forward, and for what it returns, if that is (N, D): also in the losses to which these very
    tensors are handed (not from a compiled model, see the warning there).

    Precedence: the policy registered on the nearest enclosing module, then the context active while
    backward runs, then CLAMP. It is noted in forward, holds for this instance alone, until it is
    replaced by a second call or removed by `None`, and as long as `module` lives. Layers added to
    it later are reached by calling again.

    Args:
        module: A zeroproof layer, or any module.
        policy: The policy, or `None` to remove the registration.

    Returns:
        A handle that may be used as a context manager: `with register_policy(layer, policy): ...`
        restores the previous registration at its end.

    Warns:
        UserWarning: When its forward has run and there was nothing to act on; by `SCMTrainer.fit`,
            when it took no part.

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
    scope = _registered.get(module)
    previous = None if scope is None else GradientPolicy(scope.code)
    _assign(module, None if policy is None else checked_policy(policy))
    return Registration(module, previous)


def _assign(module: nn.Module, policy: GradientPolicy | None) -> None:
    before = _registered.pop(module, None)
    if before is not None:
        before.remove()
    if policy is not None:
        _registered[module] = _Scope(module, int(policy))
        if before is None:
            # layers may outlive the module through which they were reached, its registration not
            weakref.finalize(module, _refresh).atexit = False
    _refresh()


def _refresh() -> None:
    """Find every layer's policy anew, so that the nearest ancestor wins whatever came first."""
    note_registrations(frozenset(scope.code for _, scope in _registered.items()))
    nearest: dict[PolicyModule, tuple[int, int]] = {}
    for root, scope in list(_registered.items()):
        for path, layer in root.named_modules(remove_duplicate=False):
            if isinstance(layer, PolicyModule):
                depth = path.count(".") + 1 if path else 0
                if layer not in nearest or depth < nearest[layer][0]:
                    nearest[layer] = (depth, scope.code)
    for layer in list(_governed):
        if layer not in nearest:
            layer.policy_code = -1
            _governed.discard(layer)
    for layer, (_, code) in nearest.items():
        layer.policy_code = code
        _governed.add(layer)
