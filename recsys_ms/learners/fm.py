"""Second-order factorization machine (Rendle 2010), learned by coordinate descent (Rendle 2011).

``ŷ(x) = w₀ + Σ_j w_j x_j + Σ_{i<j} <v_i, v_j> x_i x_j`` (Eq. 1), computed in one pass of
O(n_factors · nonzeros) by ``½ Σ_f [(Σ_j v_jf x_j)² − Σ_j v_jf² x_j²]`` (Eq. 5).

The linear part is solved exactly (a ridge regression on the residual of the interactions), each
``v_jf`` by its closed form given the rest, so the objective never rises and there is no learning
rate. How strongly the interactions are held back is measured on the data: see
:class:`FactorizationMachineConfig`.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from recsys_ms.core.configured import check_range
from recsys_ms.core.declared import Shape
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.learners.design import Design
from recsys_ms.learners.fm_solver import Problem, Solution, interaction_part
from recsys_ms.learners.head import Head
from recsys_ms.learners.head_contributions import HeadContributions


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
        check_range(self, "n_factors", "max_validation_entries", "tolerance", least=0)
        check_range(self, "max_sweeps", least=1)
        check_range(self, "n_folds", least=2)
        check_range(self, "l2_linear", above=0)
        if self.l2_factors is not None:
            check_range(self, "l2_factors", least=0)
        margins = self.noise_margins
        falling = all(a > b for a, b in itertools.pairwise(margins))
        if not margins or not falling or not all(0.0 < m < math.inf for m in margins):
            raise UsageError(
                f"FactorizationMachineConfig: noise_margins is {margins}, expected at least one "
                "number, all finite and above 0, each smaller than the one before"
            )


class FactorizationMachineHead(Head):
    """Factorization machine regressor of a standardised outcome.

    Columns should be of comparable size: one-hot columns as 0 and 1, dense ones standardised; NaN
    and infinite entries raise a ``DataError``. The ``groups`` given to ``fit`` are held out whole
    while the penalty is chosen: give them to predict new tasks, leave them out to fill in cells of
    known ones.

    Column j of a row contributes ``w_j x_j + ½ x_j <v_j, Σ_i v_i x_i − v_j x_j>``: an interaction
    is divided evenly between its two columns, which is its Shapley value. The base is w₀.

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
    coefficients_: Learned[Annotated[FloatArray, Shape("column")]]
    factors_: Learned[Annotated[FloatArray, Shape("factor", "column")]]
    l2_factors_: Learned[float]
    objective_: Learned[tuple[float, ...]]
    converged_: Learned[bool]

    def _fit(
        self, design: Design, target: FloatArray, groups: IntArray | None, rng: np.random.Generator
    ) -> None:
        rows = _finite_rows(design)
        # One BLAS thread: the order of its sums is then the same on every machine size.
        with threadpool_limits(limits=1, user_api="blas"):
            problem = Problem(rows, target, self.config.l2_linear)
            found = self._solve(problem, self._penalty(problem, groups, rng), rng)
        self.intercept_, self.coefficients_ = found.intercept, found.coefficients
        self.factors_, self.l2_factors_ = found.factors, found.penalty
        self.objective_, self.converged_ = found.objective, found.converged

    def _predict(self, design: Design) -> FloatArray:
        rows = _finite_rows(design)
        linear = self.intercept_ + rows @ self.coefficients_
        return np.asarray(linear + interaction_part(rows, self.factors_))

    def _contributions(self, design: Design) -> HeadContributions:
        rows = _finite_rows(design)
        factors = self.factors_[:, rows.indices]
        row_of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        sums = (rows @ self.factors_.T)[row_of].T
        beside = np.einsum("fe,fe->e", factors, sums - factors * rows.data)
        each = rows.data * (self.coefficients_[rows.indices] + 0.5 * beside)
        columns = sp.csr_array((each, rows.indices, rows.indptr), shape=rows.shape)
        return HeadContributions.of_columns(self.intercept_, columns, design.linear_fields)

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
                errors[test] = problem.target[test] - solution.predict(problem.rows[test])
            tried.append(np.square(errors))
            # Once more freedom does plain harm, still more will not help, and costs the most.
            if _excess(np.stack(tried), groups)[-1] > 0.0:
                break
        return margins[int(np.flatnonzero(_excess(np.stack(tried), groups) <= 0.0)[0])]


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


def _finite_rows(design: Design) -> sp.csr_array:
    rows = design.linear().astype(np.float64, copy=False)
    if not np.isfinite(rows.data).all():
        raise DataError(
            f"FactorizationMachineHead: the design of shape {rows.shape} has NaN or infinite "
            "entries; encode unknown values as columns of their own"
        )
    if not rows.has_canonical_format:
        # Summing repeated entries works in place, and the caller's matrix is not ours.
        rows = rows.copy()
        rows.sum_duplicates()
    return rows
