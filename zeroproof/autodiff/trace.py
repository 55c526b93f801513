"""Which operation made the first ⊥, the first value or gradient that is not finite."""

import cmath
import contextlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache, partial
from inspect import currentframe
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from zeroproof.autodiff.compiled import MODULE_CALL, function_modes, number_of, set_function_modes
from zeroproof.errors import RangeError
from zeroproof.native import is_transforming

__all__ = ["Finding", "Trace", "note", "trace_bottom"]

_MOST = 16  # findings, after which nothing is looked at any more
_PACKAGE, _TORCH = Path(__file__).parents[1], Path(str(torch.__file__)).parent
# these tell by `note` what an operation made, not each of its steps
_ROOMS = {"_checks.py", "autodiff", "inference", "losses", "native.py", "projective", "scm"}
_KINDS = (Tensor, nn.Parameter)  # a subclass may have no values
_TYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_TYPES |= {torch.complex64, torch.complex128}
_LEAF = 1 << 60  # autograd numbers leaves beyond
# functions that make no number, and nodes of autograd that make nothing of a finite gradient
_MOVES = {"__get__", "__getitem__", "relu", "reshape", "t", "transpose", "view"}
_MOVES |= {"empty", "empty_like", "empty_strided", "new_empty"}
_HARMLESS = {"Add", "Alias", "Clone", "Expand", "Mean", "Neg", "Permute", "Relu", "Reshape", "Sub"}
_HARMLESS |= {"Squeeze", "Sum", "T", "Threshold", "Transpose", "UnsafeView", "Unsqueeze", "View"}


class Finding(NamedTuple):
    """A place where something that is not finite appeared; printing it gives a sentence.

    Attributes:
        direction: `"forward"` for a value, `"backward"` for a gradient.
        what: `"⊥"` where an operation of this package marks it as such, else `"nan"` or `"inf"`.
        operation: Name of the function, layer or autograd node; `"input"` for the model's input.
        module: Qualified name in the model, its class for the model itself, empty outside of it.
        file: The innermost file that belongs neither to torch nor to this package.
        line: The line in it.
        rows: Where, in dimension 0; empty for scalars and gradients of parameters.
        size: How many rows there are.
        step: Which forward pass of the model, from 1.
        before: Rows, or names of parameters, that were not finite before.
    """

    direction: str
    what: str
    operation: str
    module: str
    file: str
    line: int
    rows: tuple[int, ...]
    size: int
    step: int
    before: tuple[int | str, ...]

    def __str__(self) -> str:
        place = f" in {_listed(self.rows)} of {self.size}" if self.rows else ""
        where = f"{self.module or 'no module'} ({Path(self.file).name}:{self.line})"
        start = f"step {self.step}, {self.direction}:"
        if self.operation == "input":
            return f"{start} the input of {where} was {self.what} already{place}"
        forward = self.direction == "forward"
        what = self.what if forward else f"the gradient {self.what}"
        got = "its operands were" if forward else "the gradient that it got was"
        came = f"not finite already: {_listed(self.before)}" if self.before else "finite"
        return f"{start} `{self.operation}` in {where} made {what}{place}; {got} {came}"


def _listed(which: tuple[int | str, ...]) -> str:
    noun = "" if isinstance(which[0], str) else "row " if len(which) == 1 else "rows "
    more = f" and {len(which) - 5} more" if len(which) > 5 else ""
    return noun + ", ".join(map(str, which[:5])) + more


