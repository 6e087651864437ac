"""H-score, plain and with a shrunk covariance."""

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.types import FloatArray
from recsys_ms.scores.class_geometry import GeometryLike, geometry_of
from recsys_ms.scores.statistics import ProbeStatistics


def h_score(features: GeometryLike, labels: ArrayLike | None = None) -> float:
    """H-score: ``tr(cov(f)^+ cov(E[f|y]))``.

    Bao et al. (2019), Eq. 2, with the pseudo-inverse.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features), ProbeStatistics or ClassGeometry
        Model outputs on the probe set, or an object computed from them.
    labels : array-like of shape (n_probe,)
        Integers or texts; not read where ``features`` is a ClassGeometry.

    Returns
    -------
    float
        In [0, n_classes - 1]; higher is better. It reaches its bound as soon as the features span
        all examples (``n_features >= n_probe``), where :func:`h_score_shrunk` still
        distinguishes models.

    Raises
    ------
    ProbeSetError
        Bad features or labels, or features that are the same for every example.
    """
    return geometry_of(features, labels).between_over_total(0.0)


def h_score_shrunk(features: GeometryLike, labels: ArrayLike | None = None) -> float:
    """H-score with the covariance shrunk as Ledoit and Wolf (2004) choose.

    Ibrahim et al. (2022), "Newer is not always better", Eq. 7: with ``C`` the covariance, ``a`` the
    shrinkage and ``m`` the mean of its diagonal,
    ``(1 - a) tr(((1 - a) C + a m I)^-1 cov(E[f|y]))``.

    Parameters
    ----------
    features, labels
        As for :func:`h_score`.

    Returns
    -------
    float
        In [0, n_classes - 1]; higher is better.

    Raises
    ------
    ProbeSetError
        As for :func:`h_score`.
    """
    geometry = geometry_of(features, labels)
    shrinkage, mean_variance = ledoit_wolf(geometry.statistics)
    if shrinkage >= 1.0:
        # The covariance is a multiple of the identity: nothing of it is left to compare with.
        return 0.0
    ridge = geometry.statistics.n_probe * shrinkage * mean_variance / (1.0 - shrinkage)
    return geometry.between_over_total(ridge)


def ledoit_wolf(statistics: ProbeStatistics) -> tuple[float, float]:
    """Shrinkage of the covariance towards a multiple of the identity, and the mean variance.

    Ledoit and Wolf (2004), Lemma 3.4 and Theorem 4.1 as estimated in Section 3.3.
    """
    n_probe, n_features = statistics.n_probe, statistics.n_features
    squares = _squared_lengths(statistics)
    mean_variance = float(squares.sum()) / (n_probe * n_features)
    # Squared norm of the covariance from the eigenvalues of X'X, less the part of the mean.
    values = statistics.eigenvalues
    ones = statistics.coordinates(np.ones((n_probe, 1)))[:, 0]
    mean = np.sqrt(values) * ones / n_probe
    inner = float(mean @ mean)
    norm = float(values @ values) - 2.0 * n_probe * float(values @ mean**2)
    norm = (norm + n_probe**2 * inner**2) / n_probe**2
    spread = norm - n_features * mean_variance**2
    noise = float(squares @ squares) / n_probe - norm
    if spread <= 0.0:
        return 1.0, mean_variance
    return min(max(noise / n_probe, 0.0) / spread, 1.0), mean_variance


def _squared_lengths(statistics: ProbeStatistics) -> FloatArray:
    """Squared distance of every example from the mean."""
    squares = np.empty(statistics.n_probe)
    for rows, block in statistics.blocks():
        block -= statistics.mean
        squares[rows] = np.einsum("ij,ij->i", block, block)
    return squares
