"""A file lock, which the kernel releases when its holder ends."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from recsys_ms.core.errors import LockedError
from recsys_ms.core.files import file_errors

_POLL_SECONDS = 0.1


@contextmanager
def file_lock(path: Path, *, timeout_seconds: float = 0.0) -> Iterator[None]:
    """Hold an exclusive advisory lock on a file (``flock``) for the block.

    The kernel releases it when the process ends, however it ends, so a killed writer leaves no
    stale lock behind; the text inside the file only tells people who holds it. The lock belongs to
    the open file: two locks on one path exclude each other inside one process as well. The file is
    created when absent and never deleted: deleting a lock file lets two processes lock two
    different files of the same name.

    Raises
    ------
    LockedError
        Another process holds it after ``timeout_seconds``.
    StorageError
        The lock file cannot be created.
    """
    what = f"{path}: the lock file cannot be opened"
    with file_errors(what, "check that the folder is writable"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, path, time.monotonic() + timeout_seconds)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        # The text only informs people: a full disk refuses it, and the lock is held all the same.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
                raise LockedError(
                    f"{path}: held by another process ({holder or 'unknown'}); "
                    "wait until it has finished and run again"
                ) from error
        time.sleep(_POLL_SECONDS)
