"""Fisher discriminants: regularised (FDA), and challenged by its own doubts (SFDA)."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk
from scipy.sparse import csr_array

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.scores.class_geometry import ClassGeometry, geometry_of, log_posteriors
from recsys_ms.scores.method import Method
from recsys_ms.scores.statistics import ProbeStatistics

#: The constant of ``exp(-a spread)``, which the paper leaves open.
_RATE: Final = 5.0
#: Below this float64 cannot tell the covariance from a singular one.
_LEAST_SHRINKAGE: Final = 1e-8
_MOST_SHRINKAGE: Final = 1.0 - 1e-6


def fda(
    features: ArrayLike | ProbeStatistics | ClassGeometry, labels: ArrayLike | None = None
) -> float:
    """Regularised Fisher discriminant: mean log probability of the true class.

    Shao et al. (2022), "Not all models are equal", Reg-FDA (Eq. 4 to 6): Gaussian classes of
    one covariance ``(1 - l) S_w + l I`` with ``l = exp(-5 s)``, ``s`` the largest eigenvalue of the
    covariance within classes ``S_w``; it is this classifier's log posterior of the examples it was
    fitted to. It depends on the scale of the features, as in the paper.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features)
        Or what was computed of them.
    labels : array-like of shape (n_probe,)
        Integers or texts.

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


def sfda(
    features: ArrayLike | ProbeStatistics | ClassGeometry, labels: ArrayLike | None = None
) -> float:
    """SFDA: the discriminant after each example was mixed with what is not its class.

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
        members = csr_array(
            (np.ones(mixed.shape[0]), (codes[rows], np.arange(mixed.shape[0]))),
            shape=(counts.size, mixed.shape[0]),
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
        posteriors = log_posteriors(mixed @ weights + offsets)
        total += float(posteriors[np.arange(mixed.shape[0]), codes[rows]].sum())
    return float(total / n_probe)


def shrinkage_of(geometry: ClassGeometry) -> float:
    """How much of the identity is in the regularised covariance."""
    shrinkage = np.exp(-_RATE * geometry.within_spread())
    return float(np.clip(shrinkage, _LEAST_SHRINKAGE, _MOST_SHRINKAGE))


def own_posteriors(geometry: ClassGeometry) -> FloatArray:
    """Log posterior of each example's own class by the first discriminant, of shape (n_probe,)."""
    return geometry.once("own_posteriors", lambda: _own_posteriors(geometry))


def _own_posteriors(geometry: ClassGeometry) -> FloatArray:
    weights, offsets = geometry.discriminant(shrinkage_of(geometry))
    posteriors = log_posteriors(geometry.statistics.apply(weights) + offsets)
    own: FloatArray = posteriors[np.arange(posteriors.shape[0]), geometry.classes.codes]
    return own


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


FDA: Final = Method(
    name="fda",
    title="FDA",
    compute=lambda p: fda(p.geometry),
    is_linear=True,
    unit="nats per example, at most 0",
)

SFDA: Final = Method(
    name="sfda",
    title="SFDA",
    compute=lambda p: sfda(p.geometry),
    is_linear=True,
    unit="nats per example, at most 0",
)
