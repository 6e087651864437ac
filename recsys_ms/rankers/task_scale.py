"""Location and spread of a task's outcomes, before and after some are observed.

Rankers predict on a standardised scale. An answer in the task's own metric needs the task's
location ``c`` and spread ``s``. For a new task, other tasks in the same metric give a prior:
``log s`` is normal, and ``c`` is normal given ``s`` (tasks on which all models do well spread
less). Metrics such as RMSE are taken by their logarithm.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

import numpy as np

from recsys_ms.core.declared import ANY_NUMBER, Within
from recsys_ms.core.errors import DataError
from recsys_ms.core.known_metrics import UNBOUNDED, Link, Range, link_of, natural_range
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize

#: Tasks with fewer models have no spread of their own.
MIN_MODELS_FOR_SPREAD: Final = 3
#: Spread of ``log s`` where too few tasks give one: a factor of two either way.
_DEFAULT_LOG_SPREAD: Final = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricScale:
    """Prior of a task's location and spread in one metric, on the scale of its link.

    ``log s ~ N(log_spread, log_spread_sd²)`` and
    ``c ~ N(center + slope * (log s - log_spread), center_sd²)``.
    """

    sign: float  # +1 where higher values are better, -1 where lower
    link: Link
    #: Possible outcomes, higher is better; infinite without a bound.
    range: Annotated[Range, ANY_NUMBER]
    center: float
    slope: float
    center_sd: Annotated[float, Within(least=0.0)]
    log_spread: float
    log_spread_sd: Annotated[float, Within(least=0.0)]

    @property
    def usual(self) -> "TaskScale":
        """The scale of a task without known outcomes."""
        return TaskScale(
            center=self.center,
            scale=math.exp(self.log_spread),
            center_sd=math.hypot(self.center_sd, self.slope * self.log_spread_sd),
            link=self.link,
            sign=self.sign,
            range=self.range,
        )


@dataclass(frozen=True, slots=True)
class TaskScale:
    """Location and spread of one task, on the scale of the metric's link."""

    center: float  # expected mean outcome of the task's models, higher is better
    scale: float  # standard deviation of the outcomes over models, positive
    center_sd: float  # standard deviation of the belief about ``center``
    link: Link = "identity"
    sign: float = 1.0  # +1 where higher values of the metric are better, -1 where lower
    range: Range = UNBOUNDED  # possible outcomes, higher is better, in the metric's unit

    @property
    def highest(self) -> float:
        """Best possible outcome on the scale of the link; a loss has no bound, as it may be 0."""
        return float("inf") if self.link == "log" else self.range[1]

    def outcome(self, compared: FloatArray) -> FloatArray:
        """From the link's scale to an outcome in the metric's unit, higher is better."""
        if self.link == "log":
            compared = self.sign * np.exp(np.minimum(self.sign * compared, 700.0))
        found: FloatArray = np.clip(compared, *self.range)
        return found

    def compared(self, outcome: FloatArray) -> FloatArray:
        """From an outcome in the metric's unit (higher is better) to the link's scale."""
        return to_link(outcome, self.link, self.sign)


def to_link(outcome: FloatArray, link: Link, sign: float) -> FloatArray:
    """Outcomes, higher is better, on the scale of a link; the logarithm's must be positive."""
    if link == "identity":
        return outcome
    value = sign * outcome
    if (value <= 0.0).any():
        raise DataError(
            f"an observed value is {float(value.min()):g} in a metric that is compared by its "
            "logarithm, since all logged values are positive; check the value and its metric"
        )
    found: FloatArray = sign * np.log(value)
    return found


