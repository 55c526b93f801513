"""The one door through which optional dependencies enter."""

from importlib import import_module
from types import ModuleType

from zeroproof.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional `module`, or say which extra brings it.

    Args:
        module: Import name, such as `"matplotlib.pyplot"`.
        extra: The extra of this distribution that installs it.

    Raises:
        MissingExtraError: The module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        raise MissingExtraError(
            f'{name} must be installed for this; type: pip install "zeroproof-scm[{extra}]"'
        ) from error
