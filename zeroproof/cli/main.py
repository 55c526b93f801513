"""Entry point `zeroproof`: runs a command, turns errors into sentences.

Exit codes: 0 fine, 1 ran but failed, 2 bad input or usage, 130 interrupted, 143 terminated,
141 standard output was closed.
"""

import json
import math
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from zeroproof import __version__
from zeroproof._checks import one_of
from zeroproof._extras import require
from zeroproof.cli.arguments import (
    CHOICES,
    COMMANDS,
    DEEPEST,
    OPTIONS,
    SECTIONS,
    Reply,
    complete,
    help_text,
    parser,
    sentence,
    with_files,
    yaml_text,
)
from zeroproof.cli.fit import fit
from zeroproof.cli.look import look
from zeroproof.cli.poles import poles
from zeroproof.cli.runs import predict
from zeroproof.errors import MissingExtraError, RangeError, TrainingError, ZeroProofError

__all__ = ["main"]

_COMMON = ("both", "table", "cells")
# what an option of both or of train is called beside sections
_SECTIONED = {
    "tau_infer": "trainer.tau_infer",
    "tau_train": "trainer.tau_train_min and trainer.tau_train_max",
    "shared_denominator": "model.shared_denominator",
    "hidden": "model.hidden",
    "steps": "trainer.max_steps",
    "epochs": "trainer.max_epochs",
    "batch_size": "data.batch_size",
    "learning_rate": "optimizer.lr",
    "held_out": "data.held_out",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process if `None`.

    Returns:
        The exit code.
    """
    with warnings.catch_warnings(), _terminable():
        warnings.filterwarnings("always", category=UserWarning, module="zeroproof")
        warnings.showwarning = _say_warning
        try:
            return _run(_spelled(sys.argv[1:] if argv is None else argv))
        except SystemExit as stop:  # --help
            return stop.code if isinstance(stop.code, int) else 2
        except ZeroProofError as error:
            return _say(error, 1 if isinstance(error, TrainingError | MissingExtraError) else 2)
        except BrokenPipeError:  # what reads standard output has read enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 128 + signal.SIGPIPE
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


def _run(words: Sequence[str]) -> int:
    command = words[0] if words and words[0] in COMMANDS else ""
    asked = {"-h", "--help", "--help_all"} & set(words)
    if asked:
        print(help_text(command, everything="--help_all" in words))
        return 0
    if list(words) == ["--version"]:
        print(f"zeroproof {__version__}{_clash()}")
        return 0
    complete()
    for word in words:
        if word.count("[") + word.count("{") > DEEPEST:
            return _say(f"options must not nest as deep as this one: {word[:40]} ...", 2)
    jsonargparse = require("jsonargparse", extra="cli")
    try:
        given = parser().parse_args(
            with_files(words) if words[:1] == ["fit"] else words, defaults=False
        )
    except (jsonargparse.ArgumentError, RecursionError) as error:
        return _say(sentence(error, _names(command)), 2)
    options = given[given.command].as_dict()
    as_json, quiet = (bool(options.pop(name, False)) for name in ("json", "quiet"))
    for name, choices in CHOICES.items():
        if options.get(name) is not None:
            one_of(options[name], choices, f"--{name.replace('_', '-')}")
    if as_json and options.get("out") == "-":
        raise RangeError("--json must come with a file as --out, got -, where answers are printed")
    if quiet:
        warnings.simplefilter("ignore")
    commands = {"fit": _fit, "look": look, "predict": predict, "poles": poles}
    said = commands[given.command](**options, **({"quiet": True} if quiet or as_json else {}))
    if as_json:
        print(json.dumps(_strict(said.record), ensure_ascii=False, allow_nan=False))
    elif said.lines and not quiet:
        print("\n".join(said.lines))
    sys.stdout.flush()
    return 0


def _names(command: str) -> list[str]:
    """Return what may have been meant: commands, or options of this one."""
    if not command:
        return list(COMMANDS)
    options = [name for group in COMMANDS[command][3].values() for name in group]
    return [*options, "json", "quiet", *(SECTIONS if command == "fit" else ())]


def _strict(value: Any) -> Any:
    """Return a value for JSON, which has no numbers that are not finite: they become text."""
    if isinstance(value, Mapping):
        return {str(key): _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _clash() -> str:
    """Say that another distribution has files of the same names, if one is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        other = version("zeroproofml")
    except PackageNotFoundError:
        return ""
    return (
        f"\nwarning: zeroproofml {other} installs into the same folder `zeroproof`, and each "
        "overwrites files of the other: keep them in environments of their own"
    )


def _fit(*, quiet: bool = False, **given: Any) -> Reply:
    """Fit, train as sections say, or print all options.

    Raises:
        ZeroProofError: As the method, or options do not belong together.
    """
    printing = given.pop("print_config", False)
    if "config" in given:
        raise RangeError(f"a file of options must not name another, got {given['config']!r}")
    given = {k: v for k, v in given.items() if v != "" or k == "target"}  # "" is left out, too
    data = given.pop("data", {}) | ({"train": given.pop("table")} if "table" in given else {})
    resume = given.pop("resume", False)
    sections = [f"data.{name}" for name in data if name != "train"]
    sections += [name for name in SECTIONS if name in given] + ["resume"] * resume
    own: dict[str, Any] = {}
    if sections:
        _check_sectioned(sections[0], given)
    else:
        given = {"method": "solve", "seed": 0, **given}
        own = _own_options(given["method"], given)
    if not printing:
        _check_complete({**given, "data": data.get("train")})
    if sections:
        from zeroproof.cli.sections import fit_sections

        if quiet and not printing:
            given["trainer"] = {**given.get("trainer", {}), "progress": False}
        return fit_sections({**given, "data": data, "resume": resume}, printing=printing)
    if not printing:
        return fit({**given, "data": str(data["train"])}, own, quiet=quiet)
    names = (*(name for group in _COMMON for name in OPTIONS[group]), *OPTIONS[given["method"]])
    options = {"data": data.get("train"), **{name: given.get(name) for name in names}}
    return Reply([yaml_text(options).rstrip("\n")], options)


def _check_sectioned(section: str, given: Mapping[str, Any]) -> None:
    if (method := given.get("method", "train")) != "train":
        raise RangeError(f"--{section} must come with --method train, got {method}")
    for name in given:
        if name in OPTIONS["solve"]:
            raise RangeError(f"--{name} must come with --method solve, got --{section}")
        if name in {"sigma", "group"}:
            raise RangeError(f"--{name} must come without sections, got --{section}")
        if name in _SECTIONED:
            raise RangeError(
                f"--{name} must be given as --{_SECTIONED[name]} beside --{section}, got --{name}"
            )


def _check_complete(given: Mapping[str, Any]) -> None:
    needed = ("data", "out") if given.get("complex") else ("data", "target", "out")
    missing = [name for name in needed if given.get(name) is None]
    if missing:
        raise RangeError(
            f"the following arguments are required: {', '.join(missing)}; see zeroproof --help"
        )


def _own_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of this method that were given.

    Raises:
        RangeError: There is no such method, or one belongs to the other method.
    """
    one_of(method, ("solve", "train"), "--method")
    other = "train" if method == "solve" else "solve"
    for name in OPTIONS[other]:
        if name in given:
            raise RangeError(f"--{name} must come with --method {other}, got {method}")
    return {name: given[name] for name in OPTIONS[method] if name in given}


def _spelled(argv: Sequence[str]) -> list[str]:
    """Return options as they are defined, --time-budget as --time_budget; -999,bad is a value."""
    words: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            words.append(f"{name.replace('-', '_').replace('__', '--', 1)}{equals}{value}")
        elif re.match(r"-[0-9.]", word) and words and re.fullmatch(r"--\w+", words[-1]):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


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
