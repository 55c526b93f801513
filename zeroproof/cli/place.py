"""Where a command may write: never over what is not its own."""

from pathlib import Path

from zeroproof.errors import DataError, RunFolderError

__all__ = ["check_file", "check_folder"]

_DESCRIPTIONS = {"model.json", "run.json"}
_FILES = _DESCRIPTIONS | {"model.safetensors", "history.json", "rows.csv", "fit.png", "config.yaml"}


def check_folder(folder: Path) -> None:
    """Check that a run may be written here.

    Raises:
        RunFolderError: It holds anything but an earlier run, is a file, or cannot be a folder.
    """
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        if names and (not names & _DESCRIPTIONS or names - _FILES):
            foreign = sorted(names - _FILES)[:3] or ["no model.json or run.json"]
            raise RunFolderError(
                f"{folder} must be new, empty or an earlier run, but holds {', '.join(foreign)}"
            )
        if Path.cwd().is_relative_to(folder.resolve()):
            raise RunFolderError(f"{folder} must not be the current folder or one above it")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} must be a folder, got a file")
    parent = next(place for place in folder.absolute().parents if place.exists())
    if not parent.is_dir():
        raise RunFolderError(f"{folder} must lie in a folder, but {parent} is a file")


def check_file(out: str, data: str | None = None) -> None:
    """Check that answers may be written here.

    Raises:
        DataError: It is a folder, a file of a run, or the data themselves.
    """
    if Path(out).is_dir():
        raise DataError(f"--out must name a file to write, got the folder {out}")
    place = Path(out).resolve()
    if place.name in _FILES and any((place.parent / name).is_file() for name in _DESCRIPTIONS):
        raise DataError(f"--out must not replace a file of a run, got {out}")
    if data is not None and Path(out).resolve() == Path(data).resolve():
        raise DataError(f"--out must not replace the data, got {out} for both")
