"""PARC: whether examples with similar features have similar labels."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, get_blas_funcs
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from scipy.spatial.distance import cdist

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.core.types import FloatArray
from recsys_ms.scores import checks
from recsys_ms.scores.checks import Classes, Features, LabelKind
from recsys_ms.scores.parc_ranks import rank_and_swap, rank_sum_and_ties, sort_keys

#: Distances of a slice of examples to all from the first of them on.
_Distances: TypeAlias = Callable[[slice], FloatArray]

#: Examples whose pairs are compared at a time.
_BLOCK: Final = 256
#: Examples or features that are multiplied at a time.
_GRAM_BLOCK: Final = 1024
#: The largest for which n² stays below 2³¹: ranks are halves of 64-bit integers.
_MAX_PROBE: Final = 46_340
#: Gram matrices above this size are cheaper to iterate on than to decompose.
_LANCZOS_SIZE: Final = 600
#: Share of the largest variance, in units of rounding, below which a component is dropped.
_NEGLIGIBLE: Final = 64
#: Share of the variance of one component above which float32 loses the digits of the others.
_DOMINANT: Final = 0.9
#: Added to distances before they are rounded to float32, which makes ties of those that differ by
#: less than a 10⁷th of it: by rounding in float64, or in a float32 decomposition.
_SHIFT_FLOAT64: Final = 2.0**-10
_SHIFT_FLOAT32: Final = 4.0


def parc(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    n_components: int | None = 32,
    kind: LabelKind | None = None,
) -> float:
    """PARC: rank correlation of feature distances and label distances over pairs of examples.

    Implements Bolya, Mittapalli and Hoffman (2021), "Scalable Diverse Model Selection for
    Accessible Transfer Learning": Spearman's correlation over the pairs i < j of
    ``1 - Pearson(features_i, features_j)`` with ``1 - Pearson(labels_i, labels_j)``. What the
    paper adds for a model's depth needs the scores of all models: :func:`add_depth`.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features)
        At least 3 examples.
    labels : array-like of shape (n_probe,) or (n_probe, n_targets)
        Classes, which stand for one-hot rows; label sets, as rows of zeros and ones; or targets.
    n_components : int or None
        Principal components the features are reduced to, f in the paper: no more than there are
        examples or features. None: the features as they are. Pearson's correlation over components
        depends on their signs: the example furthest out is on the positive side.
    kind : {"classes", "multilabel", "regression"}, optional
        Kind of the labels. Default: classes where an example has one label, label sets where it
        has a row. For a regression, which the paper leaves open, the label distance is Euclidean
        between targets in units of their standard deviations: of one target, the absolute
        difference.

    Returns
    -------
    float
        Correlation, in [-1, 1]; higher means easier transfer. (The published code multiplies by
        100, and divides each component by its standard deviation first, which the definition does
        not.) Distances that are equal up to rounding are ties. A row without variance, with which
        no correlation is defined, is at distance 1 from every other.

    Raises
    ------
    ProbeSetError
        Features or labels that cannot be read or do not fit together, fewer than 3 or more than
        46,340 examples, or an undefined correlation, where all pairs are at the same distance:
        the same features everywhere, less than two components, a class for each example.
    UsageError
        Another ``n_components`` or ``kind``.

    Notes
    -----
    Components are computed in float32, unless one of them has most of the variance: the order of
    few pairs depends on it. Memory is 8 bytes for each of ``n_probe²/2`` pairs.
    """
    if n_components is not None and n_components < 1:
        raise UsageError(f"n_components: got {n_components}, expected at least 1, or None for all")
    if kind is not None and kind not in get_args(LabelKind):
        raise UsageError(f"kind: got {kind!r}, expected one of {', '.join(get_args(LabelKind))}")
    matrix = checks.check_features(features, min_rows=3)
    n_probe = matrix.shape[0]
    if n_probe > _MAX_PROBE:
        raise ProbeSetError(f"features: got {n_probe} examples; take a sample of {_MAX_PROBE}")
    if kind is None:
        kind = "classes" if np.ndim(labels) == 1 else "multilabel"
    if kind == "classes":
        classes = checks.check_classes(labels, n_probe)
        return _correlation_with_classes(*_directions(matrix, n_components), classes)
    label_distances = _label_distances(labels, n_probe, kind)
    return _correlation(*_directions(matrix, n_components), label_distances, n_probe)


def add_depth(scores: ArrayLike, depths: ArrayLike) -> FloatArray:
    """Scores of the models of one task, plus a term for their depth.

    Deeper models gain more by fine-tuning than their features show. Bolya et al. (2021) add to the
    score of model s, of any kind, its number of layers::

        (score_s - mean(scores)) / std(scores) + depth_s / max(depths)

    The paper takes these over all transfers of its benchmark, where ``max(depths)`` is 50. Here
    they are of the models given, so that a task can be ranked without others; the deviation is
    that of a sample (n - 1), as in the published code.

    Parameters
    ----------
    scores : array-like of shape (n_models,)
        Higher is better. NaN where a model has no score: it stays NaN and counts for nothing.
    depths : array-like of shape (n_models,)
        Number of layers of each model.

    Returns
    -------
    ndarray of shape (n_models,)
        Standard deviations; higher is better. Where scores do not differ, depth alone decides.

    Raises
    ------
    UsageError
        Not one depth above 0 for each score, or an infinite score.
    """
    given, layers = np.asarray(scores, dtype=np.float64), np.asarray(depths, dtype=np.float64)
    if given.ndim != 1 or given.shape != layers.shape:
        raise UsageError(f"depths: got shape {layers.shape}, expected one for each of the scores")
    if not (np.isfinite(layers) & (layers > 0)).all() or np.isinf(given).any():
        raise UsageError("depths: expected finite scores (or NaN), and depths above 0")
    known = given[~np.isnan(given)]
    if known.size:
        spread = known.std(ddof=1) if np.ptp(known) > 0 else 1.0
        given = (given - known.mean()) / spread
    return np.asarray(given + layers / layers.max(initial=0.0))


def _directions(matrix: Features, n_components: int | None) -> tuple[FloatArray, float]:
    """Rows whose products are Pearson correlations, and how coarse ties of them are."""
    if n_components is None:
        return _unit_rows(matrix), _SHIFT_FLOAT64
    components, top_share = _principal_components(matrix, n_components, np.float32)
    shift = _SHIFT_FLOAT32
    if top_share > _DOMINANT:
        components, _ = _principal_components(matrix, n_components, np.float64)
        shift = _SHIFT_FLOAT64
    # An example at the mean has nothing but rounding errors.
    rounding = _NEGLIGIBLE * float(np.finfo(components.dtype).eps * np.abs(components).max())
    return _unit_rows(components, rounding), shift


def _unit_rows(matrix: Any, rounding: float = 0.0) -> FloatArray:
    """Rows less their mean, divided by their length; zeros where a row has no variance."""
    rows: FloatArray = matrix.astype(np.float64)
    constant = (matrix == matrix[:, :1]).all(axis=1)
    largest = np.abs(rows).max(axis=1)
    rows /= np.where(largest > 0, largest, 1.0)[:, None]
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    constant |= length * largest <= rounding
    rows /= np.where(constant, np.inf, length)[:, None]
    return rows


def _principal_components(matrix: Features, n_components: int, dtype: Any) -> tuple[Any, float]:
    """Coordinates on the leading components, and the share of variance of the first."""
    with np.errstate(over="ignore"):
        mean = matrix.mean(axis=0, dtype=np.float64).astype(np.result_type(matrix.dtype, dtype))
        # Squares then stay in range for features of any unit.
        scale = np.ptp(matrix, axis=0).max()
    if scale == 0:
        raise _undefined("features")
    if not (np.isfinite(scale) and np.isfinite(mean).all()):
        raise ProbeSetError("features: their sums overflow; divide them by a constant")

    # The mean of large values is off by their rounding; what it is off by has a mean as well.
    parts = _blocks(matrix.shape[0], _GRAM_BLOCK)
    sums = sum((matrix[part] - mean).sum(axis=0, dtype=np.float64) for part in parts)
    left = (sums / matrix.shape[0]).astype(mean.dtype)

    def centred(rows: slice, columns: slice) -> Any:
        block = np.subtract(matrix[rows, columns], mean[columns], order="C")
        block -= left[columns]
        block /= scale
        return block.astype(dtype, copy=False)

    gram = _gram(matrix.shape, centred)
    values, vectors = _leading(gram, min(n_components, gram.shape[0]))
    kept = values > _NEGLIGIBLE * np.finfo(dtype).eps * values.max()
    if matrix.shape[0] < matrix.shape[1]:
        # Not the vectors times a number: examples that are equal have equal rows in the product.
        (symm,) = get_blas_funcs(("symm",), (gram,))
        scores = symm(1.0, gram, vectors, lower=1) / np.sqrt(np.where(kept, values, 1.0))
    else:
        blocks = _blocks(matrix.shape[0], _GRAM_BLOCK)
        scores = np.concatenate([_products(centred(b, slice(None)), vectors.T) for b in blocks])
    furthest = np.take_along_axis(scores, np.abs(scores).argmax(axis=0)[None, :], axis=0)
    components = np.where(kept, scores * np.sign(furthest), dtype(0))
    return components, float(values.max() / values.sum())


def _gram(shape: tuple[int, int], centred: Callable[[slice, slice], Any]) -> Any:
    """Lower half of the Gram matrix of the examples or of the features, the fewer of the two."""
    is_wide = shape[0] < shape[1]
    # SciPy's BLAS, here and below, since its eigensolvers use it: threads of NumPy's, which spin
    # on after a product, would take the processors from them.
    gram: Any = None
    for part in _blocks(max(shape), _GRAM_BLOCK):
        block = centred(slice(None), part) if is_wide else centred(part, slice(None))
        (syrk,) = get_blas_funcs(("syrk",), (block,))
        sums = {} if gram is None else {"beta": 1.0, "c": gram, "overwrite_c": 1}
        gram = syrk(1.0, block.T, trans=is_wide, lower=1, **sums)
    return gram


def _leading(gram: Any, n_components: int) -> Any:
    """Largest eigenvalues of a matrix given by its lower half, and their vectors."""
    size = gram.shape[0]
    if size > _LANCZOS_SIZE and 8 * n_components < size:
        (symv,) = get_blas_funcs(("symv",), (gram,))
        operator = LinearOperator(
            gram.shape, matvec=lambda vector: symv(1.0, gram, vector, lower=1), dtype=gram.dtype
        )
        start = np.random.default_rng(0).standard_normal(size).astype(gram.dtype)
        # Many equal eigenvalues may keep the iterations from converging.
        with suppress(ArpackError):
            return eigsh(operator, k=n_components, v0=start)
    wanted = (size - n_components, size - 1)
    return eigh(gram, lower=True, subset_by_index=wanted, check_finite=False)


def _blocks(size: int, block: int) -> list[slice]:
    return [slice(at, min(at + block, size)) for at in range(0, size, block)]


def _products(left: Any, right: Any) -> Any:
    """``left @ right.T`` of matrices in C order."""
    (gemm,) = get_blas_funcs(("gemm",), (left, right))
    return gemm(1.0, right.T, left.T, trans_a=1).T


def _pearson_distances(unit: FloatArray) -> _Distances:
    return lambda part: 1.0 - _products(unit[part], unit[part.start :])


def _label_distances(labels: ArrayLike, n_probe: int, kind: LabelKind) -> _Distances:
    targets = checks.check_targets(labels, n_probe)
    if kind == "multilabel":
        if not np.isin(targets, (0.0, 1.0)).all():
            raise ProbeSetError("labels: got no zeros and ones; for numbers pass kind='regression'")
        return _pearson_distances(_unit_rows(targets))
    points = targets[:, np.ptp(targets, axis=0) > 0]
    points = points / np.abs(points).max(axis=0)
    points /= points.std(axis=0)
    return lambda part: cdist(points[part], points[part.start :])


def _bits(distances: FloatArray, shift: float) -> NDArray[np.uint32]:
    """Distances as integers below 2³¹, in the same order: bits of floats above 0 are."""
    return (distances + shift).astype(np.float32).view(np.uint32)


def _of_pairs(rows: Callable[[slice], Any], n_probe: int, dtype: Any) -> Any:
    """Entries right of the diagonal, each pair once, of a matrix that is made block by block."""
    entries = np.empty(n_probe * (n_probe - 1) // 2, dtype=dtype)
    at = 0
    for part in _blocks(n_probe, _BLOCK):
        block = rows(part)
        pairs = block[np.arange(block.shape[1]) > np.arange(block.shape[0])[:, None]]
        entries[at : at + pairs.size] = pairs
        at += pairs.size
    return entries


def _correlation_with_classes(unit: FloatArray, shift: float, classes: Classes) -> float:
    """Spearman's correlation, where label distances have two values only.

    With m of N pairs in one class, whose feature distances have ranks of sum R, and V the sum of
    squared deviations of all N ranks, it is ``(m(N + 1)/2 - R) sqrt(N / (m(N - m)V))``.
    """
    n_probe = classes.n_probe
    n_pairs = n_probe * (n_probe - 1) // 2
    n_same = int((classes.counts * (classes.counts - 1) // 2).sum())
    if n_same == 0:
        raise ProbeSetError(
            "labels: no two examples share a class; for numbers pass kind='regression'"
        )
    distances, codes = _pearson_distances(unit), classes.codes

    def bits(part: slice) -> Any:
        return _bits(distances(part), shift) << 1 | (codes[part, None] == codes[part.start :])

    keys = _of_pairs(bits, n_probe, np.uint32)
    ordered = np.empty_like(keys)
    sort_keys(keys, ordered)
    if ordered[0] >> 1 == ordered[-1] >> 1:
        raise _undefined("features")
    twice_rank_sum, ties = rank_sum_and_ties(ordered)
    excess = (n_same * (n_pairs + 1) - twice_rank_sum) / 2
    variation = (n_pairs**3 - n_pairs - ties) / 12
    correlation = excess * np.sqrt(n_pairs / variation / n_same / (n_pairs - n_same))
    return float(np.clip(correlation, -1.0, 1.0))


def _correlation(
    unit: FloatArray, shift: float, label_distances: _Distances, n_probe: int
) -> float:
    """Spearman's correlation of two distances, ties at the mean of their ranks.

    A key is one integer: the distance to sort by, and bits to carry along.
    """
    distances = _pearson_distances(unit)

    def bits(part: slice) -> Any:
        high = _bits(distances(part), shift).astype(np.int64) << 32
        return high | _bits(label_distances(part), _SHIFT_FLOAT64)

    keys = _of_pairs(bits, n_probe, np.int64)
    n_pairs = keys.size
    variation = 1.0
    # After both rounds the halves of a key are twice the ranks of its two distances.
    for name in ("features", "labels"):
        keys.sort()
        if keys[0] >> 32 == keys[-1] >> 32:
            raise _undefined(name)
        variation *= float(np.sqrt((n_pairs**3 - n_pairs - rank_and_swap(keys)) / 12))
    covariation = 0.0
    for start in range(0, n_pairs, 2**20):
        ranks = keys[start : start + 2**20]
        halves = ranks >> 32, ranks & 0xFFFFFFFF
        covariation += float(np.prod([half / 2 - (n_pairs + 1) / 2 for half in halves], 0).sum())
    return float(np.clip(covariation / variation, -1.0, 1.0))


def _undefined(name: str) -> ProbeSetError:
    return ProbeSetError(
        f"{name}: no two examples are closer than any others, so that there are no ranks to "
        "correlate; expected examples that differ, in more than one feature or component"
    )
