"""The history: every fine-tuning run that was ever logged, kept for ever in one folder."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final, Self

import pandas as pd
import pyarrow as pa

from recsys_ms.core.errors import DataError, RefusedError, StorageError, UnknownIdError
from recsys_ms.core.files import write_atomic
from recsys_ms.core.lock import FileLock
from recsys_ms.history.inbox import INBOX_FOLDER, MARKER_FILE
from recsys_ms.history.inbox_files import (
    JSON_READERS,
    archive_inbox,
    list_inbox,
    read_inbox,
    retry_json,
)
from recsys_ms.history.ingest import Ingest, IngestReport
from recsys_ms.history.quarantine import Quarantine, ReadBatch, Reject
from recsys_ms.history.run import Run
from recsys_ms.history.schema import runs_to_table
from recsys_ms.history.store import RunStore

_RUNS_FOLDER: Final = "runs"
_ARCHIVE_FOLDER: Final = "archive"
_QUARANTINE_FOLDER: Final = "quarantine"
_LOCK_FILE: Final = ".lock"
_OURS: Final = {
    INBOX_FOLDER,
    MARKER_FILE,
    _RUNS_FOLDER,
    _ARCHIVE_FOLDER,
    _QUARANTINE_FOLDER,
    _LOCK_FILE,
}
_FORMAT: Final = 1
_RUNS_PER_BATCH: Final = 50_000
_REJECTS_PER_STEP: Final = 1_000

#: Reads a reject again: the run it became, or a batch with a reject that says why not.
Retry = Callable[[Reject], ReadBatch]


class History:
    """Fine-tuning runs in one folder, made with :meth:`open`.

    ``runs/`` is the Delta table (any Delta reader may read it; columns that start with an
    underscore are the writer's own), ``inbox/`` takes one file a run from training jobs,
    ``archive/`` keeps those files once they are in, ``quarantine/`` keeps what could not be read.
    One writer at a time holds ``.lock``; reading needs no lock.
    """

    def __init__(self, path: Path, *, version: int | None, lock_seconds: float) -> None:
        self.path = path
        self._pinned = version
        self._lock_seconds = lock_seconds
        self._store = RunStore(path / _RUNS_FOLDER, version=version)

    @classmethod
    def open(cls, path: str | Path, *, create: bool = True, lock_seconds: float = 10.0) -> Self:
        """Open the history in a folder.

        Parameters
        ----------
        path : str or Path
            Folder of the history.
        create : bool
            Whether to create it when the folder is absent or empty.
        lock_seconds : float
            How long a write waits for another writer.

        Raises
        ------
        DataError
            There is no history, the folder holds something else, or the history is damaged or was
            written by a newer version.
        StorageError
            The folder cannot be created.
        """
        folder = Path(path)
        history = cls(folder, version=None, lock_seconds=lock_seconds)
        if not (folder / MARKER_FILE).is_file():
            _refuse_foreign(folder)
            if not create:
                raise DataError(
                    f"{folder}: there is no history; create one with History.open(path) or by "
                    "ingesting a log into it"
                )
            history._create()
        least = _read_marker(folder / MARKER_FILE)
        version = history._store.version
        if version < least:
            raise DataError(
                f"{folder}: the Delta log ends at version {version}, yet version {least} was "
                "written; restore the folder from a backup"
            )
        return history

    def _create(self) -> None:
        with FileLock(self.path / _LOCK_FILE, timeout_seconds=self._lock_seconds):
            for name in (INBOX_FOLDER, _ARCHIVE_FOLDER, _QUARANTINE_FOLDER):
                try:
                    (self.path / name).mkdir(exist_ok=True)
                except OSError as error:
                    raise StorageError(
                        f"{self.path / name}: cannot be created ({error.strerror}); "
                        "check that the folder is writable and has free space"
                    ) from error
            RunStore.create(self.path / _RUNS_FOLDER)
            # The marker comes last: a folder that has it has everything else.
            self._mark(0)

    def _mark(self, version: int) -> None:
        document = {"format": _FORMAT, "version": version}
        write_atomic(self.path / MARKER_FILE, json.dumps(document).encode())

    @property
    def inbox(self) -> Path:
        """Folder that training jobs write to."""
        return self.path / INBOX_FOLDER

    @property
    def quarantine(self) -> Quarantine:
        """What could not be read; never older than now, whatever version this is."""
        return Quarantine(self.path / _QUARANTINE_FOLDER, read_only=self._pinned is not None)

    @property
    def version(self) -> int:
        """Version of the table; a ranker keeps it as what it was trained on."""
        return self._store.version

    def at(self, version: int) -> Self:
        """The history as it was at a version, read-only.

        Raises
        ------
        UnknownIdError
            No such version.
        """
        earlier = type(self)(self.path, version=version, lock_seconds=self._lock_seconds)
        _ = earlier.version
        return earlier

    def runs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Latest state of every run, sorted by ``run_id``.

        Parameters
        ----------
        columns : sequence of str, optional
            Columns to read; fewer need less memory. Default: all of ``core.columns.RUN_COLUMNS``.

        Returns
        -------
        DataFrame
            Times in UTC, ``seed`` as nullable integers, ``hyperparameters`` and ``tags`` as JSON.

        Raises
        ------
        UsageError
            A column no run has.
        StorageError
            A part of the table is missing or damaged.
        """
        return self._store.runs(columns)

    def query(self, sql: str) -> pd.DataFrame:
        """Answer one SELECT over the view ``runs`` (latest state of every run) with DuckDB.

        The query can read nothing but the history and change nothing at all.

        Raises
        ------
        DataError
            Not one SELECT statement, or one that cannot be answered.
        """
        return self._store.query(sql)

    def ingest(self, batches: Iterable[ReadBatch]) -> IngestReport:
        """Take in what a reader read: one commit, idempotent by ``run_id``.

        New runs are appended. A run that is known as it is counts as duplicate. A run known as
        *running* gets the new state. Any other contradiction goes to quarantine, as does every run
        that is not valid. When ``batches`` raises, nothing is committed.

        Parameters
        ----------
        batches : iterable of ReadBatch
            Streamed; 1e6 runs are never in memory at once.

        Raises
        ------
        RefusedError
            This is an earlier version, or another writer is at work (``LockedError``).
        StorageError
            The disk is full or read-only; the history stays as it was.
        """
        with self._writing():
            return self._finished(Ingest(self._store, self.quarantine).run(batches))

    def append(self, runs: Iterable[Run]) -> IngestReport:
        """Take in runs; see :meth:`ingest`."""
        return self.ingest(_batches(runs))

    def ingest_inbox(self, folder: str | Path | None = None) -> IngestReport:
        """Take in the files of the inbox, then move them to the archive.

        Killed at any point, the next call finishes: files that are in the table already are
        duplicates.

        Parameters
        ----------
        folder : str or Path, optional
            Another folder of run files, such as the one ``record_run`` names in the log when it
            could not write to the inbox.

        Raises
        ------
        DataError
            The folder cannot be read.
        RefusedError, StorageError
            As for :meth:`ingest`.
        """
        done: list[Path] = []
        with self._writing():
            paths = list_inbox(self.inbox if folder is None else Path(folder))
            ingest = Ingest(self._store, self.quarantine)
            report = self._finished(ingest.run(read_inbox(paths, done)))
            archive_inbox(done, self.path / _ARCHIVE_FOLDER)
            return report

    def replay(
        self,
        reader: Retry | None = None,
        *,
        only: str | None = None,
        edited: Mapping[str, str] | None = None,
    ) -> IngestReport:
        """Read pending rejects again; those that become runs are ingested and resolved.

        Rejects of the inbox, and runs quarantined as JSON, are read here; ``reader`` reads the
        others, which stay pending without one. A retried run that contradicts a settled run stays
        pending as well.

        Parameters
        ----------
        reader : callable of Reject to ReadBatch, optional
            Reads the raw text of a reject again.
        only : str, optional
            Retry only the rejects of this reader (``"table"``, ``"inbox"``, ``"run"``).
        edited : mapping of reject id to str, optional
            Corrected raw text of some rejects.

        Returns
        -------
        IngestReport
            ``n_quarantined`` counts the retried rejects that stay pending.

        Raises
        ------
        UnknownIdError
            ``edited`` names a reject that is not pending.
        """
        corrections = dict(edited or {})
        with self._writing():
            chosen = [
                reject
                for reject in self.quarantine.pending()
                if only in (None, reject.reader)
                and (reject.reader in JSON_READERS or reader is not None)
            ]
            unknown = set(corrections) - {reject.id for reject in chosen}
            if unknown:
                raise UnknownIdError(
                    f"{self.quarantine.folder}: no pending reject to retry has the id "
                    f"{min(unknown)!r}; see History.quarantine.table()"
                )
            return self._finished(self._replay(chosen, reader, corrections))

    def _replay(
        self, rejects: Sequence[Reject], reader: Retry | None, edited: Mapping[str, str]
    ) -> IngestReport:
        ingest = Ingest(self._store, None)
        failed: set[str] = set()

        def retried() -> Iterator[pa.Table]:
            for start in range(0, len(rejects), _REJECTS_PER_STEP):
                owners: list[str] = []
                batches: list[ReadBatch] = []
                for reject in rejects[start : start + _REJECTS_PER_STEP]:
                    retry = reader
                    if retry is None or reject.reader in JSON_READERS:
                        retry = retry_json
                    batch = retry(replace(reject, raw=edited.get(reject.id, reject.raw)))
                    if batch.rejects or not (batch.runs.num_rows or batch.n_left_out):
                        failed.add(reject.id)
                    owners += [reject.id] * batch.runs.num_rows
                    batches.append(batch)
                table, refused = ingest.admit(_merged(batches))
                failed.update(owners[row] for row in refused)
                yield table

        report = ingest.finish(self._store.append(retried()))
        self.quarantine.resolve({reject.id for reject in rejects} - failed)
        return report

    def _writing(self) -> FileLock:
        if self._pinned is not None:
            raise RefusedError(
                f"{self.path}: version {self._pinned} is the past and read-only; "
                "write to the history itself, History.open(path)"
            )
        return FileLock(self.path / _LOCK_FILE, timeout_seconds=self._lock_seconds)

    def _finished(self, report: IngestReport) -> IngestReport:
        if report.n_new or report.n_updated:
            self._mark(report.version)
        return report


def _batches(runs: Iterable[Run]) -> Iterator[ReadBatch]:
    source = iter(runs)
    while chunk := list(islice(source, _RUNS_PER_BATCH)):
        yield ReadBatch(runs=runs_to_table(chunk))


def _merged(batches: Sequence[ReadBatch]) -> ReadBatch:
    return ReadBatch(
        runs=pa.concat_tables([batch.runs for batch in batches]),
        rejects=tuple(reject for batch in batches for reject in batch.rejects),
        n_left_out=sum(batch.n_left_out for batch in batches),
    )


def _read_marker(path: Path) -> int:
    try:
        document = json.loads(path.read_bytes())
        written, version = int(document["format"]), int(document["version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); restore it from a backup") from error
    if written > _FORMAT:
        raise DataError(
            f"{path}: format {written} was written by a newer version of recsys-ms, this one knows "
            f"formats up to {_FORMAT}; upgrade recsys-ms"
        )
    return version


def _refuse_foreign(folder: Path) -> None:
    """Raise unless the folder is absent, empty, or a history that was killed while it was made."""
    try:
        names = set(os.listdir(folder)) if folder.exists() else set()
    except NotADirectoryError as error:
        raise DataError(f"{folder}: a file, wanted the folder of a history") from error
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read ({error.strerror})") from error
    if "_delta_log" in names:
        raise DataError(
            f"{folder}: a Delta table; name the folder of the history, which holds it as "
            f"{_RUNS_FOLDER}/"
        )
    runs = folder / _RUNS_FOLDER
    table_of_others = runs.is_dir() and set(os.listdir(runs)) - {"_delta_log"}
    strange = sorted(name for name in names - _OURS if not name.endswith(".tmp"))
    if strange or table_of_others:
        raise DataError(
            f"{folder}: holds {strange[0] if strange else _RUNS_FOLDER + '/'!r}, so it is not a "
            "history; name an empty folder, or one that History.open made"
        )
