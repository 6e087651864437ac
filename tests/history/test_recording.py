import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from child import loaded_by
from recorded_runs import only, tags

import recsys_ms as rms
from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.history.history import History
from recsys_ms.history.recorder.journal import list_journals
from recsys_ms.history.recorder.recording import Recorder, recording

RUN: dict[str, Any] = {
    "model_id": "resnet50",
    "task_id": "pets",
    "metric": "accuracy",
    "direction": "max",
}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "history")


def curve(history: History) -> set[tuple[Any, ...]]:
    frame = history.curves()[["step", "epoch", "metric", "split", "value"]]
    rows = [
        tuple(None if pd.isna(cell) else cell for cell in row)
        for row in frame.itertuples(index=False)
    ]
    assert len(set(rows)) == len(rows)
    return set(rows)


def job(history: History, body: str, **popen: Any) -> subprocess.Popen[str]:
    """A training job of its own process, whose ``run()`` opens a recorder on the history."""
    code = f"""
import logging, os, signal, sys, threading, time
logging.basicConfig(stream=sys.stderr)
from recsys_ms.history.recorder.recording import recording
def run(**fields):
    return recording({str(history.path)!r}, **{{**{RUN!r}, **fields}})
def ready():
    print("ready", flush=True)
{textwrap.dedent(body)}
"""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "ready\n":
        process.wait()
        pytest.fail(process.stderr.read() if process.stderr else line)


# ------------------------------------------------------------------ the ways a block ends


def test_success_writes_the_best_value_and_the_whole_curve(history: History) -> None:
    assert rms.recording is recording
    with recording(history.path, **RUN, seed=3, hyperparameters={"lr": 0.1}) as run:
        for epoch, value in enumerate([0.5, 0.75, 0.625]):
            run.log(value, epoch=epoch, step=10 * epoch)
        run.log(1.5, epoch=2, metric="loss", split="train")
        run.set(tags={"team": "a"}, cost_gpu_seconds=9.5)
    assert list_journals(history.inbox) == []
    report = history.ingest_inbox()
    assert (report.n_read, report.n_new, report.n_curve_points) == (1, 1, 4)
    row = only(history)
    assert row["run_id"] == run.run_id
    assert (row["status"], row["value"], row["epoch"]) == ("finished", 0.75, 1.0)
    assert (row["value_kind"], row["seed"], row["cost_gpu_seconds"]) == ("best", 3, 9.5)
    assert json.loads(row["hyperparameters"]) == {"lr": 0.1}
    assert tags(row) == {"team": "a"}
    assert row["started_at"] <= row["finished_at"]
    assert curve(history) == {
        (0, 0.0, "accuracy", None, 0.5),
        (10, 1.0, "accuracy", None, 0.75),
        (20, 2.0, "accuracy", None, 0.625),
        (None, 2.0, "loss", "train", 1.5),
    }


@pytest.mark.parametrize(
    ("direction", "kind", "values", "value", "epoch"),
    [
        ("max", "best", [0.1, 0.3, 0.3, 0.2], 0.3, 1),
        ("min", "best", [0.4, 0.1, 0.2], 0.1, 1),
        ("max", "last", [0.1, 0.3, 0.2], 0.2, 2),
        ("max", "ema", [0.1, 0.3, 0.2], 0.3, 1),
        ("max", "best", [float("nan"), 0.3, float("inf")], 0.3, 1),
        ("min", "best", [float("-inf"), 0.3], 0.3, 1),
    ],
)
def test_the_value_of_a_run(
    history: History, direction: Any, kind: Any, values: list[float], value: float, epoch: int
) -> None:
    known = {**RUN, "metric": "score", "direction": direction}
    with recording(history.path, **known, value_kind=kind) as run:
        for at, each in enumerate(values):
            run.log(each, epoch=at)
    history.ingest_inbox()
    row = only(history)
    assert (row["value"], row["epoch"], row["value_kind"]) == (value, epoch, kind)
    assert len(history.curves()) == len(values)


