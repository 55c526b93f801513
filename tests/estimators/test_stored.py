import json
import math
import pickle
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.stored import edited
from zeroproof import ProjectiveRegressor
from zeroproof.errors import DataError, RunFolderError
from zeroproof.estimators.model import FormModel
from zeroproof.solve import forms

INF, NAN = math.inf, math.nan
LINE = np.linspace(-1, 1, 80)[:, None]
x = LINE[:, 0]
PLANE = np.random.default_rng(0).uniform(0.2, 1.2, (150, 2))
ROWS = np.random.default_rng(1).uniform(0.1, 1.3, (30, 2))
RING = 1 / ((PLANE**2).sum(1) - 0.5)
with torch.random.fork_rng():  # whatever other tests drew
    torch.manual_seed(1)
    MODULE = nn.Sequential(nn.Linear(2, 5), nn.Sigmoid())

MODELS = {
    "factors": ({}, LINE, 1 / (x - 0.25)),
    "several forms": ({}, LINE, np.c_[1 / (x - 0.25), x**2]),
    "complex": ({}, LINE, (1 + 2j) / (x - 0.3 - 0.1j)),
    "exponential": ({}, LINE, np.exp(3 * x)),
    "singular rows": ({}, LINE, np.where(abs(x) < 0.02, INF, 1 / x)),
    "polynomial": ({"features": "polynomial", "degrees": 2}, PLANE, RING),
    "chebyshev": ({"features": "chebyshev", "degrees": (2, 1)}, PLANE, RING),
    "searched": ({"time_budget": 0.3}, PLANE, np.sin(9 * RING)),
    "root": ({"time_budget": 0.5}, PLANE, 1 / np.sqrt((PLANE**2).sum(1))),
    "random": ({"features": "random", "time_budget": 1.0}, PLANE, RING),
    "fourier complex": ({"features": "fourier", "time_budget": 1.0}, PLANE, RING * (1 + 1j)),
    "module": ({"features": MODULE}, PLANE, RING),
    "module, linear": ({"features": nn.Linear(1, 4), "linear_in": [1]}, PLANE, RING),
    "affine": ({"topology": "affine", "time_budget": 0.3}, LINE, 1 / (1.1 - x)),
    "separate": (
        {"shared_denominator": False, "features": "polynomial", "degrees": 1},
        PLANE,
        PLANE / (PLANE[:, :1] + 1),
    ),
}


def fitted(name):
    options, X, y = MODELS[name]
    return ProjectiveRegressor(random_state=2, **options).fit(X, y), X


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "line"
    fitted("factors")[0].save(folder)
    return folder


def assert_same(one, two, X):
    for got, kept in zip(two.predict_strict(X), one.predict_strict(X), strict=True):
        assert got.dtype == kept.dtype
        assert np.array_equal(got, kept, equal_nan=got.dtype.kind in "fc")
    for got, kept in zip(two.tuples(X), one.tuples(X), strict=True):
        assert np.array_equal(got, kept)
    assert two.thresholds_ == one.thresholds_
    assert two.summary() == one.summary()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:.*lie outside the data")
def test_what_was_saved_answers_alike_to_the_bit(name, tmp_path):
    model, X = fitted(name)
    features = model.features if isinstance(model.features, nn.Module) else None
    model.save(tmp_path / "model")
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert files == ["model.json", "model.safetensors"]
    again = ProjectiveRegressor.load(tmp_path / "model", features=deepcopy(features))
    assert_same(model, again, ROWS[:, : X.shape[1]])
    for option, value in model.get_params(deep=False).items():
        if option != "features" and not isinstance(value, list):
            assert again.get_params(deep=False)[option] == value
    if X.shape[1] == 1:
        assert np.array_equal(again.poles(all=True), model.poles(all=True))


@pytest.mark.parametrize("name", ["factors", "complex", "module", "random"])
@pytest.mark.filterwarnings("ignore:.*lie outside the data")
def test_models_can_be_pickled_and_copied(name):
    model, X = fitted(name)
    for again in (pickle.loads(pickle.dumps(model)), deepcopy(model)):
        assert_same(model, again, ROWS[:, : X.shape[1]])


def test_forms_of_every_kind_come_back(tmp_path):
    one, line = torch.ones(1, dtype=torch.float64), (-1.0, 1.0)
    z = one * torch.tensor([-1.0, 0.5])
    kinds = (
        forms.CoefficientForm(one, z, "monomial", line),
        forms.FactoredForm(one, z, -one * z, one, torch.cat([z, one]), line),
        forms.BarycentricForm(z, z + 1, z + 2),
        forms.FractionForm(z + 1j, z - 1j, one, line),
        forms.SigmoidForm(*torch.arange(4.0).double(), log=True, domain=line),
        forms.ConjugateForm(-one, -z, z * z, torch.arange(6.0).double(), line, "imaginary"),
    )
    model = fitted("factors")[0]
    fit = model.fit_._replace(model=FormModel(kinds, 2.0), alternates=())
    model.fitted_ = model.fitted_._replace(fit=fit, spread=(), sign=torch.ones(len(kinds)))
    model.save(tmp_path / "all")
    back = ProjectiveRegressor.load(tmp_path / "all").fit_.model.forms
    for there, here in zip(kinds, back, strict=True):
        assert type(there) is type(here)
        for name, part in vars(there).items():
            other = vars(here)[name]
            assert torch.equal(part, other) if isinstance(part, torch.Tensor) else part == other


