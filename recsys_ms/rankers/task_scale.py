"""Where the outcomes of a task lie and how far they spread, before and after some are observed.

Rankers predict on a standardised scale. An answer in the task's own metric needs the task's
location ``c`` and spread ``s``, which for a new task are known only as far as other tasks in the
same metric tell. What they tell is kept as a prior: ``log s`` is normal, and ``c`` is normal given
``s`` (tasks on which all models do well spread less). Metrics such as RMSE are taken by their
logarithm.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from recsys_ms.core.errors import DataError
from recsys_ms.core.metric_range import UNBOUNDED, Link, Range, link_of, natural_range
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize

#: A task with fewer models tells nothing of its spread.
MIN_MODELS_FOR_SPREAD: Final = 3
#: Standard deviations of ``log s``, and their prior weights, at which the spread is tried.
_SPREADS: Final = np.linspace(-2.0, 2.0, 9)
#: Spread of ``log s`` where too few tasks tell it: a factor of two either way.
_DEFAULT_LOG_SPREAD: Final = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricScale:
    """What the training tasks in one metric say.

    Attributes
    ----------
    sign : float
        +1 where higher values are better, -1 where lower.
    link : {"identity", "log"}
        Scale on which all else is meant.
    low, high : float
        Values the metric can take, in its own direction; infinite where it has no bound.
    center, slope, center_sd : float
        ``c ~ N(center + slope * (log s - log_spread), center_sd²)``.
    log_spread, log_spread_sd : float
        ``log s ~ N(log_spread, log_spread_sd²)``.
    """

    sign: float
    link: Link
    low: float
    high: float
    center: float
    slope: float
    center_sd: float
    log_spread: float
    log_spread_sd: float


@dataclass(frozen=True, slots=True)
class TaskScale:
    """What is believed of one task's location and spread, on the scale of the metric's link.

    Attributes
    ----------
    center : float
        Mean outcome of the task's models, higher is better.
    scale : float
        Standard deviation of the outcomes over models, positive.
    center_sd : float
        Standard deviation of what is believed of ``center``.
    link : {"identity", "log"}
    sign : float
        +1 where higher values of the metric are better, -1 where lower.
    range : (float, float)
        Outcomes (higher is better, the metric's unit) that can be; infinite without a bound.
    """

    center: float
    scale: float
    center_sd: float
    link: Link = "identity"
    sign: float = 1.0
    range: Range = UNBOUNDED

    @property
    def highest(self) -> float:
        """Best there is on the scale of the link; a loss has no bound there, since it may be 0."""
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
    """Outcomes, higher is better, on the scale of a link.

    Raises
    ------
    DataError
        A logarithm of what is not positive.
    """
    if link == "identity":
        return outcome
    value = sign * outcome
    if (value <= 0.0).any():
        raise DataError(
            f"an observed value is {float(value.min()):g} in a metric whose logged values are all "
            "positive, and which is compared by its logarithm; check the value and its metric"
        )
    found: FloatArray = sign * np.log(value)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class ScaleHypotheses:
    """Possible spreads of a task with the location that goes with each, (n_hypotheses,) each."""

    spread: FloatArray
    center: FloatArray
    center_sd: FloatArray
    log_weight: FloatArray


class ScalePrior(Stateful):
    """What the training tasks say about the location and spread of a new task, per metric.

    Attributes
    ----------
    main_metric : str
        The metric of most training tasks (ties by name).
    """

    _metrics: Learned[dict[str, MetricScale]]
    main_metric: Learned[str]

    def __init__(self, metrics: dict[str, MetricScale], main_metric: str) -> None:
        self._metrics = metrics
        self.main_metric = main_metric

    @classmethod
    def fit(cls, interactions: Interactions) -> Self:
        """Learn from (location, spread) of every training task that has a spread."""
        found = standardize(interactions, "zscore")
        n_models = np.bincount(interactions.task_index, minlength=interactions.n_tasks)
        metrics = np.array(interactions.metrics)
        scales: dict[str, MetricScale] = {}
        for metric in sorted(set(interactions.metrics)):
            own = np.flatnonzero(metrics == metric)
            values = interactions.values[(metrics == metric)[interactions.task_index]]
            lowest, highest = float(values.min()), float(values.max())
            low, high = natural_range(metric, lowest, highest)
            spread = own[n_models[own] >= MIN_MODELS_FOR_SPREAD]
            chosen = spread if spread.size else own
            scales[metric] = MetricScale(
                sign=float(interactions.signs[own[0]]),
                link=link_of(metric, lowest, highest),
                low=low,
                high=high,
                **_moments(found.center[chosen], np.log(found.scale[chosen])),
            )
        names, n_tasks = np.unique(metrics, return_counts=True)
        return cls(scales, str(names[int(np.argmax(n_tasks))]))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that the history has."""
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
        """The prior of a metric; in one without tasks, what at least three outcomes say of it.

        Raises
        ------
        DataError
            A metric that no training task has, and fewer than three outcomes or no spread in them.
        """
        if metric in self._metrics:
            return self._metrics[metric]
        if not self.can_place(metric, outcomes):
            raise DataError(
                f"no past task is measured in {metric!r} (they are in {', '.join(self.metrics)}), "
                f"and {outcomes.size} observed outcomes do not say how outcomes spread; give at "
                f"least {MIN_MODELS_FOR_SPREAD} that differ, or a metric of the history"
            )
        spread = float(outcomes.std())
        return MetricScale(
            sign=1.0,
            link="identity",
            low=-math.inf,
            high=math.inf,
            center=float(outcomes.mean()),
            slope=0.0,
            center_sd=spread,
            log_spread=math.log(spread),
            log_spread_sd=_DEFAULT_LOG_SPREAD,
        )


def hypotheses(scale: MetricScale) -> ScaleHypotheses:
    """Spreads to try, from two standard deviations below the usual one to two above."""
    step = scale.log_spread_sd * _SPREADS
    return ScaleHypotheses(
        spread=np.exp(scale.log_spread + step),
        center=scale.center + scale.slope * step,
        center_sd=np.full(_SPREADS.size, scale.center_sd),
        log_weight=-0.5 * _SPREADS**2,
    )


def usual_scale(scale: MetricScale) -> TaskScale:
    """The scale of a task of which no outcome is known."""
    low, high = scale.low, scale.high
    return TaskScale(
        center=scale.center,
        scale=math.exp(scale.log_spread),
        center_sd=math.hypot(scale.center_sd, scale.slope * scale.log_spread_sd),
        link=scale.link,
        sign=scale.sign,
        range=(low, high) if scale.sign > 0 else (-high, -low),
    )


def _moments(center: FloatArray, log_spread: FloatArray) -> dict[str, Any]:
    """Mean, slope and spread of ``c`` given ``log s``, and of ``log s``, over training tasks."""
    n = center.size
    if n < MIN_MODELS_FOR_SPREAD:
        # One or two tasks do not tell how tasks differ: their own spread stands in.
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
    # The slope of few tasks is drawn to 0 as if one task more had none.
    slope = float(middle @ center) / (n * variance + 1e-12) if variance > 1e-12 else 0.0
    left = center - center.mean() - slope * middle
    # The mean is itself known from these few.
    spread = math.sqrt(float(left @ left) / (n - 1) * (1.0 + 1.0 / n))
    return {
        "center": float(center.mean()),
        "slope": slope,
        "center_sd": max(spread, 1e-12),
        "log_spread": float(log_spread.mean()),
        "log_spread_sd": max(math.sqrt(variance), 0.1),
    }
