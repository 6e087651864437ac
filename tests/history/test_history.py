import json
import os
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from warm import warm

from recsys_ms.core import columns as c
from recsys_ms.core.errors import (
    DataError,
    LockedError,
    RefusedError,
    StorageError,
    UnknownIdError,
    UsageError,
)
from recsys_ms.core.lock import file_lock
from recsys_ms.core.temporary import temporary_name
from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.run import Run
from recsys_ms.history.store.schema import RUN_SCHEMA, runs_to_table

ROOT = Path(__file__).resolve().parents[2]
REQUIRED: dict[str, Any] = {
    "model_id": "resnet50",
    "task_id": "pets",
    "metric": "accuracy",
    "direction": "max",
}


def make(run_id: str = "", value: float | None = 0.5, **fields: Any) -> Run:
    return Run(**{**REQUIRED, **fields}, run_id=run_id, value=value)


def batch_of(*runs: Run, **fields: Any) -> ReadBatch:
    return ReadBatch(runs=runs_to_table(runs), **fields)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "history", lock_seconds=0.0)


# Opening


def test_a_new_history_is_empty_at_version_0(history: History) -> None:
    assert history.version == 0
    assert history.inbox == history.path / "inbox"
    frame = history.runs()
    assert list(frame.columns) == list(c.RUN_COLUMNS)
    assert frame.empty
    assert History.open(history.path, create=False).version == 0


def test_no_history_and_none_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no history"):
        History.open(tmp_path / "no", create=False)
    assert not (tmp_path / "no").exists()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, history: History) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="so it is not a history"):
        History.open(tmp_path)
    (tmp_path / "board" / "runs" / "experiment").mkdir(parents=True)
    with pytest.raises(DataError, match="holds 'runs/'"):
        History.open(tmp_path / "board")
    with pytest.raises(DataError, match="a file, expected the folder"):
        History.open(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="name the folder of the history"):
        History.open(history.path / "runs")
    assert sorted(p.name for p in (tmp_path / "board").iterdir()) == ["runs"]


def test_a_half_made_history_is_finished(history: History) -> None:
    (history.path / "history.json").unlink()
    (history.path / ".history.json.1.tmp").write_text("{")
    assert History.open(history.path).version == 0


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((StorageError, DataError)):
        History.open(tmp_path / "file" / "history")
    with pytest.raises(StorageError):
        History.open("/proc/history")


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("{", "damaged"),
        ("", "damaged"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"format":1}', "damaged"),
        ('{"format":"1","version":"0"}', "damaged"),
        ('{"format":1,"version":0,"files":[]}', "damaged"),
        ('{"format":1,"version":0,"files":{"../x":[1,"0"]}}', "damaged"),
        ('{"format":9,"version":0}', "upgrade"),
    ],
)
def test_a_marker_that_cannot_be_read(history: History, marker: str, message: str) -> None:
    (history.path / "history.json").write_text(marker)
    with pytest.raises(DataError, match=message):
        History.open(history.path)


# What comes in


def test_append_and_read_back_sorted_by_run_id(history: History) -> None:
    runs = [
        make(run_id, seed=2**62 + i, started_at="2026-01-01T00:00:00Z")
        for i, run_id in enumerate("cab")
    ]
    report = history.append(runs)
    assert (report.n_read, report.n_new, report.version, history.version) == (3, 3, 1, 1)
    frame = history.runs()
    assert frame[c.RUN_ID].tolist() == ["a", "b", "c"]
    assert frame[c.SEED].tolist() == [2**62 + 1, 2**62 + 2, 2**62]
    assert str(frame[c.STARTED_AT].dtype) == "datetime64[us, UTC]"
    assert frame[c.STARTED_AT][0] == pd.Timestamp("2026-01-01", tz="UTC")
    assert frame[c.INGESTED_AT].notna().all()
    assert frame[c.FINISHED_AT].isna().all()
    assert history.runs(["value", "task_id"]).columns.tolist() == ["value", "task_id"]
    with pytest.raises(UsageError, match="column '_digest' is unknown"):
        history.runs(["_digest"])


def test_interactions_take_the_runs_of_a_history(history: History) -> None:
    history.append([make(value=0.5, seed=1), make(value=0.75, seed=2, cost_gpu_seconds=3.0)])
    made = Interactions.from_runs(history.runs())
    assert made.values.tolist() == [0.75]
    assert made.counts.tolist() == [2]
    assert made.costs.tolist() == [3.0]


