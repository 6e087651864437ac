"""Gaussian processes: settings by marginal likelihood, conditioning on outcomes, the posterior.

Rasmussen & Williams (2006): Eq. 2.25 and 2.26 for the posterior, Eq. 5.8 and 5.9 for the likelihood
and its slopes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import numpy as np
import scipy.linalg

from recsys_ms.core.types import FloatArray
from recsys_ms.learners.gaussian.kernels import Compared, Kernel, Logs

#: Setting of every process: the variance of one outcome's noise.
NOISE: Final = "noise"


class Inputs(Protocol):
    """What a process is conditioned on and asked about."""

    def compare(self, other: Any, /) -> Compared:
        """The comparisons that the kernel needs, of these inputs (left) with others."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Negative log posterior density of a kernel's settings, given outcomes.

    Attributes
    ----------
    kernel : Kernel
    compared : mapping of str to ndarray of shape (n_rows, n_rows)
        The inputs with themselves.
    target : ndarray of shape (n_rows,) or (n_rows, n_targets)
        Independent targets share the kernel.
    start : mapping of str to float
        Logarithm of each setting where the search begins, by its name or the first word of it.
    mean : float or None
        Mean of the settings' normal prior; ``None`` (default) for ``start``.
    sd : float
        Its standard deviation; infinite (default) for a flat prior.
    n_silent : int
        Further rows whose covariances and outcomes are 0: they tell of the noise alone.
    """

    kernel: Kernel
    compared: Compared
    target: FloatArray
    start: Mapping[str, float]
    mean: float | None = None
    sd: float = np.inf
    n_silent: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Settings of the kernel, and the noise last."""
        return (*self.kernel.names, NOISE)

    @property
    def first(self) -> FloatArray:
        """Where the search begins, shape (n_settings,)."""
        return np.array([_by_word(self.start, name) for name in self.names])

    def __call__(self, at: FloatArray) -> tuple[float, FloatArray]:
        """Value, up to a constant, and gradient at some logarithms of the settings."""
        logs = dict(zip(self.names, at.tolist(), strict=True))
        covariance, pull = self.kernel.with_slopes(logs, self.compared)
        target = self.target.reshape(len(self.target), -1)
        n_targets = target.shape[1]
        factor = _cholesky(covariance, logs)
        weights = scipy.linalg.cho_solve((factor, True), target)
        # The derivative by the covariance; symmetric, so that a trace of products is a sum.
        derivative = 0.5 * (n_targets * _inverse(factor) - weights @ weights.T)
        slopes = dict.fromkeys(self.names, 0.0)
        pull(derivative, slopes)
        silent = 0.5 * n_targets * self.n_silent
        slopes[NOISE] = np.exp(logs[NOISE]) * float(np.trace(derivative)) + silent
        value = 0.5 * float(np.vdot(target, weights)) + silent * logs[NOISE]
        value += n_targets * float(np.log(np.diag(factor)).sum())
        away = (at - (self.first if self.mean is None else self.mean)) / self.sd
        gradient = np.array(list(slopes.values())) + away / self.sd
        return value + 0.5 * float(away @ away), gradient


def fit(
    evidence: Evidence, bounds: Mapping[str, tuple[float, float]], max_iterations: int
) -> dict[str, float]:
    """Logarithms of the most likely settings.

    Parameters
    ----------
    evidence : Evidence
    bounds : mapping of str to (float, float)
        By the name of a setting or the first word of it; ``""`` for the others.
    max_iterations : int
        Of L-BFGS-B, with exact gradients.
    """
    from scipy.optimize import minimize

    found = minimize(
        evidence,
        evidence.first,
        jac=True,
        method="L-BFGS-B",
        bounds=[_by_word(bounds, name) for name in evidence.names],
        options={"maxiter": max_iterations},
    )
    return dict(zip(evidence.names, found.x.tolist(), strict=True))


