"""What functions of torch mean for SCM values, by name: operators of tensors arrive here, too."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zeroproof.errors import NotSupportedError
from zeroproof.scm import functions
from zeroproof.scm.sign import weak_sign
from zeroproof.scm.value import (
    MEANINGS,
    SCM,
    Operand,
    as_scm,
    minus,
    over,
    plus,
    product,
    times,
    to_the,
    trusted,
)


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


_meanings: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("add", "__radd__"), plus),
    **dict.fromkeys(("sub", "subtract"), minus),
    **dict.fromkeys(("mul", "multiply", "__rmul__"), times),
    **dict.fromkeys(("div", "divide", "true_divide", "truediv"), over),
    **dict.fromkeys(("pow", "float_power"), to_the),
    # reflected ones come with the tensor in second place
    **dict.fromkeys(("rsub", "__rsub__"), lambda right, left: minus(left, right)),
    "__rdiv__": lambda right, left: over(left, right),
    "__rpow__": lambda right, left: to_the(left, right),
    **dict.fromkeys(("matmul", "__matmul__"), product),
    "__rmatmul__": lambda right, left: product(left, right),
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
MEANINGS.update(_meanings)
