"""Columns that are collected one by one into a matrix, sparse or dense."""

from collections.abc import Sequence
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
        # One matrix from all entries: hundreds of one-column matrices take longer than a head.
        starts = self._starts()
        dense = [i for i, block in enumerate(self._blocks) if isinstance(block, np.ndarray)]
        table = np.hstack([self._blocks[i] for i in dense]) if dense else np.empty((n_rows, 0))
        row, column = np.nonzero(table)
        rows, columns, values = (
            [row],
            [np.array(starts, dtype=np.int64)[dense][column]],
            [table[row, column]],
        )
        for at, block in zip(starts, self._blocks, strict=True):
            if not isinstance(block, np.ndarray):
                entries = block.tocoo()
                rows.append(entries.row)
                columns.append(entries.col + at)
                values.append(entries.data)
        joined = sp.csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(n_rows, len(self.names)),
        )
        joined.sort_indices()
        return joined

    def dense(self, n_rows: int) -> TreeArray:
        """All columns, shape (n_rows, n_columns)."""
        if not self._blocks:
            return np.empty((n_rows, 0), dtype=np.float32)
        return np.hstack(self._blocks).astype(np.float32)

    def _starts(self) -> list[int]:
        """First column of each block."""
        widths = [block.shape[1] for block in self._blocks]
        return [0, *np.cumsum(widths)[:-1]] if widths else []
