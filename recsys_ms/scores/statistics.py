"""One decomposition of the features of a probe set, from which all linear scores are read."""

from collections.abc import Iterator
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import ArrayLike
from scipy.linalg import cholesky, solve_triangular
from scipy.linalg.lapack import dpocon

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.core.types import BoolArray, FloatArray
from recsys_ms.scores.checks import Classes, Features, check_features
from recsys_ms.scores.gram import BLOCK_ROWS, Algebra, TorchAlgebra

_EPSILON: Final = float(np.finfo(np.float64).eps)
#: Reciprocal condition of ``X'X`` below which a Cholesky factor loses half of float64's digits.
_WORST_CONDITION: Final = 1e-8


#: Scores need up to the fourth power of a feature, and sums of them.
_SMALLEST: Final = 1e-75
_LARGEST: Final = 1e75
#: Share of the squares that is spread, at an offset of 32 times the spread: 3 digits are lost.
_OFFSET: Final = 1e-3
#: The same at an offset of 100,000 times the spread: 10 of 16 digits are lost.
_NO_SPREAD_LEFT: Final = 1e-10
#: Rows or columns that differ by more have squares that differ by all digits but two.
_OUTLIER: Final = 1e7


class Rows(Protocol):
    """Gives rows of a matrix of float64 by slices: an array, or an object that makes them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole matrix."""

    def __getitem__(self, rows: slice) -> FloatArray: ...


