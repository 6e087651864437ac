"""Import of optional dependencies, with a message that names the extra to install."""

import importlib
from types import ModuleType

from recsys_ms.core.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import ``module``, or raise ``MissingExtraError`` with the extra to install.

    ``purpose`` is what it is needed for, as the end of "needed to …".
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is needed to {purpose} and could not be imported ({error}); "
            f"install it with: pip install 'recsys-ms[{extra}]'"
        ) from error
