"""Temporary files of killed writers are swept, those of writers at work stay."""

import os
import subprocess
import sys
from pathlib import Path

from recsys_ms.core.files import write_atomic
from recsys_ms.core.temporary import SILENCE_SECONDS, sweep, temporary_name


def dead_name() -> str:
    """A name that a process made which has ended."""
    code = "from recsys_ms.core.temporary import temporary_name; print(temporary_name('a.json'))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_only_what_a_dead_writer_left_is_swept(tmp_path: Path) -> None:
    mine, dead = tmp_path / temporary_name("a.json"), tmp_path / dead_name()
    elsewhere = tmp_path / f".a.json.00000000-{os.getpid()}-00000000.tmp"
    nameless = tmp_path / ".inbox-20261128.tar.gz.1.tmp"
    kept = [tmp_path / name for name in ("a.json", ".open-1.jsonl", "x.tmp", ".lock")]
    for path in (mine, dead, elsewhere, nameless, *kept):
        path.write_text("x")
    assert sweep([tmp_path, tmp_path / "absent"]) == [dead]
    long_ago = dead.parent.stat().st_mtime - SILENCE_SECONDS - 10
    for path in (elsewhere, nameless):
        os.utime(path, (long_ago, long_ago))
    assert sorted(sweep([tmp_path])) == sorted([elsewhere, nameless])
    assert sorted(tmp_path.iterdir()) == sorted([mine, *kept])
    assert sweep([tmp_path], all_of_them=True) == [mine]


def test_folders_and_links_are_swept_and_their_targets_stay(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    write_atomic(tmp_path / "target" / "a.json", b"{}")
    (tmp_path / ".a.tmp").symlink_to(tmp_path / "target")
    (tmp_path / ".b.tmp").mkdir()
    (tmp_path / ".b.tmp" / "part").write_text("x")
    assert len(sweep([tmp_path], all_of_them=True)) == 2
    assert (tmp_path / "target" / "a.json").read_bytes() == b"{}"


def test_a_library_may_insist_on_a_suffix(tmp_path: Path) -> None:
    path = tmp_path / temporary_name("a", suffix=".npz")
    path.write_text("x")
    assert path.suffix == ".npz"
    assert sweep([tmp_path]) == []
    assert sweep([tmp_path], all_of_them=True) == [path]
