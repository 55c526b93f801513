"""The one stored form: a record in JSON with its tensors beside it, under one checksum.

FOLDER/
  NAME.json           format, version, kind, versions of zeroproof and torch, checksum, entries
  OTHER.safetensors   every tensor

Nothing is pickled. An entry is what JSON knows, or a dict with one key that begins with `$`:
`$tensor` and `$complex` name a tensor, `$float` is a number that is not finite, `$tuple` and
`$items` (a dict whose keys are no plain strings) hold their parts, and `$Name` the fields of an
object of that class. The checksum, SHA-256 over the file of tensors and all else in the record,
ties the two files together.
"""

import hashlib
import json
import math
import types
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from zeroproof._extras import require
from zeroproof._files import tensors_written, text_in_place
from zeroproof.errors import MissingExtraError, RangeError, ZeroProofError

__all__ = ["Stored", "built", "checksum", "load_tensors", "pack", "read_json", "said", "unpack"]

FORMAT, VERSION = "zeroproof", 2
_PLAIN = (bool, int, str, type(None))
_DEEPEST = 100  # levels; far from Python's own limit, also on the way back
_JSON = json.JSONEncoder(ensure_ascii=False)
_HEAD = ("format", "version", "kind", "zeroproof", "torch", "checksum")
NONE: Mapping[str, Any] = types.MappingProxyType({})
Kinds = Mapping[str, Callable[..., Any]]
Described = Callable[[Any], tuple[str, dict[str, Any]] | None]


