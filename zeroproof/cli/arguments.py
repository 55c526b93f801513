"""What the command line understands: all arguments, files of options, and errors in one line."""

import csv
import difflib
import io
import json
import os
import re
import textwrap
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zeroproof._extras import require
from zeroproof.errors import DataError

__all__ = [
    "OPTIONS",
    "SECTIONS",
    "complete",
    "help_text",
    "listed",
    "parser",
    "sentence",
    "with_files",
    "yaml_text",
]


_INDENT = 30  # of explanations in the help
_FLAGS = {"drop_missing", "all", "resume", "json", "quiet"}  # options without a value


def listed(values: Any) -> str:
    """Return values as the command line takes a list, `a,b`; one with a comma in double quotes."""
    if not isinstance(values, list | tuple):
        return str(values)
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


class Reply(NamedTuple):
    """What a command has to say."""

    lines: Sequence[str]  # for a reader
    record: Mapping[str, Any]  # for a program


class Option(NamedTuple):
    """An option of the command line."""

    kind: Callable[[Any], Any]
    text: str
    usual: bool = False  # shown by --help; the others by --help-all
    choices: tuple[str, ...] = ()


# options of `fit`, by what they belong to: all of them, tables, one method
OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "both": {
        "target": Option(listed, "Column to predict, or several: a,b.", usual=True),
        "features": Option(listed, "Columns to predict from; all others by default.", usual=True),
        "out": Option(str, "Folder to write; a run that is there is replaced.", usual=True),
        "method": Option(
            str,
            "solve: a closed form with its poles, the default; train: a network.",
            usual=True,
            choices=("solve", "train"),
        ),
        "sigma": Option(
            str, "Column of standard deviations of the target: rows weigh 1/sigma².", usual=True
        ),
        "group": Option(str, "Column of labels: a group is held out as a whole.", usual=True),
        "shared_denominator": Option(
            bool, "One for all targets? solve: found by default; train: true."
        ),
        "tau_infer": Option(float, "Below this score an answer is ⊥; read off the data."),
        "tau_train": Option(float, "Below this score an answer is in the gap; read off the data."),
        "seed": Option(int, "Same seed, same answer; 0."),
    },
    "table": {
        "sep": Option(str, "Between columns: a mark, tab or blank; found by default.", usual=True),
        "decimal": Option(str, "Decimal mark; found by default.", usual=True),
        "thousands": Option(str, "Mark between thousands; found by default."),
        "comment": Option(str, "Mark at the beginning of lines to pass over; found by default."),
        "skip": Option(int, "Lines above the header; found by default."),
        "units_row": Option(bool, "Is there a row of units below the header? Found by default."),
        "sheet": Option(str, "Of a workbook: a name, or a name and cells, Data!B3:D90."),
        "missing_values": Option(listed, "Words that say that nothing was measured: bad,n.d."),
        "nan": Option(
            str,
            "What nan in a target says: there is no finite answer, or it was not measured.",
            usual=True,
            choices=("bottom", "missing"),
        ),
        "limit": Option(
            listed, "A word for a limit of detection: LOD=0.006; again: OVRFLW='>4.0'."
        ),
        "dates": Option(listed, "Columns of dates, read as days since 1970."),
    },
    "cells": {
        "bounds": Option(
            str,
            "A makeshift for bounds such as <0.05: the limit itself, half of it, or no such rows.",
            choices=("limit", "half", "drop"),
        ),
        "drop_missing": Option(bool, "Leave out rows with missing cells.", usual=True),
    },
    "solve": {
        "features_family": Option(
            str,
            "Of which functions.",
            choices=("auto", "chebyshev", "polynomial", "random", "fourier"),
        ),
        "degrees": Option(listed, "Of N and D, p,q or one number; found by default.", usual=True),
        "topology": Option(
            str,
            "affine: +inf and -inf differ, no fit crosses a pole; auto: projective.",
            choices=("auto", "projective", "affine"),
        ),
        "linear_in": Option(listed, "Columns in which N is linear and of which D is free."),
        "weight_power": Option(float, "Least squares weigh 1 / (1 + y²/s²)^weight_power; 0."),
        "time_budget": Option(float, "CPU seconds for the search; 10.", usual=True),
        "complex": Option(
            listed,
            "Instead of a target: real and imaginary part of a signal over a frequency, re,im.",
            usual=True,
        ),
        "symmetry": Option(
            str,
            "Of complex signals: conjugate, of a real system, poles in s = i times the feature.",
            choices=("auto", "conjugate", "none"),
        ),
    },
    "train": {
        "hidden": Option(listed, "Widths of the hidden layers; 64,64."),
        "steps": Option(int, "Optimiser steps; 5000.", usual=True),
        "epochs": Option(int, "Passes over the data, instead of steps."),
        "batch_size": Option(int, "Rows per step; 512."),
        "learning_rate": Option(float, "Largest step of Adam, which falls along a cosine; 0.02."),
        "held_out": Option(float, "Share of rows that chooses epoch and thresholds; 0.2."),
    },
}
_LISTS = {n for kinds in OPTIONS.values() for n, each in kinds.items() if each.kind is listed}
# sections, which make a run of the trainer, and what a word alone stands for
SECTIONS = {
    "data": ("train", "Rows to train on and to validate on."),
    "model": ("class_path", "ProjectiveMLP's hidden, activation, shared_denominator; or a class."),
    "optimizer": ("class_path", "Class of torch.optim; Adam."),
    "scheduler": ("class_path", "Class of torch.optim.lr_scheduler; none."),
    "loss": ("", "Fields of SCMTrainingLoss."),
    "trainer": ("", "Fields of TrainingConfig."),
}


