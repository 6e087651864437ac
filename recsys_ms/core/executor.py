"""Executors: independent jobs run in this process, in several, or on a cluster.

Standard library only, so that a fresh worker process can set its thread counts before NumPy loads.
"""

import os
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from io import BytesIO
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any, Protocol, TypeVar

from recsys_ms.core.errors import RecsysError, UsageError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

#: What :func:`make_executor` reads, for messages.
EXECUTORS = "serial, processes, processes:N or dask://host:port"

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class Executor(Protocol):
    """Runs a function over jobs. Which executor runs it must not change an answer."""

    def map(self, function: Callable[[Job], Answer], jobs: Iterable[Job]) -> Iterator[Answer]:
        """Yield ``function(job)`` for every job, in the order of ``jobs``."""
        ...


class SerialExecutor:
    """One job after the other, here."""

    def map(self, function: Callable[[Job], Answer], jobs: Iterable[Job]) -> Iterator[Answer]:
        """Yield ``function(job)`` for every job, in the order of ``jobs``."""
        yield from map(function, jobs)


class ProcessExecutor:
    """Jobs in ``n_workers`` fresh processes (``spawn``), answers in the order of the jobs.

    Functions and jobs are pickled, so they must be importable by name: no lambdas, no functions
    defined inside functions. A script that uses it needs the usual
    ``if __name__ == "__main__":``. Jobs are drawn as workers become free, at most two per worker
    ahead, so that not all jobs are in memory at once. Each worker uses one thread per numeric
    library. The processes end with the answers, or with the block of :func:`kept_open`.

    Parameters
    ----------
    n_workers : int, optional
        Default: one per core.
    """

    def __init__(self, n_workers: int | None = None) -> None:
        if n_workers is not None and n_workers < 1:
            raise UsageError(f"n_workers is {n_workers}, expected 1 or more")
        self.n_workers = n_workers or os.cpu_count() or 1
        #: Processes that every :meth:`map` uses, within the block of :func:`kept_open`.
        self.kept: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[Job], Answer], jobs: Iterable[Job]) -> Iterator[Answer]:
        """Yield ``function(job)`` for every job, in the order of ``jobs``.

        Raises
        ------
        UsageError
            The function cannot be sent to another process.
        RecsysError
            A worker process was killed, most often because memory ran out.
        """
        if reason := why_not_sent(function):
            raise UsageError(
                f"the work cannot be sent to another process ({reason}); name rankers by their "
                "registered names or module-level classes, or use the serial executor"
            )
        pool = self.kept or self.pool()
        waiting: deque[Future[Answer]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(function, job))
                if len(waiting) >= 2 * self.n_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise RecsysError(
                f"a worker process ended before its job ({error}); it may have run out of memory: "
                "use fewer workers, or the serial executor"
            ) from error
        finally:
            # After an error, or where the caller stops early, the other answers are not needed.
            if pool is self.kept:
                for future in waiting:
                    future.cancel()
            else:
                pool.shutdown(wait=True, cancel_futures=True)

    def pool(self) -> ProcessPoolExecutor:
        """Fresh processes, which start with the first job."""
        return ProcessPoolExecutor(
            self.n_workers, mp_context=get_context("spawn"), initializer=_one_thread_each
        )


class _Sent(ForkingPickler):
    """Pickles for another process; refuses what was typed into a notebook or at a prompt."""

    def reducer_override(self, value: object) -> Any:
        """Refuse a class or function of a ``__main__`` that is not a file; all else as usual."""
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            main = sys.modules["__main__"]
            spec = getattr(main, "__spec__", None)
            if getattr(spec, "name", None) is None and not hasattr(main, "__file__"):
                raise pickle.PicklingError(
                    f"{value.__qualname__} was defined in a notebook or at a prompt, in no module"
                )
        return NotImplemented


def why_not_sent(value: object) -> str | None:
    """Why a value cannot be sent to a fresh process; ``None`` where it can.

    Functions and classes are sent by the name of their module, which the process imports.
    """
    try:
        _Sent(BytesIO()).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return str(error)
    return None


@contextmanager
def kept_open(executor: Executor) -> Iterator[Executor]:
    """Keep an executor's processes for the whole block: a fresh one takes seconds to import.

    Executors without processes of their own are returned as they are.
    """
    if not isinstance(executor, ProcessExecutor):
        yield executor
        return
    pool = executor.kept = executor.pool()
    try:
        yield executor
    finally:
        executor.kept = None
        pool.shutdown(wait=True, cancel_futures=True)


def make_executor(text: str) -> Executor:
    """Read an executor from its command-line spelling.

    Parameters
    ----------
    text : str
        ``serial``, ``processes`` (one per core), ``processes:N``, or ``dask://host:port`` of a
        scheduler (:class:`recsys_ms.core.dask_executor.DaskExecutor`).

    Raises
    ------
    UsageError
        Anything else.
    """
    kind, _, count = text.partition(":")
    if kind == "serial" and not count:
        return SerialExecutor()
    if kind == "processes" and (count.isdecimal() or text == kind):
        return ProcessExecutor(int(count) if count else None)
    if kind == "dask":
        # A fresh worker process imports this module before it may load anything else.
        from recsys_ms.core.dask_executor import DaskExecutor

        return DaskExecutor(text)
    raise UsageError(f"executor {text!r} is unknown; use {EXECUTORS}")


def _one_thread_each() -> None:
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = "1"
