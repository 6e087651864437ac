"""Factors of tasks and models, and the checks of the interactions that they are learned from."""

from dataclasses import dataclass

import numpy as np

from recsys_ms.core.errors import DataError
from recsys_ms.core.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factors:
    """A fitted factorisation.

    Attributes
    ----------
    task_factors : ndarray of shape (n_tasks, n_factors)
    model_factors : ndarray of shape (n_models, n_factors)
    """

    task_factors: FloatArray
    model_factors: FloatArray

    def predict(self, task_index: IntArray, model_index: IntArray) -> FloatArray:
        """Predicted value of each (task, model) pair, on the scale of what was fitted."""
        pairs = self.task_factors[task_index] * self.model_factors[model_index]
        return np.asarray(pairs.sum(axis=1), dtype=np.float64)


def check_interactions(
    task_index: IntArray, model_index: IntArray, *columns: FloatArray, n_tasks: int, n_models: int
) -> None:
    """Check that there are interactions, vectors of one length, inside the matrix.

    Raises
    ------
    DataError
        They are not.
    """
    shapes = {each.shape for each in (task_index, model_index, *columns)}
    if len(shapes) != 1 or task_index.ndim != 1:
        raise DataError(
            f"interactions have the shapes {sorted(shapes)}, expected vectors of one length"
        )
    if task_index.size == 0:
        raise DataError("no interaction to factorise; ingest finished runs first")
    for name, index, size in (("task", task_index, n_tasks), ("model", model_index, n_models)):
        if index.min() < 0 or index.max() >= size:
            raise DataError(
                f"{name} indices range from {index.min()} to {index.max()}, expected [0, {size})"
            )