class Process:
    """A Gaussian process of mean 0, before or after conditioning.

    Parameters
    ----------
    kernel : Kernel
    logs : mapping of str to float
        Logarithm of each setting of the kernel, and of ``noise``.
    """

    def __init__(self, kernel: Kernel, logs: Logs) -> None:
        self._kernel, self._logs = kernel, logs
        self._known: tuple[Inputs, ...] = ()
        self._factor = np.zeros((0, 0))
        self._target: FloatArray = np.zeros(0)
        self._weights: FloatArray = np.zeros(0)

    @property
    def weights(self) -> FloatArray:
        """``(K + noise · I)⁻¹ y`` of all known rows, in the shape of their outcomes."""
        return self._weights

    def condition(self, inputs: Inputs, target: FloatArray) -> Self:
        """The process given some more outcomes, (n_rows,) or (n_rows, n_targets)."""
        found = type(self)(self._kernel, self._logs)
        found._known = (*self._known, inputs)
        own = self._kernel(self._logs, inputs.compare(inputs))
        if not self._known:
            found._target, found._factor = target, _cholesky(own, self._logs)
        else:
            # Only the new rows of the Cholesky factor are worked out.
            found._target = np.concatenate([self._target, target])
            across = self._half(inputs)
            corner = _cholesky(own - across.T @ across, self._logs)
            zeros = np.zeros((len(self._factor), len(corner)))
            found._factor = np.block([[self._factor, zeros], [across.T, corner]])
        found._weights = scipy.linalg.cho_solve((found._factor, True), found._target)
        return found

    def mean(self, asked: Inputs) -> FloatArray:
        """Expected outcomes, shape (n_asked,) or (n_asked, n_targets)."""
        found: FloatArray = self._with_known(asked) @ self._weights
        return found

    def covariance(self, left: Inputs, right: Inputs) -> FloatArray:
        """Posterior covariance of two sets of inputs without noise, (n_left, n_right)."""
        reduced: FloatArray = self._half(left).T @ self._half(right)
        return self._kernel(self._logs, left.compare(right)) - reduced

    def explained(self, asked: Inputs) -> FloatArray:
        """By how much the known outcomes lower the variance of each input, shape (n_asked,)."""
        found: FloatArray = (self._half(asked) ** 2).sum(axis=0)
        return found

    def shares(self, asked: Inputs) -> FloatArray:
        """How much each known outcome counts in the expected ones, shape (n_asked, n_known).

        ``k (K + noise · I)⁻¹``: the mean is linear in the outcomes (§2.6).
        """
        across = self._with_known(asked)
        found: FloatArray = scipy.linalg.cho_solve((self._factor, True), across.T).T
        return found

    def _with_known(self, asked: Inputs) -> FloatArray:
        return np.hstack([self._kernel(self._logs, asked.compare(each)) for each in self._known])

    def _half(self, asked: Inputs) -> FloatArray:
        """Inner products of these columns are what is known of a covariance, (n_known, n_asked)."""
        found: FloatArray = scipy.linalg.solve_triangular(
            self._factor, self._with_known(asked).T, lower=True
        )
        return found


def _by_word(values: Mapping[str, Any], name: str) -> Any:
    return next(values[key] for key in (name, name.split()[0], "") if key in values)


def _cholesky(covariance: FloatArray, logs: Logs) -> FloatArray:
    """Lower factor of a covariance with the noise added."""
    noisy = covariance.copy()
    noisy[np.diag_indices_from(noisy)] += np.exp(logs[NOISE])
    factor: FloatArray = scipy.linalg.cholesky(noisy, lower=True, overwrite_a=True)
    return factor


def _inverse(factor: FloatArray) -> FloatArray:
    """Inverse of the matrix with this lower Cholesky factor."""
    # A third of the operations of solving for the identity.
    half = scipy.linalg.lapack.dpotri(factor, lower=True)[0]
    inverse: FloatArray = np.tril(half) + np.tril(half, -1).T
    return inverse
