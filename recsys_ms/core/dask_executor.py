"""Executor of independent jobs on a Dask cluster."""

import operator
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from recsys_ms.core.errors import RecsysError, RefusedError, UsageError
from recsys_ms.core.files import file_errors
from recsys_ms.core.optional import require

Job = TypeVar("Job")
Answer = TypeVar("Answer")

SCHEME: Final = "dask"
_PURPOSE: Final = "run jobs on a Dask cluster"
#: Packages whose version changes numbers; only those installed here are compared.
_PACKAGES: Final = (
    "recsys-ms",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "lightgbm",
    "implicit",
    "numba",
    "torch",
    "timm",
)
#: Seconds between checks for new workers while an answer is awaited.
_POLL: Final = 5.0


class DaskExecutor:
    """Jobs on the workers of a Dask cluster, answers in the order of the jobs.

    Workers need the same versions of this package and of the numeric libraries; functions and jobs
    are sent to them, no file is shared. Jobs are submitted as workers become free, at most two per
    thread ahead. A job whose worker is lost runs again elsewhere. Dask's nannies limit each worker
    to one thread per numeric library.

    Parameters
    ----------
    address : str
        ``dask://host:port`` of a running scheduler.
    timeout : float
        Seconds to wait for the scheduler, and then for its first worker.

    Raises
    ------
    UsageError
        An invalid address.
    """

    def __init__(self, address: str, *, timeout: float = 30.0) -> None:
        try:
            parts = urlsplit(address)
            is_whole = parts.scheme == SCHEME and bool(parts.hostname) and parts.port is not None
        except ValueError:
            is_whole = False
        if not is_whole or parts.path.strip("/") or parts.query or parts.username:
            raise UsageError(
                f"executor {address!r} is not the address of a Dask scheduler; write "
                f"{SCHEME}://host:port, such as {SCHEME}://scheduler:8786"
            )
        self.address = address
        self.timeout = timeout
        self._location = parts.netloc

    def map(self, function: Callable[[Job], Answer], jobs: Iterable[Job]) -> Iterator[Answer]:
        """Yield ``function(job)`` for every job, in the order of ``jobs``.

        Raises
        ------
        MissingExtraError
            Dask is not installed here (extra ``cluster``).
        RefusedError
            A worker has other versions than this process, so that its numbers may differ.
        RecsysError
            The scheduler cannot be reached or was lost, it has no worker, or a job ended several
            workers, most often because memory ran out.
        """
        distributed = require("distributed", extra="cluster", purpose=_PURPOSE)
        lost = (distributed.CancelledError, distributed.comm.core.CommClosedError)
        client = self._connected(distributed)
        workers = _Workers(client, self.address)
        waiting: deque[Any] = deque()
        try:
            workers.check()
            # Sent once, not with each job, and kept by the scheduler, so that workers that come
            # later get it too.
            work = _submit(client, _same, function)
            for job in jobs:
                waiting.append(_submit(client, operator.call, work, job))
                if len(waiting) >= 2 * workers.check():
                    yield workers.answer(waiting.popleft())
            while waiting:
                yield workers.answer(waiting.popleft())
        except distributed.scheduler.KilledWorker as error:
            raise RecsysError(
                f"{self.address}: a job ended every worker it ran on ({error}); they may have run "
                "out of memory: give workers more, or fewer threads each"
            ) from error
        except lost as error:
            raise _lost(self.address, error) from error
        finally:
            # After an error, or where the caller stops early, no work must stay on the cluster.
            client.cancel(list(waiting), force=True)
            client.close(timeout=5)

    def _connected(self, distributed: Any) -> Any:
        with file_errors(
            f"{self.address}: no Dask scheduler answers within {self.timeout:g} s",
            "check that it runs and can be reached from here, or use 'processes'",
            raises=RecsysError,
        ):
            client = distributed.Client(
                f"tcp://{self._location}", timeout=self.timeout, set_as_default=False
            )
        try:
            client.wait_for_workers(1, timeout=self.timeout)
        except TimeoutError as error:
            client.close(timeout=5)
            raise RecsysError(
                f"{self.address}: the scheduler has no worker after {self.timeout:g} s; start some "
                f"with: dask worker tcp://{self._location} --nthreads 1"
            ) from error
        return client


class _Workers:
    """The workers of a cluster; the versions of each are checked once."""

    def __init__(self, client: Any, address: str) -> None:
        self._client = client
        self._address = address
        self._looked_at: set[str] = set()

    def check(self) -> int:
        """Number of threads; refuses workers whose versions, and so numbers, may differ."""
        try:
            threads: dict[str, int] = self._client.nthreads()
            is_new = not self._looked_at >= set(threads)
            found = self._client.get_versions(packages=list(_PACKAGES)) if is_new else None
        except OSError as error:
            raise _lost(self._address, error) from error
        if found is not None:
            here = _installed(found["client"])
            for worker, said in sorted(found["workers"].items()):
                if not isinstance(said, dict):
                    continue
                there = _installed(said)
                differing = [
                    f"{name} {there[name] or 'absent'} (here {here[name]})"
                    for name in here
                    if here[name] is not None and there[name] != here[name]
                ]
                if differing:
                    raise RefusedError(
                        f"{self._address}: worker {worker} has {', '.join(differing)}; its numbers "
                        "may differ, so install the same environment on workers and here"
                    )
                self._looked_at.add(worker)
        return max(1, sum(threads.values()))

    def answer(self, future: Any) -> Any:
        """Wait for a job, and check workers that join meanwhile."""
        while not future.done():
            with suppress(TimeoutError):
                future.exception(timeout=_POLL)
            self.check()
        return future.result()


def _lost(address: str, error: BaseException) -> RecsysError:
    return RecsysError(
        f"{address}: the scheduler was lost before the work was done ({error}); run again once it "
        "is back"
    )


def _installed(said: dict[str, Any]) -> dict[str, str | None]:
    packages = said["packages"]
    found = {name: packages.get(name) for name in _PACKAGES}
    return {"python": ".".join(packages["python"].split(".")[:2]), **found}


def _submit(client: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    with warnings.catch_warnings():
        # Dask warns about large jobs; a fold contains its training data.
        warnings.filterwarnings("ignore", message="Sending large graph")
        return client.submit(function, *arguments, pure=False)


def _same(value: Any) -> Any:
    return value
