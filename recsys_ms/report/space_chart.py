"""Map of tasks and models: the transfer space of the NMF, looked at from its widest side."""

from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.transfer import NMFRanker

_MAX_POINTS: Final = 1500
#: Width and height of a name, and how far it stands from its point, in shares of the map.
_NAME_SIZE: Final = (0.2, 0.03)
_NAME_AWAY: Final = 0.027
SPACE_COLUMNS: Final = ("kind", "name", "x", "y", "n_pairs", "best")


def transfer_map(
    interactions: Interactions, *, seed: int = 0, max_points: int = _MAX_POINTS
) -> pd.DataFrame:
    """Place tasks and models on a plane, so that a model stands near the tasks it does well on.

    The NMF is fitted to the outcomes alone. A score is the inner product of a task's and a model's
    vector, so that directions decide: vectors are brought to length 1, and the plane is that of
    their two leading principal components.

    Parameters
    ----------
    interactions : Interactions
    seed : int
        Of the factorisation.
    max_points : int
        Tasks and models at most, each half of it; those with most runs.

    Returns
    -------
    DataFrame
        Columns ``SPACE_COLUMNS``: ``kind`` is ``task`` or ``model``, ``n_pairs`` its pairs with a
        run, ``best`` the best model of a task, the task a model stands highest on.
        ``attrs["explained"]`` is the share of the vectors' variance in the plane,
        ``attrs["n_left_out"]`` the number of tasks and models that are not shown.
    """
    ranker = NMFRanker()
    ranker.fit(interactions, rng=named_stream(seed, "transfer map"))
    tasks = _fullest(interactions.task_index, interactions.n_tasks, max_points // 2)
    models = _fullest(interactions.model_index, interactions.n_models, max_points // 2)
    task_rows = np.array(
        [
            ranker.task_factors(ranker.view(TaskQuery(task_id=interactions.task_ids[int(i)])))
            for i in tasks
        ]
    )
    model_rows = ranker.model_factors([interactions.model_ids[int(i)] for i in models])
    plane, explained = _plane(_unit(np.vstack([task_rows, model_rows])))
    best_model, best_task = _best(interactions)
    n_runs = (
        np.bincount(interactions.task_index, minlength=interactions.n_tasks)[tasks],
        np.bincount(interactions.model_index, minlength=interactions.n_models)[models],
    )
    frame = pd.DataFrame(
        {
            "kind": ["task"] * tasks.size + ["model"] * models.size,
            "name": [interactions.task_ids[int(i)] for i in tasks]
            + [interactions.model_ids[int(i)] for i in models],
            "x": plane[:, 0],
            "y": plane[:, 1],
            "n_pairs": np.concatenate(n_runs),
            "best": [best_model[int(i)] for i in tasks] + [best_task[int(i)] for i in models],
        }
    )
    frame.attrs["explained"] = explained
    n_all = interactions.n_tasks + interactions.n_models
    frame.attrs["n_left_out"] = n_all - len(frame)
    return frame


def names_below(frame: pd.DataFrame) -> list[bool]:
    """Whether a name is written below its point, since another one is in its place above.

    Parameters
    ----------
    frame : DataFrame
        What :func:`transfer_map` gave; tasks are named, models are not.

    Returns
    -------
    list of bool, one a row
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


def _fullest(index: IntArray, n: int, most: int) -> IntArray:
    counts = np.bincount(index, minlength=n)
    chosen: IntArray = np.sort(np.argsort(-counts, kind="stable")[:most])
    return chosen


def _unit(rows: FloatArray) -> FloatArray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    # A vector of zeros has no direction and stays in the middle.
    unit: FloatArray = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0.0)
    return unit


def _plane(rows: FloatArray) -> tuple[FloatArray, float]:
    """Coordinates (n_rows, 2) on the two leading principal components, and their variance share."""
    centred = rows - rows.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    flat: FloatArray = left * singular
    # The sign of a singular vector is arbitrary: its largest entry is made positive.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    flat = flat * np.where(signs == 0.0, 1.0, signs)
    if flat.shape[1] < 2:
        flat = np.column_stack([flat, np.zeros((len(rows), 2 - flat.shape[1]))])
    total = float((singular**2).sum())
    explained = float((singular[:2] ** 2).sum()) / total if total > 0.0 else 1.0
    return flat[:, :2], explained


def _best(interactions: Interactions) -> tuple[dict[int, str], dict[int, str]]:
    """Best model of each task, and the task each model stands highest on, by share beaten."""
    frame = pd.DataFrame(
        {
            "task": interactions.task_index,
            "model": interactions.model_index,
            "outcome": interactions.outcomes,
        }
    )
    standing = frame.groupby("task")["outcome"].rank(pct=True)
    by_task = frame.loc[frame.groupby("task")["outcome"].idxmax()]
    by_model = frame.loc[standing.groupby(frame["model"]).idxmax()]
    return (
        {
            int(r): interactions.model_ids[int(m)]
            for r, m in by_task[["task", "model"]].to_numpy().astype(np.int64)
        },
        {
            int(m): interactions.task_ids[int(r)]
            for r, m in by_model[["task", "model"]].to_numpy().astype(np.int64)
        },
    )
