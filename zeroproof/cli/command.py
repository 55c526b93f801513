"""The arguments of `zeroproof fit`, from the command line and files, and what they ask for."""

import json
import sys
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from zeroproof.cli.config_file import yaml_text
from zeroproof.cli.fit import COMMON, OWN, fit, own_options
from zeroproof.errors import RangeError

__all__ = ["add_fit_arguments", "fit_names", "importable", "run_fit"]

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
