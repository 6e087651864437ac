"""Metrics of one back-tested task: which part of a prediction each one scores, and how.

A :class:`~recsys_ms.rankers.base.Prediction` has two parts: ``value`` is scored by ``pearson``;
``order``, its sort key, by all other metrics.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from recsys_ms.core.errors import DataError, UsageError, kind_of
from recsys_ms.core.ranking_metrics import ndcg_at_k, pearson, regret_at_k
from recsys_ms.core.types import FloatArray
from recsys_ms.rankers.base import Prediction

PEARSON: Final = "pearson"
SPEARMAN: Final = "spearman"
WEIGHTED_TAU: Final = "weighted_tau"
NDCG_AT_5: Final = "ndcg@5"
REGRET_AT_1: Final = "regret@1"
REGRET_AT_5: Final = "regret@5"
SECONDS: Final = "seconds"

#: Scores one task: the prediction, and the outcomes, shape (n_models,), higher is better.
MetricFunction: TypeAlias = Callable[[Prediction, FloatArray], float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric for the argument ``metrics`` of a back-test.

    Attributes
    ----------
    name : str
        Heading of its column.
    function : callable
        ``function(prediction, outcomes)`` gives a number, NaN where it is not defined.
        ``prediction.value`` and ``prediction.order`` belong to the same models as ``outcomes``. All
        three are read-only: other metrics and other rankers are scored on them.
    higher_is_better : bool
        Direction, for marks and for bold figures.
    """

    name: str
    function: MetricFunction
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise UsageError(
                f"a metric needs a name, got {self.name!r}; give metrics={{'name': function}}"
            )
        if not callable(self.function):
            raise UsageError(
                f"metric {self.name!r} is {kind_of(self.function)}; expected a function of "
                "(prediction, outcomes) that returns a number"
            )

    def score(self, prediction: Prediction, outcomes: FloatArray, *, task_id: str) -> float:
        """Score one task.

        Raises
        ------
        UsageError
            The function raised, or did not return a finite number or NaN.
        """
        seen = Prediction(_read_only(prediction.value), _read_only(prediction.order))
        try:
            got = float(self.function(seen, _read_only(outcomes)))
        except Exception as error:
            raise UsageError(
                f"metric {self.name!r} failed on task {task_id!r}: "
                f"{type(error).__name__}: {error}; expected one number, NaN where it is not defined"
            ) from error
        if math.isinf(got):
            # It would have neither a mean nor an interval nor a JSON number.
            raise UsageError(
                f"metric {self.name!r} gave {got} on task {task_id!r}; expected a finite number, "
                "NaN where it is not defined"
            )
        return got


def spearman(order: FloatArray, outcome: FloatArray) -> float:
    """Rank correlation (average ranks on ties), in [-1, 1]; NaN when one side is constant."""
    # Imported here: it takes a second, and only the processes that run folds need it.
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


def _ndcg(k: int) -> Metric:
    return Metric(f"ndcg@{k}", _AtK(ndcg_at_k, k))


def _regret(k: int) -> Metric:
    return Metric(f"regret@{k}", _AtK(regret_at_k, k), higher_is_better=False)


@dataclass(frozen=True, slots=True)
class _AtK:
    """A metric of the first k models; unlike a lambda it can be sent to other processes."""

    function: Callable[[FloatArray, FloatArray, int], float]
    k: int

    def __call__(self, prediction: Prediction, outcomes: FloatArray) -> float:
        return self.function(prediction.order, outcomes, self.k)


_QUALITY: Final = (
    Metric(PEARSON, lambda prediction, outcomes: pearson(prediction.value, outcomes)),
    Metric(SPEARMAN, lambda prediction, outcomes: spearman(prediction.order, outcomes)),
    Metric(WEIGHTED_TAU, lambda prediction, outcomes: weighted_tau(prediction.order, outcomes)),
    _ndcg(5),
    _regret(1),
    _regret(5),
)
#: Metrics of a prediction, in the order of the tables.
QUALITY_METRICS: Final = tuple(metric.name for metric in _QUALITY)
#: Those and the time a task took.
METRICS: Final = (*QUALITY_METRICS, SECONDS)


