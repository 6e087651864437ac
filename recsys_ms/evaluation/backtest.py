"""The back-test: fit every ranker on every fold, ask about what was held out, score the answers."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, RecsysError, UsageError
from recsys_ms.core.executor import Executor, SerialExecutor
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.bootstrap import N_DRAWS
from recsys_ms.evaluation.folds import Fold, HeldOut, Protocol
from recsys_ms.evaluation.metrics import SECONDS, task_metrics, undefined_metrics
from recsys_ms.evaluation.result import (
    ORACLE,
    POPULARITY,
    RANDOM,
    STATIC,
    BacktestResult,
    Cell,
    LeftOut,
    no_predictions,
)
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import BaseRanker, Prediction
from recsys_ms.ranker.calibrate import calibrate
from recsys_ms.ranker.intervals import IntervalCalibration

RankerFactory: TypeAlias = Callable[[], BaseRanker]

_log = logging.getLogger(__name__)

#: What a ranker may raise on a fold without ending the back-test of the others.
_RANKER_ERRORS: Final = (
    RecsysError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    # What every fold shares. A factory of None means: by name, made where the fold runs.
    rankers: tuple[tuple[str, RankerFactory | None], ...]
    catalog: Catalog | None
    seed: int
    keep: frozenset[str]
    coverage: float


@dataclass(frozen=True, slots=True)
class _FoldAnswer:
    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]
    predictions: tuple[pd.DataFrame, ...]


def backtest(
    interactions: Interactions,
    *,
    catalog: Catalog | None = None,
    protocol: Protocol,
    rankers: Sequence[str] | Mapping[str, RankerFactory],
    seed: int = 0,
    executor: Executor | None = None,
    progress: Progress = NO_PROGRESS,
    history_version: int | None = None,
    n_draws: int = N_DRAWS,
    keep: Collection[str] = (),
    coverage: float = 0.8,
) -> BacktestResult:
    """Compare rankers on the folds of a protocol.

    Rows ``popularity``, ``random`` and ``static`` (the order by size) are always there, and
    ``oracle``, which answers the truth.
    The result depends on the arguments and ``seed`` only: neither on the executor, nor on the order
    of rankers or folds (``seconds`` excepted).

    Parameters
    ----------
    interactions : Interactions
        The whole history; the protocol takes it apart.
    catalog : Catalog, optional
        Cards of models and tasks, given to every ranker and to splits by family.
    protocol : Protocol
        How to split, see :func:`recsys_ms.evaluation.registry.make_protocol`.
    rankers : sequence of str, or mapping of str to callable
        Names known to ``make_ranker``, or name → function without arguments that makes an unfitted
        ranker. A mapping may bring its own ``popularity``, ``random`` and ``static``.
    seed : int
        Of splits, rankers and bootstrap.
    executor : Executor, optional
        Where folds run; default here, one after the other.
    progress : Progress
        Told of every finished fold.
    history_version : int, optional
        Noted in the result.
    n_draws : int
        Bootstrap draws behind the intervals.
    keep : collection of str
        Rankers whose predictions are kept, pair by pair, with intervals that were calibrated on the
        fold's training tasks.
    coverage : float
        Share of outcomes that those intervals are made to hold.

    Returns
    -------
    BacktestResult
        A ranker that fails on a fold scores NaN there and the reason is kept in ``failures``.

    Raises
    ------
    UsageError
        Unknown ranker name, or one called ``oracle``; one in ``keep`` that is not compared.
    DataError
        The history cannot be split this way, or nothing is left to test.
    """
    work = _Work(
        rankers=_resolved(rankers),
        catalog=catalog,
        seed=seed,
        keep=frozenset(keep),
        coverage=coverage,
    )
    if strange := sorted(work.keep - dict(work.rankers).keys()):
        raise UsageError(
            f"keep names {strange[0]!r}, which is not compared; compared are "
            f"{', '.join(name for name, _ in work.rankers)}"
        )
    folds = protocol.folds(interactions, catalog, seed=seed)
    answers = (executor or SerialExecutor()).map(partial(_run_fold, work), folds)
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    predictions: list[pd.DataFrame] = []
    for answer in progress.track(
        answers, total=protocol.n_folds(interactions), description=f"back-test {protocol.name}"
    ):
        cells.extend(answer.cells)
        left_out.extend(answer.left_out)
        predictions.extend(answer.predictions)
    if not cells:
        raise DataError(
            f"{protocol.name} has nothing to test in {interactions.n_interactions} interactions of "
            f"{interactions.n_tasks} tasks and {interactions.n_models} models: every tested task "
            "has fewer than two models held out; add runs, or reveal or train on fewer"
        )
    return BacktestResult.from_cells(
        cells,
        protocol=protocol.name,
        settings=protocol.settings(),
        rankers=(*(name for name, _ in work.rankers), ORACLE),
        left_out=left_out,
        task_metrics=dict(zip(interactions.task_ids, interactions.metrics, strict=True)),
        history_version=history_version,
        seed=seed,
        n_draws=n_draws,
        predictions=_joined(predictions),
        coverage=coverage if keep else None,
    )


def _joined(predictions: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table in an order that does not depend on who finished first."""
    if not predictions:
        return no_predictions()
    keys = ["ranker", "fold", "task_id", "model_id"]
    return pd.concat(predictions, ignore_index=True).sort_values(keys, ignore_index=True)


