"""Design matrices of (task, model) pairs, in the form that a head works best on.

A pair's row is the row of its task beside the row of its model. Those few thousand distinct rows
are kept once and looked up, so a design of a million pairs costs two integers a pair until a head
asks for a matrix; a linear head never has to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeAlias

import numpy as np
import scipy.sparse as sp

from recsys_ms.catalog.encoding import INDICATOR, NUMBER, EncodedFeatures, TreeArray
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureDesign:
    """Rows made of blocks: block ``b`` puts row ``rows[i]`` of its features into row ``i``.

    Build one with :func:`pair_design` or :func:`row_design`.

    Attributes
    ----------
    blocks : tuple of (EncodedFeatures, ndarray of shape (n_rows,))
        Features and which of their rows each design row has.
    """

    blocks: tuple[tuple[EncodedFeatures, IntArray], ...]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.blocks[0][1].size)

    @property
    def n_linear(self) -> int:
        """Number of columns of :meth:`linear`."""
        return sum(int(features.linear.shape[1]) for features, _ in self.blocks)

    @property
    def linear_names(self) -> tuple[str, ...]:
        """Names of the columns of :meth:`linear`."""
        return tuple(name for features, _ in self.blocks for name in features.linear_names)

    @property
    def linear_fields(self) -> tuple[str, ...]:
        """Card field that each column of :meth:`linear` comes from."""
        return tuple(field for features, _ in self.blocks for field in features.linear_fields)

    @property
    def kinds(self) -> IntArray:
        """What each column of :meth:`linear` holds, see :class:`EncodedFeatures`."""
        return np.concatenate([features.kinds for features, _ in self.blocks])

    @property
    def tree_names(self) -> tuple[str, ...]:
        """Names of the columns of :meth:`trees`."""
        return tuple(name for features, _ in self.blocks for name in features.tree_names)

    @property
    def tree_fields(self) -> tuple[str, ...]:
        """Card field that each column of :meth:`trees` comes from."""
        return tuple(field for features, _ in self.blocks for field in features.tree_fields)

    @property
    def categorical(self) -> tuple[int, ...]:
        """Which columns of :meth:`trees` are category codes."""
        found: list[int] = []
        start = 0
        for features, _ in self.blocks:
            found.extend(start + column for column in features.categorical)
            start += features.trees.shape[1]
        return tuple(found)

    def linear(self) -> sp.csr_array:
        """The matrix for linear learners, shape (n_rows, n_linear)."""
        parts = [features.linear[rows] for features, rows in self.blocks]
        return sp.csr_array(sp.hstack(parts, format="csr"))

    def trees(self) -> TreeArray:
        """The matrix for trees, shape (n_rows, n_trees), NaN where unknown."""
        return np.hstack([features.trees[rows] for features, rows in self.blocks])

    def take(self, rows: IntArray) -> Self:
        """The design of some of the rows, in that order."""
        return type(self)(blocks=tuple((features, own[rows]) for features, own in self.blocks))

    def dot(self, weights: FloatArray) -> FloatArray:
        """``linear() @ weights`` without making the matrix, shape (n_rows,)."""
        total = np.zeros(self.n_rows)
        start = 0
        for features, rows in self.blocks:
            stop = start + features.linear.shape[1]
            total += (features.linear @ weights[start:stop])[rows]
            start = stop
        return total

    def transposed_dot(self, values: FloatArray, *, squared: bool = False) -> FloatArray:
        """``linear().T @ values`` (entries squared if asked) without making it, (n_linear,)."""
        parts = []
        for features, rows in self.blocks:
            sums = np.bincount(rows, weights=values, minlength=features.n_rows)
            matrix = features.linear.power(2) if squared else features.linear
            parts.append(matrix.T @ sums)
        return np.concatenate(parts)


def row_design(features: EncodedFeatures, rows: IntArray | None = None) -> FeatureDesign:
    """Design whose row ``i`` is row ``rows[i]`` of ``features`` (default: every row once)."""
    chosen = np.arange(features.n_rows) if rows is None else rows
    return FeatureDesign(blocks=(_block(features, chosen, "rows"),))


def pair_design(
    task_features: EncodedFeatures,
    task_rows: IntArray,
    model_features: EncodedFeatures,
    model_rows: IntArray,
    *,
    ids: Sequence[tuple[EncodedFeatures, IntArray]] = (),
) -> FeatureDesign:
    """Design of (task, model) pairs.

    Parameters
    ----------
    task_features, model_features : EncodedFeatures
        One row per task, one row per model.
    task_rows, model_rows : ndarray of shape (n_rows,)
        Which of those rows each pair has.
    ids : sequence of (EncodedFeatures, ndarray of shape (n_rows,))
        Further blocks, such as ``(id_features("model_id", n), model_position)`` where -1 is a model
        that training did not have, or features that are one row a pair.

    Raises
    ------
    DataError
        A position outside its features.
    UsageError
        Positions of different length.
    """
    blocks = [
        _block(task_features, task_rows, "task_rows"),
        _block(model_features, model_rows, "model_rows"),
        *(_block(features, rows, "ids") for features, rows in ids),
    ]
    lengths = {rows.size for _, rows in blocks}
    if len(lengths) > 1:
        raise UsageError(f"pair_design: one position a pair is needed, got lengths {lengths}")
    return FeatureDesign(blocks=tuple(blocks))


def _block(
    features: EncodedFeatures, rows: IntArray, where: str
) -> tuple[EncodedFeatures, IntArray]:
    n = features.n_rows
    if rows.size and (rows.min() < -n or rows.max() >= n):
        raise DataError(
            f"{where}: positions from {rows.min()} to {rows.max()} do not fit {n} rows of features"
        )
    return features, np.where(rows < 0, rows + n, rows).astype(np.int64)


class MatrixDesign:
    """A plain matrix, dense or sparse, that serves linear learners and trees alike.

    Each column is a field of its own, named by its position. It holds words (indicators) if all its
    values are 0 or 1, numbers otherwise.
    """

    categorical: tuple[int, ...] = ()

    def __init__(self, matrix: FloatArray | sp.csr_array) -> None:
        self._matrix = matrix
        self.n_rows, self.n_linear = map(int, matrix.shape)
        self.linear_fields = self.tree_fields = tuple(map(str, range(self.n_linear)))

    @cached_property
    def _sparse(self) -> sp.csr_array:
        return sp.csr_array(self._matrix)

    @cached_property
    def _transposed(self) -> sp.csr_array:
        return sp.csr_array(self._sparse.T)

    @property
    def kinds(self) -> IntArray:
        """What each column holds."""
        fractional = abs((self._sparse != 0).astype(np.float64) - self._sparse)
        is_number = np.asarray(fractional.sum(axis=0)).ravel() > 0.0
        return np.where(is_number, NUMBER, INDICATOR)

    def linear(self) -> sp.csr_array:
        """The matrix for linear learners."""
        return self._sparse

    def trees(self) -> TreeArray | sp.csr_matrix:
        """The matrix for trees; LightGBM reads SciPy's older class of sparse matrices only."""
        dense = isinstance(self._matrix, np.ndarray)
        return self._matrix if dense else sp.csr_matrix(self._matrix)

    def take(self, rows: IntArray) -> Self:
        """The design of some of the rows, in that order."""
        return type(self)(self._matrix[rows])

    def dot(self, weights: FloatArray) -> FloatArray:
        """``linear() @ weights``, shape (n_rows,)."""
        # Sparse products add up row by row, so a row's answer does not depend on the others.
        return np.asarray(self._sparse @ weights)

    def transposed_dot(self, values: FloatArray, *, squared: bool = False) -> FloatArray:
        """``linear().T @ values`` (entries squared if asked), shape (n_linear,)."""
        return np.asarray((self._transposed.power(2) if squared else self._transposed) @ values)


