"""One Gaussian posterior over a task's models, given the outcomes that were observed on it.

Before any observation a task's normal scores are ``n = mean + loadings · z + noise`` with
``z ~ N(0, I)``: the expected score of each model, effects shared by models, and effects of one
model alone. An observed outcome ``y`` means ``n = g⁻¹((y - c) / s)``; the task's location ``c`` and
spread ``s`` are unknown, too, and are summed over a grid of hypotheses weighted by their evidence.
Given a hypothesis everything is Gaussian, and costs no more than inverting a matrix of the number
of loadings, for any number of models.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.rankers.belief import Belief
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.task_scale import MetricScale, TaskScale

#: Locations that are tried, in standard deviations around the expected one.
_LOCATIONS: Final = np.linspace(-2.5, 2.5, 11)
#: Spreads that are tried, in standard deviations of ``log s``.
_SPREADS: Final = np.linspace(-2.0, 2.0, 9)
#: Hypotheses less likely than this, relative to the likeliest, are dropped.
_NEGLIGIBLE: Final = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class TaskPrior:
    """Normal scores of some models on a task before any outcome is observed."""

    mean: FloatArray  # (n_models,)
    loadings: FloatArray  # (n_models, n_loadings); inner products are the models' covariance
    noise: FloatArray  # (n_models,), variance of each model's own effect, positive
    #: (n_models,), mean difference of a model's standardised outcomes from the common shape of its
    #: normal scores: a model that collapses now and then has a negative one.
    bend: FloatArray

    @classmethod
    def independent(cls, mean: FloatArray, noise: FloatArray) -> "TaskPrior":
        """Models without covariance, each with the common shape."""
        return cls(mean, np.zeros((mean.size, 0)), noise, np.zeros(mean.size))

    def update(self, left: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Covariance and mean of ``z`` given normal scores of all these models.

        ``left`` (..., n_models) are normal scores less the expected ones, for any number of
        hypotheses. Gives the covariance (n_loadings, n_loadings), the mean before the covariance
        weighs it, and the mean, both (..., n_loadings).
        """
        weighted = self.loadings / self.noise[:, None]
        precision = np.eye(self.loadings.shape[1]) + self.loadings.T @ weighted
        cov: FloatArray = np.linalg.inv(precision).astype(np.float64)
        told = left @ weighted
        return cov, told, told @ cov

    def take(self, at: IntArray) -> "TaskPrior":
        """The rows at some positions."""
        return TaskPrior(self.mean[at], self.loadings[at], self.noise[at], self.bend[at])


@dataclass(frozen=True, slots=True, eq=False)
class TaskPosterior:
    """``z``, ``c`` and ``s`` given observed outcomes."""

    weight: FloatArray  # (n_hypotheses,), probability of each hypothesis
    center: FloatArray  # (n_hypotheses,), its location
    spread: FloatArray  # (n_hypotheses,), its spread
    shift: FloatArray  # (n_hypotheses, n_loadings), mean of ``z`` under it
    cov: FloatArray  # (n_loadings, n_loadings), covariance of ``z`` under each
    scale: TaskScale  # location and spread on average
    shape: OutcomeShape
    #: Observed models, and what each adds to the mean of ``z``, (n_loadings, n_observed).
    told: tuple[tuple[str, ...], FloatArray]

    def believe(self, prior: TaskPrior) -> Belief:
        """The belief about models' outcomes, a further run of observed ones included."""
        mean_shift = self.weight @ self.shift
        mean = prior.mean + prior.loadings @ mean_shift
        root = prior.loadings @ np.linalg.cholesky(self.cov + 1e-10 * np.eye(len(self.cov)))
        # Location, spread and shift of a hypothesis are correlated: together they add less variance
        # to an outcome than each alone.
        sd = np.sqrt((root**2).sum(axis=1) + prior.noise)
        shaped = self.shape.expected(mean, sd)
        slope = self.shape.slope(mean)
        moved = (self.shift - mean_shift) @ prior.loadings.T
        told = self.center[:, None] + self.spread[:, None] * (shaped + prior.bend + slope * moved)
        apart = told - self.weight @ told
        between = self.weight @ apart**2
        if self.weight.size == 1:
            between = np.full(mean.size, self.scale.center_sd**2)
        return Belief(
            mean=mean,
            shaped=shaped,
            root=root,
            noise=prior.noise,
            bend=prior.bend,
            between_sd=np.sqrt(np.maximum(between, 0.0)),
            scale=self.scale,
            shape=self.shape,
        )


