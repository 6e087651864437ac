"""The back-test: fit every ranker on every fold, predict the held-out tasks, score the answers."""

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.executor import Executor
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.bootstrap import N_DRAWS
from recsys_ms.evaluation.contestants import (
    Contestants,
    RankerFactory,
    RankerFailedError,
    as_prediction,
    asking,
    check_can_be_sent,
    contestants,
)
from recsys_ms.evaluation.folds import Fold, HeldOut, Protocol, can_believe
from recsys_ms.evaluation.inputs import (
    read_catalog,
    read_executor,
    read_history,
    read_protocol,
)
from recsys_ms.evaluation.metrics import (
    SECONDS,
    Metric,
    OwnMetrics,
    directions,
    more_metrics,
    task_metrics,
    undefined_metrics,
)
from recsys_ms.evaluation.protocols import LeaveOneTaskOut
from recsys_ms.evaluation.result import (
    ORACLE,
    BacktestResult,
    Cell,
    LeftOut,
    no_predictions,
)
from recsys_ms.history.forms import HistoryLike
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskQuery
from recsys_ms.rankers.calibration import calibrate
from recsys_ms.rankers.intervals import IntervalCalibration

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What every fold shares. Rankers are made where the fold runs."""

    rankers: tuple[tuple[str, RankerFactory], ...]
    catalog: Catalog | None
    seed: int
    keep: frozenset[str]
    coverage: float
    more: tuple[Metric, ...]


@dataclass(frozen=True, slots=True)
class _FoldAnswer:
    cells: list[Cell]
    left_out: list[LeftOut]
    predictions: list[pd.DataFrame]


def backtest(
    history: HistoryLike,
    rankers: Contestants,
    *,
    catalog: Catalog | None = None,
    protocol: str | Protocol = LeaveOneTaskOut.name,
    metrics: OwnMetrics = (),
    k: int | Iterable[int] | None = None,
    seed: int = 0,
    executor: Executor | str | None = None,
    progress: Progress = NO_PROGRESS,
    history_version: int | None = None,
    n_draws: int = N_DRAWS,
    keep: Collection[str] = (),
    coverage: float = 0.8,
) -> BacktestResult:
    """Compare rankers on the folds of a protocol.

    Rows ``popularity``, ``random``, ``static`` (larger models first) and ``oracle`` (the true
    outcomes) are always there. The result depends on the arguments and ``seed`` only: neither on
    the executor, nor on the order of rankers or folds (``seconds`` excepted).

    Parameters
    ----------
    history : History, Interactions, DataFrame, Series, mapping or iterable of triplets
        The whole history; the protocol splits it. A frame has the columns ``task_id``,
        ``model_id`` and ``value``, and may have those of runs (``metric``, ``direction``,
        ``status``, ``finished_at``); a triplet is (task, model, value), higher is better. Other
        forms are those of :func:`recsys_ms.history.forms.as_runs`.
    rankers : mapping of str to ranker, or sequence of rankers
        A ranker is a name or variant known to ``make_ranker`` (``nmf``, ``nmf:8``), an unfitted
        instance (each fold gets a copy), a class, or a function without arguments that makes one.
        It needs ``fit(interactions, catalog, *, rng)`` and ``predict(query, model_ids)`` only, see
        :class:`~recsys_ms.evaluation.contestants.RankerLike`. A mapping may bring its own
        ``popularity``, ``random`` and ``static``.
    catalog : Catalog, optional
        Cards of models and tasks, given to every ranker and to splits by family.
    protocol : str or Protocol
        How to split: a protocol, or the name of one with its defaults, see
        :func:`recsys_ms.evaluation.named_protocols.make_protocol`.
    metrics : mapping of str to callable, or sequence of callables
        User-defined metrics, besides those that are always there: ``f(prediction, outcomes)``
        returns a number, higher is better unless it is a
        :class:`~recsys_ms.evaluation.metrics.Metric` that says otherwise.
    k : int or sequence of int, optional
        Adds ``ndcg@k`` and ``regret@k`` to ``ndcg@5``, ``regret@1`` and ``regret@5``.
    seed : int
        Of splits, rankers and bootstrap.
    executor : Executor or str, optional
        Where folds run, or its text, such as ``processes:2``; default here, one after the other.
    progress : Progress
        Updated after every fold.
    history_version : int, optional
        Recorded in the result; default that of a History.
    n_draws : int
        Bootstrap draws behind the intervals.
    keep : collection of str
        Rankers whose predictions are kept, pair by pair, with intervals calibrated on the fold's
        training tasks.
    coverage : float
        Share of outcomes that those intervals are made to hold.

    Returns
    -------
    BacktestResult
        A ranker that raises any error on a fold scores NaN there; ``failures`` has the error, task
        and fold, the log has the traceback.

    Raises
    ------
    UsageError
        An invalid argument: an unknown name, an object that is not a ranker or a history, a class
        that the executor's processes cannot import, or a user-defined metric that failed.
    DataError
        The history cannot be used or split this way, or nothing is left to test.
    """
    read = read_history(history)
    interactions = read.interactions
    split = read_protocol(protocol, read.runs)
    catalog = read_catalog(catalog)
    place = read_executor(executor)
    chosen = contestants(rankers, keep=keep)
    more = more_metrics(metrics, k)
    check_can_be_sent(chosen, place, "ranker")
    check_can_be_sent({metric.name: metric.function for metric in more}, place, "metric")
    if not 0.0 < coverage < 1.0:
        raise UsageError(f"coverage is {coverage}, expected a share between 0 and 1")
    work = _Work(
        rankers=tuple(chosen.items()),
        catalog=catalog,
        seed=seed,
        keep=frozenset(keep),
        coverage=coverage,
        more=more,
    )
    folds = split.folds(interactions, catalog, seed=seed)
    answers = place.map(partial(_run_fold, work), folds)
    total, description = split.n_folds(interactions), f"back-test {split.name}"
    done = list(progress.track(answers, total=total, description=description))
    cells = [cell for answer in done for cell in answer.cells]
    predictions = [table for answer in done for table in answer.predictions]
    if not cells:
        raise DataError(
            f"{split.name} has nothing to test in {interactions.n_interactions} interactions of "
            f"{interactions.n_tasks} tasks and {interactions.n_models} models: every tested task "
            "has fewer than two models held out; add runs, or reveal or train on fewer"
        )
    return BacktestResult.from_cells(
        cells,
        protocol=split.name,
        settings=split.settings(),
        rankers=(*chosen, ORACLE),
        left_out=[entry for answer in done for entry in answer.left_out],
        task_metrics=dict(zip(interactions.task_ids, interactions.metrics, strict=True)),
        history_version=read.version if history_version is None else history_version,
        seed=seed,
        n_draws=n_draws,
        predictions=_joined(predictions),
        coverage=coverage if keep else None,
        higher_is_better=directions(more),
    )


def _joined(predictions: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table in an order that does not depend on which fold finished first."""
    if not predictions:
        return no_predictions()
    keys = ["ranker", "fold", "task_id", "model_id"]
    return pd.concat(predictions, ignore_index=True).sort_values(keys, ignore_index=True)


