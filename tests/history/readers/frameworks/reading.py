"""What the tests of all log formats do: read one log, name its series, feed it damaged bytes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings

from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.logs import LogReader
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.store.curves import Series

_LOCK = (
    "import sqlite3, sys\n"
    "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    "connection.execute('BEGIN EXCLUSIVE')\n"
    "print('locked', flush=True)\n"
    "sys.stdin.read()\n"
)


def fuzz(n_examples: int) -> settings:
    """Settings of a property test that writes a file for each example."""
    return settings(
        max_examples=n_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def items_of(log_format: LogFormat, place: Path) -> list[LoggedRun | BadLog]:
    """Everything a log gives; an error that ends it is the last item."""
    items: list[LoggedRun | BadLog] = []
    try:
        for item in log_format.read(place, LogFiles()):
            items.append(item)
    except BadLogError as error:
        items.append(error.bad)
    return items


def claimed_items(log_format: LogFormat, path: Path) -> list[LoggedRun | BadLog]:
    """Everything that a file, or its folder, gives to the format that must claim it."""
    place = log_format.place_of(Candidate(path))
    assert place in (path, path.parent)
    return list(log_format.read(place, LogFiles()))


def claimed_runs(log_format: LogFormat, path: Path) -> list[LoggedRun]:
    """Runs of a file in which nothing is bad."""
    items = claimed_items(log_format, path)
    assert [item for item in items if isinstance(item, BadLog)] == []
    return [item for item in items if isinstance(item, LoggedRun)]


def read_log_of(
    log_format: LogFormat, place: Path, claimed_by: str = ""
) -> tuple[list[LoggedRun], list[BadLog]]:
    """Runs and bad parts of a log, which the format must claim by the file ``claimed_by``."""
    if claimed_by:
        assert log_format.place_of(Candidate(place / claimed_by)) == place
    items = items_of(log_format, place)
    return (
        [item for item in items if isinstance(item, LoggedRun)],
        [item for item in items if isinstance(item, BadLog)],
    )


def series_of(run: LoggedRun) -> dict[str, Series]:
    """Series of a run by name."""
    return {each.name: each for each in run.series}


def always_told(name: str, place: Path, folder: Path) -> None:
    """Whatever the bytes, each piece that is read has runs or rejects."""
    reader = LogReader(find_logs(place, name), FieldMapping(), folder)
    for mapped in reader.read(name, [place]):
        assert mapped.batch.runs.num_rows + len(mapped.batch.rejects) > 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A file that another process holds under ``BEGIN EXCLUSIVE``."""
    command = [sys.executable, "-c", _LOCK, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            child.kill()
