"""What to fine-tune next: pairs without a run, by expected improvement."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.serving.ranker import Ranker

MISSING_COLUMNS: Final = (
    *("task_id", "model_id", "metric", "predicted", "low", "high"),
    *("best_known", "gain", "gpu_hours", "value"),
)
_TOP: Final = 20
_MAX_TASKS: Final = 100
#: Number of runs of one task that are listed at most.
_PER_TASK: Final = 5
_SECONDS_AN_HOUR: Final = 3600.0


def missing_runs(
    ranker: Ranker,
    interactions: Interactions,
    *,
    top: int = _TOP,
    max_tasks: int = _MAX_TASKS,
) -> pd.DataFrame:
    """Pairs without a run, by expected improvement on the task's best known outcome.

    They are the answers of :meth:`recsys_ms.Ranker.suggest` for each task: the improvement that a
    run adds to those of its task above it. Where costs were logged, pairs are sorted by improvement
    per GPU hour. Where tasks have several metrics, improvements are sorted in units of the spread
    of the task's outcomes.

    Parameters
    ----------
    ranker : Ranker
        Fitted on the history, or on one like it.
    interactions : Interactions
        Outcomes of the existing runs.
    top : int
        Number of rows at most.
    max_tasks : int
        Number of tasks to look at; those with the fewest runs.

    Returns
    -------
    DataFrame
        Columns ``MISSING_COLUMNS``, best first: predictions, interval and best known outcome in the
        task's metric; ``gpu_hours`` is NaN where no cost was logged. ``attrs["n_missing"]``
        counts all missing pairs of the history's tasks, ``attrs["n_tasks"]`` the tasks looked at,
        ``attrs["order"]`` describes ``value``, the sort key.
    """
    counts = np.bincount(interactions.task_index, minlength=interactions.n_tasks)
    models = set(ranker.model_ids)
    found = []
    n_missing = n_tasks = 0
    for row in np.argsort(counts, kind="stable").tolist():
        columns, outcomes = interactions.of_task(interactions.task_ids[row])
        values = (outcomes * interactions.signs[row]).tolist()
        ids = [interactions.model_ids[int(i)] for i in columns]
        reached = {m: v for m, v in zip(ids, values, strict=True) if m in models}
        n_missing += len(models) - len(reached)
        if len(reached) < len(models) and n_tasks < max_tasks:
            n_tasks += 1
            own = _suggested(ranker, interactions, row, outcomes, reached)
            if own is not None:
                found.append(own)
    frame = pd.concat(found, ignore_index=True) if found else _nothing()
    frame["value"], order = frame["gain"], "expected improvement"
    if len(set(interactions.metrics)) > 1:
        frame["value"] /= frame["spread"]
        order += " in units of the spread of the task's outcomes"
    # Costs of 0 mean that the log did not measure them.
    if (interactions.costs > 0.0).any():
        frame["value"] /= frame["gpu_hours"]
        order += " per GPU hour"
    keys = ["value", "task_id", "model_id"]
    frame = frame.sort_values(keys, ascending=[False, True, True], ignore_index=True)
    frame = frame[list(MISSING_COLUMNS)].head(top)
    frame.attrs.update(n_missing=n_missing, n_tasks=n_tasks, order=order)
    return frame


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object) for name in (*MISSING_COLUMNS, "spread")})


def _suggested(
    ranker: Ranker,
    interactions: Interactions,
    row: int,
    outcomes: FloatArray,
    reached: Mapping[str, float],
) -> pd.DataFrame | None:
    task_id, metric = interactions.task_ids[row], interactions.metrics[row]
    # Runs that are newer than the ranker are given too.
    try:
        answer = ranker.suggest(task_id, budget=_PER_TASK, observed=reached, metric=metric)
    except (DataError, UsageError):
        # The ranker was trained on no task with this metric, or on values in another unit.
        return None
    spread = float(outcomes.std())
    return pd.DataFrame(
        {
            "task_id": task_id,
            "metric": metric,
            **{name: answer[name] for name in ("model_id", "predicted", "low", "high", "gain")},
            "best_known": float(outcomes.max() * interactions.signs[row]),
            "gpu_hours": answer["expected_cost"] / _SECONDS_AN_HOUR,
            "spread": spread if spread > 0.0 else np.nan,
        }
    )
