"""EMMS: regression of foundation-model embeddings of the labels, weighted on the simplex."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from recsys_ms.core.errors import ProbeSetError
from recsys_ms.core.types import FloatArray
from recsys_ms.scores.checks import Classes
from recsys_ms.scores.label_embeddings import LabelEmbedding
from recsys_ms.scores.statistics import ProbeStatistics, refuse_constant, statistics_of

_TOLERANCE: Final = 1e-10
_MAX_ITERATIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class EmmsFit:
    """A solution of EMMS.

    Attributes
    ----------
    weights : ndarray of shape (n_embeddings,)
        ``t``: how much each foundation model counts; they sum to 1.
    objective : float
        ``min_W ||X W - sum_k t_k Z_k||²``.
    n_iterations : int
        0 for the exact solution.
    """

    weights: FloatArray
    objective: float
    n_iterations: int = 0


def emms(features: ArrayLike | ProbeStatistics, embeddings: Sequence[LabelEmbedding]) -> float:
    """EMMS: minus the mean squared error of the weighted label embeddings, at the optimum.

    Meng et al. (2023), Eq. 4: ``min over W and t on the simplex of ||X W - sum_k t_k Z_k||²``, here
    solved exactly (see :func:`solve_emms`) and divided by the number of examples and the width of
    the embeddings.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features) or ProbeStatistics
        Model outputs on the probe set.
    embeddings : sequence of LabelEmbedding
        One a foundation model; narrower ones are padded with zeros, which changes no distance.

    Returns
    -------
    float
        In [-1/width, 0] for unit vectors; higher is better. Compare models on the same embeddings.

    Raises
    ------
    ProbeSetError
        Bad features or embeddings, or features that are the same for every example.
    """
    statistics = statistics_of(features)
    gram = residual_gram(statistics, embeddings)
    width = max(each.width for each in embeddings)
    return float(-solve_emms(gram).objective / (statistics.n_probe * width))


def residual_gram(statistics: ProbeStatistics, embeddings: Sequence[LabelEmbedding]) -> FloatArray:
    """``G_kl = <Z_k, (I - P_X) Z_l>``, all that the objective needs of features and labels.

    For a given ``t`` the best ``W`` fits ``Z = sum_k t_k Z_k`` by its projection ``P_X Z`` on the
    span of the features, so ``min_W ||X W - Z||² = ||(I - P_X) Z||² = sum_kl t_k t_l G_kl``, since
    ``I - P_X`` is symmetric and idempotent: ``W`` is gone, and a quadratic of as many variables as
    there are foundation models is left. With ``X = U S V'``, ``P_X = U U'``. Where all embeddings
    share their codes, ``Z_k = H E_k`` and ``G_kl = tr(E_k' H'(I - P_X)H E_l)`` with a matrix of
    distinct labels × distinct labels, for embeddings of any width.

    Parameters
    ----------
    statistics : ProbeStatistics
        The features.
    embeddings : sequence of LabelEmbedding
        The labels.

    Returns
    -------
    ndarray of shape (n_embeddings, n_embeddings)

    Raises
    ------
    ProbeSetError
        No embedding, or one of another length or without finite numbers; constant features.
    """
    refuse_constant(statistics)
    statistics.refuse_offset()
    if not embeddings:
        raise ProbeSetError("label_embeddings: got none, expected at least one foundation model")
    for each in embeddings:
        _check_size(each, statistics.n_probe)
    if statistics.n_features >= statistics.n_probe == statistics.rank:
        # Features that span all examples leave no residual but rounding.
        return np.zeros((len(embeddings), len(embeddings)))
    first = embeddings[0]
    if first.n_distinct < statistics.n_probe and all(
        each.codes is first.codes or np.array_equal(each.codes, first.codes) for each in embeddings
    ):
        return _of_shared_labels(statistics, embeddings)
    return _of_free_labels(statistics, embeddings)


def _of_shared_labels(
    statistics: ProbeStatistics, embeddings: Sequence[LabelEmbedding]
) -> FloatArray:
    # Vectors that no example has take no part.
    used, codes, counts = np.unique(embeddings[0].codes, return_inverse=True, return_counts=True)
    classes = Classes(codes=codes, counts=counts, names=tuple(used.tolist()))
    coordinates = statistics.span_coordinates(classes)
    inner = -(coordinates.T @ coordinates)
    inner[np.diag_indices(counts.size)] += counts
    present = [each.vectors[used].astype(np.float64) for each in embeddings]
    return _inner_products(present, [inner @ each for each in present])


def _of_free_labels(
    statistics: ProbeStatistics, embeddings: Sequence[LabelEmbedding]
) -> FloatArray:
    targets = _Targets(embeddings)
    coordinates = statistics.span_coordinates(targets)
    fitted = np.split(coordinates, targets.ends, axis=1)
    return targets.inner - _inner_products(fitted, fitted)


class _Targets:
    """``Z_1 … Z_K`` side by side, made block by block; sums their inner products meanwhile."""

    def __init__(self, embeddings: Sequence[LabelEmbedding]) -> None:
        self._embeddings = embeddings
        widths = [each.width for each in embeddings]
        self.shape = (embeddings[0].n_probe, sum(widths))
        self.ends = np.cumsum(widths)[:-1]
        self.inner: FloatArray = np.zeros((len(widths), len(widths)))

    def __getitem__(self, rows: slice) -> FloatArray:
        block = np.empty((len(range(*rows.indices(self.shape[0]))), self.shape[1]))
        parts = np.split(block, self.ends, axis=1)
        for part, each in zip(parts, self._embeddings, strict=True):
            part[:] = each.vectors[each.codes[rows]]
        self.inner += _inner_products(parts, parts)
        return block


def _inner_products(left: Sequence[FloatArray], right: Sequence[FloatArray]) -> FloatArray:
    """Inner products of matrices as vectors; of two widths, the narrower counts."""
    products = np.empty((len(left), len(right)))
    for row, one in enumerate(left):
        for column, other in enumerate(right):
            if column < row:
                products[row, column] = products[column, row]
                continue
            width = min(one.shape[1], other.shape[1])
            products[row, column] = np.einsum("ij,ij->", one[:, :width], other[:, :width])
    return products


def solve_emms(gram: FloatArray) -> EmmsFit:
    """Exact minimum of ``t' G t`` over the simplex.

    The quadratic is homogeneous, so for any ``m > 0`` the ``t >= 0`` that minimises
    ``t' G t + m (sum t - 1)²`` is a positive multiple of the minimiser on the simplex: at a
    multiple ``s`` of a point ``u`` of the simplex it is ``s² u'Gu + m (s - 1)²``, whose minimum
    over ``s``, ``m u'Gu / (m + u'Gu)``, grows with ``u'Gu``. That is one non-negative least squares
    problem.

    Parameters
    ----------
    gram : ndarray of shape (n_embeddings, n_embeddings)
        From :func:`residual_gram`; negative eigenvalues of rounding are taken for 0.
    """
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    scale = float(values.max())
    n_embeddings = gram.shape[0]
    if scale == 0.0:
        # Everything fits: any weights will do.
        return EmmsFit(np.full(n_embeddings, 1.0 / n_embeddings), 0.0)
    roots = np.sqrt(values / scale)[:, None] * vectors.T
    system = np.vstack([roots, np.ones(n_embeddings)])
    weights, _ = nnls(system, np.append(np.zeros(n_embeddings), 1.0))
    weights /= weights.sum()
    return EmmsFit(weights, max(float(weights @ gram @ weights), 0.0))


def alternate_emms(
    statistics: ProbeStatistics,
    embeddings: Sequence[LabelEmbedding],
    *,
    tolerance: float = _TOLERANCE,
    max_iterations: int = _MAX_ITERATIONS,
) -> EmmsFit:
    """The paper's alternating minimisation: best ``W`` for ``t``, then best ``t`` for ``W``.

    Meng et al. (2023), Algorithm 1, from equal weights, until the objective falls by less than
    ``tolerance`` of itself. It converges to what :func:`solve_emms` computes, for comparison.

    Parameters
    ----------
    statistics, embeddings
        As for :func:`residual_gram`.
    tolerance : float
        Least relative decrease of the objective.
    max_iterations : int
        Most iterations.
    """
    width = max(each.width for each in embeddings)
    for each in embeddings:
        _check_size(each, statistics.n_probe)
    targets = [_padded(each.vectors[each.codes].astype(np.float64), width) for each in embeddings]
    coordinates = [statistics.span_coordinates(target) for target in targets]
    inner = _inner_products(targets, targets)
    fitted_inner = _inner_products(coordinates, coordinates)
    weights = np.full(len(targets), 1.0 / len(targets))
    objective, n_iterations = np.inf, 0
    least = float(np.finfo(np.float64).eps * np.trace(inner))
    while n_iterations < max_iterations:
        n_iterations += 1
        # The prediction S = X W of the best W for Z = sum t_k Z_k is the projection of Z.
        linear = fitted_inner @ weights
        length = float(weights @ linear)
        before, objective = objective, float(weights @ (inner - fitted_inner) @ weights)
        if before - objective <= tolerance * max(objective, least):
            break
        # On the simplex ||S - sum t_k Z_k||² = ||sum t_k (S - Z_k)||², homogeneous in t.
        weights = solve_emms(inner - linear[:, None] - linear[None, :] + length).weights
    return EmmsFit(weights, max(objective, 0.0), n_iterations)


def _padded(targets: FloatArray, width: int) -> FloatArray:
    missing = width - targets.shape[1]
    return np.pad(targets, ((0, 0), (0, missing))) if missing else targets


def _check_size(embedding: LabelEmbedding, n_probe: int) -> None:
    if embedding.n_probe != n_probe:
        raise ProbeSetError(
            f"label_embeddings: {embedding.name!r} is of {embedding.n_probe} examples, expected "
            f"one of {n_probe}"
        )
