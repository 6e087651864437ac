"""A Gaussian process from what cards say to factors: tasks, and models, that look alike.

Each view of a card (a task's images, its class names, what else its card says; a model's
architecture, its card) has a kernel, and what the views explain of the factors is learned by
marginal likelihood (Rasmussen & Williams 2006, Eq. 5.8), so that a view that says nothing gets no
weight. Views of many cards are seen through at most :data:`N_LANDMARKS` of them (Williams & Seeger
2001), which keeps the cost linear in their number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from recsys_ms.core.rng import named_stream
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray
from recsys_ms.learners.gaussian.vectors import known_rows, median_distance

#: Cards that a view is seen through; with at most so many the kernel is exact.
N_LANDMARKS: Final = 160
_TINY: Final = 1e-9
#: Log-normal prior of each variance: around .3 of the factors' variance, a factor of 20 either way.
_PRIOR_LOG_MEAN: Final = float(np.log(0.3))
_PRIOR_LOG_SD: Final = 3.0
#: Bounds of the log variances; the noise has the narrower one.
_BOUNDS: Final = (-7.0, 2.0)
_NOISE_BOUNDS: Final = (-4.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class ViewKernel:
    """Features whose inner products are a Gaussian kernel of a view.

    Attributes
    ----------
    landmarks : ndarray of shape (n_landmarks, n_dimensions)
    length : float
        Length scale: the median distance of the cards.
    whitening : ndarray of shape (n_landmarks, n_features)
    """

    landmarks: FloatArray
    length: float
    whitening: FloatArray

    @classmethod
    def fit(cls, vectors: FloatArray) -> Self:
        """Learn from vectors (n_rows, n_dimensions), NaN throughout where unknown."""
        known = vectors[known_rows(vectors)]
        if len(known) > N_LANDMARKS:
            drawn = named_stream(0, "landmarks").permutation(len(known))[:N_LANDMARKS]
            known = known[np.sort(drawn)]
        landmarks = np.unique(known, axis=0)
        length = median_distance(landmarks)
        kernel = _gaussian(landmarks, landmarks, length)
        values, axes = np.linalg.eigh(kernel)
        kept = values > 1e-6 * values.max(initial=1.0)
        whitening = np.ascontiguousarray(axes[:, kept] / np.sqrt(values[kept]))
        return cls(landmarks, length, whitening)

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Features (n_rows, n_features); 0 where the view is unknown."""
        known = known_rows(vectors)
        found = np.zeros((len(vectors), self.whitening.shape[1]))
        if known.any():
            near = _gaussian(vectors[known], self.landmarks, self.length)
            found[known] = near @ self.whitening
        return found


def _gaussian(rows: FloatArray, columns: FloatArray, length: float) -> FloatArray:
    squared = (rows**2).sum(axis=1)[:, None] + (columns**2).sum(axis=1) - 2.0 * rows @ columns.T
    found: FloatArray = np.exp(-0.5 * np.maximum(squared, 0.0) / length**2)
    return found


