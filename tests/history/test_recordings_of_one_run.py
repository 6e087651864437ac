"""Two recordings of one run, and clocks that step: no value is lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from recsys_ms.history.history import History
from recsys_ms.history.inbox import inbox
from recsys_ms.history.recorder import recording as recording_module
from recsys_ms.history.recorder.journal import Recorded
from recsys_ms.history.recorder.recording import Recorder, recording
from recsys_ms.history.recorder.state_order import (
    AT_END,
    AT_WORK,
    TERMINATED,
    are_of_two_recordings,
    recorded_progress,
)

RUN: dict[str, Any] = {
    "model_id": "resnet50",
    "task_id": "pets",
    "metric": "accuracy",
    "direction": "max",
    "run_id": "R",
}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "history")


@contextmanager
def clock_at(seconds: Callable[[float], float]) -> Iterator[None]:
    """Every clock of the recorder, but that of the file system, shows another time."""
    real = time.time

    class Moved(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(seconds(real()), tz)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time", lambda: seconds(real()))
        patched.setattr(inbox, "datetime", Moved)
        patched.setattr(recording_module, "datetime", Moved)
        yield


def record(history: History, n: int, error: str | None = None) -> None:
    run = recording(history.path, **RUN).start()
    log(run, n)
    run.finish(error)


def log(run: Recorder, n: int) -> None:
    for epoch in range(n):
        run.log(0.5 + epoch / 10, epoch=epoch)


def state(history: History) -> tuple[str, float, int]:
    row = history.runs().set_index("run_id").loc["R"]
    return row["status"], row["value"], len(history.curves(["R"]))


@pytest.mark.parametrize("ingest_between", [True, False])
@pytest.mark.parametrize("step", [-120, -(10**8), 120])
def test_a_job_that_starts_again_after_its_clock_stepped(
    history: History, step: int, *, ingest_between: bool
) -> None:
    record(history, 1)
    if ingest_between:
        history.ingest_inbox()
    with clock_at(lambda now: now + step):
        record(history, 5)
    report = history.ingest_inbox()
    assert (report.n_updated, report.n_duplicate, report.n_quarantined) == (1, 0, 0)
    assert state(history) == ("finished", 0.9, 5)


def test_a_clock_that_steps_back_while_a_run_is_recorded(history: History) -> None:
    run = recording(history.path, **RUN).start()
    log(run, 2)
    history.ingest_inbox()
    assert state(history) == ("running", 0.6, 2)
    with clock_at(lambda now: now - 3600):
        log(run, 5)
        history.ingest_inbox()
        assert state(history) == ("running", 0.9, 5)
        run.finish()
    history.ingest_inbox()
    assert state(history) == ("finished", 0.9, 5)


@pytest.mark.parametrize("seconds", [0.0, 2.0**31, 2.0**32 + 1, 2e11])
def test_a_clock_of_any_year(history: History, seconds: float) -> None:
    with clock_at(lambda _: seconds):
        record(history, 3)
        report = history.ingest_inbox()
    assert (report.n_new, report.n_quarantined) == (1, 0)
    assert state(history) == ("finished", 0.7, 3)
    # A later state of another recording, at today's clock.
    record(history, 5)
    assert history.ingest_inbox().n_updated == 1
    assert state(history) == ("finished", 0.9, 5)


def test_two_recorders_at_once_under_one_name(history: History) -> None:
    first, second = (recording(history.path, **RUN).start() for _ in range(2))
    log(first, 5)
    log(second, 2)
    history.ingest_inbox()
    second.finish()
    assert history.ingest_inbox().n_quarantined == 0
    assert state(history)[:2] == ("finished", 0.6)
    # The other one is at work still: what is finished stays.
    history.ingest_inbox()
    assert state(history)[:2] == ("finished", 0.6)
    first.finish()
    report = history.ingest_inbox()
    assert (report.n_updated, report.n_duplicate, report.n_quarantined) == (1, 0, 0)
    assert state(history) == ("finished", 0.9, 5)


def test_a_failed_recording_does_not_replace_a_finished_one(history: History) -> None:
    record(history, 5)
    history.ingest_inbox()
    record(history, 2, error="OutOfMemoryError")
    report = history.ingest_inbox()
    assert (report.n_updated, report.n_duplicate, report.n_quarantined) == (0, 0, 1)
    assert state(history) == ("finished", 0.9, 5)
    (reject,) = history.quarantine.pending()
    assert "give it its own run_id" in reject.reason
    renamed = reject.raw.replace('"R"', '"R2"')
    assert history.replay(edited={reject.id: renamed}).n_new == 1


def test_reading_everything_again_changes_nothing(history: History) -> None:
    kept = []
    for n, error in ((1, None), (2, "killed"), (4, None), (3, None)):
        record(history, n, error)
        kept += [(path.name, path.read_bytes()) for path in history.inbox.iterdir()]
        history.ingest_inbox()
    before = state(history)
    assert before[:2] == ("finished", 0.7)
    for name, data in kept:
        (history.inbox / name).write_bytes(data)
        report = history.ingest_inbox()
        assert report.n_new == report.n_updated == 0
    assert state(history) == before


def test_the_order_within_one_recording() -> None:
    states = [
        recorded_progress(9, n, stage) for n in range(3) for stage in (AT_WORK, TERMINATED, AT_END)
    ]
    assert states == sorted(set(states))
    for recording_number in (0, 9, 2**30 - 1, 2**31, 10**300, -1):
        for n in (0, 2**29, 2**40):
            assert 0 <= recorded_progress(recording_number, n, AT_END) < 2**63


def test_recordings_are_told_apart() -> None:
    mine, later, other = (recorded_progress(*each, AT_END) for each in ((1, 5), (1, 9), (2, 5)))
    assert not are_of_two_recordings(mine, later)
    assert are_of_two_recordings(mine, other)
    # Logs of frameworks count steps or milliseconds, and are of no recording.
    assert not are_of_two_recordings(mine, 1_800_000_000_000)
    assert not are_of_two_recordings(-1, mine)
    # A recording of an earlier version began in a second of 2026.
    began = 1_790_000_000
    assert not are_of_two_recordings(began * 2**32 + 4 * 7, recorded_progress(began, 9, AT_END))
    assert Recorded({}).recording != Recorded({}).recording
