"""One Gaussian posterior over a task's models, given the outcomes that were observed on it.

A task's normal scores are, before anything is observed, ``n = mean + loadings · z + noise`` with
``z ~ N(0, I)``: what is expected of each model, what may move many models together, and what moves
one alone. An observed outcome ``y`` tells ``n = g⁻¹((y - c) / s)``; the task's location ``c`` and
spread ``s`` are unknown, too, and are summed over a grid of hypotheses weighted by their evidence.
Given a hypothesis everything is Gaussian, and costs no more than inverting a matrix of the number
of loadings, however many models are asked about.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.rankers.belief import Belief
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.task_scale import MetricScale, TaskScale, hypotheses, usual_scale

#: Places, in standard deviations of what is expected of it, at which a task's location is tried.
_LOCATIONS: Final = np.linspace(-2.5, 2.5, 11)
#: Hypotheses less likely than this, beside the likeliest, are dropped.
_NEGLIGIBLE: Final = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class TaskPrior:
    """What is believed of some models' normal scores on a task before any outcome is observed.

    Attributes
    ----------
    mean : ndarray of shape (n_models,)
    loadings : ndarray of shape (n_models, n_loadings)
        Their inner products are the covariance of what moves models together.
    noise : ndarray of shape (n_models,)
        Variance of what moves each alone, positive.
    bend : ndarray of shape (n_models,)
        By how much a model's standardised outcomes differ from what the common shape makes of its
        normal scores, on average: a model that collapses now and then has a negative one.
    """

    mean: FloatArray
    loadings: FloatArray
    noise: FloatArray
    bend: FloatArray

    @classmethod
    def independent(cls, mean: FloatArray, noise: FloatArray) -> "TaskPrior":
        """Models that nothing moves together, each with the common shape."""
        return cls(mean, np.zeros((mean.size, 0)), noise, np.zeros(mean.size))

    def update(self, left: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Covariance and mean of ``z`` given normal scores of all these models.

        Parameters
        ----------
        left : ndarray of shape (..., n_models)
            Normal scores less what was expected, for any number of hypotheses.

        Returns
        -------
        cov : ndarray of shape (n_loadings, n_loadings)
        told : ndarray of shape (..., n_loadings)
            What the scores say of ``z``, before the covariance weighs it.
        shift : ndarray of shape (..., n_loadings)
            The mean.
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
    """What observed outcomes say of ``z``, ``c`` and ``s``.

    Attributes
    ----------
    weight, center, spread : ndarray of shape (n_hypotheses,)
        Probability, location and spread of each hypothesis.
    shift : ndarray of shape (n_hypotheses, n_loadings)
        Mean of ``z`` under each.
    cov : ndarray of shape (n_loadings, n_loadings)
        Covariance of ``z`` under each.
    scale : TaskScale
        Location and spread on average.
    shape : OutcomeShape
    told : (tuple of str, ndarray of shape (n_loadings, n_observed))
        Names of the observed models, and what each adds to the mean of ``z``.
    """

    weight: FloatArray
    center: FloatArray
    spread: FloatArray
    shift: FloatArray
    cov: FloatArray
    scale: TaskScale
    shape: OutcomeShape
    told: tuple[tuple[str, ...], FloatArray]

    def believe(self, prior: TaskPrior) -> Belief:
        """What is believed of models' outcomes, observed ones told again included."""
        mean_shift = self.weight @ self.shift
        mean = prior.mean + prior.loadings @ mean_shift
        root = prior.loadings @ np.linalg.cholesky(self.cov + 1e-10 * np.eye(len(self.cov)))
        # Location, spread and shift of one hypothesis go together: what they leave open of an
        # outcome is less than the sum of what each leaves open.
        sd = np.sqrt((root**2).sum(axis=1) + prior.noise)
        shaped = self.shape.expected(mean, sd)
        slope = self.shape.slope(mean)
        moved = (self.shift - mean_shift) @ prior.loadings.T
        told = self.center[:, None] + self.spread[:, None] * (shaped + prior.bend + slope * moved)
        apart = told - self.weight @ told
        between = self.weight @ apart**2 if self.weight.size > 1 else 0.0 * mean
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

    Parameters
    ----------
    prior : TaskPrior
        Of the observed models.
    outcomes : ndarray of shape (n_observed,)
        Higher is better, on the scale of the metric's link; may be empty.
    metric : MetricScale
    shape : OutcomeShape
    names : tuple of str, optional
        Names of the observed models, kept for reasons.
    """
    n_loadings = prior.loadings.shape[1]
    usual = usual_scale(metric)
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
    # The mean of z is linear in how far each outcome was from what was expected of it.
    each = cov @ (prior.loadings / prior.noise[:, None]).T * (weight @ left[kept])
    middle = float(weight @ center)
    scale = TaskScale(
        center=middle,
        scale=float(np.exp(weight @ np.log(spread))),
        center_sd=float(np.sqrt(weight @ (center - middle) ** 2)),
        link=usual.link,
        sign=usual.sign,
        range=usual.range,
    )
    return TaskPosterior(weight, center, spread, shift, cov, scale, shape, (names, each))


def _grid(
    prior: TaskPrior, outcomes: FloatArray, metric: MetricScale, shape: OutcomeShape
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Hypotheses: locations around what the outcomes say, for each spread; their log prior."""
    tried = hypotheses(metric)
    expected = shape(prior.mean) + prior.bend
    variance = float(np.mean((prior.loadings**2).sum(axis=1) + prior.noise))
    precision = 1.0 / tried.center_sd**2 + outcomes.size / (tried.spread**2 * variance)
    told = (outcomes - tried.spread[:, None] * expected).sum(axis=1)
    around = (tried.center / tried.center_sd**2 + told / (tried.spread**2 * variance)) / precision
    step = 1.0 / np.sqrt(precision)
    center = around[:, None] + step[:, None] * _LOCATIONS
    distance = (center - tried.center[:, None]) / tried.center_sd[:, None]
    log_weight = (tried.log_weight - np.log(tried.center_sd) + np.log(step))[:, None]
    spread = np.repeat(tried.spread, _LOCATIONS.size)
    return center.ravel(), spread, (log_weight - 0.5 * distance**2).ravel()