class Trace:
    """What a `trace_bottom` block has found; printing it tells that.

    Attributes:
        findings: Each place once, in order of appearance, 16 at most.
        steps: How many forward passes of the model there were.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.steps = 0

    def __str__(self) -> str:
        nothing = f"every value and gradient of {self.steps} steps was finite"
        return "\n".join(map(str, self.findings)) or nothing


class _Call(NamedTuple):
    name: str
    size: int  # rows
    code: CodeType | None  # of the user's function
    line: int
    module: nn.Module | None  # the innermost that is being called
    marked: bool  # as ⊥, by an operation of this package


@cache
def _owner(file: str) -> str:
    path = Path(file)
    if _PACKAGE in path.parents:
        room = path.relative_to(_PACKAGE).parts[0]
        return "ours" if room in _ROOMS or path.name.startswith("rational") else "torch"
    return "torch" if _TORCH in path.parents else "user"


def _call(name: str, made: Tensor) -> _Call:
    """Say who called: an operation of this package is named as the user or a module called it."""
    code, line, module, marked, frame = None, 0, None, not name, currentframe()
    while frame is not None and (code is None or module is None):
        file = frame.f_code.co_filename
        owner = _owner(file)
        if frame.f_code is MODULE_CALL:
            module = module or frame.f_locals["self"]
        elif owner == "user" and code is None:
            code, line = frame.f_code, frame.f_lineno
        elif owner == "ours" and marked and file != __file__ and code is module is None:
            name = frame.f_code.co_qualname.removesuffix(".forward")
        frame = frame.f_back
    return _Call(name, len(made) if made.ndim else 0, code, line, module, marked)


def _broken(tensors: Iterable[Any]) -> list[Tensor]:
    """Return those that are not finite; most often a sum tells that there are none."""
    bad = [x for x in tensors if _visible(x) and not cmath.isfinite(x.sum().item())]
    return [x for x in bad if not torch.isfinite(x).all()] if bad else bad


def _visible(x: Any) -> bool:
    return type(x) in _KINDS and x.dtype in _TYPES and not (x.is_meta or x.is_sparse)


def _rows(tensors: list[Tensor], size: int) -> set[int]:
    bad = (~torch.isfinite(x.detach()).reshape(size, -1) for x in tensors if x.shape[:1] == (size,))
    return {row for x in bad for row in x.any(1).nonzero().flatten().tolist()}


class _Watch(TorchFunctionMode):
    """Sees the calls of torch's functions from Python, but for those within an optimizer's step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trace, self.depth = Trace(), len(function_modes())
        self.modules = {id(x): name or type(x).__name__ for name, x in model.named_modules()}
        self.tensors = {id(x): n for n, x in (*model.named_parameters(), *model.named_buffers())}
        self.newest = -1  # of autograd's nodes that were seen
        self.told = {"forward": 0, "backward": 0}  # the last step of which something is known
        self.seen: set[tuple[Any, ...]] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.backward:
            self.follow([args[0]], _call("backward", args[0]))
        out = func(*args, **kwargs) if kwargs else func(*args)
        if type(out) is Tensor or isinstance(out, tuple | list):
            name = func.__name__
            caller = sys._getframe(1).f_code  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            if name not in _MOVES and _owner(caller.co_filename) != "ours":
                self.look((out,) if type(out) is Tensor else out, (args, kwargs), name)
        return out

    def look(self, made: Any, operands: Any, name: str) -> None:
        """Look at what an operation made of its operands, and at its gradients later."""
        made = [x for x in made if _visible(x)]
        if not made or len(self.trace.findings) >= _MOST or is_transforming():
            return
        call = _call(name, made[0])
        self.follow(made, call)
        if bad := _broken(made):
            leaves = pytree.tree_leaves(operands)
            if name and any(isinstance(x, float) and not cmath.isfinite(x) for x in leaves):
                self.told["forward"] = self.trace.steps  # written by hand: a mask of attention
                return
            changed = {id(x) for x in made}  # in place: what it was before is lost
            self.judge("forward", bad, _broken(x for x in leaves if id(x) not in changed), call)

    def follow(self, made: list[Tensor], call: _Call) -> None:
        """Hook the nodes of autograd that came with an operation, or since the last one seen."""
        heads = {x.grad_fn for x in made if x.grad_fn is not None}
        todo, newest = list(heads), self.newest
        while todo:
            node = todo.pop()
            if newest < number_of(node) < _LEAF:
                self.newest = max(self.newest, number_of(node))
                todo += [further for further, _ in node.next_functions if further is not None]
                kind = node.name().partition("Backward")[0]
                if kind not in _HARMLESS:
                    call = call if node in heads else call._replace(name=kind)
                    node.register_hook(partial(self.come_back, call))

    def come_back(self, call: _Call, made: Any, got: Any) -> None:
        """Look at the gradients that a node made of those that it got."""
        if self in _watches and (bad := _broken(made)) and len(self.trace.findings) < _MOST:
            self.judge("backward", bad, _broken(got), call)

    def judge(self, direction: str, bad: list[Tensor], given: list[Tensor], call: _Call) -> None:
        """Record an operation, unless it hands on what is known already."""
        name, size, code, line, module, marked = call
        rows, before = _rows(bad, size), _rows(given, size)
        named = tuple(self.tensors[id(x)] for x in given if id(x) in self.tensors)
        handed_on = given and (not rows - before or any(x.shape[:1] != (size,) for x in given))
        told, self.told[direction] = self.told[direction], self.trace.steps
        place = (direction, name, code, line, id(module))
        if place in self.seen or (handed_on and not named and told == self.trace.steps):
            return
        self.seen.add(place)
        nan = any(x.isnan().any() for x in bad)
        what = "⊥" if marked and direction == "forward" else "nan" if nan else "inf"
        where = self.modules.get(id(module), type(module).__name__) if module else ""
        file = code.co_filename if code else ""
        rows = tuple(sorted(rows if handed_on else rows - before))
        known = named or tuple(sorted(before)) or ("an operand",) * bool(given)
        about = (direction, what, name, where, file, line, rows, size, self.trace.steps, known)
        self.trace.findings.append(Finding(*about))

    def enter_model(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        """Count a forward pass, and look at what comes in."""
        self.trace.steps += 1
        self.wake()
        if bad := _broken(pytree.tree_leaves((args, kwargs))):
            self.judge("forward", bad, [], _call("input", bad[0]))

    def wake(self) -> None:
        """Take a place below the modes that were opened within the block, which end first."""
        modes = function_modes()
        if self not in modes:
            set_function_modes([*modes[: self.depth], self, *modes[self.depth :]])

    def rest(self, *_: Any) -> None:
        """See nothing until the model is called again."""
        modes = function_modes()
        if self in modes:
            set_function_modes([mode for mode in modes if mode is not self])


_watches: list[_Watch] = []


def note(value: Tensor, *operands: Tensor) -> None:
    """Tell a trace what an operation of this package made: nan where ⊥ is."""
    for watch in _watches:
        watch.look((value,), operands, "")


@contextlib.contextmanager
def trace_bottom(model: nn.Module) -> Iterator[Trace]:
    """Find which operation makes the first ⊥, the first nan or inf, the first such gradient.

    In the block every call of a function of torch from Python is looked at, in the model and around
    it, and so are the operations of this package and the gradients of all of them; an optimizer's
    step is not. A place is named once: module, operation, line, rows, step. What only hands on is
    not named, nor is an inf or nan that stands in the code, as in a mask of attention.

    A training step of a small network takes about twice its time on a CPU; on an accelerator every
    look waits for it. Compiled models run uncompiled in the block. Not seen: what a scripted module
    does inside, tensors of subclasses, sparse ones, transforms of `torch.func`.

    Args:
        model: Gives modules and parameters their names and counts the steps.

    Yields:
        A `Trace`, to be read in the block or after it.

    Raises:
        RangeError: `model` is no module.

    Examples:
        >>> model = nn.Linear(1, 1)
        >>> with trace_bottom(model) as trace:
        ...     loss = model(torch.ones(8, 1)).sub(model(torch.ones(8, 1))).log().sum()
        >>> finding = trace.findings[0]
        >>> finding.operation, finding.what, finding.rows[:3], finding.size
        ('log', 'inf', (0, 1, 2), 8)
    """
    if not isinstance(model, nn.Module):
        raise RangeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    watch = _Watch(model)
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        hook = model.register_forward_pre_hook(watch.enter_model, prepend=True, with_kwargs=True)
        stack.callback(hook.remove)
        stack.callback(register_optimizer_step_pre_hook(watch.rest).remove)
        _watches.append(watch)
        stack.callback(_watches.remove, watch)
        watch.wake()
        stack.callback(watch.rest)
        yield watch.trace
