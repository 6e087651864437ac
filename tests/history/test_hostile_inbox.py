"""Whatever lies in an inbox, its good runs are ingested, and the rest waits or is passed over."""

import json
import logging
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys_ms.history.findings import findings_of
from recsys_ms.history.history import History
from recsys_ms.history.inbox import inbox_files
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.history.recorder.recording import recording

RUN: dict[str, Any] = {
    "model_id": "resnet50",
    "task_id": "pets",
    "metric": "accuracy",
    "direction": "max",
}
HALF = "caf\udce9"


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History.open(tmp_path / "history")
    record_run(history.path, **RUN, run_id="good", value=0.75)
    return history


def as_file(history: History, **fields: Any) -> None:
    (history.inbox / "z.json").write_text(json.dumps({**RUN, "value": 0.5, **fields}))


def as_journal(history: History, *lines: bytes, **fields: Any) -> None:
    head = {"host": "gone", "pid": 1, "locked": True, "recording": 7, "fields": {**RUN, **fields}}
    path = history.inbox / ".open-z.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in (json.dumps(head).encode(), *lines)))
    os.utime(path, (0, 0))


SURROGATES = {
    "id": {"run_id": HALF},
    "model": {"model_id": HALF},
    "metric": {"metric": HALF},
    "split": {"split": HALF},
    "tag": {"tags": {"a": HALF}},
    "name of a tag": {"tags": {HALF: "a"}},
    "hyperparameter": {"hyperparameters": {"a": [HALF]}},
    "name of a hyperparameter": {"hyperparameters": {"a": {HALF: 1}}},
    "unknown field": {HALF: 1},
    "time": {"started_at": HALF},
}


@pytest.mark.parametrize("write", [as_file, as_journal])
@pytest.mark.parametrize("name", SURROGATES)
def test_half_a_character_goes_to_quarantine(
    history: History, name: str, write: Callable[..., None]
) -> None:
    write(history, **SURROGATES[name])
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 1)
    assert history.runs()["run_id"].tolist() == ["good"]
    assert list(history.inbox.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 500 + "1" + "}" * 500,
        '{"a": 1' + "0" * 400 + "}",
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        r'{"a": "\ud800"}',
        r'{"\udfff": 1}',
        "[]",
    ],
)
@pytest.mark.parametrize("write", [as_file, as_journal])
def test_hyperparameters_as_hostile_text(
    history: History, text: str, write: Callable[..., None]
) -> None:
    write(history, hyperparameters=text)
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 1)


def test_half_a_character_in_a_curve_goes_to_quarantine(history: History) -> None:
    as_file(history, curve=[[1, 1.0, "accuracy", HALF, 0.5]])
    as_journal(history, json.dumps([1, 1.0, "a\ud800", None, 0.5]).encode(), b'["\xff"]')
    report = history.ingest_inbox()
    # The journal without these lines is a failed run.
    assert (report.n_new, report.n_quarantined) == (2, 2)
    assert sorted(history.runs()["status"]) == ["failed", "finished"]


def test_a_recorder_that_logs_half_a_character(history: History) -> None:
    with recording(history.path, **RUN) as run:
        run.log(0.5, epoch=1, metric="b", split=os.fsdecode(b"caf\xe9"))
        run.set(tags={"path": os.fsdecode(b"/data/caf\xe9")})
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 1)
    (reject,) = history.quarantine.pending()
    corrected = reject.raw.replace("\\udce9", "é")
    assert history.replay(edited={reject.id: corrected}).n_new == 1


LINES = {
    "huge whole number": b'[null, 1.0, "accuracy", null, 1' + b"0" * 400 + b"]",
    "huge step": b"[1" + b"0" * 30 + b', 1.0, "accuracy", null, 0.5]',
    "endless digits": b"[" + b"9" * 100_000 + b"]",
    "a text": b'[null, 1.0, "accuracy", null, "0.5"]',
    "a truth value": b'[null, 1.0, "accuracy", null, true]',
    "a number for a metric": b"[null, 1.0, 5, null, 0.5]",
    "deep": b'{"hyperparameters":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "zeros": b"\0" * 4096,
    "a key twice": b'{"seed": 1, "seed": 2}',
    "null": b"null",
    "a byte order mark of UTF-16": b"\xff\xfe[\0]\0",
}


@pytest.mark.parametrize("name", LINES)
def test_a_hostile_line_of_a_journal_costs_that_line_alone(history: History, name: str) -> None:
    as_journal(history, LINES[name], b'[null, 1.0, "accuracy", null, 0.5]', run_id="a")
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (2, 1)
    assert history.runs().set_index("run_id").loc["a", "value"] == 0.5


@pytest.mark.parametrize(
    "head",
    [
        {"host": ["x"], "pid": 10**30, "locked": "no", "recording": 10**300, "fields": {}},
        {"host": None, "pid": True, "recording": 1.5, "fields": RUN},
        {"host": 5, "fields": RUN},
        {"recording": 1, "fields": {**RUN, "tags": [1], "value_kind": [], "split": {}}},
        {"recording": -(10**20), "fields": {**RUN, "metric": ["accuracy"]}},
    ],
)
@pytest.mark.parametrize("host", ["here", "gone"])
def test_a_hostile_head_of_a_journal(history: History, head: dict[str, Any], host: str) -> None:
    if host == "here":
        head = {**head, "host": socket.gethostname()}
    path = history.inbox / ".open-z.jsonl"
    path.write_text(json.dumps(head) + '\n[null, 1.0, "accuracy", null, 0.5]\n')
    os.utime(path, (0, 0))
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 1)
    assert list(history.inbox.iterdir()) == []