def _resolved(
    rankers: Sequence[str] | Mapping[str, RankerFactory],
) -> tuple[tuple[str, RankerFactory | None], ...]:
    chosen: dict[str, RankerFactory | None] = dict.fromkeys((POPULARITY, RANDOM, STATIC))
    if isinstance(rankers, str):
        raise UsageError(f"rankers must be a sequence of names, got the text {rankers!r}")
    if isinstance(rankers, Mapping):
        if ORACLE in rankers:
            raise UsageError("the row 'oracle' is computed here; give that ranker another name")
        chosen.update(rankers)
    else:
        chosen.update(dict.fromkeys(name for name in rankers if name != ORACLE))
    for name, factory in chosen.items():
        if factory is None:
            # A wrong name or a missing extra ends the back-test before its first fold.
            _by_name(name)
    return tuple(chosen.items())


def _by_name(name: str) -> BaseRanker:
    from recsys_ms.ranker.names import make_ranker

    ranker: BaseRanker = make_ranker(name)
    return ranker


def _run_fold(work: _Work, fold: Fold) -> _FoldAnswer:
    left_out = tuple(LeftOut(fold=fold.name, task_id=task_id) for task_id in fold.left_out)
    cells: list[Cell] = []
    predictions: list[pd.DataFrame] = []
    if fold.held_out:
        for name, factory in work.rankers:
            own, kept = _run_ranker(work, fold, name, factory)
            cells.extend(own)
            predictions.extend(kept)
        for held_out in fold.held_out:
            truth = Prediction(held_out.outcomes, held_out.outcomes)
            cells.append(
                _cell(ORACLE, fold, held_out, task_metrics(truth, held_out.outcomes), seconds=0.0)
            )
    return _FoldAnswer(tuple(cells), left_out, tuple(predictions))


def _run_ranker(
    work: _Work, fold: Fold, name: str, factory: RankerFactory | None
) -> tuple[list[Cell], list[pd.DataFrame]]:
    stream = named_stream(work.seed, "ranker", fold.name, name)
    make = factory or partial(_by_name, name)
    calibration = None
    try:
        ranker = make()
        # Making the first one of a process imports its libraries: no part of learning.
        started = time.perf_counter()
        ranker.fit(fold.train, work.catalog, rng=stream)
        fit_seconds = time.perf_counter() - started
        if name in work.keep:
            catalog = work.catalog if work.catalog is not None else Catalog.empty()
            calibration = calibrate(
                ranker, make, fold.train, catalog, coverage=work.coverage, seed=work.seed
            )
    except _RANKER_ERRORS as error:
        _log.warning("ranker %s failed to fit on fold %s: %s", name, fold.name, error)
        reason = f"fit: {type(error).__name__}: {error}"
        return [_failed(name, fold, held_out, reason) for held_out in fold.held_out], []
    cells: list[Cell] = []
    kept: list[pd.DataFrame] = []
    for held_out in fold.held_out:
        started = time.perf_counter()
        try:
            prediction = ranker.predict(held_out.query, held_out.model_ids)
            seconds = fit_seconds + time.perf_counter() - started
            if calibration is not None:
                kept.append(_kept(ranker, name, fold, held_out, calibration))
        except _RANKER_ERRORS as error:
            task_id = held_out.query.task_id
            _log.warning("ranker %s failed on %s of fold %s: %s", name, task_id, fold.name, error)
            reason = f"predict: {type(error).__name__}: {error}"
            cells.append(_failed(name, fold, held_out, reason))
            continue
        answer = Prediction(np.asarray(prediction.value), np.asarray(prediction.order))
        scores = task_metrics(answer, held_out.outcomes)
        cells.append(_cell(name, fold, held_out, scores, seconds=seconds))
    return cells, kept


def _kept(
    ranker: BaseRanker,
    name: str,
    fold: Fold,
    held_out: HeldOut,
    calibration: IntervalCalibration,
) -> pd.DataFrame:
    """Predictions of one task with their intervals, in the task's own metric."""
    query = held_out.query
    n_known = len(query.observed)
    if query.task_id in fold.train.task_ids:
        # A hot task: what training knows of it stands beside what the query tells.
        columns, outcomes = fold.train.of_task(query.task_id)
        ids = [fold.train.model_ids[int(i)] for i in columns]
        query = replace(query, observed={**dict(zip(ids, outcomes, strict=True)), **query.observed})
        n_known = len(query.observed)
    metric = ranker.metric_of(query)
    if ranker.scale_prior.can_place(metric, np.array(list(query.observed.values()))):
        belief = ranker.believe(query, held_out.model_ids)
        predicted = belief.predicted
        low, high = belief.interval(calibration.at(n_known))
    else:
        # No other task is measured in it: an order is all that can be predicted.
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
            "n_observed": n_known,
            "outcome": sign * held_out.outcomes,
            "predicted": sign * predicted,
            "low": sign * low,
            "high": sign * high,
        }
    )


def _failed(ranker: str, fold: Fold, held_out: HeldOut, reason: str) -> Cell:
    return _cell(ranker, fold, held_out, undefined_metrics(), seconds=float("nan"), failure=reason)


def _cell(
    ranker: str,
    fold: Fold,
    held_out: HeldOut,
    scores: dict[str, float],
    *,
    seconds: float,
    failure: str | None = None,
) -> Cell:
    return Cell(
        ranker=ranker,
        fold=fold.name,
        task_id=held_out.query.task_id,
        warmth=held_out.warmth,
        n_models=len(held_out.model_ids),
        n_observed=len(held_out.query.observed),
        scores={**scores, SECONDS: seconds},
        failure=failure,
    )
