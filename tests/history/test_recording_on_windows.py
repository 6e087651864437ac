"""Recorders without fcntl: nothing is lost in a kill, and open files keep their names."""

from pathlib import Path
from typing import Any

import pytest
from child import HIDDEN_FCNTL, loaded_by, run_python
from recorded_runs import only

from recsys_ms.history.history import History
from recsys_ms.history.recorder.journal import JournalWriter
from recsys_ms.history.recorder.recording import recording

RECORD = """
import signal, subprocess
from recsys_ms.history.inbox.inbox import record_run
from recsys_ms.history.recorder.recording import recording
of = {"task_id": "t", "metric": "a", "direction": "max"}
with recording(sys.argv[1], model_id="m", run_id="finished", **of) as run:
    run.log(0.5, epoch=1)
record_run(sys.argv[1], model_id="m", value=0.25, run_id="plain", **of)
at_work = recording(sys.argv[1], model_id="m", run_id="at work", **of).start()
at_work.log(0.75, epoch=1)
look = [sys.executable, "-c", sys.argv[2], sys.argv[1]]
print(subprocess.run(look, capture_output=True, text=True).stdout, end="", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
LOOK = """
from pathlib import Path
from recsys_ms.history.recorder.journal import list_journals, read_journals
for each in read_journals(list_journals(Path(sys.argv[1], "inbox"))):
    print(each.dead, each.recorded.fields["run_id"], len(each.recorded.points))
"""
INGEST = """
from recsys_ms.history.history import History
history = History.open(sys.argv[1])
report = history.ingest_inbox()
runs = history.runs()[["run_id", "status"]]
print(report.n_quarantined, *runs.itertuples(index=False, name=None))
"""


@pytest.mark.parametrize("reader", ["import sys", HIDDEN_FCNTL], ids=["fcntl", "no fcntl"])
def test_a_recorder_without_fcntl(tmp_path: Path, reader: str) -> None:
    history = History.open(tmp_path / "H")
    # The recorder that is at work is looked at from another process, and then killed.
    seen = run_python(HIDDEN_FCNTL + RECORD, history.path, reader + LOOK, returncode=-9).stdout
    assert seen == "False at work 1\n"
    assert run_python(reader + LOOK, history.path).stdout == "True at work 1\n"
    if reader == HIDDEN_FCNTL:
        told = run_python(HIDDEN_FCNTL + INGEST, history.path).stdout
        assert told == "0 ('at work', 'failed') ('finished', 'finished') ('plain', 'finished')\n"
        assert list(history.inbox.iterdir()) == []


def test_a_recorder_with_fcntl_needs_no_library() -> None:
    assert loaded_by("import recsys_ms.history.recorder.recording", "filelock") == set()


def test_open_files_that_cannot_be_renamed_or_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History.open(tmp_path / "H")
    n_open = 1
    close = JournalWriter.close

    def closed(self: JournalWriter) -> None:
        nonlocal n_open
        n_open -= 1
        close(self)

    def unless_open(act: Any) -> Any:
        def acted(path: Path, *given: Any, **named: Any) -> Any:
            if n_open and ".open-" in "".join(map(str, (path, *given))):
                raise PermissionError(13, "The file is open")
            return act(path, *given, **named)

        return acted

    monkeypatch.setattr(JournalWriter, "close", closed)
    monkeypatch.setattr(Path, "rename", unless_open(Path.rename))
    monkeypatch.setattr(Path, "unlink", unless_open(Path.unlink))
    run = recording(history.path, model_id="m", task_id="t", metric="a", direction="max").start()
    n_open = 1
    run.log(0.5)
    history.ingest_inbox()
    assert (only(history)["status"], only(history)["value"]) == ("running", 0.5)
    run.finish()
    assert [path.suffix for path in history.inbox.iterdir()] == [".json"]
    history.ingest_inbox()
    assert only(history)["status"] == "finished"
