import math
import sys

import pytest

from zeroproof._extras import require
from zeroproof.errors import MissingExtraError


def test_what_is_installed_comes_back():
    assert require("math", extra="train") is math


@pytest.mark.parametrize("module", ["absent_module", "absent_module.part"])
def test_what_is_absent_is_named_with_the_extra_that_brings_it(module):
    sentence = r'^absent_module must be .*; type: pip install "zeroproof-scm\[plots\]"$'
    with pytest.raises(MissingExtraError, match=sentence) as caught:
        require(module, extra="plots")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_error_inside_a_module_that_is_there_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('its own fault')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="its own fault"):
        require("broken_module", extra="plots")
    assert "broken_module" not in sys.modules
