"""A file lock, which the kernel releases when its holder ends."""

import contextlib
import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from recsys_ms.core.errors import LockedError, StorageError

_POLL_SECONDS = 0.1


class FileLock:
    """Exclusive advisory lock on a file (``flock``).

    The kernel releases it when the process ends, however it ends, so a killed writer leaves no
    stale lock behind; the text inside the file only tells people who holds it. The lock belongs to
    the open file: two locks on one path exclude each other inside one process as well.

    Parameters
    ----------
    path : Path
        The lock file. It is created when absent and never deleted: deleting a lock file lets two
        processes lock two different files of the same name.
    timeout_seconds : float
        How long to wait for the present holder, 0 to fail at once.
    """

    def __init__(self, path: Path, *, timeout_seconds: float = 0.0) -> None:
        self.path = path
        self.timeout_seconds = timeout_seconds
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        LockedError
            Another process holds it after ``timeout_seconds``.
        StorageError
            The lock file cannot be created.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(
                f"{self.path}: the lock file cannot be opened ({error.strerror}); "
                "check that the folder is writable"
            ) from error
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
                    os.close(descriptor)
                    raise LockedError(
                        f"{self.path}: held by another process ({holder or 'unknown'}); "
                        "wait until it has finished and run again"
                    ) from error
                time.sleep(_POLL_SECONDS)
        holder_text = json.dumps(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        self._descriptor = descriptor
        # The text only informs people: a full disk refuses it, and the lock is held all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder_text.encode(), 0)

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
