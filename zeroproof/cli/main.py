"""Entry point `zeroproof`: reads arguments, runs a command, turns errors into sentences.

Exit codes: 0 fine, 1 ran but failed, 2 bad input or usage, 130 interrupted, 143 terminated.
"""

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
from zeroproof.cli.usage import usage_sentence
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
    words = [_spelled(word) for word in (sys.argv[1:] if argv is None else argv)]
    jsonargparse = require("jsonargparse", extra="cli")
    if words[:1] != ["fit"]:
        return _parsed(jsonargparse, words)
    from zeroproof.cli.command import fit_names, importable
    from zeroproof.cli.config_file import with_files

    with importable():
        return _parsed(jsonargparse, with_files(words, fit_names()))


def _parsed(jsonargparse: Any, words: Sequence[str]) -> int:
    parser = jsonargparse.ArgumentParser(
        prog="zeroproof",
        description="Fit and use models of functions that truly have singularities.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands(required=True, dest="command")
    parts = {name: _part(jsonargparse, name, words) for name in _COMMANDS}
    for name, part in parts.items():
        commands.add_subcommand(name, part)
    fitting = words[:1] == ["fit"]
    try:
        arguments = parser.parse_args(words, defaults=not fitting)
        values = arguments[arguments.command]
        if fitting:
            from zeroproof.cli.command import run_fit

            run_fit(parts["fit"], values)
            return 0
    except jsonargparse.ArgumentError as error:
        return _say(usage_sentence(str(error), _COMMANDS), 2)
    _COMMANDS[arguments.command][0](**values.as_dict())
    return 0


def _part(jsonargparse: Any, name: str, words: Sequence[str]) -> Any:
    """Return the parser of a command; that of `fit` takes time, and is empty for the others."""
    part = jsonargparse.ArgumentParser(exit_on_error=False, print_config=None)
    command, positionals = _COMMANDS[name]
    if name == "fit":
        if words[:1] == ["fit"]:
            from zeroproof.cli.command import add_fit_arguments

            add_fit_arguments(part)
        return part
    for positional, text in positionals.items():
        part.add_argument(positional, type=str, help=text)
    part.add_function_arguments(command, skip={*positionals, *_FLAGS})
    for flag in _FLAGS.keys() & signature(command).parameters.keys():
        part.add_argument(f"--{flag}", action="store_true", help=_FLAGS[flag])
    return part


def _spelled(word: str) -> str:
    """Return an option as it is defined: --time-budget is --time_budget."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


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
