import errno
import json
import logging
import os
import subprocess
import tarfile
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child import loaded_by
from warm import warm

from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import default_unsent_folder, record_run

RUN: dict[str, Any] = {
    "model_id": "resnet50",
    "task_id": "pets",
    "metric": "accuracy",
    "direction": "max",
    "value": 0.5,
}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "history")


def fill(folder: Path) -> None:
    """Leave no byte on the file system of a folder."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def inbox_names(history: History) -> list[str]:
    return sorted(path.name for path in history.inbox.iterdir())


def test_a_recorded_run_is_one_json_file_and_then_a_run(history: History) -> None:
    run_id = record_run(
        history.path,
        **RUN,
        seed=3,
        hyperparameters={"lr": np.float32(0.5)},
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        tags={"team": "a"},
    )
    (name,) = inbox_names(history)
    payload = json.loads((history.inbox / name).read_text())
    assert payload["format"] == 1
    assert payload["run_id"] == run_id
    report = history.ingest_inbox()
    assert (report.n_read, report.n_new, report.version) == (1, 1, 1)
    row = history.runs().iloc[0]
    assert row["run_id"] == run_id
    assert row["hyperparameters"] == '{"lr":0.5}'
    assert row["started_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert inbox_names(history) == []
    (bundle,) = (history.path / "archive").rglob("*.tar.gz")
    with tarfile.open(bundle) as tar:
        assert tar.getnames() == [name]
        assert json.load(tar.extractfile(name)) == payload  # type: ignore[arg-type]


def test_a_training_job_needs_no_table_library() -> None:
    heavy = ("pyarrow", "pandas", "deltalake", "duckdb", "scipy", "torch")
    code = "from recsys_ms.history.inbox.inbox import record_run"
    assert loaded_by(code, *heavy) == set()


def test_recording_again_updates_a_running_run(history: History) -> None:
    known = {k: RUN[k] for k in ("model_id", "task_id", "metric", "direction")}
    first = record_run(history.path, **known, status="running", run_id="mine")
    second = record_run(history.path, **RUN, run_id="mine")
    assert first == second == "mine"
    report = history.ingest_inbox()
    assert (report.n_new, report.n_updated) == (1, 1)
    assert history.runs()["status"].tolist() == ["finished"]


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


INVALID: list[dict[str, Any]] = [
    {"value": "0.5"},
    {"value": float("nan")},
    {"value": float("inf")},
    {"value": None},
    {"direction": "up"},
    {"model_id": ""},
    {"model_id": None},
    {"status": "done"},
    {"started_at": datetime(2026, 1, 1)},
    {"hyperparameters": {"layer": object()}},
    {"hyperparameters": {("a", "b"): 1}},
    {"hyperparameters": {"lr": float("nan")}},
    {"hyperparameters": [1]},
    {"tags": {"a": 1}},
    {"source": "\ud800"},
    {"seed": 2**70},
]


@pytest.mark.parametrize("fields", INVALID)
def test_invalid_fields_are_kept_for_the_quarantine(
    history: History, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    with caplog.at_level(logging.ERROR):
        assert record_run(history.path, **{**RUN, **fields}) is None
    assert "go to quarantine" in caplog.text
    assert len(inbox_names(history)) == 1
    report = history.ingest_inbox()
    assert (report.n_read, report.n_quarantined, report.version) == (1, 1, 0)
    reject = history.quarantine.table().iloc[0]
    assert reject["reader"] == "inbox"
    assert reject["reason"]
    assert "pets" in reject["raw"]
    assert inbox_names(history) == []


def test_a_circular_or_unprintable_payload_does_not_stop_the_job(history: History) -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    assert record_run(history.path, **RUN, hyperparameters=circle) is None
    assert record_run(history.path, **RUN, hyperparameters={"a": Unprintable()}) is None
    assert record_run(history.path, **{**RUN, "value": Unprintable()}) is None
    assert history.ingest_inbox().n_quarantined >= 1


def test_on_error_raise_keeps_the_payload_too(history: History, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="direction: got 'up'"):
        record_run(history.path, **{**RUN, "direction": "up"}, on_error="raise")
    assert len(inbox_names(history)) == 1
    unsent = tmp_path / "unsent"
    with pytest.raises(StorageError, match="is not a history"):
        record_run(tmp_path / "typo", **RUN, on_error="raise", unsent_folder=unsent)
    assert len(list(unsent.iterdir())) == 1
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("kind", ["absent", "file", "file as inbox", "proc"])
def test_without_an_inbox_the_run_is_kept_elsewhere_and_comes_back(
    history: History, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    target, unsent = tmp_path / "target", tmp_path / "unsent"
    if kind == "file":
        target.write_text("")
    elif kind == "file as inbox":
        History.open(target).inbox.rmdir()
        (target / "inbox").write_text("")
    elif kind == "proc":
        target = Path("/proc/self")
    with caplog.at_level(logging.ERROR):
        assert record_run(target, **RUN, unsent_folder=unsent) is None
    (kept,) = unsent.iterdir()
    assert str(kept) in caplog.text
    assert history.ingest_inbox(unsent).n_new == 1
    assert list(unsent.iterdir()) == []


def test_a_deleted_inbox_of_a_history_is_made_again(history: History) -> None:
    history.inbox.rmdir()
    assert record_run(history.path, **RUN) is not None
    assert history.ingest_inbox().n_new == 1


def test_the_log_holds_the_payload_when_nothing_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.ERROR):
        record_run(tmp_path / "no", **RUN, unsent_folder=tmp_path / "file" / "x")
    assert '"model_id": "resnet50"' in caplog.text


def test_the_default_place_for_unsent_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    record_run(tmp_path / "no", **RUN)
    (folder,) = tmp_path.glob("recsys-ms-unsent-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    record_run(tmp_path / "no", **RUN)
    assert default_unsent_folder() == folder
    assert len(list(folder.iterdir())) == 2


def test_a_place_of_somebody_else_gets_no_unsent_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_to_all = tmp_path / "recsys-ms-unsent-0"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "recsys-ms-unsent-1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "recsys-ms-unsent-2").write_text("a file")
    theirs = tmp_path / "recsys-ms-unsent-3"
    theirs.mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(theirs, 12345, 12345)
    else:
        theirs.rmdir()
    before = {path.name for path in tmp_path.iterdir()}
    with caplog.at_level(logging.ERROR):
        record_run(tmp_path / "no", **RUN)
    (chosen,) = (path for path in tmp_path.iterdir() if path.name not in before)
    assert len(list(chosen.iterdir())) == 1
    assert str(chosen) in caplog.text
    for name in before:
        assert not (tmp_path / name).is_dir() or list((tmp_path / name).iterdir()) == []


def test_a_full_disk_loses_no_run(small_disk: Path, tmp_path: Path) -> None:
    history = History.open(small_disk / "history")
    fill(small_disk)
    unsent = tmp_path / "unsent"
    for seed in range(3):
        record_run(history.path, **RUN, seed=seed, unsent_folder=unsent)
    assert len(list(unsent.iterdir())) == 3
    assert inbox_names(history) == []
    (small_disk / "filler").unlink()
    assert history.ingest_inbox(unsent).n_new == 3


def test_a_file_size_limit_loses_no_run(history: History) -> None:
    code = f"""
        import logging, resource, sys
        from recsys_ms.history.inbox.inbox import record_run
        logging.basicConfig(stream=sys.stderr)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
        record_run({str(history.path)!r}, **{RUN!r}, unsent_folder={str(history.path / "u")!r})
    """
    done = warm().python(textwrap.dedent(code), cwd=ROOT)
    assert done.returncode == 0
    assert '"model_id": "resnet50"' in done.stderr
    assert inbox_names(history) == []


def test_bad_files_go_to_quarantine_and_the_rest_goes_in(history: History) -> None:
    record_run(history.path, **RUN)
    whole = next(history.inbox.iterdir()).read_bytes()
    bad = {
        "truncated": whole[:-20],
        "empty": b"",
        "garbage": os.urandom(64),
        "not-utf8": b'{"model_id": "caf\xe9"}',
        "list": b"[]",
        "newer": whole.replace(b'"format": 1', b'"format": 99'),
        "unknown-field": whole.replace(b"model_id", b"modle_id"),
        "deep": b"[" * 200_000,
    }
    for name, data in bad.items():
        (history.inbox / f"{name}.json").write_bytes(data)
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, len(bad))
    table = history.quarantine.table().set_index("file")
    assert "not whole JSON" in table.loc["truncated.json", "reason"]
    assert "not UTF-8" in table.loc["not-utf8.json", "reason"]
    assert "format 99" in table.loc["newer.json", "reason"]
    assert "modle_id" in table.loc["unknown-field.json", "reason"]
    # The bytes as they came are in the archive.
    (bundle,) = (history.path / "archive").rglob("*.tar.gz")
    with tarfile.open(bundle) as tar:
        kept = tar.extractfile("not-utf8.json")
        assert kept is not None
        assert kept.read() == bad["not-utf8"]


def test_half_written_and_foreign_files_stay_where_they_are(history: History) -> None:
    (history.inbox / ".run.json.1.tmp").write_text("{")
    (history.inbox / ".hidden.json").write_text("{")
    (history.inbox / "notes.txt").write_text("hello")
    (history.inbox / "folder.json").mkdir()
    assert history.ingest_inbox().n_read == 0
    assert len(inbox_names(history)) == 4


def test_plain_json_of_another_program_is_taken(history: History) -> None:
    (history.inbox / "other.json").write_text(json.dumps(RUN))
    assert history.ingest_inbox().n_new == 1


def test_a_folder_that_is_not_there(history: History, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="inbox cannot be read"):
        history.ingest_inbox(tmp_path / "no")


def test_sixteen_jobs_record_while_one_process_ingests(history: History) -> None:
    code = f"""
        import sys
        from recsys_ms.history.inbox.inbox import record_run
        for number in range(200):
            name = f"{{sys.argv[1]}}-{{number}}"
            record_run({str(history.path)!r}, **{RUN!r}, run_id=name, on_error="raise")
    """
    python = str(warm().folder / "python")
    jobs = [
        subprocess.Popen([python, "-c", textwrap.dedent(code), str(writer)], cwd=ROOT)
        for writer in range(16)
    ]
    n_new = 0
    while any(job.poll() is None for job in jobs):
        n_new += history.ingest_inbox().n_new
        time.sleep(0.2)
    for job in jobs:
        assert job.wait() == 0
    n_new += history.ingest_inbox().n_new
    assert n_new == 16 * 200
    assert history.runs(["run_id"])["run_id"].nunique() == 16 * 200
    assert inbox_names(history) == []
