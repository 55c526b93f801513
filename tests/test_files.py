import json
import math
from pathlib import Path

import pytest

from zeroproof._files import folder_in_place, text_in_place, write_json


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fill(folder, text):
    with folder_in_place(folder) as fresh:
        (fresh / "part").write_text(text)


class Stop(BaseException):
    """Neither an Exception nor one that pytest handles itself."""


@pytest.mark.parametrize("start", ["absent", "empty", "filled"])
def test_a_folder_appears_whole_in_place_of_what_was_there(tmp_path, start):
    folder = tmp_path / "run"
    if start != "absent":
        folder.mkdir()
    if start == "filled":
        (folder / "old").write_text("old")
    fill(folder, "new")
    assert tree(tmp_path) == ["run", "run/part"]
    assert (folder / "part").read_text() == "new"


def test_parents_are_made(tmp_path):
    fill(tmp_path / "a" / "b" / "run", "new")
    assert tree(tmp_path) == ["a", "a/b", "a/b/run", "a/b/run/part"]


def test_a_folder_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "usual").mkdir()
    fill(tmp_path / "run", "new")
    text_in_place(tmp_path / "file", "")
    (tmp_path / "usual" / "file").touch()
    assert (tmp_path / "run").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual" / "file").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
def test_a_block_that_fails_leaves_no_trace(tmp_path, error):
    def fail(folder):
        with folder_in_place(folder) as fresh:
            (fresh / "part").write_text("half")
            raise error

    with pytest.raises(error):
        fail(tmp_path / "a" / "run")
    assert tree(tmp_path) == []
    fill(tmp_path / "run", "earlier")
    with pytest.raises(error):
        fail(tmp_path / "run")
    assert tree(tmp_path) == ["run", "run/part"]
    assert (tmp_path / "run" / "part").read_text() == "earlier"


def test_the_earlier_folder_comes_back_if_the_last_step_fails(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    fill(folder, "earlier")
    rename = Path.rename

    def failing(path, target):
        if path.name == "fresh":
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        fill(folder, "new")
    assert tree(tmp_path) == ["run", "run/part"]
    assert (folder / "part").read_text() == "earlier"


def test_a_link_goes_on_pointing_where_it_points(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    fill(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "part").read_text() == "new"


def test_text_is_written_as_it_is_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "a" / "file"
    for text in ("first\r\n⊥", "second\n"):
        text_in_place(path, text)
        assert path.read_bytes() == text.encode()
    assert tree(tmp_path) == ["a", "a/file"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    text_in_place(path, "old")
    with pytest.raises(UnicodeEncodeError):
        text_in_place(path, "\ud800")
    with pytest.raises(UnicodeEncodeError):
        text_in_place(tmp_path / "a" / "new", "\ud800")
    assert tree(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_a_relative_name_belongs_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text_in_place(Path("file"), "text")
    fill(Path("run"), "new")
    assert tree(tmp_path) == ["file", "run", "run/part"]


def test_json_is_strict(tmp_path):
    path = tmp_path / "file"
    write_json(path, {"τ": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"τ": [1, 2.5, None]}
    assert "τ" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": math.nan})
    assert json.loads(path.read_text(encoding="utf-8")) == {"τ": [1, 2.5, None]}
