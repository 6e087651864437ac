"""Where independent jobs run: in this process, in several, or on a cluster.

Standard library only, so that a fresh worker process can set its thread counts before NumPy loads.
"""

import os
import pickle
import pickletools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from typing import Protocol, TypeVar

from recsys_ms.core.errors import RecsysError, UsageError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

#: Spellings that :func:`make_executor` reads, in words.
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

    Functions and jobs travel to the workers, so they must be importable by name there: no lambdas,
    no functions defined inside functions. A script that uses it needs the usual
    ``if __name__ == "__main__":``. Jobs are drawn as workers become free, at most two per worker
    ahead, so a long stream of large jobs is never in memory at once. Each worker computes with
    one thread per numeric library: the parallelism is the processes. They end with the answers, or
    with the block of :func:`kept_open`.

    Parameters
    ----------
    n_workers : int, optional
        Default: one per core.
    """

    def __init__(self, n_workers: int | None = None) -> None:
        if n_workers is not None and n_workers < 1:
            raise UsageError(f"n_workers must be 1 or more, got {n_workers}")
        self.n_workers = n_workers or os.cpu_count() or 1
        self._is_kept = False
        self._kept: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[Job], Answer], jobs: Iterable[Job]) -> Iterator[Answer]:
        """Yield ``function(job)`` for every job, in the order of ``jobs``.

        Raises
        ------
        UsageError
            The function cannot travel to another process.
        RecsysError
            A worker process was killed, most often for want of memory.
        """
        if reason := why_not_sent(function):
            raise UsageError(
                f"the work cannot be sent to another process ({reason}); name rankers by their "
                "registered names or module-level classes, or use the serial executor"
            )
        pool = self._kept or self._pool()
        if self._is_kept:
            self._kept = pool
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
            # An error, or a caller who stops early, must not wait for what nobody will read.
            if pool is self._kept:
                for future in waiting:
                    future.cancel()
            else:
                pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within the block, every :meth:`map` runs in the same processes."""
        self._is_kept = True
        try:
            yield
        finally:
            pool, self._kept, self._is_kept = self._kept, None, False
            # None were started where nothing was asked.
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.n_workers, mp_context=get_context("spawn"), initializer=_one_thread_each
        )


def why_not_sent(value: object) -> str | None:
    """Why a value cannot travel to a fresh process; ``None`` where it can.

    Functions and classes travel by the name of their module. What was typed into a notebook or a
    prompt has none that another process could import.
    """
    try:
        sent = bytes(ForkingPickler.dumps(value))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return str(error)
    if _main_is_a_file():
        return None
    for module, name in _named(sent):
        if module == "__main__":
            return f"{name} was defined in a notebook or at a prompt, in no module"
    return None


def _named(sent: bytes) -> Iterator[tuple[str, str]]:
    """Module and name of everything that a pickle imports; texts that are data do not count."""
    # The last two things put on the stack, and what was remembered, where they are texts.
    recent: list[str | None] = [None, None]
    memo: list[str | None] = []
    for code, argument, _ in pickletools.genops(sent):
        if code.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            yield module, name
        elif code.name == "STACK_GLOBAL":
            yield recent[-2] or "", recent[-1] or "it"
            recent = [recent[-1], None]
        elif code.name == "MEMOIZE":
            memo.append(recent[-1])
        elif code.name in ("BINGET", "LONG_BINGET"):
            recent = [recent[-1], memo[int(argument or 0)]]
        elif code.stack_after:
            recent = [recent[-1], argument if isinstance(argument, str) else None]


def _main_is_a_file() -> bool:
    """Whether a spawned process can import what this one calls ``__main__``."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return getattr(spec, "name", None) is not None or hasattr(main, "__file__")


@contextmanager
def kept_open(executor: Executor) -> Iterator[Executor]:
    """Use an executor several times without its processes starting anew each time.

    A fresh process takes seconds to import what a fold needs. Executors without processes of their
    own are handed through.
    """
    if isinstance(executor, ProcessExecutor):
        with executor.kept():
            yield executor
    else:
        yield executor


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
