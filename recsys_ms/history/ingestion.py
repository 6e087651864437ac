"""One ingest: new rows of batches go into one commit, refused rows to quarantine."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.types import IntArray
from recsys_ms.history.crossed_directions import (
    DIRECTED,
    Directions,
    asks_for_directions,
    first_crossed,
)
from recsys_ms.history.quarantine import Quarantine, ReadBatch, Reject
from recsys_ms.history.run import JSON_COLUMNS
from recsys_ms.history.store.curve_store import CurveSpool, CurveStore, months_of
from recsys_ms.history.store.dedup import (
    FILE,
    LEARNED,
    STORED_SCHEMA,
    Admitted,
    DigestSet,
    progress_array,
)
from recsys_ms.history.store.identity import key_digests
from recsys_ms.history.store.run_store import RunStore
from recsys_ms.history.store.schema import RUN_SCHEMA, BuiltRuns, build_runs

_ROWS_PER_STEP: Final = 65_536
_REJECTS_PER_FILE: Final = 5_000
#: Logs that an ingest remembers by name where it does not replace what they gave.
_FILES_NAMED: Final = 20
_TEXT_PER_FILE: Final = 32 << 20
#: Fields of the report that sum to the rows read.
_READ: Final = ("n_new", "n_updated", "n_duplicate", "n_quarantined", "n_left_out")
_OTHERS: Final = ("n_failed_runs", "n_retracted", "n_still_retracted")
_INGESTED: Final = RUN_SCHEMA.field(c.INGESTED_AT)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What an ingest did.

    Attributes
    ----------
    n_read : int
        Rows read: the sum of the next five.
    n_new, n_updated, n_duplicate : int
        Runs not seen before, running ones with a new state, and runs that were known.
    n_quarantined : int
        Rows that could not be read or contradict a settled run; a row read again is kept once.
    n_left_out : int
        Rows that a filter of the caller left out.
    n_failed_runs : int
        Failed runs among the new and updated ones; they do not count as outcomes.
    version : int
        Version of the history after the ingest; unchanged when nothing was new.
    seconds : float
        Wall clock.
    n_curve_points : int
        Logged values written to the table of curves; known ones are not written again.
    n_retracted : int
        Runs that an earlier reading of the same logs gave and this one, which replaces it, does
        not.
    n_still_retracted : int
        Known or updated runs that were retracted and stay so.
    ingest_id : str
        Id of this ingest, as ``History.ingests`` lists it; "" where nothing was read.
    """

    n_read: int
    n_new: int
    n_updated: int
    n_duplicate: int
    n_quarantined: int
    n_left_out: int
    n_failed_runs: int
    version: int
    seconds: float
    n_curve_points: int = 0
    n_retracted: int = 0
    n_still_retracted: int = 0
    ingest_id: str = ""


