"""Means, intervals and paired differences of rankers over units (tasks, or folds)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray
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
        Those units.
    higher_is_better : bool
        Direction of the metric.
    """

    mean: float
    interval: tuple[float, float]
    n: int
    higher_is_better: bool

    @property
    def verdict(self) -> int:
        """1 better than the reference, -1 worse, 0 when the interval holds 0 or is not defined."""
        low, high = self.interval
        sign = 1 if self.higher_is_better else -1
        return sign * (int(low > 0.0) - int(high < 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerSummary:
    """What a ranker reached over some units, by metric.

    Attributes
    ----------
    mean : mapping of metric to float
        Over the units where the metric is defined.
    interval : mapping of metric to (float, float)
        95 % percentile bootstrap interval of the mean; NaN with fewer than two defined units.
    n_defined : mapping of metric to int
        Units behind the mean.
    n_units : int
        Units tested.
    difference : mapping of metric to Difference
        Paired difference from the reference, popularity unless another was asked for.
    """

    mean: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    n_defined: Mapping[str, int]
    n_units: int
    difference: Mapping[str, Difference]


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
        Name the random stream. Every ranker sees the same draws, whichever others take part.
    n_draws : int
        Bootstrap draws.
    """
    summaries: dict[str, RankerSummary] = {}
    for name, own in scores.items():
        both = np.hstack([own, own - scores[reference]])
        stream = named_stream(seed, "bootstrap", label)
        intervals = bootstrap_intervals(both, stream, n_draws=n_draws)
        means = mean_over_defined(both)
        n_defined = (~np.isnan(both)).sum(axis=0)
        ends = [(float(low), float(high)) for low, high in intervals]
        n_metrics = len(metrics)
        summaries[name] = RankerSummary(
            mean={metric: float(means[i]) for i, metric in enumerate(metrics)},
            interval={metric: ends[i] for i, metric in enumerate(metrics)},
            n_defined={metric: int(n_defined[i]) for i, metric in enumerate(metrics)},
            n_units=len(own),
            difference={
                metric: Difference(
                    mean=float(means[i]),
                    interval=ends[i],
                    n=int(n_defined[i]),
                    higher_is_better=is_better,
                )
                for i, (metric, is_better) in enumerate(metrics.items(), start=n_metrics)
            },
        )
    return summaries
