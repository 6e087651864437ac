"""Files: written whole or not at all, and errors that say what failed and what to do."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from recsys_ms.core.errors import DataError, RecsysError, StorageError
from recsys_ms.core.temporary import discard, temporary_name

# Flags that a system does not have are nothing to it.
_READ_ONLY: Final = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
# A path with a NUL is a ``ValueError``.
_NOT_READ: Final = (OSError, ValueError, MemoryError)
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_KINDS: Final = (
    (stat.S_ISLNK, "a link, which is not followed"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


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


def open_regular(
    path: Path,
    *,
    max_bytes: int | None = None,
    follow: bool = False,
    raises: type[RecsysError] = DataError,
) -> BinaryIO:
    """Open a file that others left, to read its bytes: never a pipe, a device, a link, a folder.

    A pipe would wait for ever, and ``/dev/zero`` has no end.

    Parameters
    ----------
    path : Path
        The file.
    max_bytes : int, optional
        Its greatest size. Without one, read a part at a time. It may grow while it is read, which
        :func:`read_bounded` sees.
    follow : bool
        Whether a link to a regular file is opened; give it only for paths that a person named.
    raises : type
        Of what the error is.

    Raises
    ------
    DataError, or ``raises``
        It is not a regular file, is larger, or cannot be opened; then its cause is the ``OSError``.
    """
    what = f"{path}: cannot be read"
    with file_errors(what, catch=_NOT_READ, raises=raises):
        found = path.stat() if follow else path.lstat()
    # Before it is opened too: opening a device may do something.
    _check_regular(path, found, raises)
    with file_errors(what, catch=_NOT_READ, raises=raises):
        descriptor = os.open(path, _READ_ONLY | (0 if follow else _NO_LINK))
    try:
        found = os.fstat(descriptor)
        _check_regular(path, found, raises)
        if max_bytes is not None:
            _check_size(path, found.st_size, max_bytes, raises)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(path: Path, found: os.stat_result, raises: type[RecsysError]) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
        raise raises(f"{path}: is {kind}, expected a regular file")


def read_regular(
    path: Path,
    *,
    max_bytes: int,
    follow: bool = False,
    raises: type[RecsysError] = DataError,
) -> bytes:
    """The bytes of a file that others left, at most ``max_bytes``; see :func:`open_regular`.

    Raises
    ------
    DataError, or ``raises``
        It is longer, is not a regular file, or cannot be read; then its cause is the ``OSError``.
    """
    with open_regular(path, max_bytes=max_bytes, follow=follow, raises=raises) as handle:
        return read_bounded(path, handle, max_bytes, raises=raises)


def read_bounded(
    path: Path, handle: BinaryIO, max_bytes: int, *, raises: type[RecsysError] = DataError
) -> bytes:
    """The rest of an open regular file, as :func:`read_regular` reads it."""
    n_bytes = os.fstat(handle.fileno()).st_size
    _check_size(path, n_bytes, max_bytes, raises)
    with file_errors(f"{path}: cannot be read", catch=_NOT_READ, raises=raises):
        data = handle.read(n_bytes + 1)
        # The file grows, or its size is a fiction (``/proc``).
        if len(data) > n_bytes:
            data += handle.read(max_bytes + 1 - len(data))
    _check_size(path, len(data), max_bytes, raises)
    return data


def _check_size(path: Path, n_bytes: int, max_bytes: int, raises: type[RecsysError]) -> None:
    if n_bytes > max_bytes:
        raise raises(f"{path}: has more than {max_bytes:,} bytes, which is the most that is read")


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, unless it is there; ``StorageError`` if that fails."""
    with file_errors(
        f"{folder}: cannot be created", "check that its parent is writable and has free space"
    ):
        folder.mkdir(parents=True, exist_ok=True)


def fsync(path: Path) -> None:
    """Make a file, or the renames inside a folder, survive a power cut."""
    on_windows = os.name == "nt"
    if on_windows and path.is_dir():
        # There, folders cannot be opened; the system writes renames by itself.
        return
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def written_beside(path: Path, *, suffix: str = "", durable: bool = True) -> Iterator[Path]:
    """A temporary path for a file or a folder, which becomes ``path`` when the block ends well.

    A folder replaces nothing: there must be none at ``path``.
    """
    temporary = path.with_name(temporary_name(path.name, suffix=suffix))
    try:
        yield temporary
        temporary.replace(path)
        if durable:
            fsync(path.parent)
    except OSError:
        discard(temporary)
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
