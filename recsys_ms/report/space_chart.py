"""Map of tasks and models: the transfer space of the NMF on its two leading principal axes."""

from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.transfer import NMFRanker

_MAX_POINTS: Final = 1500
#: Width and height of a name, and its distance from the point, in shares of the map.
_NAME_SIZE: Final = (0.2, 0.03)
_NAME_AWAY: Final = 0.027
SPACE_COLUMNS: Final = ("kind", "name", "x", "y", "n_pairs", "best")


def transfer_map(
    interactions: Interactions, *, seed: int = 0, max_points: int = _MAX_POINTS
) -> pd.DataFrame:
    """Place tasks and models on a plane: a model is near the tasks on which it does well.

    The NMF is fitted to the outcomes alone. A score is the inner product of a task's and a model's
    vector, so directions matter: vectors are scaled to length 1 and projected on their two leading
    principal components.

    Parameters
    ----------
    interactions : Interactions
    seed : int
        Of the factorisation.
    max_points : int
        Number of points at most: half tasks, half models, those with most runs.

    Returns
    -------
    DataFrame
        Columns ``SPACE_COLUMNS``: ``kind`` is ``task`` or ``model``, ``n_pairs`` its pairs with a
        run, ``best`` the best model of a task, or the task on which a model ranks highest.
        ``attrs["explained"]`` is the share of the vectors' variance in the plane,
        ``attrs["n_left_out"]`` the number of tasks and models left out.
    """
    ranker = NMFRanker()
    ranker.fit(interactions, rng=named_stream(seed, "transfer map"))
    tasks, task_runs = _fullest(interactions.task_index, max_points // 2)
    models, model_runs = _fullest(interactions.model_index, max_points // 2)
    task_ids = np.array(interactions.task_ids, dtype=object)
    model_ids = np.array(interactions.model_ids, dtype=object)
    views = (ranker.view(TaskQuery(task_id=name)) for name in task_ids[tasks])
    vectors = [ranker.task_factors(view) for view in views]
    vectors += list(ranker.model_factors(model_ids[models].tolist()))
    plane, explained = _plane(np.array(vectors))
    outcomes = pd.Series(interactions.outcomes)
    by_task = outcomes.groupby(interactions.task_index)
    best_models = model_ids[interactions.model_index[by_task.idxmax().to_numpy()]]
    by_model = by_task.rank(pct=True).groupby(interactions.model_index)
    best_tasks = task_ids[interactions.task_index[by_model.idxmax().to_numpy()]]
    frame = pd.DataFrame(
        {
            "kind": ["task"] * tasks.size + ["model"] * models.size,
            "name": [*task_ids[tasks], *model_ids[models]],
            "x": plane[:, 0],
            "y": plane[:, 1],
            "n_pairs": np.concatenate([task_runs, model_runs]),
            "best": [*best_models[tasks], *best_tasks[models]],
        }
    )
    n_all = interactions.n_tasks + interactions.n_models
    frame.attrs.update(explained=explained, n_left_out=n_all - len(frame))
    return frame


def names_below(frame: pd.DataFrame) -> list[bool]:
    """Whether a name is written below its point, because the place above is taken.

    Parameters
    ----------
    frame : DataFrame
        From :func:`transfer_map`; tasks are named, models are not.

    Returns
    -------
    list of bool, one per row
    """
    places = frame[["x", "y"]].to_numpy(dtype=np.float64)
    spread = np.ptp(places, axis=0) if len(places) else np.ones(2)
    places = places / np.where(spread > 0.0, spread, 1.0)
    taken: list[FloatArray] = []
    found = [False] * len(frame)
    rows = np.flatnonzero(frame["kind"].to_numpy() == "task")
    for row in rows[np.argsort(-places[rows, 1], kind="stable")].tolist():
        above, below = (places[row] + (0.0, side * _NAME_AWAY) for side in (1.0, -1.0))
        is_free = [
            not any((np.abs(place - other) < _NAME_SIZE).all() for other in taken)
            for place in (above, below)
        ]
        found[row] = not is_free[0] and is_free[1]
        taken.append(below if found[row] else above)
    return found


def _fullest(index: IntArray, most: int) -> tuple[IntArray, IntArray]:
    """Positions with most runs, ascending, and their numbers of runs."""
    counts = np.bincount(index)
    chosen: IntArray = np.sort(np.argsort(-counts, kind="stable")[:most])
    return chosen, counts[chosen]


def _plane(rows: FloatArray) -> tuple[FloatArray, float]:
    """Coordinates (n_rows, 2) of the rows' directions on their two leading principal components.

    The second value is the share of the variance in this plane.
    """
    # Imported here: it takes a second, and only a report needs it.
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    # A vector of zeros has no direction and stays in the middle.
    rows = normalize(rows)
    if rows.shape[1] < 2:
        rows = np.column_stack([rows, np.zeros(len(rows))])
    with np.errstate(invalid="ignore"):
        # Equal rows have no variance to share.
        found = PCA(n_components=2, svd_solver="full").fit(rows)
    share = float(found.explained_variance_ratio_.sum())
    return found.transform(rows), 1.0 if np.isnan(share) else share
