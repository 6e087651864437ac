"""What to fine-tune next: the pairs without a run from which most is expected."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from scipy.special import ndtri

from recsys_ms.core.errors import DataError
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import TaskQuery
from recsys_ms.ranker.joint import expected_improvement
from recsys_ms.ranker.ranker import Ranker

MISSING_COLUMNS: Final = (
    "task_id",
    "model_id",
    "metric",
    "predicted",
    "low",
    "high",
    "best_known",
    "gain",
    "gpu_hours",
    "value",
)
_TOP: Final = 20
_MAX_TASKS: Final = 200
#: Models of a task that are looked at closely, those of highest predicted outcome.
_PER_TASK: Final = 50
_SECONDS_AN_HOUR: Final = 3600.0


def missing_runs(
    ranker: Ranker,
    interactions: Interactions,
    *,
    top: int = _TOP,
    max_tasks: int = _MAX_TASKS,
) -> pd.DataFrame:
    """Pairs without a run, by expected improvement on the task's best known outcome.

    The outcome is taken as normal around its prediction, with the standard deviation of the stated
    interval. Where costs were logged, pairs are sorted by improvement per GPU hour; a model without
    a logged cost is expected to cost the median. Where tasks have several metrics, improvements
    are sorted in units of the spread of the task's outcomes.

    Parameters
    ----------
    ranker : Ranker
        Fitted on the history, or on one like it.
    interactions : Interactions
        The runs there are.
    top : int
        Rows at most.
    max_tasks : int
        Tasks that are looked at: those with fewest runs.

    Returns
    -------
    DataFrame
        Columns ``MISSING_COLUMNS``, best first: predictions, interval and best known outcome in the
        task's metric; ``gpu_hours`` is NaN where no cost was ever logged. ``attrs["n_missing"]``
        counts all missing pairs of the history's tasks, ``attrs["n_tasks"]`` the tasks looked at,
        ``attrs["order"]`` says in words what ``value``, the key they are sorted by, is.
    """
    counts = np.bincount(interactions.task_index, minlength=interactions.n_tasks)
    models = ranker.model_ids
    found = []
    n_missing = n_tasks = 0
    for row in np.argsort(counts, kind="stable"):
        task_id = interactions.task_ids[int(row)]
        columns, outcomes = interactions.of_task(task_id)
        tried = {interactions.model_ids[int(i)] for i in columns}
        untried = [model for model in models if model not in tried]
        n_missing += len(untried)
        if untried and n_tasks < max_tasks:
            n_tasks += 1
            answer = _task_answer(ranker, interactions, int(row), untried)
            if answer is not None:
                best, spread = float(outcomes.max()), float(outcomes.std())
                found.append(_gains(answer, ranker, interactions, int(row), best, spread))
    frame = (
        _ordered(pd.concat(found, ignore_index=True), interactions).head(top)
        if found
        else pd.DataFrame({name: pd.Series(dtype=object) for name in MISSING_COLUMNS})
    )
    frame.attrs.update(n_missing=n_missing, n_tasks=n_tasks, order=_order_of(interactions))
    return frame


def _task_answer(
    ranker: Ranker, interactions: Interactions, row: int, untried: Sequence[str]
) -> pd.DataFrame | None:
    task_id, metric = interactions.task_ids[row], interactions.metrics[row]
    observed: dict[str, float] = {}
    if task_id not in ranker.task_ids:
        # A task that is newer than the ranker: what it has is told.
        columns, outcomes = interactions.of_task(task_id)
        values = outcomes * interactions.signs[row]
        ids = [interactions.model_ids[int(i)] for i in columns]
        known = set(ranker.model_ids)
        pairs = zip(ids, values, strict=True)
        observed = {model: float(value) for model, value in pairs if model in known}
    try:
        if len(untried) > _PER_TASK:
            value, _ = ranker.predict(TaskQuery(task_id=task_id, metric=metric), untried)
            best = np.argsort(-value, kind="stable")[:_PER_TASK]
            untried = [untried[int(i)] for i in best]
        answer = ranker.recommend(
            task_id, observed=observed, metric=metric, models=untried, top=None
        )
    except DataError:
        # No task that the ranker knows is measured in this metric.
        return None
    return answer[answer["predicted"].notna()]


def _gains(
    answer: pd.DataFrame,
    ranker: Ranker,
    interactions: Interactions,
    row: int,
    best: float,
    spread: float,
) -> pd.DataFrame:
    sign = float(interactions.signs[row])
    width = float(ndtri(0.5 + ranker.config.coverage / 2.0))
    low, high = (answer[name].to_numpy(dtype=np.float64) for name in ("low", "high"))
    mean = sign * answer["predicted"].to_numpy(dtype=np.float64)
    gain = expected_improvement(mean, (high - low) / (2.0 * width), best)
    return pd.DataFrame(
        {
            "task_id": interactions.task_ids[row],
            "model_id": answer["model_id"].to_numpy(),
            "metric": interactions.metrics[row],
            "predicted": sign * mean,
            "low": low,
            "high": high,
            "best_known": sign * best,
            "gain": gain,
            "gpu_hours": answer["cost_gpu_seconds"].to_numpy(dtype=np.float64) / _SECONDS_AN_HOUR,
            "spread": spread if spread > 0.0 else np.nan,
        }
    )


def _order_of(interactions: Interactions) -> str:
    unit = " in units of the spread of the task's outcomes" if _is_mixed(interactions) else ""
    hourly = " per GPU hour" if _median_hours(interactions) > 0.0 else ""
    return f"expected improvement{unit}{hourly}"


def _is_mixed(interactions: Interactions) -> bool:
    return len(set(interactions.metrics)) > 1


def _median_hours(interactions: Interactions) -> float:
    # Costs of 0 are those of a log that did not measure them.
    costs = interactions.costs[interactions.costs > 0.0]
    return float(np.median(costs)) / _SECONDS_AN_HOUR if costs.size else 0.0


def _ordered(frame: pd.DataFrame, interactions: Interactions) -> pd.DataFrame:
    value = frame["gain"]
    if _is_mixed(interactions):
        value = value / frame["spread"]
    usual = _median_hours(interactions)
    hours = frame["gpu_hours"].where(frame["gpu_hours"] > 0.0, usual if usual > 0.0 else np.nan)
    if usual > 0.0:
        value = value / hours
    frame = frame.assign(gpu_hours=hours)
    ordered = frame.assign(value=value).sort_values(
        ["value", "task_id", "model_id"], ascending=[False, True, True], ignore_index=True
    )
    return ordered[list(MISSING_COLUMNS)]