class ScalePrior(Stateful):
    """Location and spread of a new task by those of the training tasks, per metric."""

    _metrics: Learned[dict[str, MetricScale]]
    #: The metric of most training tasks (ties by name).
    main_metric: Learned[str]

    def __init__(self, metrics: dict[str, MetricScale], main_metric: str) -> None:
        self._metrics = metrics
        self.main_metric = main_metric

    @classmethod
    def fit(cls, interactions: Interactions) -> Self:
        """Learn from location and spread of every training task that has a spread."""
        found = standardize(interactions, "zscore")
        n_models = np.bincount(interactions.task_index, minlength=interactions.n_tasks)
        metrics = np.array(interactions.metrics)
        scales: dict[str, MetricScale] = {}
        for metric in sorted(set(interactions.metrics)):
            own = np.flatnonzero(metrics == metric)
            values = interactions.values[(metrics == metric)[interactions.task_index]]
            lowest, highest = float(values.min()), float(values.max())
            low, high = natural_range(metric, lowest, highest)
            sign = float(interactions.signs[own[0]])
            spread = own[n_models[own] >= MIN_MODELS_FOR_SPREAD]
            chosen = spread if spread.size else own
            scales[metric] = MetricScale(
                sign=sign,
                link=link_of(metric, lowest, highest),
                range=(low, high) if sign > 0 else (-high, -low),
                **_moments(found.center[chosen], np.log(found.scale[chosen])),
            )
        names, n_tasks = np.unique(metrics, return_counts=True)
        return cls(scales, str(names[int(np.argmax(n_tasks))]))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of the history."""
        return tuple(self._metrics)

    def sign(self, metric: str) -> float:
        """+1 where higher values of ``metric`` are better, -1 where lower.

        Raises
        ------
        DataError
            No training task has that metric.
        """
        if metric not in self._metrics:
            raise DataError(
                f"no past task is measured in {metric!r}, so its direction is unknown; the history "
                f"has {', '.join(self._metrics)}"
            )
        return self._metrics[metric].sign

    def can_place(self, metric: str, outcomes: FloatArray) -> bool:
        """Whether outcomes in ``metric`` can be put on the standardised scale."""
        return metric in self._metrics or (
            outcomes.size >= MIN_MODELS_FOR_SPREAD and float(outcomes.std()) > 0.0
        )

    def of_metric(self, metric: str, outcomes: FloatArray) -> MetricScale:
        """The prior of a metric; one without tasks needs three outcomes that differ."""
        if metric in self._metrics:
            return self._metrics[metric]
        if not self.can_place(metric, outcomes):
            raise DataError(
                f"no past task is measured in {metric!r} (they are in {', '.join(self.metrics)}), "
                f"and the spread of {outcomes.size} observed outcomes is unknown; give at least "
                f"{MIN_MODELS_FOR_SPREAD} that differ, or a metric of the history"
            )
        spread = float(outcomes.std())
        return MetricScale(
            sign=1.0,
            link="identity",
            range=UNBOUNDED,
            center=float(outcomes.mean()),
            slope=0.0,
            center_sd=spread,
            log_spread=math.log(spread),
            log_spread_sd=_DEFAULT_LOG_SPREAD,
        )


def _moments(center: FloatArray, log_spread: FloatArray) -> dict[str, Any]:
    """Mean, slope and spread of ``c`` given ``log s``, and of ``log s``, over training tasks."""
    n = center.size
    if n < MIN_MODELS_FOR_SPREAD:
        # One or two tasks do not show how tasks differ; their own spread is used instead.
        own = float(np.exp(log_spread.mean()))
        apart = float(np.ptp(center))
        return {
            "center": float(center.mean()),
            "slope": 0.0,
            "center_sd": max(own, apart),
            "log_spread": float(log_spread.mean()),
            "log_spread_sd": _DEFAULT_LOG_SPREAD,
        }
    middle = log_spread - log_spread.mean()
    variance = float(middle @ middle) / (n - 1)
    # The slope of few tasks is drawn to 0, as by one more task without a slope.
    slope = float(middle @ center) / (n * variance + 1e-12) if variance > 1e-12 else 0.0
    left = center - center.mean() - slope * middle
    # The mean is itself estimated from these few.
    spread = math.sqrt(float(left @ left) / (n - 1) * (1.0 + 1.0 / n))
    return {
        "center": float(center.mean()),
        "slope": slope,
        "center_sd": max(spread, 1e-12),
        "log_spread": float(log_spread.mean()),
        "log_spread_sd": max(math.sqrt(variance), 0.1),
    }
