"""Gradient policies: what backward does at an operation that can make ⊥.

Which one is in force is read while backward runs: that of a module, of a context, or CLAMP.

- A snapshot taken in forward would ignore `with gradient_policy(...): loss.backward()`.
- A ContextVar alone is invisible to autograd's worker threads, where it would silently read the
  default. Torch's own thread-local stash does reach them, but leaks between asyncio tasks of one
  thread; so the stash carries the id of the thread that entered the context and is believed only
  on a different thread.
- A Python read inside a traced backward would be frozen into the compiled graph. An opaque custom
  op that returns three scalars is read at run time instead; it takes the incoming gradient as an
  argument, so that no partitioner can hoist it into the forward graph.
- A tensor hook sees dL/dy, while the policies speak of dL/dN and dL/dD.
"""

# pyright: reportPrivateUsage=false

import contextlib
import enum
import functools
import math
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeroproof._checks import positive
from zeroproof.errors import RangeError
from zeroproof.native import is_forward_mode, is_tracing, is_transforming, ordinary

__all__ = [
    "GradientPolicy",
    "PolicyModule",
    "Registration",
    "Ruling",
    "active_policy",
    "gate",
    "gating",
    "governing",
    "gradient_policy",
    "idle",
    "register_policy",
    "rule",
    "ruling_in_force",
    "scope_of",
    "scoped",
    "shielded",
    "submit",
]

# --- which policy is in force ---------------------------------------------------------------------


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


def _stash(entry: Any) -> None:
    """Put an entry into torch's thread-local store, which autograd's worker threads inherit."""
    torch._C._stash_obj_in_tls(_STASH, entry)


def _stashed() -> Any:
    """Return what is stored in this thread, or `None`."""
    return torch._C._get_obj_in_tls(_STASH) if torch._C._is_key_in_tls(_STASH) else None


def _checked(policy: object) -> GradientPolicy:
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
    policy = _checked(policy)
    scale = _state().loss_scale if loss_scale is None else positive(loss_scale, "loss_scale")
    state, previous = _State(policy, scale), _stashed()
    token = _context.set(state)
    _stash((threading.get_ident(), state))
    try:
        yield policy
    finally:
        _context.reset(token)
        _stash(previous)


def _state() -> _State:
    state = _context.get()
    if state is not None:
        return state
    entry: tuple[int, _State] | None = _stashed()
    if entry is None or entry[0] == threading.get_ident():
        return _DEFAULT
    return entry[1]


def active_policy() -> GradientPolicy:
    """Return the policy of the surrounding `gradient_policy` block, CLAMP outside of any."""
    return _state().policy


class Ruling(NamedTuple):
    """What the policy in force asks for: Python values in eager, scalar tensors when compiled."""

    masked: Any  # true: gradients at ⊥ are 0
    bound: Any  # |gradient| may not exceed this
    closed: Any  # true: every gradient is 0


def ruling_in_force(fixed: int) -> Ruling:
    """Return what the policy in force asks for; it is `fixed` unless that is negative."""
    state = _state()
    return _ruling(GradientPolicy(fixed) if fixed >= 0 else state.policy, state.loss_scale)


@functools.lru_cache(maxsize=64)
def _ruling(policy: GradientPolicy, bound: float) -> Ruling:
    return Ruling(
        masked=policy is not GradientPolicy.PASSTHROUGH,
        bound=bound if policy is GradientPolicy.CLAMP else math.inf,
        closed=policy is GradientPolicy.REJECT,
    )


_scopes = threading.local()
_codes: frozenset[int] = frozenset()  # registered on some module; no operation pays for more


def _open_scopes() -> list[list[Any]]:
    """Return [policy code, whether it was asked for] of the registered forwards that run here."""
    if not hasattr(_scopes, "open"):
        _scopes.open = []
    return _scopes.open


def scoped(fixed: int) -> int:
    """Return a policy code: `fixed`, or that of the registered module whose forward runs, or -1."""
    if not _codes:
        return fixed
    scopes = _open_scopes()
    if scopes:
        scopes[-1][1] = True
        return fixed if fixed >= 0 else scopes[-1][0]
    return fixed