#: What heads work on.
Design: TypeAlias = FeatureDesign | MatrixDesign
#: What heads take: a design, or a plain matrix.
DesignLike: TypeAlias = FloatArray | sp.csr_array | Design


def as_design(design: DesignLike) -> Design:
    """A design as it is, or the design of a plain matrix."""
    return design if isinstance(design, FeatureDesign | MatrixDesign) else MatrixDesign(design)


def check_fit_input(design: Design, target: FloatArray, groups: IntArray | None) -> None:
    """Check training data.

    Raises
    ------
    DataError
        No rows, lengths that differ, or a target that is not finite.
    """
    n_rows = design.n_rows
    if n_rows == 0:
        raise DataError("the design has no rows; give the training interactions")
    if target.shape != (n_rows,):
        raise DataError(f"target has shape {target.shape}; the design has {n_rows} rows")
    if groups is not None and groups.shape != (n_rows,):
        raise DataError(f"groups has shape {groups.shape}; the design has {n_rows} rows")
    if not np.isfinite(target).all():
        at = int(np.flatnonzero(~np.isfinite(target))[0])
        raise DataError(f"target of row {at} is {target[at]}; leave out rows without an outcome")


def group_folds(groups: IntArray, n_folds: int) -> IntArray:
    """Fold of each row so that no group is in two folds and folds are about equally large.

    Integers from 0, shape (n_rows,). Deterministic: groups by falling size go to the smallest fold.
    At most ``n_folds`` folds, fewer where there are fewer groups.
    """
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n_folds = min(n_folds, names.size)
    fold_of = np.empty(names.size, dtype=np.int64)
    load = np.zeros(n_folds, dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        fold_of[group] = int(np.argmin(load))
        load[fold_of[group]] += sizes[group]
    return fold_of[codes]
