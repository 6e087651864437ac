"""Regressors from vectors to factor rows, all of them linear smoothers.

A cold task is placed in the transfer space by a weighted mean of the known tasks' factor rows
(Fennec, Bai et al. 2024, §3.3, regresses CLIP embeddings on factors). Ridge, kernel ridge, a
Gaussian process and a mean of the nearest are all such means, ``y(x) = s(x)ᵀ Y`` with weights that
add up to 1, so that one form serves prediction, explanation (which tasks, with what weight) and
leaving a task out.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar, Final, Self

import numpy as np
import scipy.linalg

from recsys_ms.core.errors import DataError
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray
from recsys_ms.learners.gaussian.vectors import median_distance

#: Ridge penalties tried, in units of the mean eigenvalue of the centred Gram matrix.
_PENALTIES: Final = np.logspace(-3.0, 3.0, 19)
#: Length scales of the RBF kernel tried, in units of the median distance of two tasks.
_LENGTHS: Final = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
#: Widths of the weights of near tasks tried, in the same unit.
_WIDTHS: Final = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)
_TINY: Final = 1e-12


class Smoother(Stateful, ABC):
    """Weights of known rows for a new one, tuned by leaving out each known row once.

    Parameters of ``fit`` are ``vectors`` (n_rows, n_dimensions) and ``targets`` (n_rows,
    n_targets). A smoother keeps the vectors and a few numbers, never the targets.
    """

    kind: ClassVar[str]

    _vectors: Learned[FloatArray]

    def fit(self, vectors: FloatArray, targets: FloatArray, metric: FloatArray) -> Self:
        """Tune on known rows; a second call forgets the first.

        Parameters
        ----------
        vectors : ndarray of shape (n_rows, n_dimensions)
        targets : ndarray of shape (n_rows, n_targets)
        metric : ndarray of shape (n_targets, n_targets)
            Positive semi-definite; an error e counts as ``eᵀ metric e``.

        Raises
        ------
        DataError
            Fewer than two rows, or rows of different numbers.
        """
        if vectors.shape[0] != targets.shape[0] or vectors.shape[0] < 2:
            raise DataError(
                f"{type(self).__name__}: {vectors.shape[0]} vectors and {targets.shape[0]} target "
                "rows; wanted as many of each, at least two"
            )
        self._know(vectors)
        self._tune(targets, metric)
        return self

    @abstractmethod
    def weights(self, vectors: FloatArray) -> FloatArray:
        """Weights of the known rows, shape (n_queries, n_rows); each row adds up to 1."""

    @abstractmethod
    def left_out_weights(self) -> FloatArray:
        """The same for each known row by the others alone; the diagonal is 0."""

    @abstractmethod
    def _tune(self, targets: FloatArray, metric: FloatArray) -> None: ...

    def _know(self, vectors: FloatArray) -> None:
        """Take rows as the known ones; what was worked out of others is forgotten."""
        self._vectors = vectors
        for name in ("_unit", "_distances"):
            self.__dict__.pop(name, None)

    @cached_property
    def _unit(self) -> float:
        """Median distance of two known rows."""
        return median_distance(self._vectors)

    @cached_property
    def _distances(self) -> FloatArray:
        """Distances of the known rows from each other."""
        from scipy.spatial.distance import cdist

        found: FloatArray = cdist(self._vectors, self._vectors)
        return found

    @property
    def vectors(self) -> FloatArray:
        """Vectors of the known rows."""
        return self._vectors


def left_out_error(weights: FloatArray, targets: FloatArray, metric: FloatArray) -> float:
    """Mean of ``eᵀ metric e`` over rows predicted by ``weights @ targets``."""
    error = targets - weights @ targets
    return float(np.einsum("ij,jk,ik->", error, metric, error) / error.shape[0])


class MeanSmoother(Smoother):
    """The mean of all rows: what is predicted when the vectors say nothing."""

    kind: ClassVar[str] = "mean"

    def weights(self, vectors: FloatArray) -> FloatArray:
        """All alike."""
        n = self._vectors.shape[0]
        return np.full((vectors.shape[0], n), 1.0 / n)

    def left_out_weights(self) -> FloatArray:
        """All alike but the row's own."""
        n = self._vectors.shape[0]
        others: FloatArray = (1.0 - np.eye(n)) / (n - 1)
        return others

    def _tune(self, targets: FloatArray, metric: FloatArray) -> None:
        pass


