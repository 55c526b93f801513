"""What the command line understands: all arguments, files of options, and errors in one line."""

import csv
import difflib
import io
import json
import re
from argparse import SUPPRESS
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroproof._extras import require
from zeroproof.errors import DataError

__all__ = ["OPTIONS", "SECTIONS", "listed", "parser", "sentence", "with_files", "yaml_text"]


def listed(values: Any) -> str:
    """Return values as the command line takes a list, `a,b`; one with a comma in double quotes."""
    if not isinstance(values, list | tuple):
        return str(values)
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


# options by the methods they belong to, each with its type and its help
OPTIONS: Mapping[str, Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "both": {
        "target": (
            listed,
            "Column to predict, or several: a,b. Cells may be numbers, inf, -inf, or nan for ⊥.",
        ),
        "features": (listed, "Columns to predict from; all others by default."),
        "out": (str, "Folder to write; a run that is there is replaced."),
        "method": (
            str,
            "solve, a closed form with its poles, which is the default, or train, a network.",
        ),
        "shared_denominator": (
            bool,
            "One for all targets? solve: found by default; train: true.",
        ),
        "tau_infer": (float, "Below this score an answer is ⊥; read off the data by default."),
        "tau_train": (
            float,
            "Below this score an answer is in the gap; read off the data by default.",
        ),
        "seed": (int, "Same seed, same answer; 0."),
    },
    "solve": {
        "features_family": (str, "auto, chebyshev, polynomial, random or fourier."),
        "degrees": (listed, "Of N and D, p,q or one number for both; found by default."),
        "topology": (str, "projective, or affine where +inf and -inf differ."),
        "linear_in": (
            listed,
            "Columns in which N is linear and of which D is free; found by default.",
        ),
        "weight_power": (
            float,
            "Least squares are weighted by 1 / (1 + y²/s²)^weight_power; 0.",
        ),
        "time_budget": (float, "Seconds for the search; 10."),
        "complex": (
            listed,
            "Real and imaginary part of a signal over one feature, a frequency, instead of a "
            "target: re,im; of several signals re1,im1,re2,im2.",
        ),
        "symmetry": (
            str,
            "Of complex signals: conjugate, the response of a real system, poles in s = i times "
            "the feature; none; auto, conjugate unless none does better; auto.",
        ),
        "nan": (
            str,
            "What nan in a target says: bottom, there is no finite answer, or missing, it was not "
            "measured, and the row is left out; bottom.",
        ),
    },
    "train": {
        "hidden": (listed, "Widths of the hidden layers, in their order; 64,64."),
        "steps": (int, "Optimiser steps; 5000."),
        "epochs": (int, "Passes over the data, instead of steps."),
        "batch_size": (int, "Rows per step; 512."),
        "learning_rate": (float, "Largest step of Adam, which falls along a cosine; 0.02."),
        "held_out": (float, "Share of rows that chooses epoch and thresholds; 0.2."),
    },
}
_LISTS = {n for kinds in OPTIONS.values() for n, (kind, _) in kinds.items() if kind is listed}
# sections, which make a run of the trainer, and what a word alone stands for
SECTIONS = {
    "data": ("train", "Rows to train on and to validate on."),
    "model": ("class_path", "ProjectiveMLP's hidden, activation, shared_denominator; or a class."),
    "optimizer": ("class_path", "Class of torch.optim; Adam."),
    "scheduler": ("class_path", "Class of torch.optim.lr_scheduler; none."),
    "loss": ("", "Fields of SCMTrainingLoss."),
    "trainer": ("", "Fields of TrainingConfig."),
}


def parser() -> Any:
    """Return the parser of all commands."""
    jsonargparse = require("jsonargparse", extra="cli")

    class Help(jsonargparse.DefaultHelpFormatter):
        def _get_help_string(self, action: Any) -> str:
            return action.help or ""  # which says what type and default mean

    def part() -> Any:
        return jsonargparse.ArgumentParser(exit_on_error=False, print_config=None)

    whole = jsonargparse.ArgumentParser(
        prog="zeroproof",
        description="Fit and use models of functions that truly have singularities.",
        exit_on_error=False,
        formatter_class=Help,  # also of the commands
    )
    commands = whole.add_subcommands(required=True, dest="command")
    commands.add_subcommand("fit", _fit_arguments(part()))
    predict, poles = part(), part()
    for each in (predict, poles):
        each.add_argument("run", type=str, help="Folder written by `zeroproof fit`.")
    predict.add_argument("data", type=str, help="CSV file with the feature columns, in any order.")
    predict.add_argument("--out", type=str, required=True, help="CSV file to write.")
    poles.add_argument("--out", type=str, help="CSV file to write: poles, or vertices of curves.")
    poles.add_argument("--all", action="store_true", help="List spurious poles too.")
    commands.add_subcommand("predict", predict)
    commands.add_subcommand("poles", poles)
    return whole


def _fit_arguments(parser: Any) -> Any:
    add = parser.add_argument
    file = "CSV file; its first line names the columns."
    add("table", metavar="data", type=str, nargs="?", default=SUPPRESS, help=file)
    add("-c", "--config", type=str, help="YAML file of options; later ones overrule it.")
    add("--print_config", action="store_true", help="Print all options as YAML and fit nothing.")
    for method, options in OPTIONS.items():
        group = parser.add_argument_group(f"options of {method}", name=method)
        for name, (kind, text) in options.items():
            group.add_argument(f"--{name}", type=kind, help=text)
    group = parser.add_argument_group("sections: a run of the trainer", name="sections")
    for name, (_, text) in SECTIONS.items():
        group.add_argument(f"--{name}", type=dict, metavar=f"{name.upper()}.NAME", help=text)
    group.add_argument("--resume", action="store_true", help="Go on from trainer.checkpoint_dir.")
    return parser


_LARGEST = 65536  # characters of a file of options; what nests deeper crashes the loader


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
        elif name == "resume" and isinstance(value, bool):
            words.extend(["--resume"] * value)
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
        found = load(text) if len(text) <= _LARGEST else text
        # the dump sees what is nested too deep, and NUL, which no path may hold
        if isinstance(found, dict) and "\\u0000" not in json.dumps(found, default=str):
            return found
        why = f"got {found!r:.60}"
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        why, cause = "but " + why.replace(' in "<unicode string>"', ""), error
    raise DataError(f"{place} must hold options in YAML, NAME: VALUE, {why}") from cause


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
    r"\b(?:fit|predict|poles)\.(run|data|out)\b": r"\1",
}


def sentence(error: Exception, names: Collection[str] = ()) -> str:
    """Return in one line what a parser says, and which of the names is near to one it has not."""
    names = names or [*SECTIONS, *(name for options in OPTIONS.values() for name in options)]
    deep = isinstance(error, RecursionError)
    text = "options must not be nested as deep as these" if deep else str(error)
    for words, fewer in _WORDING.items():
        text = re.sub(words, fewer, text)
    strange = re.search(r"(?:option '|arguments: --)([\w.]+)", text, re.IGNORECASE)
    near = difflib.get_close_matches(strange[1], names, 1) if strange else []
    text = " ".join(text.split())
    text = text if len(text) < 400 else text[:400] + " ..."
    return text + (f"; did you mean {near[0]}?" if near else "") + "; see zeroproof --help"
