"""Reads the inbox: files and journals to runs, rejects and curves; then archives them."""

import json
import logging
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors, fsync, written_beside
from recsys_ms.core.types import JsonDict
from recsys_ms.history.inbox.inbox import CURVE_KEY, FORMAT, FORMAT_KEY, PROBLEM_KEY, PROGRESS_KEY
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.recorder.journal import (
    AT_WORK,
    ERROR_TAG,
    Journal,
    Point,
    list_journals,
    read_journals,
)
from recsys_ms.history.run import Run
from recsys_ms.history.store.curves import CURVE_SCHEMA
from recsys_ms.history.store.schema import runs_to_table

_LOG = logging.getLogger(__name__)

#: Readers whose rejects hold the JSON fields of one run.
JSON_READERS: Final = ("inbox", "run")
_INBOX: Final = "inbox"
#: Reader of damaged lines of a journal, which no replay can read.
_DAMAGED: Final = "journal"
_INT64: Final = range(-(2**63), 2**63)
_RUNS_PER_BATCH: Final = 10_000
_POINTS_PER_BATCH: Final = 1_000_000


def list_inbox(folder: Path) -> list[Path]:
    """Finished files of an inbox, oldest first; half-written ones start with a dot."""
    what = f"{folder}: the inbox cannot be read"
    with file_errors(what, "name a folder of run files", raises=DataError):
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix == ".json" and not path.name.startswith(".") and path.is_file()
        )


def read_inbox(folder: Path, done: list[Path]) -> Iterator[ReadBatch]:
    """Read an inbox: journals, then files, each one run.

    Parameters
    ----------
    folder : Path
        The inbox.
    done : list of Path
        Every file that was read and every journal of a dead recorder is added; the others stay in
        the inbox.

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
            data = path.read_bytes()
        except OSError as error:
            _LOG.warning("%s: left in the inbox, it cannot be read (%s)", path, error)
            continue
        done.append(path)
        yield _parse_file(path.name, data.decode(errors="surrogateescape"))


def _journal_items(journal: Journal) -> Iterator["_FileRun | Reject"]:
    """The run of a journal: running while its recorder lives, failed when it is dead."""
    name, recorded = journal.path.name, journal.recorded
    if recorded is None:
        if journal.dead:
            reason = "its first line, which names the run, is damaged; write the fields of the run"
            yield _reject(name, journal.text, f"{reason} as one JSON object to replay it")
        return
    if not journal.dead:
        run = _parse_file(name, _as_text(*recorded.account("running", AT_WORK)))
        # Invalid fields may still be corrected; they are reported when the run ends.
        if not isinstance(run, Reject):
            yield run
        return
    if journal.damaged:
        reason = "lines that were not written whole; the other lines of the file are ingested"
        yield _reject(name, journal.damaged, reason, _DAMAGED)
    fields, extras = recorded.account("failed", AT_WORK, {ERROR_TAG: "killed"})
    fields.setdefault(c.FINISHED_AT, journal.written_at.isoformat())
    yield _parse_file(name, _as_text(fields, extras))


def _reject(name: str, text: str, reason: str, reader: str = _INBOX) -> Reject:
    return Reject(file=name, line=None, reason=reason, raw=text, reader=reader)


def _as_text(fields: JsonDict, extras: JsonDict) -> str:
    named = {name: value for name, value in fields.items() if value is not None}
    return json.dumps({**named, **extras})


def retry_json(reject: Reject) -> ReadBatch:
    """Read a reject of one of :data:`JSON_READERS` again."""
    item = _parse_file(reject.file, reject.raw)
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


def _batch(runs: Sequence[_FileRun], rejects: Sequence[Reject]) -> ReadBatch:
    points = [(each.run.run_id, *point) for each in runs for point in each.points]
    columns = zip(*points, strict=True) if points else ((),) * len(CURVE_SCHEMA)
    return ReadBatch(
        runs=runs_to_table([each.run for each in runs]),
        rejects=tuple(rejects),
        file=tuple(each.file for each in runs),
        progress=tuple(each.progress for each in runs),
        curves=pa.table([list(column) for column in columns], schema=CURVE_SCHEMA),
    )


def _parse_file(name: str, text: str) -> _FileRun | Reject:
    """The run of an inbox file."""
    try:
        run, points, progress = _parse(text)
    except DataError as error:
        return _reject(name, text, str(error))
    return _FileRun(name, run, points, progress)


def _parse(text: str) -> tuple[Run, tuple[Point, ...], int | None]:
    """Run, logged values and progress of an inbox file; ``DataError`` if it does not hold them."""
    try:
        text.encode()
        payload = json.loads(text)
    except UnicodeEncodeError as error:
        raise DataError("the file is not UTF-8; an inbox file is UTF-8 JSON") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"the file is not whole JSON ({error}); write the fields of one run as a JSON object"
        ) from error
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
    if progress is not None and not (_is_whole(progress) and progress >= 0):
        raise DataError(f"{PROGRESS_KEY}: got {progress!r}, expected a whole number from 0")
    points = _parse_points(payload.pop(CURVE_KEY, None))
    return Run.from_payload(payload), points, progress


def _parse_points(rows: Any) -> tuple[Point, ...]:
    if rows is None:
        return ()
    if not isinstance(rows, list):
        raise DataError(f"{CURVE_KEY}: got a {type(rows).__name__}, expected a list of values")
    return tuple(_parse_point(row, number) for number, row in enumerate(rows))


def _parse_point(row: Any, number: int) -> Point:
    match row:
        case [step, epoch, str(metric), split, int() | float() as value] if (
            (step is None or _is_whole(step))
            and (epoch is None or _is_number(epoch))
            and metric
            and (split is None or isinstance(split, str))
            and _is_number(value)
        ):
            return Point(step, None if epoch is None else float(epoch), metric, split, float(value))
    raise DataError(
        f"{CURVE_KEY}: entry {number} is {str(row)[:100]}, expected [step, epoch, metric, "
        "split, value] of a whole number, a number, a text, a text and a number; all but metric "
        "and value may be null"
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _INT64


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


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
            with tarfile.open(temporary, mode="w:gz", compresslevel=6) as tar:
                for path in paths:
                    tar.add(path, arcname=path.name, recursive=False)
            fsync(temporary)
        for path in paths:
            path.unlink(missing_ok=True)
        fsync(paths[0].parent)
