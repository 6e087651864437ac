"""Collects columns one by one into a matrix, sparse or dense."""

from collections.abc import Sequence
from itertools import groupby
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_ms.core.types import FloatArray

TreeArray: TypeAlias = NDArray[np.float32]


class ColumnStack:
    """Columns being collected, with their names and the card fields they come from."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.fields: list[str] = []
        self._blocks: list[FloatArray | sp.csr_array] = []

    def add(self, name: str, field: str, values: NDArray[np.float64 | np.bool_]) -> None:
        """Add a column of shape (n_rows,)."""
        self.names.append(name)
        self.fields.append(field)
        self._blocks.append(values.astype(np.float64)[:, None])

    def add_block(self, names: Sequence[str], field: str, block: sp.csr_array) -> None:
        """Add the columns of a block of shape (n_rows, len(names))."""
        self.names.extend(names)
        self.fields.extend([field] * len(names))
        self._blocks.append(block)

    def sparse(self, n_rows: int) -> sp.csr_array:
        """All columns, shape (n_rows, n_columns)."""
        # Neighbouring dense columns become one block: stacking hundreds of blocks is slow.
        blocks = [sp.csr_array((n_rows, 0))]
        for is_dense, group in groupby(self._blocks, lambda block: isinstance(block, np.ndarray)):
            found = list(group)
            blocks += [sp.csr_array(np.hstack(found))] if is_dense else found
        return sp.hstack(blocks, format="csr")

    def dense(self, n_rows: int) -> TreeArray:
        """All columns, shape (n_rows, n_columns)."""
        if not self._blocks:
            return np.empty((n_rows, 0), dtype=np.float32)
        return np.hstack(self._blocks).astype(np.float32)
