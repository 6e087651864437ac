"""Damage to a history is found, and repaired without a loss."""

import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from damaged import DAMAGES, content, copied, filled_history

from recsys_ms.core.errors import DataError
from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.history.maintenance import examine_history, repair_history
from recsys_ms.history.store.inventory import added_files


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return filled_history(tmp_path_factory.mktemp("sound") / "h").path


#: One file of each kind.
KINDS = {
    "commit, the last": "runs/_delta_log/*3.json",
    "commit, one between": "runs/_delta_log/*1.json",
    "commit, the first": "runs/_delta_log/*0.json",
    "checkpoint": "runs/_delta_log/*.checkpoint.parquet",
    "commit of curves": "curves/_delta_log/*2.json",
    "runs": "runs",
    "curves": "curves",
    "quarantine": "quarantine/*.parquet",
    "marker": "history.json",
    "second copy": "archive/copies/runs/*.parquet",
    "second copy of the marker": "archive/copies/history.json",
}


def chosen(path: Path, kind: str) -> Path:
    """The file of a kind; of a table what its first commit, of the inbox, has added."""
    if kind in ("runs", "curves"):
        commit = path / kind / "_delta_log" / f"{1:020d}.json"
        (part,) = added_files(commit)
        return path / kind / part
    return min(path.glob(KINDS[kind]))


def some(kinds: Iterable[str]) -> list[object]:
    """Each kind of file with each damage; a third of the pairs by default, the others slow."""
    return [
        pytest.param(kind, damage, marks=() if (i + j) % 3 == 0 else pytest.mark.slow)
        for i, kind in enumerate(kinds)
        for j, damage in enumerate(DAMAGES)
    ]


@pytest.mark.parametrize(("kind", "damage"), some(KINDS))
def test_any_file_is_restored(sound: Path, tmp_path: Path, kind: str, damage: str) -> None:
    path = copied(sound, tmp_path / "h")
    before = content(History.open(path))
    file = chosen(path, kind)
    DAMAGES[damage](file, random.Random(0))
    in_service = "copy" not in kind
    if in_service:
        with pytest.raises(DataError, match="doctor"):
            History.open(path).check()
    (finding,) = examine_history(path)
    name = file.relative_to(path).as_posix().removeprefix("archive/copies/")
    assert finding.file == name
    assert finding.remedy == ("restore" if in_service else "copy")
    if kind == "runs":
        assert finding.runs.startswith("12: ")
    done = repair_history(path)
    assert done.findings == (finding,)
    assert not done.lost
    assert examine_history(path) == []
    assert content(History.open(path, create=False).check()) == before
    assert History.open(path).version == 3
    if damage != "delete":
        assert done.damaged is not None
        (kept,) = (p for p in done.damaged.rglob("*") if p.name == file.name)
        assert kept.is_symlink() == (damage == "link")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
