"""The version of the installed package."""

from functools import cache
from typing import Final

#: Version where the package is on the path but was never installed.
NOT_INSTALLED: Final = "0+unknown"


@cache
def package_version() -> str:
    """Version of the installed ``recsys-ms``, or :data:`NOT_INSTALLED`."""
    # Takes 40 ms to import, which a training job that logs one run should not pay.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("recsys-ms")
    except PackageNotFoundError:
        return NOT_INSTALLED
