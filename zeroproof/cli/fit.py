"""`zeroproof fit`: from a CSV file to a run folder."""

import difflib
import json
import sys
from argparse import SUPPRESS
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from zeroproof._checks import one_of
from zeroproof._extras import require
from zeroproof.cli.rows import listed
from zeroproof.errors import DataError, RangeError

__all__ = [
    "COMMON",
    "OWN",
    "add_fit_arguments",
    "fit",
    "fit_names",
    "importable",
    "own_options",
    "run_fit",
    "with_files",
    "yaml_text",
]

OWN = {
    "solve": (
        "features_family",
        "degrees",
        "topology",
        "linear_in",
        "weight_power",
        "time_budget",
        "complex",
        "symmetry",
        "nan",
    ),
    "train": ("hidden", "steps", "epochs", "batch_size", "learning_rate", "held_out"),
}
COMMON = ("shared_denominator", "tau_infer", "tau_train", "seed")


def fit(
    data: str,
    *,
    out: str,
    target: str = "",
    method: str = "solve",
    features: str = "",
    shared_denominator: bool | None = None,
    tau_infer: float | None = None,
    tau_train: float | None = None,
    seed: int = 0,
    features_family: str = "",
    degrees: str = "",
    topology: str = "",
    linear_in: str = "",
    weight_power: float | None = None,
    time_budget: float | None = None,
    complex: str = "",  # noqa: A002
    symmetry: str = "",
    nan: str = "",
    hidden: str = "",
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    held_out: float | None = None,
) -> None:
    """Fit a model to a table and write it to a run folder.

    Args:
        data: CSV file; its first line names the columns.
        target: Column to predict, or several: a,b. Cells may be numbers, inf, -inf, or nan for ⊥.
        out: Folder to write; a run that is there already is replaced.
        method: "solve", a closed form with its poles, or "train", a network.
        features: Columns to predict from; all others by default.
        shared_denominator: One for all targets? solve: found by default; train: true.
        tau_infer: Below this score an answer is ⊥; read off the data by default.
        tau_train: Below this score an answer is in the gap; read off the data by default.
        seed: Same seed, same answer.
        features_family: solve: auto, chebyshev, polynomial, random or fourier.
        degrees: solve: of N and D, p,q or one number for both; found by default.
        topology: solve: projective, or affine where +inf and -inf differ.
        linear_in: solve: columns in which N is linear and of which D is free; found by default.
        weight_power: solve: least squares are weighted by 1 / (1 + y²/s²)^weight_power; 0.
        time_budget: solve: seconds for the search; 10.
        complex: solve: real and imaginary part of a signal over one feature, a frequency, instead
            of a target: re,im; of several signals re1,im1,re2,im2.
        symmetry: solve: of complex signals: conjugate, the response of a real system, poles in s =
            i times the feature; none; auto, conjugate unless none does better; auto.
        nan: solve: what nan in a target says: "bottom", there is no finite answer, or "missing", it
            was not measured, and the row is left out; bottom.
        hidden: train: widths of the hidden layers, in their order; 64,64.
        steps: train: optimiser steps; 5000.
        epochs: train: passes over the data, instead of steps.
        batch_size: train: rows per step; 512.
        learning_rate: train: largest step of Adam, which falls along a cosine; 0.02.
        held_out: train: share of rows that chooses epoch and thresholds; 0.2.
    """
    _fitted({name: value for name, value in locals().items() if value not in (None, "")})


def _fitted(given: dict[str, Any]) -> None:
    from zeroproof._files import folder_in_place
    from zeroproof.cli.rows import read_rows, read_signals
    from zeroproof.cli.runs import check_folder
    from zeroproof.cli.solving import solve
    from zeroproof.cli.training import train
    from zeroproof.estimators import FitOptions
    from zeroproof.estimators.options import check_options

    method = given.get("method", "")
    own = own_options(method, given)
    common = {name: given[name] for name in COMMON if name in given}
    check_options(FitOptions(**common))
    folder = Path(given.get("out", ""))
    check_folder(folder)
    signals = own.pop("complex", "")
    columns = given.get("target", ""), given.get("features", "")
    rows = (
        read_signals(given["data"], signals, *columns)
        if signals
        else read_rows(given["data"], *columns)
    )
    _require_writers(method)
    with folder_in_place(folder) as fresh:
        report = (solve if method == "solve" else train)(rows, fresh, common, own)
    print("\n".join(report))
    print(f"files: {', '.join(str(folder / path.name) for path in sorted(folder.iterdir()))}")


