"""Executors: same answers in the same order, wherever they run."""

import math
import os
import sys
import types

import pytest

from recsys_ms.core.errors import RecsysError, UsageError
from recsys_ms.core.executor import (
    ProcessExecutor,
    SerialExecutor,
    kept_open,
    make_executor,
    why_not_sent,
)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def _threads(_: int) -> list[str]:
    return [os.environ[name] for name in _THREADS]


def _killed(job: int) -> int:
    if job == 1:
        os._exit(9)
    return job


def _failing(job: int) -> int:
    if job == 2:
        raise ValueError("job 2")
    return job


def test_answers_come_in_order_and_jobs_are_drawn_late():
    drawn = []

    def jobs():
        for job in range(1, 8):
            drawn.append(job)
            yield float(job)

    answers = ProcessExecutor(1).map(math.sqrt, jobs())
    assert next(answers) == 1.0
    assert drawn == [1, 2]  # two per worker, not the whole stream
    assert list(answers) == list(SerialExecutor().map(math.sqrt, range(2, 8)))


def test_a_worker_computes_with_one_thread(monkeypatch):
    for name in _THREADS:
        monkeypatch.setenv(name, "3")
    assert list(ProcessExecutor(1).map(_threads, [0])) == [["1"] * 4]
    assert _threads(0) == ["3"] * 4


def test_an_error_of_a_job_is_raised_here():
    with pytest.raises(ValueError, match="job 2"):
        list(ProcessExecutor(1).map(_failing, range(5)))


def test_a_killed_worker_is_explained():
    with pytest.raises(RecsysError, match="out of memory"):
        list(ProcessExecutor(1).map(_killed, range(3)))


def test_what_cannot_travel_is_refused_at_once():
    with pytest.raises(UsageError, match="serial executor"):
        list(ProcessExecutor(1).map(lambda job: job, [1]))


def test_why_a_value_stays(monkeypatch):
    assert why_not_sent(_failing) is None
    assert why_not_sent({"a": [1, "__main__"]}) is None
    assert "lambda" in why_not_sent(lambda: 0)
    # At a prompt, main has neither a file nor a name that another process could import.
    prompt = types.ModuleType("__main__")
    exec("class Mine: pass\ndef work(): pass", prompt.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", prompt)
    for own, name in ((prompt.Mine, "Mine"), (prompt.Mine(), "Mine"), (prompt.work, "work")):
        assert why_not_sent(own) == f"{name} was defined in a notebook or at a prompt, in no module"
    assert why_not_sent(_failing) is None
    # A script has a file: processes import it.
    prompt.__file__ = "script.py"
    assert why_not_sent(prompt.Mine) is None


def test_spellings():
    assert make_executor("dask://scheduler:8786").address == "dask://scheduler:8786"
    assert isinstance(make_executor("serial"), SerialExecutor)
    assert make_executor("processes:3").n_workers == 3
    assert make_executor("processes").n_workers == os.cpu_count()


@pytest.mark.parametrize(
    "text", ["", "threads", "processes:", "processes:0", "processes:x", "serial:1"]
)
def test_bad_spellings(text):
    with pytest.raises(UsageError):
        make_executor(text)


def _process(_: int) -> int:
    return os.getpid()


def test_processes_that_are_kept_open_serve_every_map() -> None:
    executor = ProcessExecutor(1)
    with kept_open(executor) as kept:
        assert kept is executor
        first = set(kept.map(_process, range(2)))
        with pytest.raises(ValueError, match="job 2"):
            list(kept.map(_failing, range(5)))
        stopped = kept.map(_process, range(9))
        next(stopped)
        stopped.close()
        # Neither an error nor a caller who stops early ends them.
        assert set(kept.map(_process, range(2))) == first
    assert len(first) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(first.pop(), 0)
    assert set(executor.map(_process, [0])) != set(executor.map(_process, [0]))


def test_nothing_is_started_where_nothing_is_asked() -> None:
    executor = ProcessExecutor(1)
    with kept_open(executor):
        pass
    assert executor.kept is None
    serial = SerialExecutor()
    with kept_open(serial) as kept:
        assert kept is serial
