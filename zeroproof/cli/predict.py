"""`zeroproof predict`: answers of a fitted run for the rows of a CSV file."""

from pathlib import Path

__all__ = ["predict"]

_ADVICE = "; write it as a number, or nan where it is unknown, and the answer is ⊥"


def predict(run: str, data: str, *, out: str) -> None:
    """Answer each row of a table, with ⊥ where the model says that there is no finite answer.

    Args:
        run: Folder written by `zeroproof fit`.
        data: CSV file with the feature columns, in any order; further columns are ignored.
        out: CSV file to write. Per target: its decoded value (nan at ⊥), and 0 or 1 in
            TARGET_bottom and TARGET_gap (a finite answer so close to a singularity that it is
            risky).
    """
    from zeroproof.cli.columns import answer_columns
    from zeroproof.data import numbers, read_csv, write_csv
    from zeroproof.errors import DataError
    from zeroproof.export import load_run, predict_rows

    if Path(out).is_dir():
        raise DataError(f"--out must name a file to write, got the folder {out}")
    if Path(out).resolve() == Path(data).resolve():
        raise DataError(f"--out must not replace the data, got {out} for both")
    loaded = load_run(run)
    X = numbers(read_csv(data), loaded.features, advice=_ADVICE)
    answer = predict_rows(loaded, X)
    columns = {}
    for place, name in enumerate(loaded.targets):
        decoded, bottom, gap = (part[:, place] for part in answer)
        parts = (decoded.tolist(), bottom.int().tolist(), gap.int().tolist())
        columns.update(zip(answer_columns(name), parts, strict=True))
    write_csv(out, columns)
    print(
        f"{len(X)} rows -> {out}: {int(answer.bottom_mask.any(1).sum())} with ⊥, "
        f"{int(answer.gap_mask.any(1).sum())} with an answer in the gap"
    )