def own_options(method: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of this method that were given.

    Raises:
        RangeError: There is no such method, or one belongs to the other method.
    """
    one_of(method, tuple(OWN), "--method")
    for other, names in OWN.items():
        foreign = [name for name in names if name in given]
        if other != method and foreign:
            raise RangeError(f"--{foreign[0]} must come with --method {other}, got {method}")
    return {name: given[name] for name in OWN[method] if name in given}


def _require_writers(method: str) -> None:
    """Miss what a fit needs before the work rather than after it."""
    require("safetensors.torch", extra="train")
    require("matplotlib.figure", extra="plots")
    if method == "solve":
        require("sklearn", extra="sklearn")


_NEEDED = ("data", "out")
# options of the two methods, and what they are called in a section
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


def add_fit_arguments(parser: Any) -> None:
    """Add all arguments of `zeroproof fit` to a parser of jsonargparse."""
    from zeroproof.cli.sections import add_sections

    parser.add_argument(
        "-c", "--config", action="config", help="YAML file of options; later ones overrule it."
    )
    parser.add_argument(
        "--print_config", action="store_true", help="Print all options as YAML and fit nothing."
    )
    parser.add_argument(
        "table",
        metavar="data",
        type=str,
        nargs="?",
        default=SUPPRESS,
        help="CSV file; its first line names the columns",
    )
    parser.add_argument(
        "--target",
        type=str,
        help="Column to predict, or several: a,b. Cells may be numbers, inf, -inf, or nan for ⊥.",
    )
    parser.add_argument("--out", type=str, help="Folder to write; a run that is there is replaced.")
    parser.add_function_arguments(fit, skip={*_NEEDED, "target"})
    parser.add_argument(
        "--resume", action="store_true", help="sections: go on from trainer.checkpoint_dir."
    )
    add_sections(parser)


def fit_names() -> dict[str, tuple[str, ...]]:
    """Return the names that may stand in a file, with those inside sections."""
    from zeroproof.cli.sections import section_names

    return {**dict.fromkeys((*signature(fit).parameters, "resume"), ()), **section_names()}


@contextmanager
def importable() -> Iterator[None]:
    """Let modules in the current folder be imported, after all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def run_fit(parser: Any, given: Any) -> None:
    """Do what was asked for.

    Args:
        parser: With the arguments of `add_fit_arguments`.
        given: What it parsed, without defaults.

    Raises:
        ZeroProofError: As the method, or options do not belong together.
    """
    given.pop("config", None)
    printing = given.pop("print_config", False)
    if "table" in given:
        given["data.train"] = given.pop("table")
    sections = _sections_of(given)
    if sections:
        _check_sectioned(sections[0], given)
        _train(parser, given, printing=printing)
    else:
        _fit(parser, given, printing=printing)


def _sections_of(given: Any) -> list[str]:
    """Return what makes this a run of the trainer; rows to fit alone do not."""
    from zeroproof.cli.sections import SECTIONS

    data = given.as_dict().get("data") or {}
    return [
        *(f"data.{name}" for name in data if name != "train"),
        *(name for name in SECTIONS if given.get(name) is not None),
        *(["resume"] if given.get("resume") else []),
    ]


def _check_sectioned(section: str, given: Any) -> None:
    method = given.get("method", "train")
    if method != "train":
        raise RangeError(f"--{section} must come with --method train, got {method}")
    for name in (*COMMON, *OWN["train"], *OWN["solve"]):
        if name != "seed" and given.get(name) not in (None, ""):
            if name in OWN["solve"]:
                raise RangeError(f"--{name} must come with --method solve, got --{section}")
            raise RangeError(
                f"--{name} must be given as --{_SECTIONED[name]} beside --{section}, got --{name}"
            )


def _fit(parser: Any, given: Any, *, printing: bool) -> None:
    options = {name: value for name, value in given.items() if value is not None}
    if "data.train" in options:
        options["data"] = options.pop("data.train")
    options.pop("resume", None)
    method = options.get("method", "solve")
    if not printing:
        _check_complete(options)
        fit(**options)
        return
    own_options(method, options)
    defaults = parser.get_defaults().as_dict()
    names = ("data", "target", "features", "out", "method", *COMMON, *OWN[method])
    print(
        yaml_text({k: options.get(k, None if k == "data" else defaults[k]) for k in names}), end=""
    )


def _train(parser: Any, given: Any, *, printing: bool) -> None:
    from zeroproof.cli.trainer_run import TrainerRun, train_run

    given["method"] = "train"
    full = parser.parse_object(given)
    for name in ("config", "print_config"):
        full.pop(name, None)
    text = _text(parser, full)
    parts = _instances(parser, full)
    if printing:
        print(text, end="")
        return
    _check_complete({**given.as_dict(), "data": full.data.train or None})
    train_run(
        TrainerRun(
            **{name: parts[name] for name in TrainerRun._fields if name != "text"}, text=text
        )
    )


def _instances(parser: Any, full: Any) -> Any:
    """Return the values with objects in place of sections, all but the model."""
    instantiate = getattr(parser, "instantiate", None)  # before 4.49 under another name
    return (instantiate or parser.instantiate_classes)(full)


def _text(parser: Any, full: Any) -> str:
    from zeroproof.cli.sections import SECTIONS

    # by position: its third argument, whether to leave out null, has had several names
    values = json.loads(parser.dump(full, "json", False))
    names = ("data", "target", "features", "out", "method", "seed", "resume", *SECTIONS)
    return yaml_text({name: values[name] for name in names})


def _check_complete(given: Mapping[str, Any]) -> None:
    missing = [name for name in _NEEDED if given.get(name) is None]
    if given.get("target") is None and not given.get("complex"):
        missing.insert(len(missing) and missing[0] == "data", "target")
    if missing:
        raise RangeError(
            f"the following arguments are required: {', '.join(missing)}; see zeroproof --help"
        )


_FLAGS = ("-c", "--config")
_TEXTS = ("target", "features", "linear_in", "degrees", "hidden")  # lists on the command line: a,b

Names = Mapping[str, Collection[str]]


def with_files(argv: Sequence[str], names: Names) -> list[str]:
    """Return the arguments with the content of each configuration file in place of its path.

    Args:
        argv: Arguments of `zeroproof fit`.
        names: Every option, with those inside it if it is a section whose names are known.

    Raises:
        DataError: A file cannot be read, is no mapping, or holds an unknown name.
    """
    words: list[str] = []
    for word in argv:
        flag, equals, path = word.partition("=")
        if words and words[-1] in _FLAGS:
            words.append(yaml_text(_read(Path(word), names)))
        elif flag in _FLAGS and equals:
            words += [flag, yaml_text(_read(Path(path), names))]
        else:
            words.append(word)
    return words


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, in its order."""
    yaml = require("yaml", extra="cli")
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def _read(path: Path, names: Names) -> dict[str, Any]:
    found = {key: value for key, value in _mapping(path).items() if value is not None}
    if isinstance(found.get("data"), str):
        found["data"] = {"train": found["data"]}
    _check_names(path, found, names)
    for key in set(_TEXTS) & set(found):
        if isinstance(found[key], list):
            found[key] = listed(found[key])
        elif isinstance(found[key], int | float):
            found[key] = str(found[key])
    return found


def _check_names(path: Path, found: Mapping[str, Any], names: Names) -> None:
    for key, value in found.items():
        _check_name(path, str(key), names)
        if names[key] and not isinstance(value, dict):
            raise DataError(f"{path} must hold a mapping under {key!r}, got {value!r}")
        for inner in value if names[key] else ():
            _check_name(path, f"{key}.{inner}", names)


def _mapping(path: Path) -> dict[str, Any]:
    yaml = require("yaml", extra="cli")
    load = require("jsonargparse", extra="cli").get_loader("yaml")  # for which 1e-3 is a number
    try:
        found = load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} must be a readable YAML file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be UTF-8 text, got other bytes") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        line = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{line}: must be YAML, got {problem}") from error
    if not isinstance(found, dict):
        raise DataError(
            f"{path} must be a mapping of options, such as target: y, got {_kind(found)}"
        )
    return found


def _kind(found: object) -> str:
    return "nothing" if found is None else f"a {type(found).__name__}"


def _check_name(path: Path, name: str, names: Names) -> None:
    section, _, inner = name.partition(".")
    if section in names and (not inner or inner in names[section]):
        return
    near = _nearest(name, names)
    hint = f"; did you mean {near}?" if near else ""
    raise DataError(f"{path} must hold options of `zeroproof fit`, got {name!r}{hint}")


def _nearest(name: str, names: Names) -> str:
    known = [*names, *(f"{section}.{inner}" for section in names for inner in names[section])]
    leaf = name.rpartition(".")[2]
    elsewhere = [one for one in known if one.rpartition(".")[2] == leaf]
    near = elsewhere or difflib.get_close_matches(name, known, 1)
    return repr(near[0]) if near else ""
