"""Masked, weighted, regularised non-negative factorisation of tasks × models outcomes.

Minimises ``‖W∘(P − T Mᵀ)‖² + α_m‖M‖² + α_d‖T‖²`` over T, M ≥ 0, the transfer space of Fennec
(Bai et al. 2024), where only the observed entries enter: a pair without a run says nothing, whereas
``sklearn.decomposition.NMF`` would read it as an outcome of 0.

The learner is cyclic coordinate descent (HALS: Cichocki & Phan 2009; the mask as in Yu et al.
2012): every update is the exact minimiser of one entry given all others, so the objective never
rises. It runs on one thread, so the numbers depend on the seed alone.
"""

import math
from dataclasses import dataclass

import numpy as np

from recsys_ms.core.configured import check_range
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import FloatArray, IntArray, RngLike
from recsys_ms.learners.factors import Factors, check_interactions
from recsys_ms.learners.nmf_kernel import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class NMFConfig:
    """Settings of :func:`fit_nmf`.

    Attributes
    ----------
    n_factors : int
        Dimensions of the transfer space.
    alpha_models, alpha_tasks : float
        α_m and α_d, at least 0, on the scale of the squared values. They are not multiplied by the
        number of interactions, so a row with few of them is drawn to 0 more.
    max_sweeps : int
        Upper bound on passes over both sides.
    tolerance : float
        Stop when a sweep lowers the objective by less than this share of it.
    n_inner : int
        Passes over a row's factors each time its interactions are read (Gillis & Glineur 2012).
    """

    n_factors: int = 8
    alpha_models: float = 0.1
    alpha_tasks: float = 0.1
    max_sweeps: int = 200
    tolerance: float = 1e-4
    n_inner: int = 4

    def __post_init__(self) -> None:
        check_range(self, "n_factors", "max_sweeps", "n_inner", least=1)
        check_range(self, "alpha_models", "alpha_tasks", "tolerance", least=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NMFFactors(Factors):
    """Non-negative factors; rows of zeros for tasks and models without interactions.

    Attributes
    ----------
    task_factors : ndarray of shape (n_tasks, n_factors)
        T.
    model_factors : ndarray of shape (n_models, n_factors)
        M.
    objective : tuple of float
        The objective after each sweep, never rising.
    converged : bool
        Whether the tolerance was met within ``max_sweeps``.
    """

    objective: tuple[float, ...]
    converged: bool

    @property
    def n_sweeps(self) -> int:
        """Sweeps carried out."""
        return len(self.objective)


def fit_nmf(
    task_index: IntArray,
    model_index: IntArray,
    values: FloatArray,
    *,
    n_tasks: int,
    n_models: int,
    config: NMFConfig | None = None,
    weights: FloatArray | None = None,
    rng: RngLike = None,
) -> NMFFactors:
    """Factorise the observed values.

    Parameters
    ----------
    task_index, model_index : ndarray of shape (n_interactions,)
        Row and column of each observed value; their order does not matter.
    values : ndarray of shape (n_interactions,)
        Non-negative, higher is better; shift standardised outcomes above 0 first.
    n_tasks, n_models : int
        Size of the matrix, which may have rows and columns without any value.
    config : NMFConfig, optional
        Settings.
    weights : ndarray of shape (n_interactions,), optional
        The squares of W's entries, at least 0: how many equal values one stands for. Default 1.
    rng : int, Generator or None
        Source of the start.

    Raises
    ------
    DataError
        A negative or non-finite value or weight, an index outside the matrix, unequal lengths, or
        no interaction at all.
    """
    settings = config or NMFConfig()
    check_interactions(task_index, model_index, values, n_tasks=n_tasks, n_models=n_models)
    observed = np.asarray(values, dtype=np.float64)
    squared = _checked_weights(weights, observed.size)
    wrong = np.flatnonzero(~(np.isfinite(observed) & (observed >= 0.0)))
    if wrong.size:
        raise DataError(
            f"the value of interaction {wrong[0]} is {observed[wrong[0]]}, expected finite values "
            "of at least 0; shift standardised outcomes by their minimum first"
        )
    by_task = Side.sorted_by(task_index, model_index, observed, squared, n_tasks)
    by_model = Side.sorted_by(model_index, task_index, observed, squared, n_models)
    generator = np.random.default_rng(rng)
    # The mean product of two starting rows is the mean value: the first sweep needs no rescaling.
    total = float(by_task.weights.sum())
    mean = float((by_task.weights * by_task.values).sum()) / total if total > 0.0 else 0.0
    start = math.sqrt(mean / settings.n_factors)
    tasks = start * generator.uniform(0.5, 1.5, (n_tasks, settings.n_factors))
    models = start * generator.uniform(0.5, 1.5, (n_models, settings.n_factors))
    objective: list[float] = []
    converged = False
    while not converged and len(objective) < settings.max_sweeps:
        by_task.update(tasks, models, settings.alpha_tasks, settings.n_inner)
        loss = by_model.update(models, tasks, settings.alpha_models, settings.n_inner)
        penalty = settings.alpha_models * float(np.square(models).sum())
        penalty += settings.alpha_tasks * float(np.square(tasks).sum())
        objective.append(loss + penalty)
        if len(objective) > 1:
            decrease = objective[-2] - objective[-1]
            converged = decrease <= settings.tolerance * objective[-2]
    return NMFFactors(
        task_factors=tasks,
        model_factors=models,
        objective=tuple(objective),
        converged=converged,
    )


def fold_in(
    factors: FloatArray,
    values: FloatArray,
    weights: FloatArray | None = None,
    *,
    alpha: float,
    prior: FloatArray | None = None,
) -> FloatArray:
    """Factors of one new row from its observed values, the other side held fixed.

    The exact minimiser over x ≥ 0 of ``Σ w (v − f·x)² + alpha ‖x − prior‖²``, found by the
    active-set method of Lawson & Hanson (1974, ch. 23) on the system augmented by ``√alpha``.

    Parameters
    ----------
    factors : ndarray of shape (n_observed, n_factors)
        Factors of the other side: of the models a task was run with, or of a model's tasks.
    values : ndarray of shape (n_observed,)
        Observed values, on the scale of the fit. They may be negative here.
    weights : ndarray of shape (n_observed,), optional
        At least 0; default 1.
    alpha : float
        Strength of the prior, at least 0: it weighs as much as ``alpha`` values.
    prior : ndarray of shape (n_factors,), optional
        Where a row without values lies: 0, or the mean row of the same side (default 0).

    Returns
    -------
    ndarray of shape (n_factors,)
        Non-negative factors. Without values the prior itself, cut at 0.

    Raises
    ------
    DataError
        Shapes that do not fit together, or non-finite numbers.
    UsageError
        A negative ``alpha``.
    """
    from scipy.optimize import nnls

    if not (math.isfinite(alpha) and alpha >= 0.0):
        raise UsageError(f"fold_in: alpha is {alpha}, expected a finite number of at least 0")
    n_factors = factors.shape[1] if factors.ndim == 2 else -1
    centre = np.zeros(max(n_factors, 0)) if prior is None else np.asarray(prior, dtype=np.float64)
    if factors.shape != (values.size, n_factors) or centre.shape != (n_factors,):
        raise DataError(
            f"fold_in: factors of shape {factors.shape}, {values.size} values and a prior of shape "
            f"{centre.shape} do not fit; expected one row of factors a value, one prior a factor"
        )
    for name, array in (("factors", factors), ("values", values), ("prior", centre)):
        if not np.isfinite(array).all():
            raise DataError(f"fold_in: {name} has NaN or infinite entries; leave them out")
    root = np.sqrt(_checked_weights(weights, values.size))
    if values.size == 0:
        return np.maximum(centre, 0.0)
    system, target = factors * root[:, None], values * root
    if alpha > 0.0:
        system = np.vstack([system, math.sqrt(alpha) * np.eye(n_factors)])
        target = np.concatenate([target, math.sqrt(alpha) * centre])
    solution, _ = nnls(system, target, maxiter=100 * n_factors)
    return np.asarray(solution, dtype=np.float64)


def _checked_weights(weights: FloatArray | None, n: int) -> FloatArray:
    if weights is None:
        return np.ones(n)
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (n,) or not np.isfinite(checked).all() or (checked < 0.0).any():
        raise DataError(
            f"weights of shape {checked.shape} for {n} values, or negative or non-finite entries; "
            "expected one finite weight of at least 0 a value"
        )
    return checked
