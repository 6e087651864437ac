"""SQLite files that others use, left half-written or made to harm: read soon, and left alone."""

import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from child import run_python
from history.readers.frameworks.reading import locked

from recsys_ms.history.readers import sqlite_file
from recsys_ms.history.readers.logged import BadLogError, Candidate
from recsys_ms.history.readers.sqlite_file import has_tables, open_sqlite

#: Leaves a transaction unfinished: its pages are in the file, their old contents in the journal.
_KILLED = (
    "import os, sqlite3, sys\n"
    "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    "connection.execute(f'PRAGMA journal_mode = {sys.argv[2]}')\n"
    "connection.execute('PRAGMA cache_size = 2')\n"
    "if sys.argv[2] == 'WAL':\n"
    "    connection.execute('PRAGMA wal_autocheckpoint = 0')\n"
    "    connection.execute(\"INSERT INTO a VALUES ('committed')\")\n"
    "connection.execute('BEGIN')\n"
    "connection.execute(\"UPDATE a SET b = 'half'\")\n"
    "connection.execute('INSERT INTO a SELECT hex(randomblob(500)) FROM a LIMIT 400')\n"
    "os._exit(0)\n"
)


def made(path: Path, n_rows: int = 1_000) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE a (b)")
    connection.executemany("INSERT INTO a VALUES (?)", [(f"text {n}",) for n in range(n_rows)])
    connection.commit()
    connection.close()
    return path


def texts(path: Path) -> list[str]:
    with open_sqlite(path, "expected a") as file:
        return [text for (text,) in file.rows("SELECT b FROM a ORDER BY rowid")]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_locked_file_is_found_and_told_of_soon(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db")
    with locked(path):
        began = time.monotonic()
        assert has_tables(Candidate(path), {"a"})
        with pytest.raises(BadLogError, match="the database is locked by another process"):
            texts(path)
        assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_what_a_killed_writer_left_is_read_as_before_its_transaction(
    tmp_path: Path, mode: str
) -> None:
    path = made(tmp_path / "a.db")
    before = texts(path)
    run_python(_KILLED, path, mode)
    if mode == "WAL":
        # As a copy has it: without the index of the processes that had it open.
        (tmp_path / "a.db-shm").unlink()
        before.append("committed")
    state = {each: (tmp_path / each).read_bytes() for each in names(tmp_path)}
    assert len(state) == 2
    assert has_tables(Candidate(path), {"a"})
    assert texts(path) == before
    assert {each: (tmp_path / each).read_bytes() for each in names(tmp_path)} == state


def test_a_table_that_is_only_in_the_write_ahead_log_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE a (b)")
    writer.execute("INSERT INTO a VALUES ('x')")
    assert has_tables(Candidate(path), {"a"})
    assert texts(path) == ["x"]
    # Copied without the index, which the writer's process keeps.
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("a.db", "a.db-wal"):
        shutil.copy(tmp_path / name, copy)
    assert has_tables(Candidate(copy / "a.db"), {"a"})
    assert texts(copy / "a.db") == ["x"]
    assert names(copy) == {"a.db", "a.db-wal"}
    writer.close()


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", 3)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    tmp_path.chmod(0o500)
    try:
        assert texts(path) == ["text 0", "text 1", "text 2"]
        assert names(tmp_path) == {"a.db"}
    finally:
        tmp_path.chmod(0o700)


def test_a_view_is_no_table_and_a_trigger_does_not_run(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", 1)
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE VIEW v AS WITH RECURSIVE c(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n AS b FROM c"
    )
    connection.execute("CREATE TRIGGER t INSERT ON a BEGIN DELETE FROM a; END")
    connection.commit()
    connection.close()
    assert not has_tables(Candidate(path), {"v"})
    assert texts(path) == ["text 0"]


def test_a_query_that_takes_for_ever_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_MOST_SECONDS", 0.2)
    path = made(tmp_path / "a.db", 1_000)
    with pytest.raises(BadLogError, match="query computes for"), open_sqlite(path, "") as file:
        file.rows("SELECT COUNT(*) FROM a, a AS b, a AS c, a AS d")


def test_a_huge_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_MOST_BYTES", 1_000)
    path = made(tmp_path / "a.db", 1)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO a VALUES (zeroblob(5000))")
    connection.commit()
    connection.close()
    with pytest.raises(BadLogError, match="too big"):
        texts(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "expected a"),
        (b"SQLite format 3\x00", "cannot be read"),
        (b"SQLite format 3\x00" + os.urandom(8_192), "cannot be read"),
        (b"no database at all" * 100, "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
    ids=["empty", "only the magic", "random pages", "a text", "a pointer of Git LFS"],
)
def test_what_is_no_database_is_told_of(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(BadLogError, match=told):
        texts(path)
    assert names(tmp_path) == {"a.db"}