def test_values_may_be_scalars_of_numpy_and_torch(history: History) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'embed'")
    with recording(history.path, **RUN, on_error="raise") as run:
        run.log(np.float32(0.5), epoch=np.int64(0), step=np.int64(7))
        run.log(torch.tensor(0.25), epoch=1)
        run.log(1)
    history.ingest_inbox()
    assert only(history)["value"] == 1.0


class OutOfMemoryError(RuntimeError):
    pass


def test_an_exception_goes_on_and_its_class_stands_in_the_run(history: History) -> None:
    def train() -> None:
        with recording(history.path, **RUN) as run:
            run.log(0.5, epoch=0)
            raise OutOfMemoryError("CUDA out of memory.\n  Tried to allocate 2 GiB")

    with pytest.raises(OutOfMemoryError):
        train()
    history.ingest_inbox()
    row = only(history)
    assert (row["status"], row["value"]) == ("failed", 0.5)
    assert tags(row) == {
        "error": "OutOfMemoryError",
        "error_message": "CUDA out of memory. Tried to allocate 2 GiB",
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit(), None),
        (SystemExit(0), None),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_leaving_by_exit(history: History, error: BaseException, told: str | None) -> None:
    def train() -> None:
        with recording(history.path, **RUN) as run:
            run.log(0.5)
            raise error

    with pytest.raises(type(error)):
        train()
    history.ingest_inbox()
    row = only(history)
    assert row["status"] == ("finished" if told is None else "failed")
    assert tags(row).get("error") == told


@pytest.mark.parametrize(
    ("values", "told"), [([], "no value logged"), ([float("nan")], "no finite accuracy")]
)
def test_without_a_value_a_run_is_failed(history: History, values: list[float], told: str) -> None:
    with recording(history.path, **RUN) as run:
        run.log(0.1, metric="loss")
        for value in values:
            run.log(value)
    history.ingest_inbox()
    row = only(history)
    assert row["status"] == "failed"
    assert tags(row) == {"error": told}


def test_start_and_finish_without_with(history: History) -> None:
    run = recording(history.path, **RUN, run_id="mine").start()
    run.log(0.5)
    assert run.finish("stopped by hand") == "mine"
    assert run.finish() is None
    history.ingest_inbox()
    assert tags(only(history)) == {"error": "stopped by hand"}


def test_an_open_run_is_running_and_grows(history: History) -> None:
    with recording(history.path, **RUN) as run:
        assert history.ingest_inbox().n_new == 1
        assert only(history)["status"] == "running"
        run.log(0.5, epoch=0)
        assert history.ingest_inbox().n_updated == 1
        assert history.ingest_inbox().n_duplicate == 1
        assert (only(history)["status"], only(history)["value"]) == ("running", 0.5)
    assert history.ingest_inbox().n_updated == 1
    assert only(history)["status"] == "finished"
    assert list(history.inbox.iterdir()) == []


def test_recordings_at_once_in_one_process(history: History) -> None:
    with recording(history.path, **RUN) as first, recording(history.path, **RUN) as second:
        first.log(0.25)
        second.log(0.75)
    history.ingest_inbox()
    assert sorted(history.runs()["value"]) == [0.25, 0.75]


def test_threads_log_into_one_run(history: History) -> None:
    with recording(history.path, **RUN) as run:

        def work(thread: int) -> None:
            for step in range(500):
                run.log(thread / 10, step=thread * 500 + step)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert history.ingest_inbox().n_curve_points == 4000
    history.ingest_inbox()
    assert sorted(history.curves()["step"]) == list(range(4000))


