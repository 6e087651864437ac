"""Files: written whole or not at all, and errors that say what failed and what to do."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recsys_ms.core.errors import RecsysError, StorageError


@contextmanager
def file_errors(
    what: str,
    way_out: str = "",
    *,
    catch: type[Exception] | tuple[type[Exception], ...] = OSError,
    raises: type[RecsysError] = StorageError,
) -> Iterator[None]:
    """Raise an error of the block as ``what (reason); way_out``, of the type ``raises``."""
    try:
        yield
    except catch as error:
        raise raises(f"{what} ({reason_of(error)})" + f"; {way_out}" * bool(way_out)) from error


def reason_of(error: BaseException) -> str:
    """The first line of an error's text: some go on for pages."""
    return getattr(error, "strerror", None) or str(error).strip().split("\n", 1)[0]


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, unless it is there; ``StorageError`` if that fails."""
    with file_errors(
        f"{folder}: cannot be created", "check that its parent is writable and has free space"
    ):
        folder.mkdir(parents=True, exist_ok=True)


def fsync(path: Path) -> None:
    """Make a file, or the renames inside a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def written_beside(path: Path, *, suffix: str = "", durable: bool = True) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` when the block ends without an error."""
    # The leading dot and the suffix keep half-written files out of every ``*.json`` glob.
    name = f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp{suffix}"
    temporary = path.with_name(name)
    try:
        yield temporary
        temporary.replace(path)
        if durable:
            fsync(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file, or the new one, never a part.

    ``StorageError`` if the folder cannot be written (read-only, full, missing).
    """
    way_out = "check that the folder exists, is writable and has free space"
    with file_errors(f"{path}: cannot be written", way_out), written_beside(path) as temporary:
        temporary.write_bytes(data)
        fsync(temporary)


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_arrays(path: Path) -> dict[str, Any] | None:
    """Arrays of a cache file by name; ``None`` where it is absent or damaged."""
    # Loaded here: a training job that logs one run needs none of it.
    import zipfile
    import zlib

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def write_arrays(path: Path, *, way_out: str, **arrays: Any) -> None:
    """Write arrays into a cache file (``.npz``) that a reader sees whole or not at all.

    Unlike :func:`write_atomic` it does not wait for the disk. Folders are made; where several
    processes write one file, the last one wins.
    ``StorageError`` if the folder cannot be written; the message ends with ``way_out``.
    """
    import numpy as np

    with (
        file_errors(f"{path}: cannot be written", way_out),
        written_beside(path, suffix=".npz", durable=False) as temporary,
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **arrays)
