import pytest
import torch

from tests.stored import edited
from zeroproof.data import numbers, read_table, write_csv
from zeroproof.export import Run, TargetFrame, save_run
from zeroproof.inference import InferenceConfig
from zeroproof.layers.mlp import ProjectiveMLP


def written(path, **columns):
    write_csv(path, {name: column.tolist() for name, column in columns.items()})
    return path


@pytest.fixture
def x():
    return torch.linspace(-1, 1, 200, dtype=torch.float64)


@pytest.fixture
def poles(zeroproof, tmp_path):
    def run(*words):
        outcome = zeroproof("poles", tmp_path / "run", "--out", tmp_path / "poles.csv", *words)
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out, read_table(tmp_path / "poles.csv")

    return run


def column(table, name):
    return numbers(table, [name])[:, 0].tolist()


def test_poles_of_each_target_with_their_residues(fit, poles, tmp_path, x):
    y, z = 3 / (x - 0.31), 2 / (x - 0.31) - 1 / (x + 1.5)
    assert fit(written(tmp_path / "t.csv", x=x, y=y, z=z), "--target", "y,z").code == 0
    said, table = poles()
    assert "y: 1 pole" in said
    assert "z: 2 poles\n" in said
    assert "data: x from -1 to 1\n" in said
    assert table.columns["target"].to_pylist() == ["y", "z", "z"]
    assert column(table, "position") == pytest.approx([0.31, -1.5, 0.31], abs=1e-9)
    assert column(table, "residue") == pytest.approx([3, -1, 2], abs=1e-8)
    assert column(table, "on_data") == [1, 0, 1]
    assert column(table, "multiplicity") == [1, 1, 1]
    for name in ("position_imag", "residue_imag", "spurious"):
        assert column(table, name) == [0, 0, 0]


def test_double_and_complex_poles(fit, poles, tmp_path, x):
    y, z = 1 / (x - 0.31) ** 2, 1 / (x * x + 0.25)
    assert fit(written(tmp_path / "t.csv", x=x, y=y, z=z), "--target", "y,z").code == 0
    said, table = poles()
    assert column(table, "multiplicity") == [2, 1, 1]
    assert column(table, "position_imag") == pytest.approx([0, -0.5, 0.5], abs=1e-9)
    assert column(table, "residue_imag") == pytest.approx([0, 1, -1], abs=1e-8)
    assert column(table, "on_data") == [1, 0, 0]
    assert [line.split()[1] for line in said.splitlines()[-4:-2]] == ["-0.5", "0.5"]


def test_every_number_has_a_column_of_its_own_with_all_digits(fit, poles, tmp_path, x):
    noise = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = 1 / ((x - 0.3) ** 2 + 0.01) + 0.1 * noise
    assert fit(written(tmp_path / "t.csv", x=x, y=y), "--target", "y").code == 0
    said, table = poles()
    names = ("position", "position_imag", "position_se", "residue", "residue_imag", "residue_se")
    rows = [line.split() for line in said.splitlines() if line.startswith("  ")][1:]
    for place, name in enumerate(names):
        digits = float if name.endswith("_se") else str
        shown = [float(row[place]) for row in rows]
        assert shown == pytest.approx(column(table, name), rel=0 if digits is str else 0.1)
    assert abs(column(table, "position")[0] - 0.3) < 4 * column(table, "position_se")[0]
    assert min(column(table, "significance")) > 4


def test_a_spurious_pole_is_listed_only_when_all_are_asked_for(fit, poles, tmp_path, x):
    data = written(tmp_path / "t.csv", x=x, y=1 / (x - 0.31) + 0 * x)
    words = ("--features_family", "chebyshev", "--degrees", "3,4")
    assert fit(data, "--target", "y", *words).code == 0
    said, table = poles()
    assert "spurious (--all)" in said
    assert column(table, "position") == pytest.approx([0.31], abs=1e-9)
    said, everything = poles("--all")
    assert "off the data, spurious" in said or "on the data, spurious" in said
    assert "(--all)" not in said
    assert everything.rows > 1
    assert sum(column(everything, "spurious")) == everything.rows - 1


def test_random_features_have_poles_too(fit, poles, tmp_path, x):
    data = written(tmp_path / "t.csv", x=x, y=1 / (x - 0.31))
    assert fit(data, "--target", "y", "--features_family", "random").code == 0
    said, table = poles()
    assert "y: 1 pole" in said
    assert column(table, "position") == pytest.approx([0.31], abs=1e-6)
    assert column(table, "residue") == pytest.approx([1], abs=1e-5)


def test_the_curve_of_two_features(fit, poles, tmp_path):
    a, b = torch.rand(2, 400, dtype=torch.float64) * 2 - 1
    data = written(tmp_path / "t.csv", a=a, b=b, y=1 / (a * a + b * b - 0.4))
    assert fit(data, "--target", "y", "--features", "b,a").code == 0
    said, table = poles()
    assert "y: 1 pole curve, " in said
    assert "only this box was searched" in said
    assert list(table.columns) == ["target", "curve", "b", "a"]
    assert set(column(table, "curve")) == {1}
    at = numbers(table, ["a", "b"])
    assert len(at) > 50
    assert (at.square().sum(1) - 0.4).abs().max() < 1e-9


