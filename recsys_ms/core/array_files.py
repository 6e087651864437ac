"""Cache files of arrays: a damaged or missing one is computed again."""

import os
import secrets
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from recsys_ms.core.errors import StorageError


def read_arrays(path: Path) -> dict[str, Any] | None:
    """Arrays by name; ``None`` where the file is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def write_arrays(path: Path, *, way_out: str, **arrays: Any) -> None:
    """Write arrays into an ``.npz`` file; a reader sees the old file or the new one, never a part.

    Unlike :func:`~recsys_ms.core.files.write_atomic` it does not wait for the disk. Folders are
    made; where several processes write one file, the last one wins.

    Raises
    ------
    StorageError
        The folder cannot be written; the message ends with ``way_out``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **arrays)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); {way_out}"
        ) from error
