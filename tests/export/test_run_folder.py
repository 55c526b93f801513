import json
import math
import os

import pytest
import torch

from tests.stored import edited
from zeroproof.errors import MissingExtraError, RangeError, RunFolderError, ShapeError
from zeroproof.export import Run, TargetFrame, load_run, predict_rows, save_run
from zeroproof.inference import InferenceConfig
from zeroproof.layers.mlp import ProjectiveMLP


def make_run():
    model = ProjectiveMLP(2, 2, hidden=(4,), x_mean=[1.0, -2.0], x_std=[2.0, 0.5])
    model.x_mean, model.x_std = model.x_mean.double(), model.x_std.double()
    torch.nn.init.normal_(model.head.denominator.weight)  # so that some scores are small
    config = InferenceConfig(tau_infer=0.25, tau_train=0.5, score="angle")
    frame = TargetFrame((1.0, -1e6), (0.1, 1e3))
    return Run(model, config, frame, ("a", "b, c"), ("y", "⊥"), {"note": [1, None]})


@pytest.fixture
def folder(tmp_path):
    save_run(make_run(), tmp_path)
    return tmp_path


def change(folder, **entries):
    def apply(record):
        record.update(entries)
        for name in [name for name, value in entries.items() if value is ...]:
            del record[name]

    edited(folder, apply)


def test_a_run_reads_back_the_same(tmp_path):
    run = make_run()
    save_run(run, tmp_path)
    loaded = load_run(str(tmp_path))
    assert loaded[1:] == run[1:]
    assert loaded.model.spec() == run.model.spec()
    for name, value in run.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)
    X = torch.randn(50, 2)
    for mine, theirs in zip(predict_rows(run, X), predict_rows(loaded, X), strict=True):
        assert torch.equal(mine.nan_to_num(-7), theirs.nan_to_num(-7))


def test_a_folder_holds_strict_json_and_no_pickle(folder):
    def refuse(constant):
        raise AssertionError(constant)

    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "run.json"]
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert (record["format"], record["version"]) == ("zeroproof", 2)
    assert record["features"] == ["a", "b, c"]


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_files_have_the_rights_that_the_user_grants(tmp_path, mask):
    before = os.umask(mask)
    try:
        save_run(make_run(), tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


def test_answers_follow_the_formula_and_the_thresholds():
    run = make_run()
    X = torch.randn(200, 2, dtype=torch.float64) * 3
    decoded, bottom, gap = predict_rows(run, X)
    h = ((X - run.model.x_mean) / run.model.x_std).float()
    with torch.no_grad():
        N, D = (part.double() for part in run.model.head(run.model.trunk(h)))
    score = D.abs() / torch.hypot(N, D)
    assert torch.equal(bottom, score < 0.25)
    assert torch.equal(gap, (score >= 0.25) & (score < 0.5))
    assert bottom.any()
    assert gap.any()
    expected = N / D * torch.tensor([0.1, 1e3]) + torch.tensor([1.0, -1e6])
    assert decoded.dtype == torch.float64
    torch.testing.assert_close(decoded[~bottom], expected[~bottom])
    assert decoded[bottom].isnan().all()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300])
def test_a_row_that_is_not_finite_is_bottom_and_spoils_no_other(value):
    run = make_run()
    X = torch.randn(3, 2, dtype=torch.float64)
    before = predict_rows(run, X)
    X[1, 0] = value
    decoded, bottom, gap = predict_rows(run, X)
    assert bottom[1].all()
    assert not gap[1].any()
    for rows in (0, 2):
        assert torch.equal(decoded[rows].nan_to_num(-7), before.decoded[rows].nan_to_num(-7))


def test_no_digit_of_a_large_offset_is_lost():
    run = make_run()
    moved = run.model.state_dict()
    other = make_run()
    other.model.load_state_dict(moved)
    other.model.x_mean = other.model.x_mean + 2.0**31
    X = torch.randn(20, 2).double()
    ours, theirs = (predict_rows(r, x).decoded for r, x in ((run, X), (other, X + 2.0**31)))
    torch.testing.assert_close(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 3), (1, 3, 2)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(ShapeError, match=r"X must be \(rows, 2\), got"):
        predict_rows(make_run(), torch.zeros(shape))


def test_no_row_has_no_answer():
    assert predict_rows(make_run(), torch.zeros(0, 2)).decoded.shape == (0, 2)


