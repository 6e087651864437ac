"""Fisher discriminants: regularised (FDA) and self-challenging (SFDA)."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk
from scipy.sparse import csr_array
from scipy.special import log_softmax

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.scores.class_geometry import ClassGeometry, GeometryLike, geometry_of

#: The constant of ``exp(-a spread)``, which the paper leaves open.
_RATE: Final = 5.0
#: Below this the covariance is singular in float64.
_LEAST_SHRINKAGE: Final = 1e-8
_MOST_SHRINKAGE: Final = 1.0 - 1e-6


def fda(features: GeometryLike, labels: ArrayLike | None = None) -> float:
    """Regularised Fisher discriminant: mean log probability of the true class.

    Shao et al. (2022), "Not all models are equal", Reg-FDA (Eq. 4 to 6): Gaussian classes of
    one covariance ``(1 - l) S_w + l I`` with ``l = exp(-5 s)``, ``s`` the largest eigenvalue of the
    covariance within classes ``S_w``; it is this classifier's log posterior of the examples it was
    fitted to. It depends on the scale of the features, as in the paper.

    Parameters
    ----------
    features, labels
        As for :func:`~recsys_ms.scores.h_score.h_score`.

    Returns
    -------
    float
        Nats per example, at most 0; higher is better.

    Raises
    ------
    ProbeSetError
        Bad features or labels, or features that are the same for every example.
    """
    geometry = geometry_of(features, labels)
    return float(own_posteriors(geometry).mean())


def sfda(features: GeometryLike, labels: ArrayLike | None = None) -> float:
    """SFDA: the discriminant after each example was mixed with the mean of the other classes.

    Shao et al. (2022), Eq. 7 and 8: an example that the first discriminant gives the probability
    ``p`` of its class is moved to ``p x + (1 - p) o``, ``o`` the mean of the examples of all other
    classes, so that doubtful examples become hard ones; a second discriminant of the same
    regularisation is fitted to them and scored as in :func:`fda`.

    Parameters
    ----------
    features, labels
        As for :func:`fda`.

    Returns
    -------
    float
        Nats per example, at most 0; higher is better.

    Raises
    ------
    ProbeSetError
        As for :func:`fda`.
    """
    geometry = geometry_of(features, labels)
    codes, counts = geometry.classes.codes, geometry.classes.counts
    n_probe = geometry.statistics.n_probe
    shrinkage = shrinkage_of(geometry)
    kept = np.exp(own_posteriors(geometry))
    outer = _outer_means(geometry)
    n_axes = outer.shape[1]
    scatter = np.zeros((n_axes, n_axes), order="F")
    sums = np.zeros((counts.size, n_axes))
    for rows, block in geometry.statistics.compact_blocks():
        mixed = _mix(block, kept[rows], outer, codes[rows])
        scatter = dsyrk(1.0, mixed.T, beta=1.0, c=scatter, lower=1, overwrite_c=1)
        n_rows = mixed.shape[0]
        members = csr_array(
            (np.ones(n_rows), (codes[rows], np.arange(n_rows))), shape=(counts.size, n_rows)
        )
        sums += members @ mixed
    means = sums / counts[:, None]
    # The covariance within classes, of which the lower triangle is enough.
    scatter -= sums.T @ means
    scatter *= (1.0 - shrinkage) / n_probe
    scatter[np.diag_indices(n_axes)] += shrinkage
    weights = cho_solve(cho_factor(scatter, lower=True, overwrite_a=True), means.T)
    offsets = np.log(counts / n_probe) - 0.5 * np.einsum("cr,rc->c", means, weights)
    total = 0.0
    for rows, block in geometry.statistics.compact_blocks():
        mixed = _mix(block, kept[rows], outer, codes[rows])
        posteriors = log_softmax(mixed @ weights + offsets, axis=1)
        total += float(posteriors[np.arange(mixed.shape[0]), codes[rows]].sum())
    return float(total / n_probe)


def shrinkage_of(geometry: ClassGeometry) -> float:
    """How much of the identity is in the regularised covariance."""
    shrinkage = np.exp(-_RATE * geometry.within_spread())
    return float(np.clip(shrinkage, _LEAST_SHRINKAGE, _MOST_SHRINKAGE))


def own_posteriors(geometry: ClassGeometry) -> FloatArray:
    """Log posterior of each example's own class by the first discriminant, of shape (n_probe,)."""

    def compute() -> FloatArray:
        weights, offsets = geometry.discriminant(shrinkage_of(geometry))
        posteriors = log_softmax(geometry.statistics.apply(weights) + offsets, axis=1)
        own: FloatArray = posteriors[np.arange(posteriors.shape[0]), geometry.classes.codes]
        return own

    return geometry.once("own_posteriors", compute)


def _outer_means(geometry: ClassGeometry) -> FloatArray:
    """Mean of the examples outside each class, in the axes of ``compact_blocks``."""
    statistics, classes = geometry.statistics, geometry.classes
    if statistics.is_tall:
        sums = statistics.class_sums(classes)
    else:
        sums = geometry.scaled_means * np.sqrt(classes.counts)[:, None]
    outer: FloatArray = (sums.sum(axis=0) - sums) / (classes.n_probe - classes.counts)[:, None]
    return outer


def _mix(block: FloatArray, kept: FloatArray, outer: FloatArray, codes: IntArray) -> FloatArray:
    """``p x + (1 - p) o``; the block is overwritten."""
    block *= kept[:, None]
    block += (1.0 - kept)[:, None] * outer[codes]
    return block