def condition(
    prior: TaskPrior,
    outcomes: FloatArray,
    metric: MetricScale,
    shape: OutcomeShape,
    *,
    names: tuple[str, ...] = (),
) -> TaskPosterior:
    """Posterior given observed outcomes.

    ``prior`` is that of the observed models, ``outcomes`` (n_observed,) are on the scale of the
    metric's link, higher is better, and may be empty; ``names`` of the observed models are kept
    for reasons.
    """
    n_loadings = prior.loadings.shape[1]
    usual = metric.usual
    if outcomes.size == 0:
        return TaskPosterior(
            weight=np.ones(1),
            center=np.array([usual.center]),
            spread=np.array([usual.scale]),
            shift=np.zeros((1, n_loadings)),
            cov=np.eye(n_loadings),
            scale=usual,
            shape=shape,
            told=((), np.zeros((n_loadings, 0))),
        )
    center, spread, log_weight = _grid(prior, outcomes, metric, shape)
    standard = (outcomes - center[:, None]) / spread[:, None]
    normal = shape.inverse(standard - prior.bend)
    # Density of the outcome from that of its normal score.
    log_weight -= np.log(shape.slope(normal)).sum(axis=1) + outcomes.size * np.log(spread)
    left = normal - prior.mean
    cov, told, shift = prior.update(left)
    log_weight -= 0.5 * ((left**2 / prior.noise).sum(axis=1) - (told * shift).sum(axis=1))
    weight = np.exp(log_weight - log_weight.max())
    kept = weight > _NEGLIGIBLE
    weight = weight[kept] / weight[kept].sum()
    center, spread, shift = center[kept], spread[kept], shift[kept]
    # The mean of z is linear in the error of each outcome.
    each = cov @ (prior.loadings / prior.noise[:, None]).T * (weight @ left[kept])
    middle = float(weight @ center)
    scale = replace(
        usual,
        center=middle,
        scale=float(np.exp(weight @ np.log(spread))),
        center_sd=float(np.sqrt(weight @ (center - middle) ** 2)),
    )
    return TaskPosterior(weight, center, spread, shift, cov, scale, shape, (names, each))


def _grid(
    prior: TaskPrior, outcomes: FloatArray, metric: MetricScale, shape: OutcomeShape
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Locations and spreads of the hypotheses, and their log prior, (n_hypotheses,) each."""
    steps = metric.log_spread_sd * _SPREADS
    tried = np.exp(metric.log_spread + steps)
    usual, center_sd = metric.center + metric.slope * steps, metric.center_sd
    expected = shape(prior.mean) + prior.bend
    variance = float(np.mean((prior.loadings**2).sum(axis=1) + prior.noise))
    precision = 1.0 / center_sd**2 + outcomes.size / (tried**2 * variance)
    told = (outcomes - tried[:, None] * expected).sum(axis=1)
    around = (usual / center_sd**2 + told / (tried**2 * variance)) / precision
    step = 1.0 / np.sqrt(precision)
    center = around[:, None] + step[:, None] * _LOCATIONS
    distance = (center - usual[:, None]) / center_sd
    log_weight = (-0.5 * _SPREADS**2 - np.log(center_sd) + np.log(step))[:, None]
    spread = np.repeat(tried, _LOCATIONS.size)
    return center.ravel(), spread, (log_weight - 0.5 * distance**2).ravel()
