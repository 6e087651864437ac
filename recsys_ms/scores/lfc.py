"""LFC: label-feature correlation."""

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.scores.class_geometry import GeometryLike, geometry_of


def lfc(features: GeometryLike, labels: ArrayLike | None = None) -> float:
    """LFC: cosine of the centred kernels of features and labels.

    Deshpande et al. (2021), Eq. 5 and 6: the kernel of the features is ``XX'``, that of the labels
    1 for two examples of one class and -1 else; both are centred. Only sums over classes and the
    eigenvalues of the features are needed, no matrix of examples × examples.

    Parameters
    ----------
    features, labels
        As for :func:`~recsys_ms.scores.h_score.h_score`.

    Returns
    -------
    float
        In [0, 1]; higher is better.

    Raises
    ------
    ProbeSetError
        As for :func:`~recsys_ms.scores.h_score.h_score`.
    """
    geometry = geometry_of(features, labels)
    statistics, counts = geometry.statistics, geometry.classes.counts
    n_probe = statistics.n_probe
    values, mean = statistics.eigenvalues, geometry.mean
    product = float(np.square(geometry.centred_sums).sum())
    inner = float(mean @ mean)
    of_features = float(values @ values) - 2.0 * n_probe * float(values @ mean**2)
    of_features += (n_probe * inner) ** 2
    shares = counts / n_probe
    of_labels = float(np.square(counts).sum()) - 2.0 * float((counts**2) @ shares)
    of_labels += float(counts @ shares) ** 2
    if of_features <= 0.0:
        raise ProbeSetError("features: no spread around their mean is left after rounding")
    return product / float(np.sqrt(of_features * of_labels))
