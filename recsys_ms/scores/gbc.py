"""GBC: overlap of Gaussian classes."""

from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.core.types import FloatArray
from recsys_ms.scores.checks import Classes
from recsys_ms.scores.class_geometry import ClassGeometry, GeometryLike, geometry_of, leading

_N_COMPONENTS: Final = 64
#: Least variance of a class, against the mean variance of the components.
_LEAST_VARIANCE: Final = 1e-6
_NO_SPREAD: Final = 1e-10


def gbc(
    features: GeometryLike,
    labels: ArrayLike | None = None,
    *,
    n_components: int = _N_COMPONENTS,
    covariance: Literal["diagonal", "spherical"] = "diagonal",
) -> float:
    """GBC: minus the sum of the Bhattacharyya coefficients of all pairs of classes.

    Pándy et al. (2022), Eq. 3 to 6: each class is a Gaussian in the space of the first principal
    components; ``D = 1/8 d' S^-1 d + 1/2 log(det S / sqrt(det S_a det S_b))`` with
    ``S = (S_a + S_b)/2``, and the score is ``- sum_{a != b} exp(-D)``, each pair twice.

    Parameters
    ----------
    features, labels
        As for :func:`~recsys_ms.scores.h_score.h_score`. A class of one example, which has no
        variance, gets the smallest one.
    n_components : int, default 64
        Principal components that are kept, where there are as many.
    covariance : {"diagonal", "spherical"}
        Of a class.

    Returns
    -------
    float
        In [-n_classes (n_classes - 1), 0]; higher is better. Compare models on the same labels.

    Raises
    ------
    ProbeSetError
        Bad features or labels, features that are the same for every example, or an invalid option.
    """
    if n_components < 1 or covariance not in ("diagonal", "spherical"):
        raise ProbeSetError(
            f"gbc: got n_components={n_components}, covariance={covariance!r}; expected at least 1 "
            "and 'diagonal' or 'spherical'"
        )
    geometry = geometry_of(features, labels)
    classes = geometry.classes
    projected = principal_components(geometry, n_components)
    counts = classes.counts[:, None]
    means, variances = _moments(projected, classes)
    if covariance == "spherical":
        variances[:] = variances.mean(axis=1, keepdims=True)
    overall = float((np.square(means) * counts).sum() + (variances * counts).sum())
    least = _LEAST_VARIANCE * overall / (classes.n_probe * means.shape[1])
    return -2.0 * _overlaps(means, np.maximum(variances, least))


def _moments(projected: FloatArray, classes: Classes) -> tuple[FloatArray, FloatArray]:
    """Means and variances of the classes, each of shape (n_classes, n_components)."""
    of_class = [projected[rows] for rows in classes.rows()]
    means = np.array([each.mean(axis=0) for each in of_class])
    return means, np.array([each.var(axis=0) for each in of_class])


def principal_components(geometry: ClassGeometry, n_components: int) -> FloatArray:
    """Examples on the first principal components, centred, of shape (n_probe, n_kept)."""
    statistics, mean = geometry.statistics, geometry.mean
    values = statistics.eigenvalues
    # In their own axes X'X is diagonal and the mean is one direction.
    removed = np.sqrt(statistics.n_probe) * mean[None, :]
    spread, axes = leading(values, removed, min(n_components, values.size))
    # The mean's own direction may be left without any spread.
    axes = axes[:, spread > spread.max() * _NO_SPREAD]
    projected: FloatArray = statistics.apply(axes)
    projected -= mean @ axes
    return projected


def _overlaps(means: FloatArray, variances: FloatArray) -> float:
    """Sum of the coefficients of all pairs of classes, each once."""
    halves = 0.25 * np.log(variances).sum(axis=1)
    total = 0.0
    for one in range(means.shape[0] - 1):
        shared = 0.5 * (variances[one] + variances[one + 1 :])
        distance = 0.125 * (np.square(means[one] - means[one + 1 :]) / shared).sum(axis=1)
        distance += 0.5 * np.log(shared).sum(axis=1) - halves[one] - halves[one + 1 :]
        total += float(np.exp(-distance).sum())
    return total
