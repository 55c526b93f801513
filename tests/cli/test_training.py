import pytest
import torch

from zeroproof.data import numbers, read_table, write_csv
from zeroproof.estimators import FitOptions, fit_table
from zeroproof.export import load_run

FILES = ["fit.png", "history.json", "model.safetensors", "rows.csv", "run.json"]


@pytest.fixture
def train(fit, quick):
    return lambda data, *words: fit(data, *quick, *words)


def test_a_run_holds_model_history_scores_and_picture(trained, strict):
    run = trained
    assert sorted(path.name for path in run.iterdir()) == FILES
    assert (run / "fit.png").read_bytes().startswith(b"\x89PNG")
    history = strict(run / "history.json")
    assert len(history) == 2
    assert {"train_loss", "val_loss", "train_coverage", "lr"} <= set(history[0])
    record = strict(run / "run.json")
    assert (record["features"], record["targets"]) == (["x"], ["y"])
    assert record["thresholds"]["score"] == "angle"
    assert record["facts"]["domain"] == [[-0.8983050847457628], [1.0]]
    rows = read_table(run / "rows.csv")
    own = ["row", "score", "distance_to_pole", "held_out"]
    of_y = ["y", "y_answer", "y_residual", "y_status"]
    assert list(rows.columns) == [own[0], "x", *of_y, *own[1:]]
    values = numbers(rows, own)
    assert values[:, 0].tolist() == list(range(1, 61))
    assert values[:, 3].sum() == record["facts"]["held_out_rows"] == 12
    assert ((values[:, 1] >= 0) & (values[:, 1] <= 1)).all()
    assert (values[:, 2] >= 0).all()


def test_it_is_the_model_that_the_same_call_in_python_gives(trained, data):
    found = read_table(data)
    options = FitOptions(hidden=(8,), steps=50, progress=False)
    X, y = numbers(found, ["x"]), numbers(found, ["y"])
    mine, theirs = fit_table(X, y, ("x",), ("y",), options).run, load_run(trained)
    assert mine.config == theirs.config
    assert mine.frame == theirs.frame
    for name, value in mine.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[name])


def test_it_reports_errors_thresholds_and_a_diagnosis(train, data):
    outcome = train(data, "--target", "y")
    assert outcome.code == 0
    assert outcome.err == ""
    for part in ("fitted 60 rows", "12 held out", "RMS error", "tau_infer", "smallest score"):
        assert part in outcome.out
    assert "3 rows have a singular target. " in outcome.out
    for name in FILES:
        assert name in outcome.out


def test_a_network_without_a_pole_says_so_of_itself_alone(train, tmp_path):
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    write_csv(tmp_path / "regular.csv", {"x": x.tolist(), "y": (x * x + 3).tolist()})
    outcome = train(tmp_path / "regular.csv", "--target", "y")
    assert "The network has no pole near the rows and answers as a plain model" in outcome.out
    assert "kept: plain" in outcome.out
    assert "the network has no pole" in outcome.out


def test_a_pole_between_rows_is_told(train, tmp_path):
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)
    write_csv(tmp_path / "pole.csv", {"x": x.tolist(), "y": (1 / (x - 0.3)).tolist()})
    outcome = train(tmp_path / "pole.csv", "--target", "y", "--steps", 400, "--hidden", "32,32")
    assert "a pole lies inside the data" in outcome.out
    assert "kept: projective" in outcome.out


@pytest.mark.parametrize("text", ["4,4", "(4,4,)"])
def test_hidden_widths_are_a_list(train, data, tmp_path, text):
    assert train(data, "--target", "y", "--steps", 5, "--hidden", text).code == 0
    assert load_run(tmp_path / "run").model.hidden == (4, 4)


def test_the_options_arrive(train, data, tmp_path):
    words = "--seed 7 --batch_size 16 --learning-rate 0.5 --held_out=0.5 --shared-denominator=false"
    fixed = ("--tau_infer", 0.25, "--tau_train", 0.5)
    assert train(data, "--target", "y", *fixed, *words.split()).code == 0
    run = load_run(tmp_path / "run")
    wanted = {"seed": 7, "batch_size": 16, "learning_rate": 0.5, "held_out": 0.5, "steps": 50}
    assert {name: run.facts["options"][name] for name in wanted} == wanted
    assert not run.model.head.shared_denominator
    assert (run.config.tau_infer, run.config.tau_train) == (0.25, 0.5)
    assert run.facts["held_out_rows"] == 30


def test_without_options_those_of_fit_table_hold(fit, data, monkeypatch):
    seen = []

    def stop(*given):
        seen.append(given[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr("zeroproof.estimators.fit_table", stop)
    assert fit(data, "--target", "y", "--method", "train").code == 130
    assert seen == [FitOptions()]
