"""Carries out a study: skips what is done, spreads the rest over processes, survives being killed.

What is done is read from the history (its table and its inbox) and from the folder of checkpoints,
so there is no ledger that could disagree with them.
"""

import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch

from recsys_ms.core import columns as c
from recsys_ms.core.lock import file_lock
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.history.history import History
from training.zoo.bench import Bench
from training.zoo.study import Model, Study

_LOG = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReport:
    """What a call of :func:`run_study` did.

    Attributes
    ----------
    n_pretrained, n_finished, n_failed : int
        Done in this call.
    n_already : int
        Runs found in the history.
    """

    n_pretrained: int
    n_finished: int
    n_failed: int
    n_already: int


def recorded_runs(history: Path) -> dict[str, str]:
    """Status of every run that the history or its inbox holds, by run id."""
    opened = History.open(history)
    known = opened.runs([c.RUN_ID, c.STATUS])
    found = dict(zip(known[c.RUN_ID].astype(str), known[c.STATUS].astype(str), strict=True))
    for path in sorted(opened.inbox.glob("[!.]*.json")):
        try:
            payload = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            # Not ours to judge: the history will put it in quarantine.
            _LOG.warning("%s: not JSON, passed over", path)
            continue
        if c.RUN_ID in payload:
            found[str(payload[c.RUN_ID])] = str(payload.get(c.STATUS, "finished"))
    return found


def run_study(
    study: Study,
    bench: Bench,
    *,
    n_jobs: int = 1,
    retry_failed: bool = False,
    progress: Progress = NO_PROGRESS,
) -> StudyReport:
    """Do everything of ``study`` that is not done yet.

    Parameters
    ----------
    study : Study
    bench : Bench
        History and work folder; both are created.
    n_jobs : int
        Processes, one torch thread each.
    retry_failed : bool
        Do failed pre-trainings and runs again; the new result replaces the old one.
    progress : Progress
        Advances with every finished piece.

    Raises
    ------
    LockedError
        Another process runs a study in this work folder.
    StorageError
        A checkpoint or a run cannot be written; call again once it can.
    """
    bench.work.mkdir(parents=True, exist_ok=True)
    with file_lock(bench.work / "study.lock"):
        recorded = recorded_runs(bench.history)
        models = [m for m in study.models() if _to_pretrain(bench.outcome(m), m, retry_failed)]
        runs = [
            run
            for run in study.finetunings()
            if run.run_id not in recorded or (retry_failed and recorded[run.run_id] == "failed")
        ]
        with workers(n_jobs) as submit:
            for _ in progress.track(
                submit(bench.pretrain, models), total=len(models), description="pre-training"
            ):
                pass
            statuses: Counter[str] = Counter()
            for status in progress.track(
                submit(bench.finetune, runs), total=len(runs), description="fine-tuning"
            ):
                statuses[status] += 1
                if sum(statuses.values()) % 50 == 0:
                    _LOG.info("%d of %d runs done", sum(statuses.values()), len(runs))
    return StudyReport(
        n_pretrained=len(models),
        n_finished=statuses["finished"],
        n_failed=statuses["failed"],
        n_already=len(study.finetunings()) - len(runs),
    )


def _to_pretrain(outcome: Mapping[str, Any] | None, model: Model, retry_failed: bool) -> bool:
    if model.source is None:
        return False
    return outcome is None or (retry_failed and "error" in outcome)


#: A ``map`` that yields results as they come.
Submit: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextmanager
def workers(n_jobs: int) -> Iterator[Submit]:
    """Give a ``map`` that yields results as they come, in this process or in ``n_jobs`` others.

    One torch thread a process.
    """
    if n_jobs == 1:
        _single_thread()
        yield map
        return
    # "spawn": a forked process inherits torch's thread pool in a state that can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(n_jobs, mp_context=context, initializer=_single_thread)
    try:

        def submit(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
            """Keep a few pieces per process waiting, so that an interrupt leaves little behind."""
            queue = iter(items)
            waiting: set[Future[R]] = {
                pool.submit(function, item) for item in islice(queue, 2 * n_jobs)
            }
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                waiting |= {pool.submit(function, item) for item in islice(queue, len(done))}
                for future in done:
                    yield future.result()

        yield submit
    finally:
        pool.shutdown(cancel_futures=True)


def _single_thread() -> None:
    torch.set_num_threads(1)
