"""Scatter within and between classes, in the features' own axes, for the discriminant scores.

With class means ``mu_c`` and counts ``n_c``, let ``M`` have the rows ``sqrt(n_c) mu_c'`` and
``D = X'X + ridge``. Then ``M D^-1 M'`` is a matrix of classes × classes, and the scatters within
and between classes are ``X'X - M'M`` and ``M'(I - pp')M`` with ``p_c = sqrt(n_c / n)``: every
quantity below costs one product of coordinates, and none another decomposition of the features.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, eigsh

from recsys_ms.core.types import FloatArray
from recsys_ms.scores.checks import Classes, check_classes
from recsys_ms.scores.statistics import ProbeStatistics, refuse_constant, statistics_of

#: Eigenproblems of this size are solved whole.
_SMALL: Final = 128
#: Spread of the features around their mean that counts as 0.
_NO_SPREAD: Final = 1e-9


class ClassGeometry:
    """Classes of a probe set in the axes of its features.

    Attributes
    ----------
    coordinates : ndarray of shape (rank, n_classes)
        ``U'H`` with the indicators ``H`` of the classes.
    shares : ndarray of shape (n_classes,)
        ``p_c``.
    """

    def __init__(self, statistics: ProbeStatistics, classes: Classes) -> None:
        refuse_constant(statistics)
        # Nothing here depends on a common offset of the features.
        statistics = statistics.centred
        self.statistics = statistics
        self.classes = classes
        self.coordinates = statistics.coordinates(classes)
        self._roots = np.sqrt(classes.counts)
        self.shares: FloatArray = self._roots / np.sqrt(statistics.n_probe)
        self._kept: dict[str, FloatArray] = {}

    def once(self, name: str, make: Callable[[], FloatArray]) -> FloatArray:
        """A result that several scores share."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def scaled_means(self) -> FloatArray:
        """``M V``: class means times the roots of the counts, of shape (n_classes, rank)."""
        lengths = np.sqrt(self.statistics.eigenvalues)[:, None]
        scaled: FloatArray = (lengths * self.coordinates / self._roots).T
        return scaled

    @property
    def mean(self) -> FloatArray:
        """Mean of all examples in the features' axes, of shape (rank,)."""
        mean: FloatArray = self.shares @ self.scaled_means / np.sqrt(self.statistics.n_probe)
        return mean

    @property
    def centred_sums(self) -> FloatArray:
        """Sums of the centred examples of each class, of shape (n_classes, rank)."""
        counts = self.classes.counts
        sums: FloatArray = self.scaled_means * self._roots[:, None] - np.outer(counts, self.mean)
        return sums

    def kernel(self, ridge: float) -> FloatArray:
        """``M D^-1 M'``, of shape (n_classes, n_classes)."""
        values = self.statistics.eigenvalues
        shrunk = values / (values + ridge)
        kernel: FloatArray = (self.coordinates * shrunk[:, None]).T @ self.coordinates
        kernel /= np.outer(self._roots, self._roots)
        return kernel

    def between_over_total(self, ridge: float) -> float:
        """Trace of ``(S_t + ridge)^-1 S_b``, with a pseudo-inverse where ``ridge`` is 0."""
        kernel, shares = self.kernel(ridge), self.shares
        centred = kernel - np.outer(shares, shares @ kernel)
        mapped = kernel @ shares
        spread = 1.0 - float(shares @ mapped)
        trace = float(np.trace(centred))
        if spread > _NO_SPREAD:
            trace += float(mapped @ (mapped - shares * (shares @ mapped))) / spread
        return trace

    def within_spread(self) -> float:
        """Largest eigenvalue of the covariance within classes."""
        [largest], _ = leading(self.statistics.eigenvalues, self.scaled_means, 1, tolerance=1e-6)
        return float(max(largest, 0.0) / self.statistics.n_probe)

    def discriminant(self, shrinkage: float) -> tuple[FloatArray, FloatArray]:
        """Linear discriminant under the covariance ``(1 - shrinkage) S_w / n + shrinkage I``.

        Weights of shape (rank, n_classes) in the features' axes, and offsets of shape
        (n_classes,), log share of the class included: the largest sum is the most probable class.
        """
        n_probe = self.statistics.n_probe
        ridge = n_probe * shrinkage / (1.0 - shrinkage)
        values, means = self.statistics.eigenvalues, self.scaled_means
        left = np.eye(self.classes.n_classes) - self.kernel(ridge)
        # Of classes without any spread all is between them: the ridge alone keeps this regular.
        factor = cho_factor(left + np.eye(left.shape[0]) * 1e-12)
        weights = (means / (values + ridge)).T @ cho_solve(factor, np.diag(1.0 / self._roots))
        weights *= n_probe / (1.0 - shrinkage)
        plain = means / self._roots[:, None]
        offsets = -0.5 * np.einsum("cr,rc->c", plain, weights)
        return weights, offsets + np.log(self.classes.counts / n_probe)


def leading(
    values: FloatArray, removed: FloatArray, n_kept: int, *, tolerance: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Largest eigenvalues of ``diag(values) - removed' removed``, and their vectors in columns."""
    size = values.size
    if size <= _SMALL or n_kept * 4 > size:
        spread, axes = np.linalg.eigh(np.diag(values) - removed.T @ removed)
        return spread[-n_kept:], axes[:, -n_kept:]
    # ``removed`` has few rows: a product is cheap.
    operator = LinearOperator(
        (size, size), matvec=lambda v: values * v - removed.T @ (removed @ v), dtype=np.float64
    )
    spread, axes = eigsh(operator, k=n_kept, which="LA", v0=np.ones(size), tol=tolerance)
    return spread, axes


def geometry_of(features: "GeometryLike", labels: ArrayLike | None) -> ClassGeometry:
    """Geometry of features and labels, unless it was computed (then ``labels`` is not read)."""
    if isinstance(features, ClassGeometry):
        return features
    statistics = statistics_of(features)
    return ClassGeometry(statistics, check_classes(labels, statistics.n_probe))


#: Features for a discriminant score: an array, or an object computed from one.
GeometryLike: TypeAlias = ArrayLike | ProbeStatistics | ClassGeometry
