"""Expected cost of a run, from past runs of other tasks and models.

A run takes long because its task is large or because its model is: the logarithm of the cost is a
sum of both, fitted by least squares to all runs with a cost.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions

_N_SWEEPS: Final = 50
#: Change of a logarithm at which the fit stops.
_TOLERANCE: Final = 1e-6


def expected_costs(
    interactions: Interactions, task_id: str, model_ids: Sequence[str]
) -> FloatArray | None:
    """Expected GPU seconds of a run of each model on a task, shape (n_models,), positive.

    Past costs of 0 or NaN are ignored; ``None`` where no run has a cost. A task with timed runs is
    as large as they say, another as the median task; a model without timed runs as the median one.
    """
    timed = interactions.costs > 0.0
    if not timed.any():
        return None
    task, model = interactions.task_index[timed], interactions.model_index[timed]
    cost = np.log(interactions.costs[timed])
    center = float(np.median(cost))
    of_task = np.zeros(interactions.n_tasks)
    of_model = np.zeros(interactions.n_models)
    for _ in range(_N_SWEEPS):
        before = of_model
        of_task = _effects(task, cost - center - of_model[model], interactions.n_tasks)
        of_model = _effects(model, cost - center - of_task[task], interactions.n_models)
        if np.abs(of_model - before).max() < _TOLERANCE:
            break
    known_tasks, known_models = np.unique(task), np.unique(model)
    own = interactions.task_ids.index(task_id) if task_id in interactions.task_ids else -1
    size = of_task[own] if own in known_tasks else np.median(of_task[known_tasks])
    usual = float(np.median(of_model[known_models]))
    effect = {interactions.model_ids[int(i)]: float(of_model[i]) for i in known_models}
    found: FloatArray = np.exp(
        center + size + np.array([effect.get(model_id, usual) for model_id in model_ids])
    )
    return found


def _effects(index: IntArray, residual: FloatArray, n: int) -> FloatArray:
    """Mean residual of each task or model, 0 where there is none."""
    sums = np.bincount(index, weights=residual, minlength=n)
    effects: FloatArray = sums / np.maximum(np.bincount(index, minlength=n), 1)
    return effects
