"""The metric set of one back-tested task (DESIGN §6): which metric reads which output, and how.

A ranker answers two things (:class:`~recsys_ms.ranker.base.Prediction`): ``value`` is judged by
``pearson``; ``order``, the answer's sort key, by all the others.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from recsys_ms.core.errors import DataError
from recsys_ms.core.metrics import ndcg_at_k, pearson, regret_at_k
from recsys_ms.core.types import FloatArray
from recsys_ms.ranker.base import Prediction

PEARSON: Final = "pearson"
SPEARMAN: Final = "spearman"
WEIGHTED_TAU: Final = "weighted_tau"
NDCG_AT_5: Final = "ndcg@5"
REGRET_AT_1: Final = "regret@1"
REGRET_AT_5: Final = "regret@5"
SECONDS: Final = "seconds"

#: Metrics of a prediction, in the order of the tables.
QUALITY_METRICS: Final = (PEARSON, SPEARMAN, WEIGHTED_TAU, NDCG_AT_5, REGRET_AT_1, REGRET_AT_5)
#: Those and the time a task took.
METRICS: Final = (*QUALITY_METRICS, SECONDS)
#: Whether more is better. Seconds and regrets are costs.
HIGHER_IS_BETTER: Final[Mapping[str, bool]] = {
    PEARSON: True,
    SPEARMAN: True,
    WEIGHTED_TAU: True,
    NDCG_AT_5: True,
    REGRET_AT_1: False,
    REGRET_AT_5: False,
    SECONDS: False,
}


def spearman(order: FloatArray, outcome: FloatArray) -> float:
    """Rank correlation (average ranks on ties), in [-1, 1]; NaN when one side is constant."""
    # Takes a second to load, which a job that leaves the folds to its workers need not spend.
    from scipy.stats import rankdata

    return pearson(rankdata(order), rankdata(outcome))


def weighted_tau(order: FloatArray, outcome: FloatArray) -> float:
    """Kendall's tau weighted towards the best models (Vigna 2015), in [-1, 1].

    ``scipy.stats.weightedtau`` in its default, symmetric form: additive hyperbolic weights
    1/(r+1) + 1/(s+1), ranks counted from the highest number down, and the mean of the ranking by
    (order, outcome) and by (outcome, order), so the two may change places. Model Spider's tables
    have the other form, ``rank=None`` with the outcome first, where the true ranks alone weigh: on
    32 models and a correlation of 0.7 the two differ by 0.02 at the median, so compare like with
    like.

    Higher is better; NaN when one side is constant or there are fewer than two models.
    """
    from scipy.stats import weightedtau

    if order.size < 2 or np.ptp(order) == 0.0 or np.ptp(outcome) == 0.0:
        return float("nan")
    # Rounding can carry a perfect order to 1 + 2e-16.
    return float(np.clip(weightedtau(order, outcome).statistic, -1.0, 1.0))


def task_metrics(prediction: Prediction, outcomes: FloatArray) -> dict[str, float]:
    """Every metric of :data:`QUALITY_METRICS` for one task.

    Parameters
    ----------
    prediction : Prediction
        ``value`` and ``order`` of shape (n_models,), for the test models sorted by id: equal
        ``order`` keys are taken in that sequence.
    outcomes : ndarray of shape (n_models,)
        Reached outcomes in the metric's unit, higher is better. Regret is counted among these
        models only: a model whose outcome is not in the test can be neither best nor recommended.

    Returns
    -------
    dict of str to float
        NaN where a metric is not defined (a correlation with a constant, fewer than two models).
        With k models or fewer, regret@k is 0 for every ranker.

    Raises
    ------
    DataError
        Shapes differ, or a number is not finite.
    """
    for name, part in (("value", prediction.value), ("order", prediction.order)):
        if part.shape != outcomes.shape:
            raise DataError(f"{name} has shape {part.shape} for {outcomes.shape} outcomes")
    if not np.isfinite(np.r_[prediction.value, prediction.order, outcomes]).all():
        raise DataError("predictions and outcomes must be finite numbers; drop missing ones first")
    return {
        PEARSON: pearson(prediction.value, outcomes),
        SPEARMAN: spearman(prediction.order, outcomes),
        WEIGHTED_TAU: weighted_tau(prediction.order, outcomes),
        NDCG_AT_5: ndcg_at_k(prediction.order, outcomes, 5),
        REGRET_AT_1: regret_at_k(prediction.order, outcomes, 1),
        REGRET_AT_5: regret_at_k(prediction.order, outcomes, 5),
    }


def undefined_metrics() -> dict[str, float]:
    """What a ranker that failed on a task scores there: NaN in every metric."""
    return dict.fromkeys(METRICS, float("nan"))
