"""A Bayesian factor model of a sparse table: what rows share with columns, and how sure that is.

Probabilistic principal components with missing values and a level a row (Tipping & Bishop 1999;
Ilin & Raiko 2010), fitted by variational Bayes. A factor whose evidence does not pay for its
parameters is switched off by its own variance (automatic relevance determination, Bishop 1999), so
that a history too small for factors gets none.

    x_tm = a_m + b_t + w_m · u_t + e_tm
    a_m ~ N(0, v_0)   w_mj ~ N(0, v_j)   b_t ~ N(0, v_b)   u_t ~ N(0, I)   e_tm ~ N(0, psi_m)

Tasks t are the rows, models m the columns. All variances are estimated.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp

from recsys_ms.core.configured import check_range
from recsys_ms.core.types import FloatArray, IntArray

_TINY: Final = 1e-9
#: Smallest noise of a column: normal scores of two copies of one model still differ by rounding.
_MIN_NOISE: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorModelConfig:
    """How to fit.

    Attributes
    ----------
    n_factors : int
        At most; those without evidence are switched off. Five and eight do equally well on 18
        public histories, two worse (docs/explanation/ranker.md, *Measured*).
    noise_tasks : float
        The noise of a model is drawn to that of all models as if so many more tasks had it.
    tolerance : float
        Stop once no fitted value moves by more (root mean square).
    max_rounds : int
        Stop at the latest.
    """

    n_factors: int = 5
    noise_tasks: float = 8.0
    tolerance: float = 2e-3
    max_rounds: int = 40

    def __post_init__(self) -> None:
        check_range(self, "n_factors", least=0)
        check_range(self, "noise_tasks", "tolerance", above=0)
        check_range(self, "max_rounds", least=1)


@dataclass(frozen=True, slots=True, eq=False)
class FactorModel:
    """Posterior means of a fitted model; factors are uncorrelated and of variance 1 over tasks.

    Attributes
    ----------
    level : ndarray of shape (n_models,)
        ``a``: what a model is worth anywhere.
    loadings : ndarray of shape (n_models, n_factors)
        ``w``, the factor that explains most first.
    noise : ndarray of shape (n_models,)
        Variance of an outcome of the model on a new task that the factors leave open: ``psi`` and
        what is not known of ``a`` and ``w``.
    factors : ndarray of shape (n_tasks, n_factors)
        ``u``, mean 0.
    factor_variance : ndarray of shape (n_tasks,)
        Mean posterior variance of a task's factors.
    level_variance : float
        ``v_b``: how the level of a task varies.
    n_rounds : int
    """

    level: FloatArray
    loadings: FloatArray
    noise: FloatArray
    factors: FloatArray
    factor_variance: FloatArray
    level_variance: float
    n_rounds: int


def fit_factor_model(
    task_index: IntArray,
    model_index: IntArray,
    value: FloatArray,
    *,
    n_tasks: int,
    n_models: int,
    config: FactorModelConfig | None = None,
) -> FactorModel:
    """Fit by coordinate ascent on the evidence bound.

    Parameters
    ----------
    task_index, model_index : ndarray of shape (n_values,)
        Row and column of each value; no pair twice.
    value : ndarray of shape (n_values,)
    n_tasks, n_models : int
    config : FactorModelConfig, optional
    """
    chosen = config or FactorModelConfig()
    table = sp.csr_array((value, (task_index, model_index)), shape=(n_tasks, n_models))
    n_factors = max(min(chosen.n_factors, n_tasks - 1, n_models - 1), 0)
    state = _State(table, n_factors, chosen.noise_tasks)
    before = state.fitted()
    rounds = 0
    for rounds in range(1, chosen.max_rounds + 1):  # noqa: B007
        state.update_tasks()
        state.update_models()
        after = state.fitted()
        moved = float(np.sqrt(np.mean((after - before) ** 2)))
        state.update_noise(after)
        before = after
        if moved < chosen.tolerance:
            break
    return state.result(rounds)


class _State:
    """Means and covariances of the blocks ``(b_t, u_t)`` and ``(a_m, w_m)``."""

    moments: FloatArray
    task_cov: FloatArray

    def __init__(self, table: sp.csr_array, n_factors: int, noise_tasks: float) -> None:
        self.table = table
        self.ones = table.copy()
        self.ones.data = np.ones_like(table.data)
        self.columns = self.ones.T.tocsr()
        self.values_by_model = table.T.tocsr()
        self.task = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
        self.model = table.indices
        self.n_of_model = np.bincount(self.model, minlength=table.shape[1])
        self.noise_tasks = noise_tasks
        self.size = n_factors + 1
        self.upper = np.triu_indices(self.size)
        self.pairs = np.zeros((self.size, self.size), dtype=np.int64)
        self.pairs[self.upper] = np.arange(self.upper[0].size)
        self.pairs = np.maximum(self.pairs, self.pairs.T)
        # From the mean of each model, and the leading singular vectors of what it leaves.
        n_tasks, n_models = table.shape
        eye = np.eye(self.size)
        level = np.asarray(table.sum(axis=0)).ravel() / (self.n_of_model + 0.5)
        rest = table.copy()
        rest.data = table.data - level[self.model]
        factors, loadings = _leading(rest, n_factors)
        self.noise: FloatArray = np.full(n_models, 0.5)
        self.theta: FloatArray = np.column_stack([level, loadings])
        self.theta_cov: FloatArray = np.tile(eye * 0.05, (n_models, 1, 1))
        self.eta: FloatArray = np.column_stack([np.zeros(n_tasks), factors])
        self.eta_cov: FloatArray = np.tile(eye * 0.1, (n_tasks, 1, 1))
        self.theta_prior: FloatArray = np.concatenate([[1.0], np.full(n_factors, 0.3)])
        self.level_variance = 0.05

    def update_tasks(self) -> None:
        """Posterior of ``(b_t, u_t)``; both are then centred, which moves their mean into ``a``."""
        design, second = _design(self.theta, self.theta_cov)
        weight = self.ones.copy()
        weight.data = 1.0 / self.noise[self.model]
        precision = self._full(weight @ second[:, *self.upper])
        prior = np.concatenate([[1.0 / max(self.level_variance, _TINY)], np.ones(self.size - 1)])
        precision += np.diag(prior)
        crossed = self.theta_cov[:, 0, :].copy()
        crossed[:, 0] = 0.0
        weighted = weight.copy()
        weighted.data = weight.data * self.table.data
        right = weighted @ design - weight @ (self.theta[:, :1] * design + crossed)
        self.eta_cov = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        self.eta = np.einsum("tij,tj->ti", self.eta_cov, right)
        self.level_variance = float(np.mean(self.eta[:, 0] ** 2 + self.eta_cov[:, 0, 0]))
        mean = self.eta.mean(axis=0)
        self.eta -= mean
        self.theta[:, 0] += mean[0] + self.theta[:, 1:] @ mean[1:]

    def update_models(self) -> None:
        """Posterior of ``(a_m, w_m)``, and the prior variances of both."""
        design, second = _design(self.eta, self.eta_cov)
        self.moments = self._full(self.columns @ second[:, *self.upper])
        self.task_cov = self._full(self.columns @ self.eta_cov[:, *self.upper])
        precision = self.moments / self.noise[:, None, None]
        precision += np.diag(1.0 / np.maximum(self.theta_prior, _TINY))
        crossed = self.eta_cov[:, 0, :].copy()
        crossed[:, 0] = 0.0
        right = self.values_by_model @ design - self.columns @ (self.eta[:, :1] * design + crossed)
        self.theta_cov = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        self.theta = np.einsum("mij,mj->mi", self.theta_cov, right / self.noise[:, None])
        self.theta_prior = np.mean(
            self.theta**2 + np.diagonal(self.theta_cov, axis1=1, axis2=2), axis=0
        )

    def fitted(self) -> FloatArray:
        """``a_m + b_t + w_m · u_t`` of every value."""
        found: FloatArray = self.theta[self.model, 0] + self.eta[self.task, 0]
        for j in range(1, self.size):
            found += self.theta[self.model, j] * self.eta[self.task, j]
        return found

    def update_noise(self, fitted: FloatArray) -> None:
        """Expected squared error of each model, drawn to that of all."""
        error = np.bincount(
            self.model, weights=(self.table.data - fitted) ** 2, minlength=self.theta.shape[0]
        )
        one = self.theta.copy()
        one[:, 0] = 1.0
        error += np.einsum("mij,mij->m", self.moments, self.theta_cov)
        error += np.einsum("mi,mij,mj->m", one, self.task_cov, one)
        common = float(error.sum()) / max(self.table.nnz, 1)
        drawn = (self.noise_tasks * common + error) / (self.noise_tasks + self.n_of_model)
        self.noise = np.maximum(drawn, _MIN_NOISE)

    def result(self, n_rounds: int) -> FactorModel:
        """Rotate and scale to uncorrelated factors of variance 1, the heaviest first."""
        factors, loadings = self.eta[:, 1:], self.theta[:, 1:]
        cov = self.eta_cov[:, 1:, 1:]
        spread = factors.T @ factors / max(len(factors), 1) + cov.mean(axis=0)
        values, axes = np.linalg.eigh(spread)
        root = axes * np.sqrt(np.maximum(values, _TINY))
        _, _, turn = np.linalg.svd(loadings @ root, full_matrices=False)
        forward = root @ turn.T
        back = np.linalg.pinv(forward)
        loadings, factors = loadings @ forward, factors @ back.T
        sign = np.where(loadings.sum(axis=0) < 0, -1.0, 1.0)
        open_cov = np.einsum("ij,mjk,ki->m", forward.T, self.theta_cov[:, 1:, 1:], forward)
        own = np.einsum("ij,tjk,ik->t", back, cov, back) / max(self.size - 1, 1)
        return FactorModel(
            level=self.theta[:, 0].copy(),
            loadings=loadings * sign,
            noise=self.noise + self.theta_cov[:, 0, 0] + open_cov,
            factors=factors * sign,
            factor_variance=own,
            level_variance=self.level_variance,
            n_rounds=n_rounds,
        )

    def _full(self, packed: FloatArray) -> FloatArray:
        """Symmetric matrices of their upper triangles."""
        found: FloatArray = packed[:, self.pairs]
        return found


def _design(mean: FloatArray, cov: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``(1, factors)`` of each row and its expected outer product."""
    design = mean.copy()
    design[:, 0] = 1.0
    second = design[:, :, None] * design[:, None, :]
    second[:, 1:, 1:] += cov[:, 1:, 1:]
    return design, second


def _leading(table: sp.csr_array, n_factors: int) -> tuple[FloatArray, FloatArray]:
    """Factors of tasks (variance 1) and loadings of models from the leading singular vectors."""
    n_tasks, n_models = table.shape
    if n_factors == 0:
        return np.zeros((n_tasks, 0)), np.zeros((n_models, 0))
    if min(n_tasks, n_models) <= 400:
        left, size, right = np.linalg.svd(table.toarray(), full_matrices=False)
    else:
        from scipy.sparse.linalg import svds

        left, size, right = svds(table, k=n_factors, v0=np.ones(min(table.shape)))
        order = np.argsort(-size)
        left, size, right = left[:, order], size[order], right[order]
    unit = np.sqrt(n_tasks)
    return left[:, :n_factors] * unit, right[:n_factors].T * size[:n_factors] / unit
