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
    lengths = {len(vector) for vector in models if vector}
    for length in lengths:
        left = [row for row, vector in enumerate(tasks) if vector and len(vector) == length]
        right = [row for row, vector in enumerate(models) if vector and len(vector) == length]
        if left and right:
            product = (
                _units([tasks[row] for row in left]) @ _units([models[row] for row in right]).T
            )
            distances[np.ix_(left, right)] = 1.0 - product
    return distances


def _units(vectors: Sequence[Vector]) -> FloatArray:
    table = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(table, axis=1, keepdims=True)
    units: FloatArray = np.where(length > _TINY, table / np.maximum(length, _TINY), np.nan)
    return units
