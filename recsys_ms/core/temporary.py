"""Names of temporary files, which say who writes them; and the sweep of those that a kill left."""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from recsys_ms.core.processes import is_running, numbers_of

SUFFIX: Final = ".tmp"
#: ``.NAME.HOST-PID-RANDOM.tmp``, and maybe a suffix that a library insists on.
_NAME: Final = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp(\.\w+)?")
#: Any other hidden name that ends so; earlier versions named theirs without the host.
_ANY: Final = re.compile(r"\..*\.tmp(\.\w+)?")
#: A process of another host is not visible here: its file counts as abandoned after this time.
SILENCE_SECONDS: Final = 24 * 3600.0


def temporary_name(name: str, *, suffix: str = "") -> str:
    """A hidden name beside ``name`` that no other writer has, and that :func:`sweep` knows.

    The leading dot and the end keep half-written files out of every ``*.json``.
    """
    return f".{name}.{numbers_of()}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}{suffix}"


def sweep(folders: Iterable[Path], *, all_of_them: bool = False) -> list[Path]:
    """Delete the temporary files and folders whose writers are gone; gives their paths.

    A writer is gone if it is a process of this host that has ended. Of other writers nothing is
    known: their files go a day after they were last written.

    Parameters
    ----------
    folders : iterable of Path
        Looked at themselves, not what lies deeper. One that is missing is skipped.
    all_of_them : bool
        Whether the caller holds a lock without which no process writes there: then every one goes.
    """
    found = [
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if _ANY.fullmatch(path.name) and (all_of_them or _is_abandoned(path))
    ]
    for path in found:
        discard(path)
    return found


def discard(path: Path) -> None:
    """Delete a file, a link or a whole folder; what cannot be deleted stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    named = _NAME.fullmatch(path.name)
    if named and named[1] == numbers_of() and is_running(int(named[2])) is False:
        return True
    try:
        return time.time() - path.lstat().st_mtime > SILENCE_SECONDS
    except OSError:
        return False
