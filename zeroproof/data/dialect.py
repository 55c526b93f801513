"""How a text file writes a table, found by trying: separator, marks in numbers, header, units.

Every separator and every pair of decimal and thousands mark is tried. A reading is worth the number
of cells that it reads as numbers. If the two best are worth the same and read other numbers, the
file itself does not tell, and both are named.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zeroproof.data.cells import SPECIAL, Marks, plain_number
from zeroproof.errors import DataError

__all__ = ["Dialect", "Reading", "chosen", "is_comment", "sniff", "split"]

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
_SPELLED = {"\t": "tab", " ": "blank"}
_MARKS = (
    (".", ""),
    (",", ""),
    (".", ","),
    (",", "."),
    (".", "'"),
    (".", " "),
    (",", " "),
    (",", "'"),
)
_COMMENTS = "#", "%", "!"
_CLOSE = 0.5  # in numbers: a reading that is worth so little less is as good
_CELLS = 8_000  # that one reading is tried on
_FACTOR = (
    r"(?:[yzafpnuµμmcdhkMGTPE]?(?:m|s|g|A|V|W|J|N|Pa|Hz|Ω|Ohm|F|H|T|C|K|L|l|M|mol|eV|bar|rad|sr|lm|lx"
    r"|cd|Da|U|IU|B|dB|dBm|Wh|Ah|VA)|%|[°º][CFK]?|a\.?u\.?|AU|counts?|cts|cps|OD|pH|sec|min|h|hrs?|"
    r"hours?|d|days?|yr|years?|deg|ppm|ppb|rpm|psi|atm|Å|in|ft|1)(?:[\^*]{0,2}[-−]?[0-9²³⁻¹]+)?"
)
_UNIT = re.compile(
    rf"[\[(]?\s*(?:[-–]|/?{_FACTOR}(?:\s?[/·.*×]\s?{_FACTOR}|\s{_FACTOR})*)\s*[\])]?"
)


class Reading(NamedTuple):
    """What the user said about a file; `None` is to be found."""

    sep: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    comment: str | None = None
    skip: int | None = None  # lines above the header
    units_row: bool | None = None


class Dialect(NamedTuple):
    """How a file is written."""

    sep: str  # " " stands for any run of blanks
    marks: Marks
    comment: str
    start: int  # lines above the rows
    names: tuple[str, ...]  # "" where a column has none
    units: tuple[str, ...]  # nothing if there is no row of units
    skipped: int  # lines above the header

    def said(self) -> list[str]:
        """Say it in words, leaving out what is usual."""
        decimal, thousands = self.marks
        words = {
            f"{SEPARATORS.get(self.sep, repr(self.sep))} between columns": self.sep
            not in (",", ""),
            "decimal comma": decimal == ",",
            f"thousands mark {thousands!r}": thousands,
            f"comments after {self.comment!r}": self.comment,
            f"lines above the header left out: {self.skipped}": self.skipped,
            f"units {', '.join(unit or '-' for unit in self.units)}": self.units,
            "columns without names are called column1, ...": self.names[:1] == ("column1",),
            "numbers among the names of columns": any(
                plain_number(name, self.marks) is not None for name in self.names
            ),
        }
        return [word for word, holds in words.items() if holds]


class _Layout(NamedTuple):
    """Where in split rows the table stands."""

    start: int  # the first row of numbers
    header: int | None
    names: tuple[str, ...]
    units: tuple[str, ...]
    worth: float
    complete: bool  # no cell is text
    numbers: list[list[float | None]]


def _alone(layout: _Layout) -> list[list[float]]:
    return [[number for number in row if number is not None] for row in layout.numbers]


def split(lines: Sequence[str], sep: str) -> Iterator[tuple[int, list[str]]]:
    """Yield rows that are not blank, each with the number of lines up to its end."""
    if sep == " ":
        lines = [" ".join(line.split()) for line in lines]
    reader = csv.reader(lines, delimiter=sep, skipinitialspace=True)
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, row


def sniff(lines: Sequence[str], asked: Reading, name: str) -> Dialect:
    """Find how a file is written.

    Args:
        lines: Its beginning, whole lines with their ends.
        asked: What is given.
        name: Of the file, for messages.

    Raises:
        DataError: No table is found, or two readings are as good.
    """
    above, asked = _declared(lines, asked)
    comment = _comment(lines[above:], asked)
    kept = [i for i in range(above, len(lines)) if not comment or not is_comment(lines[i], comment)]
    text = [lines[i] for i in kept]
    rows: list[tuple[str, list[int], list[list[str]]]] = []
    for sep in SEPARATORS if asked.sep is None else [asked.sep]:
        try:
            pairs = list(split(text, sep))
        except csv.Error:
            continue
        cells = [row for _, row in pairs]
        if cells and not any(cells == other for *_, other in rows):  # each way to split once
            rows.append((sep, [end for end, _ in pairs], cells))
    found = chosen(rows, asked, name, quoted=any('"' in line for line in text))
    # lines of the text without comments are counted in the whole text
    start = kept[found.start] if found.start < len(kept) else len(lines)
    skipped = kept[found.skipped]
    if comment and found.names[:1] == ("column1",):
        found = _titled(found, lines[start - 1] if start else "", comment)
    return found._replace(comment=comment, start=start, skipped=skipped)


def chosen(
    splits: Sequence[tuple[str, Sequence[int], Sequence[Sequence[str]]]],
    asked: Reading,
    name: str,
    *,
    quoted: bool = True,
) -> Dialect:
    """Return the reading that finds most numbers.

    Args:
        splits: Ways to split a text: the separator, for each row the lines up to its end, the rows.
        asked: What is given.
        name: Of the file, for messages.
        quoted: Whether cells may hold the separator.

    Raises:
        DataError: No table is found, or two readings are as good.
    """
    found: list[tuple[Dialect, _Layout]] = []
    for sep, ends, rows in splits:
        lines = [0, *ends]
        for marks in _marks(asked, sep, quoted=quoted):
            table = _layout(rows, sep, marks, asked)
            if table is not None:
                start = lines[table.start]
                head = start if table.header is None else lines[table.header]
                found.append(
                    (Dialect(sep, marks, "", start, table.names, table.units, head), table)
                )
    if not found and all(len(rows) == 1 for _, _, rows in splits):
        raise DataError(f"{name} must have at least one row below its header, got none")
    if not found:
        raise DataError(
            f"{name} must hold a table with a column of numbers, got none; "
            "say how it is written: --sep, --decimal, --skip"
        )
    found.sort(key=lambda each: -each[1].worth)
    best, table = found[0]
    for other, other_table in found[1:]:
        close = other_table.worth >= table.worth - _CLOSE
        close |= table.header is None and other_table.complete
        if close and _alone(other_table) != _alone(table):
            raise DataError(
                f"{name} must be written in one way, got two that fit: {_options(best)}, "
                f"or {_options(other)}; give one of them"
            )
    return best


def _declared(lines: Sequence[str], asked: Reading) -> tuple[int, Reading]:
    """Return how many lines are said to stand above the table; Excel's `sep=;` is one."""
    skip = asked.skip or 0
    told = re.match(r'"?sep=(.)"?\s*$', lines[0]) if lines and not skip else None
    if told:
        return 1, asked._replace(sep=asked.sep or told[1])
    return skip, asked


