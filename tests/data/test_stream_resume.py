import json

import pytest
import torch

from zeroproof.data import stream as stream_module
from zeroproof.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few cores


def same(found, expected):
    return len(found) == len(expected) and all(
        torch.equal(x, other_x) and torch.equal(y, other_y)
        for (x, y), (other_x, other_y) in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(
    ("kind", "shuffle", "workers"),
    [("parquet", True, 0), ("csv", False, 0), ("parquet", False, 2), ("csv", True, 2)],
)
def test_an_epoch_goes_on_after_any_batch(write_files, stream_of, kind, shuffle, workers):
    folder = write_files(kind, [2, 13, 11])  # blocks within units and over several
    options = {"shuffle": shuffle, "num_workers": workers, "rank": 1, "world_size": 2}
    stream = stream_of(folder, **options)
    states, epochs = [], []
    for _ in range(3):
        epoch = []
        for batch in stream:
            epoch.append(batch)
            if len(epochs) == 1:
                states.append(json.dumps(stream.state_dict()))
        epochs.append(epoch)
    assert len(states) >= 4
    for gone, state in enumerate(states, start=1):
        resumed = stream_of(folder, **options)
        resumed.load_state_dict(json.loads(state))
        assert json.dumps(resumed.state_dict()) == state
        assert same(list(resumed), epochs[1][gone:])
        assert resumed.state_dict()["epoch"] == 2
        assert same(list(resumed), epochs[2])


@pytest.mark.parametrize("workers", [0, 3])
def test_turns_go_on_where_they_were_when_some_workers_have_ended(tmp_path, stream_of, workers):
    path = tmp_path / "a.csv"
    long = "".join(f"{'0' * 40}{x},1\n" for x in range(9))  # few rows in many bytes
    path.write_text("x,y\n" + long + "".join(f"{x},1\n" for x in range(99)))
    options = {"num_workers": workers, "shuffle": False, "batch_size": 2}
    stream = stream_of(path, **options)
    batches, states = [], []
    for batch in stream:
        batches.append(batch)
        states.append(stream.state_dict())
    for gone in range(1, len(batches), 7):
        resumed = stream_of(path, **options)
        resumed.load_state_dict(states[gone - 1])
        assert same(list(resumed), batches[gone:])


@pytest.mark.parametrize("workers", [0, 2])
def test_between_epochs_the_place_is_the_beginning_of_the_next(write_files, stream_of, workers):
    folder = write_files("csv", [20])
    stream = stream_of(folder, num_workers=workers)
    states = [stream.state_dict()]
    first = list(stream)
    states.append(stream.state_dict())
    second = list(stream)
    assert [state["epoch"] for state in states] == [0, 1]
    for state, epoch in zip(states, (first, second), strict=True):
        resumed = stream_of(folder, num_workers=workers)
        resumed.load_state_dict(state)
        assert same(list(resumed), epoch)


def test_an_epoch_broken_off_is_followed_by_the_next(write_files, stream_of):
    folder = write_files("parquet", [20])
    stream, whole = stream_of(folder), stream_of(folder)
    epochs = [list(whole) for _ in range(2)]
    for _ in stream:
        break
    state = stream.state_dict()
    assert same(list(stream), epochs[1])
    stream.load_state_dict(state)  # also a stream that was used takes it up
    assert same(list(stream), epochs[0][1:])
    assert same(list(stream), epochs[1])


def test_going_on_reads_no_earlier_unit(write_files, stream_of, monkeypatch):
    folder = write_files("parquet", [400])
    stream = stream_of(folder)
    for count, _ in enumerate(stream):
        if count == 100:
            break
    real, parts = stream_module.read_rows, []

    def noted(part, columns):
        parts.append(part)
        return real(part, columns)

    monkeypatch.setattr(stream_module, "read_rows", noted)
    resumed = stream_of(folder)
    resumed.load_state_dict(stream.state_dict())
    next(iter(resumed))
    assert len(parts) <= 2  # of 50


OTHERS = {
    "features": {"features": ["x", "y"]},
    "targets": {"targets": ["x"], "target": None},
    "dtype": {"dtype": torch.float64},
    "batch_size": {"batch_size": 4},
    "buffer_rows": {"buffer_rows": 8},
    "shuffle": {"shuffle": False},
    "seed": {"seed": 1},
    "drop_last": {"drop_last": True},
    "num_workers": {"num_workers": 2},
    "world_size": {"rank": 0, "world_size": 2},
}


@pytest.mark.parametrize(("key", "options"), OTHERS.items(), ids=OTHERS)
def test_the_state_of_another_stream_is_refused(write_files, stream_of, key, options):
    folder = write_files("parquet", [20])
    state = stream_of(folder).state_dict()
    with pytest.raises(DataError, match=f"must be that of an equal stream, got {key} .* here$"):
        stream_of(folder, **options).load_state_dict(state)


def test_the_state_of_another_rank_or_of_other_files_is_refused(write_files, stream_of):
    folder = write_files("parquet", [20, 20])
    state = stream_of(folder, rank=0, world_size=2).state_dict()
    with pytest.raises(DataError, match="got rank 0 in it and 1 here"):
        stream_of(folder, rank=1, world_size=2).load_state_dict(state)
    paths = sorted(folder.rglob("*.parquet"))
    with pytest.raises(DataError, match=r"got files '2 of digest .*' in it and '1 of digest"):
        stream_of(paths[:1], rank=0, world_size=2).load_state_dict(state)
    with pytest.raises(DataError, match=r"got files '2 of digest .*' in it and '2 of digest"):
        stream_of(paths[::-1], rank=0, world_size=2).load_state_dict(state)
    folder.rename(folder.with_name("moved"))
    stream_of(folder.with_name("moved"), rank=0, world_size=2).load_state_dict(state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("cursors"),
        lambda state: state.update(epoch=-1),
        lambda state: state.update(cursors=[[0, 0, 0, "1"]]),
        lambda state: state.update(cursors=[[0] * 5]),
        lambda state: state.update(cursors=[[0] * 4] * 2),
        lambda state: state.update(turn=1),
        lambda state: state.update(stream=None),
    ],
)
def test_what_is_no_state_is_refused(write_files, stream_of, damage):
    stream = stream_of(write_files("csv", [20]))
    state = stream.state_dict()
    damage(state)
    with pytest.raises(DataError, match="state must "):
        stream.load_state_dict(state)
    assert stream.state_dict()["cursors"] == [[0] * 4]
