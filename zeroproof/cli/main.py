"""Entry point `zeroproof`: reads arguments, runs a command, turns errors into sentences.

Exit codes: 0 fine, 1 ran but failed, 2 bad input or usage, 130 interrupted, 143 terminated.
"""

import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from zeroproof._extras import require
from zeroproof.cli.fit import add_fit_arguments, fit, fit_names, importable, run_fit, with_files
from zeroproof.cli.poles import poles
from zeroproof.cli.predict import predict
from zeroproof.errors import MissingExtraError, TrainingError, ZeroProofError

__all__ = ["main", "usage_sentence"]

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


_ADVICE = "; see zeroproof --help"
_KINDS = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "collections.abc.Sequence": "a list",
    "str": "text",
}
_GIVEN = re.compile(r"(?:Given|Got) value: (.*?)(?:\. Got value: .*)?$", re.MULTILINE)
_NO_CLASS = "must name a class to import, got {name}: {why}"
# what a report says, and the end of a sentence that begins with the option
_PROBLEMS = {
    r"class_path '(.+?)':\s+Option '(.+?)' is not accepted": "must hold options of {0}, got {1!r}",
    r"Option '(.+?)' is not accepted": "must hold options of its class, got {0!r}",
    r"given class_path '(?P<name>.+?)':\s+(?P<why>.+)": _NO_CLASS,
    r"callable class: (?P<why>.*No module.+|.+no attribute.+)\. Got value: (?P<name>.+)": _NO_CLASS,
    r"correspond to a subclass of (\w+)(?:.|\n)*value: (.+)": "must be a kind of {0}, got {1!r}",
    r"Expected '(.+?)' to be a subclass of <class '(.+?)'>": "must be a kind of {1}, got {0!r}",
    r"member of <enum '\w+'>: \{(.+?)\}\. Got value: (.+)": "must be one of {0}, got {1!r}",
    r"Unable to load config [\"'](.+?)[\"']": "must name a YAML file of its options, got {0!r}",
    r"Not of type \w+: (.+)": "must be of its type, but {0}",
    r"arguments are required: (.+?)(?:\. Got value: .*)?$": "must give its class {0}, got nothing",
}
_IMPORT = re.compile(r"Expected a dot import path string: (.+)")


def usage_sentence(text: str, commands: Collection[str]) -> str:
    """Shorten a report to what must hold and what came."""
    keys = re.findall(r'Parser key "([^"]+)"', text)
    if keys:
        return (_of_option(_option(keys, commands), text) or _first(text)) + _ADVICE
    return re.sub(rf"\b({'|'.join(commands)})\.(\w+)", r"\2", _first(text)) + _ADVICE


def _option(keys: list[str], commands: Collection[str]) -> str:
    """Return the name of an option; one inside a section is reported by its last part."""
    head, _, rest = keys[0].partition(".")
    option = rest if head in commands else keys[0]
    return option if keys[-1] == keys[0] else f"{option}.{keys[-1]}"


def _of_option(option: str, text: str) -> str:
    detail = text[text.rindex("Parser key") :]
    for pattern, sentence in _PROBLEMS.items():
        found = re.search(pattern, detail, re.MULTILINE)
        if found:
            said = [part.strip().rstrip(".") for part in found.groups()]
            return f"--{option} {sentence.format(*said, **found.groupdict())}"
    named = _IMPORT.search(detail)
    if named and "." not in option:  # inside a section it may be one of several ways
        return f"--{option} must name a class to import, got {named[1]!r}"
    found = re.findall(r"<class '([\w.]+)'>", detail)
    given = _GIVEN.search(detail)
    kinds = [_KINDS[kind] for kind in found if kind in _KINDS]
    if given and kinds:
        return f"--{option} must be {kinds[0]}, got {given[1]!r}"
    return ""


def _first(text: str) -> str:
    return text.strip().splitlines()[0].removeprefix("error: ")
