"""Accuracy of nearest neighbours on a probe set, each example left out in turn."""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.scores.checks import Features, check_classes, check_features
from recsys_ms.scores.statistics import same_everywhere

Metric: TypeAlias = Literal["cosine", "euclidean"]

#: Rows, and numbers to subtract from their products.
_Tile: TypeAlias = tuple[FloatArray, FloatArray]
_Load: TypeAlias = Callable[[IntArray], _Tile]

#: Examples of a tile: at 4,096 features two tiles in float64 are 64 MiB.
_TILE_ROWS: Final = 1024
#: Similarities are rounded to multiples of 2⁻³⁶, so that rounding errors do not break ties.
_GRID_BITS: Final = 36
#: Bits of 64 for an example's place; the others hold similarities in [-4, 1].
_PLACE_BITS: Final = 24
_LAST_PLACE: Final = (1 << _PLACE_BITS) - 1
#: Mean cosine distance with few steps of the grid in it.
_ONE_DIRECTION: Final = 2.0**-28
_NOBODY: Final = np.iinfo(np.int64).min


def knn_accuracy(
    features: ArrayLike, labels: ArrayLike, *, n_neighbors: int = 1, metric: Metric = "cosine"
) -> float:
    """Leave-one-out accuracy of the nearest neighbours' majority.

    The baseline of Bolya et al. (2021), "Scalable Diverse Model Selection for Accessible Transfer
    Learning", which takes one neighbour, and of Puigcerver et al. (2021), "Scalable Transfer
    Learning with Expert Models".

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features)
        Read by tiles: no other copy of them is made, and no matrix of all pairs.
    labels : array-like of shape (n_probe,)
        Integers or texts.
    n_neighbors : int
        Neighbours that vote, fewer than there are examples. Of equally near examples those of the
        smaller class (in sorted order) count first; of classes with equally many votes that of
        the nearer neighbour wins, and then the smaller class.
    metric : {"cosine", "euclidean"}
        Distance between examples. A row of zeros, which has no direction, is at cosine distance 1
        from every other row. Distances that are equal up to rounding are ties.

    Returns
    -------
    float
        Fraction of the examples whose class is predicted, in [0, 1]; higher means easier
        transfer. The only example of a class is never right.

    Raises
    ------
    ProbeSetError
        Features or labels that cannot be read or do not fit together, no more examples than
        ``n_neighbors``, or more than 2²⁴.
    UsageError
        Another metric, or no neighbour.
    """
    if n_neighbors < 1:
        raise UsageError(f"n_neighbors: got {n_neighbors}, expected at least 1")
    if metric not in get_args(Metric):
        raise UsageError(f"metric: got {metric!r}, expected one of {', '.join(get_args(Metric))}")
    matrix = check_features(features)
    n_probe = matrix.shape[0]
    if not n_neighbors < n_probe <= 1 << _PLACE_BITS:
        raise ProbeSetError(
            f"features: got {n_probe} examples, expected more than n_neighbors={n_neighbors} and "
            f"at most {1 << _PLACE_BITS}"
        )
    classes = check_classes(labels, n_probe)
    # In order of classes the earlier of two examples is of the smaller class, or of the same.
    order = np.argsort(classes.codes, kind="stable")
    load = _directions(matrix) if metric == "cosine" else _positions(matrix)
    if metric == "cosine" and not same_everywhere(matrix).all():
        _refuse_one_direction(load, order)
    places = _nearest(load, order, n_neighbors)
    codes = classes.codes[order]
    return float(np.mean(_majority(codes[places]) == codes))


