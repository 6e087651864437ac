"""Locks end with their process, also where the system has none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from child import HIDDEN_FCNTL, ROOT, run_python

from recsys_ms.core.errors import LockedError, StorageError
from recsys_ms.core.lock import file_lock, hold, is_held
from recsys_ms.core.processes import is_running

HOLDER = """
import sys, time
{hidden}
from pathlib import Path
from recsys_ms.core.lock import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
TRY = """
from recsys_ms.core.errors import LockedError
from recsys_ms.core.lock import file_lock
from pathlib import Path
try:
    with file_lock(Path(sys.argv[1])):
        print("free")
except LockedError as error:
    print(error)
"""


def holder(path: Path, hidden: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(hidden=hidden), str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("hidden", ["import sys", HIDDEN_FCNTL], ids=["fcntl", "no fcntl"])
def test_a_lock_ends_with_its_process(tmp_path: Path, hidden: str) -> None:
    path = tmp_path / "deep" / ".lock"
    process = holder(path, hidden)
    try:
        told = run_python(hidden + TRY, path).stdout
        assert f'held by another process ({{"pid": {process.pid}' in told
    finally:
        process.kill()
        process.wait()
    assert run_python(hidden + TRY, path).stdout == "free\n"


def test_two_locks_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with file_lock(path):
        assert json.loads(path.read_text())["pid"]
        with pytest.raises(LockedError, match="held by another process"), file_lock(path):
            pass
    assert path.read_text() == ""
    with file_lock(path), file_lock(tmp_path / "other"):
        pass


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "folder", tmp_path / "file" / ".lock"):
        with pytest.raises(StorageError, match="cannot be"), file_lock(path):
            pass


def test_an_open_file_is_held_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    with path.open("r+b") as first, path.open("rb") as second:
        assert is_held(second.fileno()) is False
        assert hold(first.fileno())
        assert is_held(second.fileno()) is True
    with path.open("rb") as second:
        assert is_held(second.fileno()) is False


def test_processes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert is_running(process.pid)
        process.kill()
    assert is_running(process.pid) is False
    assert is_running(1)
    assert is_running(10**30) is False
    assert is_running(0) is None
    assert is_running(-1) is None
