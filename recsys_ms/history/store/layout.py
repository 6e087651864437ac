"""What makes a folder a history: its parts by name, and how other folders are told apart."""

import os
from pathlib import Path
from typing import Final

from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors
from recsys_ms.history.inbox.inbox import MARKER_FILE
from recsys_ms.history.store.inventory import (
    ARCHIVE_FOLDER,
    COPIES,
    CURVES_FOLDER,
    INGESTS_FOLDER,
    LOG_FOLDER,
    QUARANTINE_FOLDER,
    RUNS_FOLDER,
    STANDING_FOLDERS,
    TABLES,
    mend,
)

LOCK_FILE: Final = ".lock"
#: Where a repair puts damaged files.
DAMAGED_FOLDER: Final = "damaged"
_OURS: Final = {
    *STANDING_FOLDERS,
    *TABLES,
    INGESTS_FOLDER,
    DAMAGED_FOLDER,
    MARKER_FILE,
    LOCK_FILE,
}
#: Files that a history has only after it was made; any of them may be the one that is left.
_WRITTEN_LATER: Final = (
    f"{RUNS_FOLDER}/{LOG_FOLDER}/*[1-9]*.json",
    f"{CURVES_FOLDER}/{LOG_FOLDER}",
    f"{INGESTS_FOLDER}/*.json",
    f"{QUARANTINE_FOLDER}/*.parquet",
    f"{ARCHIVE_FOLDER}/*/*.tar.gz",
    f"{COPIES}/{RUNS_FOLDER}/{LOG_FOLDER}/*[1-9]*.json",
)


def refuse_foreign(folder: Path) -> None:
    """Raise unless the folder is absent, empty, or a history that was killed while it was made.

    ``DataError``: it is something else, or a history that lost its marker.
    """
    if folder.is_file():
        raise DataError(f"{folder}: a file, expected the folder of a history")
    with file_errors(f"{folder}: cannot be read"):
        names = set(os.listdir(folder)) if folder.exists() else set()
    if LOG_FOLDER in names:
        raise DataError(
            f"{folder}: a Delta table; name the folder of the history, which holds it as "
            f"{RUNS_FOLDER}/"
        )
    runs = folder / RUNS_FOLDER
    holds = set(os.listdir(runs)) if runs.is_dir() else set()
    strange = sorted(name for name in names - _OURS if not name.endswith(".tmp"))
    if not strange and lost_marker(folder):
        raise DataError(f"{folder}: damaged: {MARKER_FILE} is missing; {mend(folder)}")
    if strange or holds - {LOG_FOLDER}:
        raise DataError(
            f"{folder}: holds {strange[0] if strange else RUNS_FOLDER + '/'!r}, so it is not a "
            "history; name the folder of one, which holds history.json, or an empty one to make one"
        )


def lost_marker(folder: Path) -> bool:
    """Whether a folder holds what was written into a history, and no marker.

    One that was killed while it was made is empty.
    """
    if os.path.lexists(folder / MARKER_FILE):
        return False
    return any(any(folder.glob(pattern)) for pattern in _WRITTEN_LATER)
