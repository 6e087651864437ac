"""Leave-one-out accuracy of a linear probe."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.types import FloatArray
from recsys_ms.scores.class_geometry import ClassGeometry, GeometryLike, geometry_of
from recsys_ms.scores.logme import best_shared_ratio

#: Leverage of an example that alone decides over its own prediction.
_MOST_LEVERAGE: Final = 1.0 - 1e-9


def linear_probe(features: GeometryLike, labels: ArrayLike | None = None) -> float:
    """Leave-one-out accuracy of a ridge classifier with intercept.

    One ridge regression on the indicators of the classes; every example is predicted by the
    regression without it, in closed form (``(y_hat - h y) / (1 - h)`` with the leverage ``h``). Its
    strength is the one at which LogME's evidence of all classes together is largest, so no accuracy
    is used to choose it.

    Parameters
    ----------
    features, labels
        As for :func:`~recsys_ms.scores.h_score.h_score`.

    Returns
    -------
    float
        Fraction in [0, 1]; higher is better.

    Raises
    ------
    ProbeSetError
        As for :func:`~recsys_ms.scores.h_score.h_score`.
    """
    geometry = geometry_of(features, labels)
    statistics, classes = geometry.statistics, geometry.classes
    n_probe = statistics.n_probe
    ridge = best_shared_ratio(
        statistics.eigenvalues,
        np.square(geometry.coordinates),
        classes.counts.astype(np.float64),
        n_probe,
    )
    mean = geometry.mean
    inverse = 1.0 / (statistics.eigenvalues + ridge)
    # The centred X'X is the plain one less the mean's direction.
    direction = inverse * mean
    left = max(1.0 - n_probe * float(mean @ direction), 1e-12)
    weights = _centred_weights(geometry, inverse, direction, left)
    shares = classes.counts / n_probe
    n_right = 0
    for rows, block in statistics.rotated_blocks():
        block -= mean
        predicted = block @ weights
        predicted += shares
        alone = block @ direction
        block *= block
        leverage = 1.0 / n_probe + block @ inverse + n_probe * alone**2 / left
        leverage = np.minimum(leverage, _MOST_LEVERAGE)
        at = np.arange(block.shape[0]), classes.codes[rows]
        own = (predicted[at] - leverage) / (1.0 - leverage)
        predicted /= (1.0 - leverage)[:, None]
        predicted[at] = own
        n_right += int((predicted.argmax(axis=1) == classes.codes[rows]).sum())
    return float(n_right / n_probe)


def _centred_weights(
    geometry: ClassGeometry, inverse: FloatArray, direction: FloatArray, left: float
) -> FloatArray:
    """Ridge weights on centred features and indicators, of shape (rank, n_classes)."""
    sums = geometry.centred_sums
    weights: FloatArray = inverse[:, None] * sums.T
    weights += geometry.statistics.n_probe / left * np.outer(direction, sums @ direction)
    return weights
