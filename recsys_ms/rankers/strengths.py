"""How far held-out tasks stray from what was expected of them, and in which directions together.

Three strengths scale the covariance that the transfer model expects of a new task: of its factors,
of the models' cards (what this task alone shows about models that look alike), and of the noise.
They maximise the density of held-out outcomes, each given some others of the same task: the
question a ranker is asked. Where past tasks tell nothing about a new one, the strength of the
factors goes to 0 and observed runs move nothing but the level.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.posterior import TaskPrior

#: Numbers of observed runs that the strengths are to serve.
N_OBSERVED: Final = (0, 1, 3, 10)
#: Bounds of the logarithms of the three strengths.
_BOUNDS: Final = ((-5.0, 1.0), (-7.0, 1.0), (-1.5, 1.5))
_START: Final = (-0.3, -3.0, 0.1)
_STEPS: Final = (-1.0, 1.5, 0.4)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutTask:
    """A task that the transfer model did not see, and what was expected of it.

    Attributes
    ----------
    name : str
    mean : ndarray of shape (n_models,)
        Expected normal scores.
    level : float
        Standard deviation of the task's level.
    factors : ndarray of shape (n_models, n_factors)
        Loadings times the standard deviation of the factors.
    directions : ndarray of shape (n_models, n_directions)
    noise : ndarray of shape (n_models,)
    bend : ndarray of shape (n_models,)
    normal : ndarray of shape (n_models,)
        Normal scores that were reached.
    """

    name: str
    mean: FloatArray
    level: float
    factors: FloatArray
    directions: FloatArray
    noise: FloatArray
    bend: FloatArray
    normal: FloatArray

    def prior(self, strengths: "Strengths") -> TaskPrior:
        """What is believed of the task under some strengths."""
        return strengths.prior(
            self.mean, self.level, self.factors, self.directions, self.noise, self.bend
        )


@dataclass(frozen=True, slots=True)
class Strengths:
    """Factors by which variances are multiplied.

    Attributes
    ----------
    factors, directions, noise : float
        Of the factors, of the directions of cards, of the noise; at least 0.
    bend : float
        Share of a model's bend that new tasks have, in [0, 1].
    """

    factors: float = 0.75
    directions: float = 0.05
    noise: float = 1.1
    bend: float = 0.0

    def prior(
        self,
        mean: FloatArray,
        level: float,
        factors: FloatArray,
        directions: FloatArray,
        noise: FloatArray,
        bend: FloatArray,
    ) -> TaskPrior:
        """Belief about a task's normal scores before any is observed; see :class:`HeldOutTask`."""
        loadings = np.column_stack(
            [
                np.full(mean.size, level),
                np.sqrt(self.factors) * factors,
                np.sqrt(self.directions) * directions,
            ]
        )
        return TaskPrior(mean, loadings, self.noise * noise, self.bend * bend)


def fit_strengths(tasks: Sequence[HeldOutTask], *, seed: int) -> Strengths:
    """Choose the strengths that held-out tasks make most likely; the defaults without tasks."""
    from scipy.optimize import minimize

    if len(tasks) < 2:
        return Strengths()
    questions = [
        (task, named_stream(seed, "strengths", task.name).permutation(task.normal.size))
        for task in tasks
    ]
    use_directions = tasks[0].directions.shape[1] > 0

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
    """Mean negative log density of the outcomes that were not shown, over numbers of shown ones."""
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
    """Add the share of the models' bend that predicts held-out z-scores best (least squares)."""
    above, below = 0.0, 1e-9
    for task, reached, shape in zip(tasks, standard, shapes, strict=True):
        prior = task.prior(strengths)
        sd = np.sqrt((prior.loadings**2).sum(axis=1) + prior.noise)
        left = reached - shape.expected(prior.mean, sd)
        bend = task.bend - task.bend.mean()
        above += float(np.mean(bend * (left - left.mean())))
        below += float(np.mean(bend**2))
    return replace(strengths, bend=float(np.clip(above / below, 0.0, 1.0)))