def test_the_same_log_twice_changes_nothing(history: History) -> None:
    reject = Reject(file="a.csv", line=2, reason="no", raw="x", reader="table")
    log = [batch_of(make("a"), make("b"), rejects=(reject,), n_left_out=4)]
    first = history.ingest(log)
    before = history.runs()
    second = history.ingest(log)
    assert (first.n_read, first.n_new, first.n_quarantined, first.n_left_out) == (7, 2, 1, 4)
    assert (second.n_read, second.n_new, second.n_duplicate) == (7, 0, 2)
    assert second.version == first.version == history.version == 1
    assert len(history.quarantine.table()) == 1
    pd.testing.assert_frame_equal(history.runs(), before)


def test_nothing_to_do_makes_no_version(history: History) -> None:
    assert history.ingest([]).version == 0
    assert history.append([]).n_read == 0
    assert history.ingest_inbox().version == 0


def test_failed_runs_are_kept_and_counted(history: History) -> None:
    report = history.append([make("a"), make("b", None, status="failed")])
    assert (report.n_new, report.n_failed_runs) == (2, 1)
    assert history.runs()[c.STATUS].tolist() == ["finished", "failed"]


def test_a_running_run_is_updated_and_its_past_kept(history: History) -> None:
    history.append([make("a", None, status="running"), make("b")])
    history.append([make("a", 0.25, status="running")])
    report = history.append([make("a", 0.75)])
    assert (report.n_updated, report.n_new, report.version) == (1, 0, 3)
    assert history.runs()[c.VALUE].tolist() == [0.75, 0.5]
    assert history.query("SELECT value FROM runs ORDER BY run_id")["value"].tolist() == [0.75, 0.5]
    # Older reports of a run that has gone on are known, not contradictions.
    again = history.append([make("a", None, status="running"), make("a", 0.25, status="running")])
    assert (again.n_duplicate, again.version) == (2, 3)
    states = [history.at(v).runs().set_index(c.RUN_ID).loc["a"] for v in (1, 2, 3)]
    assert [s[c.STATUS] for s in states] == ["running", "running", "finished"]
    assert [s[c.VALUE] for s in states[1:]] == [0.25, 0.75]
    assert history.at(0).runs().empty


def test_a_contradiction_is_quarantined_with_both_sides(history: History) -> None:
    history.append([make("a", 0.5, source="first.csv")])
    batch = batch_of(
        make("b"), make("a", 0.9, source="second.csv"), file="second.csv", lines=(2, 3)
    )
    report = history.ingest([batch])
    assert (report.n_new, report.n_quarantined) == (1, 1)
    reject = history.quarantine.table().iloc[0]
    assert (reject["file"], reject["line"], reject["reader"]) == ("second.csv", 3, "run")
    for part in ("'a'", "first.csv", "value 0.9 against 0.5", "'second.csv' against 'first.csv'"):
        assert part in reject["reason"]
    assert json.loads(reject["raw"])["value"] == 0.9
    assert history.runs()[c.VALUE].tolist() == [0.5, 0.5]
    assert history.ingest([batch]).n_quarantined == 1
    assert len(history.quarantine.table()) == 1


def test_contradictions_inside_one_log(history: History) -> None:
    report = history.append([make("a", 0.5), make("a", 0.5), make("a", 0.9), make("a", 0.9)])
    assert (report.n_new, report.n_duplicate, report.n_quarantined) == (1, 1, 2)
    assert "value 0.9 against 0.5" in history.quarantine.table()["reason"][0]
    failed = history.append([make("f", None, status="failed"), make("f", 0.5)])
    assert (failed.n_new, failed.n_quarantined) == (1, 1)


def test_invalid_rows_of_a_careless_reader_are_quarantined(history: History) -> None:
    good = runs_to_table([make("a"), make("b"), make("c")])
    value = pa.array([0.5, float("nan"), None])
    direction = pa.array(["max", "max", "up"])
    table = good.set_column(good.schema.get_field_index(c.VALUE), c.VALUE, value).set_column(
        good.schema.get_field_index(c.DIRECTION), c.DIRECTION, direction
    )
    report = history.ingest([ReadBatch(runs=table, file="x.csv", lines=(2, 3, 4))])
    assert (report.n_new, report.n_quarantined) == (1, 2)
    rejects = history.quarantine.table()
    assert rejects["line"].tolist() == [3, 4]
    assert rejects["file"].tolist() == ["x.csv"] * 2
    assert "got nan" in rejects["reason"][0]
    assert "direction" in rejects["reason"][1]


