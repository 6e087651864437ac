"""Linear regression with a ridge penalty: the LR head of Guided Recommendation."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from recsys_ms.core.configured import check_range
from recsys_ms.core.declared import Shape
from recsys_ms.core.state import Learned
from recsys_ms.core.types import BoolArray, FloatArray, IntArray
from recsys_ms.learners.design import Design, group_folds
from recsys_ms.learners.head import Head
from recsys_ms.learners.head_contributions import HeadContributions

#: Above these a dense decomposition costs more than an iteration to the same answer.
_MAX_RANK: Final = 2500
_MAX_CELLS: Final = 20_000_000
#: Folds of whole groups that the strength of the penalty is chosen by.
_N_FOLDS: Final = 20
_ITERATIVE_FOLDS: Final = 5
#: Penalties tried, in units of the mean eigenvalue of the centred Gram matrix.
_GRID: Final = np.logspace(4.0, -5.0, 28)
_ITERATIVE_GRID: Final = np.logspace(3.0, -3.0, 7)
_MAX_ITERATIONS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearConfig:
    """Options of :class:`LinearHead`.

    Attributes
    ----------
    penalty : float or None
        Ridge penalty, in the unit of a sum of squares over rows; ``None`` (default) chooses it on
        the training rows: leave-group-out cross-validation where there are two groups or more,
        generalised cross-validation otherwise.
    """

    penalty: float | None = None

    def __post_init__(self) -> None:
        if self.penalty is not None:
            check_range(self, "penalty", above=0)


class LinearHead(Head):
    """Ridge regression: minimises ‖y − b − Xw‖² + penalty · ‖w‖², the intercept b unpenalised.

    Up to 2,500 rows or columns (and 2·10^7 cells) the answer comes from one eigendecomposition of
    the smaller Gram matrix, and so does the exact score of every penalty: the generalised
    cross-validation of Golub, Heath and Wahba (1979) or, with groups, the prediction error of folds
    of whole groups left out, which needs no refit: it is (I − H_FF)⁻¹ (y − Hy)_F for hat matrix H
    and fold F, as every linear smoother with a fixed penalty has it. Larger problems are solved by
    conjugate gradients with a diagonal preconditioner, and the penalty is chosen on one fifth of
    the groups.

    Contributions are weight times value, summed over the columns of each card field; the base is b.

    Parameters
    ----------
    config : LinearConfig, optional
        Options.

    Attributes
    ----------
    coef_ : ndarray of shape (n_columns,)
        Weights w.
    intercept_ : float
        b.
    penalty_ : float
        The penalty used.
    """

    kind: ClassVar[str] = "linear"
    default_config: ClassVar[LinearConfig] = LinearConfig()

    config: Learned[LinearConfig]
    coef_: Learned[Annotated[FloatArray, Shape("column")]]
    intercept_: Learned[float]
    penalty_: Learned[float]

    def _fit(
        self, design: Design, target: FloatArray, groups: IntArray | None, rng: np.random.Generator
    ) -> None:
        n_rows, n_columns = design.n_rows, design.n_linear
        several = groups is not None and np.unique(groups).size > 1
        folds = group_folds(groups, _N_FOLDS) if groups is not None and several else None
        self.coef_, self.penalty_ = np.zeros(n_columns), self.config.penalty or 1.0
        self.intercept_ = float(target.mean())
        if n_columns == 0 or np.ptp(target) == 0.0:
            return
        if min(n_rows, n_columns) <= _MAX_RANK and n_rows * n_columns <= _MAX_CELLS:
            self._fit_exact(design.linear(), target, folds)
        else:
            self._fit_iterative(design, target, groups)

    def _predict(self, design: Design) -> FloatArray:
        return self.intercept_ + design.dot(self.coef_)

    def _contributions(self, design: Design) -> HeadContributions:
        columns = sp.csr_array(design.linear().multiply(self.coef_[None, :]))
        return HeadContributions.of_columns(self.intercept_, columns, design.linear_fields)

    def _fit_exact(self, matrix: sp.csr_array, target: FloatArray, folds: IntArray | None) -> None:
        center = np.asarray(matrix.mean(axis=0)).ravel()
        dense = matrix.toarray() - center
        residual = target - target.mean()
        left, values, right = _thin_svd(dense)
        if values.size == 0:
            return
        projected = left.T @ residual
        if self.config.penalty is None:
            grid = _GRID * float(values.sum()) / min(dense.shape)
            scores = (
                np.array([_gcv(left, values, projected, residual, penalty) for penalty in grid])
                if folds is None
                else _left_out_errors(left, values, projected, residual, grid, folds)
            )
            self.penalty_ = float(grid[int(np.argmin(scores))])
        shrunk = projected * np.sqrt(values) / (values + self.penalty_)
        self.coef_ = right @ shrunk
        self.intercept_ = float(target.mean() - center @ self.coef_)

    def _fit_iterative(self, design: Design, target: FloatArray, groups: IntArray | None) -> None:
        penalty = self.config.penalty
        if penalty is None:
            # Without groups any fifth will do; rows may be sorted, so it is every fifth one.
            several = groups is not None and np.unique(groups).size > 1
            names = groups if groups is not None and several else np.arange(target.size)
            folds = group_folds(names, _ITERATIVE_FOLDS)
            penalty = _chosen_penalty(design, target, np.flatnonzero(folds == 0))
        self.penalty_ = penalty
        self.intercept_, self.coef_ = NormalEquations(design).solve(
            target, penalty, tolerance=1e-10
        )


def _thin_svd(dense: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Left vectors, squared singular values and right vectors, without the null space."""
    wide = dense.shape[1] > dense.shape[0]
    gram = dense @ dense.T if wide else dense.T @ dense
    values, vectors = scipy.linalg.eigh(gram)
    # Squaring doubles the exponent of rounding: below this an eigenvalue is noise.
    keep = values > max(float(values[-1]), 0.0) * 1e-12 * max(dense.shape) ** 0.5
    keep &= values > 0.0
    values, vectors = values[keep], vectors[:, keep]
    other = (dense.T if wide else dense) @ vectors / np.sqrt(values)
    return (vectors, values, other) if wide else (other, values, vectors)