def _run_fold(work: _Work, fold: Fold) -> _FoldAnswer:
    left_out = [LeftOut(fold=fold.name, task_id=task_id) for task_id in fold.left_out]
    answer = _FoldAnswer([], left_out, [])
    if fold.held_out:
        for name, factory in work.rankers:
            _run_ranker(work, fold, name, factory, answer)
        for held_out in fold.held_out:
            truth = Prediction(held_out.outcomes, held_out.outcomes)
            answer.cells.append(_cell(work, ORACLE, fold, held_out, truth, seconds=0.0))
    return answer


def _run_ranker(
    work: _Work, fold: Fold, name: str, make: RankerFactory, found: _FoldAnswer
) -> None:
    stream = named_stream(work.seed, "ranker", fold.name, name)
    calibration = None
    try:
        with asking("fit"):
            ranker = make()
            # Timed from here: making the first ranker of a process imports its libraries.
            started = time.perf_counter()
            ranker.fit(fold.train, work.catalog, rng=stream)
            fit_seconds = time.perf_counter() - started
            if name in work.keep:
                catalog = work.catalog if work.catalog is not None else Catalog.empty()
                calibration = calibrate(
                    ranker,
                    make,
                    fold.train,
                    catalog,
                    coverage=work.coverage,
                    seed=work.seed,
                    most_observed=max(len(_known(fold, each).observed) for each in fold.held_out),
                )
    except RankerFailedError as failed:
        _log_failure(name, f"fold {fold.name}", failed)
        found.cells.extend(
            _cell(work, name, fold, held_out, None, failure=str(failed))
            for held_out in fold.held_out
        )
        return
    for held_out in fold.held_out:
        started = time.perf_counter()
        try:
            with asking("predict"):
                # A copy: a ranker may change its query, and the next one must not see that.
                query = replace(held_out.query, observed=dict(held_out.query.observed))
                said = ranker.predict(query, held_out.model_ids)
                answer = as_prediction(said, held_out.model_ids)
                seconds = fit_seconds + time.perf_counter() - started
                if calibration is not None:
                    found.predictions.append(_kept(ranker, name, fold, held_out, calibration))
        except RankerFailedError as failed:
            _log_failure(name, f"{held_out.query.task_id} of fold {fold.name}", failed)
            found.cells.append(_cell(work, name, fold, held_out, None, failure=str(failed)))
            continue
        found.cells.append(_cell(work, name, fold, held_out, answer, seconds=seconds))