class Stored(NamedTuple):
    """One kind of stored thing.

    Attributes:
        kind: What is stored, such as `"checkpoint"`.
        record: File name of the record.
        tensors: File name of the tensors.
        error: What is raised where it is not as it was written.
        foreign: What is raised where another version wrote it; `error` if it is absent.
        kinds: Classes whose objects may be in it, named tuples and the like; a function of the same
            signature may stand for one on the way back.
        described: Name and fields of an object of another class that may be in it, else `None`.
        older: How records of earlier formats are read, by the `format` they name: a function of the
            record and the folder that returns the entries.
    """

    kind: str
    record: str
    tensors: str
    error: type[ZeroProofError]
    kinds: Kinds = NONE
    described: Described = lambda _: None
    foreign: type[ZeroProofError] | None = None
    older: Mapping[str, Callable[[dict[str, Any], Path], dict[str, Any]]] = NONE

    def write(self, folder: Path, entries: Mapping[str, Any]) -> None:
        """Write both files into an existing folder.

        Raises:
            OSError: The disk is full, the folder cannot be written, ...
            RangeError: As `pack`.
        """
        tree, tensors = pack(entries, self._described)
        with tensors_written() as safetensors:
            safetensors.save_file(tensors, folder / self.tensors)
        record = {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "zeroproof": import_module("zeroproof").__version__,  # also where it is not installed
            "torch": torch.__version__,
            **tree,
        }
        record["checksum"] = checksum(folder / self.tensors, record)
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        text_in_place(folder / self.record, text + "\n")
        # safetensors lets nobody but the user read; the record has what the umask grants
        (folder / self.tensors).chmod((folder / self.record).stat().st_mode & 0o777)

    def read(self, folder: Path) -> dict[str, Any]:
        """Return the entries.

        Raises:
            self.error: It is no such folder, is damaged, or was written by a newer version.
        """
        place = folder / self.record
        record = read_json(place, self.error)
        named = record.get("format") if isinstance(record, dict) else None
        if isinstance(named, str) and named in self.older:
            return self._guarded(folder, lambda: self.older[named](record, folder))
        if named != FORMAT:
            raise self.error(f"{place} must have the format {FORMAT!r}, got something else")
        if (found := record.get("version")) != VERSION:
            other = self.foreign if type(found) is int else None
            raise (other or self.error)(
                f"{place} must have format version {VERSION}, got {found!r}: "
                "use the version of zeroproof that wrote it"
            )
        if record.get("kind") != self.kind:
            raise self.error(f"{place} must hold a {self.kind}, got a {record.get('kind')}")
        return self._guarded(folder, lambda: self._entries(record, folder))

    def _described(self, x: Any) -> tuple[str, dict[str, Any]] | None:
        name = type(x).__name__
        if self.kinds.get(name) is not type(x):
            return self.described(x)
        return name, x._asdict() if isinstance(x, tuple) else vars(x)  # pyright: ignore

    def _entries(self, record: dict[str, Any], folder: Path) -> dict[str, Any]:
        if checksum(folder / self.tensors, record) != record.get("checksum"):
            raise RangeError("other contents than were written: the checksum differs")
        tensors = load_tensors(folder / self.tensors)
        return {k: unpack(v, tensors, self.kinds) for k, v in record.items() if k not in _HEAD}

    def _guarded(self, folder: Path, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return read()
        except Exception as error:  # whatever a reader says, it is not as it was written
            if isinstance(error, (MissingExtraError, self.foreign or MissingExtraError)):
                raise  # no fault of the folder
            raise self.error(
                f"{folder} must hold a whole {self.kind}, but has {said(error)}"
            ) from error


def said(error: BaseException) -> str:
    """Return in one line what an error says."""
    words = " ".join(str(error).split()) or repr(error)
    return f"no {words}" if isinstance(error, KeyError) else words


def load_tensors(place: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, aligned anew: sums over them keep their last bits."""
    tensors = require("safetensors.torch", extra="train").load_file(place)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def read_json(place: Path, error: type[ZeroProofError]) -> Any:
    """Return what a file of strict JSON holds.

    Raises:
        ZeroProofError: Of the class `error`: it cannot be read, or has a nan, an infinity, a key
            that stands twice, or more levels than can be followed.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"a number {name}")

    def number(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key that stands twice")
        return found

    try:
        text = place.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=refuse, parse_float=number, object_pairs_hook=once)
    except (ValueError, OSError, RecursionError, MemoryError) as reason:
        raise error(f"{place} must be readable JSON, but has {said(reason)}") from reason


def pack(tree: Any, described: Described = lambda _: None) -> tuple[Any, dict[str, Tensor]]:
    """Split a value into JSON and the tensors it refers to.

    Tensors are copied to the CPU: they may move on while they are written.

    Raises:
        RangeError: Something is no number, string or dense tensor, nor at most 100 levels of those.
    """
    tensors: dict[str, Tensor] = {}
    return _packed(tree, "", tensors, described), tensors


def unpack(  # noqa: PLR0911 - one for each mark
    value: Any, tensors: Mapping[str, Tensor], kinds: Kinds = NONE
) -> Any:
    """Put together what `pack` took apart; objects of the `kinds` are built and checked.

    Raises:
        RangeError: A class is unknown, or a field has another type than it is declared with.
        KeyError, ValueError: A tensor or number is not there.
    """

    def of(item: Any) -> Any:
        return unpack(item, tensors, kinds)

    if isinstance(value, list):
        return [of(item) for item in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value), "")
    if len(value) != 1 or not mark.startswith("$"):
        return {key: of(item) for key, item in value.items()}
    inner = value[mark]
    match mark:
        case "$tensor":
            return tensors[inner]
        case "$complex":
            return torch.view_as_complex(tensors[inner])
        case "$float":
            return float(inner)
        case "$tuple":
            return tuple(of(item) for item in inner)
        case "$items":
            return {of(key): of(item) for key, item in inner}
    kind = kinds.get(mark[1:])
    if kind is None:
        raise RangeError(f"an object of an unknown kind, {mark[1:]}")
    return built(kind, {key: of(item) for key, item in inner.items()})


