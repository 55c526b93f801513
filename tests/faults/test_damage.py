"""Whatever is damaged in a stored folder is refused in a sentence, or answers alike."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("damage", Path(__file__).with_name("damage.py"))
damage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(damage)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    places = {name: tmp_path_factory.mktemp("whole") / name for name in damage.MAKERS}
    for name, folder in places.items():
        damage.MAKERS[name](folder)
    return places


def test_no_damage_changes_an_answer_or_ends_in_a_traceback(wholes):
    found = damage.tried(wholes, 400, 0)
    del found["SLOW"]  # a figure of the machine, which `make fuzz` prints
    assert found.keys() <= {"refused", "the same", "another of its own"}
    assert found["refused"] > 300
    assert found["the same"] > 5
