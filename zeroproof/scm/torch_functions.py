"""What functions of torch mean for SCM values, by name: operators of tensors arrive here, too."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zeroproof.errors import NotSupportedError
from zeroproof.scm import functions
from zeroproof.scm.sign import weak_sign
from zeroproof.scm.value import MEANINGS, SCM, Operand, as_scm, trusted

__all__: list[str] = []


def _of_two(act: Callable[..., SCM]) -> Callable[..., SCM]:
    """Return an operator in which only the second operand may be an SCM value."""

    def of_two(left: Operand, right: Operand) -> SCM:
        return act(as_scm(left, right if isinstance(right, SCM) else None), right)

    return of_two


def _reflected(act: Callable[..., SCM]) -> Callable[..., SCM]:
    # it comes with the tensor in second place
    return lambda right, left: _of_two(act)(left, right)


def _joined(join: Callable[..., Tensor]) -> Callable[..., SCM]:
    def joined(tensors: Sequence[Operand], dim: int = 0) -> SCM:
        payloads, bottoms = zip(*map(as_scm, tensors), strict=True)
        return trusted(join(payloads, dim), join(bottoms, dim))

    return joined


def _where(condition: Tensor, x: Operand, y: Operand) -> SCM:
    if isinstance(condition, SCM):
        raise NotSupportedError("a condition must be a boolean tensor, got an SCM value")
    like = x if isinstance(x, SCM) else y if isinstance(y, SCM) else None
    x, y = as_scm(x, like), as_scm(y, like)
    value = torch.where(condition, x.payload, y.payload)
    return trusted(value, torch.where(condition, x.bottom, y.bottom))


_OPERATORS = [
    (SCM.__add__, "add"),
    (SCM.__sub__, "sub subtract"),
    (SCM.__mul__, "mul multiply"),
    (SCM.__truediv__, "div divide true_divide truediv"),
    (SCM.__pow__, "pow float_power"),
    (SCM.__matmul__, "matmul __matmul__"),
]
MEANINGS |= {
    **{name: _of_two(act) for act, names in _OPERATORS for name in names.split()},
    **dict.fromkeys(("rsub", "__rsub__"), _reflected(SCM.__sub__)),
    "__rdiv__": _reflected(SCM.__truediv__),
    "__rpow__": _reflected(SCM.__pow__),
    "__rmatmul__": _reflected(SCM.__matmul__),
    **dict.fromkeys(("neg", "negative"), SCM.__neg__),
    **dict.fromkeys(("abs", "absolute"), SCM.abs),
    **dict.fromkeys(("sgn", "sign"), weak_sign),
    "reciprocal": SCM.inv,
    "square": lambda x: x * x,
    **{name: getattr(functions, name) for name in functions.__all__ if name != "power"},
    "sum": SCM.sum,
    "mean": SCM.mean,
    "where": _where,
    "stack": _joined(torch.stack),
    **dict.fromkeys(("cat", "concat", "concatenate"), _joined(torch.cat)),
    "isnan": lambda x: x.bottom,
    "isfinite": lambda x: ~x.bottom,
}
