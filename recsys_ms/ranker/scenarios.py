"""Past tasks as scenarios of a new one: rows of the tasks × models matrix, NaN without a run."""

import numpy as np

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.portfolio import MAX_SCENARIOS


def largest_tasks(interactions: Interactions) -> np.ndarray:
    """Ids of the tasks with most models, at most ``MAX_SCENARIOS``, in order of id."""
    sizes = np.bincount(interactions.task_index, minlength=interactions.n_tasks)
    chosen = np.sort(np.argsort(-sizes, kind="stable")[:MAX_SCENARIOS])
    return np.array([interactions.task_ids[int(i)] for i in chosen], dtype=object)


def rows_of_tasks(interactions: Interactions, data: FloatArray, task_ids: np.ndarray) -> FloatArray:
    """Rows of the tasks × models matrix of ``data``, NaN where there is no run."""
    full = np.full((task_ids.size, interactions.n_models), np.nan)
    for row, task_id in enumerate(task_ids):
        begin, end = np.searchsorted(
            interactions.task_index, interactions.task_position(task_id) + np.array([0, 1])
        )
        full[row, interactions.model_index[begin:end]] = data[begin:end]
    return full


def columns_of_models(scenarios: FloatArray, at: IntArray) -> FloatArray:
    """Columns of models, NaN for models without runs (position -1)."""
    return np.where(at >= 0, scenarios[:, np.maximum(at, 0)], np.nan)
