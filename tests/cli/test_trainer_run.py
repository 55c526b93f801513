import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, load_model

from zeroproof.data import numbers, read_table, write_csv
from zeroproof.export import load_run

FILES = ["config.yaml", "fit.png", "history.json", "model.safetensors", "rows.csv", "run.json"]
NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int, width: int = 4):
        super().__init__()
        self.trunk = nn.Linear(in_features, width)
        self.head = nn.Linear(width, 2 * out_features)

    def forward(self, x):
        return self.head(torch.tanh(self.trunk(x))).chunk(2, -1)


class Plain(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)


class Three(Net):
    def __init__(self):
        super().__init__(3, 1)


class Two(Net):
    def __init__(self):
        super().__init__(1, 2)


class Broken(nn.Module):
    def __init__(self):
        raise ValueError("not today")
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """Write a module with models into the current folder."""
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_nets", None)


@pytest.fixture
def config(data, tmp_path):
    """Write a configuration that trains for three epochs."""

    def write(**changes):
        values = {
            "data": {"train": str(data), "held_out": 0.2, "batch_size": 16},
            "target": "y",
            "out": str(tmp_path / "run"),
            "model": {"hidden": [8]},
            "optimizer": {"lr": 0.02},
            "trainer": {"max_epochs": 3, "score": "angle", "device": "cpu"},
        }
        for name, change in changes.items():
            old = values.get(name)
            values[name] = old | change if old and isinstance(change, dict) else change
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def weights(folder):
    return {k: v.tolist() for k, v in load_file(folder / "model.safetensors").items()}


