import pytest
import yaml

from zeroproof.cli.arguments import OPTIONS

ASKED = {
    "nothing": [],
    "plain": ["rows.csv", "--target", "a,b", "--degrees", "3,2", "--tau_infer", "1e-7"],
    "names": ["null", "--target", "5", "--features", 'x,"u,v"', "--seed", "3"],
    "train": ["rows.csv", "--method", "train", "--hidden", "[4, 4]", "--held-out", "0.5"],
    "trainer": ["rows.csv", "--target", "y", "--out", "run", "--trainer.max-epochs", "7"],
    "all": [
        *("--target", "φ", "--data.train", "rows.csv", "--data.held_out", "0.1"),
        *("--model.hidden", "[8,4]", "--optimizer", "SGD", "--optimizer.lr", "1e-3"),
        *("--scheduler", "StepLR", "--scheduler.step_size", "2", "--loss.normalizer", "chordal"),
        *("--trainer.gradient_policy", "CLAMP", "--trainer.amp_dtype", "bfloat16"),
        *("--trainer.checkpoint_dir", "ck", "--resume", "--seed", "5"),
    ],
    "other model": ["--model", "zeroproof.layers.ProjectiveHead"],
}


@pytest.fixture
def printed(zeroproof):
    """Return what --print-config prints."""

    def run(*words):
        outcome = zeroproof("fit", *words, "--print-config")
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out

    return run


@pytest.mark.parametrize("name", ASKED)
def test_what_is_printed_prints_the_same(printed, tmp_path, name):
    first = printed(*ASKED[name])
    path = tmp_path / "run.yaml"
    path.write_text(first, encoding="utf-8")
    assert printed("-c", path) == first
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("method", ["solve", "train"])
def test_a_method_is_printed_with_its_own_options(printed, method):
    found = yaml.safe_load(printed("rows.csv", "--method", method))
    assert found["data"] == "rows.csv"
    assert found["out"] is None
    for other, names in OPTIONS.items():
        assert (names.keys() <= found.keys()) is (other in {"both", "table", "cells", method})
    assert not {"trainer", "model", "resume"} & set(found)


def test_sections_are_printed_whole(printed):
    found = yaml.safe_load(printed(*ASKED["all"]))
    assert found["method"] == "train"
    assert found["target"] == "φ"
    assert found["resume"] is True
    assert found["data"]["batch_size"] == 512
    assert found["model"]["class_path"] == "zeroproof.layers.ProjectiveMLP"
    assert found["model"]["init_args"]["hidden"] == [8, 4]
    assert (
        found["optimizer"]["init_args"] | {"lr": 1e-3, "momentum": 0}
        == (found["optimizer"]["init_args"])
    )
    assert found["scheduler"]["class_path"] == "torch.optim.lr_scheduler.StepLR"
    assert found["loss"]["normalizer"] == "chordal"
    assert (
        found["trainer"] | {"gradient_policy": "CLAMP", "amp_dtype": "bfloat16"}
        == (found["trainer"])
    )
    assert not {"steps", "degrees", "tau_infer"} & set(found)


def test_flags_overrule_the_file_and_a_file_the_flags_before_it(printed, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("target: y\nseed: 1\ntrainer:\n  max_epochs: 3\n  score: angle\n")
    words = ("--seed", 7, "-c", path, "--trainer.max_epochs", 5)
    found = yaml.safe_load(printed(*words))
    assert found["seed"] == 1
    assert (found["trainer"]["max_epochs"], found["trainer"]["score"]) == (5, "angle")
    assert yaml.safe_load(printed("other.csv", *words))["data"]["train"] == "other.csv"


def test_a_section_may_have_a_file_of_its_own(printed, tmp_path):
    path = tmp_path / "loss.yaml"
    path.write_text("normalizer: chordal\n")
    assert yaml.safe_load(printed("--loss", path))["loss"]["normalizer"] == "chordal"


def test_a_file_may_ask_for_either_method(zeroproof, data, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        f"data: {data}\ntarget: [y]\nout: {tmp_path / 'run'}\nfeatures_family: chebyshev\n"
        "degrees: [1, 1]\n"
    )
    assert zeroproof("fit", "-c", path).code == 0
    assert (tmp_path / "run" / "model.json").is_file()
    outcome = zeroproof("fit", "-c", path, "--degrees", 2, "--out", tmp_path / "other")
    assert outcome.code == 0
    assert (tmp_path / "other" / "model.json").is_file()
