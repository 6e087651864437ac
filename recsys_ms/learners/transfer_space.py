"""Ranks models in the transfer space by inner products with the factors of one task.

Its cost grows with the number of models alone: past runs are in the factors (Fennec's O(1) in the
size of the history, Bai et al. 2024, §3.4).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import IntArray

#: Models whose scores are compared by their maximum first.
_BLOCK: Final = 512


class TransferSpace:
    """Models as vectors, ready to be ranked for any task.

    Parameters
    ----------
    model_ids : sequence of str
        The models.
    factors : array-like of shape (n_models, n_factors)
        Their vectors; kept in single precision, which decides between models closer than 1e-7 of
        their scores by their order.

    Raises
    ------
    DataError
        Not one finite row a model.
    """

    def __init__(self, model_ids: Sequence[str], factors: ArrayLike) -> None:
        self._factors = np.ascontiguousarray(factors, dtype=np.float32)
        if self._factors.ndim != 2 or self._factors.shape[0] != len(model_ids):
            raise DataError(
                f"factors: got shape {self._factors.shape} for {len(model_ids)} models, "
                "expected one row a model"
            )
        if not np.isfinite(self._factors).all():
            raise DataError("factors: not all are finite; leave out those models")
        self._model_ids = model_ids

    @property
    def n_models(self) -> int:
        """Number of models."""
        return int(self._factors.shape[0])

    @property
    def n_factors(self) -> int:
        """Dimensions of the space."""
        return int(self._factors.shape[1])

    def scores(self, task_factors: ArrayLike) -> NDArray[np.float32]:
        """Inner products with the task's vector, shape (n_models,)."""
        vector = np.asarray(task_factors, dtype=np.float32)
        if vector.shape != (self.n_factors,):
            raise UsageError(
                f"task_factors: got shape {vector.shape}, expected ({self.n_factors},)"
            )
        products: NDArray[np.float32] = self._factors @ vector
        return products

    def rank(self, task_factors: ArrayLike, top: int = 10) -> list[tuple[str, float]]:
        """Ids and scores of the ``top`` models, best first; equal ones in their order.

        Raises
        ------
        UsageError
            ``top`` below 1, or a vector of another length.
        """
        if top < 1:
            raise UsageError(f"top is {top}, expected at least 1")
        scores = self.scores(task_factors)
        return [(self._model_ids[int(i)], float(scores[i])) for i in best_positions(scores, top)]


def best_positions(scores: NDArray[np.float32], top: int) -> IntArray:
    """Positions of the ``top`` highest scores, best first; of equal ones the earliest.

    Blocks are compared by their maxima first: a score below the ``top``-th highest of those cannot
    be among the ``top`` highest of all. Nearly all scores are read once and never sorted.
    """
    n_blocks = scores.size // _BLOCK
    if n_blocks <= top:
        return np.argsort(-scores, kind="stable")[:top].astype(np.int64)
    maxima = scores[: n_blocks * _BLOCK].reshape(n_blocks, _BLOCK).max(axis=1)
    least = np.partition(maxima, n_blocks - top)[n_blocks - top]
    # Of blocks that are equal there, the first ones hold enough scores, and earlier ones.
    equal = np.flatnonzero(maxima == least)[:top]
    blocks = np.sort(np.concatenate([np.flatnonzero(maxima > least), equal]))
    inside = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
    rest = np.arange(n_blocks * _BLOCK, scores.size)
    candidates = np.concatenate([inside, rest])
    order = np.argsort(-scores[candidates], kind="stable")[:top]
    chosen: IntArray = candidates[order].astype(np.int64)
    return chosen
