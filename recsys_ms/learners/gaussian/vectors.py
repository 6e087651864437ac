"""Vectors of tasks and of models, some of them unknown: rows of one length, NaN where unknown."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from recsys_ms.core.types import BoolArray, FloatArray

_TINY: Final = 1e-12


def commonest_length(vectors: Sequence[Sequence[float] | None]) -> int:
    """The length that most of the known vectors have, the smallest of equally many; 0 for none."""
    lengths = [len(vector) for vector in vectors if vector is not None]
    return max(sorted(set(lengths)), key=lengths.count) if lengths else 0


def stacked(vectors: Sequence[Sequence[float] | None], width: int) -> FloatArray:
    """Vectors as rows, shape (n_vectors, width); NaN throughout for another length, or none."""
    table = np.full((len(vectors), width), np.nan)
    for row, vector in enumerate(vectors):
        # A vector of another length comes from another encoder: not comparable, so unknown.
        if vector is not None and len(vector) == width:
            table[row] = vector
    return table


def known_rows(vectors: FloatArray) -> BoolArray:
    """Which rows are known, shape (n_rows,)."""
    known: BoolArray = np.logical_and.reduce(np.isfinite(vectors), axis=1)
    return known


def median_distance(vectors: FloatArray) -> float:
    """Median distance of two known rows, 1 where all are equal."""
    from scipy.spatial.distance import cdist

    known = vectors[known_rows(vectors)]
    distance = cdist(known, known)[np.triu_indices(len(known), 1)]
    middle = float(np.median(distance)) if distance.size else 0.0
    return middle if middle > _TINY else 1.0
