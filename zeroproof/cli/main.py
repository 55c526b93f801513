"""Entry point `zeroproof`: reads arguments, runs a command, turns errors into sentences.

Exit codes: 0 fine, 1 ran but failed, 2 bad input or usage, 130 interrupted, 143 terminated.
"""

import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from zeroproof._extras import require
from zeroproof.cli.fit import fit
from zeroproof.cli.poles import poles
from zeroproof.cli.predict import predict
from zeroproof.errors import MissingExtraError, TrainingError, ZeroProofError

__all__ = ["main"]

_RUN = {"run": "folder written by `zeroproof fit`"}
# command -> (function, its positional arguments with their help)
_COMMANDS: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
    "fit": (fit, {"data": "CSV file; its first line names the columns"}),
    "predict": (predict, _RUN | {"data": "CSV file with the feature columns"}),
    "poles": (poles, _RUN),
}
_FLAGS = {"all": "list spurious poles too, which a zero of N cancels"}  # options without a value

_KINDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process if `None`.

    Returns:
        The exit code.
    """
    with warnings.catch_warnings(), _terminable():
        warnings.showwarning = _say_warning
        try:
            return _run(argv)
        except SystemExit as stop:  # --help
            return stop.code if isinstance(stop.code, int) else 2
        except (TrainingError, MissingExtraError) as error:
            return _say(error, 1)
        except ZeroProofError as error:
            return _say(error, 2)
        except OSError as error:
            return _say(f"{error.filename or 'a file'}: {error.strerror or error}", _os_code(error))
        except KeyboardInterrupt:
            return _say("interrupted", 130)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let a polite request to end unwind the stack, so that nothing half-written stays behind."""

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():  # others may not set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(argv: Sequence[str] | None) -> int:
    jsonargparse = require("jsonargparse", extra="cli")
    argv = sys.argv[1:] if argv is None else argv
    parser = jsonargparse.ArgumentParser(
        prog="zeroproof",
        description="Fit and use models of functions that truly have singularities.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands(required=True, dest="command")
    for name, (command, positionals) in _COMMANDS.items():
        part = jsonargparse.ArgumentParser(exit_on_error=False)
        for positional, text in positionals.items():
            part.add_argument(positional, type=str, help=text)
        part.add_function_arguments(command, skip={*positionals, *_FLAGS})
        for flag in _FLAGS.keys() & signature(command).parameters.keys():
            part.add_argument(f"--{flag}", action="store_true", help=_FLAGS[flag])
        commands.add_subcommand(name, part)
    try:
        arguments = parser.parse_args([_spelled(word) for word in argv])
    except jsonargparse.ArgumentError as error:
        return _say(_usage_sentence(str(error)), 2)
    values: dict[str, Any] = arguments[arguments.command].as_dict()
    _COMMANDS[arguments.command][0](**values)
    return 0


def _spelled(word: str) -> str:
    """Return an option as it is defined: --time-budget is --time_budget."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _usage_sentence(text: str) -> str:
    """Shorten a parser's report of several lines to one sentence."""
    key = re.search(r'Parser key "([^"]+)"', text)
    given = re.search(r"(?:Given|Got) value: (.*)", text)
    if key and given:
        kinds = (_KINDS[kind] for kind in re.findall(r"<class '(\w+)'>", text) if kind in _KINDS)
        option = key[1].rpartition(".")[2]
        must = next(kinds, "something else")
        return f"--{option} must be {must}, got {given[1]!r}; see zeroproof --help"
    first = text.strip().splitlines()[0].removeprefix("error: ")
    first = re.sub(rf"\b({'|'.join(_COMMANDS)})\.(\w+)", r"\2", first)
    return f"{first}; see zeroproof --help"


def _os_code(error: OSError) -> int:
    """Tell a place that cannot be used, which is bad input, from a disk that is full and the like.

    Returns:
        The exit code.
    """
    places = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
    return 2 if isinstance(error, (*places, PermissionError)) else 1


def _say(message: object, code: int) -> int:
    print(f"zeroproof: {message}", file=sys.stderr)
    return code


def _say_warning(message: Warning | str, *_: object) -> None:
    print(f"zeroproof: warning: {message}", file=sys.stderr)
