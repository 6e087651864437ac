"""The back-test: fit every ranker on every fold, ask about what was held out, score the answers."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, RecsysError, UsageError
from recsys_ms.core.executor import Executor, SerialExecutor
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.bootstrap import N_DRAWS
from recsys_ms.evaluation.folds import Fold, HeldOut, Protocol
from recsys_ms.evaluation.metrics import SECONDS, task_metrics, undefined_metrics
from recsys_ms.evaluation.result import ORACLE, POPULARITY, RANDOM, BacktestResult, Cell, LeftOut
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import BaseRanker, Prediction

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


@dataclass(frozen=True, slots=True)
class _FoldAnswer:
    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]


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
) -> BacktestResult:
    """Compare rankers on the folds of a protocol.

    Rows ``popularity`` and ``random`` are always there, and ``oracle``, which answers the truth.
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
        ranker. A mapping may bring its own ``popularity`` and ``random``.
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

    Returns
    -------
    BacktestResult
        A ranker that fails on a fold scores NaN there and the reason is kept in ``failures``.

    Raises
    ------
    UsageError
        Unknown ranker name, or one called ``oracle``.
    DataError
        The history cannot be split this way, or nothing is left to test.
    """
    work = _Work(rankers=_resolved(rankers), catalog=catalog, seed=seed)
    folds = protocol.folds(interactions, catalog, seed=seed)
    answers = (executor or SerialExecutor()).map(partial(_run_fold, work), folds)
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    for answer in progress.track(
        answers, total=protocol.n_folds(interactions), description=f"back-test {protocol.name}"
    ):
        cells.extend(answer.cells)
        left_out.extend(answer.left_out)
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
    )


def _resolved(
    rankers: Sequence[str] | Mapping[str, RankerFactory],
) -> tuple[tuple[str, RankerFactory | None], ...]:
    chosen: dict[str, RankerFactory | None] = dict.fromkeys((POPULARITY, RANDOM))
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
    if fold.held_out:
        for name, factory in work.rankers:
            cells.extend(_run_ranker(work, fold, name, factory))
        for held_out in fold.held_out:
            truth = Prediction(held_out.outcomes, held_out.outcomes)
            cells.append(
                _cell(ORACLE, fold, held_out, task_metrics(truth, held_out.outcomes), seconds=0.0)
            )
    return _FoldAnswer(tuple(cells), left_out)


def _run_ranker(
    work: _Work, fold: Fold, name: str, factory: RankerFactory | None
) -> Iterable[Cell]:
    stream = named_stream(work.seed, "ranker", fold.name, name)
    try:
        ranker = factory() if factory is not None else _by_name(name)
        # Making the first one of a process imports its libraries: no part of learning.
        started = time.perf_counter()
        ranker.fit(fold.train, work.catalog, rng=stream)
    except _RANKER_ERRORS as error:
        _log.warning("ranker %s failed to fit on fold %s: %s", name, fold.name, error)
        reason = f"fit: {type(error).__name__}: {error}"
        return [_failed(name, fold, held_out, reason) for held_out in fold.held_out]
    fit_seconds = time.perf_counter() - started
    return [_ask(ranker, name, fold, held_out, fit_seconds) for held_out in fold.held_out]


def _ask(ranker: BaseRanker, name: str, fold: Fold, held_out: HeldOut, fit_seconds: float) -> Cell:
    started = time.perf_counter()
    try:
        prediction = ranker.predict(held_out.query, held_out.model_ids)
    except _RANKER_ERRORS as error:
        _log.warning(
            "ranker %s failed on task %s of fold %s: %s",
            name,
            held_out.query.task_id,
            fold.name,
            error,
        )
        return _failed(name, fold, held_out, f"predict: {type(error).__name__}: {error}")
    seconds = fit_seconds + time.perf_counter() - started
    scores = task_metrics(
        Prediction(np.asarray(prediction.value), np.asarray(prediction.order)), held_out.outcomes
    )
    return _cell(name, fold, held_out, scores, seconds=seconds)


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
