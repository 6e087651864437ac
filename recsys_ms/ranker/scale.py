"""From standardised outcomes to a task's own metric, and back: location and spread of a task.

The spread of an unknown task is not known before it has many runs. Each training task of the same
metric is taken as one hypothesis of it, weighed by how well it explains the observed outcomes
(empirical Bayes): with no observation the answer is the average training task, with many it is the
task's own.
"""

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from recsys_ms.core.errors import DataError
from recsys_ms.core.metric_range import UNBOUNDED, Range, natural_range
from recsys_ms.core.state import State
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize

#: More hypotheses than this do not change the posterior and would slow down a recommendation.
_MAX_HYPOTHESES: Final = 128
#: A task with fewer models tells nothing of its spread.
_MIN_MODELS_FOR_SPREAD: Final = 3


@dataclass(frozen=True, slots=True)
class TaskScale:
    """Location and spread of one task's outcomes.

    Attributes
    ----------
    center : float
        Mean outcome of the task's models (higher is better, the metric's unit).
    scale : float
        Standard deviation of the outcomes over models, positive.
    center_sd : float
        Standard deviation of what is believed of ``center``.
    range : (float, float)
        Values that the metric can take, higher is better; infinite where no bound is known.
    """

    center: float
    scale: float
    center_sd: float
    range: Range = UNBOUNDED


