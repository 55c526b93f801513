"""What the cells of a table say: a number, ±∞, ⊥, nan, missing, a bound, or text."""

import datetime
import enum
import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zeroproof._extras import require
from zeroproof.errors import RangeError

__all__ = [
    "SPECIAL",
    "CellOptions",
    "Cells",
    "Kind",
    "Marks",
    "limits_of",
    "plain_number",
    "read_cells",
    "readable",
]


class Marks(NamedTuple):
    """The decimal mark, and the mark between thousands or ""."""

    decimal: str = "."
    thousands: str = ""


class Kind(enum.IntEnum):
    """What a cell is."""

    NUMBER = 0
    INFINITE = 1  # inf, -inf
    BOTTOM = 2  # a division by zero: singular, sign unknown
    NAN = 3  # bottom or missing: the user says which
    MISSING = 4
    BOUND = 5  # <a, >a, [a,b]
    TEXT = 6


_WORDS = {
    Kind.MISSING: "|na|n/a|n.a.|null|none|-|--|---|.|..|?|#n/a|<na>|missing|nat",
    Kind.NAN: "nan|-nan|+nan|nan(ind)|-nan(ind)|1.#qnan|-1.#ind|1.#ind|1.#nan",
    Kind.BOTTOM: "#div/0!|#div/0|div/0|#¡div/0!|⊥",
    Kind.INFINITE: "inf|+inf|-inf|infinity|+infinity|-infinity|∞|+∞|-∞|1.#inf|+1.#inf|-1.#inf",
}
_NAN = {None: Kind.NAN, "bottom": Kind.BOTTOM, "missing": Kind.MISSING}
SPECIAL = {word: kind for kind, words in _WORDS.items() for word in words.split("|")}
_SIGNS = str.maketrans(
    {"−": "-", "\u2013": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "} | {"’": "'"}
)
_FORTRAN = re.compile(r"(?<=[0-9.])[dD](?=[+-][0-9]{2,3}$)")
_BOUND = re.compile(r"(<=?|>=?|≤|≥)\s*(.+)")
_INTERVAL = re.compile(r"\[(.+?)\s*[,;]\s*([^,;]+)\]")


class CellOptions(NamedTuple):
    """What the user said about cells."""

    nan: str | None = None  # "bottom" or "missing"
    missing: tuple[str, ...] = ()
    limits: Mapping[str, str] = {}  # a word, as LOD, to a bound, as <0.006


class Cells(NamedTuple):
    """A column, cell by cell."""

    value: NDArray[np.float64]  # a number or ±inf; nan for all else
    kind: NDArray[np.int8]
    low: NDArray[np.float64]  # of bounds; nan for all else
    high: NDArray[np.float64]
    percent: int  # how many cells have a sign %
    tokens: Mapping[str, tuple[int, Kind]]  # what is no plain number: how many there are
    text: Any  # the cells as text, an Arrow array

    def count(self, *kinds: Kind) -> int:
        """Return how many cells are of these kinds."""
        return int(np.isin(self.kind, kinds).sum())

    def first(self, allowed: Iterable[Kind]) -> int:
        """Return the first row whose cell is of none of these kinds."""
        return int(np.argmin(np.isin(self.kind, list(allowed))))


@lru_cache
def _pattern(marks: Marks) -> str:
    point, group = re.escape(marks.decimal), re.escape(marks.thousands)
    # four digits before a mark are a careless writer's, and as likely as three decimals everywhere
    whole = rf"(?:[1-9][0-9]*(?:{group}[0-9]{{3}})+|[0-9]+)" if group else "[0-9]+"
    return rf"^[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?$"


def plain_number(cell: str, marks: Marks) -> float | None:
    """Return a cell's number, or that of a bound or in percent; `None` if it has none."""
    cell = cell.strip().translate(_SIGNS)
    bound = _BOUND.fullmatch(cell)
    cell = (bound[2] if bound else cell).removesuffix("%").rstrip()
    cell = _FORTRAN.sub("e", cell)
    if not re.match(_pattern(marks), cell):
        return None
    cell = cell.replace(marks.thousands, "") if marks.thousands else cell
    return float(cell.replace(marks.decimal, "."))


def limits_of(texts: Mapping[str, str] | tuple[str, ...]) -> dict[str, str]:
    """Read `LOD=0.006` and `OVRFLW=>4.0`; a bare number is a limit that values lie below.

    Raises:
        RangeError: It says something else.
    """
    found = {}
    pairs = texts.items() if isinstance(texts, Mapping) else (t.partition("=")[::2] for t in texts)
    for word, bound in pairs:
        text = bound.strip() if bound.strip()[:1] in "<>≤≥" else f"<{bound.strip()}"
        if not word.strip() or not bound.strip() or plain_number(text, Marks()) is None:
            raise RangeError(
                f"--limit must be a word and a bound, as LOD=0.006 or OVRFLW='>4.0', got {word}="
                f"{bound}"
            )
        found[word.strip()] = text
    return found


def readable(kind: Any) -> bool:
    """Tell whether an Arrow type is one of numbers, text or dates."""
    types = require("pyarrow", extra="data").types
    if types.is_dictionary(kind):
        return readable(kind.value_type)
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    dates = types.is_date(kind) or types.is_timestamp(kind)
    texts = types.is_boolean(kind) or types.is_null(kind) or "string" in str(kind)
    return numbers or dates or texts


def read_cells(column: Any, marks: Marks, options: CellOptions) -> Cells:
    """Read a column of text or of numbers, an Arrow array in pieces."""
    cells = _read(column, marks, options)
    for word in (*options.missing, *options.limits):
        number = plain_number(word, Marks())  # as -999 for what is missing
        hit = cells.value == number
        if number is not None and hit.any():
            said = _token(word, Marks(), options)
            parts = ("value", "kind", "low", "high")
            new = [np.where(hit, s, getattr(cells, p)) for p, s in zip(parts, said, strict=True)]
            tokens = {**cells.tokens, word: (int(hit.sum()), Kind(said[1]))}
            cells = cells._replace(**dict(zip(parts, new, strict=True)), tokens=tokens)
    return cells


def _read(column: Any, marks: Marks, options: CellOptions) -> Cells:
    arrow, compute = require("pyarrow", extra="data"), require("pyarrow.compute", extra="data")
    types, kind = arrow.types, column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(arrow.string()), arrow.string()
    if types.is_boolean(kind):
        column, kind = compute.if_else(column, "true", "false"), arrow.string()
    if types.is_date(kind) or types.is_timestamp(kind):
        column = arrow.chunked_array([arrow.array([_date(x) for x in column.to_pylist()])])
        kind = column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return _of_numbers(column.cast(arrow.float64(), safe=False), options)
    if types.is_null(kind):
        return _of_numbers(column.cast(arrow.float64()), options)
    text = compute.fill_null(compute.utf8_trim_whitespace(column.cast(arrow.string())), "")
    try:
        plain = marks == Marks() and compute.cast(text, arrow.float64()).to_numpy()
    except arrow.ArrowInvalid:
        plain = False
    if plain is not False and np.isfinite(plain).all():
        return _cells(plain, text=text)
    is_number = compute.match_substring_regex(text, _pattern(marks))
    digits = text.filter(is_number)
    if marks.thousands:
        digits = compute.replace_substring(digits, marks.thousands, "")
    if marks.decimal != ".":
        digits = compute.replace_substring(digits, marks.decimal, ".")
    mask = is_number.to_numpy()
    value = np.full(len(mask), np.nan)
    value[mask] = [float(x) for x in digits.to_pylist()] if len(digits) else []
    return _with_tokens(value, mask, text, marks, options)


def _date(moment: Any) -> float | None:
    """Return days since 1970."""
    if moment is None:
        return None
    if isinstance(moment, datetime.datetime):
        moment = moment.replace(tzinfo=moment.tzinfo or datetime.UTC)
        return moment.timestamp() / 86400
    return float((moment - datetime.date(1970, 1, 1)).days)


def _of_numbers(column: Any, options: CellOptions) -> Cells:
    value = column.to_numpy().astype(np.float64)
    missing = column.is_null().to_numpy()
    nan = _NAN[options.nan]
    kind = np.zeros(len(value), np.int8)
    tokens = {}
    cases = {"": (missing, Kind.MISSING), "nan": (np.isnan(value) & ~missing, nan)}
    for word, (hit, what) in (cases | {"inf": (np.isinf(value), Kind.INFINITE)}).items():
        kind[hit] = what
        if hit.any():
            tokens[word] = (int(hit.sum()), what)
    return _cells(value, kind, tokens=tokens)


def _cells(value: Any, kind: Any = None, *, text: Any = None, **more: Any) -> Cells:
    nothing = np.broadcast_to(np.float64(np.nan), len(value))
    kind = np.zeros(len(value), np.int8) if kind is None else kind
    rest = {"low": nothing, "high": nothing, "percent": 0, "tokens": {}} | more
    return Cells(value=value, kind=kind, text=text, **rest)


def _with_tokens(value: Any, mask: Any, text: Any, marks: Marks, options: CellOptions) -> Cells:
    """Read what is no plain number, each kind of cell once."""
    kind = np.zeros(len(value), np.int8)
    low, high = np.full((2, len(value)), np.nan)
    overflowed = np.isinf(value)  # 1e999 is no infinity
    mask = mask & ~overflowed
    coded = text.filter(~mask).combine_chunks().dictionary_encode()
    codes, words = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    read = [_token(word, marks, options) for word in words]
    places = np.flatnonzero(~mask)
    for field, array in enumerate((value, kind, low, high)):
        array[places] = np.array([each[field] for each in read], array.dtype)[codes]
    counts = np.bincount(codes, minlength=len(words))
    percent = int(sum(n for n, w in zip(counts, words, strict=True) if w.endswith("%")))
    tokens = {
        word: (int(count), Kind(each[1]))
        for word, count, each in zip(words, counts, read, strict=True)
        if each[1] != Kind.NUMBER
    }
    return _cells(value, kind, text=text, low=low, high=high, percent=percent, tokens=tokens)


def _token(word: str, marks: Marks, options: CellOptions) -> tuple[float, int, float, float]:
    """Return value, kind and limits of a cell."""
    value = low = high = math.nan
    kind = Kind.TEXT
    sign, name = _parts(word.translate(_SIGNS))
    if name in options.limits:
        usual, name = _parts(options.limits[name])
        sign, marks = sign or usual, Marks()
    known = SPECIAL.get(sign + name.lower())
    number = plain_number(name, marks)
    pair = _INTERVAL.fullmatch(name)
    ends = [plain_number(end, marks) for end in pair.groups()] if pair else []
    if word in options.missing:
        kind = Kind.MISSING
    elif known == Kind.INFINITE:
        kind, value = known, -math.inf if name[0] == "-" else math.inf
    elif known == Kind.NAN:
        kind = _NAN[options.nan]
    elif known is not None:
        kind = known
    elif number is not None and math.isfinite(number):  # 1e999 is no infinity
        kind = Kind.BOUND if sign else Kind.NUMBER
        if sign:
            low, high = (-math.inf, number) if sign[0] in "<≤" else (number, math.inf)
        else:
            value = number / 100 if name.endswith("%") else number
    elif len(ends) == 2 and ends[0] is not None and ends[1] is not None and ends[0] <= ends[1]:
        kind, low, high = Kind.BOUND, ends[0], ends[1]
    return value, kind, low, high


def _parts(word: str) -> tuple[str, str]:
    """Cut the sign of a bound from a cell."""
    found = _BOUND.fullmatch(word)
    return (found[1], found[2]) if found else ("", word)
