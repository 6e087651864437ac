"""Per-task standardisation: outcomes of different tasks and metrics made comparable.

A statistic of a task is computed from that task's own interactions in the *training* data only; a
task that is held out is not in them, so nothing of it can leak.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from scipy.special import ndtri

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions

Standardization: TypeAlias = Literal["none", "zscore", "robust", "rank", "logit"]

#: Mean absolute deviation from the median of a normal distribution, in standard deviations.
_MAD_TO_SD: Final = 1.4826
#: Fractions of exactly 0 and 1 are moved inside by this much before the logit.
_LOGIT_MARGIN: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardizedOutcomes:
    """Standardised outcomes and the per-task statistics that made them.

    Attributes
    ----------
    method : str
        One of ``none``, ``zscore``, ``robust``, ``rank``, ``logit``.
    scores : ndarray of shape (n_interactions,)
        Standardised outcomes, higher is better.
    center, scale : ndarray of shape (n_tasks,)
        Location and spread of each task on the scale the method works on (logits for ``logit``,
        comparable outcomes otherwise: those of a metric such as RMSE by their logarithm).
        ``scale`` is 1 where a task has a single model or no spread.
    """

    method: Standardization
    scores: FloatArray
    center: FloatArray
    scale: FloatArray


def standardize(interactions: Interactions, method: Standardization) -> StandardizedOutcomes:
    """Standardise outcomes within each task.

    Parameters
    ----------
    interactions : Interactions
        Training interactions.
    method : {"none", "zscore", "robust", "rank", "logit"}
        ``zscore``: minus mean, over standard deviation (population). ``robust``: minus median, over
        1.4826 × median absolute deviation. ``rank``: normal score of the average rank,
        ``ndtri((rank - 0.5) / n)``. ``logit``: log odds of a fraction, then z-score. ``none``:
        the outcomes as they are.

    Raises
    ------
    DataError
        ``logit`` on outcomes outside [0, 1].
    UsageError
        Unknown method.
    """
    if method not in get_args(Standardization):
        raise UsageError(
            f"standardisation {method!r} is unknown; "
            f"choose one of {', '.join(get_args(Standardization))}"
        )
    is_logit = method == "logit"
    outcomes = _logit(interactions) if is_logit else interactions.comparable
    starts = np.searchsorted(interactions.task_index, np.arange(interactions.n_tasks + 1))
    center = np.zeros(interactions.n_tasks)
    scale = np.ones(interactions.n_tasks)
    scores = interactions.outcomes
    for task in range(interactions.n_tasks if method != "none" else 0):
        own = slice(starts[task], starts[task + 1])
        x = outcomes[own]
        center[task], spread = _location(x, robust=method == "robust")
        # The spread of equal values is rounding noise, not a scale to divide by.
        if spread > 1e-12 * max(1.0, abs(center[task])):
            scale[task] = spread
        if method == "rank":
            scores[own] = normal_scores(x)
        else:
            scores[own] = (x - center[task]) / scale[task]
    return StandardizedOutcomes(method=method, scores=scores, center=center, scale=scale)


def normal_scores(x: FloatArray) -> FloatArray:
    """Normal score of each value's average rank: ``ndtri((rank - 0.5) / n)``, shape (n,)."""
    # scipy.stats takes a second to import, and answering from a saved ranker needs none of it.
    _, at, counts = np.unique(x, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2.0
    scores: FloatArray = ndtri((rank[at] - 0.5) / x.size)
    return scores


def _location(x: FloatArray, *, robust: bool) -> tuple[float, float]:
    if robust:
        middle = float(np.median(x))
        spread = _MAD_TO_SD * float(np.median(np.abs(x - middle)))
        # More than half of the values equal: the MAD is 0 although the task has a spread.
        return middle, spread if spread > 0 else float(x.std())
    return float(x.mean()), float(x.std())


def _logit(interactions: Interactions) -> FloatArray:
    outcomes = interactions.outcomes
    outside = (outcomes < 0.0) | (outcomes > 1.0)
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        task = interactions.task_ids[int(interactions.task_index[at])]
        raise DataError(
            f"task {task!r} has the outcome {outcomes[at]:g}; logit standardisation takes "
            "fractions in [0, 1] where higher is better: use 'zscore', 'robust' or 'rank' "
            "for this history"
        )
    inside = np.clip(outcomes, _LOGIT_MARGIN, 1.0 - _LOGIT_MARGIN)
    return np.log(inside / (1.0 - inside))
