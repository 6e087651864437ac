"""Reads the inbox: files and journals to runs, rejects and curves; then archives them."""

import gzip
import json
import secrets
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors, fsync, open_regular, read_regular, written_beside
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.known_metrics import accepted, direction_problem, range_problem
from recsys_ms.core.types import JsonDict, Unit
from recsys_ms.history.inbox.inbox import (
    CURVE_KEY,
    FORMAT,
    FORMAT_KEY,
    MAX_FILE_BYTES,
    PROBLEM_KEY,
    PROGRESS_KEY,
)
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.recorder.journal import (
    ERROR_TAG,
    Journal,
    Point,
    Recorded,
    list_journals,
    read_journals,
    warn_unread,
)
from recsys_ms.history.recorder.state_order import AT_WORK
from recsys_ms.history.run import Run
from recsys_ms.history.store.curves import CURVE_SCHEMA
from recsys_ms.history.store.schema import runs_to_table

#: Readers whose rejects hold the JSON fields of one run.
INBOX_READER: Final = "inbox"
JSON_READERS: Final = (INBOX_READER, "run")
#: Reader of damaged lines of a journal, which no replay can read.
JOURNAL_READER: Final = "journal"
_WANTED: Final = "write the fields of one run as a JSON object"
_RUNS_PER_BATCH: Final = 10_000
_POINTS_PER_BATCH: Final = 1_000_000


def list_inbox(folder: Path) -> list[Path]:
    """Finished files of an inbox, oldest first; half-written ones start with a dot.

    What has the name of a file need not be one.
    """
    what = f"{folder}: the inbox cannot be read"
    with file_errors(what, "name a folder of run files", raises=DataError):
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix == ".json" and not path.name.startswith(".")
        )


def unread_entries(folder: Path) -> list[str]:
    """Why entries of an inbox are passed over by every ingest, one sentence each."""
    found = []
    for path in (*list_journals(folder), *list_inbox(folder)):
        try:
            open_regular(path, max_bytes=MAX_FILE_BYTES).close()
        except DataError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                found.append(str(error))
    return found


def read_inbox(folder: Path, done: list[Path]) -> Iterator[ReadBatch]:
    """Read an inbox: journals, then files, each one run.

    Parameters
    ----------
    folder : Path
        The inbox.
    done : list of Path
        Every file that was read and every journal of a dead recorder is added. The others stay in
        the inbox: what is not a regular file, is too large or cannot be read is passed over with a
        warning.

    Raises
    ------
    DataError
        There is no such folder.
    """
    runs: list[_FileRun] = []
    rejects: list[Reject] = []
    n_points = 0
    for item in _items(folder, done):
        if isinstance(item, Reject):
            rejects.append(item)
        else:
            runs.append(item)
            n_points += len(item.points)
        if len(runs) + len(rejects) >= _RUNS_PER_BATCH or n_points >= _POINTS_PER_BATCH:
            yield _batch(runs, rejects)
            runs, rejects, n_points = [], [], 0
    yield _batch(runs, rejects)


def _items(folder: Path, done: list[Path]) -> Iterator["_FileRun | Reject"]:
    # Journals first: a recorder that ends meanwhile has its file in the list that follows.
    for journal in read_journals(list_journals(folder)):
        yield from _journal_items(journal)
        if journal.dead:
            done.append(journal.path)
    for path in list_inbox(folder):
        try:
            data = read_regular(path, max_bytes=MAX_FILE_BYTES)
        except DataError as error:
            warn_unread(error)
            continue
        done.append(path)
        yield _parse_file(path.name, data.decode(errors="surrogateescape"))


def _journal_items(journal: Journal) -> Iterator["_FileRun | Reject"]:
    """The run of a journal: running while its recorder lives, failed when it is dead."""
    name, recorded = journal.path.name, journal.recorded
    if recorded is None:
        if journal.dead:
            reason = "its first line, which names the run, is damaged; write the fields of the run"
            yield _reject(name, journal.damaged, f"{reason} as one JSON object to replay it")
        return
    if not journal.dead:
        run = _journal_run(name, recorded, *recorded.account("running", AT_WORK))
        # Invalid fields may still be corrected; they are reported when the run ends.
        if not isinstance(run, Reject):
            yield run
        return
    if journal.damaged:
        reason = "lines that were not written whole; the other lines of the file are ingested"
        yield _reject(name, journal.damaged, reason, JOURNAL_READER)
    fields, progress = recorded.account("failed", AT_WORK, {ERROR_TAG: "killed"})
    if journal.written_at is not None:
        fields.setdefault(c.FINISHED_AT, journal.written_at.isoformat())
    yield _journal_run(name, recorded, fields, progress)


def _reject(name: str, text: str, reason: str, reader: str = INBOX_READER) -> Reject:
    return Reject(file=name, line=None, reason=reason, raw=text, reader=reader)


def _journal_run(
    name: str, recorded: Recorded, fields: JsonDict, progress: int
) -> "_FileRun | Reject":
    """A state of the run of a journal."""
    named = {field: value for field, value in fields.items() if value is not None}
    try:
        run = _possible(Run.from_payload(named))
        return _FileRun(name, run, tuple(recorded.points), progress)
    except DataError as error:
        extras = {CURVE_KEY: recorded.points, PROGRESS_KEY: progress}
        return _reject(name, json.dumps({**named, **extras}), str(error))