def test_a_requeued_job_of_the_same_name_counts_however_little_it_logs(history: History) -> None:
    lost = job(
        history,
        """
        with run(run_id="slurm-17") as r:
            for epoch in range(5):
                r.log(0.1, epoch=epoch)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    lost.communicate()
    history.ingest_inbox()
    assert (only(history)["status"], only(history)["value"]) == ("failed", 0.1)
    with recording(history.path, **RUN, run_id="slurm-17") as run:
        run.log(0.9, epoch=5)
    history.ingest_inbox()
    assert (only(history)["status"], only(history)["value"]) == ("finished", 0.9)
    assert len(history.curves()) == 6


# ------------------------------------------------------------------ signals


SLEEP = """
with run() as r:
    r.log(0.5, epoch=1)
    ready()
    time.sleep(60)
"""


def test_sigterm_writes_a_failed_run_and_ends_the_process_as_before(history: History) -> None:
    process = job(history, SLEEP)
    wait_ready(process)
    process.terminate()
    process.communicate()
    assert process.returncode == -signal.SIGTERM
    history.ingest_inbox()
    row = only(history)
    assert (row["status"], row["value"], row["epoch"]) == ("failed", 0.5, 1.0)
    assert tags(row) == {"error": "SIGTERM"}
    assert list(history.inbox.iterdir()) == []


def test_sigkill_is_found_from_the_journal(history: History) -> None:
    process = job(history, SLEEP)
    wait_ready(process)
    process.kill()
    process.communicate()
    report = history.ingest_inbox()
    assert (report.n_new, report.n_curve_points) == (1, 1)
    row = only(history)
    assert (row["status"], row["value"]) == ("failed", 0.5)
    assert tags(row) == {"error": "killed"}
    # The clock of file systems ticks every few milliseconds.
    assert (row["finished_at"] - row["started_at"]).total_seconds() > -0.1
    assert list(history.inbox.iterdir()) == []
    assert history.ingest_inbox().n_read == 0


@pytest.mark.parametrize(
    ("handler", "status", "told", "code"),
    [
        # A handler that was there runs after the recorder: it leaves, saves and leaves, or goes on.
        ("lambda *a: sys.exit(143)", "failed", "SIGTERM", 143),
        ("lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)", "failed", "SIGTERM", None),
        ("lambda *a: r.log(0.75, epoch=2)", "finished", None, 0),
        ("signal.SIG_IGN", "finished", None, 0),
    ],
)
def test_a_handler_that_was_there_goes_on(
    history: History, handler: str, status: str, told: str | None, code: int | None
) -> None:
    process = job(
        history,
        f"""
        signal.signal(signal.SIGTERM, {handler})
        before = signal.getsignal(signal.SIGTERM)
        with run() as r:
            r.log(0.5, epoch=1)
            ready()
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                time.sleep(0.01)
        assert signal.getsignal(signal.SIGTERM) == before
        """,
    )
    wait_ready(process)
    process.terminate()
    process.communicate()
    if code is not None:
        assert process.returncode == code
    history.ingest_inbox()
    row = only(history)
    assert row["status"] == status
    assert tags(row).get("error") == told
    assert list(history.inbox.iterdir()) == []


def test_nested_recorders_are_all_told_of_sigterm(history: History) -> None:
    process = job(
        history,
        """
        with run() as a, run() as b:
            a.log(0.1); b.log(0.2)
            with run() as c:
                c.log(0.3)
            ready()
            time.sleep(60)
        """,
    )
    wait_ready(process)
    process.terminate()
    process.communicate()
    history.ingest_inbox()
    runs = history.runs().sort_values("value")
    assert runs["status"].tolist() == ["failed", "failed", "finished"]


def test_a_handler_set_meanwhile_is_left_in_place(history: History) -> None:
    process = job(
        history,
        """
        mine = lambda *a: os._exit(7)
        with run() as r:
            r.log(0.5)
            signal.signal(signal.SIGTERM, mine)
        assert signal.getsignal(signal.SIGTERM) is mine
        """,
    )
    assert process.wait() == 0, process.communicate()[1]


def test_a_handler_that_is_put_back_after_its_recorder_is_used_again(history: History) -> None:
    """As Lightning does: its own handler during a training, ours again when it is over."""
    process = job(
        history,
        """
        with run() as a:
            ours = signal.signal(signal.SIGTERM, lambda *rest: ours(*rest))
            a.log(0.1)
        signal.signal(signal.SIGTERM, ours)
        with run() as b:
            b.log(0.2)
            ready()
            time.sleep(60)
        """,
    )
    wait_ready(process)
    process.terminate()
    process.communicate()
    assert process.returncode == -signal.SIGTERM
    history.ingest_inbox()
    runs = history.runs().sort_values("value")
    assert runs["status"].tolist() == ["finished", "failed"]


def test_sigterm_into_every_moment_of_a_recording(history: History) -> None:
    processes = []
    for number in range(24):
        process = job(
            history,
            f"""
            ready()
            while True:
                with run(run_id=f"{number}-{{time.monotonic_ns()}}") as r:
                    r.log(0.5)
            """,
        )
        wait_ready(process)
        time.sleep(0.013 * number)
        process.terminate()
        processes.append(process)
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGTERM, errors
        assert "Traceback" not in errors
    report = history.ingest_inbox()
    assert report.n_quarantined == 0
    runs = history.runs()
    assert set(runs["status"]) <= {"finished", "failed"}
    assert (runs["value"].isna() <= (runs["status"] == "failed")).all()
    assert list(history.inbox.iterdir()) == []


def test_recorders_of_other_threads_are_ended_with_the_process(history: History) -> None:
    process = job(
        history,
        """
        def work():
            r = run().start()
            r.log(0.5)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """,
    )
    assert process.wait() == 0
    history.ingest_inbox()
    row = only(history)
    assert (row["status"], tags(row)) == ("failed", {"error": "the process ended"})


def test_a_forked_worker_does_not_end_the_run_of_its_parent(history: History) -> None:
    process = job(
        history,
        """
        with run() as r:
            r.log(0.5, epoch=0)
            child = os.fork()
            if child == 0:
                r.log(0.99, epoch=9)
                sys.exit(1)
            os.waitpid(child, 0)
            reader, writer = os.pipe()
            other = os.fork()
            if other == 0:
                os.write(writer, b"x")
                time.sleep(60)
                os._exit(1)
            os.read(reader, 1)
            os.kill(other, signal.SIGTERM)
            os.waitpid(other, 0)
            r.log(0.75, epoch=1)
        """,
    )
    assert process.wait() == 0, process.communicate()[1]
    assert history.ingest_inbox().n_new == 1
    row = only(history)
    assert (row["status"], row["value"], row["epoch"]) == ("finished", 0.75, 1.0)


def test_a_child_that_outlives_a_killed_parent_does_not_keep_the_run_alive(
    history: History,
) -> None:
    process = job(
        history,
        """
        with run() as r:
            r.log(0.5)
            if os.fork() == 0:
                os.close(1); os.close(2)
                time.sleep(20)
                os._exit(0)
            time.sleep(0.2)
            ready()
            time.sleep(60)
        """,
        start_new_session=True,
    )
    wait_ready(process)
    process.kill()
    process.communicate()
    try:
        history.ingest_inbox()
        assert tags(only(history)) == {"error": "killed"}
    finally:
        os.killpg(process.pid, signal.SIGKILL)


# ------------------------------------------------------------------ what goes wrong


def test_a_field_no_run_has(history: History) -> None:
    with pytest.raises(TypeError, match="modle"):
        recording(history.path, **RUN, modle="x")
    with recording(history.path, **RUN) as run:
        run.log(0.5)
        with pytest.raises(TypeError, match="modle"):
            run.set(modle=1)


@pytest.mark.parametrize("fields", [{"direction": "up"}, {"model_id": ""}, {"seed": 0.5}])
def test_invalid_fields(
    history: History, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    with caplog.at_level(logging.ERROR), recording(history.path, **{**RUN, **fields}) as run:
        run.log(0.5)
        # While it is open the fields may still be corrected.
        assert history.ingest_inbox().n_read == 0
    assert "go to quarantine" in caplog.text
    assert history.ingest_inbox().n_quarantined == 1
    text = history.quarantine.table().iloc[0]["raw"]
    fixed = json.dumps({**json.loads(text), **RUN, "seed": 1})
    (reject,) = history.quarantine.pending()
    report = history.replay(edited={reject.id: fixed})
    assert (report.n_new, report.n_curve_points) == (1, 1)
    with pytest.raises(DataError), recording(history.path, **{**RUN, **fields}, on_error="raise"):
        pytest.fail("training began")
    assert list(history.inbox.iterdir()) == []


def test_fields_corrected_on_the_way(history: History) -> None:
    with recording(history.path, **{**RUN, "model_id": ""}) as run:
        run.log(0.5)
        run.set(model_id="resnet18")
    history.ingest_inbox()
    assert only(history)["model_id"] == "resnet18"


@pytest.mark.parametrize("value", ["0.5x", None, [0.1, 0.2], object(), 10**400])
def test_a_value_that_is_no_number(
    history: History, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    with recording(history.path, **RUN) as run:
        run.log(0.5)
        with caplog.at_level(logging.ERROR):
            run.log(value)
        assert "was not logged" in caplog.text
    with pytest.raises(DataError), recording(history.path, **RUN, on_error="raise") as run:
        run.log(value)


def test_logging_after_the_end(history: History, caplog: pytest.LogCaptureFixture) -> None:
    with recording(history.path, **RUN) as run:
        run.log(0.5)
    with caplog.at_level(logging.ERROR):
        run.log(0.9)
    assert "is not open" in caplog.text
    history.ingest_inbox()
    assert only(history)["value"] == 0.5


def test_the_history_by_environment_variable(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_MS_HISTORY", str(history.path))
    with recording(**RUN) as run:
        run.log(0.5)
    assert history.ingest_inbox().n_new == 1
    monkeypatch.delenv("RECSYS_MS_HISTORY")
    with recording(**RUN, unsent_folder=tmp_path / "unsent") as run:
        run.log(0.25)
    assert history.ingest_inbox(tmp_path / "unsent").n_new == 1
    with pytest.raises(StorageError, match="RECSYS_MS_HISTORY"):
        recording(**RUN, on_error="raise").start()


def test_no_history_keeps_the_run_and_its_curve_elsewhere(
    history: History, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unsent = tmp_path / "unsent"
    with (
        caplog.at_level(logging.WARNING),
        recording(tmp_path / "typo", **RUN, unsent_folder=unsent) as run,
    ):
        run.log(0.5, epoch=1)
    assert str(unsent) in caplog.text
    assert not (tmp_path / "typo").exists()
    report = history.ingest_inbox(unsent)
    assert (report.n_new, report.n_curve_points) == (1, 1)


def test_a_disk_that_fills_up_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    history = History.open(small_disk / "history")
    unsent = tmp_path / "unsent"
    with recording(history.path, **RUN, unsent_folder=unsent) as run:
        run.log(0.5, epoch=0)
        with (small_disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 1024)
            except OSError:
                pass
        for epoch in range(1, 200):
            run.log(0.5 + epoch / 1000, epoch=epoch)
    (small_disk / "filler").unlink()
    history.ingest_inbox()
    report = history.ingest_inbox(unsent)
    assert report.n_quarantined == 0
    row = only(history)
    assert (row["status"], row["value"], row["epoch"]) == ("finished", 0.5 + 0.199, 199.0)
    assert len(history.curves()) == 200


def test_a_kill_on_a_full_disk_keeps_what_was_written(history: History) -> None:
    process = job(
        history,
        """
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with run() as r:
            r.log(0.5, epoch=0)
            size = os.fstat(r._journal._descriptor).st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, size + 9))
            r.log(0.75, epoch=1)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    _, errors = process.communicate()
    assert "cannot be written" in errors
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 1)
    assert only(history)["value"] == 0.5
    assert history.quarantine.table().iloc[0]["raw"].startswith("[null, 1")
    # It is kept, and a replay neither loses nor repeats it.
    history.replay()
    assert len(history.quarantine.table()) == 1


