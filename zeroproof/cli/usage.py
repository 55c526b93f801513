"""Reports of the parser, which have several lines, as one sentence each."""

import re
from collections.abc import Collection

__all__ = ["usage_sentence"]

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
