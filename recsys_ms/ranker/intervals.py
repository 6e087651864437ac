"""Intervals with stated coverage: split-conformal on outcomes of tasks that were held out.

The half-width of an interval is a quantile of |outcome - prediction| in units of what the model
itself believes of its error (Lei et al. 2018, locally weighted conformal prediction), taken over
held-out tasks and for several numbers of observed runs. Outcomes of one task are not exchangeable
with those of another, so every task weighs the same, whatever its number of models.

The level of that quantile is chosen such that each task, covered by the quantile of the others,
holds the stated share on average. The level that is safe for any two-layer distribution, (1 + 1/n)
times the stated coverage (Dunn, Wasserman & Ramdas 2022), held 95 % of the outcomes of six tasks
where 80 % were stated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from recsys_ms.core.rng import named_stream
from recsys_ms.core.state import State
from recsys_ms.core.types import BoolArray, FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.ranker.scale import ScalePrior, TaskScale

#: Numbers of observed runs for which quantiles are measured; a task uses the nearest from below.
_N_OBSERVED: Final = (0, 1, 3, 10)
#: Levels that are tried: from a part of the stated coverage below it up to the largest error.
_LEVEL_REACH: Final = 0.25
_N_LEVELS: Final = 60
#: Choices of observed outcomes for each task: with one, few tasks leave much to chance.
_N_DRAWS: Final = 8
#: Without a back-test (a single task), the normal error a model of mean skill makes.
_DEFAULT_RESIDUAL_SD: Final = 1.0


@dataclass(frozen=True, slots=True)
class IntervalCalibration:
    """Half-widths in units of the predicted standard error.

    Attributes
    ----------
    coverage : float
        Share of outcomes that the interval is made to hold.
    residual_sd : float
        Root mean square of (standardised outcome - prediction) over held-out tasks.
    quantiles : ndarray of shape (len(_N_OBSERVED),)
        Half-width for 0, 1, 3 and 10 observed runs.
    n_tasks : int
        Held-out tasks behind them; 0 means the normal approximation stands in.
    """

    coverage: float
    residual_sd: float
    quantiles: FloatArray
    n_tasks: int

    @classmethod
    def fit(
        cls, interactions: Interactions, held_out_value: FloatArray, *, coverage: float, seed: int
    ) -> Self:
        """Measure quantiles from predictions of held-out tasks.

        Parameters
        ----------
        interactions : Interactions
            Training interactions.
        held_out_value : ndarray of shape (n_interactions,)
            Predicted standardised outcome by a ranker that did not see the task; NaN where none.
        coverage : float
            In (0, 1).
        seed : int
            Chooses which outcomes play the observed ones.
        """
        score = standardize(interactions, "zscore").scores
        usable = ~np.isnan(held_out_value)
        tasks = np.unique(interactions.task_index[usable])
        if tasks.size < 2:
            from scipy.special import ndtri

            normal = float(ndtri(0.5 + coverage / 2))
            return cls(coverage, _DEFAULT_RESIDUAL_SD, np.full(len(_N_OBSERVED), normal), 0)
        residual_sd = float(np.sqrt(np.mean((score[usable] - held_out_value[usable]) ** 2)))
        residual_sd = max(residual_sd, 1e-6)
        quantiles = np.empty(len(_N_OBSERVED))
        prior = ScalePrior.fit(interactions)
        priors = {int(task): prior.excluding(int(task)) for task in tasks}
        for position, n_observed in enumerate(_N_OBSERVED):
            errors = []
            for task in tasks:
                rows = np.flatnonzero(usable & (interactions.task_index == task))
                error = np.concatenate(
                    [
                        _task_errors(
                            interactions,
                            priors[int(task)],
                            rows,
                            held_out_value,
                            residual_sd=residual_sd,
                            n_observed=n_observed,
                            rng=named_stream(
                                seed, "interval", interactions.task_ids[task], str(draw)
                            ),
                        )
                        for draw in range(_N_DRAWS if n_observed else 1)
                    ]
                )
                if error.size:
                    errors.append(error)
            quantiles[position] = (
                _half_width(errors, coverage) if errors else quantiles[max(position - 1, 0)]
            )
        return cls(coverage, residual_sd, quantiles, int(tasks.size))

    def half_width(self, scale: TaskScale, n_observed: int) -> float:
        """Half-width of the interval around a prediction, in the task's metric."""
        below = [i for i, n in enumerate(_N_OBSERVED) if n <= n_observed][-1]
        return float(self.quantiles[below]) * predicted_sd(scale, self.residual_sd)

    def around(
        self, scale: TaskScale, value: FloatArray, n_observed: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Predicted outcomes and both ends of their intervals, each (n_models,).

        Parameters
        ----------
        scale : TaskScale
            What is believed of the task's location and spread.
        value : ndarray of shape (n_models,)
            Predicted standardised outcomes.
        n_observed : int
            Outcomes of the task that are known.

        Returns
        -------
        predicted, low, high : ndarray of shape (n_models,)
            In the task's metric, higher is better, and cut to the values that it can take, which
            leaves no outcome out.
        """
        predicted = scale.center + scale.scale * value
        half = self.half_width(scale, n_observed)
        return (
            np.clip(predicted, *scale.range),
            np.clip(predicted - half, *scale.range),
            np.clip(predicted + half, *scale.range),
        )

    def state(self) -> State:
        """All attributes."""
        return State(
            values={
                "coverage": self.coverage,
                "residual_sd": self.residual_sd,
                "n_tasks": self.n_tasks,
            },
            arrays={"quantiles": self.quantiles},
        )

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Restore from :meth:`state`."""
        return cls(
            state.values["coverage"],
            state.values["residual_sd"],
            np.asarray(state.arrays["quantiles"], dtype=np.float64),
            state.values["n_tasks"],
        )


def predicted_sd(scale: TaskScale, residual_sd: float) -> float:
    """Standard error of a predicted outcome: of the task's location, and of the model's score."""
    return float(np.hypot(scale.center_sd, scale.scale * residual_sd))


def _task_errors(
    interactions: Interactions,
    prior: ScalePrior,
    rows: np.ndarray,
    held_out_value: FloatArray,
    *,
    residual_sd: float,
    n_observed: int,
    rng: np.random.Generator,
) -> FloatArray:
    task = int(interactions.task_index[rows[0]])
    metric = interactions.metrics[task]
    # A task without a comparable one cannot be put on its metric's scale from the others.
    if metric not in prior.metrics or rows.size <= n_observed:
        return np.empty(0)
    shown: BoolArray = np.zeros(rows.size, dtype=bool)
    shown[rng.permutation(rows.size)[:n_observed]] = True
    outcome, value = interactions.outcomes[rows], held_out_value[rows]
    scale = prior.posterior(
        metric, predicted=value[shown], outcomes=outcome[shown], residual_sd=residual_sd
    )
    predicted = scale.center + scale.scale * value[~shown]
    errors: FloatArray = np.abs(outcome[~shown] - predicted) / predicted_sd(scale, residual_sd)
    return errors


def _half_width(errors: Sequence[FloatArray], coverage: float) -> float:
    """Quantile of all errors at the level that covers each task by the others as stated."""
    value = np.concatenate(errors)
    task = np.repeat(np.arange(len(errors)), [error.size for error in errors])
    weight = np.concatenate([np.full(error.size, 1.0 / error.size) for error in errors])
    order = np.argsort(value, kind="stable")
    value, task, weight = value[order], task[order], weight[order]
    total = np.cumsum(weight) / len(errors)
    if len(errors) < 2:
        return _quantile(value, total, coverage)
    levels = np.linspace(coverage - _LEVEL_REACH * coverage, 1.0, _N_LEVELS)
    covered = np.zeros(_N_LEVELS)
    for own in range(len(errors)):
        mine = task == own
        others = np.cumsum(np.where(mine, 0.0, weight)) / (len(errors) - 1)
        bounds = [_quantile(value, others, float(level)) for level in levels]
        covered += np.searchsorted(value[mine], bounds, side="right") / mine.sum()
    # What a level falls short by goes with one over the number of tasks; one task more covers a new
    # one than covered each of these.
    n_tasks = len(errors)
    expected = levels - (levels - covered / n_tasks) * n_tasks / (n_tasks + 1)
    # Between two tasks it jumps, and the nearer side of the jump is taken.
    level = levels[int(np.argmin(np.abs(expected - coverage)))]
    return _quantile(value, total, float(level))


def _quantile(value: FloatArray, cumulative: FloatArray, level: float) -> float:
    """Smallest of sorted values whose cumulative weight reaches a level."""
    at = int(np.searchsorted(cumulative, level - 1e-12))
    return float(value[min(at, value.size - 1)])
