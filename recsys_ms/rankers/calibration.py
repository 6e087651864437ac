"""Intervals of a fitted ranker, measured on held-out tasks with the predictor that is served."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker, TaskQuery
from recsys_ms.rankers.held_out import held_out_tasks
from recsys_ms.rankers.intervals import IntervalCalibration

#: Numbers of observed runs for which intervals are measured.
N_OBSERVED: Final = (0, 1, 3, 5, 10, 20)
#: Choices of observed outcomes for each task: with one, few tasks leave much to chance.
_N_DRAWS: Final = 4
_N_FOLDS: Final = 5


def calibrate(
    base: BaseRanker,
    make: Callable[[], BaseRanker],
    interactions: Interactions,
    catalog: Catalog,
    *,
    coverage: float,
    seed: int,
    most_observed: int = N_OBSERVED[-1],
    progress: Progress = NO_PROGRESS,
) -> IntervalCalibration:
    """Measure how far a ranker is off on training tasks that it did not see.

    Parameters
    ----------
    base : BaseRanker
        Fitted on ``interactions``. What it measured itself is used; otherwise a ranker is trained
        without each fifth of the tasks, and asked about them.
    make : callable
        Makes an unfitted ranker of the same kind.
    interactions, catalog
        What ``base`` was fitted on.
    coverage : float
        Share of outcomes that an interval is to hold, in (0, 1).
    seed : int
        Of the folds, and of the outcomes that play observed ones.
    most_observed : int, optional
        Largest number of observed runs that intervals are needed for. Default: any.
    """
    strayed = base.strayed()
    if strayed is None:
        # Intervals for a number are between those of the measured numbers next to it.
        enough = next((n for n in N_OBSERVED if n >= most_observed), N_OBSERVED[-1])
        strayed = {n: [] for n in N_OBSERVED if n <= enough}
        folds = held_out_tasks(interactions, _N_FOLDS, seed)
        for number, tasks in enumerate(
            progress.track(folds, total=len(folds), description="intervals")
        ):
            inside = np.isin(interactions.task_index, tasks)
            if inside.all():
                continue
            rng = named_stream(seed, "intervals", str(number))
            ranker = make().fit(interactions.select(~inside), catalog, rng=rng)
            for task in tasks:
                for n, errors in strayed.items():
                    errors.extend(_strayed(ranker, interactions, int(task), n, seed))
    return IntervalCalibration.fit(strayed, coverage=coverage)


def shown_and_rest(
    n_models: int, n_observed: int, task_id: str, seed: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Positions of outcomes that play the observed ones, and of the others, several times."""
    if n_models < n_observed + 2:
        return
    for draw in range(_N_DRAWS if n_observed else 1):
        order = _order(n_models, task_id, seed, draw)
        yield order[:n_observed], np.sort(order[n_observed:])


@lru_cache(maxsize=_N_DRAWS)
def _order(n_models: int, task_id: str, seed: int, draw: int) -> IntArray:
    """The same for every number of observed outcomes: drawn once a task."""
    return named_stream(seed, "interval", task_id, str(draw)).permutation(n_models)


def _strayed(
    ranker: BaseRanker, interactions: Interactions, task: int, n_observed: int, seed: int
) -> list[FloatArray]:
    """Errors on a task of which some outcomes are observed; none where it has too few."""
    task_id, metric = interactions.task_ids[task], interactions.metrics[task]
    # A task without a comparable one cannot be put on its metric's scale from the others.
    if metric not in ranker.scale_prior.metrics:
        return []
    columns, outcomes = interactions.of_task(task_id)
    ids = np.array([interactions.model_ids[int(j)] for j in columns], dtype=object)
    query = TaskQuery(task_id=task_id, metric=metric)
    errors = []
    for seen, rest in shown_and_rest(outcomes.size, n_observed, task_id, seed):
        shown = dict(zip(ids[seen].tolist(), outcomes[seen].tolist(), strict=True))
        belief = ranker.believe(replace(query, observed=shown), ids[rest].tolist())
        errors.append(belief.strayed(outcomes[rest]))
    return [np.concatenate(errors)] if errors else []