class ScalePrior:
    """What the training tasks say about the location and spread of a new task, per metric.

    Attributes
    ----------
    main_metric : str
        The metric of most training tasks (ties by name).
    """

    def __init__(
        self,
        hypotheses: dict[str, FloatArray],
        signs: dict[str, float],
        main_metric: str,
        owners: dict[str, IntArray] | None = None,
        ranges: dict[str, Range] | None = None,
    ) -> None:
        self._hypotheses = hypotheses
        self._signs = signs
        #: By metric, higher is better.
        self._ranges = ranges or {}
        self.main_metric = main_metric
        #: Training task of each hypothesis; known right after ``fit`` only.
        self._owners = owners or {}

    @classmethod
    def fit(cls, interactions: Interactions) -> Self:
        """Collect (center, scale) of every training task that has a spread."""
        standardized = standardize(interactions, "zscore")
        n_models = np.bincount(interactions.task_index, minlength=interactions.n_tasks)
        hypotheses: dict[str, FloatArray] = {}
        signs: dict[str, float] = {}
        owners: dict[str, IntArray] = {}
        ranges: dict[str, Range] = {}
        metrics = np.array(interactions.metrics)
        for metric in sorted(set(interactions.metrics)):
            own = np.flatnonzero(metrics == metric)
            signs[metric] = float(interactions.signs[own[0]])
            values = interactions.values[(metrics == metric)[interactions.task_index]]
            low, high = natural_range(metric, float(values.min()), float(values.max()))
            ranges[metric] = (low, high) if signs[metric] > 0 else (-high, -low)
            spread = own[(n_models[own] >= _MIN_MODELS_FOR_SPREAD)]
            chosen = spread if spread.size else own
            if chosen.size > _MAX_HYPOTHESES:
                by_scale = chosen[np.argsort(standardized.scale[chosen], kind="stable")]
                chosen = by_scale[np.linspace(0, chosen.size - 1, _MAX_HYPOTHESES).astype(int)]
            owners[metric] = chosen
            hypotheses[metric] = np.column_stack(
                [standardized.center[chosen], standardized.scale[chosen]]
            )
        names, n_tasks = np.unique(metrics, return_counts=True)
        return cls(hypotheses, signs, str(names[int(np.argmax(n_tasks))]), owners, ranges)

    def excluding(self, task: int) -> "ScalePrior":
        """What is known without one training task (its index), as if it were new."""
        kept = {
            metric: rows[self._owners[metric] != task] for metric, rows in self._hypotheses.items()
        }
        return ScalePrior(
            {metric: rows for metric, rows in kept.items() if rows.size},
            self._signs,
            self.main_metric,
            ranges=self._ranges,
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that the history knows."""
        return tuple(self._hypotheses)

    def sign(self, metric: str) -> float:
        """+1 where higher values of ``metric`` are better, -1 where lower.

        Raises
        ------
        DataError
            No training task has that metric.
        """
        if metric not in self._signs:
            raise DataError(
                f"no past task is measured in {metric!r}, so it is not known which way it is "
                f"better; the history knows {', '.join(self._signs)}"
            )
        return self._signs[metric]

    def can_place(self, metric: str, outcomes: FloatArray) -> bool:
        """Whether outcomes in ``metric`` can be put on the standardised scale."""
        return metric in self._hypotheses or (
            outcomes.size >= _MIN_MODELS_FOR_SPREAD and float(outcomes.std()) > 0.0
        )

    def posterior(
        self,
        metric: str,
        *,
        predicted: FloatArray,
        outcomes: FloatArray,
        residual_sd: float,
    ) -> TaskScale:
        """Location and spread of a task, given some of its outcomes.

        With hypotheses ``s_h`` of the spread, ``y = c + s_h (z + e)``, ``e ~ N(0, residual_sd²)``
        and ``c ~ N(mean, variance of the training centers)``: a Gaussian model in ``c`` for each
        ``s_h``, whose evidence weighs the hypotheses.

        In a metric that no training task has, the spread of at least three outcomes stands in.

        Parameters
        ----------
        metric : str
            Name of the metric.
        predicted : ndarray of shape (n_observed,)
            Standardised outcomes expected before the observation.
        outcomes : ndarray of shape (n_observed,)
            What was observed, higher is better; may be empty.
        residual_sd : float
            Standard deviation of (true - predicted) standardised outcomes.

        Raises
        ------
        DataError
            A metric that no training task has, and fewer than three outcomes or no spread in them.
        """
        if metric not in self._hypotheses:
            return self._from_outcomes_alone(metric, predicted, outcomes)
        possible = self._ranges.get(metric, UNBOUNDED)
        centers, scales = self._hypotheses[metric].T
        prior_mean = float(centers.mean())
        # One training task: nothing is known of how centers vary, so its own spread stands in.
        prior_var = float(centers.var(ddof=1)) if centers.size > 1 else float(scales[0] ** 2)
        # The mean of the centers is itself known from these few.
        prior_var *= 1.0 + 1.0 / centers.size
        prior_var = max(prior_var, 1e-12)
        n = outcomes.size
        if n == 0:
            spread = float(np.exp(np.log(scales).mean()))
            return TaskScale(prior_mean, spread, prior_var**0.5, possible)
        noise_var = np.maximum((scales * residual_sd) ** 2, 1e-18)
        residual = outcomes[None, :] - scales[:, None] * predicted[None, :]
        mean_residual = residual.mean(axis=1)
        scatter = ((residual - mean_residual[:, None]) ** 2).sum(axis=1)
        total_var = prior_var + noise_var / n
        log_evidence = -0.5 * (
            (n - 1) * np.log(noise_var)
            + scatter / noise_var
            + np.log(total_var)
            + (mean_residual - prior_mean) ** 2 / total_var
        )
        weight = np.exp(log_evidence - log_evidence.max())
        weight /= weight.sum()
        gain = prior_var / total_var
        center_h = prior_mean + gain * (mean_residual - prior_mean)
        center = float(weight @ center_h)
        center_var = float(weight @ (prior_var * (1.0 - gain) + (center_h - center) ** 2))
        spread = float(np.exp(weight @ np.log(scales)))
        return TaskScale(center, spread, center_var**0.5, possible)

    def _from_outcomes_alone(
        self, metric: str, predicted: FloatArray, outcomes: FloatArray
    ) -> TaskScale:
        scale = float(outcomes.std()) if outcomes.size >= _MIN_MODELS_FOR_SPREAD else 0.0
        if scale <= 0.0:
            known = ", ".join(self.metrics)
            raise DataError(
                f"no past task is measured in {metric!r} (they are in {known}), and "
                f"{outcomes.size} observed outcomes do not say how outcomes spread; give at least "
                f"{_MIN_MODELS_FOR_SPREAD} that differ, or a metric of the history"
            )
        residual = outcomes - scale * predicted
        error = float(residual.std()) / np.sqrt(residual.size)
        return TaskScale(float(residual.mean()), scale, max(error, 1e-12))

    def state(self) -> State:
        """Hypotheses, signs and ranges by metric."""
        names = sorted(self._hypotheses)
        ranges = [self._ranges.get(m, UNBOUNDED) for m in names]
        return State(
            values={
                "metrics": names,
                "signs": [self._signs[m] for m in names],
                "main_metric": self.main_metric,
                # JSON has no infinity.
                "ranges": [[v if math.isfinite(v) else None for v in ends] for ends in ranges],
            },
            arrays={f"metric{i}": self._hypotheses[m] for i, m in enumerate(names)},
        )

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Restore from :meth:`state`."""
        names: list[str] = state.values["metrics"]
        ranges: list[list[float | None]] = state.values.get("ranges", [[None, None]] * len(names))
        return cls(
            {m: np.asarray(state.arrays[f"metric{i}"]) for i, m in enumerate(names)},
            dict(zip(names, state.values["signs"], strict=True)),
            state.values["main_metric"],
            ranges={
                m: (-math.inf if low is None else low, math.inf if high is None else high)
                for m, (low, high) in zip(names, ranges, strict=True)
            },
        )
