"""Jobs on a real Dask cluster: a scheduler and two worker processes on this machine."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core import dask_executor
from recsys_ms.core.dask_executor import DaskExecutor
from recsys_ms.core.errors import (
    DataError,
    MissingExtraError,
    RecsysError,
    RefusedError,
    UsageError,
)
from recsys_ms.core.executor import SerialExecutor, make_executor

distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra cluster)")


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=0
    ) as made:
        yield made


@pytest.fixture
def executor(cluster) -> DaskExecutor:
    return DaskExecutor("dask://" + cluster.scheduler_address.removeprefix("tcp://"))


def _process(_: int) -> tuple[int, str]:
    time.sleep(0.05)
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def _waits(job: int) -> int:
    time.sleep(0.5)
    return job


def _refused(job: int) -> int:
    if job == 2:
        raise DataError("task 'birds' has no outcome")
    return job


def _ends_its_worker_once(job: tuple[Path, int]) -> int:
    marker, number = job
    if number == 3 and not marker.exists():
        marker.touch()
        os._exit(9)
    return number


def _ends_every_worker(job: int) -> int:
    if job == 1:
        os._exit(9)
    return job


def test_answers_come_in_order_from_several_processes(executor: DaskExecutor):
    jobs = [float(i) for i in range(40)]
    assert list(executor.map(math.sqrt, jobs)) == list(SerialExecutor().map(math.sqrt, jobs))
    found = list(executor.map(_process, range(12)))
    assert len({process for process, _ in found} - {os.getpid()}) == 2
    assert {threads for _, threads in found} == {"1"}


def test_jobs_are_drawn_late_and_who_stops_early_leaves_nothing_behind(
    executor: DaskExecutor, cluster
):
    drawn = []

    def jobs():
        for job in range(1000):
            drawn.append(job)
            yield job

    answers = executor.map(_process, jobs())
    next(answers)
    assert len(drawn) == 4  # two per thread, not the whole stream
    answers.close()
    deadline = time.monotonic() + 20
    while cluster.scheduler.tasks and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not cluster.scheduler.tasks


def test_large_jobs_travel_in_silence(executor: DaskExecutor, recwarn: pytest.WarningsRecorder):
    large = [np.full(3_000_000, float(i)) for i in range(2)]
    assert list(executor.map(np.sum, large)) == [0.0, 3_000_000.0]
    assert not [warning for warning in recwarn if "large graph" in str(warning.message)]


def test_an_error_of_a_job_is_raised_here_as_it_is(executor: DaskExecutor):
    with pytest.raises(DataError, match="task 'birds' has no outcome"):
        list(executor.map(_refused, range(5)))


def test_a_job_whose_worker_is_lost_runs_elsewhere(executor: DaskExecutor, tmp_path: Path):
    jobs = [(tmp_path / "ended", number) for number in range(6)]
    assert list(executor.map(_ends_its_worker_once, jobs)) == list(range(6))
    assert (tmp_path / "ended").exists()


def test_a_job_that_ends_every_worker_is_explained(executor: DaskExecutor):
    with pytest.raises(RecsysError, match=r"ended every worker it ran on .* out of memory"):
        list(executor.map(_ends_every_worker, range(3)))


#: A worker without this package, or one that says to have a LightGBM of its own.
_ODD_WORKER = """
import asyncio, sys
import distributed.versions as said
from distributed import Worker

real = said._version_cached
package, version = sys.argv[2], sys.argv[3] or None
said._version_cached = lambda name: version if name == package else real(name)
if version is None:
    sys.modules["recsys_ms"] = None

async def main():
    async with Worker(sys.argv[1], nthreads=1) as worker:
        await worker.finished()

asyncio.run(main())
"""


@contextmanager
def odd_worker(scheduler: str, package: str, version: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", _ODD_WORKER, scheduler, package, version], stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("package", "version", "said"),
    [
        ("lightgbm", "0.1", r"has lightgbm 0\.1 \(here \d"),
        ("recsys-ms", "", r"has recsys-ms absent \(here \d"),
    ],
)
def test_a_worker_of_another_environment_is_refused(package: str, version: str, said: str):
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        scheduler = empty.scheduler_address
        with odd_worker(scheduler, package, version), pytest.raises(RefusedError, match=said):
            list(DaskExecutor(f"dask://{scheduler[6:]}").map(math.sqrt, [1.0]))


def test_a_worker_that_comes_later_is_looked_at_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dask_executor, "_POLL", 0.2)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as small:
        scheduler = small.scheduler_address
        answers = DaskExecutor(f"dask://{scheduler[6:]}").map(_waits, range(100))
        next(answers)
        with (
            odd_worker(scheduler, "lightgbm", "0.1"),
            pytest.raises(RefusedError, match=r"has lightgbm 0\.1"),
        ):
            list(answers)


def test_a_scheduler_that_nobody_runs():
    with pytest.raises(RecsysError, match=r"dask://127\.0\.0\.1:9: no Dask scheduler answers"):
        list(DaskExecutor("dask://127.0.0.1:9", timeout=1.0).map(math.sqrt, [1.0]))


def test_a_scheduler_without_workers():
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        address = "dask://" + empty.scheduler_address.removeprefix("tcp://")
        with pytest.raises(RecsysError, match=r"has no worker after 0\.5 s; start some with: dask"):
            list(DaskExecutor(address, timeout=0.5).map(math.sqrt, [1.0]))


def test_a_scheduler_that_is_lost(tmp_path: Path):
    made = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    address = "dask://" + made.scheduler_address.removeprefix("tcp://")
    answers = DaskExecutor(address, timeout=2.0).map(_process, range(400))
    next(answers)
    made.close()
    with pytest.raises(RecsysError, match="the scheduler was lost"):
        list(answers)


@pytest.mark.parametrize(
    "text",
    ["dask", "dask:", "dask://", "dask://host", "dask://:8786", "dask://host:port", "dask://h:1/x"],
)
def test_bad_addresses(text: str):
    with pytest.raises(UsageError, match="host:port"):
        make_executor(text)


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"recsys-ms\[cluster\]"):
        list(DaskExecutor("dask://127.0.0.1:8786").map(math.sqrt, [1.0]))