def retry_json(
    reject: Reject, unit: Unit | None = None, fields: Mapping[str, object] = MappingProxyType({})
) -> ReadBatch:
    """Read a reject of one of :data:`JSON_READERS` again.

    ``fields`` are laid over those of the run. With the unit ``percent``, a value that is impossible
    as a fraction is divided by 100.
    """
    item = _parse_file(reject.file, reject.raw, unit, fields)
    if isinstance(item, Reject):
        return _batch([], [replace(reject, reason=item.reason)])
    return _batch([item], [])


@dataclass(frozen=True, slots=True)
class _FileRun:
    """Content of an inbox file: a run, all logged values, see ``ReadBatch.progress``."""

    file: str
    run: Run
    points: tuple[Point, ...]
    progress: int | None

    def as_fraction(self) -> "_FileRun":
        """The run with its value and curve as fractions, if they are possible only so."""
        metric, value = self.run.metric, self.run.value
        if value is None or range_problem(metric, value) is None:
            return self
        if range_problem(metric, value, "percent") is not None:
            return self
        divisor = accepted(metric, "percent").divisor
        points = tuple(
            point._replace(value=point.value / divisor) if point.metric == metric else point
            for point in self.points
        )
        return replace(self, run=replace(self.run, value=value / divisor), points=points)


def _batch(runs: Sequence[_FileRun], rejects: Sequence[Reject]) -> ReadBatch:
    columns: list[list[Any]] = [[each.run.run_id for each in runs for _ in each.points]]
    for at in range(len(Point._fields)):
        columns.append([point[at] for each in runs for point in each.points])
    return ReadBatch(
        runs=runs_to_table([each.run for each in runs]),
        rejects=tuple(rejects),
        file=tuple(each.file for each in runs),
        progress=tuple(each.progress for each in runs),
        curves=pa.table(columns, schema=CURVE_SCHEMA),
    )


def _parse_file(
    name: str,
    text: str,
    unit: Unit | None = None,
    fields: Mapping[str, object] = MappingProxyType({}),
) -> _FileRun | Reject:
    """The run of an inbox file, with ``fields`` in place of its own."""
    try:
        item = _FileRun(name, *_parse(text, fields))
        item = item.as_fraction() if unit == "percent" else item
        _possible(item.run)
    except DataError as error:
        return _reject(name, text, str(error))
    return item


def _possible(run: Run) -> Run:
    """The run, unless ``build_runs`` would refuse it: the quarantine then has its curve, too.

    Raises
    ------
    DataError
        Its metric cannot have its direction or its value.
    """
    found = {c.DIRECTION: direction_problem(run.metric, str(run.direction))}
    if run.value is not None:
        found[c.VALUE] = range_problem(run.metric, run.value)
    problems = [f"{name}: {problem}" for name, problem in found.items() if problem]
    if problems:
        raise DataError("; ".join(problems))
    return run


def _parse(text: str, fields: Mapping[str, object]) -> tuple[Run, tuple[Point, ...], int | None]:
    """Run, logged values and progress of an inbox file; ``DataError`` if it does not hold them."""
    with file_errors("the file cannot be read", _WANTED, catch=DataError, raises=DataError):
        payload = parse_json(text)
    if not isinstance(payload, dict):
        raise DataError(
            f"the file holds a {type(payload).__name__}, expected the fields of one run"
        )
    version = payload.pop(FORMAT_KEY, FORMAT)
    if version != FORMAT:
        raise DataError(f"format {version!r} is unknown; this version of recsys-ms reads {FORMAT}")
    problem = payload.pop(PROBLEM_KEY, None)
    if problem is not None:
        raise DataError(f"{problem}; correct the fields and remove {PROBLEM_KEY!r}")
    progress = payload.pop(PROGRESS_KEY, None)
    if progress is not None and not (type(progress) is int and 0 <= progress < 1 << 63):
        raise DataError(f"{PROGRESS_KEY}: got {progress!r}, expected a whole number from 0")
    points = _parse_points(payload.pop(CURVE_KEY, None))
    return Run.from_payload({**payload, **fields}), points, progress


def _parse_points(rows: Any) -> tuple[Point, ...]:
    if rows is None:
        return ()
    if not isinstance(rows, list):
        raise DataError(f"{CURVE_KEY}: got a {type(rows).__name__}, expected a list of values")
    points = []
    for number, row in enumerate(rows):
        try:
            points.append(Point.of(row))
        except DataError as error:
            raise DataError(f"{CURVE_KEY}: entry {number}: {error}") from error
    return tuple(points)


def archive_inbox(paths: Sequence[Path], archive: Path) -> None:
    """Bundle files in one ``archive/<date>/inbox-<time>.tar.gz``, then delete them.

    Killed in between, the files are still in the inbox: they are duplicates at the next ingest.
    """
    if not paths:
        return
    now = datetime.now(UTC)
    folder = archive / now.strftime("%Y-%m-%d")
    bundle = folder / f"inbox-{now.strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}.tar.gz"
    with file_errors(
        f"{bundle}: the inbox files cannot be archived",
        "their runs are in the history and the files in the inbox, where the next ingest finds "
        "them again",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        with written_beside(bundle) as temporary:
            # Without a time in its head, which ends in 2106.
            with (
                gzip.GzipFile(temporary, "wb", compresslevel=6, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w") as tar,
            ):
                for path in paths:
                    # A file that is gone was taken by hand; its run is in the history.
                    with suppress(FileNotFoundError):
                        tar.add(path, arcname=path.name, recursive=False)
            fsync(temporary)
        for path in paths:
            path.unlink(missing_ok=True)
        fsync(paths[0].parent)
