"""Designs of the laboratory: TOML, read with errors that say what is wrong."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys_ms.core.errors import UsageError


def read_toml(path: str | Path, what: str) -> dict[str, Any]:
    """Read a TOML file that holds ``what``, such as "study".

    Raises
    ------
    UsageError
        No such file, or not TOML.
    """
    try:
        with Path(path).open("rb") as handle:
            return tomllib.load(handle)
    except OSError as error:
        raise UsageError(f"{path}: the {what} cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML ({error})") from error


@contextmanager
def checked_keys(path: str | Path, example: str) -> Iterator[None]:
    """Raise a ``UsageError`` for a missing or unknown key; ``example`` is a file that has all."""
    try:
        yield
    except KeyError as error:
        raise UsageError(f"{path}: {error} is missing; {example} has it") from error
    except TypeError as error:
        raise UsageError(f"{path}: {error}; see {example}") from error
