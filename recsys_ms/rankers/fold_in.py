"""Folding observed outcomes into a task's factors, as the linear map that it is."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from recsys_ms.core.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Folding:
    """Factors of a task: ``keep @ prior + gain @ values``.

    Attributes
    ----------
    keep : ndarray of shape (n_factors, n_factors)
        What is kept of where the task was before.
    gain : ndarray of shape (n_factors, n_observed)
        What an observed value adds, per unit.
    values : ndarray of shape (n_observed,)
        Observed outcomes on the scale of the factors' products.
    """

    keep: FloatArray
    gain: FloatArray
    values: FloatArray

    @classmethod
    def none(cls, n_factors: int, *, n_observed: int = 0) -> Self:
        """Outcomes that change nothing."""
        return cls(
            keep=np.eye(n_factors),
            gain=np.zeros((n_factors, n_observed)),
            values=np.zeros(n_observed),
        )