class NearestSmoother(Smoother):
    """Mean of the nearest rows, by ``exp(−½ (distance / width)²)``.

    ``width`` is in units of the median distance of two known rows.
    """

    kind: ClassVar[str] = "nearest"

    _width: Learned[float]

    def weights(self, vectors: FloatArray) -> FloatArray:
        """Normalised kernel weights (Nadaraya 1964, Watson 1964)."""
        from scipy.spatial.distance import cdist

        return _normalised(cdist(vectors, self._vectors) / self._unit, self._width)

    def left_out_weights(self) -> FloatArray:
        """The same, a row's distance to itself being infinite."""
        distance = self._distances / self._unit
        np.fill_diagonal(distance, np.inf)
        return _normalised(distance, self._width)

    def _tune(self, targets: FloatArray, metric: FloatArray) -> None:
        errors = []
        for width in _WIDTHS:
            self._width = width
            errors.append(left_out_error(self.left_out_weights(), targets, metric))
        # The first of equal ones.
        self._width = _WIDTHS[int(np.argmin(errors))]


class _KernelSmoother(Smoother):
    """Ridge in the space of a kernel, with a free intercept.

    With the kernel centred on the known rows, ``y(x) = ȳ + k_c(x)ᵀ (K_c + λI)⁻¹ (Y − ȳ)``. The
    hat matrix ``H = 1/n + K_c (K_c + λI)⁻¹`` gives every left-out prediction at once,
    ``y₋ᵢ = (Σ_{j≠i} H_ij y_j) / (1 − H_ii)`` (Cook & Weisberg 1982, §2.2). One decomposition of
    the kernel serves all penalties.
    """

    lengths: ClassVar[tuple[float, ...]] = (1.0,)

    _penalty: Learned[float]
    _length: Learned[float]

    @abstractmethod
    def _kernel(self, rows: FloatArray, columns: FloatArray) -> FloatArray: ...

    def weights(self, vectors: FloatArray) -> FloatArray:
        """Rows of ``1/n + k_c(x)ᵀ (K_c + λI)⁻¹`` without the part along the ones."""
        n = self._vectors.shape[0]
        gram = self._kernel(self._vectors, self._vectors)
        centred = _centred(gram)
        strength = max(self._penalty * float(np.trace(centred)) / n, _TINY)
        cross = self._kernel(vectors, self._vectors)
        cross = cross - cross.mean(axis=1, keepdims=True) - gram.mean(axis=0) + gram.mean()
        part = scipy.linalg.solve(centred + strength * np.eye(n), cross.T, assume_a="pos").T
        # (K_c + λI)⁻¹ keeps the ones; Y − ȳ has no part along them.
        found: FloatArray = part - part.mean(axis=1, keepdims=True) + 1.0 / n
        return found

    def left_out_weights(self) -> FloatArray:
        """From the hat matrix."""
        hat = self.weights(self._vectors)
        leverage = np.minimum(np.diag(hat), 1.0 - _TINY)
        out: FloatArray = hat / (1.0 - leverage)[:, None]
        np.fill_diagonal(out, 0.0)
        return out

    def _tune(self, targets: FloatArray, metric: FloatArray) -> None:
        whitened = targets @ _root(metric)
        whitened = whitened - whitened.mean(axis=0)
        best = (np.inf, _PENALTIES[-1], self.lengths[0])
        for length in self.lengths:
            self._length = length
            spectrum = _Spectrum(self._kernel(self._vectors, self._vectors), whitened)
            # From the strongest penalty down: of equal ones the strongest is kept.
            losses = self._losses(spectrum, _PENALTIES[::-1])
            least = int(np.argmin(losses))
            if losses[least] < best[0]:
                best = (float(losses[least]), float(_PENALTIES[::-1][least]), length)
        _, self._penalty, self._length = best

    def _losses(self, spectrum: "_Spectrum", penalties: FloatArray) -> FloatArray:
        return spectrum.left_out_errors(penalties)


