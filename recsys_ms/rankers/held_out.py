"""Inner folds: training outcomes predicted by rankers that did not see the task, or the model.

Weights, strengths and intervals are estimated on these predictions, so that nothing is estimated on
the data it was fitted to.
"""

from collections.abc import Sequence

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker, TaskQuery


def split_evenly(n_items: int, n_folds: int, rng: np.random.Generator) -> list[IntArray]:
    """Random folds of ``range(n_items)`` whose sizes differ by one at most; none is empty."""
    shuffled = rng.permutation(n_items).astype(np.int64)
    return [np.sort(part) for part in np.array_split(shuffled, min(n_folds, n_items))]


def held_out_tasks(interactions: Interactions, n_folds: int, seed: int) -> list[IntArray]:
    """Folds of task indices."""
    return split_evenly(interactions.n_tasks, n_folds, named_stream(seed, "task folds"))


def held_out_models(
    interactions: Interactions, families: Sequence[str | None], n_folds: int, seed: int
) -> list[IntArray]:
    """Folds of model indices: half of them hold out whole families, half single models.

    A model without runs may belong to a family with runs or to a new one.
    """
    rng = named_stream(seed, "model folds")
    single = split_evenly(interactions.n_models, n_folds, rng)
    named = sorted({family for family in families if family is not None})
    if len(named) < n_folds:
        return single
    of_family = {family: i for i, family in enumerate(named)}
    codes = np.array([of_family.get(f, -1) if f is not None else -1 for f in families])
    by_family = [
        np.flatnonzero(np.isin(codes, part)).astype(np.int64)
        for part in split_evenly(len(named), n_folds, rng)
    ]
    return single[: (n_folds + 1) // 2] + by_family[: n_folds // 2]


def predict_held_out(
    make: type[BaseRanker],
    interactions: Interactions,
    catalog: Catalog,
    held_out: Sequence[IntArray],
    *,
    seed: int,
    progress: Progress = NO_PROGRESS,
) -> FloatArray:
    """Standardised outcomes predicted by rankers that did not see the task, (n_interactions,).

    ``held_out`` are folds of task indices; a fold's ranker sees the other tasks. NaN for
    interactions in no fold, and for a fold of all tasks.
    """
    value = np.full(interactions.n_interactions, np.nan)
    folds = progress.track(
        held_out, total=len(held_out), description=f"inner back-test: {make.name}"
    )
    for number, fold in enumerate(folds):
        inside = np.isin(interactions.task_index, fold)
        if inside.all() or not inside.any():
            continue
        rng = named_stream(seed, "fold", "task", str(number))
        ranker = make().fit(interactions.select(~inside), catalog, rng=rng)
        for task in np.unique(interactions.task_index[inside]):
            rows = np.flatnonzero(interactions.task_index == task)
            query = TaskQuery(task_id=interactions.task_ids[int(task)])
            ids = [interactions.model_ids[int(j)] for j in interactions.model_index[rows]]
            value[rows] = ranker.predict(query, ids).value
    return value