@pytest.mark.parametrize("seconds", [-(10**9), 10**11, 10**13])
def test_a_journal_may_have_any_time(history: History, seconds: int) -> None:
    as_journal(history, b'[null, 1.0, "accuracy", null, 0.5]', run_id="a")
    path = history.inbox / ".open-z.jsonl"
    path.write_bytes(path.read_bytes().replace(b"gone", socket.gethostname().encode()))
    as_file(history, run_id="b")
    for each in history.inbox.iterdir():
        os.utime(each, (seconds, seconds))
    os.utime(history.inbox, (seconds, seconds))
    with recording(history.path, **RUN, run_id="c") as run:
        run.log(0.5)
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (4, 0)
    assert set(history.runs()["run_id"]) == {"good", "a", "b", "c"}


def special(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Entries that are not files, under names that an inbox reads, and what is said of each."""
    os.mkfifo(folder / f"{name}1")
    yield f"{name}1", "a pipe"
    (folder / f"{name}2").symlink_to("/dev/zero")
    yield f"{name}2", "a link"
    (folder / f"{name}3").mkdir()
    yield f"{name}3", "a folder"
    outside = folder.parent.parent / "outside"
    outside.write_text(json.dumps({**RUN, "run_id": "secret", "value": 0.1}))
    (folder / f"{name}4").symlink_to(outside)
    yield f"{name}4", "a link"
    (folder / f"{name}5").symlink_to(folder / f"{name}5")
    yield f"{name}5", "a link"
    (folder / f"{name}6").symlink_to(folder.parent / "quarantine")
    yield f"{name}6", "a link"


@pytest.mark.parametrize(("start", "end"), [("z", ".json"), (".open-z", ".jsonl")])
def test_what_is_not_a_file_is_passed_over(
    history: History, start: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = {}
    for name, kind in special(history.inbox, start):
        (history.inbox / name).rename(history.inbox / f"{name}{end}")
        made[f"{name}{end}"] = kind
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(history.inbox / f"{start}7{end}"))
    made[f"{start}7{end}"] = "a socket"
    with caplog.at_level(logging.WARNING):
        report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 0)
    assert {path.name for path in history.inbox.iterdir()} == set(made)
    for name, kind in made.items():
        assert f"left in the inbox: {history.inbox / name}: is {kind}" in caplog.text
    # Ingest, doctor and the report of a night show it as a finding.
    (finding,) = (each for each in findings_of(history) if "inbox" in each)
    assert "no ingest reads: 7, first" in finding


@pytest.mark.parametrize("name", ["z.json", ".open-z.jsonl"])
def test_a_device_is_passed_over(
    history: History, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        # /dev/zero itself, and no link to it.
        os.mknod(history.inbox / name, 0o020666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only the superuser makes devices")
    with caplog.at_level(logging.WARNING):
        assert history.ingest_inbox().n_new == 1
    assert "is a device" in caplog.text


@pytest.mark.parametrize("name", ["z.json", ".open-z.jsonl"])
def test_a_file_of_many_bytes_stays(
    history: History, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Sparse: it takes no room on the disk, and its archive would.
    with (history.inbox / name).open("wb") as handle:
        handle.truncate(1 << 40)
    with caplog.at_level(logging.WARNING):
        report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 0)
    assert "has more than 67,108,864 bytes" in caplog.text
    assert (history.inbox / name).exists()


@pytest.mark.parametrize("name", ["z.json", ".open-z.jsonl"])
def test_a_file_that_vanishes_or_cannot_be_read(
    history: History,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The superuser may read everything, so the error is made here.
    def refuse(path: Path, *given: Any) -> int:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *given)

    (history.inbox / name).write_text("{}")
    opened = os.open
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr("os.open", refuse)
        assert history.ingest_inbox().n_new == 1
    assert "cannot be read (Permission denied)" in caplog.text
    caplog.clear()

    def list_and_delete(folder: Path) -> list[Path]:
        found = [folder / name]
        found[0].unlink()
        return found

    module, listing = (
        (inbox_files, "list_journals") if name.startswith(".") else (inbox_files, "list_inbox")
    )
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(module, listing, list_and_delete)
        assert history.ingest_inbox().n_read == 0
    assert "left in the inbox" not in caplog.text


def test_a_file_that_is_gone_before_it_is_archived(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_file(history, run_id="b")
    archive = inbox_files.archive_inbox

    def delete_and_archive(paths: list[Path], folder: Path) -> None:
        paths[0].unlink()
        archive(paths, folder)

    monkeypatch.setattr("recsys_ms.history.history.archive_inbox", delete_and_archive)
    assert history.ingest_inbox().n_new == 2
    (bundle,) = (history.path / "archive").rglob("*.tar.gz")
    with tarfile.open(bundle) as tar:
        assert len(tar.getnames()) == 1
    assert list(history.inbox.iterdir()) == []


def test_names_may_be_long_and_of_any_bytes(history: History) -> None:
    for name in (b"x" * 250 + b".json", b"caf\xe9.json", b"a\nb.json", b'"\\.json', b"-r.json"):
        (Path(os.fsdecode(os.path.join(os.fsencode(history.inbox), name)))).write_text("{}")
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 5)
    (bundle,) = (history.path / "archive").rglob("*.tar.gz")
    with tarfile.open(bundle) as tar:
        assert os.fsdecode(b"caf\xe9.json") in tar.getnames()
    assert list(history.inbox.iterdir()) == []