def test_many_batches_are_one_commit(history: History) -> None:
    log = (batch_of(*(make(f"{b}-{i}") for i in range(40))) for b in range(30))
    report = history.ingest(log)
    assert (report.n_new, report.version) == (1200, 1)
    assert len(history.runs()) == 1200


def test_a_reader_that_breaks_commits_nothing(history: History) -> None:
    history.append([make("a")])
    before = sorted(os.listdir(history.path / "runs"))

    def broken() -> Iterator[ReadBatch]:
        yield batch_of(make("b"))
        raise DataError("line 17 is no CSV")

    with pytest.raises(DataError, match="line 17 is no CSV"):
        history.ingest(broken())
    assert history.version == 1
    assert history.runs()[c.RUN_ID].tolist() == ["a"]
    assert sorted(os.listdir(history.path / "runs")) == before
    assert history.append([make("b")]).n_new == 1


def test_tables_handed_in_are_not_changed(history: History) -> None:
    table = runs_to_table([make("a")])
    copy = pa.Table.from_pylist(table.to_pylist(), schema=RUN_SCHEMA)
    history.ingest([ReadBatch(runs=table)])
    assert table.equals(copy)


# Versions


def test_at_is_read_only(history: History) -> None:
    history.append([make("a")])
    history.append([make("b")])
    past = history.at(1)
    assert past.version == 1
    assert past.runs()[c.RUN_ID].tolist() == ["a"]
    assert past.query("SELECT count(*) AS n FROM runs")["n"].tolist() == [1]
    for write in (
        lambda: past.append([make("c")]),
        lambda: past.ingest([]),
        past.ingest_inbox,
        past.replay,
    ):
        with pytest.raises(RefusedError, match="version 1 is an earlier one"):
            write()
    assert history.version == 2
    for version in (3, -1):
        with pytest.raises(UnknownIdError, match="versions 0 to 2"):
            history.at(version)


def test_another_delta_reader_reads_the_table(history: History) -> None:
    history.append([make("a")])
    table = DeltaTable(history.path / "runs")
    assert table.metadata().configuration["delta.appendOnly"] == "true"
    assert set(c.RUN_COLUMNS) <= {field.name for field in table.schema().fields}
    assert table.to_pyarrow_table()[c.RUN_ID].to_pylist() == ["a"]


# Queries


def test_query_answers_in_pandas(history: History) -> None:
    history.append([make("a", 0.5, seed=1), make("b", 0.75), make("c", None, status="failed")])
    frame = history.query(
        "WITH best AS (SELECT task_id, max(value) AS v FROM runs GROUP BY 1) "
        "SELECT runs.*, v FROM runs JOIN best USING (task_id) ORDER BY run_id;"
    )
    assert list(frame.columns) == [*c.RUN_COLUMNS, c.INGEST_ID, "v"]
    assert frame["v"].tolist() == [0.75] * 3
    assert frame["seed"].isna().tolist() == [False, True, True]
    assert str(frame["ingested_at"].dtype) == "datetime64[us, UTC]"
    assert history.query("SELECT value FROM runs WHERE false").empty


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM runs",
        "INSERT INTO runs SELECT * FROM runs",
        "UPDATE runs SET value = 1",
        "DROP VIEW runs",
        "CREATE TABLE x AS SELECT 1",
        "COPY runs TO '{tmp}/x.csv'",
        "EXPORT DATABASE '{tmp}/x'",
        "ATTACH '{tmp}/x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "SELECT * FROM read_csv('{tmp}/secret.csv')",
        "SELECT * FROM '{tmp}/secret.csv'",
        "SELECT * FROM read_text('{tmp}/secret.csv')",
        "SELECT * FROM glob('{tmp}/*')",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW runs",
        "",
    ],
)
def test_query_reads_the_history_and_nothing_else(
    history: History, tmp_path: Path, sql: str
) -> None:
    history.append([make("a")])
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(DataError):
        history.query(sql.format(tmp=tmp_path))
    assert sorted(os.listdir(tmp_path)) == before
    assert history.runs()[c.VALUE].tolist() == [0.5]