class _Spectrum:
    """A centred kernel in its own axes, and centred targets there."""

    def __init__(self, gram: FloatArray, targets: FloatArray) -> None:
        values, self._axes = np.linalg.eigh(_centred(gram))
        self._values = np.maximum(values, 0.0)
        self._unit = max(float(self._values.mean()), _TINY)
        self._targets = targets
        self._parts = self._axes.T @ targets

    def left_out_errors(self, penalties: FloatArray) -> FloatArray:
        """Mean squared error of rows predicted by the others, summed over targets.

        Shape (n_penalties,), as ``penalties``.
        """
        n, n_targets = self._targets.shape
        shrunk = self._values[:, None] / (self._values[:, None] + penalties * self._unit)
        # One product for all penalties: column (p, k) is target k under penalty p.
        parts = shrunk[:, :, None] * self._parts[:, None, :]
        fitted = (self._axes @ parts.reshape(n, -1)).reshape(n, penalties.size, n_targets)
        leverage = (self._axes**2) @ shrunk + 1.0 / n
        error = self._targets[:, None, :] - fitted
        error /= np.maximum(1.0 - leverage, _TINY)[:, :, None]
        losses: FloatArray = (error**2).sum(axis=(0, 2)) / n
        return losses

    def unlikelihoods(self, penalties: FloatArray) -> FloatArray:
        """Minus the logarithm of the marginal likelihood, its signal variance the best.

        Shape (n_penalties,), as ``penalties``.
        """
        # The ones are no direction of centred targets.
        n, n_targets = self._targets.shape
        inside = np.abs(self._axes.sum(axis=0)) < 0.5 * np.sqrt(n)
        spread = (self._values[inside] / self._unit)[:, None] + penalties
        parts = (self._parts[inside] ** 2).sum(axis=1)
        size = parts.size * n_targets
        variance = np.maximum((parts[:, None] / spread).sum(axis=0) / max(size, 1), _TINY)
        found: FloatArray = 0.5 * (size * np.log(variance) + n_targets * np.log(spread).sum(axis=0))
        return found


class RidgeSmoother(_KernelSmoother):
    """Ridge regression; the penalty is chosen by leaving out."""

    kind: ClassVar[str] = "ridge"

    def _kernel(self, rows: FloatArray, columns: FloatArray) -> FloatArray:
        product: FloatArray = rows @ columns.T
        return product


class KernelRidgeSmoother(_KernelSmoother):
    """Ridge regression under an RBF kernel; length scale and penalty are chosen by leaving out."""

    kind: ClassVar[str] = "kernel-ridge"
    lengths: ClassVar[tuple[float, ...]] = _LENGTHS

    def _kernel(self, rows: FloatArray, columns: FloatArray) -> FloatArray:
        from scipy.spatial.distance import cdist

        known = rows is self._vectors and columns is self._vectors
        distance = self._distances if known else cdist(rows, columns)
        kernel: FloatArray = np.exp(-0.5 * (distance / (self._length * self._unit)) ** 2)
        return kernel


class GaussianProcessSmoother(KernelRidgeSmoother):
    """Gaussian process with an RBF kernel and noise, by its marginal likelihood.

    The mean of the process is kernel ridge with the ratio of noise and signal as its penalty. Its
    two settings maximise the likelihood of all targets, whitened by the metric and centred
    (Rasmussen & Williams 2006, Eq. 5.8).
    """

    kind: ClassVar[str] = "gp"

    def _losses(self, spectrum: _Spectrum, penalties: FloatArray) -> FloatArray:
        return spectrum.unlikelihoods(penalties)


_KINDS: Final[dict[str, type[Smoother]]] = {
    kind.kind: kind
    for kind in (
        MeanSmoother,
        RidgeSmoother,
        KernelRidgeSmoother,
        NearestSmoother,
        GaussianProcessSmoother,
    )
}
SMOOTHER_KINDS: Final = tuple(_KINDS)


def make_smoother(kind: str) -> Smoother:
    """Make a smoother that is not fitted, by its kind."""
    return _KINDS[kind]()


def _normalised(distance: FloatArray, width: float) -> FloatArray:
    exponent = -0.5 * (distance / width) ** 2
    # The nearest counts 1 before normalising: far from all rows, it is still the nearest.
    raw = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    weights: FloatArray = raw / raw.sum(axis=1, keepdims=True)
    return weights


def _centred(gram: FloatArray) -> FloatArray:
    means = gram.mean(axis=0)
    centred: FloatArray = gram - means - means[:, None] + gram.mean()
    return centred


def _root(metric: FloatArray) -> FloatArray:
    """A matrix R with ``R Rᵀ = metric``."""
    values, vectors = np.linalg.eigh(metric)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root[:, values > _TINY * max(float(values.max()), _TINY)]
