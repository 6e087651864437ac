"""TransRate: by how much the labels shorten a code of the features."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.scores.class_geometry import GeometryLike, geometry_of
from recsys_ms.scores.gram import BLOCK_ROWS
from recsys_ms.scores.statistics import ProbeStatistics

_DISTORTION: Final = 1e-4
#: Least share of the spread that counts as one.
_NO_SPREAD: Final = 1e-12


def transrate(
    features: GeometryLike,
    labels: ArrayLike | None = None,
    *,
    distortion: float = _DISTORTION,
) -> float:
    """TransRate: coding rate of the centred features, less that within classes.

    Huang et al. (2022), Eq. 4 to 6: ``R(Z) = 1/2 log det(I + Z'Z / (n e))`` and
    ``TrR = R(Z) - sum_c n_c/n R(Z_c)``, with ``Z`` centred by the mean of all examples. It depends
    on the scale of the features against ``e``.

    Parameters
    ----------
    features, labels
        As for :func:`~recsys_ms.scores.h_score.h_score`.
    distortion : float, default 1e-4
        ``e``, above 0; the paper's default.

    Returns
    -------
    float
        Nats, at least 0 up to rounding; higher is better.

    Raises
    ------
    ProbeSetError
        Bad features or labels, features that are the same for every example, or a distortion that
        is not positive.
    """
    if not distortion > 0.0:
        raise ProbeSetError(f"distortion: got {distortion}, expected a number above 0")
    geometry = geometry_of(features, labels)
    statistics, classes = geometry.statistics, geometry.classes
    n_probe = statistics.n_probe
    ridge = n_probe * distortion
    values, mean = statistics.eigenvalues, geometry.mean
    # The mean is one direction that is taken out of X'X.
    left = 1.0 - n_probe * float(mean**2 @ (1.0 / (values + ridge)))
    whole = float(np.log1p(values / ridge).sum()) + float(np.log(max(left, _NO_SPREAD)))
    within = 0.0
    for rows in classes.rows():
        gram = _class_gram(statistics, rows)
        within += rows.size / n_probe * _log_det(gram, rows.size * distortion)
    return 0.5 * (whole - within)


def _class_gram(statistics: ProbeStatistics, rows: IntArray) -> FloatArray:
    """The smaller Gram matrix of some centred examples; many are read by blocks."""
    if rows.size <= statistics.n_features:
        few = statistics.features[rows].astype(np.float64)
        few -= statistics.mean
        gram: FloatArray = few @ few.T
        return gram
    gram = np.zeros((statistics.n_features, statistics.n_features))
    for start in range(0, rows.size, BLOCK_ROWS):
        block = statistics.features[rows[start : start + BLOCK_ROWS]].astype(np.float64)
        block -= statistics.mean
        gram += block.T @ block
    return gram


def _log_det(gram: FloatArray, ridge: float) -> float:
    """``log det(I + G / ridge)``; the Gram matrix is overwritten."""
    gram /= ridge
    gram[np.diag_indices_from(gram)] += 1.0
    factor = np.linalg.cholesky(gram)
    return 2.0 * float(np.log(np.diag(factor)).sum())
