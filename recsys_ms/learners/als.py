"""Confidence-weighted alternating least squares through ``implicit``.

Hu, Koren & Volinsky (2008), Eq. 3: minimises ``Σ_tm c_tm (p_tm − x_t·y_m)² + λ(Σ‖x_t‖² + Σ‖y_m‖²)``
over *all* pairs. A pair with a run has a preference p of 0 or 1 and its own confidence c; a pair
without one enters with p = 0 and c = 1, a weak vote against models without runs. That is the
difference from :mod:`recsys_ms.learners.nmf`, where a missing pair says nothing.

``implicit`` is users × items, which is tasks × models here.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recsys_ms.core.configured import check_range
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.rng import seed_from
from recsys_ms.core.types import FloatArray, IntArray, RngLike
from recsys_ms.learners.factors import Factors, check_interactions


@dataclass(frozen=True, slots=True, kw_only=True)
class ALSConfig:
    """Settings of :func:`fit_als`.

    Attributes
    ----------
    n_factors : int
        Length of a factor row.
    regularization : float
        λ, above 0: it keeps every row's system solvable.
    n_sweeps : int
        Passes over both sides.
    n_threads : int
        Threads of the solver, at least 1. The numbers are the same for every choice.
    """

    n_factors: int = 8
    regularization: float = 1.0
    n_sweeps: int = 15
    n_threads: int = 1

    def __post_init__(self) -> None:
        check_range(self, "n_factors", "n_sweeps", "n_threads", least=1)
        check_range(self, "regularization", above=0)


def preference_and_confidence(
    scores: FloatArray, *, slope: float = 4.0
) -> tuple[FloatArray, FloatArray]:
    """Preference and confidence of standardised outcomes (n_interactions,), for :func:`fit_als`.

    Hu et al. take a preference of 1 for what was consumed. A fine-tuning log is dense, and its bad
    results tell as much as its good ones, so the preference is 1 where the outcome is above the
    task's average (0) and 0 elsewhere; the confidence ``1 + slope·|score|`` (their ``1 + α r``)
    grows with the distance from it. A negative ``slope`` raises a ``UsageError``.
    """
    if not (math.isfinite(slope) and slope >= 0.0):
        raise UsageError(f"slope is {slope}, expected a finite number of at least 0")
    return (scores > 0.0).astype(np.float64), 1.0 + slope * np.abs(scores)


def fit_als(
    task_index: IntArray,
    model_index: IntArray,
    preference: FloatArray,
    confidence: FloatArray,
    *,
    n_tasks: int,
    n_models: int,
    config: ALSConfig | None = None,
    rng: RngLike = None,
) -> Factors:
    """Factorise preferences under their confidences.

    Parameters
    ----------
    task_index, model_index : ndarray of shape (n_interactions,)
        Row and column of each interaction; a pair may occur once.
    preference : ndarray of shape (n_interactions,)
        1 (the model suited the task) or 0 (it did not).
    confidence : ndarray of shape (n_interactions,)
        Weight of the preference, above 0; 1 is what a pair without a run weighs. ``implicit`` keeps
        it in single precision.
    n_tasks, n_models : int
        Size of the matrix.
    config : ALSConfig, optional
        Settings.
    rng : int, Generator or None
        Source of the start.

    Raises
    ------
    DataError
        A preference other than 0 and 1, a confidence that is not positive and finite, an index
        outside the matrix, a pair given twice, unequal lengths, or no interaction at all.
    """
    settings = config or ALSConfig()
    columns = preference, confidence
    check_interactions(task_index, model_index, *columns, n_tasks=n_tasks, n_models=n_models)
    signed = _signed(preference, confidence)
    # implicit knows the older matrix class only, and 32-bit indices.
    matrix = sp.csr_matrix((signed, (task_index, model_index)), shape=(n_tasks, n_models))
    if matrix.nnz != signed.size:
        raise DataError(
            f"{signed.size - matrix.nnz} (task, model) pairs occur twice; "
            "reduce runs to one outcome a pair first, as Interactions.from_runs does"
        )
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # The limit is what implicit's own warning asks for; it also keeps the summation order of the
    # Gram matrices, and with it the result, the same on every machine size.
    with threadpool_limits(limits=1, user_api="blas"):
        learner = AlternatingLeastSquares(
            factors=settings.n_factors,
            regularization=settings.regularization,
            alpha=1.0,
            dtype=np.float64,
            use_native=True,
            # The exact solver: a folded-in row then equals the fitted one at convergence.
            use_cg=False,
            iterations=settings.n_sweeps,
            num_threads=settings.n_threads,
            random_state=seed_from(np.random.default_rng(rng)),
        )
        learner.fit(matrix, show_progress=False)
    return Factors(
        task_factors=np.asarray(learner.user_factors, dtype=np.float64),
        model_factors=np.asarray(learner.item_factors, dtype=np.float64),
    )


def fold_in_als(
    other_factors: FloatArray,
    other_index: IntArray,
    preference: FloatArray,
    confidence: FloatArray,
    *,
    regularization: float,
) -> FloatArray:
    """Factors of one new row, the other side held fixed (Hu et al. 2008, Eq. 4).

    ``x = (YᵀY + Yᵀ(C − I)Y + λI)⁻¹ YᵀCp``, with the sums over C − I and Cp running over the
    observed entries only.

    Parameters
    ----------
    other_factors : ndarray of shape (n_others, n_factors)
        Model factors when a task is folded in, task factors when a model is.
    other_index : ndarray of shape (n_observed,)
        Rows of ``other_factors`` that were observed; without any, the factors are 0.
    preference, confidence, regularization
        As in :func:`fit_als`, errors too.
    """
    if not (math.isfinite(regularization) and regularization > 0.0):
        raise UsageError(f"regularization is {regularization}, expected a finite number above 0")
    if not other_index.shape == preference.shape == confidence.shape:
        raise DataError(
            f"{other_index.shape} indices, {preference.shape} preferences and {confidence.shape} "
            "confidences, expected vectors of one length"
        )
    n_others, n_factors = other_factors.shape
    if other_index.size and (other_index.min() < 0 or other_index.max() >= n_others):
        raise DataError(f"indices go beyond [0, {n_others}), the rows of other_factors")
    _signed(preference, confidence)
    from threadpoolctl import threadpool_limits

    observed = other_factors[other_index]
    with threadpool_limits(limits=1, user_api="blas"):
        system = other_factors.T @ other_factors + regularization * np.eye(n_factors)
        system += observed.T @ ((confidence - 1.0)[:, None] * observed)
        solution = np.linalg.solve(system, observed.T @ (confidence * preference))
    return np.asarray(solution, dtype=np.float64)


def _signed(preference: FloatArray, confidence: FloatArray) -> FloatArray:
    # implicit reads a negative entry as a preference of 0 with this confidence.
    if not np.isin(preference, (0.0, 1.0)).all():
        raise DataError(
            "a preference is neither 0 nor 1; preference_and_confidence() computes valid ones"
        )
    if not (np.isfinite(confidence) & (confidence > 0.0)).all():
        raise DataError("a confidence is not a finite number above 0; leave that interaction out")
    return np.where(preference > 0.0, confidence, -confidence)
