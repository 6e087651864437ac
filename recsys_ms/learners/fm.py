"""Second-order factorization machine (Rendle 2010), learned by coordinate descent (Rendle 2011).

``ŷ(x) = w₀ + Σ_j w_j x_j + Σ_{i<j} <v_i, v_j> x_i x_j`` (Eq. 1), computed in one pass of
O(n_factors · nonzeros) by ``½ Σ_f [(Σ_j v_jf x_j)² − Σ_j v_jf² x_j²]`` (Eq. 5).

The linear part is solved exactly (a ridge regression on what the interactions leave over), each
``v_jf`` by its closed form given the rest, so the objective never rises and there is no learning
rate. How strongly the interactions are held back is measured on the data: see
:class:`FactorizationMachineConfig`.
"""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import as_generator
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray, IntArray, RngLike
from recsys_ms.learners.design import Design, linear_form
from recsys_ms.learners.fm_solver import Problem, Solution, interaction_part
from recsys_ms.learners.head import Head
from recsys_ms.learners.head_contributions import HeadContributions, linear_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorizationMachineConfig:
    """Settings of :class:`FactorizationMachineHead`.

    Attributes
    ----------
    n_factors : int
        Length of each v_j; 0 leaves ridge regression.
    l2_linear : float
        Penalty on Σ w_j², above 0. With standardised targets 1 is one run's worth of doubt per
        one-hot column.
    l2_factors : float or None
        Penalty on Σ_j s_j ‖v_j‖², at least 0, with s_j from
        :func:`recsys_ms.learners.fm_solver.column_sizes`. ``None`` takes the noise level of the
        data (:func:`recsys_ms.learners.fm_solver.noise_level`) times one of ``noise_margins``.
    noise_margins : tuple of float
        Falling, each above 0. At 1 nothing is admitted that noise alone would reach; smaller ones
        learn more and overfit more. Cross-validation takes the largest whose error is within one
        standard error of the least.
    max_validation_entries : int
        Above this many nonzeros of the design nothing is cross-validated, and the second margin (or
        the only one) is used: where interactions were planted one half of the noise level was near
        the best, and where there were none it cost little.
    n_folds : int
        Folds of the cross-validation, at least 2: of whole groups when ``fit`` is told them.
    max_sweeps : int
        Upper bound on passes over all parameters.
    tolerance : float
        Stop when a sweep lowers the objective by less than this share of it.
    """

    n_factors: int = 8
    l2_linear: float = 1.0
    l2_factors: float | None = None
    noise_margins: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1)
    max_validation_entries: int = 500_000
    n_folds: int = 5
    max_sweeps: int = 50
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        for name, least in (
            ("n_factors", 0),
            ("max_sweeps", 1),
            ("n_folds", 2),
            ("max_validation_entries", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(
                    f"FactorizationMachineConfig: {name} is {getattr(self, name)}, wanted at least "
                    f"{least}; leave it out for the default"
                )
        if not (math.isfinite(self.l2_linear) and self.l2_linear > 0.0):
            raise UsageError(
                f"FactorizationMachineConfig: l2_linear is {self.l2_linear}, wanted a finite "
                "number above 0"
            )
        for name, value in (("l2_factors", self.l2_factors), ("tolerance", self.tolerance)):
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise UsageError(
                    f"FactorizationMachineConfig: {name} is {value}, wanted a finite number of at "
                    "least 0"
                )
        margins = self.noise_margins
        falling = all(a > b for a, b in itertools.pairwise(margins))
        if not margins or not falling or not all(0.0 < m < math.inf for m in margins):
            raise UsageError(
                f"FactorizationMachineConfig: noise_margins is {margins}, wanted at least one "
                "number, all finite and above 0, each smaller than the one before"
            )


class FactorizationMachineHead(Head):
    """Factorization machine regressor of a standardised outcome.

    Columns should be of comparable size: one-hot columns as 0 and 1, dense ones standardised.

    Parameters
    ----------
    config : FactorizationMachineConfig, optional
        Settings.

    Attributes
    ----------
    intercept_ : float
        w₀, not penalised.
    coefficients_ : ndarray of shape (n_columns,)
        w; 0 for a column that was empty in training.
    factors_ : ndarray of shape (n_factors, n_columns)
        v, one row per factor.
    l2_factors_ : float
        The penalty that was used.
    objective_ : tuple of float
        Penalised squared error after each sweep, never rising.
    converged_ : bool
        Whether the tolerance was met within ``max_sweeps``.
    """

    kind: ClassVar[str] = "fm"
    default_config: ClassVar[FactorizationMachineConfig] = FactorizationMachineConfig()

    config: Learned[FactorizationMachineConfig]
    intercept_: Learned[float]
    coefficients_: Learned[FloatArray]
    factors_: Learned[FloatArray]
    l2_factors_: Learned[float]
    objective_: Learned[tuple[float, ...]]
    converged_: Learned[bool]

    def fit(
        self,
        design: Design,
        target: FloatArray,
        *,
        groups: IntArray | None = None,
        rng: RngLike = None,
    ) -> Self:
        """Learn from ``design`` (n_rows, n_columns) and ``target`` (n_rows,).

        ``groups`` (n_rows,), when given, are held out whole while the penalty is chosen: give them
        to predict new tasks, leave them out to fill in cells of known ones.

        Raises
        ------
        DataError
            Non-finite numbers, no row, or another number of targets than rows.
        """
        rows = _checked_design(design)
        y = np.asarray(target, dtype=np.float64)
        if groups is not None and np.shape(groups) != y.shape:
            raise DataError(f"fm: groups of shape {np.shape(groups)} for {y.size} targets")
        if y.shape != (rows.shape[0],) or y.size == 0 or not np.isfinite(y).all():
            raise DataError(
                f"fm: target of shape {y.shape} for {rows.shape[0]} rows, or with a NaN or "
                "infinite entry; wanted one finite number per row, at least one row"
            )
        # One BLAS thread: the order of its sums is then the same on every machine size.
        generator = as_generator(rng)
        with threadpool_limits(limits=1, user_api="blas"):
            problem = Problem(rows, y, self.config.l2_linear)
            penalty = self._penalty(problem, groups, generator)
            self._accept(self._solve(problem, penalty, generator))
        return self

    def predict(self, design: Design) -> FloatArray:
        """Predicted target of each row, shape (n_rows,).

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another number of columns than in ``fit``, or non-finite numbers.
        """
        rows = self._known_columns(design)
        linear = self.intercept_ + rows @ self.coefficients_
        return np.asarray(linear + interaction_part(rows, self.factors_))

    def contributions(self, design: Design) -> HeadContributions:
        """Linear terms and half of every interaction a column is in, summed by card field.

        Column j of a row adds ``w_j x_j + ½ x_j <v_j, Σ_i v_i x_i − v_j x_j>``: an interaction is
        shared alike by its two columns, which is its Shapley value. The base is w₀.
        """
        rows = self._known_columns(design)
        factors = self.factors_[:, rows.indices]
        row_of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        sums = (rows @ self.factors_.T)[row_of].T
        beside = np.einsum("fe,fe->e", factors, sums - factors * rows.data)
        each = rows.data * (self.coefficients_[rows.indices] + 0.5 * beside)
        columns = sp.csr_array((each, rows.indices, rows.indptr), shape=rows.shape)
        return HeadContributions.of_columns(self.intercept_, columns, linear_fields(design))

    def _accept(self, solution: Solution) -> None:
        self.intercept_, self.coefficients_ = solution.intercept, solution.coefficients
        self.factors_, self.l2_factors_ = solution.factors, solution.penalty
        self.objective_, self.converged_ = solution.objective, solution.converged

    def _solve(self, problem: Problem, penalty: float, rng: np.random.Generator) -> Solution:
        return problem.solve(
            n_factors=self.config.n_factors,
            penalty=penalty,
            max_sweeps=self.config.max_sweeps,
            tolerance=self.config.tolerance,
            rng=rng,
        )

    def _penalty(
        self, problem: Problem, groups: IntArray | None, rng: np.random.Generator
    ) -> float:
        config = self.config
        if config.n_factors == 0:
            return 0.0
        if config.l2_factors is not None:
            return config.l2_factors
        margins = config.noise_margins
        noise = problem.noise_level(rng)
        margin = margins[min(1, len(margins) - 1)]
        if len(margins) > 1 and problem.rows.nnz <= config.max_validation_entries:
            margin = self._validated_margin(problem, noise, groups, rng)
        return margin * noise

    def _validated_margin(
        self, problem: Problem, noise: float, groups: IntArray | None, rng: np.random.Generator
    ) -> float:
        margins = self.config.noise_margins
        if groups is not None and np.unique(groups).size == 1:
            groups = None
        folds = _folds(problem.target.size, groups, self.config.n_folds, rng)
        if folds is None:
            return margins[0]
        parts = [
            Problem(
                problem.rows[folds != fold], problem.target[folds != fold], self.config.l2_linear
            )
            for fold in range(int(folds.max()) + 1)
        ]
        tried: list[FloatArray] = []
        for margin in margins:
            errors = np.empty(problem.target.size)
            for fold, part in enumerate(parts):
                test = folds == fold
                solution = self._solve(part, margin * noise, rng)
                predicted = _predict(problem.rows[test], solution)
                errors[test] = np.square(problem.target[test] - predicted)
            tried.append(errors)
            # Once more freedom does plain harm, still more will not help, and costs the most.
            if _excess(np.stack(tried), groups)[-1] > 0.0:
                break
        return margins[int(np.flatnonzero(_excess(np.stack(tried), groups) <= 0.0)[0])]

    def _known_columns(self, design: Design) -> sp.csr_array:
        self._require_fitted()
        rows = _checked_design(design)
        if rows.shape[1] != self.coefficients_.size:
            raise DataError(
                f"fm: a design of {rows.shape[1]} columns for a head fitted on "
                f"{self.coefficients_.size}; encode it with the encoder used in training"
            )
        return rows


def _predict(rows: sp.csr_array, solution: Solution) -> FloatArray:
    interactions = interaction_part(rows, solution.factors)
    return np.asarray(solution.intercept + rows @ solution.coefficients + interactions)


def _folds(
    n_rows: int, groups: IntArray | None, n_folds: int, rng: np.random.Generator
) -> IntArray | None:
    """Fold of each row, whole groups together; None when there is too little to hold out."""
    units = np.arange(n_rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(units.max()) + 1
    if n_units < (2 if groups is not None else 2 * n_folds):
        return None
    of_unit = rng.permutation(n_units) % min(n_folds, n_units)
    return np.asarray(of_unit[units], dtype=np.int64)


def _excess(errors: FloatArray, groups: IntArray | None) -> FloatArray:
    """Mean of each row of ``errors`` (n_margins, n_rows) over the least, less a standard error."""
    if groups is not None:
        # Rows of one task err together: a task is one observation of the error.
        units = np.unique(groups, return_inverse=True)[1]
        counts = np.bincount(units)
        errors = np.stack([np.bincount(units, row) / counts for row in errors])
    means = errors.mean(axis=1)
    excess = errors - errors[int(means.argmin())]
    standard_error = excess.std(axis=1, ddof=1) / math.sqrt(errors.shape[1])
    return np.asarray(excess.mean(axis=1) - standard_error)


def _checked_design(design: Design) -> sp.csr_array:
    rows = linear_form(design).astype(np.float64, copy=False)
    if rows.ndim != 2 or not np.isfinite(rows.data).all():
        raise DataError(
            f"fm: a design of shape {rows.shape}, or with a NaN or infinite entry; "
            "wanted finite rows × columns, unknown values encoded as columns of their own"
        )
    if not rows.has_canonical_format:
        # Summing repeated entries works in place, and the caller's matrix is not ours.
        rows = rows.copy()
        rows.sum_duplicates()
    return rows
