"""Contributions of card fields to predictions: columns of a design summed by their field."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from recsys_ms.core.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadContributions:
    """Predictions of a head as sums over card fields.

    Attributes
    ----------
    base : float
        Prediction for a row of which nothing is known.
    fields : tuple of str, shape (n_fields,)
        Card fields of the design's columns, each once: all one-hot columns of ``family`` are
        ``"family"``. Columns of a plain matrix are their positions, ``"0"``, ``"1"`` …
    amounts : ndarray of shape (n_rows, n_fields)
        What each adds; ``base`` plus the sum of a row is its prediction.
    """

    base: float
    fields: tuple[str, ...]
    amounts: FloatArray

    @classmethod
    def of_columns(
        cls, base: float, columns: FloatArray | sp.csr_array, fields: Sequence[str]
    ) -> Self:
        """Sum contributions by column, shape (n_rows, n_columns), over the columns of a field."""
        names, codes = field_codes(fields)
        grouping = sp.csr_array(
            (np.ones(codes.size), (np.arange(codes.size), codes)), shape=(codes.size, len(names))
        )
        summed = columns @ grouping
        amounts = summed.toarray() if sp.issparse(summed) else np.asarray(summed)
        return cls(base=base, fields=names, amounts=amounts)

    @property
    def total(self) -> FloatArray:
        """The predictions again, shape (n_rows,)."""
        total: FloatArray = self.base + self.amounts.sum(axis=1)
        return total

    def weighted(self, weight: float) -> Self:
        """Contributions to the prediction times a weight."""
        return type(self)(
            base=weight * self.base, fields=self.fields, amounts=weight * self.amounts
        )

    @classmethod
    def sum_of(cls, parts: Sequence[Self]) -> Self:
        """Contributions to the sum of several predictions of the same rows."""
        return cls.of_columns(
            sum(part.base for part in parts),
            np.hstack([part.amounts for part in parts]),
            [field for part in parts for field in part.fields],
        )


def field_codes(fields: Sequence[str]) -> tuple[tuple[str, ...], IntArray]:
    """Each field once, in order of first use, and the position of each column's field there."""
    first = {field: i for i, field in enumerate(dict.fromkeys(fields))}
    return tuple(first), np.array([first[field] for field in fields], dtype=np.int64)
