"""Configuration files of `zeroproof fit`: read, checked name by name, written."""

import csv
import difflib
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroproof._extras import require
from zeroproof.errors import DataError

__all__ = ["listed", "with_files", "yaml_text"]

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


def listed(values: Sequence[Any]) -> str:
    """Return values as the command line takes a list, `a,b`; one with a comma in double quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


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