@contextlib.contextmanager
def scope_of(code: int) -> Iterator[None]:
    """Let operations follow a policy code as if in the forward of a module registered with it."""
    _open_scopes().append([code, True])
    try:
        yield
    finally:
        _open_scopes().pop()


# --- the gate: it acts on gradients while backward runs -------------------------------------------


@torch.library.custom_op("zeroproof::policy_scalars", mutates_args=())
def _policy_scalars(gradient: Tensor, fixed: int) -> Tensor:
    """Return what `ruling_in_force` returns, where `gradient` is."""
    return torch.tensor([float(x) for x in ruling_in_force(fixed)], device=gradient.device)


@_policy_scalars.register_fake
def _(gradient: Tensor, fixed: int) -> Tensor:
    return torch.empty(3, dtype=torch.float32, device=gradient.device)


@_policy_scalars.register_vmap
def _(info: object, in_dims: object, gradient: Tensor, fixed: int) -> tuple[Tensor, None]:
    return _policy_scalars(gradient, fixed), None


class _ReadPolicy(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, fixed: int) -> Tensor:
        return _policy_scalars(gradient, fixed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, None


def gating(*operands: Tensor) -> bool:
    """Tell whether a gate is needed: a gradient is wanted and no plain graph recorded."""
    if not torch.is_grad_enabled() or torch.compiler.is_exporting() or is_tracing():
        return False
    # a tensor inside `torch.func.vmap` does not tell
    return any(x.requires_grad for x in operands) or (
        not torch.compiler.is_compiling() and is_transforming()
    )


def rule(gradient: Tensor, fixed: int) -> Ruling:
    """Read the policy in force; to be called inside a backward. `fixed` is a policy code or -1."""
    if torch.compiler.is_compiling():
        masked, bound, closed = _ReadPolicy.apply(gradient.detach(), fixed).unbind()
        return Ruling(masked > 0, bound, closed > 0)
    return ruling_in_force(fixed)


def shielded(ruling: Ruling, bottom: Tensor) -> Tensor:
    """Where a derivative must see safe operands; nowhere under PASSTHROUGH, which is raw."""
    if isinstance(ruling.masked, bool):
        return bottom if ruling.masked else torch.zeros_like(bottom)
    return bottom & ruling.masked


def submit(gradient: Tensor, bottom: Tensor | None, ruling: Ruling) -> Tensor:
    """Apply a ruling to the gradient of an operand; `bottom` broadcasts to it, or is nowhere."""
    if isinstance(ruling.masked, bool):
        if ruling.closed:
            return torch.zeros_like(gradient)
        if not ruling.masked:
            return gradient
        if ruling.bound < math.inf:
            gradient = _bounded(gradient, ruling.bound)
        return gradient if bottom is None else torch.where(bottom, 0, gradient)
    kill = ruling.closed if bottom is None else (bottom & ruling.masked) | ruling.closed
    return torch.where(kill, 0, _bounded(gradient, ruling.bound))


def _raw(gradient: Tensor, undefined: Tensor | None, ruling: Ruling) -> Tensor:
    """Return nan under PASSTHROUGH where a derivative is undefined; for a shared D, anywhere."""
    if undefined is None or ruling.masked is True:
        return gradient
    if gradient.shape != undefined.shape:
        undefined = undefined.any(-1, keepdim=True)
    if isinstance(ruling.masked, Tensor):
        undefined = undefined & ~ruling.masked
    return torch.where(undefined, math.nan, gradient)


def _bounded(gradient: Tensor, bound: Any) -> Tensor:
    if gradient.is_complex():  # modulus, so that the direction stays
        size = gradient.abs()
        return torch.where(size > bound, bound * _direction(gradient), gradient)
    if isinstance(bound, Tensor):
        bound = bound.to(gradient.dtype)
        return torch.minimum(torch.maximum(gradient, -bound), bound)
    return gradient.clamp(-bound, bound)


def _direction(z: Tensor) -> Tensor:
    """Return z divided by its modulus, where the modulus or a part of z may have overflowed."""
    largest = torch.maximum(z.real.abs(), z.imag.abs())
    infinite = torch.isinf(largest)
    size = torch.where((largest == 0) | infinite, 1, largest)
    # next to an infinite part a finite one is nothing
    parts = (
        torch.where(infinite, torch.where(torch.isinf(x), x.sign(), 0), x / size)
        for x in (z.real, z.imag)
    )
    z = torch.complex(*parts)
    return z / torch.where(z == 0, 1, z.abs())


class _Gate(torch.autograd.Function):
    """Identity on (N, D); the policy acts on their gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        N: Tensor, D: Tensor, bottom: Tensor, fixed: int, undefined: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return N.view_as(N), D.view_as(D)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, _, bottom, ctx.fixed, undefined = inputs
        ctx.tuples_follow = ctx.fixed
        ctx.save_for_backward(bottom, undefined)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor, g_D: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        bottom, undefined = ctx.saved_tensors
        ruling = rule(g_N, ctx.fixed)
        g_N, g_D = _raw(g_N, undefined, ruling), _raw(g_D, undefined, ruling)
        D_bottom = _bottom_of(g_D, bottom)
        return submit(g_N, bottom, ruling), submit(g_D, D_bottom, ruling), None, None, None


class _ForwardGate(_Gate):
    """The same where derivatives travel forward: tangents are 0 at ⊥ and pass elsewhere."""

    @staticmethod
    def forward(
        N: Tensor, D: Tensor, bottom: Tensor, fixed: int, undefined: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return N.clone(), D.clone()  # of a view, the tangent would have to be one

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _Gate.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def jvp(ctx: Any, t_N: Tensor, t_D: Tensor, *_: Any) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (bottom,) = ctx.saved_tensors
        return torch.where(bottom, 0, t_N), torch.where(_bottom_of(t_D, bottom), 0, t_D)


def _bottom_of(D: Tensor, bottom: Tensor) -> Tensor:
    return bottom if D.shape == bottom.shape else bottom.all(-1, keepdim=True)


class _GateNow(torch.autograd.Function):
    """The same in eager mode; without `setup_context`, for which torch inspects every call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _Gate.forward(*inputs)
        _Gate.setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_Gate.backward)  # pyright: ignore[reportAssignmentType]