def built(kind: Callable[..., Any], fields: dict[str, Any]) -> Any:
    """Return an object of its fields, each of the type that it is declared with.

    Raises:
        RangeError: One is unknown or of another type.
        TypeError: One is missing that has no default.
    """
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if name not in hints or not _fits(value, hints[name]):
            of = getattr(kind, "__name__", str(kind))
            raise RangeError(f"{of}.{name} = {str(value)[:60]}, which it cannot be")
    return kind(**fields)


def _fits(value: Any, hint: Any) -> bool:  # noqa: PLR0911 - one for each kind of type
    """Tell whether a value is of the type that is declared."""
    if hint is Any:
        return True
    inner = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        each = [inner[0]] * len(value) if inner[-1] is ... else inner
        return len(each) == len(value) and all(map(_fits, value, each))
    if hint in (int, float) and type(value) is int:
        return abs(value) < 2**63
    if hint in (int, float, bool, str):
        return type(value) is hint
    return isinstance(value, get_origin(hint) or hint)


def _packed(  # noqa: PLR0911 - one for each kind of value
    tree: Any, path: str, tensors: dict[str, Tensor], described: Described, depth: int = 0
) -> Any:
    if depth > _DEEPEST:
        raise RangeError(f"{path[:40]}... must be nested in at most {_DEEPEST} levels, got more")
    if isinstance(tree, Tensor):
        # without the name of the entry, so that weights keep the names that they have in a model
        names = chain([path.partition(".")[2], path], (f"{path}.{i}" for i in count()))
        taken = {"", "__metadata__", *tensors}  # the second is a name of the format's own
        name = next(name for name in names if name not in taken)
        tensors[name] = _dense(tree, path)
        return {"$complex" if tree.is_complex() else "$tensor": name}
    if isinstance(tree, float):
        tree = float(tree)  # a NumPy number is one too
        return tree if math.isfinite(tree) else {"$float": repr(tree)}
    if isinstance(tree, _PLAIN):
        return _plain(tree, path)

    def of(item: Any, name: Any) -> Any:
        return _packed(item, f"{path}.{name}".lstrip("."), tensors, described, depth + 1)

    if (found := described(tree)) is not None:
        name, fields = found
        return {f"${name}": {field: of(item, field) for field, item in fields.items()}}
    if isinstance(tree, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in tree):
            return {_plain(key, path): of(item, key) for key, item in tree.items()}
        return {"$items": [[of(key, "key"), of(item, key)] for key, item in tree.items()]}
    if isinstance(tree, list | tuple):
        items = [of(item, i) for i, item in enumerate(tree)]
        return {"$tuple": items} if isinstance(tree, tuple) else items
    if hasattr(tree, "item") and getattr(tree, "ndim", None) == 0:  # a NumPy scalar
        return _packed(tree.item(), path, tensors, described, depth + 1)
    raise RangeError(
        f"{path or 'what is stored'} must be made of numbers, strings and tensors, "
        f"got {type(tree).__name__}"
    )


def _plain(value: Any, path: str) -> Any:
    try:
        _JSON.encode(value).encode()
    except ValueError as error:  # half a pair of surrogates, or too many digits
        what = f"{path} must have numbers and text that a file can hold, but has {said(error)}"
        raise RangeError(what) from error
    return value


def _dense(x: Tensor, path: str) -> Tensor:
    safetensors = require("safetensors.torch", extra="train")
    try:
        x = x.detach()
        if x.is_complex():  # safetensors knows none of double precision
            x = torch.view_as_real(x.resolve_conj())
        x = x.to("cpu", copy=True).contiguous()
        safetensors.save({"x": x.reshape(-1)[:0]})  # so that an unknown type is found out here
    except Exception as error:  # torch and safetensors have many for what they cannot copy
        raise RangeError(
            f"{path} must be a dense tensor of plain numbers, got {x.dtype}, {x.layout} on "
            f"{x.device}: {said(error)[:120]}"
        ) from error
    return x


def checksum(tensors: Path, record: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in record.items() if key != "checksum"}
    text = json.dumps(rest, allow_nan=False, sort_keys=True, separators=(",", ":"))
    with tensors.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
