"""What is imported where a library is absent, or there under its other name."""

import sys
from importlib import import_module

import pytest
import pytorch_lightning

import zeroproof.integrations
from zeroproof.errors import MissingExtraError


@pytest.fixture
def anew(monkeypatch):
    """Import a module of the room as if for the first time."""

    def load(name):
        for module in (name, f"_{name}"):
            monkeypatch.delitem(sys.modules, f"zeroproof.integrations.{module}", raising=False)
            monkeypatch.delattr(zeroproof.integrations, module, raising=False)
        return import_module(f"zeroproof.integrations.{name}")

    return load


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("lightning", ("lightning", "lightning.pytorch", "pytorch_lightning")),
        ("torchmetrics", ("torchmetrics",)),
        ("transformers", ("transformers",)),
    ],
)
def test_an_absent_library_is_named_with_the_extra_that_brings_it(name, absent, anew, monkeypatch):
    for module in absent:
        monkeypatch.setitem(sys.modules, module, None)  # as if not installed
    sentence = rf'^{name} must be installed for this; type: pip install "zeroproof-scm\[{name}\]"$'
    with pytest.raises(MissingExtraError, match=sentence):
        anew(name)


@pytest.mark.parametrize("case", ["the other one alone is installed", "the other one is in use"])
def test_lightning_is_the_distribution_that_the_user_has(case, anew, monkeypatch):
    if "installed" in case:
        monkeypatch.setitem(sys.modules, "lightning", None)
    else:
        monkeypatch.delitem(sys.modules, "lightning.pytorch", raising=False)
    classes = anew("lightning")
    assert issubclass(classes.ProjectiveLightning, pytorch_lightning.LightningModule)
    assert issubclass(classes.ProjectiveCallback, pytorch_lightning.Callback)


def test_without_either_in_use_it_is_lightning(anew, monkeypatch):
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    module = anew("lightning").ProjectiveLightning
    assert issubclass(module, import_module("lightning.pytorch").LightningModule)