class Ingest:
    """The state of one ingest, from the first batch to the report; the caller holds the lock.

    Without ``quarantine`` the caller takes the refused rows (a replay); without ``curves`` they are
    left out. With ``replace``, what is read takes the place of what the same logs gave before.
    """

    def __init__(
        self,
        store: RunStore,
        quarantine: Quarantine | None,
        curves: CurveStore | None,
        *,
        ingest_id: str,
        replace: bool = False,
    ) -> None:
        self._ingest_id = ingest_id
        self._replace = replace
        # Nothing else can be read while a commit is streamed.
        self._past = store.as_it_is()
        self._directions: Directions | None = None
        self._directed: list[pa.Table] = []
        self._offered = DigestSet()
        self._rejected: set[str] = set()
        #: The logs that were read, each with whether it gave a run.
        self.files: dict[str, bool] = {}
        self._store = store
        self._quarantine = quarantine
        self._curves = curves
        self._spool = CurveSpool(store.folder.parent)
        self._months: list[pa.Table] = []
        self._index = self._past.index()
        self._known: set[str] = set() if quarantine is None else quarantine.known()
        self._waiting: list[Reject] = []
        self._waiting_bytes = 0
        self._conflicts: list[ReadBatch] = []
        self._counts = Counter[str]()
        self._now = datetime.now(UTC)
        self._begin = time.monotonic()

    def run(self, batches: Iterable[ReadBatch]) -> IngestReport:
        """Take in all batches in one commit, then quarantine the rest."""
        return self.commit(
            chain((table for batch in batches for table in self._tables(batch)), self._left_over())
        )

    def _left_over(self) -> Iterator[pa.Table]:
        """Retract what the logs that are replaced gave before and do not give any more.

        A log that gave no run now, for example since it is gone, keeps its runs.
        """
        files = pa.array([file for file, gave in self.files.items() if gave], pa.string())
        if not self._replace or not len(files):
            return
        of_files = pc.field(FILE).isin(files)
        gone = self._not_offered(
            self._past.states(STORED_SCHEMA.names, where=of_files, retracted=False)
        )
        if self._directed:
            kept = self._past.states((c.RUN_ID, FILE, *DIRECTED), retracted=False)
            elsewhere = pc.invert(pc.is_in(kept[FILE], value_set=files))
            crossed = first_crossed(self._not_offered(kept.filter(elsewhere)), self._directed)
            if crossed is not None:
                raise DataError(f"{crossed}; nothing was replaced")
        self._counts["n_retracted"] = gone.num_rows
        yield self._index.numbered(gone, self._ingest_id)

    def _not_offered(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pa.array(~self._offered.contains(key_digests(rows))))

    def _tables(self, batch: ReadBatch) -> Iterator[pa.Table]:
        for piece in batch.slices(_ROWS_PER_STEP):
            yield self.admit(piece)[0]
        self.keep_curves(batch)

    def commit(self, tables: Iterable[pa.Table]) -> IngestReport:
        """Write rows that :meth:`admit` gave, then what belongs to them, and report.

        The curves come after the runs: killed in between, the next ingest of the same log finds the
        runs known and writes the curves that are missing.
        """
        try:
            version = self._store.append(tables)
            # Now that the runs which conflicts contradict are stored.
            for batch in self._conflicts:
                for piece in batch.slices(_ROWS_PER_STEP):
                    self._reject(_rejects(piece, _conflict_reasons(piece, self._store)))
            self._flush()
            self._resolve()
            n_points = 0 if self._curves is None else self._curves.append(self._spool)
        finally:
            self._spool.discard()
        n = {name: self._counts[name] for name in (*_READ, *_OTHERS)}
        n_read = sum(n[name] for name in _READ)
        return IngestReport(
            n_read=n_read,
            **n,
            ingest_id=self._ingest_id if n_read else "",
            version=version,
            seconds=time.monotonic() - self._begin,
            n_curve_points=n_points,
        )

    def keep_curves(self, batch: ReadBatch) -> None:
        """Keep the curves of the runs that were admitted since the last call."""
        months, self._months = self._months, []
        if self._curves is not None and batch.curves is not None and months:
            self._spool.add(batch.curves, pa.concat_tables(months))

    def admit(self, batch: ReadBatch) -> tuple[pa.Table, set[int]]:
        """Rows of a batch to write, and the positions of the runs that were refused."""
        self._reject(batch.rejects)
        self._counts["n_left_out"] += batch.n_left_out
        given = batch.runs
        built = build_runs(
            dict(zip(given.column_names, given.columns, strict=True)), given.num_rows
        )
        if built.problems:
            bad = np.fromiter(built.problems, dtype=np.int64)
            self._reject(_rejects(_taken(batch, given, bad), built.problems.values()))
        built = self._one_direction(batch, built)
        stamp = pa.repeat(pa.scalar(self._now, _INGESTED.type), len(built.runs))
        runs = built.runs.set_column(RUN_SCHEMA.get_field_index(_INGESTED.name), _INGESTED, stamp)
        files = _files(batch, built.rows)
        for name, column in (
            (c.INGEST_ID, pa.repeat(pa.scalar(self._ingest_id), len(runs))),
            (FILE, files),
        ):
            runs = runs.append_column(STORED_SCHEMA.field(name), column)
        if self._quarantine is not None:
            self._note_files(batch, files)
        progress = None
        if batch.progress is not None:
            progress = progress_array(batch.progress)[built.rows]
        if self._replace:
            ids = runs[c.RUN_ID].combine_chunks()
            self._index.look_at(self._past.states(LEARNED, where=pc.field(c.RUN_ID).isin(ids)))
            self._offered.add(key_digests(runs))
        admitted = self._index.admit(runs, progress, replace=self._replace)
        if self._curves is not None:
            self._months.append(months_of(_without(runs, admitted)))
        conflicts = built.rows[admitted.conflicts]
        if conflicts.size:
            of_these = runs.take(pa.array(admitted.conflicts))
            self._conflicts.append(_taken(batch, of_these, conflicts))
        self._counts.update(
            n_new=admitted.n_new,
            n_updated=admitted.n_updated,
            n_duplicate=admitted.n_duplicate,
            n_failed_runs=admitted.n_failed,
            n_still_retracted=admitted.n_still_retracted,
        )
        return admitted.rows, {*built.problems, *conflicts.tolist()}

    def _one_direction(self, batch: ReadBatch, built: BuiltRuns) -> BuiltRuns:
        """Refuse runs that say the contrary of others about what is better on their task."""
        if not asks_for_directions(built.runs):
            return built
        if self._replace:
            # Decided at the end, when it is known which runs are replaced.
            self._directed.append(built.runs.select(DIRECTED))
            return built
        if self._directions is None:
            self._directions = Directions(self._past.states(DIRECTED, retracted=False))
        crossed = self._directions.crossed(built.runs)
        if not crossed:
            return built
        bad = np.array(list(crossed))
        at = built.rows[bad]
        self._reject(_rejects(_taken(batch, built.runs.take(bad), at), crossed.values()))
        good = np.delete(np.arange(len(built.runs)), bad)
        return BuiltRuns(
            runs=built.runs.take(good),
            rows=built.rows[good],
            problems={**built.problems, **dict(zip(at.tolist(), crossed.values(), strict=True))},
        )

    def _note_files(self, batch: ReadBatch, files: pa.Array) -> None:
        if len(self.files) >= _FILES_NAMED and not self._replace:
            return
        for reject in batch.rejects:
            self.files.setdefault(reject.file, False)
        for file in pc.unique(files).to_pylist():
            if file:
                self.files[file] = True

    def _resolve(self) -> None:
        """Deal with what the logs that are replaced had in quarantine and now do not."""
        if self._quarantine is not None and self._replace:
            kept = self._quarantine.table(raw=False)
            of_files = kept["file"].isin(self.files.keys()) & ~kept["resolved"]
            self._quarantine.resolve(set(kept["id"][of_files]) - self._rejected)

    def _reject(self, rejects: Iterable[Reject]) -> None:
        for reject in rejects:
            self._counts["n_quarantined"] += 1
            if self._replace:
                self._rejected.add(reject.id)
            if self._quarantine is None:
                continue
            self._waiting.append(reject)
            self._waiting_bytes += len(reject.raw) + len(reject.options)
            if len(self._waiting) >= _REJECTS_PER_FILE or self._waiting_bytes >= _TEXT_PER_FILE:
                self._flush()

    def _flush(self) -> None:
        if self._quarantine is not None and self._waiting:
            self._quarantine.add(self._waiting, known=self._known)
        self._waiting, self._waiting_bytes = [], 0


