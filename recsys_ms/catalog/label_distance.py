"""How far the classes of a task are from those a model was trained on.

Guided Recommendation for Model Fine-tuning (Li et al., CVPR 2023, §3.2) takes the semantic distance
of the two label sets as a feature of the pair.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from recsys_ms.core.types import FloatArray

Vector: TypeAlias = tuple[float, ...] | None

_TINY: Final = 1e-12


def label_distances(tasks: Sequence[Vector], models: Sequence[Vector]) -> FloatArray:
    """One minus the cosine of mean label vectors, of shape (n_tasks, n_models), in [0, 2].

    The vectors are the ``label_embedding`` of task cards and the ``source_label_embedding`` of
    model cards. NaN where one is unknown, zero, or of another length (another encoder made it).
    """
    distances = np.full((len(tasks), len(models)), np.nan)
    for length in {len(vector) for vector in models if vector}:
        left, right = (
            {row: vector for row, vector in enumerate(vectors) if len(vector or ()) == length}
            for vectors in (tasks, models)
        )
        if left:
            product = _units([*left.values()]) @ _units([*right.values()]).T
            distances[np.ix_([*left], [*right])] = 1.0 - product
    return distances


def _units(vectors: Sequence[Vector]) -> FloatArray:
    table = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(table, axis=1, keepdims=True)
    units: FloatArray = np.where(length > _TINY, table / np.maximum(length, _TINY), np.nan)
    return units