@pytest.fixture
def network(tmp_path):
    """Write a run whose network has N = 1 and D = slopes x + offset for each target."""

    def make(slopes, offsets, domain, frame):
        model = ProjectiveMLP(len(slopes[0]), len(slopes), hidden=(), shared_denominator=False)
        head = model.head
        with torch.no_grad():
            head.numerator.weight.zero_()
            head.numerator.bias.fill_(1)
            head.denominator.weight.copy_(torch.tensor(slopes))
            head.denominator.bias.copy_(torch.tensor(offsets))
        config = InferenceConfig(tau_infer=0.25, tau_train=0.5, score="angle")
        features, targets = ("a", "b")[: len(slopes[0])], ("y", "z")[: len(slopes)]
        (tmp_path / "run").mkdir()
        facts = {"domain": domain}
        save_run(Run(model, config, frame, features, targets, facts), tmp_path / "run")

    return make


def test_a_trained_network_is_searched_along_its_feature(network, poles):
    frame = TargetFrame((2.0, -5.0), (3.0, 0.5))
    network([[1.0], [2.0]], [-0.3125, 3.0], [[-1.0], [1.5]], frame)
    said, table = poles()
    assert "y: 1 pole" in said
    assert "z: no poles\n" in said  # its pole, -1.5, lies outside
    assert "a from -1 to 1.5; only this interval was searched" in said
    assert table.columns["target"].to_pylist() == ["y"]
    assert column(table, "position") == pytest.approx([0.3125], rel=1e-14)
    assert column(table, "residue") == pytest.approx([3], rel=1e-9)
    assert column(table, "on_data") == [1]


def test_curves_of_a_trained_network(network, poles):
    frame = TargetFrame((0.0, 0.0), (1.0, 1.0))
    network([[1.0, 0.0], [1.0, 1.0]], [-0.25, 9.0], [[-1.0, -2.0], [1.0, 2.0]], frame)
    said, table = poles()
    assert "y: 1 pole curve, " in said
    assert "z: no pole curves\n" in said
    assert set(table.columns["target"].to_pylist()) == {"y"}
    assert column(table, "a") == pytest.approx([0.25] * table.rows, abs=1e-12)
    assert sorted(column(table, "b"))[:: table.rows - 1] == [-2, 2]


def test_a_model_without_poles_leaves_a_header(fit, zeroproof, tmp_path, x, method):
    assert fit(written(tmp_path / "t.csv", x=x, y=x * x + 3), "--target", "y", *method).code == 0
    out = tmp_path / "poles.csv"
    outcome = zeroproof("poles", tmp_path / "run", "--out", out)
    assert outcome.code == 0
    assert "y: no poles\n" in outcome.out
    assert out.read_text() == (
        "target,position,position_imag,position_se,residue,residue_imag,residue_se,multiplicity,"
        "significance,on_data,spurious\n"
    )


@pytest.fixture
def three(tmp_path):
    a, b, c = torch.rand(3, 200, dtype=torch.float64) * 2 - 1
    return written(tmp_path / "t.csv", a=a, b=b, c=c, y=a / (b - 0.3), z=a + b + c)


def test_more_features_than_two_are_told_what_can_be_done(fit, refused, three, tmp_path):
    assert fit(three, "--target", "y").code == 0
    sentence = refused("poles", tmp_path / "run")
    assert sentence.startswith("a run must have one feature or two for its poles to be listed")
    assert "got 4" in sentence
    assert "zeroproof predict" in sentence


def test_a_constant_denominator_has_none_in_any_number_of_features(
    fit, zeroproof, three, tmp_path, quick
):
    assert fit(three, "--target", "z", "--features", "a,b,c", *quick).code == 0
    outcome = zeroproof("poles", tmp_path / "run")
    assert outcome == (0, "no pole: the denominator is constant\n", "")


def test_a_feature_named_as_a_column_of_the_curves_is_refused(fit, refused, tmp_path):
    a, b = torch.rand(2, 100, dtype=torch.float64)
    data = written(tmp_path / "t.csv", curve=a, b=b, y=1 / (a - b))
    assert fit(data, "--target", "y").code == 0
    sentence = refused("poles", tmp_path / "run")
    assert sentence == "features must not be named target or curve, got 'curve'"


def test_places_and_runs_that_cannot_be_used_are_refused(refused, fitted, tmp_path):
    sentence = refused("poles", fitted, "--out", tmp_path)
    assert sentence == f"--out must name a file to write, got the folder {tmp_path}"
    assert "has no model.json or run.json" in refused("poles", tmp_path)


@pytest.mark.parametrize("domain", [None, [[0.0], [1.0], [2.0]], "wide", {"low": 0}])
def test_a_trained_run_without_the_range_of_its_data_is_refused(refused, trained, domain):
    edited(trained, lambda record: record["facts"].update(domain=domain))
    assert "must tell the range of its data" in refused("poles", trained)
