import itertools
import weakref
from collections import Counter

import pytest
import torch

from zeroproof.data import TableStream, read_table, stream, units
from zeroproof.data import stream as stream_module
from zeroproof.errors import RangeError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few cores
KINDS = ["parquet", "csv"]
SIZES = {"one": [50], "many": [13, 0, 1, 30, 8], "few": [3]}


def rows(batches):
    """Return the rows of batches in the order they came, having checked that y belongs to x."""
    found = []
    for x, y in batches:
        assert x.shape == y.shape == (len(x), 1)
        assert x.is_contiguous()
        assert y.is_contiguous()
        assert torch.equal(y, 2 * x)
        found += x[:, 0].int().tolist()
    return found


SHARES = [(1, 0), (3, 0), (1, 2), (2, 2), (7, 0)]  # processes, workers of each
SPREAD = [  # every share of every size, the kinds and orders in turn
    (KINDS[k % 2], sizes, k % 4 < 2, *share)
    for k, (sizes, share) in enumerate(itertools.product(SIZES.values(), SHARES))
]


@pytest.mark.parametrize(("kind", "sizes", "shuffle", "world_size", "workers"), SPREAD)
def test_every_row_comes_once_over_ranks_and_workers(
    write_files, stream_of, kind, sizes, shuffle, world_size, workers
):
    folder = write_files(kind, sizes)
    found = []
    for rank in range(world_size):
        stream = stream_of(
            folder, shuffle=shuffle, num_workers=workers, rank=rank, world_size=world_size
        )
        batches = list(stream)
        assert all(1 <= len(x) <= 3 for x, _ in batches)
        share = rows(batches)
        if kind == "parquet":
            assert stream.rows == len(share)
            assert len(stream) == len(batches)
            assert sum(sizes) // world_size <= len(share) <= -(-sum(sizes) // world_size)
        found += share
    assert Counter(found) == Counter(range(sum(sizes)))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_keep_their_order_without_shuffling(write_files, stream_of, kind):
    batches = list(stream_of(write_files(kind, [13, 0, 30]), shuffle=False))
    assert rows(batches) == list(range(43))
    assert [len(x) for x, _ in batches] == [3] * 14 + [1]


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_differ_and_a_seed_repeats_them(write_files, stream_of, kind):
    folder = write_files(kind, [13, 30, 9])
    stream, equal, other = (stream_of(folder, seed=seed) for seed in (4, 4, 5))
    epochs = [rows(stream) for _ in range(3)]
    assert all(sorted(epoch) == list(range(52)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] != list(range(52))
    assert [rows(equal) for _ in range(3)] == epochs
    assert rows(other) != epochs[0]


def test_both_units_and_rows_of_a_block_are_permuted(write_files, stream_of):
    folder = write_files("parquet", [80], unit=4)
    found = rows(stream_of(folder, buffer_rows=12))
    for block in (found[start : start + 12] for start in range(0, 80, 12)):
        assert len({row // 4 for row in block}) == -(-len(block) // 4)  # whole row groups
        assert block != sorted(block)
    groups = [found[start] // 12 for start in range(0, 80, 12)]
    assert groups != sorted(groups)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (2, 2)])
def test_every_block_is_permuted_in_its_own_way(write_files, stream_of, world_size, workers):
    folder = write_files("parquet", [96], unit=96)
    options = {"batch_size": 24, "buffer_rows": 24, "num_workers": workers}
    found = [
        tuple(row % 24 for row in rows([batch]))
        for rank in range(world_size)
        for batch in stream_of(folder, **options, rank=rank, world_size=world_size)
    ]
    assert len(set(found)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_workers_is_that_of_their_turns(write_files, stream_of, kind):
    folder = write_files(kind, [5, 40])
    shards = [list(stream_of(folder, rank=rank, world_size=3)) for rank in range(3)]
    expected = []
    while any(shards):
        expected += [shard.pop(0) for shard in shards if shard]
    found = list(stream_of(folder, num_workers=3))
    assert rows(found) == rows(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_no_more_rows_are_held_than_a_block_and_a_unit(
    write_files, stream_of, monkeypatch, kind, shuffle
):
    held, live = [], weakref.WeakSet()

    class Held(torch.Tensor):
        __hash__ = object.__hash__

    def counted(read):
        def reader(part, columns):
            for values in read(part, columns):
                kept = values.as_subclass(Held)
                live.add(kept)
                held.append(sum(len(x) for x in live))
                yield kept
                del values, kept

        return reader

    for name in ("read_rows", "read_lines"):
        monkeypatch.setattr(stream, name, counted(getattr(stream, name)))
    real, blocks = torch.empty, []
    monkeypatch.setattr(
        torch, "empty", lambda *shape, **kw: blocks.append(shape) or real(*shape, **kw)
    )
    assert len(rows(stream_of(write_files(kind, [200, 100]), shuffle=shuffle))) == 300
    assert len(held) > 20
    assert max(held) <= 12  # a unit: 8 rows of Parquet, at most 12 lines of CSV
    assert [shape for shape in blocks if len(shape) == 2] == [(6 if shuffle else 3, 2)]


def test_a_batch_keeps_its_rows_when_the_block_is_filled_anew(write_files, stream_of):
    stream = stream_of(write_files("parquet", [40]))
    kept = [(batch, batch[0].clone()) for batch in stream]
    assert all(torch.equal(x, copy) for (x, _), copy in kept)


@pytest.mark.parametrize("kind", KINDS)
def test_short_batches_can_be_left_out(write_files, stream_of, kind):
    batches = list(stream_of(write_files(kind, [13, 30]), drop_last=True))
    assert [len(x) for x, _ in batches] == [3] * 14
    assert len(set(rows(batches))) == 42


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_then_yield_equally_many_batches(write_files, stream_of, workers):
    folder = write_files("parquet", [47])  # rows of ranks: 23 and 24, of their workers: 11 and 12
    for rank in range(2):
        process = {"num_workers": workers, "rank": rank, "world_size": 2}
        stream = stream_of(folder, drop_last=True, **process)
        batches = list(stream)
        assert [len(x) for x, _ in batches] == [3] * (6 if workers else 7)
        assert (len(stream), stream.rows) == (len(batches), len(rows(batches)))
    assert len(stream_of(folder, **process)) == 8


def test_the_length_of_csv_files_is_not_known(write_files, stream_of):
    stream = stream_of(write_files("csv", [13]))
    assert stream.rows is None
    with pytest.raises(TypeError, match="of CSV files is known only at the end"):
        len(stream)


def test_files_come_in_the_order_of_the_list_or_sorted(write_files, stream_of):
    folder = write_files("csv", [4, 4, 4])
    paths = sorted(folder.rglob("*.csv"))
    assert rows(stream_of(paths[::-1], shuffle=False)) == [*range(8, 12), *range(4, 8), *range(4)]
    assert rows(stream_of(str(paths[1]), shuffle=False)) == [4, 5, 6, 7]
    for name in ("_temporary/a.csv", ".hidden.csv", "readme.txt"):  # passed over
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no table")
    (folder / "9.CSV").write_text("y,x\n24,12\n")
    assert rows(stream_of(folder, shuffle=False)) == list(range(13))


def test_the_process_is_looked_up_when_first_needed(write_files, stream_of, monkeypatch):
    stream = stream_of(write_files("parquet", [40]))
    assert stream.rows == 40
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert stream.rows == 40  # half of what torchrun sets is no launch
    monkeypatch.setenv("RANK", "1")
    assert stream.rows == 10
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert stream.rows == 20
    first = rows(stream)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    second = rows(stream_of(sorted(stream._units[0].path.parent.glob("*"))))
    assert sorted(first + second) == list(range(40))


def test_the_random_stream_of_torch_is_left_alone(write_files, stream_of):
    before = torch.get_rng_state()
    for workers in (0, 2):
        list(stream_of(write_files("csv", [13]), num_workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_columns_and_dtype_are_those_asked_for(write_files):
    folder = write_files("parquet", [5])
    stream = TableStream(
        folder, features=["y", "x"], targets=("x", "y"), dtype=torch.float64, shuffle=False
    )
    ((x, y),) = stream
    assert x.dtype == y.dtype == torch.float64
    assert x.tolist() == [[2.0 * row, row] for row in range(5)]
    assert torch.equal(y, x.flip(1))


def test_lines_are_found_wherever_a_stretch_begins(tmp_path, stream_of, monkeypatch):
    text = "\ufeffx,y\r\n1,2\r\n\r\n20,40\n300,600\n\n4,8"
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    assert read_table(path).rows == 4
    for size in range(1, len(text)):
        monkeypatch.setattr(units, "BYTES", size)
        assert rows(stream_of(path, shuffle=False)) == [1, 20, 300, 4]
        for world_size in (2, 5):
            shares = [
                row
                for rank in range(world_size)
                for row in rows(stream_of(path, rank=rank, world_size=world_size))
            ]
            assert sorted(shares) == [1, 4, 20, 300]


def test_a_data_loader_around_it_is_refused(write_files, stream_of, monkeypatch):
    loaded = stream_of(write_files("csv", [3]))
    monkeypatch.setattr(stream_module, "get_worker_info", object)
    with pytest.raises(RangeError, match="has workers of its own"):
        iter(loaded)


def test_it_says_that_it_shards_itself():
    assert TableStream.shards_itself is True