DAMAGED = {
    "empty": b"",
    "zeros": b"\0" * 512,
    "not json": b"hello\n",
    "no fields": b'{"host": "h", "began": 1}\n',
    "fields are a list": b'{"host": "h", "began": 1, "fields": [1]}\n',
    "began is a text": b'{"host": "h", "began": "x", "fields": {"model_id": "m"}}\n',
    "not utf-8": b'\xff\xfe{"host": 1}\n',
    "deep": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_journal_with_a_damaged_head_goes_to_quarantine(history: History, name: str) -> None:
    path = history.inbox / ".open-x.jsonl"
    path.write_bytes(DAMAGED[name])
    os.utime(path, (0, 0))
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (0, 1)
    assert list(history.inbox.iterdir()) == []
    (reject,) = history.quarantine.pending()
    fixed = json.dumps({**RUN, "value": 0.5})
    assert history.replay(edited={reject.id: fixed}).n_new == 1
    assert list(history.quarantine.pending()) == []


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b'[null, null, "accuracy", null, "x"]',
        b"7",
        b"{",
        b"\xff",
        b'[null, null, "accuracy", null, []]',
    ],
)
def test_a_damaged_line_of_a_journal_costs_no_other_line(history: History, line: bytes) -> None:
    head = json.dumps({"host": "h", "began": 1, "fields": {**RUN, "run_id": "a"}}).encode()
    good = b'[null, 1.0, "accuracy", null, 0.5]\n'
    path = history.inbox / ".open-x.jsonl"
    path.write_bytes(head + b"\n" + line + b"\n" + good)
    os.utime(path, (0, 0))
    report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 1)
    assert only(history)["value"] == 0.5


