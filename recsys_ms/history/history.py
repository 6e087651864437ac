"""``History``: all fine-tuning runs ever logged, in one folder."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Final, Self

import pandas as pd

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, RefusedError, UnknownIdError, UsageError
from recsys_ms.core.files import file_errors, make_folder
from recsys_ms.core.lock import file_lock
from recsys_ms.core.temporary import discard, sweep
from recsys_ms.core.types import JsonDict, Unit
from recsys_ms.history.crossed_directions import DIRECTED, first_crossed
from recsys_ms.history.inbox.inbox import INBOX_FOLDER, MARKER_FILE
from recsys_ms.history.inbox.inbox_files import (
    JSON_READERS,
    archive_inbox,
    read_inbox,
    retry_json,
)
from recsys_ms.history.ingestion import Ingest, IngestReport
from recsys_ms.history.quarantine import Quarantine, ReadBatch, Reject
from recsys_ms.history.replay import Retry, replay
from recsys_ms.history.retraction import Choice, Retraction, chosen_states, joined, shown
from recsys_ms.history.run import Run, check_field
from recsys_ms.history.store.curve_store import CurveStore
from recsys_ms.history.store.ingest_records import (
    COUNTS,
    IngestRecord,
    IngestRecords,
    Operation,
)
from recsys_ms.history.store.inventory import (
    ARCHIVE_FOLDER,
    CURVES_FOLDER,
    INGESTS_FOLDER,
    LOG_FOLDER,
    QUARANTINE_FOLDER,
    RUNS_FOLDER,
    STANDING_FOLDERS,
    TABLES,
    Inventory,
    Marker,
    mend,
)
from recsys_ms.history.store.layout import LOCK_FILE, refuse_foreign
from recsys_ms.history.store.run_store import RunStore
from recsys_ms.history.store.schema import runs_to_table

_RUNS_PER_BATCH: Final = 50_000
_NOT_UTF8: Final = (
    "its path is not UTF-8 text here; set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or rename the folder"
)

_LOG: Final = logging.getLogger(__name__)


class History:
    """Fine-tuning runs in one folder, made with :meth:`open`.

    ``runs/`` is a Delta table (for any Delta reader; columns that start with an underscore are
    internal), ``curves/`` that of all logged values, if any, ``inbox/`` takes one file a run from
    training jobs, ``archive/`` keeps those files after the ingest, ``quarantine/`` keeps rows that
    could not be read, ``ingests/`` says what each ingest did. One writer at a time holds ``.lock``;
    reading needs no lock.
    """

    def __init__(self, path: Path, *, version: int | None, lock_seconds: float) -> None:
        self.path = path
        self._pinned = version
        self._lock_seconds = lock_seconds
        self._inventory = Inventory(path)
        self._store = RunStore(path / RUNS_FOLDER, self._inventory, version=version)
        self._curves = CurveStore(path / CURVES_FOLDER, self._inventory)
        self._records = IngestRecords(path / INGESTS_FOLDER)

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
            The folder holds no history, or one that is damaged or of a newer version.
        StorageError
            The folder cannot be created.
        UsageError
            A URL.
        """
        if "://" in str(path):
            raise UsageError(
                f"{path}: a history lives in a folder of this machine or of a mounted disk, not at "
                "a URL; mount it, or copy it there and back (docs/how-to)"
            )
        folder = Path(path)
        with file_errors(
            f"{folder}: cannot be a history", _NOT_UTF8, catch=UnicodeError, raises=DataError
        ):
            str(folder.absolute()).encode()
        history = cls(folder, version=None, lock_seconds=lock_seconds)
        if not os.path.lexists(folder / MARKER_FILE):
            refuse_foreign(folder)
            if not create:
                raise DataError(
                    f"{folder}: there is no history; create one with recsys-ms ingest LOG -H PATH, "
                    "with History.open(path), or from the embedded runs with recsys-ms nightly"
                )
            history._create()
        history._inventory.check(content=False)
        least, version = history._inventory.marker.version, history._store.version
        if version < least:
            raise DataError(
                f"{folder}: damaged: the Delta log ends at version {version}, expected at least "
                f"{least}; {mend(folder)}"
            )
        return history

    def _create(self) -> None:
        with file_lock(self.path / LOCK_FILE, timeout_seconds=self._lock_seconds):
            for name in STANDING_FOLDERS:
                make_folder(self.path / name)
            table = self._store.create()
            # The marker comes last: a folder that has it has everything else.
            self._inventory.keep(Marker(0, {}))
            self._inventory.update(0, self._store.data_files(table))

    def check(self) -> Self:
        """Compare every file but those of the archive with what was written, and give the history.

        Opening a history looks at sizes only, and reading it at the files that are read.

        Raises
        ------
        DataError
            A file is missing, cut off or altered.
        """
        inside = f"{ARCHIVE_FOLDER}/"
        names = [name for name in self._inventory.files if not name.startswith(inside)]
        self._inventory.check(content=False)
        self._inventory.check(names, content=True)
        return self

    @property
    def inbox(self) -> Path:
        """Folder that training jobs write to."""
        return self.path / INBOX_FOLDER

    @property
    def quarantine(self) -> Quarantine:
        """Rows that could not be read, as of today for every version."""
        return Quarantine(self.path / QUARANTINE_FOLDER, read_only=self._pinned is not None)

    @property
    def version(self) -> int:
        """Version of the table; a ranker keeps it as what it was trained on."""
        return self._store.version

    def at(self, version: int) -> Self:
        """The history as it was at a version, read-only; curves are those of today.

        Raises
        ------
        UnknownIdError
            No such version.
        """
        earlier = type(self)(self.path, version=version, lock_seconds=self._lock_seconds)
        _ = earlier.version
        return earlier

    def runs(
        self, columns: Sequence[str] | None = None, *, retracted: bool = False
    ) -> pd.DataFrame:
        """Latest state of every run, sorted by ``run_id``.

        Parameters
        ----------
        columns : sequence of str, optional
            Columns to read; fewer need less memory. Default: all of ``core.columns.RUN_COLUMNS``;
            there is ``ingest_id``, too.
        retracted : bool
            Whether to give retracted runs as well; then the columns ``ingest_id`` and
            ``retraction`` (the id of what retracted the run, else null) follow.

        Returns
        -------
        DataFrame
            Times in UTC, ``seed`` as nullable integers, ``hyperparameters`` and ``tags`` as JSON.

        Raises
        ------
        UsageError
            A column no run has.
        DataError
            A part of the table is missing or damaged.
        StorageError
            A part of the table cannot be read.
        """
        return self._store.runs(columns, retracted=retracted)

    def curves(
        self,
        run_ids: Sequence[str] | None = None,
        *,
        metric: str | None = None,
        split: str | None = None,
    ) -> pd.DataFrame:
        """Values that runs logged on their way, as their logs have them.

        Parameters
        ----------
        run_ids : sequence of str, optional
            Of these runs only.
        metric, split : str, optional
            Of this metric (without the split), on this split only.

        Returns
        -------
        DataFrame
            ``run_id, step, epoch, metric, split, value``, sorted by all but the value. ``step`` is
            a nullable integer; percentages are fractions. Empty where no curve was kept.

        Raises
        ------
        DataError, StorageError
            The table of curves is damaged.
        """
        return self._curves.curves(run_ids, metric=metric, split=split)

    def compact(self) -> bool:
        """Merge the small files of many ingests, for faster reading.

        Every version of the runs stays readable. Curve values that were corrected later are
        dropped, and files of earlier versions of the curves deleted after a day.

        Returns
        -------
        bool
            Whether anything was rewritten.

        Raises
        ------
        RefusedError
            This is an earlier version, or another writer is at work.
        StorageError
            The disk refuses; nothing is lost.
        """
        with self._writing():
            runs = self._store.compact()
            return self._curves.compact() or runs

    def query(self, sql: str) -> pd.DataFrame:
        """Answer one SELECT over the views ``runs``, ``retracted_runs`` and ``curves`` with DuckDB.

        They hold the latest state of every run that counts, of every retracted one, and the latest
        value of every logged point. The query can read nothing else and change nothing.

        Raises
        ------
        DataError
            Not one SELECT statement, or one that cannot be answered.
        """
        table = self._curves.table() if CURVES_FOLDER in sql.casefold() else None
        return self._store.query(sql, curves=table and self._curves.dataset(table))

    def ingest(
        self, batches: Iterable[ReadBatch], *, curves: bool = True, replace: bool = False
    ) -> IngestReport:
        """Take in what a reader read: one commit, idempotent by ``run_id``.

        New runs are appended; known ones count as duplicates. A run known as *running*, or one
        whose log has come further since, gets the new state; one from an older copy of its log is a
        duplicate. Any other contradiction goes to quarantine, as does every invalid run. A
        retracted run stays retracted, unless a reading comes that contradicts it: that one takes
        its place. If ``batches`` raises, nothing is committed.

        Parameters
        ----------
        batches : iterable of ReadBatch
            Streamed: they need not fit in memory together.
        curves : bool
            Whether to keep the values that the runs logged on their way.
        replace : bool
            Whether this reading takes the place of what the same logs gave before: known runs get
            the state read now, also retracted ones, and earlier runs of a log that gave other runs
            now are retracted, in the same commit. A log that gives no run now keeps its runs.

        Raises
        ------
        RefusedError
            This is an earlier version, or another writer is at work (``LockedError``).
        DataError
            A file of the history is damaged.
        StorageError
            The disk is full or read-only; the history stays as it was.
        """
        how = dict(getattr(batches, "how", {}))
        with self._writing():
            ingest = self._ingest(curves=curves, replace=replace)
            report = ingest.run(batches)
            sources = how.pop("sources", None) or list(ingest.files)
            self._record(report, sources, "replace" if replace else "ingest", how)
        for text in getattr(batches, "warnings", ()):
            _LOG.warning("%s: %s", ", ".join(sources), text)
        return report

    def append(self, runs: Iterable[Run]) -> IngestReport:
        """Take in runs; see :meth:`ingest`."""
        return self.ingest(_batches(runs))

    def ingest_inbox(self, folder: str | Path | None = None) -> IngestReport:
        """Take in the files of the inbox, then move them to the archive.

        The journal of a live recorder (:func:`recsys_ms.history.recorder.recording.recording`)
        gives a running run and stays; that of a killed one gives a failed run. If this call is
        killed, the next one finishes: files that are in the table already are duplicates.

        Parameters
        ----------
        folder : str or Path, optional
            Another folder of run files, such as the one ``record_run`` logs if the inbox cannot be
            written.

        Raises
        ------
        DataError
            The folder cannot be read.
        RefusedError, StorageError
            As for :meth:`ingest`.
        """
        done: list[Path] = []
        with self._writing():
            inbox = self.inbox if folder is None else Path(folder)
            report = self._ingest().run(read_inbox(inbox, done))
            self._record(report, [str(inbox)], "ingest", {"format": "inbox"})
            archive_inbox(done, self.path / ARCHIVE_FOLDER)
            return report

    def replay(
        self,
        reader: Retry | None = None,
        *,
        only: str | None = None,
        edited: Mapping[str, str] | None = None,
        unit: Unit | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> IngestReport:
        """Read pending rejects again; those that become runs are ingested and resolved.

        Rejects of the inbox, and runs quarantined as JSON, are read here; the others by ``reader``,
        and stay pending without one. So does a retried run that contradicts a settled run.

        Parameters
        ----------
        reader : callable of Reject to ReadBatch, optional
            Reads the raw text of a reject again.
        only : str, optional
            Retry only the rejects of this reader (``"table"``, ``"inbox"``, ``"run"``).
        edited : mapping of reject id to str, optional
            Corrected raw text of some rejects.
        unit : {"fraction", "percent"}, optional
            ``percent``: values of the runs that are read here are percentages where they are
            outside the range of their metric as fractions.
        fields : mapping of field to str, optional
            Fields that are laid over those of the runs that are read here, such as
            ``{"direction": "max"}``.

        Returns
        -------
        IngestReport
            ``n_quarantined`` counts the retried rejects that stay pending.

        Raises
        ------
        UnknownIdError
            ``edited`` names a reject that is not pending.
        UsageError
            A text of ``fields`` that the field cannot have.
        """
        corrections = dict(edited or {})
        said: dict[str, object] = {}
        for name, text in (fields or {}).items():
            with file_errors(f"{name} for recorded runs", catch=DataError, raises=UsageError):
                said[name] = check_field(name, text, from_text=True)
        with self._writing():
            known = self.quarantine.table(raw=False)
            readable = known["reader"].isin(JSON_READERS) | (reader is not None)
            asked = (known["reader"] == only) | (only is None)
            chosen = set(known["id"][~known["resolved"].astype(bool) & readable & asked])
            unknown = set(corrections) - chosen
            if unknown:
                raise UnknownIdError(
                    f"{self.quarantine.folder}: no pending reject to retry has the id "
                    f"{min(unknown)!r}; see History.quarantine.table()"
                )

            def again(reject: Reject) -> ReadBatch:
                edit = replace(reject, raw=corrections.get(reject.id, reject.raw))
                if reader is None or reject.reader in JSON_READERS:
                    return retry_json(edit, unit=unit, fields=said)
                return reader(edit)

            ingest = Ingest(self._store, None, self._curves, ingest_id=self._records.new_id())
            report = replay(ingest, self.quarantine, chosen, again)
            self._record(report, [str(self.quarantine.folder)], "ingest", {"format": "replay"})
            return report

    def ingests(self) -> pd.DataFrame:
        """Every ingest and every retraction, in order of time.

        Returns
        -------
        DataFrame
            ``ingest_id``, ``at`` (UTC), ``operation`` (``ingest``, ``replace``, ``retract`` or
            ``restore``), ``sources``, the counts of its report, ``n_runs`` and
            ``n_runs_retracted`` (runs whose present state came in by it), ``history_version``,
            ``package_version``, ``options`` and ``reason``. Runs of earlier versions of recsys-ms
            have no ingest. An ingest that was killed before it was recorded has unknown counts.

        Raises
        ------
        DataError
            A record is damaged.
        """
        states = self._store.states([c.INGEST_ID, c.RETRACTION])
        return self._records.table(states, version=self._pinned)

    def retract(
        self,
        ingest: str | None = None,
        *,
        run_ids: Sequence[str] | str | None = None,
        where: str | None = None,
        reason: str = "",
        undo: bool = False,
        dry_run: bool = False,
    ) -> Retraction:
        """Take runs back: they are kept, with their curves, and count as outcomes no longer.

        Of ``ingest``, ``run_ids`` and ``where`` all that are given hold. What is retracted already
        stays as it is.

        Parameters
        ----------
        ingest : str, optional
            Id of an ingest: the runs whose present state came in by it.
        run_ids : sequence of str, optional
            Ids of runs.
        where : str, optional
            A DuckDB predicate over the columns of the view ``runs``, such as ``value > 1``.
        reason : str
            Kept in :meth:`ingests`.
        undo : bool
            Bring retracted runs back instead; ``ingest`` may then be the id of a retraction.
        dry_run : bool
            Only say which runs it would be.

        Raises
        ------
        UsageError
            Nothing says which runs.
        UnknownIdError
            No ingest, or no run, of that id.
        DataError
            The predicate cannot be answered.
        RefusedError, StorageError
            As for :meth:`ingest`.
        """
        choice = Choice(ingest=ingest, run_ids=joined(run_ids), where=where)
        with nullcontext() if dry_run else self._writing():
            states = chosen_states(self._store, choice, retracted=undo)
            found = Retraction(
                ingest_id="", runs=shown(states), undo=undo, version=self._store.version
            )
            if dry_run or not states.num_rows:
                return found
            if undo:
                kept = self._store.states(DIRECTED, retracted=False)
                if crossed := first_crossed(kept, [states]):
                    raise DataError(f"{crossed}; nothing was brought back")
            name = self._records.new_id()
            rows = self._store.index().numbered(states, None if undo else name)
            version = self._store.append([rows])
            self._records.add(
                IngestRecord(
                    ingest_id=name,
                    operation="restore" if undo else "retract",
                    history_version=version,
                    options={n: v for n, v in asdict(choice).items() if v is not None},
                    counts={"n_restored" if undo else "n_retracted": found.n_runs},
                    reason=reason,
                )
            )
            return replace(found, ingest_id=name, version=version)

    def _ingest(self, *, curves: bool = True, replace: bool = False) -> Ingest:
        return Ingest(
            self._store,
            self.quarantine,
            self._curves if curves else None,
            ingest_id=self._records.new_id(),
            replace=replace,
        )

    def _record(
        self, report: IngestReport, sources: Sequence[str], operation: Operation, how: JsonDict
    ) -> None:
        if not report.ingest_id:
            return
        counts = {name: n for name, n in asdict(report).items() if name in COUNTS}
        self._records.add(
            IngestRecord(
                ingest_id=report.ingest_id,
                operation=operation,
                history_version=report.version,
                sources=tuple(sources),
                options=how,
                counts=counts,
            )
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock; before the block the history is whole, after it the inventory is."""
        if self._pinned is not None:
            raise RefusedError(
                f"{self.path}: version {self._pinned} is an earlier one and read-only; write to "
                "the history itself, History.open(path)"
            )
        with file_lock(self.path / LOCK_FILE, timeout_seconds=self._lock_seconds):
            self._inventory.forget()
            self.check()
            self._sweep()
            yield
            runs = self._store.at_version()
            live = self._store.data_files(runs) + self._curves.data_files(self._curves.table())
            self._inventory.update(int(runs.version()), live)

    def _sweep(self) -> None:
        """Delete what killed writers left behind."""
        logs = [self.path / table / LOG_FOLDER for table in TABLES]
        names = (*STANDING_FOLDERS, INGESTS_FOLDER)
        folders = [self.path, *(self.path / name for name in names), *logs]
        archived = (Path(folder) for folder, _, _ in os.walk(self.path / ARCHIVE_FOLDER))
        sweep([*folders, *archived])
        for path in self._inventory.uncommitted():
            discard(path)


def _batches(runs: Iterable[Run]) -> Iterator[ReadBatch]:
    source = iter(runs)
    while chunk := list(islice(source, _RUNS_PER_BATCH)):
        yield ReadBatch(runs=runs_to_table(chunk))