_ERROR = re.compile(r'"?#(?:N/?[AVD]\b|[^\s,;|]*[!?])')  # of a spreadsheet: #DIV/0!, #N/A, #NV


def is_comment(line: str, mark: str) -> bool:
    """Tell whether a line is a comment; one that begins with a spreadsheet's error is none."""
    line = line.lstrip()
    return line.startswith(mark) and not _ERROR.match(line)


def _comment(lines: Sequence[str], asked: Reading) -> str:
    if asked.comment is not None:
        return asked.comment
    filled = [line for line in lines if line.strip()]
    for mark in _COMMENTS:
        plain = sum(not is_comment(line, mark) for line in filled)
        # names of rows as #1, #2 below a header are none
        if len(filled) > plain >= (1 if filled and is_comment(filled[0], mark) else 2):
            return mark
    return ""


def _marks(asked: Reading, sep: str, *, quoted: bool) -> Iterator[Marks]:
    for decimal, thousands in _MARKS:
        if asked.decimal not in (None, decimal) or asked.thousands not in (None, thousands):
            continue
        if sep in (decimal, thousands) and not quoted:
            continue
        yield Marks(decimal, thousands)
    given = Marks(asked.decimal or ".", asked.thousands or "")
    if (asked.decimal or asked.thousands) and tuple(given) not in _MARKS:
        yield given


