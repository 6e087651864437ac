"""Predictions of training outcomes by rankers that did not see their task, or their model.

The inner half of a nested back-test: the blend, the order and the intervals are chosen on these, so
that nothing is ever chosen on the data it is judged by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import PLAIN_TASK, BaseRanker, TaskQuery


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

    A model that enters the catalog may belong to a family with runs, or to none; the blend for
    models without runs has to answer both.
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


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPredictions:
    """Standardised predicted outcomes of the training interactions, each (n_interactions,).

    NaN for interactions in no fold, and for folds whose complement is empty.

    Attributes
    ----------
    value : ndarray
        For the task as its card describes it.
    plain : ndarray
        For a task of which nothing is known; the difference is what the ranker makes of the card.
    """

    value: FloatArray
    plain: FloatArray


def predict_held_out(
    make: Callable[[], BaseRanker],
    interactions: Interactions,
    catalog: Catalog,
    held_out: Sequence[IntArray],
    *,
    axis: str,
    seed: int,
    progress: Progress = NO_PROGRESS,
    description: str = "back-test",
) -> HeldOutPredictions:
    """Predict each interaction by a ranker trained without its fold.

    Parameters
    ----------
    make : callable
        Makes an unfitted ranker.
    interactions, catalog
        Training data; the part outside a fold is what that fold's ranker sees.
    held_out : sequence of ndarray
        Indices of tasks (``axis="task"``) or models (``axis="model"``), a fold each.
    axis : {"task", "model"}
        What is held out.
    seed : int
        Seed of every fit.
    """
    index = interactions.task_index if axis == "task" else interactions.model_index
    value = np.full(interactions.n_interactions, np.nan)
    plain = np.full(interactions.n_interactions, np.nan)
    for number, fold in enumerate(
        progress.track(held_out, total=len(held_out), description=description)
    ):
        inside = np.isin(index, fold)
        if inside.all() or not inside.any():
            continue
        rng = named_stream(seed, "fold", axis, str(number))
        ranker = make().fit(interactions.select(~inside), catalog, rng=rng)
        for task in np.unique(interactions.task_index[inside]):
            rows = np.flatnonzero(inside & (interactions.task_index == task))
            query = TaskQuery(task_id=interactions.task_ids[int(task)])
            ids = [interactions.model_ids[int(j)] for j in interactions.model_index[rows]]
            view = ranker.view(query)
            value[rows] = ranker.predict_view(view, ids).value
            # A task that is described by nothing is the plain one itself.
            plain[rows] = (
                ranker.predict_view(PLAIN_TASK, ids).value
                if axis == "task" and view.card is not None
                else value[rows]
            )
    return HeldOutPredictions(value, plain)
