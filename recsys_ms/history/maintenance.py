"""Examines a history for damage, and repairs it: what ``recsys-ms doctor`` does."""

import os
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors
from recsys_ms.core.lock import file_lock
from recsys_ms.core.temporary import discard, temporary_name
from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import MARKER_FILE
from recsys_ms.history.inbox.inbox_files import read_inbox
from recsys_ms.history.ingestion import IngestReport
from recsys_ms.history.quarantine import ReadBatch
from recsys_ms.history.store.inventory import ARCHIVE_FOLDER, RUNS_FOLDER, is_odd
from recsys_ms.history.store.layout import LOCK_FILE, lost_marker, refuse_foreign
from recsys_ms.history.store.repair import Finding, Repair
from recsys_ms.history.store.run_store import RunStore

_WAIT_SECONDS: Final = 10.0
#: The files that are listed, and then those that only a whole table tells of.
_ROUNDS: Final = 2
_TAR_ERRORS: Final = (OSError, EOFError, tarfile.TarError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What a repair did.

    Attributes
    ----------
    findings : tuple of Finding
        What was damaged, and what was done about it.
    damaged : Path or None
        Folder with the damaged files.
    from_archive : IngestReport or None
        What the bundles of the archive gave, where a table was built anew.
    unread : tuple of str
        Bundles that could not be read.
    sources : tuple of str
        Logs and tables that were ingested, newest first: no bundle holds them.
    retractions : tuple of str
        Commands that retract again what was retracted by a lost part of a table.
    """

    findings: tuple[Finding, ...]
    damaged: Path | None = None
    from_archive: IngestReport | None = None
    unread: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    retractions: tuple[str, ...] = ()

    @property
    def lost(self) -> tuple[Finding, ...]:
        """What could not be put right."""
        return tuple(each for each in self.findings if each.remedy in ("give up", "rebuild"))


def examine_history(path: str | Path) -> list[Finding]:
    """What is damaged in a history, by reading every file of it; nothing is changed.

    Raises
    ------
    DataError
        The folder holds no history, or one of a newer version.
    """
    folder = Path(path)
    _require(folder)
    found = Repair(folder).examine()
    # A writer may have been at work.
    return found and Repair(folder).examine()


def repair_history(path: str | Path) -> Repaired:
    """Put right what :func:`examine_history` finds, under the lock of the history.

    Raises
    ------
    DataError
        The folder holds no history, or one of a newer version.
    LockedError
        Another process writes to it.
    StorageError
        The disk is full or read-only; what was done stays, and it can be called again.
    """
    folder = Path(path)
    _require(folder)
    repair = Repair(folder)
    with ExitStack() as stack:
        if not is_odd(folder / LOCK_FILE):
            stack.enter_context(file_lock(folder / LOCK_FILE, timeout_seconds=_WAIT_SECONDS))
        found: list[Finding] = []
        for _ in range(_ROUNDS):
            if again := repair.examine():
                repair.apply(again)
                found += again
    history = History.open(folder, create=False).check()
    unread: list[str] = []
    given = None
    if any(each.remedy == "rebuild" for each in found):
        given = history.ingest(_archived(folder, unread))
    return Repaired(
        findings=tuple(found),
        damaged=repair.aside if repair.aside.exists() else None,
        from_archive=given,
        unread=tuple(unread),
        sources=tuple(_sources(history)),
        retractions=tuple(_lost_retractions(history)) if given else (),
    )


def _lost_retractions(history: History) -> Iterator[str]:
    """Retractions that no row tells of any more, as the commands that repeat them."""
    (known,) = RunStore(history.path / RUNS_FOLDER).values((c.RETRACTION,))
    for each in history.ingests().to_dict("records"):
        if each["operation"] != "retract" or each["ingest_id"] in known:
            continue
        asked = each["options"]
        words = [asked.get("ingest") or ""]
        words += [f"--run-id {shlex.quote(run_id)}" for run_id in asked.get("run_ids", ())]
        words += [f"--where {shlex.quote(asked['where'])}"] if "where" in asked else []
        yield f"recsys-ms retract {' '.join(filter(None, words))} -H {history.path}"


def _sources(history: History) -> Iterator[str]:
    for each in history.ingests().to_dict("records")[::-1]:
        if each["operation"] in ("ingest", "replace") and each["options"].get("format") != "inbox":
            yield from each["sources"]


@contextmanager
def opened_or_made(path: str | Path, *, create: bool) -> Iterator[History]:
    """Open a history to ingest into it; one that was made for it is left behind only if filled."""
    folder = Path(path)
    there = set(os.listdir(folder)) if folder.is_dir() else None
    history = History.open(folder, create=create)
    try:
        yield history
    except BaseException:
        if there is None or MARKER_FILE not in there:
            _discard_empty(history, there)
        raise


def _discard_empty(history: History, there: set[str] | None) -> None:
    """Delete a history that was made and not written to; ``there`` was in its folder before."""
    filled = [history.inbox.iterdir(), history.quarantine.folder.iterdir()]
    if history.version > 0 or any(True for names in filled for _ in names):
        return
    if there is None:
        discard(history.path)
        return
    for path in history.path.iterdir():
        if path.name not in there:
            discard(path)


def _require(folder: Path) -> None:
    """``DataError`` if a folder holds no history, not even a damaged one."""
    if os.path.lexists(folder / MARKER_FILE) or lost_marker(folder):
        return
    refuse_foreign(folder)
    raise DataError(f"{folder}: there is no history; name its folder, which holds {MARKER_FILE}")


def _archived(folder: Path, unread: list[str]) -> Iterator[ReadBatch]:
    """Inbox files of all bundles, oldest first."""
    for bundle in sorted((folder / ARCHIVE_FOLDER).glob("*/*.tar.gz")):
        unpacked = folder / temporary_name("bundle")
        try:
            _unpack(bundle, unpacked)
            yield from read_inbox(unpacked, [])
        except _TAR_ERRORS as error:
            unread.append(f"{bundle}: cannot be read ({error})")
        finally:
            discard(unpacked)


def _unpack(bundle: Path, folder: Path) -> None:
    """Write the files of a bundle into a folder, by their names alone."""
    with file_errors(f"{folder}: cannot be made"):
        folder.mkdir()
    with tarfile.open(bundle, "r:gz") as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isfile() else None
            if source is not None:
                with (folder / Path(member.name).name).open("xb") as target:
                    shutil.copyfileobj(source, target)