def _gcv(
    left: FloatArray,
    values: FloatArray,
    projected: FloatArray,
    residual: FloatArray,
    penalty: float,
) -> float:
    """Generalised cross-validation, one degree of freedom being the intercept's."""
    shrinkage = values / (values + penalty)
    errors = residual - left @ (shrinkage * projected)
    n_rows = residual.size
    free = n_rows - 1.0 - float(shrinkage.sum())
    if free <= 1e-8 * n_rows:
        return float("inf")
    return float(n_rows * (errors @ errors) / free**2)


def _left_out_errors(
    left: FloatArray,
    values: FloatArray,
    projected: FloatArray,
    residual: FloatArray,
    penalties: FloatArray,
    folds: IntArray,
) -> FloatArray:
    """Squared error of each fold predicted from the others, summed; one number a penalty.

    Two exact ways to the same numbers. A fold of more rows than the matrix has rank is predicted
    by the ridge of the other rows, whose Gram matrix is decomposed once for all penalties; a
    smaller one by its block of the hat matrix, which is the smaller system.
    """
    total = np.zeros(penalties.size)
    rotated = left * np.sqrt(values)
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        if own.sum() >= values.size and not own.all():
            total += _errors_by_refit(rotated, residual, penalties, own)
        else:
            total += _errors_by_hat(left, values, projected, residual, penalties, own)
    return total


def _errors_by_refit(
    rotated: FloatArray, residual: FloatArray, penalties: FloatArray, own: BoolArray
) -> FloatArray:
    rest, center, mean = rotated[~own], rotated[~own].mean(axis=0), residual[~own].mean()
    centred = rest - center
    eigenvalues, vectors = scipy.linalg.eigh(centred.T @ centred, check_finite=False)
    along = vectors.T @ (centred.T @ (residual[~own] - mean))
    shrunk = along / (np.maximum(eigenvalues, 0.0) + penalties[:, None])
    predicted = mean + shrunk @ ((rotated[own] - center) @ vectors).T
    errors: FloatArray = np.square(residual[own] - predicted).sum(axis=1)
    return errors


def _errors_by_hat(
    left: FloatArray,
    values: FloatArray,
    projected: FloatArray,
    residual: FloatArray,
    penalties: FloatArray,
    own: BoolArray,
) -> FloatArray:
    rows = left[own]
    found = np.empty(penalties.size)
    for position, penalty in enumerate(penalties):
        shrinkage = values / (values + penalty)
        errors = residual[own] - rows @ (shrinkage * projected)
        hat = (rows * shrinkage) @ rows.T + 1.0 / residual.size
        left_out = scipy.linalg.solve(
            np.eye(errors.size) - hat, errors, assume_a="sym", check_finite=False
        )
        found[position] = left_out @ left_out
    return found


class NormalEquations:
    """Ridge with a free intercept: (XᵀX − n·m·mᵀ + penalty·I) w = Xᵀ(y − ȳ), never made explicit.

    Parameters
    ----------
    design : Design
        X, whose column means are m.
    """

    def __init__(self, design: Design) -> None:
        self._design = design
        ones = np.ones(design.n_rows)
        self._center = design.transposed_dot(ones) / ones.size
        squares = design.transposed_dot(ones, squared=True)
        #: Diagonal of the centred Gram matrix.
        self.diagonal = np.maximum(squares - ones.size * self._center**2, 0.0)

    def solve(
        self,
        target: FloatArray,
        penalty: float,
        *,
        tolerance: float,
        start: FloatArray | None = None,
    ) -> tuple[float, FloatArray]:
        """Intercept and weights, by conjugate gradients to a relative residual of ``tolerance``."""
        right = self._design.transposed_dot(target - target.mean())
        precondition = 1.0 / (self.diagonal + penalty)
        weights = np.zeros_like(right) if start is None else start.copy()
        residual = right - self._apply(weights, penalty)
        step = precondition * residual
        direction = step
        product = float(residual @ step)
        enough = tolerance**2 * float(right @ (precondition * right))
        for _ in range(max(_MAX_ITERATIONS, weights.size)):
            if product <= enough:
                break
            image = self._apply(direction, penalty)
            length = product / float(direction @ image)
            weights += length * direction
            residual -= length * image
            step = precondition * residual
            previous, product = product, float(residual @ step)
            direction = step + (product / previous) * direction
        return float(target.mean() - self._center @ weights), weights

    def _apply(self, weights: FloatArray, penalty: float) -> FloatArray:
        image = self._design.dot(weights)
        return self._design.transposed_dot(image - image.mean()) + penalty * weights


def _chosen_penalty(design: Design, target: FloatArray, held_out: IntArray) -> float:
    kept = np.setdiff1d(np.arange(target.size), held_out)
    equations = NormalEquations(design.take(kept))
    test = design.take(held_out)
    grid = _ITERATIVE_GRID * float(equations.diagonal.mean())
    weights: FloatArray | None = None
    errors = []
    for penalty in grid:
        # From strong to weak, each starting where the last one ended.
        intercept, weights = equations.solve(
            target[kept], float(penalty), tolerance=1e-4, start=weights
        )
        left_out = target[held_out] - intercept - test.dot(weights)
        errors.append(float(left_out @ left_out))
    # The whole has more rows than the kept part; the penalty grows with them.
    return float(grid[int(np.argmin(errors))]) * target.size / kept.size