def test_a_wrong_query_names_the_columns(history: History) -> None:
    with pytest.raises(DataError, match=r"(?s)vaule.*task_id"):
        history.query("SELECT vaule FROM runs")
    with pytest.raises(DataError, match="cannot be answered"):
        history.query("SELEKT 1")
    frame = pd.DataFrame({"x": [1]})
    with pytest.raises(DataError, match="frame"):
        history.query("SELECT * FROM frame")
    assert len(frame) == 1


# Replay


def test_inbox_rejects_are_replayed_after_an_edit(history: History) -> None:
    record_run(history.path, **REQUIRED, value="0.5")  # type: ignore[arg-type]
    record_run(history.path, **{**REQUIRED, "direction": "up"}, value=0.25)
    history.ingest_inbox()
    assert history.replay().n_quarantined == 2
    table = history.quarantine.table()
    raw = json.loads(table["raw"][0])
    report = history.replay(edited={table["id"][0]: json.dumps(raw | {"value": 0.5})})
    assert (report.n_new, report.n_quarantined, report.version) == (1, 1, 1)
    assert history.runs()[c.VALUE].tolist() == [0.5]
    assert history.quarantine.table()["resolved"].tolist() == [True, False]
    with pytest.raises(UnknownIdError, match="no pending reject"):
        history.replay(edited={table["id"][0]: "{}"})


def test_a_conflict_is_replayed_under_a_run_id_of_its_own(history: History) -> None:
    history.append([make("a", 0.5), make("a", 0.75)])
    row = history.quarantine.table().iloc[0]
    assert history.replay().n_quarantined == 1
    raw = json.loads(row["raw"]) | {"run_id": "a2"}
    assert history.replay(edited={row["id"]: json.dumps(raw)}).n_new == 1
    assert history.runs()[c.VALUE].tolist() == [0.5, 0.75]
    assert list(history.quarantine.pending()) == []


def test_rejects_of_other_readers_are_replayed_by_them(history: History) -> None:
    rejects = tuple(
        Reject(file="a.csv", line=i, reason="no", raw=raw, reader="table")
        for i, raw in enumerate(["0.5", "0.75", "bad", "skip"])
    )
    history.ingest([batch_of(rejects=rejects)])
    assert history.replay().n_read == 0

    def retry(reject: Reject) -> ReadBatch:
        if reject.raw == "skip":
            return batch_of(n_left_out=1)
        try:
            value = float(reject.raw)
        except ValueError:
            return batch_of(rejects=(replace(reject, reason="still bad"),))
        return batch_of(make(f"line-{reject.line}", value))

    assert history.replay(retry, only="inbox").n_read == 0
    report = history.replay(retry, only="table")
    assert (report.n_new, report.n_quarantined, report.n_left_out) == (2, 1, 1)
    assert [reject.raw for reject in history.quarantine.pending()] == ["bad"]
    assert history.quarantine.table()["reason"].tolist() == ["no"] * 4
    assert history.replay(retry).n_quarantined == 1


def test_thousands_of_rejects_are_replayed_in_one_commit(history: History) -> None:
    rejects = tuple(
        Reject(file="a.csv", line=i, reason="no", raw=str(i % 2500), reader="table")
        for i in range(3000)
    )
    history.ingest([batch_of(rejects=rejects)])
    report = history.replay(lambda reject: batch_of(make(reject.raw, (reject.line or 0) / 3000)))
    # Lines 2500 on repeat the ids of the first 500 with other values.
    assert (report.n_new, report.n_quarantined, report.version) == (2500, 500, 1)
    assert [reject.line for reject in history.quarantine.pending()] == list(range(2500, 3000))


# Writers


def test_a_second_writer_is_told_to_wait(history: History) -> None:
    with file_lock(history.path / ".lock"):
        for write in (lambda: history.append([make("a")]), history.ingest_inbox, history.replay):
            with pytest.raises(LockedError, match="held by another process"):
                write()
        assert history.runs().empty
    assert history.append([make("a")]).n_new == 1


def run_child(code: str, *, killed: bool) -> None:
    done = warm().python(textwrap.dedent(code), cwd=ROOT)
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr


@pytest.mark.parametrize(
    "place",
    [
        "recsys_ms.history.store.delta:write_deltalake",
        "recsys_ms.history.store.delta:make_durable",
        "recsys_ms.history.quarantine:write_atomic",
        "recsys_ms.history.store.inventory:Inventory.keep",
        "recsys_ms.history.store.inventory:copy_file",
        "recsys_ms.history.store.inventory:write_atomic",
        "recsys_ms.history.history:archive_inbox",
        "recsys_ms.history.inbox.inbox_files:fsync",
        "pathlib:Path.unlink",
    ],
)
def test_killed_anywhere_the_next_ingest_finishes(history: History, place: str) -> None:
    for seed in range(5):
        record_run(history.path, **REQUIRED, value=0.5, seed=seed)
    record_run(history.path, **REQUIRED, value=0.75, seed=0)
    (history.inbox / "zz.json").write_text("{")
    path = str(history.path)
    module, name = place.split(":")
    run_child(
        f"""
        import importlib, os, signal
        from recsys_ms.history.history import History
        history = History.open({path!r})
        owner = importlib.import_module({module!r})
        *classes, name = {name!r}.split(".")
        for part in classes:
            owner = getattr(owner, part)
        def killer(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGKILL)
        setattr(owner, name, killer)
        history.ingest_inbox()
        """,
        killed=True,
    )
    # The lock of the killed writer is gone with it.
    again = History.open(history.path, lock_seconds=0.0)
    report = again.ingest_inbox()
    assert report.n_new + report.n_duplicate in (0, 5)
    assert sorted(again.runs()[c.SEED]) == list(range(5))
    assert len(again.quarantine.table()) == 2
    assert list(again.inbox.iterdir()) == []
    assert again.version == 1
    assert again.ingest_inbox().n_read == 0


def test_killed_while_the_history_is_made(tmp_path: Path) -> None:
    for place in ("RunStore.create", "Inventory.keep", "Inventory.update"):
        owner, _, name = place.rpartition(".")
        run_child(
            f"""
            import os, signal
            from recsys_ms.history import history as module
            owner = getattr(module, {owner!r}) if {owner!r} else module
            setattr(owner, {name!r}, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
            module.History.open({str(tmp_path / "h")!r})
            """,
            killed=True,
        )
    history = History.open(tmp_path / "h", lock_seconds=0.0)
    assert history.append([make("a")]).version == 1


# The disk


def test_a_full_disk_leaves_the_history_as_it_was(small_disk: Path) -> None:
    history = History.open(small_disk / "history")
    history.append([make("a")])
    noise = np.random.default_rng(0).bytes(3_000_000).hex()
    big = [make(f"b{i}", source=noise[i * 600 : (i + 1) * 600]) for i in range(10_000)]
    with pytest.raises(StorageError, match="free space"):
        history.append(big)
    assert History.open(small_disk / "history").version == 1
    assert history.runs()[c.RUN_ID].tolist() == ["a"]
    assert history.append([make("c")]).n_new == 1


def test_a_full_disk_keeps_the_inbox(small_disk: Path) -> None:
    history = History.open(small_disk / "history")
    for seed in range(20):
        record_run(history.path, **REQUIRED, value=0.5, seed=seed, on_error="raise")
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            filler.flush()
    with pytest.raises(StorageError):
        history.ingest_inbox()
    assert len(list(history.inbox.glob("*.json"))) == 20
    (small_disk / "filler").unlink()
    assert history.ingest_inbox().n_read == 20
    assert len(History.open(small_disk / "history").runs()) == 20


def test_a_read_only_disk_can_be_read(small_disk: Path, tmp_path: Path) -> None:
    History.open(small_disk / "history").append([make("a")])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    history = History.open(small_disk / "history")
    assert history.runs()[c.RUN_ID].tolist() == ["a"]
    assert len(history.query("SELECT * FROM runs")) == 1
    with pytest.raises(StorageError, match="writable"):
        history.append([make("b")])
    assert record_run(history.path, **REQUIRED, value=1.0, unsent_folder=tmp_path / "u") is None
    assert len(list((tmp_path / "u").iterdir())) == 1


def log_file(history: History, version: int) -> Path:
    return history.path / "runs" / "_delta_log" / f"{version:020d}.json"


