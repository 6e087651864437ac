"""File locks, which end with the process that holds them, on every system."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from recsys_ms.core.errors import DataError, LockedError
from recsys_ms.core.files import file_errors, make_folder, read_regular

_fcntl: Any = None
# Windows has none.
with suppress(ImportError):
    _fcntl = import_module("fcntl")

_POLL_SECONDS = 0.1


@contextmanager
def file_lock(path: Path, *, timeout_seconds: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on a file for the block.

    The system releases it when the process ends, however it ends, so a killed writer leaves no
    stale lock behind; the text inside the file only tells people who holds it. Two locks on one
    path exclude each other inside one process as well. The file is created when absent and never
    deleted: deleting a lock file lets two processes lock two different files of the same name.

    Raises
    ------
    LockedError
        Another process holds it after ``timeout_seconds``.
    StorageError
        The lock file cannot be created.
    """
    # Loaded here: recorders need :func:`hold` only.
    import filelock

    make_folder(path.parent)
    # Where a system has no locks, one is held while its file is there, and ``path`` stays.
    is_soft = filelock.FileLock is filelock.SoftFileLock
    lock = filelock.FileLock(
        path.with_name(f"{path.name}.held") if is_soft else path, thread_local=False
    )
    what = f"{path}: the lock file cannot be opened"
    with file_errors(what, "check that the folder is writable"):
        try:
            lock.acquire(timeout=timeout_seconds, poll_interval=_POLL_SECONDS)
        except filelock.Timeout as error:
            raise LockedError(
                f"{path}: held by another process ({_holder(path)}); "
                "wait until it has finished and run again"
            ) from error
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _tell(path, json.dumps(holder))
        yield
    finally:
        _tell(path, "")
        lock.release()


def _tell(path: Path, text: str) -> None:
    # The text only informs people: a full disk refuses it, and so does Windows.
    with suppress(OSError):
        path.write_text(text, encoding="utf-8")


def _holder(path: Path) -> str:
    with suppress(DataError):
        return read_regular(path, max_bytes=4096).decode(errors="replace").strip() or "unknown"
    return "unknown"


def hold(descriptor: int) -> bool:
    """Lock an open file until it is closed; ``False`` if it cannot be locked here.

    On Windows, other processes cannot read its first byte meanwhile.
    """
    try:
        if _fcntl is not None:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            return True
        import filelock

        return filelock.lock_descriptor(descriptor, blocking=False)
    except OSError:
        return False


def is_held(descriptor: int) -> bool | None:
    """Whether another process holds an open file by :func:`hold`; ``None`` if nothing tells."""
    try:
        if _fcntl is not None:
            # A shared lock, since network file systems refuse the other kind to a reader.
            _fcntl.flock(descriptor, _fcntl.LOCK_SH | _fcntl.LOCK_NB)
            _fcntl.flock(descriptor, _fcntl.LOCK_UN)
            return False
        import filelock

        if not filelock.lock_descriptor(descriptor, blocking=False):
            return True
        filelock.unlock_descriptor(descriptor)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
