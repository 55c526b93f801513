"""Run folders of either kind, opened and asked: `zeroproof predict`."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from zeroproof._extras import require
from zeroproof.cli.arguments import Reply
from zeroproof.cli.tables import DESCRIPTIONS, RUN_FILES, cell_options, column_names, reading
from zeroproof.errors import DataError, RangeError, RunFolderError

if TYPE_CHECKING:  # torch takes a second, which `--help` shall not
    from torch import Tensor

    from zeroproof.data import Table
    from zeroproof.data.schema import Schema
    from zeroproof.estimators.fitted import Fitted
    from zeroproof.inference.run import Run

_NORMAL = 1.96  # standard errors, of 95 %

__all__ = ["Solved", "answers_of", "check_file", "open_run", "predict"]


class Solved(NamedTuple):
    """A closed-form fit with the names of its columns."""

    fitted: "Fitted"
    features: tuple[str, ...]  # those that are used
    targets: tuple[str, ...]  # of a complex output two, real and imaginary part
    outputs: tuple[str, ...]  # a name for each
    facts: Mapping[str, Any] = {}


def predict(
    run: str, data: str, *, out: str = "", keep: str = "", quiet: bool = False, **given: Any
) -> Reply:
    """Answer each row of a table, piece by piece, with a status that says when there is none.

    Args:
        run: Folder written by `zeroproof fit`.
        data: A table with the feature columns, in any order; further columns are ignored.
        out: File to write. Per target: its value, what is known of it (see `answers_of`), and its
            `Status` as a word; `outside` is 1 where an input lies outside the data of the fit.
        keep: Columns of the table to hand on, a,b or all.
        quiet: Show no progress.
        given: Options of tables.
    """
    from collections import Counter

    import torch

    from zeroproof.data import read_pieces, writing

    if not out:
        raise RangeError("the following arguments are required: out; see zeroproof predict --help")
    if out != "-":
        check_file(out, data)
    opened = open_run(run)
    schema = schema_of(opened)
    options = cell_options(given)
    counts: Counter[str] = Counter()
    rows, beyond, apart = 0, 0, 0.0
    plain = {column.name for column in schema.features if column.kind == "number"}
    pieces = read_pieces(data, reading(given), sheet=given.get("sheet"))
    with writing(out) as write, _progress(quiet=quiet) as advance:
        for table in pieces:
            X, outside = schema.matrix(table, options)
            far = torch.from_numpy(outside)
            places = [schema.names.index(name) for name in opened.features]
            X = torch.from_numpy(X[:, places].copy())
            columns = answers_of(opened, X)
            if isinstance(opened, Solved) and far.any():
                apart = max(apart, float(opened.fitted.disagreement(X[far]).max()))
            kept = _kept(table, keep, plain)
            if clash := kept.keys() & {*columns, "outside"}:
                raise DataError(
                    f"--keep must not name a column of the answers, got {min(clash)!r}; list others"
                )
            write({**kept, **columns, "outside": outside.astype("int8")})
            counts.update(word for t in opened.targets for word in columns[f"{t}_status"])
            rows, beyond = rows + table.rows, beyond + int(outside.sum())
            advance(table.rows)
    words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    more = f"; {beyond} rows outside the data of the fit" if beyond else ""
    if apart:
        more += f", where fits that serve as well differ by up to {apart:.2g} of the answer"
    record = {"rows": rows, "out": out, "status": dict(counts), "outside": beyond, "apart": apart}
    return Reply([] if out == "-" else [f"{rows} rows -> {out}: {words}{more}"], record)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int], Any]]:
    tqdm = require("tqdm.auto", extra="train").tqdm
    shown = sys.stderr.isatty() and not quiet
    with tqdm(desc="predict", unit=" rows", disable=not shown, leave=False) as bar:
        yield bar.update


def _kept(table: "Table", keep: str, plain: Collection[str]) -> dict[str, Any]:
    """Return columns to hand on: features as the numbers that were read, all else as it came."""
    names = tuple(table.columns) if keep == "all" else column_names(keep, "--keep") if keep else ()
    for name in names:
        if name not in table.columns:
            raise DataError(
                f"--keep must name columns of {table.name}, got {name!r}: {table.near(name)}"
            )
    return {
        name: table.cells(name).value if name in plain else table.columns[name] for name in names
    }


def schema_of(run: "Run | Solved") -> "Schema":
    """Return what the columns of a run mean; of earlier versions numbers."""
    from zeroproof.data.schema import Schema, TableColumn

    facts = run.facts.get("schema")
    if facts is None:
        return Schema(tuple(TableColumn(name) for name in run.features))
    try:
        return Schema.of_record(facts).using(run.features)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise RunFolderError(f"a run must tell what its columns mean, got {error}") from error


def open_run(folder: str | Path) -> "Run | Solved":
    """Read what `zeroproof fit` wrote, or `ProjectiveRegressor.save`.

    Raises:
        RunFolderError: It is neither, is damaged, or was written by a newer version.
    """
    from zeroproof.export import load_run

    folder = Path(folder)
    if (folder / "model.json").is_file():
        return _solved(folder)
    if not (folder / "run.json").is_file():
        raise RunFolderError(
            f"{folder} must be a folder written by `zeroproof fit`, "
            "but has no model.json or run.json"
        )
    return load_run(folder)


def answers_of(run: "Run | Solved", X: "Tensor") -> dict[str, Any]:
    """Return columns of answers for rows of the features of a run.

    For each target: its value in the units of the target, nan at ⊥, or inf and -inf where a model
    tells them apart; `error`, its standard error, which is how far the fit may be off, nan where it
    is not known; `low` and `high`, where it lies with 95 %: if low is above high, this is all above
    low and all below high, through ∞; `score`, and `status`, a word of `Status`.

    """
    import torch

    from zeroproof.inference.status import Status, columns_of
    from zeroproof.projective import denominator_score

    if isinstance(run, Solved):
        fitted = run.fitted
        answers = fitted.strict(X)
        status, decoded = fitted.status(X, answers), answers.decoded
        N, D = fitted.tuples(X)
        score = denominator_score(N, D, "angle", fitted.thresholds.scale)
        error = fitted.errors(X).expand(decoded.shape)
        if decoded.is_complex():
            decoded = torch.view_as_real(decoded.resolve_conj()).flatten(1)
            status, score, error = (p.repeat_interleave(2, 1) for p in (status, score, error))
        scale = fitted.thresholds.scale
    else:
        from zeroproof.inference.run import predict_rows

        answers = predict_rows(run, X)
        assert answers.origin is not None
        status, decoded = answers.status, answers.decoded
        N, D, config, *_ = answers.origin
        score = denominator_score(N, D, config.score, config.scale).double()
        error, scale = torch.full_like(decoded, torch.nan), 1.0
    # the angle to ⊥ is known as well next to a pole as elsewhere
    angle, reach = (decoded / scale).atan(), _NORMAL * error / scale
    reach = reach / (1 + (decoded / scale) ** 2)
    low, high = (scale * (angle + side * reach).tan() for side in (-1, 1))
    anything = reach >= torch.pi / 2
    low, high = low.masked_fill(anything, -torch.inf), high.masked_fill(anything, torch.inf)
    error = error.masked_fill(decoded.isnan(), torch.nan)
    if isinstance(run, Solved) and run.fitted.affine:
        decoded = torch.where(status == Status.POLE, N.sign() * torch.inf, decoded)
    return columns_of(run.targets, decoded, status, error=error, low=low, high=high, score=score)


def _solved(folder: Path) -> Solved:
    from zeroproof.estimators.stored import load

    fitted, _, facts = load(folder)
    N = fitted.fit.model.tuples(fitted.domain[:1]).N
    # saved from Python, targets have no names
    plain = ["y"] if N.shape[1] == 1 else [f"y{j}" for j in range(N.shape[1])]
    each = 2 if N.is_complex() else 1
    if each == 2:
        plain = [f"{name}_{part}" for name in plain for part in ("re", "im")]
    targets = facts.get("targets", plain)
    for what, names, wanted in (
        ("targets", targets, each * N.shape[1]),
        ("features", fitted.names, len(fitted.columns)),
    ):
        if not _are_names(names) or len(names) != wanted:
            raise RunFolderError(
                f"{folder / 'model.json'} must name {wanted} {what}, got {names!r}"
            )
    outputs = (",".join(targets[i : i + each]) for i in range(0, len(targets), each))
    return Solved(fitted, tuple(fitted.names), tuple(targets), tuple(outputs), facts)


def _are_names(names: object) -> TypeGuard[Sequence[str]]:
    return isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)


def check_file(out: str, data: str | None = None) -> None:
    """Check that answers may be written here.

    Raises:
        DataError: It is a folder, a file of a run, or the data themselves.
    """
    if Path(out).exists() and not Path(out).is_file():
        kind = "folder" if Path(out).is_dir() else "device or pipe"
        raise DataError(f"--out must name a file to write, got the {kind} {out}")
    place = Path(out).resolve()
    if place.name in RUN_FILES and any((place.parent / name).is_file() for name in DESCRIPTIONS):
        raise DataError(f"--out must not replace a file of a run, got {out}")
    if data is not None and Path(out).resolve() == Path(data).resolve():
        raise DataError(f"--out must not replace the data, got {out} for both")
