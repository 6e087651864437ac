"""SQLite files of tracking tools, read as data: nothing is written beside them, and nothing waits.

A file that another process is writing to is read between its transactions. One whose last
transaction was cut off is read from a private copy, which SQLite can repair.
"""

import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from recsys_ms.core.errors import StorageError
from recsys_ms.history.readers.logged import BadLog, BadLogError, Candidate

_MAGIC: Final = b"SQLite format 3\x00"
#: Byte of the header that says whether the file is in WAL mode.
_WAL_AT: Final = 18
#: Files of a transaction that has not ended.
_COMPANIONS: Final = ("-wal", "-journal")
#: SQLite's own message may quote text of the file that is not UTF-8.
_BROKEN: Final = (sqlite3.Error, UnicodeDecodeError)
_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: Opened read-only, SQLite cannot undo a transaction that was cut off.
_UNFINISHED: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_PATIENCE: Final = 1.0
#: Of computing: a chunk of rows takes milliseconds, of a large file without an index seconds.
_MOST_SECONDS: Final = 30.0
#: No text of a log is as long; a damaged file may claim lengths of 2 GB.
_MOST_BYTES: Final = 64 << 20
_POINTER: Final = b"version https://git-lfs"


class SqliteFile:
    """A SQLite file, opened read-only by :func:`open_sqlite`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._deadline = 0.0
        # One broken text must not cost the other rows.
        connection.text_factory = lambda data: data.decode(errors="backslashreplace")
        connection.isolation_level = None
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
        connection.set_progress_handler(lambda: time.thread_time() > self._deadline, 100_000)
        self.rows("PRAGMA trusted_schema=OFF")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        self._deadline = time.thread_time() + _MOST_SECONDS
        return self._connection.execute(query, values).fetchall()

    def tables(self) -> set[str]:
        """Names of the tables; a view could compute for ever."""
        query = "SELECT name FROM sqlite_master WHERE type='table' AND sql NOT LIKE '%VIRTUAL%'"
        return {name for (name,) in self.rows(query)}

    def columns(self, table: str) -> set[str]:
        """Names of the columns of a table; empty if there is none."""
        return {row[1] for row in self.rows(f"PRAGMA table_info({table})")}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Read several queries from one state; a writer waits meanwhile."""
        self.rows("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self.rows("ROLLBACK")


def is_sqlite(candidate: Candidate) -> bool:
    """Whether a file begins as SQLite files do."""
    return candidate.head.startswith(_MAGIC)


def has_tables(candidate: Candidate, tables: set[str]) -> bool:
    """Whether a file is a SQLite file with these tables, or was one before it was damaged."""
    if not is_sqlite(candidate):
        return False
    place = candidate.path.resolve()
    try:
        # Without locks: a file that another process has locked is found, too.
        with closing(_connected(place, "mode=ro&immutable=1")) as connection:
            if SqliteFile(connection).tables() >= tables:
                return True
        if not _unfinished(place):
            return False
        with _opened(place) as file:
            return file.tables() >= tables
    except _BROKEN:
        return all(
            re.search(rb'CREATE TABLE "?%s"?[ (]' % name.encode(), candidate.head)
            for name in tables
        )


@contextmanager
def open_sqlite(place: Path, schema: str) -> Iterator[SqliteFile]:
    """Open a SQLite file for reading; ``schema`` says which one is expected, and the way out.

    Raises
    ------
    BadLogError
        On opening, or from the block: another process keeps it locked, it is damaged, or it is not
        what the queries expect.
    """
    try:
        with _opened(place.resolve()) as file:
            yield file
    except _BROKEN as error:
        raise BadLogError(BadLog(file=place, reason=_told(place, error, schema))) from error


@contextmanager
def _opened(place: Path) -> Iterator[SqliteFile]:
    with ExitStack() as stack:
        if _abandoned_wal(place):
            connection = stack.enter_context(_of_copy(place))
        else:
            # In WAL mode, read-only access to a file that is open nowhere makes files beside it.
            in_wal_mode = Candidate(place).head[_WAL_AT : _WAL_AT + 1] == b"\x02"
            closed = in_wal_mode and not _beside(place, "-wal").exists()
            how = "mode=ro&immutable=1" if closed else "mode=ro"
            connection = stack.enter_context(closing(_connected(place, how)))
            try:
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            except sqlite3.Error as error:
                if _code(error) not in _UNFINISHED or not _unfinished(place):
                    raise
                connection = stack.enter_context(_of_copy(place))
        yield SqliteFile(connection)


def _connected(place: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{place.as_uri()}?{how}", uri=True, timeout=_PATIENCE)


@contextmanager
def _of_copy(place: Path) -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory(prefix="recsys-ms-") as folder:
        copy = Path(folder, "copy.db")
        try:
            shutil.copyfile(place, copy)
            for end in filter(lambda end: _beside(place, end).exists(), _COMPANIONS):
                shutil.copyfile(_beside(place, end), _beside(copy, end))
        except OSError as error:
            raise StorageError(f"{place}: cannot be copied to {folder} ({error})") from error
        with closing(_connected(copy, "mode=rw")) as connection:
            yield connection


def _abandoned_wal(place: Path) -> bool:
    """Whether there is a write-ahead log, but no process that keeps its index."""
    return _size(place, "-wal") > 0 and not _beside(place, "-shm").exists()


def _unfinished(place: Path) -> bool:
    return any(_size(place, end) > 0 for end in _COMPANIONS)


def _beside(place: Path, end: str) -> Path:
    return place.with_name(place.name + end)


def _size(place: Path, end: str) -> int:
    path = _beside(place, end)
    return path.stat().st_size if path.is_file() else 0


def _code(error: Exception) -> int:
    """SQLite's primary code of an error; 0 where it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _told(place: Path, error: Exception, schema: str) -> str:
    code, said = _code(error), " ".join(str(error).split())[:300]
    if code in _LOCKED:
        return (
            "the database is locked by another process; read it again when that one has ended its "
            "transaction, or read a copy"
        )
    if code == sqlite3.SQLITE_INTERRUPT:
        return f"a query computes for more than {_MOST_SECONDS:.0f} s; restore the file"
    if code == sqlite3.SQLITE_ERROR and "no such" in said:
        return f"{said}: {schema}"
    if Candidate(place).head.startswith(_POINTER):
        return "it is a pointer of Git LFS and not the file; fetch it with 'git lfs pull'"
    return f"the SQLite file cannot be read ({said}); copy it again, or restore it from a backup"
