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

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import as_generator
from recsys_ms.core.types import FloatArray, IntArray, RngLike
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
        Passes over a row's factors while its interactions are at hand (Gillis & Glineur 2012).
    """

    n_factors: int = 8
    alpha_models: float = 0.1
    alpha_tasks: float = 0.1
    max_sweeps: int = 200
    tolerance: float = 1e-4
    n_inner: int = 4

    def __post_init__(self) -> None:
        for name in ("n_factors", "max_sweeps", "n_inner"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"NMFConfig: {name} is {getattr(self, name)}, wanted at least 1; "
                    "leave it out for the default"
                )
        for name in ("alpha_models", "alpha_tasks", "tolerance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise UsageError(
                    f"NMFConfig: {name} is {value}, wanted a finite number of at least 0; "
                    "leave it out for the default"
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NMFFactors:
    """A fitted factorisation.

    Attributes
    ----------
    task_factors : ndarray of shape (n_tasks, n_factors)
        T, non-negative; a row of zeros for a task without interactions.
    model_factors : ndarray of shape (n_models, n_factors)
        M, non-negative; a row of zeros for a model without interactions.
    objective : tuple of float
        The objective after each sweep, never rising.
    n_sweeps : int
        Sweeps carried out.
    converged : bool
        Whether the tolerance was met within ``max_sweeps``.
    """

    task_factors: FloatArray
    model_factors: FloatArray
    objective: tuple[float, ...]
    n_sweeps: int
    converged: bool

    def predict(self, task_index: IntArray, model_index: IntArray) -> FloatArray:
        """Predicted value of each (task, model) pair, in the unit of the values fitted."""
        pairs = self.task_factors[task_index] * self.model_factors[model_index]
        return np.asarray(pairs.sum(axis=1), dtype=np.float64)


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
    _check_triplets(task_index, model_index, values, n_rows=n_tasks, n_others=n_models)
    observed = np.asarray(values, dtype=np.float64)
    squared = _checked_weights(weights, observed.size)
    _check_values(observed)
    by_task = Side.sorted_by(task_index, model_index, observed, squared, n_tasks)
    by_model = Side.sorted_by(model_index, task_index, observed, squared, n_models)
    generator = as_generator(rng)
    # The mean product of two starting rows is the mean value: the first sweep needs no rescaling.
    start = math.sqrt(_sorted_mean(by_task) / settings.n_factors)
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
        n_sweeps=len(objective),
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
        raise UsageError(f"fold_in: alpha is {alpha}, wanted a finite number of at least 0")
    n_factors = factors.shape[1] if factors.ndim == 2 else -1
    centre = np.zeros(max(n_factors, 0)) if prior is None else np.asarray(prior, dtype=np.float64)
    if factors.shape != (values.size, n_factors) or centre.shape != (n_factors,):
        raise DataError(
            f"fold_in: factors of shape {factors.shape}, {values.size} values and a prior of shape "
            f"{centre.shape} do not fit; "
            "wanted (n_observed, n_factors), n_observed and (n_factors,)"
        )
    for name, array in (("factors", factors), ("values", values), ("prior", centre)):
        if not np.isfinite(array).all():
            raise DataError(f"fold_in: {name} has a NaN or infinite entry; leave that one out")
    root = np.sqrt(_checked_weights(weights, values.size))
    if values.size == 0:
        return np.maximum(centre, 0.0)
    system, target = factors * root[:, None], values * root
    if alpha > 0.0:
        system = np.vstack([system, math.sqrt(alpha) * np.eye(n_factors)])
        target = np.concatenate([target, math.sqrt(alpha) * centre])
    solution, _ = nnls(system, target, maxiter=100 * n_factors)
    return np.asarray(solution, dtype=np.float64)


def fold_in_rows(
    row_index: IntArray,
    other_index: IntArray,
    values: FloatArray,
    *,
    n_rows: int,
    other_factors: FloatArray,
    alpha: float,
    weights: FloatArray | None = None,
    prior: FloatArray | None = None,
) -> FloatArray:
    """Factors of new rows from their interactions, without a refit.

    New tasks: ``other_factors`` are the model factors and ``alpha`` is ``alpha_tasks``; new models
    the other way round. Each row is what :func:`fold_in` gives for it alone.

    Parameters
    ----------
    row_index : ndarray of shape (n_interactions,)
        Which new row a value belongs to, in [0, n_rows).
    other_index : ndarray of shape (n_interactions,)
        Row of ``other_factors``.
    values : ndarray of shape (n_interactions,)
        Observed values.
    n_rows : int
        Number of new rows.
    other_factors : ndarray of shape (n_others, n_factors)
        Factors of the other side, held fixed.
    alpha, weights, prior
        As in :func:`fold_in`.

    Returns
    -------
    ndarray of shape (n_rows, n_factors)
        Non-negative factors.
    """
    n_others, n_factors = other_factors.shape
    _check_triplets(row_index, other_index, values, n_rows=n_rows, n_others=n_others, empty=True)
    squared = _checked_weights(weights, values.size)
    order = np.lexsort((other_index, row_index))
    starts = np.searchsorted(row_index[order], np.arange(n_rows + 1))
    folded = np.empty((n_rows, n_factors))
    for row in range(n_rows):
        own = order[starts[row] : starts[row + 1]]
        folded[row] = fold_in(
            other_factors[other_index[own]], values[own], squared[own], alpha=alpha, prior=prior
        )
    return folded


def _sorted_mean(side: Side) -> float:
    total = float(side.weights.sum())
    return float((side.weights * side.values).sum()) / total if total > 0.0 else 0.0


def _check_triplets(
    row_index: IntArray,
    other_index: IntArray,
    values: FloatArray,
    *,
    n_rows: int,
    n_others: int,
    empty: bool = False,
) -> None:
    if not (row_index.shape == other_index.shape == values.shape and values.ndim == 1):
        raise DataError(
            f"the triplets have the shapes {row_index.shape}, {other_index.shape} and "
            f"{values.shape}; wanted three vectors of one length"
        )
    if values.size == 0:
        if empty:
            return
        raise DataError("no interaction to factorise; ingest finished runs first")
    for name, index, size in (("row", row_index, n_rows), ("column", other_index, n_others)):
        if index.min() < 0 or index.max() >= size:
            raise DataError(
                f"{name} indices span [{index.min()}, {index.max()}] in a matrix with {size} of "
                f"them; wanted [0, {size})"
            )


def _check_values(values: FloatArray) -> None:
    wrong = ~(np.isfinite(values) & (values >= 0.0))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"interaction {at} has the value {values[at]}; a non-negative factorisation takes "
            "finite values of at least 0: shift standardised outcomes by their minimum first"
        )


def _checked_weights(weights: FloatArray | None, n: int) -> FloatArray:
    if weights is None:
        return np.ones(n)
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (n,) or not np.isfinite(checked).all() or (checked < 0.0).any():
        raise DataError(
            f"weights of shape {checked.shape} for {n} values, or a negative or non-finite one "
            "among them; wanted one finite weight of at least 0 per value"
        )
    return checked