CHOICES = {
    name: option.choices
    for options in OPTIONS.values()
    for name, option in options.items()
    if option.choices
}
_TITLES = {
    "both": "options",
    "table": "how the table is read",
    "cells": "cells that are no numbers",
    "solve": "with --method solve",
    "train": "with --method train",
}
_OF_FITS = {"nan", "limit", "dates"}
_OUT = Option(str, "File to write: .csv, .parquet, .arrow, or - for standard output.", usual=True)
COMMANDS: Mapping[str, tuple[str, str, Mapping[str, str], Mapping[str, Mapping[str, Option]]]] = {
    "look": (
        "Show what a table holds, before anything is fitted.",
        "zeroproof look lens.csv",
        {"data": "Text in any dialect, Parquet, Arrow, a workbook; - for standard input."},
        {"table": OPTIONS["table"]},
    ),
    "fit": (
        "Fit a model to a table, or train one, and write it to a folder.",
        "zeroproof fit lens.csv --target magnification --out runs/lens",
        {"data": "Text in any dialect, Parquet, Arrow, a workbook; - for standard input."},
        OPTIONS,
    ),
    "predict": (
        "Answer each row of a table, with a status: answer, gap, pole, 0/0 and so on.",
        "zeroproof predict runs/lens new.csv --out answers.csv",
        {"run": "Folder written by `zeroproof fit`.", "data": "A table with its features."},
        {
            "both": {
                "out": _OUT,
                "keep": Option(listed, "Columns of the table to hand on, or all.", usual=True),
            },
            "table": {
                k: v for k, v in OPTIONS["table"].items() if k not in {"nan", "limit", "dates"}
            },
        },
    ),
    "poles": (
        "List the poles and residues of a run with one feature, or trace those of two.",
        "zeroproof poles runs/lens",
        {"run": "Folder written by `zeroproof fit`."},
        {
            "both": {
                "out": Option(str, "File to write: poles, or vertices of curves.", usual=True),
                "all": Option(bool, "List spurious poles too.", usual=True),
            }
        },
    ),
}
_GLOBAL = {
    "json": "Print one JSON object instead of text.",
    "quiet": "Print nothing but errors.",
    "help": "Show this; --help-all shows every option.",
}


def help_text(command: str = "", *, everything: bool = False) -> str:
    """Return help for a screen: of all commands, or of one."""
    if command not in COMMANDS:
        listing = "\n".join(f"  {name:<8} {text}" for name, (text, *_) in COMMANDS.items())
        return (
            "Fit and use models of functions that truly have singularities.\n\n"
            f"{listing}\n\n"
            "zeroproof COMMAND --help says more; zeroproof --version. Completion in bash:\n"
            '  eval "$(register-python-argcomplete zeroproof)"'
        )
    text, example, places, groups = COMMANDS[command]
    lines = [text, "", f"  {example}", ""]
    lines += [_entry(name, what) for name, what in places.items()]
    for group, options in groups.items():
        shown = {name: each for name, each in options.items() if everything or each.usual}
        if shown:
            lines += ["", f"{_TITLES[group]}:"]
        lines += [_entry(_shown(name, each), each.text) for name, each in shown.items()]
    if command == "fit":
        lines += ["", "-c FILE.yaml reads options; --print-config prints them and fits nothing."]
    if command == "fit" and everything:
        lines += ["", "sections, which make a run of the trainer (--trainer.max_epochs 50):"]
        lines += [_entry(f"--{name}.", what) for name, (_, what) in SECTIONS.items()]
        lines += [_entry("--resume", "Go on from trainer.checkpoint_dir.")]
    lines += ["", *(_entry(f"--{name}", what) for name, what in _GLOBAL.items())]
    return "\n".join(lines)


