"""What is believed of several outcomes at once, and what to expect of trying one of them."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from recsys_ms.core.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """A normal belief about the outcomes of models on one task.

    Attributes
    ----------
    mean : ndarray of shape (n_models,)
    covariance : ndarray of shape (n_models, n_models)
    highest : float
        The best outcome there can be: what the normal distribution has above it is at it.
    """

    mean: FloatArray
    covariance: FloatArray
    highest: float = float("inf")

    @property
    def sd(self) -> FloatArray:
        """Standard deviation of each outcome, shape (n_models,)."""
        found: FloatArray = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        return found

    def scaled(
        self,
        center: float,
        scale: float,
        *,
        sd: float,
        center_sd: float,
        highest: float = float("inf"),
    ) -> "Joint":
        """The belief on a task's own scale.

        Parameters
        ----------
        center, scale : float
            Location and spread of the task's outcomes.
        sd : float
            Root mean square of the standard deviations that the result is to have: what held-out
            tasks say of the error. The covariance says how it is shared among the models.
        center_sd : float
            The part of it that is the location's, the same for all models; below ``sd``.
        highest : float
            The best outcome there can be.
        """
        own = self.covariance * scale**2
        wanted = max(sd**2 - center_sd**2, (0.1 * sd) ** 2)
        spread = float(np.mean(np.diag(own)))
        factor = wanted / spread if spread > 0 else 0.0
        return Joint(center + scale * self.mean, own * factor + center_sd**2, highest)

    def improvement(self, best: float) -> FloatArray:
        """Expected gain over ``best`` of trying each model, shape (n_models,)."""
        gain = expected_improvement(self.mean, self.sd, best)
        if np.isfinite(self.highest):
            gain = gain - expected_improvement(self.mean, self.sd, self.highest)
        found: FloatArray = np.clip(gain, 0.0, max(self.highest - best, 0.0))
        return found

    def draws(self, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """Outcomes drawn from the belief, shape (n_draws, n_models), not cut at ``highest``."""
        values, axes = np.linalg.eigh(self.covariance)
        root = axes * np.sqrt(np.maximum(values, 0.0))
        drawn: FloatArray = self.mean + rng.standard_normal((n_draws, self.mean.size)) @ root.T
        return drawn


def expected_improvement(mean: FloatArray, sd: FloatArray, best: float) -> FloatArray:
    """Expected gain over ``best`` of trying each of some models (Jones et al. 1998, Eq. 15).

    Parameters
    ----------
    mean, sd : ndarray of shape (n_models,)
        Normal beliefs of the outcomes; where ``sd`` is 0 the outcome is certain.
    best : float
        Best outcome so far.

    Returns
    -------
    ndarray of shape (n_models,)
        ``E[max(outcome - best, 0)]``, at least 0.
    """
    gain = mean - best
    safe = np.where(sd > 0, sd, 1.0)
    z = gain / safe
    normal = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    # Far below the best, the two terms cancel to rounding noise.
    uncertain = np.maximum(gain * ndtr(z) + safe * normal, 0.0)
    return np.where(sd > 0, uncertain, np.maximum(gain, 0.0))