def _log_failure(name: str, where: str, failed: RankerFailedError) -> None:
    _log.warning("ranker %s failed on %s: %s", name, where, failed, exc_info=failed.slip)


def _known(fold: Fold, held_out: HeldOut) -> TaskQuery:
    """The query with everything observed; training outcomes of a hot task count as observed."""
    query = held_out.query
    if query.task_id not in fold.train.task_ids:
        return query
    columns, outcomes = fold.train.of_task(query.task_id)
    ids = [fold.train.model_ids[int(i)] for i in columns]
    return replace(query, observed={**dict(zip(ids, outcomes, strict=True)), **query.observed})


def _kept(
    ranker: BaseRanker,
    name: str,
    fold: Fold,
    held_out: HeldOut,
    calibration: IntervalCalibration,
) -> pd.DataFrame:
    """Predictions of one task with their intervals, in the task's own metric."""
    query = _known(fold, held_out)
    if can_believe(ranker, query):
        belief = ranker.believe(query, held_out.model_ids)
        predicted = belief.predicted
        low, high = belief.interval(calibration.at(len(query.observed)))
    else:
        # No training task has this metric: models are only ordered.
        predicted = low = high = np.full(len(held_out.model_ids), np.nan)
    sign = held_out.sign
    low, high = (low, high) if sign > 0 else (high, low)
    return pd.DataFrame(
        {
            "ranker": name,
            "fold": fold.name,
            "task_id": query.task_id,
            "model_id": list(held_out.model_ids),
            "warmth": held_out.warmth,
            "n_observed": len(query.observed),
            "outcome": sign * held_out.outcomes,
            "predicted": sign * predicted,
            "low": sign * low,
            "high": sign * high,
        }
    )


def _cell(
    work: _Work,
    ranker: str,
    fold: Fold,
    held_out: HeldOut,
    prediction: Prediction | None,
    *,
    seconds: float = float("nan"),
    failure: str | None = None,
) -> Cell:
    task_id, outcomes = held_out.query.task_id, held_out.outcomes
    scores = undefined_metrics(work.more)
    if prediction is not None:
        scores |= task_metrics(prediction, outcomes)
        scores |= {m.name: m.score(prediction, outcomes, task_id=task_id) for m in work.more}
    return Cell(
        ranker=ranker,
        fold=fold.name,
        task_id=task_id,
        warmth=held_out.warmth,
        n_models=len(held_out.model_ids),
        n_observed=len(held_out.query.observed),
        scores={**scores, SECONDS: seconds},
        failure=failure,
    )