def _taken(batch: ReadBatch, runs: pa.Table, rows: IntArray) -> ReadBatch:
    """Those rows of a batch, with file and line; ``runs`` holds just them, or the whole batch."""
    at = rows.tolist()
    return ReadBatch(
        runs=runs if runs.num_rows == len(at) else runs.take(pa.array(rows)),
        file=batch.file if isinstance(batch.file, str) else tuple(batch.file[row] for row in at),
        lines=None if batch.lines is None else tuple(batch.lines[row] for row in at),
    )


def _files(batch: ReadBatch, rows: IntArray) -> pa.Array:
    """The log of each of some runs of a batch."""
    if isinstance(batch.file, str):
        return pa.repeat(pa.scalar(batch.file or None, pa.string()), rows.size)
    return pa.array([batch.file[row] for row in rows.tolist()], pa.string())


def _without(runs: pa.Table, admitted: Admitted) -> pa.Table:
    """Runs whose curves are good: neither refused nor older than what is known."""
    keep = np.ones(runs.num_rows, dtype=bool)
    keep[admitted.conflicts] = False
    keep[admitted.outdated] = False
    return runs if keep.all() else runs.filter(pa.array(keep))


def _rejects(batch: ReadBatch, reasons: Iterable[str]) -> Iterator[Reject]:
    """One reject for each run of a batch, its fields as JSON."""
    for row, (fields, reason) in enumerate(zip(batch.runs.to_pylist(), reasons, strict=True)):
        yield Reject(
            file=batch.file if isinstance(batch.file, str) else batch.file[row],
            line=None if batch.lines is None else batch.lines[row],
            reason=reason,
            raw=_as_json(fields),
            reader="run",
        )


def _as_json(fields: Mapping[str, object]) -> str:
    payload: dict[str, object] = {}
    for name, value in fields.items():
        if name not in c.RUN_COLUMNS or name == c.INGESTED_AT or value is None:
            continue
        if name in JSON_COLUMNS:
            try:
                value = json.loads(str(value))
            except ValueError:
                value = str(value)
        payload[name] = value.isoformat() if isinstance(value, datetime) else value
    return json.dumps(payload, ensure_ascii=False, default=str)


def _conflict_reasons(batch: ReadBatch, store: RunStore) -> Iterator[str]:
    """Why each run was refused: the stored run of its id, and in what the two differ."""
    ids = batch.runs[c.RUN_ID].combine_chunks()
    stored = store.states(RUN_SCHEMA.names, where=pc.field(c.RUN_ID).isin(ids))
    by_id = {fields[c.RUN_ID]: fields for fields in stored.to_pylist()}
    for fields in batch.runs.to_pylist():
        known = by_id[fields[c.RUN_ID]]
        names = [n for n in c.RUN_COLUMNS if n != c.INGESTED_AT and fields[n] != known[n]]
        pairs = ", ".join(f"{n} {fields[n]!r} against {known[n]!r}" for n in names)
        moment = known[c.INGESTED_AT].isoformat(timespec="seconds")
        yield (
            f"run {fields[c.RUN_ID]!r} contradicts the {known[c.STATUS]} run of the same id that "
            f"was ingested at {moment} from {known[c.SOURCE] or 'an unnamed source'}: {pairs}; "
            "if it is another run, give it its own run_id; if this one is right, read the log "
            "again with --replace, or retract the other (recsys-ms retract) and run --replay"
        )