def directions(more: Iterable[Metric] = ()) -> dict[str, bool]:
    """Whether more is better, by metric, in the order of the tables; seconds come last."""
    found = {metric.name: metric.higher_is_better for metric in (*_QUALITY, *more)}
    return {**found, SECONDS: False}


#: Whether more is better. Seconds and regrets are costs.
HIGHER_IS_BETTER: Final[Mapping[str, bool]] = directions()


def task_metrics(prediction: Prediction, outcomes: FloatArray) -> dict[str, float]:
    """Every metric of :data:`QUALITY_METRICS` for one task.

    Parameters
    ----------
    prediction : Prediction
        ``value`` and ``order`` of shape (n_models,), for the test models sorted by id: equal
        ``order`` keys are taken in that sequence.
    outcomes : ndarray of shape (n_models,)
        Outcomes in the metric's unit, higher is better. Regret is counted among these
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
    return {metric.name: metric.function(prediction, outcomes) for metric in _QUALITY}


def undefined_metrics(more: Iterable[Metric] = ()) -> dict[str, float]:
    """The scores of a ranker that failed on a task: NaN in every metric."""
    return dict.fromkeys(directions(more), float("nan"))


#: User-defined metrics.
OwnMetrics: TypeAlias = Mapping[str, MetricFunction] | Iterable[MetricFunction | Metric]
_ALWAYS: Final = f"{', '.join(METRICS)} are always there; k= adds ndcg@k and regret@k"


def more_metrics(metrics: OwnMetrics, k: int | Iterable[int] | None) -> tuple[Metric, ...]:
    """Metrics besides :data:`METRICS`, in the order of their columns.

    Parameters
    ----------
    metrics : mapping of str to callable, or iterable of callables and Metric
        A function in an iterable has its own name.
    k : int, iterable of int or None
        Adds ``ndcg@k`` and ``regret@k`` where they are not there already.

    Raises
    ------
    UsageError
        A k below 1, a name that is taken, a function without a name, or not a function.
    """
    at_k = (make(size) for size in _sizes(k) for make in (_ndcg, _regret))
    found = [metric for metric in at_k if metric.name not in METRICS]
    given: object = metrics
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(
            f"metrics is {kind_of(metrics)}; expected a mapping of name to function, or a list of "
            f"functions. {_ALWAYS}"
        )
    if isinstance(given, Mapping):
        own = [_named(name, function) for name, function in given.items()]
    else:
        own = [_named(getattr(one, "name", getattr(one, "__name__", "")), one) for one in given]
    for metric in own:
        if metric.name == "<lambda>":
            raise UsageError("a lambda has no name; give metrics={'name': lambda ...}")
        if metric.name in METRICS or any(metric.name == other.name for other in found):
            raise UsageError(f"metric {metric.name!r} is there already; give yours another name")
        found.append(metric)
    return tuple(found)


def _named(name: Any, function: Any) -> Metric:
    if isinstance(function, Metric):
        return Metric(name, function.function, function.higher_is_better)
    if isinstance(function, str):
        raise UsageError(f"metrics holds the text {function!r}; expected functions. {_ALWAYS}")
    return Metric(name, function)


def _sizes(k: object) -> list[int]:
    if k is None:
        return []
    given: list[Any] = list(k) if isinstance(k, Iterable) and not isinstance(k, str) else [k]
    try:
        sizes = [operator.index(size) for size in given]
    except TypeError:
        sizes = []
    if not sizes or min(sizes) < 1 or any(isinstance(size, bool) for size in given):
        raise UsageError(f"k is {k!r}; expected a whole number of at least 1, or several")
    return sorted(set(sizes))


def _read_only(array: FloatArray) -> FloatArray:
    view = array.view()
    view.setflags(write=False)
    return view
