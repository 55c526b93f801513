"""`zeroproof predict`: answers of a fitted run for the rows of a CSV file."""

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
    from zeroproof.cli.rows import answer_columns
    from zeroproof.cli.runs import answers_of, check_file, open_run
    from zeroproof.data import numbers, read_csv, write_csv

    check_file(out, data)
    opened = open_run(run)
    X = numbers(read_csv(data), opened.features, advice=_ADVICE)
    answer = answers_of(opened, X)
    columns = {}
    for place, name in enumerate(opened.targets):
        decoded, bottom, gap = (part[:, place] for part in answer)
        parts = (decoded.tolist(), bottom.int().tolist(), gap.int().tolist())
        columns.update(zip(answer_columns(name), parts, strict=True))
    write_csv(out, columns)
    print(
        f"{len(X)} rows -> {out}: {int(answer.bottom_mask.any(1).sum())} with ⊥, "
        f"{int(answer.gap_mask.any(1).sum())} with an answer in the gap"
    )