def _layout(
    rows: Sequence[Sequence[str]], sep: str, marks: Marks, asked: Reading
) -> _Layout | None:
    """Find header, units and rows of numbers in split rows; `None` if there are no numbers."""
    if not rows:
        return None
    width = Counter(map(len, rows)).most_common(1)[0][0]
    few = max(20, _CELLS // width)
    tried = [(i, row) for i, row in enumerate(rows[:few]) if len(row) == width]
    read = [[plain_number(cell, marks) for cell in row] for _, row in tried]
    known = [
        [n is not None or c.strip().lower() in SPECIAL for n, c in zip(ns, row, strict=True)]
        for ns, (_, row) in zip(read, tried, strict=True)
    ]
    columns = [j for j in range(width) if _holds_numbers(known, read, j)]
    fits = (
        place
        for place, (k, ns) in enumerate(zip(known, read, strict=True))
        if all(k[j] for j in columns) and any(ns[j] is not None for j in columns)
    )
    first = next(fits, None) if columns else None
    if first is None:
        return None
    if asked.skip is not None and len(rows) > 1:  # the header is where the user says
        first = next((place for place, (i, _) in enumerate(tried) if i), first)
    else:  # a row with numbers is no header: what is wrong in it is told later
        while (
            first
            and tried[first - 1][0] == tried[first][0] - 1
            and any(read[first - 1][j] is not None for j in columns)
        ):
            first -= 1
        names_rows = len(columns) < width and _counted(read[0], columns)
        if first == 0 and len(tried) > 1 and (names_rows or not all(known[0][j] for j in columns)):
            first = 1  # names that are numbers: doses, years, columns of a plate
    start, body = tried[first][0], read[first:]
    header, names, units, shifted = _header(rows, start, width, asked)
    if shifted:  # names of rows are no numbers
        body = [row[1:] for row in body]
    numbers = sum(n is not None for ns in body for n in ns)
    named = range(start if header is None else header, start)
    cells = [ks for (i, _), ks in zip(tried, known, strict=True) if i not in named]
    texts = sum(not k for ks in cells for k in ks)
    ragged = min(len(rows), few) - start - len(body)
    unnamed = header is None and start > 0
    # a name rarely holds a mark that separates columns elsewhere
    joined = sum(any(mark in name for mark in SEPARATORS if mark != " ") for name in names)
    # blanks stand in text, and so lose where all else is equal
    worth = numbers - joined - texts / 2 - width * ragged - unnamed / 2 - (sep == " ") / 2
    if not any(row[-1].strip() for _, row in tried[first:]) and names:
        names = (*names[: width - 1], "") if len(names) >= width - 1 else names
    return _Layout(start, header, names, units, worth, not texts and not ragged, body)


def _holds_numbers(
    known: Sequence[Sequence[bool]], read: Sequence[Sequence[float | None]], j: int
) -> bool:
    """Tell whether half of a column is numbers, below what may be a header."""
    first = next((place for place, row in enumerate(read) if row[j] is not None), None)
    if first is None:
        return False
    below = known[min(first, len(known) // 2 + 1) :]
    return 2 * sum(row[j] for row in below) >= len(below)


def _counted(row: Sequence[float | None], columns: Sequence[int]) -> bool:
    """Tell whether three numbers or more in a row are whole and follow upon each other."""
    cells = [row[j] for j in columns]
    first = cells[0]
    return len(cells) > 2 and first is not None and cells == [first + k for k in range(len(cells))]


def _header(
    rows: Sequence[Sequence[str]], start: int, width: int, asked: Reading
) -> tuple[int | None, tuple[str, ...], tuple[str, ...], bool]:
    """Return place and cells of the header, the units, and whether rows have names of their own."""
    numbered = tuple(f"column{j + 1}" for j in range(width))
    place = start - 1
    if place < 0:
        return None, numbered, (), False
    units: tuple[str, ...] = ()
    above = rows[place - 1] if place else ()
    if asked.units_row is not False and len(rows[place]) == width == len(above):
        filled = [cell.strip() for cell in rows[place] if cell.strip()]
        looks = bool(filled) and all(_UNIT.fullmatch(cell) for cell in filled)
        named = all(n.strip() or not u.strip() for n, u in zip(above, rows[place], strict=True))
        if asked.units_row or (looks and named):
            units, place = tuple(cell.strip() for cell in rows[place]), place - 1
    head = [cell.strip() for cell in rows[place]]
    if len(head) == width:
        return place, tuple(head), units, False
    if len(head) == width - 1:  # the trailing mark of the rows, or names of rows as R writes them
        own = [row for row in rows[start:] if len(row) == width]
        if not any(row[-1].strip() for row in own):
            return place, (*head, ""), units, False
        firsts = [row[0].strip() for row in own]
        if len(set(firsts)) == len(firsts) and not any(re.search(r"\d[.,]\d", f) for f in firsts):
            return place, ("", *head), units, True
    return None, numbered, (), False


def _titled(found: Dialect, line: str, comment: str) -> Dialect:
    """Take names from a line of comment, as numpy and gnuplot write them."""
    if not is_comment(line, comment):
        return found
    cells = next((row for _, row in split([line.lstrip().lstrip(comment)], found.sep)), [])
    names = tuple(cell.strip() for cell in cells)
    if len(names) != len(found.names) or any(re.fullmatch(r"[-+.\d]+", name) for name in names):
        return found
    return found._replace(names=names)


def _options(dialect: Dialect) -> str:
    sep, (decimal, thousands) = dialect.sep, dialect.marks
    words = [f"--sep {_SPELLED.get(sep, repr(sep))}"] if sep else []
    words += [f"--decimal {decimal!r}", *([f"--thousands {thousands!r}"] if thousands else [])]
    return " ".join(words)