_VALUES = {str: "TEXT", listed: "A,B", float: "NUMBER", int: "N", bool: "true|false"}


def _shown(name: str, option: Option) -> str:
    value = "" if name in _FLAGS else "|".join(option.choices) or _VALUES[option.kind]
    value = "WORD=BOUND" if name == "limit" else value
    return f"--{name.replace('_', '-')} {value}".rstrip()


def _entry(name: str, text: str) -> str:
    lines = textwrap.wrap(text, 96 - _INDENT)
    if len(name) > _INDENT - 4:
        return "\n".join([f"  {name}", *(" " * _INDENT + line for line in lines)])
    return "\n".join(
        [f"  {name:<{_INDENT - 2}}{lines[0]}", *(" " * _INDENT + x for x in lines[1:])]
    )


def parser() -> Any:
    """Return the parser of all commands."""
    jsonargparse = require("jsonargparse", extra="cli")
    whole = jsonargparse.ArgumentParser(prog="zeroproof", exit_on_error=False)
    commands = whole.add_subcommands(required=True, dest="command")
    for command, (_, _, places, groups) in COMMANDS.items():
        part = jsonargparse.ArgumentParser(exit_on_error=False, print_config=None)
        add = part.add_argument
        if command == "fit":  # whose data may also stand in a file of options
            add("table", metavar="data", type=str, nargs="?", default=SUPPRESS)
            add("-c", "--config", type=str)
            add("--print_config", action="store_true")
            add("--resume", action="store_true")
            for name in SECTIONS:
                add(f"--{name}", type=dict)
        else:
            for name in places:
                add(name, type=str)
        for name, option in (pair for group in groups.values() for pair in group.items()):
            if name in _FLAGS:
                add(f"--{name}", action="store_true")
            elif name == "limit":  # which may be given again and again
                add(f"--{name}", action="append", type=listed)
            else:
                add(f"--{name}", type=option.kind)
        for name in ("json", "quiet"):
            add(f"--{name}", action="store_true")
        commands.add_subcommand(command, part)
    return whole


