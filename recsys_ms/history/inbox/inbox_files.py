"""The reading side of the inbox: files and journals to runs, rejects and curves; the archive."""

import gzip
import json
import logging
import os
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.core.files import fsync_directory
from recsys_ms.core.types import JsonDict
from recsys_ms.history.inbox.inbox_text import FileRun, parse_file
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.recorder.failure import ERROR_TAG
from recsys_ms.history.recorder.journal import AT_WORK, Journal, list_journals, read_journals
from recsys_ms.history.store.curves import CURVE_SCHEMA
from recsys_ms.history.store.schema import runs_to_table

_LOG = logging.getLogger(__name__)

#: Readers whose rejects hold the JSON fields of one run.
JSON_READERS: Final = ("inbox", "run")
_INBOX: Final = "inbox"
#: Lines of a journal that nobody can read again.
_DAMAGED: Final = "journal"
_RUNS_PER_BATCH: Final = 10_000
_POINTS_PER_BATCH: Final = 1_000_000


def list_inbox(folder: Path) -> list[Path]:
    """Finished files of an inbox, oldest first; half-written ones start with a dot.

    Raises
    ------
    DataError
        There is no such folder.
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix == ".json" and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise DataError(
            f"{folder}: the inbox cannot be read ({error.strerror}); name a folder of run files"
        ) from error


def read_inbox(folder: Path, done: list[Path]) -> Iterator[ReadBatch]:
    """Read an inbox: journals, then files, each one run.

    Parameters
    ----------
    folder : Path
        The inbox.
    done : list of Path
        Gets every file that was read and every journal of a recorder that is gone; the others stay
        where they are.

    Raises
    ------
    DataError
        There is no such folder.
    """
    pieces = _Pieces()
    # Journals first: a recorder that ends meanwhile has its file in the list that follows.
    for journal in read_journals(list_journals(folder)):
        _take_journal(journal, pieces, done)
        if pieces.full:
            yield pieces.batch()
    for path in list_inbox(folder):
        try:
            data = path.read_bytes()
        except OSError as error:
            _LOG.warning("%s: left in the inbox, it cannot be read (%s)", path, error)
            continue
        done.append(path)
        pieces.take(path.name, data.decode(errors="surrogateescape"))
        if pieces.full:
            yield pieces.batch()
    yield pieces.batch()


def retry_json(reject: Reject) -> ReadBatch:
    """Read a reject of one of :data:`JSON_READERS` again."""
    try:
        return _batch([parse_file(reject.raw)], (reject.file,))
    except DataError as error:
        again = replace(reject, reason=str(error))
        return ReadBatch(runs=runs_to_table([]), rejects=(again,))


@dataclass(slots=True)
class _Pieces:
    """What was read since the last batch."""

    runs: list[FileRun] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    n_points: int = 0

    @property
    def full(self) -> bool:
        n = len(self.runs) + len(self.rejects)
        return n >= _RUNS_PER_BATCH or self.n_points >= _POINTS_PER_BATCH

    def take(self, name: str, text: str) -> None:
        try:
            run = parse_file(text)
        except DataError as error:
            self.refuse(name, text, str(error))
            return
        self.add(name, run)

    def add(self, name: str, run: FileRun) -> None:
        self.runs.append(run)
        self.files.append(name)
        self.n_points += len(run.points)

    def refuse(self, name: str, text: str, reason: str, reader: str = _INBOX) -> None:
        self.rejects.append(Reject(file=name, line=None, reason=reason, raw=text, reader=reader))

    def batch(self) -> ReadBatch:
        batch = replace(_batch(self.runs, tuple(self.files)), rejects=tuple(self.rejects))
        self.runs, self.files, self.rejects, self.n_points = [], [], [], 0
        return batch


def _batch(runs: Sequence[FileRun], files: tuple[str, ...]) -> ReadBatch:
    points = [(each.run.run_id, *point) for each in runs for point in each.points]
    columns = zip(*points, strict=True) if points else ((),) * len(CURVE_SCHEMA)
    return ReadBatch(
        runs=runs_to_table([each.run for each in runs]),
        file=files,
        progress=tuple(each.progress for each in runs),
        curves=pa.table([list(column) for column in columns], schema=CURVE_SCHEMA),
    )


def _take_journal(journal: Journal, pieces: _Pieces, done: list[Path]) -> None:
    """A run of a journal: running while its recorder lives, failed when it is gone."""
    name, recorded = journal.path.name, journal.recorded
    if journal.dead:
        done.append(journal.path)
        if recorded is None:
            reason = "its first line, which names the run, is damaged; write the fields of the run"
            pieces.refuse(name, journal.text, f"{reason} as one JSON object to replay it")
            return
        if journal.damaged:
            reason = "lines that were not written whole; the other lines of the file are ingested"
            pieces.refuse(name, journal.damaged, reason, _DAMAGED)
        fields, extras = recorded.account("failed", AT_WORK, {ERROR_TAG: "killed"})
        fields.setdefault(c.FINISHED_AT, journal.written_at.isoformat())
        pieces.take(name, _as_text(fields, extras))
    elif recorded is not None:
        try:
            run = parse_file(_as_text(*recorded.account("running", AT_WORK)))
        except DataError:
            # Fields may still be corrected; when the run ends its account says what is wrong.
            return
        pieces.add(name, run)


def _as_text(fields: JsonDict, extras: JsonDict) -> str:
    named = {name: value for name, value in fields.items() if value is not None}
    return json.dumps({**named, **extras})


def archive_inbox(paths: Sequence[Path], archive: Path) -> None:
    """Bundle files in one ``archive/<date>/inbox-<time>.tar.gz``, then delete them.

    Killed in between, the files are still in the inbox: they are duplicates at the next ingest.

    Raises
    ------
    StorageError
        The archive cannot be written, or a file not deleted; the files stay.
    """
    if not paths:
        return
    now = datetime.now(UTC)
    folder = archive / now.strftime("%Y-%m-%d")
    bundle = folder / f"inbox-{now.strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}.tar.gz"
    temporary = bundle.with_name(f".{bundle.name}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_bundle(paths, temporary)
        temporary.replace(bundle)
        fsync_directory(folder)
        for path in paths:
            path.unlink(missing_ok=True)
        fsync_directory(paths[0].parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{bundle}: the inbox files cannot be archived ({error.strerror or error}); their runs "
            "are in the history and the files in the inbox, where the next ingest finds them again"
        ) from error


def _write_bundle(paths: Sequence[Path], bundle: Path) -> None:
    with bundle.open("wb") as handle:
        with (
            gzip.GzipFile(fileobj=handle, mode="wb", compresslevel=6) as zipped,
            tarfile.open(fileobj=zipped, mode="w") as tar,
        ):
            for path in paths:
                tar.add(path, arcname=path.name, recursive=False)
        handle.flush()
        os.fsync(handle.fileno())
