"""Scales of the covariance of a new task's normal scores, estimated on held-out tasks.

Three strengths multiply the covariance that the transfer model expects: of the task's factors, of
the models' cards (effects of this task alone on similar models), and of the noise. They maximise
the density of held-out outcomes, each given some others of the same task. Where past tasks are
unlike new ones, the strength of the factors goes to 0 and observed runs move only the level.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

import numpy as np

from recsys_ms.core.declared import Within
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.posterior import TaskPrior
from recsys_ms.rankers.transfer_model import ModelRows

#: Numbers of observed runs that the strengths are fitted for.
N_OBSERVED: Final = (0, 1, 3, 10)
#: Bounds of the logarithms of the three strengths.
_BOUNDS: Final = ((-5.0, 1.0), (-7.0, 1.0), (-1.5, 1.5))
_START: Final = (-0.3, -3.0, 0.1)
_STEPS: Final = (-1.0, 1.5, 0.4)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutTask:
    """A task that the transfer model did not see, and what was expected of it."""

    name: str
    mean: FloatArray  # (n_models,), expected normal scores
    level: float  # standard deviation of the task's level
    factor_sd: float  # standard deviation of the task's factors
    models: ModelRows
    normal: FloatArray  # (n_models,), observed normal scores

    def prior(self, strengths: "Strengths") -> TaskPrior:
        """The belief about the task under some strengths."""
        return strengths.prior(self.mean, self.level, self.factor_sd, self.models)


@dataclass(frozen=True, slots=True)
class Strengths:
    """Factors, at least 0, that multiply the variances of a task's parts."""

    factors: Annotated[float, Within(least=0.0)] = 0.75
    directions: Annotated[float, Within(least=0.0)] = 0.05
    noise: Annotated[float, Within(above=0.0)] = 1.1
    #: Share of a model's bend that new tasks have.
    bend: Annotated[float, Within(least=0.0, most=1.0)] = 0.0

    def prior(
        self, mean: FloatArray, level: float, factor_sd: float, models: ModelRows
    ) -> TaskPrior:
        """Belief about a task's normal scores before any is observed; see :class:`HeldOutTask`."""
        loadings = np.column_stack(
            [
                np.full(mean.size, level),
                np.sqrt(self.factors) * (models.loadings * factor_sd),
                np.sqrt(self.directions) * models.directions,
            ]
        )
        return TaskPrior(mean, loadings, self.noise * models.noise, self.bend * models.bend)


def fit_strengths(tasks: Sequence[HeldOutTask], *, seed: int) -> Strengths:
    """The strengths of highest likelihood on held-out tasks; the defaults for fewer than two."""
    from scipy.optimize import minimize

    if len(tasks) < 2:
        return Strengths()
    questions = [
        (task, named_stream(seed, "strengths", task.name).permutation(task.normal.size))
        for task in tasks
    ]
    use_directions = tasks[0].models.directions.shape[1] > 0

    def loss(log: FloatArray) -> float:
        own = _of_log(log, use_directions=use_directions)
        return float(np.mean([_surprise(own, task, order) for task, order in questions]))

    found = minimize(
        loss,
        np.array(_START),
        method="Nelder-Mead",
        bounds=_BOUNDS,
        options={
            "maxfev": 60,
            "xatol": 0.05,
            "fatol": 1e-4,
            "initial_simplex": np.array(_START) + np.vstack([np.zeros(3), np.diag(_STEPS)]),
        },
    )
    return _of_log(found.x, use_directions=use_directions)


def _of_log(log: FloatArray, *, use_directions: bool) -> Strengths:
    factors, directions, noise = np.exp(np.clip(log, *np.array(_BOUNDS).T)).tolist()
    return Strengths(factors, directions if use_directions else 0.0, noise)


def _surprise(strengths: Strengths, task: HeldOutTask, order: np.ndarray) -> float:
    """Mean negative log density of hidden outcomes, averaged over numbers of shown ones."""
    prior = task.prior(strengths)
    left = task.normal - prior.mean
    found = []
    for n in N_OBSERVED:
        if task.normal.size < n + 2:
            break
        seen, rest = order[:n], order[n:]
        cov, _, shift = prior.take(seen).update(left[seen])
        asked = prior.loadings[rest]
        variance = ((asked @ cov) * asked).sum(axis=1) + prior.noise[rest]
        error = left[rest] - asked @ shift
        found.append(float(np.mean(error**2 / variance + np.log(variance))))
    return float(np.mean(found))


def fit_bend(
    tasks: Sequence[HeldOutTask],
    standard: Sequence[FloatArray],
    shapes: Sequence[OutcomeShape],
    strengths: Strengths,
) -> Strengths:
    """Add the share of the models' bend that fits held-out z-scores best (least squares)."""
    above, below = 0.0, 1e-9
    for task, reached, shape in zip(tasks, standard, shapes, strict=True):
        prior = task.prior(strengths)
        sd = np.sqrt((prior.loadings**2).sum(axis=1) + prior.noise)
        left = reached - shape.expected(prior.mean, sd)
        bend = task.models.bend - task.models.bend.mean()
        above += float(np.mean(bend * (left - left.mean())))
        below += float(np.mean(bend**2))
    return replace(strengths, bend=float(np.clip(above / below, 0.0, 1.0)))
