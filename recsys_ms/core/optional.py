"""Import of optional dependencies, with a message that names the extra to install."""

import importlib
from types import ModuleType

from recsys_ms.core.errors import MissingExtraError


def require(module: str, *, purpose: str, extra: str = "", way_out: str = "") -> ModuleType:
    """Import ``module``, or raise ``MissingExtraError`` with the extra to install.

    ``purpose`` is what it is needed for, as the end of "needed to …"; ``way_out`` says how to
    install what no extra has.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is needed to {purpose} and could not be imported ({error}); "
            + (way_out or f"install it with: pip install 'recsys-ms[{extra}]'")
        ) from error