class ProbeStatistics:
    """Features of one model on one probe set, decomposed once.

    With ``X = U S V'`` (``n_probe`` × ``n_features``, rank ``r``), scores need the squared
    singular values and, of every target ``y``, its coordinates ``U'y``. Both come from one
    symmetric eigenproblem of the smaller of ``X'X`` and ``XX'``, in float64, solved when it is
    first needed. The features are read by blocks of rows and never copied as a whole.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features)
        float32 or float64 is best; kept as a reference, not written to.
    device : str, optional
        Torch device for the decomposition; default: NumPy.

    Attributes
    ----------
    features : ndarray
        As they were given.
    mean : ndarray of shape (n_features,)
        Mean feature vector.
    dead : ndarray of bool, shape (n_features,)
        Features that are the same for every example.

    Raises
    ------
    ProbeSetError
        Not a finite matrix of at least two examples, all zeros, out of range, or one example or
        feature is far larger than all others.
    """

    def __init__(self, features: ArrayLike, *, device: str | None = None) -> None:
        self.features: Features = check_features(features)
        self._device = device
        self._peak = peak = max(float(self.features.max()), -float(self.features.min()))
        if peak == 0.0:
            raise ProbeSetError("features: all of them are zero; was the model run at all?")
        if not _SMALLEST <= peak <= _LARGEST:
            raise ProbeSetError(
                f"features: values up to {peak:.3g}, expected a largest one between {_SMALLEST:g} "
                f"and {_LARGEST:g}, whose powers are in the range of float64; multiply them by a "
                "constant"
            )
        self.n_probe, self.n_features = self.features.shape
        self.mean: FloatArray = self.features.mean(axis=0, dtype=np.float64)
        self.dead: BoolArray = same_everywhere(self.features)
        self._algebra = Algebra() if device is None else TorchAlgebra(device)
        self._gram: FloatArray | None = self._algebra.gram(self.features)
        self._refuse_outliers()
        #: Share of the squares that is around the mean.
        self.spread: float = 1.0 - self.n_probe * float(self.mean @ self.mean) / float(
            np.trace(self._gram)
        )

    def _refuse_outliers(self) -> None:
        """Raise ``ProbeSetError`` where one row or column drowns the others in rounding."""
        rows, columns = np.empty(self.n_probe), np.zeros(self.n_features)
        for part, block in self.blocks():
            np.square(block, out=block)
            rows[part] = block.sum(axis=1)
            columns += block.sum(axis=0)
        for name, squares in (("example", rows), ("feature", columns)):
            usual = float(np.sqrt(np.median(squares[squares > 0.0])))
            largest = float(np.sqrt(squares.max()))
            if largest > _OUTLIER * usual:
                raise ProbeSetError(
                    f"features: {name} {int(squares.argmax())} is {largest / usual:.1g} times as "
                    f"large as the median {name}, which leaves too few digits for the others; drop "
                    "it, or scale the features"
                )

    @cached_property
    def centred(self) -> "ProbeStatistics":
        """Statistics of the same spread around the mean without a loss of precision.

        Those of the features less their first row, exactly, where a common offset would take half
        of the digits of their squares; else these.
        """
        if self.spread > _OFFSET:
            return self
        return ProbeStatistics(
            self.features.astype(np.float64) - self.features[0].astype(np.float64),
            device=self._device,
        )

    def refuse_offset(self) -> None:
        """Raise ``ProbeSetError`` where squares of the offset leave nothing of the spread."""
        if self.spread < _NO_SPREAD_LEFT and not self.dead.all():
            raise ProbeSetError(
                "features: their common offset is more than 100,000 times their spread, of which "
                "float64 keeps too few digits; subtract the mean from each feature"
            )

    @cached_property
    def _decomposed(self) -> tuple[FloatArray, FloatArray]:
        gram, self._gram = self._gram, None
        values, vectors = self._algebra.eigh(gram)  # type: ignore[arg-type]
        least = values[-1] * max(self.features.shape) * _EPSILON
        first = int(np.searchsorted(values, least, side="right"))
        return values[first:], vectors[:, first:]

    @property
    def eigenvalues(self) -> FloatArray:
        """Squared singular values above rounding, ascending, of shape (rank,)."""
        return self._decomposed[0]

    @property
    def _vectors(self) -> FloatArray:
        """Right singular vectors of tall features, left ones of wide features, in columns."""
        return self._decomposed[1]

    @property
    def rank(self) -> int:
        """Dimensions that the features span."""
        return int(self.eigenvalues.size)

    @property
    def is_tall(self) -> bool:
        """Whether there are at least as many examples as features."""
        return bool(self.n_probe >= self.n_features)

    @property
    def dead_fraction(self) -> float:
        """Fraction of features that are the same for every example."""
        return float(self.dead.mean())

    def blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Rows of the features in float64, a block at a time."""
        for rows in self._row_slices():
            yield rows, self.features[rows].astype(np.float64)

    def _row_slices(self) -> list[slice]:
        starts = range(0, self.n_probe, BLOCK_ROWS)
        return [slice(start, min(start + BLOCK_ROWS, self.n_probe)) for start in starts]

    def coordinates(self, targets: Rows | Classes) -> FloatArray:
        """``U'Y``, of shape (rank, n_targets): coordinates in the span of the features.

        ``targets`` is an array of shape (n_probe, n_targets), or makes blocks of its rows, each
        read once; of classes, ``Y`` are the indicators. The rest of a column's squared length is
        the part that no linear map of the features can fit.
        """
        if self.is_tall:
            coordinates: FloatArray = self._vectors.T @ self._products(targets)
            coordinates /= np.sqrt(self.eigenvalues)[:, None]
            return coordinates
        if isinstance(targets, Classes):
            return sums_by_class(self._vectors, targets).T
        wide: FloatArray = self._vectors.T @ targets[:]
        return wide

    def span_coordinates(self, targets: Rows | Classes) -> FloatArray:
        """Coordinates in any orthonormal basis of the span, of shape (rank, n_targets).

        Inner products of projections on the span need no more. Without a decomposition, tall
        features of good condition give the basis ``X L'^-1`` by a Cholesky factor ``L`` of ``X'X``,
        in a fraction of the time.
        """
        factor = self._factor
        if factor is None:
            return self.coordinates(targets)
        sums = self._products(targets)
        solved: FloatArray = solve_triangular(factor, sums, lower=True, check_finite=False)
        return solved

    @cached_property
    def _factor(self) -> FloatArray | None:
        """Cholesky factor of ``X'X``; ``None`` where eigenvectors are known, or needed."""
        if not self.is_tall or self._gram is None:
            return None
        scale = float(np.trace(self._gram))
        try:
            factor: FloatArray = cholesky(self._gram, lower=True, check_finite=False)
        except LinAlgError:
            return None
        # The trace is at least the norm, so that the condition is not underrated.
        condition, _ = dpocon(factor, scale, uplo="L")
        return factor if condition > _WORST_CONDITION else None

    def _products(self, targets: Rows | Classes) -> FloatArray:
        """``X'Y``, of shape (n_features, n_targets)."""
        if isinstance(targets, Classes):
            return self.class_sums(targets).T
        products = np.zeros((self.n_features, targets.shape[1]))
        for rows, block in self.blocks():
            products += block.T @ targets[rows]
        return products

    def class_sums(self, classes: Classes) -> FloatArray:
        """Sum of the features of each class, of shape (n_classes, n_features)."""
        return sums_by_class(self.features, classes)

    def apply(self, weights: FloatArray) -> FloatArray:
        """``X V W`` of weights (rank, n_functions) in the features' own axes."""
        if not self.is_tall:
            wide: FloatArray = self._vectors @ (np.sqrt(self.eigenvalues)[:, None] * weights)
            return wide
        weights = self._vectors @ weights
        values = np.empty((self.n_probe, weights.shape[1]))
        for rows, block in self.blocks():
            np.matmul(block, weights, out=values[rows])
        return values

    def rotated_blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """``X V``: the features in their own axes, a block of rows at a time.

        The product is in the precision of the features, unless it could overflow there; the blocks
        are float64.
        """
        if not self.is_tall:
            roots = np.sqrt(self.eigenvalues)
            for rows in self._row_slices():
                yield rows, self._vectors[rows] * roots
            return
        fits = self._peak * self.n_features < float(np.finfo(self.features.dtype).max)
        vectors = self._vectors.astype(self.features.dtype) if fits else self._vectors
        for rows in self._row_slices():
            yield rows, np.matmul(self.features[rows], vectors).astype(np.float64)

    def compact_blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Rows in at most ``n_probe`` dimensions with the same inner products, block by block."""
        return self.blocks() if self.is_tall else self.rotated_blocks()


def same_everywhere(features: Features) -> BoolArray:
    """Which features are the same for every example, shape (n_features,); read by blocks."""
    same = np.ones(features.shape[1], dtype=bool)
    for start in range(0, features.shape[0], BLOCK_ROWS):
        same &= (features[start : start + BLOCK_ROWS] == features[0]).all(axis=0)
    return same


def sums_by_class(rows: Features, classes: Classes) -> FloatArray:
    """Sums of the rows of each class, in float64, of shape (n_classes, n_columns)."""
    sums = np.empty((classes.n_classes, rows.shape[1]))
    for number, members in enumerate(classes.rows()):
        sums[number] = sum(
            rows[members[start : start + BLOCK_ROWS]].sum(axis=0, dtype=np.float64)
            for start in range(0, members.size, BLOCK_ROWS)
        )
    return sums


def statistics_of(features: ArrayLike | ProbeStatistics) -> ProbeStatistics:
    """Decompose features, unless that was done."""
    return features if isinstance(features, ProbeStatistics) else ProbeStatistics(features)


def refuse_constant(statistics: ProbeStatistics) -> None:
    """Raise ``ProbeSetError`` where every example has the same features."""
    if statistics.dead.all():
        raise ProbeSetError(
            "features: every example has the same features, which say nothing of the labels; "
            "was the model run on the images?"
        )