def _nearest(load: _Load, order: IntArray, k: int) -> IntArray:
    """Places in ``order`` of the k nearest others of each example, the nearest first.

    A neighbour is one integer, its similarity on the grid and then its place, counted down. No two
    are equal, and the largest are the nearest.
    """
    n_probe = order.size
    nearest = np.full((n_probe, k), _NOBODY)
    tiles = [slice(at, min(at + _TILE_ROWS, n_probe)) for at in range(0, n_probe, _TILE_ROWS)]
    for number, rows in enumerate(tiles):
        left = load(order[rows])
        for columns in tiles[number:]:
            keys = _on_grid(left, left if columns == rows else load(order[columns]))
            keys <<= _PLACE_BITS
            if columns == rows:
                np.fill_diagonal(keys, _NOBODY)
            else:
                _keep_largest(nearest[columns], keys.T, rows)
            _keep_largest(nearest[rows], keys, columns)
    nearest.sort(axis=1)
    places: IntArray = _LAST_PLACE - (nearest[:, ::-1] & _LAST_PLACE)
    return places


def _on_grid(left: _Tile, right: _Tile) -> IntArray:
    similarity = left[0] @ right[0].T
    similarity -= left[1][:, None]
    similarity -= right[1]
    similarity *= 2.0**_GRID_BITS
    return np.rint(similarity, out=similarity).astype(np.int64)


def _keep_largest(nearest: IntArray, keys: IntArray, columns: slice) -> None:
    """Keep the largest entries of each row of ``nearest`` and ``keys`` in ``nearest``."""
    k = nearest.shape[1]
    places = _LAST_PLACE - np.arange(columns.start, columns.stop)
    candidates = np.concatenate([nearest, keys | places], axis=1)
    candidates.partition(-k, axis=1)
    nearest[:] = candidates[:, -k:]


def _majority(votes: IntArray) -> IntArray:
    """The class with most votes in each row; of several, the one that is named first."""
    n_votes = np.stack([(votes == vote[:, None]).sum(axis=1) for vote in votes.T], axis=1)
    winners: IntArray = votes[np.arange(votes.shape[0]), n_votes.argmax(axis=1)]
    return winners


def _directions(matrix: Features) -> _Load:
    """Rows of length 1, whose products are cosines; rows of zeros stay."""

    def load(rows: IntArray) -> _Tile:
        tile: FloatArray = matrix[rows].astype(np.float64)
        # Squares then stay in range for features of any unit.
        tile /= _or_one(np.abs(tile).max(axis=1, keepdims=True))
        tile /= _or_one(np.sqrt(np.einsum("ij,ij->i", tile, tile)))[:, None]
        return tile, np.zeros(rows.size)

    return load


def _refuse_one_direction(load: _Load, order: IntArray) -> None:
    """Raise ``ProbeSetError`` where cosine distances are below the grid of similarities."""
    starts = range(0, order.size, _TILE_ROWS)
    total = np.sum([load(order[at : at + _TILE_ROWS])[0].sum(axis=0) for at in starts], axis=0)
    # One minus the mean cosine of all pairs.
    if 1.0 - float(total @ total) / order.size**2 < _ONE_DIRECTION:
        raise ProbeSetError(
            "features: all examples point in one direction, since their common offset is far "
            "larger than their spread; subtract the mean from each feature, or pass "
            "metric='euclidean'"
        )


def _positions(matrix: Features) -> _Load:
    """Rows whose products, less a number for each row, are minus the squared distances."""
    n_probe, n_features = matrix.shape
    starts = range(0, n_probe, _TILE_ROWS)
    with np.errstate(over="ignore", invalid="ignore"):
        centre = matrix.mean(axis=0, dtype=np.float64)
        furthest = max(np.abs(matrix[at : at + _TILE_ROWS] - centre).max() for at in starts)
    if not np.isfinite(furthest):
        raise ProbeSetError("features: their differences overflow; divide them by a constant")

    def load(rows: IntArray) -> _Tile:
        tile: FloatArray = matrix[rows] - centre
        # Distances from the centre are then at most 1.
        tile /= furthest or 1.0
        tile /= np.sqrt(n_features)
        lengths = np.einsum("ij,ij->i", tile, tile)
        tile *= np.sqrt(2.0)
        return tile, lengths

    return load


def _or_one(divisor: FloatArray) -> FloatArray:
    return np.where(divisor > 0, divisor, 1.0)