class CardProcess(Stateful):
    """Predicts factors, each with mean 0 and variance 1 over the training rows, from views.

    ``targets = sum over views of sqrt(variance) features · coefficients + noise``, with standard
    normal coefficients.
    """

    _kernels: Learned[dict[str, ViewKernel]]
    _variance: Learned[FloatArray]
    _noise: Learned[float]
    _coefficients: Learned[FloatArray]
    _precision: Learned[FloatArray]

    def __init__(
        self,
        kernels: Mapping[str, ViewKernel],
        variance: FloatArray,
        noise: float,
        coefficients: FloatArray,
        precision: FloatArray,
    ) -> None:
        self._kernels = dict(kernels)
        self._variance, self._noise = variance, noise
        self._coefficients, self._precision = coefficients, precision

    @classmethod
    def fit(cls, views: Mapping[str, FloatArray], targets: FloatArray) -> Self:
        """Learn from training rows.

        Parameters
        ----------
        views : mapping of str to ndarray of shape (n_rows, n_dimensions)
            NaN throughout where a row's view is unknown.
        targets : ndarray of shape (n_rows, n_factors)
            Mean 0; factors that vary less than others count less for the variances.
        """
        kernels = {name: ViewKernel.fit(vectors) for name, vectors in views.items()}
        features = [kernel(views[name]) for name, kernel in kernels.items()]
        variance, noise = _most_likely(features, targets)
        scaled = _scaled(features, variance, len(targets))
        precision = np.linalg.inv(np.eye(scaled.shape[1]) + scaled.T @ scaled / noise)
        coefficients = np.ascontiguousarray(precision @ (scaled.T @ targets) / noise)
        return cls(kernels, variance, noise, coefficients, np.ascontiguousarray(precision))

    @property
    def variances(self) -> dict[str, float]:
        """Variance of the factors that each view explains, and ``noise``."""
        found = dict(zip(self._kernels, map(float, self._variance), strict=True))
        return {**found, "noise": self._noise}

    def features(self, views: Mapping[str, FloatArray]) -> FloatArray:
        """Features of rows, scaled by what each view explains, (n_rows, n_features)."""
        n_rows = len(next(iter(views.values())))
        found = [kernel(views[name]) for name, kernel in self._kernels.items()]
        return _scaled(found, self._variance, n_rows)

    def predict(self, views: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Mean (n_rows, n_factors) and variance (n_rows,) of the factors of new rows."""
        features = self.features(views)
        spread = np.einsum("ij,jk,ik->i", features, self._precision, features)
        # A row of which nothing is known may be anywhere; so may the part that a view misses.
        missing = self._variance.sum() - (features**2).sum(axis=1)
        return features @ self._coefficients, spread + np.maximum(missing, 0.0) + self._noise

    def weights(self, features: FloatArray, training: FloatArray) -> FloatArray:
        """What each training row adds to the mean of some rows: (n_rows, n_training).

        The mean is these weights times the training targets; both arguments are :meth:`features`.
        """
        found: FloatArray = features @ self._precision @ training.T / self._noise
        return found

    def predict_left_out(
        self, views: Mapping[str, FloatArray], targets: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The same for training rows, each as if its own factors were unknown (leave one out)."""
        features = self.features(views)
        leverage = np.einsum("ij,jk,ik->i", features, self._precision, features) / self._noise
        left = np.maximum(1.0 - leverage, 1e-3)
        error = (targets - features @ self._coefficients) / left[:, None]
        missing = self._variance.sum() - (features**2).sum(axis=1)
        return targets - error, self._noise / left + np.maximum(missing, 0.0)


def _scaled(features: list[FloatArray], variance: FloatArray, n_rows: int) -> FloatArray:
    if not features:
        return np.zeros((n_rows, 0))
    found: FloatArray = np.hstack(
        [np.sqrt(share) * each for share, each in zip(variance, features, strict=True)]
    )
    return found


def _most_likely(features: list[FloatArray], targets: FloatArray) -> tuple[FloatArray, float]:
    """Variances of the views and of the noise with the largest posterior density."""
    from scipy.optimize import minimize

    n_rows, n_factors = targets.shape
    sizes = [each.shape[1] for each in features]
    joined = np.hstack(features) if features else np.zeros((n_rows, 0))
    gram, told = joined.T @ joined, joined.T @ targets
    total = float((targets**2).sum())

    def loss(log: FloatArray) -> float:
        noise = np.exp(log[-1])
        root = np.repeat(np.exp(0.5 * log[:-1]), sizes)
        inner = np.eye(root.size) + root[:, None] * gram * root / noise
        lower = np.linalg.cholesky(inner)
        seen = np.linalg.solve(lower, root[:, None] * told) / noise
        fit = total / noise - float((seen**2).sum())
        size = n_rows * log[-1] + 2.0 * np.log(np.diag(lower)).sum()
        prior = float((((log - _PRIOR_LOG_MEAN) / _PRIOR_LOG_SD) ** 2).sum())
        return float(0.5 * (fit + n_factors * size + prior))

    n_views = len(features)
    start = np.log(np.append(np.full(n_views, 0.3 / max(n_views, 1)), 0.6))
    bounds = [_BOUNDS] * n_views + [_NOISE_BOUNDS]
    found = minimize(
        loss, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 25, "ftol": 1e-5}
    )
    return np.exp(found.x[:-1]), float(np.exp(found.x[-1]))