def test_saving_twice_replaces_the_model(tmp_path):
    fitted("exponential")[0].save(tmp_path / "model")
    fitted("factors")[0].save(tmp_path / "model")
    assert ProjectiveRegressor.load(tmp_path / "model").poles() == pytest.approx([0.25])


def test_a_loaded_model_can_be_fitted_again(saved):
    model = ProjectiveRegressor.load(saved)
    assert model.fit(LINE, 1 / (x - 0.5)).poles() == pytest.approx([0.5])


def test_a_loaded_model_needs_rows_to_plot(saved):
    with pytest.raises(DataError, match="needs X and y after `load`"):
        ProjectiveRegressor.load(saved).plot()


def test_names_of_columns_are_kept(tmp_path):
    frame = pd.DataFrame({"speed": x})
    ProjectiveRegressor().fit(frame, 1 / (x - 0.25)).save(tmp_path / "model")
    model = ProjectiveRegressor.load(tmp_path / "model")
    assert model.fitted_.names == ("speed",)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"speed": "time"}))
    assert model.predict(frame) == pytest.approx(1 / (x - 0.25))


def test_the_number_of_columns_is_kept(saved):
    with pytest.raises(ValueError, match=r"X has 2 features, but ProjectiveRegressor is expecting"):
        ProjectiveRegressor.load(saved).predict(PLANE)


def test_nothing_of_the_folder_is_pickle(saved):
    record = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    assert (record["format"], record["version"]) == ("zeroproof", 2)
    header = (saved / "model.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def rewrite(**changes):
    return lambda folder: edited(folder, lambda record: record.update(changes))


def deep(change):
    return lambda folder: edited(folder, lambda record: change(record["fitted"]["$Fitted"]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.json").unlink(), "written by `save`, but has no model.json"),
        (lambda f: (f / "model.safetensors").unlink(), "must hold a whole model, but has .*"),
        (lambda f: (f / "model.json").write_text("{"), "must be readable JSON"),
        (lambda f: (f / "model.json").write_text("[]"), "must have the format 'zeroproof'"),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "must be readable JSON"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 9), "must hold a whole model"),
        (rewrite(format="other"), "must have the format 'zeroproof'"),
        (rewrite(version=99), "must have format version 2, got 99: use the version of zeroproof"),
        (rewrite(fitted={"$Unknown": {}}), "has an object of an unknown kind, Unknown"),
        (rewrite(fitted={"$tensor": "nothing"}), "must hold a whole model, but has no 'nothing'"),
        (rewrite(fitted=3), "must hold a whole model"),
        (deep(lambda f: f["thresholds"]["$InferenceConfig"].update(tau_infer=-1)), "tau_infer"),
        (deep(lambda f: f.update(columns=[0])), "Fitted.columns = .*, which it cannot be"),
        (deep(lambda f: f.update(names={"$tuple": []})), "a domain of shape"),
        (deep(lambda f: f.update(outputs={"$tuple": ["a", "b"]})), "2 names of 1 outputs"),
        (deep(lambda f: f["fit"]["$ClosedForm"].update(model=None)), "ClosedForm.model = None"),
        (rewrite(options={}), "must hold a whole model, but has no 'features'"),
        (rewrite(options={"features": "auto", "unheard": 1}), "must hold a whole model"),
    ],
    ids=[
        "no json", "no arrays", "half json", "a list", "no text", "no safetensors", "format",
        "version", "kind", "tensor", "number", "thresholds", "a list for a tuple", "no names",
        "too many names", "no model", "options", "unknown option",
    ],
)  # fmt: skip
def test_damaged_folders_are_refused(saved, tmp_path, damage, message):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert ProjectiveRegressor.load(folder).poles() == pytest.approx([0.25])
    damage(folder)
    with pytest.raises(RunFolderError, match=message):
        ProjectiveRegressor.load(folder)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(RunFolderError, match="nowhere must be a folder written by `save`"):
        ProjectiveRegressor.load(tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["file", "folder"])
def test_nothing_foreign_is_overwritten(place, tmp_path):
    target = tmp_path / "thing"
    if place == "folder":
        target.mkdir()
        (target / "thesis.tex").write_text("years of work")
    else:
        target.write_text("years of work")
    message = "holds thesis.tex" if place == "folder" else "must be a folder, got a file"
    with pytest.raises(RunFolderError, match=message):
        fitted("factors")[0].save(target)
    kept = target / "thesis.tex" if place == "folder" else target
    assert kept.read_text() == "years of work"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (None, r"pass it as load\(path, features=module\)"),
        (nn.Sequential(nn.Linear(2, 6), nn.Sigmoid()), "size mismatch"),
        (nn.Identity(), r"[Uu]nexpected key"),
    ],
    ids=["none", "another width", "another module"],
)
def test_the_module_must_be_the_one_that_was_saved(features, message, tmp_path):
    fitted("module")[0].save(tmp_path / "model")
    with pytest.raises(RunFolderError, match=message):
        ProjectiveRegressor.load(tmp_path / "model", features=features)


def test_weights_of_the_module_come_from_the_folder(tmp_path):
    model, _ = fitted("module")
    model.save(tmp_path / "model")
    other = nn.Sequential(nn.Linear(2, 5), nn.Sigmoid())
    assert not torch.equal(other[0].weight, MODULE[0].weight)
    again = ProjectiveRegressor.load(tmp_path / "model", features=other)
    assert np.array_equal(again.predict(PLANE), model.predict(PLANE), equal_nan=True)