def gate(
    N: Tensor, D: Tensor, bottom: Tensor, fixed: int = -1, undefined: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return (N, D) unchanged; while backward runs, the policy acts on dL/dN and dL/dD.

    Forward mode (`torch.func.jvp`) has no policy: tangents are 0 at ⊥ and pass unchanged elsewhere,
    as gradients do under PROJECT.

    Args:
        N: Numerators, `(*batch, k)`.
        D: Denominators, the same shape or `(*batch, 1)`.
        bottom: Where the tuple is ⊥, the shape of N. A shared denominator is ⊥ where all its tuples
            are.
        fixed: Policy code of a layer, -1 to follow the context.
        undefined: Where what follows was made safe and has no derivative in truth: under
            PASSTHROUGH gradients are nan there.
    """
    forward, fixed = is_forward_mode(), scoped(fixed)
    if not (forward or gating(N, D)):
        return N, D
    if ordinary(N, D):
        return _GateNow.apply(N, D, bottom, fixed, undefined)
    if N is D:  # the compiler takes no tensor twice
        D = D.view_as(D)
    function = _ForwardGate if forward else _Gate
    return function.apply(N, D, bottom, fixed, undefined)


def governing(*tensors: Tensor) -> int:
    """Return the policy code registered on the module that made tuples, or in whose forward we are.

    Warns:
        UserWarning: They come from a compiled model, whose tensors do not tell.
    """
    if _codes and not torch.compiler.is_compiling():
        for node in (x.grad_fn for x in tensors):
            code = getattr(node, "tuples_follow", -1)
            if code >= 0:
                return code
            if type(node).__name__ == "CompiledFunctionBackward" and _codes != {active_policy()}:
                warnings.warn(
                    "a policy is registered on some module, but tuples of a compiled model do not "
                    "tell of which: their loss follows gradient_policy(...) around backward",
                    stacklevel=4,
                )
                break
    return scoped(-1)


# --- registered on a module -----------------------------------------------------------------------


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
            _open_scopes().append([self.code, False])

    def leave(self, module: nn.Module, _: Any, output: Any) -> Any:
        if self.code < 0:
            return None
        _, used = _open_scopes().pop()
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
    _assign(module, None if policy is None else _checked(policy))
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
    global _codes  # noqa: PLW0603 - see there
    _codes = frozenset(scope.code for _, scope in _registered.items())
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