def test_damage_is_told_and_not_papered_over(history: History) -> None:
    history.append([make("a")])
    history.append([make("b")])
    last = log_file(history, 2)
    text = last.read_text()
    for damaged in (text[: len(text) // 2], ""):
        last.write_text(damaged)
        with pytest.raises(DataError, match=r"2.json has .* bytes, expected .*doctor"):
            History.open(history.path)
    last.unlink()
    with pytest.raises(DataError, match=r"2.json is missing"):
        History.open(history.path)
    last.write_text(text)
    assert History.open(history.path).version == 2
    part = max((history.path / "runs").glob("*.parquet"))
    data = part.read_bytes()
    altered = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    for damaged, what in ((data[:-30], "bytes, expected"), (altered, "other content")):
        part.write_bytes(damaged)
        for read in (history.runs, lambda: history.query("SELECT * FROM runs"), history.check):
            with pytest.raises(DataError, match=what):
                read()
    part.unlink()
    with pytest.raises(DataError, match="is missing"):
        history.runs()
    with pytest.raises(DataError, match="is missing"):
        history.append([make("c")])
    part.write_bytes(data)
    assert len(history.runs()) == 2


def test_a_lost_table_is_not_replaced_by_an_empty_one(history: History) -> None:
    history.append([make("a")])
    (history.path / "runs").rename(history.path.parent / "elsewhere")
    with pytest.raises(DataError, match="missing"):
        History.open(history.path)


@pytest.mark.parametrize("folder", ["inbox", "archive", "quarantine"])
def test_a_lost_folder_is_told(history: History, folder: str) -> None:
    (history.path / folder).rename(history.path.parent / "elsewhere")
    with pytest.raises(DataError, match=rf"damaged: {folder}/ is missing"):
        History.open(history.path)


def test_a_lost_marker_of_a_filled_history_is_told(history: History) -> None:
    history.append([make("a")])
    (history.path / "history.json").unlink()
    for create in (True, False):
        with pytest.raises(DataError, match=r"history.json is missing"):
            History.open(history.path, create=create)
    for kind in ("link", "folder", "device"):
        marker = history.path / "history.json"
        if kind == "folder":
            marker.mkdir()
        else:
            marker.symlink_to("/dev/zero" if kind == "device" else history.path / ".lock")
        with pytest.raises(DataError, match="expected a regular file"):
            History.open(history.path)
        marker.rename(history.path.parent / kind)


def test_a_history_of_an_earlier_version_gets_its_inventory(history: History) -> None:
    history.append([make("a")])
    marker = history.path / "history.json"
    marker.write_text('{"format": 1, "version": 1}')
    shutil.rmtree(history.path / "archive" / "copies")
    again = History.open(history.path)
    assert again.append([make("b")]).n_new == 1
    assert len(json.loads(marker.read_text())["files"]) == 7
    (part, *_) = (history.path / "runs").glob("*.parquet")
    assert (history.path / "archive" / "copies" / "runs" / part.name).read_bytes()
    part.write_bytes(b"")
    with pytest.raises(DataError, match="has 0 bytes"):
        History.open(history.path)


def test_threads_of_arrow_never_call_python(history: History) -> None:
    # One that outlives an error would crash the interpreter at its end: exit code 139 or 134.
    history.append([make("a")])
    dataset = history._store.dataset(history._store.at_version())
    assert isinstance(dataset.filesystem, SubTreeFileSystem)
    assert isinstance(dataset.filesystem.base_fs, LocalFileSystem)


def test_what_killed_writers_left_is_swept_by_the_next_ingest(history: History) -> None:
    record_run(history.path, **REQUIRED, value=0.5)
    history.ingest_inbox()
    (day,) = (folder for folder in (history.path / "archive").iterdir() if folder.name != "copies")
    runs = history.path / "runs"
    code = "from recsys_ms.core.temporary import temporary_name as n; print(n('a'), n('b'))"
    dead, folder = warm().python(code).stdout.split()
    copies = history.path / "archive" / "copies" / "runs"
    places = [history.path, history.inbox, day, history.quarantine.folder, copies]
    left = [place / dead for place in places]
    left += [runs / "part-00000-of-no-commit.parquet", runs / "_delta_log" / "_commit_1.json.tmp"]
    for path in left:
        path.write_text("half")
    (history.path / folder).mkdir()
    at_work = history.inbox / temporary_name("b.json")
    at_work.write_text("half")
    assert history.ingest_inbox().n_read == 0
    assert [path for path in [*left, history.path / folder] if path.exists()] == []
    assert list(history.inbox.iterdir()) == [at_work]
    assert len(history.check().runs()) == 1


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"LC_ALL=C.UTF-8"):
        History.open(tmp_path / "\udcd0\udc98")


def test_a_url_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"s3://bucket/h: a history lives in a folder"):
        History.open("s3://bucket/h")
    assert not list(tmp_path.iterdir())
