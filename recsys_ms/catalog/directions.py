"""Leading principal directions of a vector that spans many columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np

from recsys_ms.core.declared import Shape
from recsys_ms.core.types import FloatArray

#: Singular values below this part of the largest are rounding noise.
_NOISE: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """Principal components of standardised columns (Jolliffe 2002, §2.3).

    ``basis`` of shape (n_directions, n_columns) has orthonormal rows, that of most variance first.
    """

    names: Annotated[tuple[str, ...], Shape("column")]
    basis: Annotated[FloatArray, Shape("direction", "column")]

    @classmethod
    def fit(cls, names: Sequence[str], standard: FloatArray, n_directions: int) -> Self:
        """At most ``n_directions`` directions of the rows without NaN of (n_rows, n_columns)."""
        known = standard[np.isfinite(standard).all(axis=1)]
        if not len(names) or not len(known):
            return cls(tuple(names), np.empty((0, len(names))))
        _, size, axes = np.linalg.svd(known - known.mean(axis=0), full_matrices=False)
        basis = axes[: min(n_directions, int((size > _NOISE * size[0]).sum()))]
        # A decomposition leaves the sign open: the largest entry of each row is positive.
        largest = np.abs(basis).argmax(axis=1)
        return cls(tuple(names), basis * np.sign(basis[np.arange(len(basis)), largest])[:, None])

    def __call__(self, standard: FloatArray) -> FloatArray:
        """Coordinates of rows, shape (n_rows, n_directions); NaN where a column is unknown."""
        rows = np.ascontiguousarray(standard)
        found = np.empty((len(rows), len(self.basis)))
        # Not a matrix product: a row gets the same bits alone and among others.
        for at, direction in enumerate(self.basis):
            found[:, at] = (rows * direction).sum(axis=1)
        return found