def complete() -> None:
    """Answer a shell that asks what may come next, and end; a parser of its own knows the choices.

    jsonargparse offers its parsers to argcomplete too, which fails at those of commands.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    plain = ArgumentParser()
    commands = plain.add_subparsers()
    for command, (_, _, places, groups) in COMMANDS.items():
        part = commands.add_parser(command)
        for name in places:  # files, which argcomplete lists
            part.add_argument(name)
        options = {name: each for group in groups.values() for name, each in group.items()}
        for name in (*options, "json", "quiet", "help-all"):
            flag = f"--{name.replace('_', '-')}"
            if name in _FLAGS or name not in options:
                part.add_argument(flag, action="store_true")
            else:
                part.add_argument(flag, choices=options[name].choices or None)
    require("argcomplete", extra="cli").autocomplete(plain)


_LARGEST, DEEPEST = 65536, 50  # characters of a file of options, and how deep it nests


def with_files(argv: Sequence[str]) -> list[str]:
    """Return the arguments of `fit` with the options that files hold in place of their paths.

    jsonargparse reads files too, but does not name one that it cannot read, and what one says of a
    section would replace all that was said before. So sections come last, one mapping each, in
    which later options overrule earlier ones of the same name.

    Raises:
        DataError: A file cannot be read, or is no mapping.
    """
    words: list[str] = []
    sections: dict[str, dict[str, Any]] = {}

    def put(name: str, value: Any) -> None:
        section, _, option = name.partition(".")
        short = SECTIONS[section][0] if section in SECTIONS else None
        if option and short is not None:
            value = {option: value}
        elif isinstance(value, str) and short is not None:
            file = value.endswith((".yaml", ".yml"))
            one = short and not file and not value.startswith("{")
            value = {short: value} if one else _options(value, None if file else value)
        if isinstance(value, dict) and short is not None:
            inner = value.get("init_args")
            if isinstance(inner, dict):
                value = {k: v for k, v in value.items() if k != "init_args"} | inner
            sections[section] = sections.get(section, {}) | value
        elif name in _FLAGS and isinstance(value, bool):
            words.extend([f"--{name}"] * value)
        elif isinstance(value, dict) or (isinstance(value, list) and name not in _LISTS):
            raise DataError(f"{name} must have one value, got {value!r:.60}")
        elif value is not None:  # null counts as left out
            text = str(value).lower() if isinstance(value, bool) else listed(value)
            words.append(f"--{name}={text}")

    rest = iter(argv)
    for word in rest:
        flag, equals, value = word.partition("=")
        name = "config" if flag == "-c" else flag.removeprefix("--")
        if not flag.startswith("-") or name.partition(".")[0] not in {"config", *SECTIONS}:
            words.append(word)
        elif (value := value if equals else next(rest, "")) == "":
            words.append(flag)  # and the parser asks for a value
        elif name == "config":
            for each, option in _options(value).items():
                put(str(each), option)
        else:
            put(name, value)
    return [*words, *(f"--{name}={yaml_text(options)}" for name, options in sections.items())]


def _options(place: str, text: str | None = None) -> dict[str, Any]:
    """Return what a text in YAML or, without one, a file holds."""
    load = require("jsonargparse", extra="cli").get_loader("yaml")  # for which 1e-3 is a number
    yaml = require("yaml", extra="cli")
    cause = None
    try:
        if text is None:
            with Path(place).open(encoding="utf-8") as file:
                text = file.read(_LARGEST + 1)
        if len(text) <= _LARGEST:
            _check_plain(text)
        found = load(text) if len(text) <= _LARGEST else text
        # no path may hold NUL, which is seen when all is written out
        if isinstance(found, dict) and "\\u0000" not in json.dumps(found, default=str):
            return found
        why = f"got {found!r:.60}"
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        why, cause = "but " + why.replace(' in "<unicode string>"', ""), error
    raise DataError(f"{place} must hold options in YAML, NAME: VALUE, {why}") from cause


def _check_plain(text: str) -> None:
    """Check that a text in YAML is flat and plain, before it is built.

    An alias may stand for a thousand others, and what nests deep crashes the loader.

    Raises:
        ValueError: It is not.
    """
    yaml = require("yaml", extra="cli")
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(  # noqa: TRY004 - of its text
                f"aliases such as *{event.anchor} must be written out"
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it must nest at most {DEEPEST} deep")


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, in its order."""
    yaml = require("yaml", extra="cli")
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


_KINDS = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "str": "text",
    "dict": "options, NAME: VALUE",
    "collections.abc.Sequence": "a list",
}
# what jsonargparse says, in fewer words: pattern -> template or function
_WORDING: Mapping[str, Any] = {
    r"\s+- Expected an? <class 'NoneType'>\.?": "",
    r"(?s)Given value type: .*": "",
    r"Does not validate against any of the Union subtypes\s+Subtypes: .*\s+Errors:\s+- ": "",
    r"\n\s+- ": ", or ",
    r"Type collections\.abc\.Callable.* expects a function or a callable class:": "",
    r"\.? Got value: Namespace\(.*": "",
    r"\.? Got value: ": ", got ",
    r"Expected a member of <enum '\w+'>: ": "must be one of ",
    r"Expected an? <class '([\w.]+)'>": lambda found: f"must be {_KINDS.get(found[1], found[1])}",
    r'\AParser key "([\w.]+)":\s+must': r"--\1 must",
    r'\AParser key "([\w.]+)"': r"--\1",
    r'Parser key "([\w.]+)":(?=\s+must)': r"\1",
    r'Parser key "([\w.]+)"': r"\1",
    r"\b(?:look|fit|predict|poles)\.(run|data|out)\b": r"\1",
}


def sentence(error: Exception, names: Collection[str] = ()) -> str:
    """Return in one line what a parser says, and which of the names is near to one it has not."""
    names = names or [*SECTIONS, *(name for options in OPTIONS.values() for name in options)]
    deep = isinstance(error, RecursionError)
    text = "options must not be nested as deep as these" if deep else str(error)
    for words, fewer in _WORDING.items():
        text = re.sub(words, fewer, text)
    strange = re.search(r"(?:option '|arguments: --|choice: ')([\w.-]+)", text, re.IGNORECASE)
    near = difflib.get_close_matches(strange[1], names, 1) if strange else []
    text = " ".join(text.split())
    text = text if len(text) < 400 else text[:400] + " ..."
    return text + (f"; did you mean {near[0]}?" if near else "") + "; see zeroproof --help"
