import pytest


def test_a_refit_replaces_a_run_of_either_kind(zeroproof, trained, data, tree, quick):
    before = tree(trained)
    names = {path.name for path in trained.iterdir()}
    for words in (("--method", "solve"), quick):
        assert zeroproof("fit", data, "--target", "y", "--out", trained, *words).code == 0
        now = {path.name for path in trained.iterdir()}
        assert ("run.json" in now) is (words is quick)
        assert ("model.json" in now) is (words is not quick)
    assert zeroproof("fit", data, "--target", "y", "--out", trained, *quick, "--seed", 1).code == 0
    assert {path.name for path in trained.iterdir()} == names
    assert tree(trained) != before


def test_an_empty_folder_is_filled(fit, data, tmp_path, quick):
    (tmp_path / "run").mkdir()
    assert fit(data, "--target", "y", *quick).code == 0
    assert {"model.safetensors", "rows.csv", "fit.png"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda run: run.write_text("mine"), "must be a folder, got a file"),
        (
            lambda run: (run.mkdir(), (run / "notes.txt").write_text("mine")),
            "must be new, empty or an earlier run, but holds notes.txt",
        ),
        (
            lambda run: (run.mkdir(), (run / "rows.csv").write_text("mine")),
            "must be new, empty or an earlier run, but holds no model.json or run.json",
        ),
        (
            lambda run: (run.mkdir(), (run / "run.json").touch(), (run / "notes.txt").touch()),
            "must be new, empty or an earlier run, but holds notes.txt",
        ),
        (
            lambda run: (run.mkdir(), (run / "model.json").touch(), (run / "notes.txt").touch()),
            "must be new, empty or an earlier run, but holds notes.txt",
        ),
    ],
    ids=["file", "foreign", "look-alike", "trained-with-notes", "solved-with-notes"],
)
def test_a_place_with_something_else_in_it_is_left_alone(
    refused, data, tmp_path, tree, prepare, sentence
):
    prepare(tmp_path / "run")
    before = tree(tmp_path)
    assert sentence in refused("fit", data, "--target", "y", "--out", tmp_path / "run")
    assert tree(tmp_path) == before


def test_a_place_below_a_file_is_refused(refused, data):
    sentence = refused("fit", data, "--target", "y", "--out", data / "deep" / "run")
    assert sentence.endswith(f"must lie in a folder, but {data} is a file")


def test_the_current_folder_is_refused(refused, data, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    sentence = refused("fit", data, "--target", "y", "--out", ".")
    assert "must not be the current folder or one above it" in sentence
    assert list(here.iterdir()) == []