@pytest.mark.parametrize("name", ["run.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(RunFolderError, match=name):
        load_run(folder)


def test_what_is_no_run_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(RunFolderError, match=f"{place} must be a folder written by"):
            load_run(place)


@pytest.mark.parametrize("text", ["", "{", "\udcff"], ids=["empty", "cut", "bytes"])
def test_broken_json_is_refused(folder, text):
    (folder / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunFolderError, match=r"run.json must be readable JSON, but has "):
        load_run(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '"zeroproof-run"', '{"format": "other"}'])
def test_other_json_is_refused(folder, text):
    (folder / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"run.json must have the format 'zeroproof'"):
        load_run(folder)


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_another_version_is_refused_with_advice(folder, version):
    change(folder, version=version)
    sentence = f"must have format version 2, got {version!r}: use the version of zeroproof that"
    with pytest.raises(RunFolderError, match=sentence):
        load_run(folder)


MODEL = {"in_features": 2, "out_features": 2, "hidden": [4], "activation": "tanh"}


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"model": ...}, "has no 'model'"),
        ({"features": ...}, "has no 'features'"),
        ({"facts": ...}, "has no 'facts'"),
        ({"model": 3}, "must hold a whole run"),
        ({"model": {**MODEL, "activation": "sine"}}, "activation must be one of"),
        ({"model": {**MODEL, "hidden": [-4]}}, "hidden must be a whole number"),
        ({"model": {**MODEL, "widths": 3}}, "spec must hold the arguments"),
        ({"thresholds": {"tau_infer": -1}}, r"tau_infer must lie in \(0, inf\), got -1"),
        ({"thresholds": {"tau_infer": 2.0, "tau_train": 1.0}}, "tau_infer must not exceed"),
        ({"thresholds": {"tau": 1}}, "fields must be among"),
        ({"target_frame": {"center": [0, 0]}}, "has no 'scale'"),
        ({"target_frame": {"center": [0, 0], "scale": [1, 0]}}, "target scale must be a finite"),
        (
            {"target_frame": {"center": [0, {"$float": "nan"}], "scale": [1, 1]}},
            "center must be fin",
        ),
        ({"model": {**MODEL, "hidden": [10**6, 10**6]}}, "size mismatch"),
        ({"target_frame": {"center": [0], "scale": [1, 1]}}, "target center must number 2"),
        ({"target_frame": {"center": [0, 0], "scale": [1]}}, "target scale must number 2"),
        ({"target_frame": {"center": ["a", 0], "scale": [1, 1]}}, "could not convert"),
        ({"target_frame": None}, "must hold a whole run"),
        ({"features": ["a"]}, "features must number 2 for this network, got 1"),
        ({"features": "ab"}, "features must be a list of column names, got 'ab'"),
        ({"targets": ["a", 3]}, "targets must be a list of column names"),
        ({"targets": ["a", "b", "c"]}, "targets must number 2 for this network, got 3"),
    ],
)
def test_a_damaged_description_is_refused(folder, entry, sentence):
    change(folder, **entry)
    with pytest.raises(RunFolderError, match=sentence):
        load_run(folder)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_weights_are_refused(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunFolderError, match="must hold a whole run, but has other contents"):
        load_run(folder)


@pytest.mark.parametrize(
    ("change_model", "detail"),
    [({"hidden": [5]}, "size mismatch"), ({"hidden": [4, 4]}, "Missing key")],
)
def test_weights_of_another_network_are_refused(folder, change_model, detail):
    change(folder, model={**MODEL, **change_model})
    with pytest.raises(RunFolderError, match=f"must hold a whole run, but has .*{detail}"):
        load_run(folder)


def test_one_flipped_bit_is_seen_and_so_are_the_weights_of_another_run(folder, tmp_path):
    path, other = folder / "model.safetensors", tmp_path / "other"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(RunFolderError, match="the checksum differs"):
        load_run(folder)
    run = make_run()
    torch.nn.init.ones_(run.model.head.numerator.bias)
    other.mkdir()
    save_run(run, other)
    path.write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(RunFolderError, match="the checksum differs"):
        load_run(folder)


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[" * 10**5],
    ids=lambda text: text[:9],
)
def test_json_that_is_not_strict_is_refused(folder, text):
    (folder / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match="must be readable JSON, but has"):
        load_run(folder)


def test_without_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(MissingExtraError, match=r"zeroproof-scm\[train\]"):
        save_run(make_run(), tmp_path)


def test_without_safetensors_a_whole_folder_is_not_called_damaged(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(MissingExtraError, match=r"zeroproof-scm\[train\]"):
        load_run(folder)


def test_every_refusal_is_a_value_error_too():
    assert issubclass(RunFolderError, ValueError)
    assert issubclass(RangeError, ValueError)
