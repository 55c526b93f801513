import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zeroproof.data import TableStream, units, write_csv


@pytest.fixture
def write_files(tmp_path, monkeypatch):
    """Write rows x = 0, 1, ... with y = 2 x over nested files of given sizes, in small units."""

    def write(kind, sizes, unit=8):
        monkeypatch.setattr(units, "BYTES", 9 * unit)  # a row takes 6 to 12
        folder, row = tmp_path / f"{len(list(tmp_path.iterdir()))}-{kind}", 0
        for number, size in enumerate(sizes):
            path = folder / f"{number // 2}" / f"{number}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            x = list(range(row, row + size))
            columns = {"y": [2.0 * value for value in x], "note": ["a"] * size, "x": x}
            if kind == "csv":
                write_csv(path, columns)
            else:
                types = [("y", pa.float64()), ("note", pa.string()), ("x", pa.int64())]
                pq.write_table(pa.table(columns, pa.schema(types)), path, row_group_size=unit)
            row += size
        return folder

    return write


@pytest.fixture
def stream_of():
    """Return a stream of such files, in small batches and blocks unless told otherwise."""

    def stream(source, **options):
        defaults = {"features": ["x"], "target": "y", "batch_size": 3, "buffer_rows": 7}
        return TableStream(source, **defaults | options)

    return stream
