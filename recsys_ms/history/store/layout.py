"""What makes a folder a history: its parts by name, and the marker file with the least version."""

import json
import os
from pathlib import Path
from typing import Final

from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors, write_atomic
from recsys_ms.history.inbox.inbox import INBOX_FOLDER, MARKER_FILE

RUNS_FOLDER: Final = "runs"
CURVES_FOLDER: Final = "curves"
ARCHIVE_FOLDER: Final = "archive"
QUARANTINE_FOLDER: Final = "quarantine"
LOCK_FILE: Final = ".lock"
_FOLDERS: Final = {INBOX_FOLDER, RUNS_FOLDER, CURVES_FOLDER, ARCHIVE_FOLDER, QUARANTINE_FOLDER}
_OURS: Final = _FOLDERS | {MARKER_FILE, LOCK_FILE}
_FORMAT: Final = 1


def write_marker(folder: Path, version: int) -> None:
    """Note the version that was written; a log that ends before it was damaged."""
    document = {"format": _FORMAT, "version": version}
    write_atomic(folder / MARKER_FILE, json.dumps(document).encode())


def read_marker(path: Path) -> int:
    """Least version that the log must reach.

    ``DataError`` if the marker is damaged, or of a newer version of recsys-ms.
    """
    caught = (OSError, ValueError, LookupError, TypeError)
    what = f"{path}: cannot be read"
    with file_errors(what, "restore it from a backup", catch=caught, raises=DataError):
        document = json.loads(path.read_bytes())
        written, version = int(document["format"]), int(document["version"])
    if written > _FORMAT:
        raise DataError(
            f"{path}: format {written} was written by a newer version of recsys-ms, this one knows "
            f"formats up to {_FORMAT}; upgrade recsys-ms"
        )
    return version


def refuse_foreign(folder: Path) -> None:
    """Raise unless the folder is absent, empty, or a history that was killed while it was made."""
    if folder.is_file():
        raise DataError(f"{folder}: a file, wanted the folder of a history")
    with file_errors(f"{folder}: cannot be read"):
        names = set(os.listdir(folder)) if folder.exists() else set()
    if "_delta_log" in names:
        raise DataError(
            f"{folder}: a Delta table; name the folder of the history, which holds it as "
            f"{RUNS_FOLDER}/"
        )
    runs = folder / RUNS_FOLDER
    table_of_others = runs.is_dir() and set(os.listdir(runs)) - {"_delta_log"}
    strange = sorted(name for name in names - _OURS if not name.endswith(".tmp"))
    if strange or table_of_others:
        raise DataError(
            f"{folder}: holds {strange[0] if strange else RUNS_FOLDER + '/'!r}, so it is not a "
            "history; name an empty folder, or one that History.open made"
        )
