"""Means, intervals and paired differences of rankers over units (tasks, or folds)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, JsonDict
from recsys_ms.evaluation.bootstrap import bootstrap_intervals, mean_over_defined


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Ranker minus reference, unit by unit.

    Attributes
    ----------
    mean : float
        Mean over the units where both are defined.
    interval : tuple of float
        95 % percentile interval of that mean, NaN with fewer than two units.
    n : int
        Number of those units.
    higher_is_better : bool
        Direction of the metric.
    """

    mean: float
    interval: tuple[float, float]
    n: int
    higher_is_better: bool

    @property
    def verdict(self) -> int:
        """1 better than the reference, -1 worse, 0 if the interval contains 0 or is undefined."""
        low, high = self.interval
        sign = 1 if self.higher_is_better else -1
        return sign * (int(low > 0.0) - int(high < 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerSummary:
    """Scores of a ranker over some units, by metric.

    Attributes
    ----------
    mean : mapping of metric to float
        Over the units where the metric is defined.
    interval : mapping of metric to (float, float)
        95 % percentile bootstrap interval of the mean; NaN with fewer than two defined units.
    n_defined : mapping of metric to int
        Number of units behind the mean.
    n_units : int
        Number of tested units.
    difference : mapping of metric to Difference
        Paired difference from the reference.
    """

    mean: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    n_defined: Mapping[str, int]
    n_units: int
    difference: Mapping[str, Difference]

    def to_json(self, reference: str) -> JsonDict:
        """The summary as JSON values, but for NaN; ``reference`` names the differences."""
        return {
            "mean": dict(self.mean),
            "interval": {metric: list(ends) for metric, ends in self.interval.items()},
            "n_defined": dict(self.n_defined),
            f"difference_to_{reference}": {
                metric: {"mean": part.mean, "interval": list(part.interval), "n": part.n}
                for metric, part in self.difference.items()
            },
        }


def summarise(
    scores: Mapping[str, FloatArray],
    *,
    metrics: Mapping[str, bool],
    reference: str,
    seed: int,
    label: str,
    n_draws: int,
) -> dict[str, RankerSummary]:
    """Summarise rankers over common units.

    Parameters
    ----------
    scores : mapping of ranker to ndarray of shape (n_units, n_metrics)
        Columns are ``metrics``; rows are the same units for every ranker.
    metrics : mapping of str to bool
        Whether more is better, by metric.
    reference : str
        The ranker that differences are taken against.
    seed, label : int, str
        Name the random stream. The draws are the same for every ranker, whatever the others.
    n_draws : int
        Bootstrap draws.
    """
    summaries: dict[str, RankerSummary] = {}
    for name, own in scores.items():
        both = np.hstack([own, own - scores[reference]])
        stream = named_stream(seed, "bootstrap", label)
        ends = bootstrap_intervals(both, stream, n_draws=n_draws).tolist()
        means = mean_over_defined(both).tolist()
        counts = (~np.isnan(both)).sum(axis=0).tolist()
        intervals = [(low, high) for low, high in ends]
        n = len(metrics)
        differences = zip(means[n:], intervals[n:], counts[n:], metrics.values(), strict=True)
        summaries[name] = RankerSummary(
            mean=dict(zip(metrics, means[:n], strict=True)),
            interval=dict(zip(metrics, intervals[:n], strict=True)),
            n_defined=dict(zip(metrics, counts[:n], strict=True)),
            n_units=len(own),
            difference={
                metric: Difference(mean=mean, interval=interval, n=count, higher_is_better=up)
                for metric, (mean, interval, count, up) in zip(metrics, differences, strict=True)
            },
        )
    return summaries