def test_a_run_from_a_file_is_complete_and_predicts(zeroproof, config, data, tmp_path, strict):
    path = config(
        data={"held_out": 0},
        model={"hidden": [32], "activation": "silu"},
        loss={"normalizer": "chordal", "lambda_margin": 0, "lambda_sign": 0},
        trainer={"max_epochs": 9, "coverage_threshold": 0, "target_scale": 2.0},
    )
    outcome = zeroproof("fit", "-c", path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "trained on 60 rows" in outcome.out
    assert "ended by max_epochs" in outcome.out
    assert "thresholds on the angle score: tau_infer 1e-06, tau_train 0.0001" in outcome.out
    run = tmp_path / "run"
    assert sorted(file.name for file in run.iterdir()) == FILES
    assert len(strict(run / "history.json")) == 9
    assert strict(run / "run.json")["target_frame"] == {"center": [0.0], "scale": [2.0]}
    assert zeroproof("predict", run, data, "--out", tmp_path / "a.csv").code == 0
    y = numbers(read_table(data), ["y"])
    answers = numbers(read_table(tmp_path / "a.csv"), ["y"])
    assert answers.shape == y.shape
    poles = zeroproof("poles", run, "--out", tmp_path / "poles.csv")
    assert poles.code == 0


@pytest.mark.slow
def test_most_runs_from_a_file_learn_the_pole_of_their_data(zeroproof, config, data, tmp_path):
    learned = []
    for seed in range(3):
        path = config(
            data={"held_out": 0},
            model={"hidden": [32], "activation": "silu"},
            loss={"normalizer": "chordal", "lambda_margin": 0, "lambda_sign": 0},
            trainer={"max_epochs": 150, "coverage_threshold": 0, "target_scale": 2.0},
            out=str(tmp_path / f"run{seed}"),
        )
        assert zeroproof("fit", "-c", path, "--seed", seed).code == 0
        for command in (("predict", path, data), ("poles", path)):
            words = (command[0], tmp_path / f"run{seed}", *command[2:])
            assert zeroproof(*words, "--out", tmp_path / f"{command[0]}.csv").code == 0
        y, answers = (numbers(read_table(at), ["y"]) for at in (data, tmp_path / "predict.csv"))
        relative = ((answers - y) / y).abs()[y.isfinite()].median()
        away = (numbers(read_table(tmp_path / "poles.csv"), ["position"]) - 0.31).abs()
        learned.append(float(relative) < 0.15 and bool((away < 0.03).any()))
    assert sum(learned) >= 2


def test_inputs_are_standardised_by_the_rows_trained_on(zeroproof, config, data, tmp_path):
    assert zeroproof("fit", "-c", config()).code == 0
    run = load_run(tmp_path / "run")
    rows = numbers(read_table(tmp_path / "run" / "rows.csv"), ["held_out"])[:, 0].bool()
    assert rows.sum() == run.facts["held_out_rows"] == 12
    x = numbers(read_table(data), ["x"])[~rows]
    assert torch.equal(run.model.x_mean, x.mean(0))
    assert torch.allclose(run.model.x_std, x.std(0, correction=0), rtol=1e-14)
    assert run.facts["domain"] == [x.amin(0).tolist(), x.amax(0).tolist()]


def test_what_was_used_repeats_the_run(zeroproof, config, tmp_path):
    assert zeroproof("fit", "-c", config(), "--seed", 4).code == 0
    for name, words in {"again": (), "otherwise": ("--seed", 5)}.items():
        used = tmp_path / "run" / "config.yaml"
        assert zeroproof("fit", "-c", used, "--out", tmp_path / name, *words).code == 0
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    assert weights(tmp_path / "otherwise") != weights(tmp_path / "run")


def test_flags_alone_make_a_run(zeroproof, config, data, tmp_path):
    assert zeroproof("fit", "-c", config()).code == 0
    flags = (
        *("--target", "y", "--data.held-out", 0.2, "--data.batch_size=16", "--model.hidden", "[8]"),
        *("--optimizer.lr", 0.02, "--trainer.max-epochs", 3, "--trainer.score", "angle"),
        *("--trainer.device", "cpu", "--out", tmp_path / "flags"),
    )
    assert zeroproof("fit", data, *flags).code == 0
    assert weights(tmp_path / "flags") == weights(tmp_path / "run")


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_that_goes_on_ends_as_one_that_never_stopped(zeroproof, config, tmp_path, stream):
    changes = {"scheduler": {"class_path": "StepLR", "init_args": {"step_size": 2}}}
    if stream:
        changes |= {"data": {"stream": True, "held_out": 0}, "features": "x"}
    trainer = {"checkpoint_dir": str(tmp_path / "ck"), "coverage_threshold": 0}
    path = config(**changes, trainer=trainer)
    assert zeroproof("fit", "-c", path).code == 0
    early = weights(tmp_path / "run")
    words = ("-c", path, "--trainer.max_epochs", 5)
    assert zeroproof("fit", *words, "--resume").code == 0
    whole = ("--trainer.checkpoint_dir", tmp_path / "ck2", "--out", tmp_path / "whole")
    assert zeroproof("fit", *words, *whole).code == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole") != early


def test_rows_may_be_streamed_from_a_folder(zeroproof, config, data, tmp_path):
    found = read_table(data)
    x, y = (numbers(found, [name])[:, 0].tolist() for name in ("x", "y"))
    (tmp_path / "parts").mkdir()
    for place in range(3):
        rows = slice(20 * place, 20 * place + 20)
        write_csv(tmp_path / "parts" / f"{place}.csv", {"x": x[rows], "y": y[rows]})
    section = {"train": str(tmp_path / "parts"), "held_out": 0, "validation": str(data)}
    path = config(data=section, features="x")
    assert zeroproof("fit", "-c", path).code == 0
    whole = load_run(tmp_path / "run")
    assert zeroproof("fit", "-c", path, "--data.stream", "true").code == 0
    streamed = load_run(tmp_path / "run")
    assert torch.allclose(streamed.model.x_std, whole.model.x_std, rtol=1e-14)
    assert streamed.facts["domain"] == whole.facts["domain"]
    assert streamed.facts["rows"] == 60
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names == set(FILES) - {"rows.csv", "fit.png"}
    assert zeroproof("predict", tmp_path / "run", data, "--out", tmp_path / "a.csv").code == 0


@pytest.mark.usefixtures("nets")
def test_a_model_from_elsewhere_leaves_its_weights(zeroproof, refused, config, data, tmp_path):
    words = ("--model", "own_nets.Net", "--model.width", 6)
    path = config(model=None)
    assert zeroproof("fit", "-c", path, *words).code == 0
    run = tmp_path / "run"
    left = {"config.yaml", "history.json", "model.safetensors", "run.json"}
    assert {file.name for file in run.iterdir()} == left
    model = sys.modules["own_nets"].Net(1, 1, 6)
    load_model(model, run / "model.safetensors")
    said = refused("predict", run, data, "--out", tmp_path / "a.csv")
    assert "must hold a network of this package, got weights of own_nets.Net" in said
    assert zeroproof("fit", "-c", run / "config.yaml").code == 0


BAD = {
    "solve": ("--method solve", "--data.batch_size must come with --method train, got solve"),
    "option of solve": ("--degrees 3", "--degrees must come with --method solve, got --"),
    "option of train": ("--hidden 8", "--hidden must be given as --model.hidden beside --"),
    "tau": ("--tau_infer 0.1", "--tau_infer must be given as --trainer.tau_infer beside --"),
    "share": ("--data.held_out 1", "data.held_out must lie in [0, 1), got 1.0"),
    "two checks": ("--data.validation a.csv", "data.held_out must be 0 where data.validation"),
    "stream": ("--data.stream true", "data.held_out must be 0 with data.stream"),
    "stream of what": (
        "--data.stream true --data.held_out 0",
        "--features must name the columns to predict from",
    ),
    "batch": ("--data.batch_size 0", "data.batch_size must be a whole number of at least 1"),
    "resume": ("--resume", "--resume must come with --trainer.checkpoint_dir, got none"),
    "type": (
        "--trainer.max_epochs many",
        "--trainer.max_epochs must be a whole number, got many",
    ),
    "range": ("--trainer.max_epochs 0", "max_epochs must be a whole number of at least 1, got 0"),
    "loss": ("--loss.normalizer round", "normalizer must be one of 'detached'"),
    "policy": (
        "--trainer.gradient_policy X",
        "--trainer.gradient_policy must be one of {CLAMP,PROJECT",
    ),
    "dtype": ("--trainer.amp_dtype float17", "no type of torch is called float17"),
    "device": ("--trainer.device nope", 'device must be "auto" or the name of a torch device'),
    "large seed": ("--seed 9223372036854775808", "seed must be below 2**63, got 922337203685477"),
    "section": ("--trainer 3", "3 must hold options in YAML, NAME: VALUE, got 3"),
    "width": ("--model.hidden [4,0]", "says: hidden must be a whole number of at least 1, got 0"),
    "widths": ("--model.hidden 4", "hidden must be a list, got 4"),
    "option of model": (
        "--model.hiden 4",
        "'zeroproof.layers.ProjectiveMLP': Option 'hiden' is not accepted",
    ),
    "no module": ("--model nowhere.Net", "import, got nowhere.Net: No module named 'nowhere'"),
    "no class": ("--model own_nets.No", "import, got own_nets.No: module 'own_nets' has no attr"),
    "no model": (
        "--model torch.optim.Adam",
        "--model: Import path torch.optim.Adam does not correspond to a subclass of Module",
    ),
    "no pair": (
        "--model own_nets.Plain",
        "must return a pair (N, D), got a Tensor of shape (4, 1)",
    ),
    "columns": ("--model own_nets.Three", "must take rows of the shape (4, 1), but says: mat1"),
    "targets": ("--model own_nets.Two", "N of the shape of the targets, (4, 1), got (4, 2)"),
    "broken": ("--model own_nets.Broken", "model must be fit to be built, but says: not today"),
    "optimizer": ("--optimizer SGDD", "--optimizer: Expected a dot import path string: SGDD"),
    "rate": ("--optimizer.lr fast", "--optimizer: lr must be a finite number, or"),
    "negative": ("--optimizer.lr -1", "optimizer must be fit to be built, but says: Invalid learn"),
    "option": ("--optimizer.lrr 1", "--optimizer: Option 'lrr' is not accepted"),
    "scheduler": (
        "--scheduler StepLR",
        "--scheduler: the following arguments are required: step_size",
    ),
    "no data": ("--data.train no.csv", "no.csv must be a readable file"),
    "target": ("--target z", "must have a column 'z', got 'x', 'y'"),
}


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("name", BAD)
def test_a_run_that_cannot_be_is_refused(refused, config, tmp_path, name):
    words, sentence = BAD[name]
    path = config(**({"model": None} if "own_nets" in words else {}))
    assert sentence in refused("fit", "-c", path, *words.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [["a"], {"class_path": "builtins.eval"}, {"init_args": {}}, None])
@pytest.mark.parametrize("name", ["device", "checkpoint_dir", "log_dir"])
def test_what_is_no_text_names_neither_device_nor_folder(refused, config, tmp_path, name, value):
    before = {*tmp_path.iterdir(), tmp_path / "run.yaml"}
    path = config(trainer={name: value})
    if value is not None:
        assert f"--trainer.{name}" in refused("fit", "-c", path)
    elif name == "device":
        assert refused("fit", "-c", path) == "--trainer.device must have a value, got null"
    assert set(tmp_path.iterdir()) == before


def test_checkpoints_inside_the_run_folder_are_refused(refused, config, tmp_path):
    place = tmp_path / "run" / "ck"
    said = refused("fit", "-c", config(trainer={"checkpoint_dir": str(place)}))
    assert said == f"--trainer.checkpoint_dir must not lie in --out {tmp_path / 'run'}, got {place}"


def test_several_processes_are_refused(refused, config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "zeroproof fit must run in one process, got 2" in refused("fit", "-c", config())


def test_targets_beyond_single_precision_are_refused(refused, config, tmp_path):
    write_csv(tmp_path / "large.csv", {"x": [1, 2], "y": [1.0, 1e39]})
    said = refused("fit", "-c", config(data={"train": str(tmp_path / "large.csv")}))
    assert said == "target 'y' must not exceed 3.4e38 in size, got 1e+39: change its unit"


@pytest.mark.filterwarnings("default:constant columns")
def test_constant_features_tell_nothing(zeroproof, refused, config, tmp_path):
    write_csv(tmp_path / "flat.csv", {"x": [2, 2, 2], "z": [1, 2, 3], "y": [1.0, 2.0, 3.0]})
    path = config(data={"train": str(tmp_path / "flat.csv")})
    said = refused("fit", "-c", path, "--features", "x")
    assert said == "some feature must vary, got constant columns x"
    outcome = zeroproof("fit", "-c", path)
    assert (outcome.code, outcome.err) == (
        0,
        "zeroproof: warning: constant columns tell nothing: x\n",
    )


def test_parquet_is_read_as_csv_is(zeroproof, config, data, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    found = read_table(data)
    columns = {name: numbers(found, [name])[:, 0].numpy() for name in ("x", "y")}
    parquet.write_table(arrow.table(columns), tmp_path / "rows.parquet")
    assert zeroproof("fit", "-c", config()).code == 0
    before = weights(tmp_path / "run")
    path = config(data={"train": str(tmp_path / "rows.parquet")})
    assert zeroproof("fit", "-c", path, "--nan", "bottom").code == 0
    assert weights(tmp_path / "run") == before


def test_what_is_missing_is_told(refused, config):
    assert "are required: target" in refused("fit", "-c", config(target=None))
    assert "are required: data, out" in refused("fit", "--target", "y", "--trainer.max_epochs", 3)