@pytest.mark.parametrize("name", [".lock", "runs/_delta_log/_last_checkpoint"])
def test_what_may_hold_anything_must_be_a_file(
    sound: Path, tmp_path: Path, name: str, kind: str
) -> None:
    path = copied(sound, tmp_path / "h")
    before = content(History.open(path))
    (path / name).unlink()
    if kind == "folder":
        (path / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(path / name)
    else:
        (path / name).symlink_to("/dev/zero")
    (finding,) = examine_history(path)
    assert finding.file == name
    if name != ".lock":
        with pytest.raises(DataError, match="doctor"):
            History.open(path)
    assert not repair_history(path).lost
    assert content(History.open(path).check()) == before


@pytest.mark.parametrize("lost", ["inbox", "quarantine", "runs", "curves", "archive/copies"])
def test_a_lost_folder_is_restored(sound: Path, tmp_path: Path, lost: str) -> None:
    path = copied(sound, tmp_path / "h")
    before = content(History.open(path))
    shutil.rmtree(path / lost)
    assert examine_history(path)
    assert not repair_history(path).lost
    assert examine_history(path) == []
    assert content(History.open(path)) == before


def test_a_lost_archive_is_told(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path / "h")
    before = content(History.open(path))
    shutil.rmtree(path / "archive")
    done = repair_history(path)
    assert len(done.lost) == 2
    assert all(each.file.endswith(".tar.gz") for each in done.lost)
    assert examine_history(path) == []
    assert content(History.open(path)) == before


@pytest.mark.parametrize(
    ("kind", "damage"), some(["commit, the last", "commit, one between", "runs", "curves"])
)
def test_without_copies_the_archive_gives_what_it_has(
    sound: Path, tmp_path: Path, kind: str, damage: str
) -> None:
    path = copied(sound, tmp_path / "h")
    before = content(History.open(path))
    file = chosen(path, kind)
    DAMAGES[damage](file, random.Random(0))
    shutil.rmtree(path / "archive" / "copies")
    done = repair_history(path)
    assert [each.remedy for each in done.lost] == ["rebuild"]
    assert done.from_archive is not None
    assert content(History.open(path).check()) == before
    assert examine_history(path) == []


@pytest.mark.parametrize("table", ["runs", "curves"])
def test_the_last_commit_is_missed_without_marker_and_copies(
    sound: Path, tmp_path: Path, table: str
) -> None:
    path = copied(sound, tmp_path / "h")
    before = content(History.open(path))
    max((path / table / "_delta_log").glob("*.json")).unlink()
    shutil.rmtree(path / "archive")
    (path / "history.json").unlink()
    assert f"{table}/" in [each.file for each in examine_history(path)]
    done = repair_history(path)
    assert [each.file for each in done.lost] == [f"{table}/"]
    assert examine_history(path) == []
    assert content(History.open(path).check()) == before


@pytest.mark.parametrize("also", ["runs", "runs/_delta_log/*1.json", "ingests", "archive/copies"])
def test_a_history_is_known_by_any_part_of_it(tmp_path: Path, also: str) -> None:
    path = tmp_path / "h"
    History.open(path)
    record_run(path, model_id="m", task_id="t", metric="accuracy", value=0.5, on_error="raise")
    History.open(path).ingest_inbox()
    for bundle in path.glob("archive/*/*.tar.gz"):
        bundle.unlink()
    (path / "history.json").unlink()
    (lost,) = path.glob(also)
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    with pytest.raises(DataError, match=r"history.json is missing.*--repair"):
        History.open(path)
    repair_history(path)
    assert History.open(path).runs()["value"].tolist() == [0.5]


def test_a_lost_retraction_is_told(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path / "h")
    history = History.open(path)
    (one, other, *_) = history.runs()["run_id"]
    history.retract(run_ids=[one])
    kept = history.retract(where=f"run_id = '{other}'")
    shutil.rmtree(path / "archive" / "copies")
    (part,) = added_files(path / "runs" / "_delta_log" / f"{kept.version - 1:020d}.json")
    (path / "runs" / part).unlink()
    done = repair_history(path)
    assert done.retractions == (f"recsys-ms retract --run-id {one} -H {path}",)
    runs = set(History.open(path).runs()["run_id"])
    assert one in runs
    assert other not in runs


@pytest.mark.parametrize(("number", "damage"), [(3, "delete"), (3, "empty"), (1, "delete")])
def test_a_table_of_an_earlier_version_without_inventory_is_built_anew(
    sound: Path, tmp_path: Path, number: int, damage: str
) -> None:
    path = copied(sound, tmp_path / "h")
    before = content(History.open(path))
    shutil.rmtree(path / "archive" / "copies")
    (path / "history.json").write_text('{"format": 1, "version": 3}')
    assert examine_history(path) == []
    commit = path / "runs" / "_delta_log" / f"{number:020d}.json"
    DAMAGES[damage](commit, random.Random(0))
    with pytest.raises(DataError, match="doctor"):
        History.open(path)
    assert [each.remedy for each in repair_history(path).lost] == ["rebuild"]
    # The rows of the lost commit are still there.
    assert content(History.open(path).check()) == before
