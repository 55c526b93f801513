"""The meadow in the matrix of transforms: operators, functions, reductions."""

from tests.transforms.functions import Input, computed
from zeroproof import scm
from zeroproof.scm import SCM, division, operation, value
from zeroproof.scm.operation import complex_dtype, integer_power, real_power

__all__ = ["MEADOW"]

NAN = float("nan")
X, Y = Input(signed=True, bottom=NAN), Input(signed=True)
DENOMINATOR = Input(signed=True, bottom=0.0)
POSITIVE = Input(bottom=-1.0)
ARITHMETIC, FUNCTIONS = "Meadow: operators", "Meadow: functions"


def _operator(name, covers, call, *inputs, **options):
    return computed(name, ARITHMETIC, (SCM, *covers), call, *inputs, **options)


def _function(name, covers, call, *inputs, **options):
    return computed(name, FUNCTIONS, covers, call, *inputs, **options)


OPERATORS = (
    _operator("SCM(x)", (operation.fill, value.as_scm, value.trusted), lambda x: +SCM(x), X),
    _operator("from_ieee(x)", (scm.from_ieee,), scm.from_ieee, X),
    _operator("to_ieee(x)", (scm.to_ieee,), lambda x: scm.to_ieee(SCM(x)), X),
    _operator("x + y", (operation.add,), lambda x, y: SCM(x) + SCM(y), X, Y, broadcasts=True),
    _operator("x - y", (operation.sub,), lambda x, y: SCM(x) - y, X, Y, broadcasts=True),
    _operator("x * y", (operation.mul,), lambda x, y: SCM(x) * y, X, Y, broadcasts=True),
    _operator(
        "x / y",
        (
            division.divide,
            division.quotients,
            operation.evaluate,
            operation.Operation,
        ),
        lambda x, y: SCM(x) / SCM(y),
        X,
        DENOMINATOR,
        broadcasts=True,
    ),
    _operator("-x", (operation.neg,), lambda x: -SCM(x), X),
    _operator("x.inv()", (operation.inv,), lambda x: SCM(x).inv(), DENOMINATOR),
    _operator(
        "x ** y",
        (real_power, complex_dtype),
        lambda x, y: SCM(x) ** SCM(y),
        POSITIVE,
        Input(signed=True),
        broadcasts=True,
    ),
    _operator("x ** 3", (integer_power,), lambda x: SCM(x) ** 3, X),
    _operator("x ** -2", (integer_power,), lambda x: SCM(x) ** -2, DENOMINATOR),
    _operator("2 + x", (), lambda x: 2 + SCM(x), X),
    _operator("2 - x", (), lambda x: 2 - SCM(x), X),
    _operator("2 * x", (), lambda x: 2 * SCM(x), X),
    _operator("2 / x", (), lambda x: 2 / SCM(x), DENOMINATOR),
    _operator("2 ** x", (), lambda x: 2 ** SCM(x), X),
    _operator("y + x", (), lambda y, x: y + SCM(x), Y, X, broadcasts=True),
    _operator("y - x", (), lambda y, x: y - SCM(x), Y, X, broadcasts=True),
    _operator("y * x", (), lambda y, x: y * SCM(x), Y, X, broadcasts=True),
    _operator("y / x", (), lambda y, x: y / SCM(x), Y, DENOMINATOR, broadcasts=True),
    _operator("y ** x", (), lambda y, x: y ** SCM(x), Input(), X, broadcasts=True),
)

ELEMENTARY = (
    _function("exp", (scm.exp,), scm.exp, X),
    _function("log", (scm.log,), scm.log, POSITIVE),
    _function("sqrt", (scm.sqrt,), scm.sqrt, POSITIVE),
    _function("sqrt at 0", (scm.sqrt,), scm.sqrt, Input(bottom=0.0)),
    _function("sin", (scm.sin,), scm.sin, X),
    _function("cos", (scm.cos,), scm.cos, X),
    _function("tan", (scm.tan,), scm.tan, Input(0.2, 1.2, signed=True, bottom=NAN)),
    _function("power", (scm.power,), scm.power, POSITIVE, Y, broadcasts=True),
    _function("weak_sign", (scm.weak_sign,), scm.weak_sign, X),
)

REDUCTIONS = (
    _function("masked_sum", (scm.masked_sum,), lambda x: scm.masked_sum(SCM(x)), X),
    _function("masked_mean", (scm.masked_mean,), lambda x: scm.masked_mean(SCM(x)), X),
    _function(
        "masked_mean(dim=-1)",
        (scm.masked_mean,),
        lambda x: scm.masked_mean(SCM(x), dim=-1),
        X,
    ),
)

MEADOW = (*OPERATORS, *ELEMENTARY, *REDUCTIONS)