def test_a_silent_journal_of_another_host_is_given_up_after_a_day(history: History) -> None:
    path = history.inbox / ".open-x.jsonl"
    head = json.dumps({"host": "elsewhere", "began": 1, "fields": {**RUN, "run_id": "a"}})
    path.write_text(head + '\n[null, 1.0, "accuracy", null, 0.5]\n')
    history.ingest_inbox()
    assert only(history)["status"] == "running"
    os.utime(path, (time.time() - 25 * 3600,) * 2)
    history.ingest_inbox()
    assert (only(history)["status"], tags(only(history))) == ("failed", {"error": "killed"})


CURVES = [
    {"curve": 5},
    {"curve": [[1, 2, "m", None]]},
    {"curve": [[1, 2, "m", None, "x"]]},
    {"curve": [[1.5, 2, "m", None, 0.1]]},
    {"curve": [[True, 2, "m", None, 0.1]]},
    {"curve": [[1, "2", "m", None, 0.1]]},
    {"curve": [[1, 2, "", None, 0.1]]},
    {"curve": [[1, 2, "m", 3, 0.1]]},
    {"curve": [[2**70, 2, "m", None, 0.1]]},
    {"curve": [[1, 2, "m", None, 10**300]]},
    {"progress": -1},
    {"progress": 2**63},
    {"progress": "1"},
]


@pytest.mark.parametrize("extra", CURVES)
def test_a_file_with_a_bad_curve_goes_to_quarantine_whole(
    history: History, extra: dict[str, Any]
) -> None:
    (history.inbox / "a.json").write_text(json.dumps({**RUN, "value": 0.5, **extra}))
    assert history.ingest_inbox().n_quarantined == 1
    assert next(iter(extra)) in history.quarantine.table().iloc[0]["reason"]


def test_a_recorder_needs_no_table_library() -> None:
    heavy = ("pyarrow", "pandas", "deltalake", "duckdb", "scipy", "torch")
    code = "from recsys_ms.history.recorder.recording import recording"
    assert loaded_by(code, *heavy) == set()


def test_a_recorder_names_itself(history: History) -> None:
    first, second = recording(history.path, **RUN), recording(history.path, **RUN)
    assert isinstance(first, Recorder)
    assert first.run_id != second.run_id
    assert recording(history.path, **RUN, run_id="mine").run_id == "mine"
