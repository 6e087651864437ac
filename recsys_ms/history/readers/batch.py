"""A piece of a table as it stands in its file: cells by column, rows as text, and broken rows."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that is not a row of its table.

    Attributes
    ----------
    line : int
        Physical line (row, for Parquet) it begins on, from 1.
    reason, raw : str
        What was wrong, and its text.
    final : str
        Why reading ``raw`` again cannot help; empty where it can.
    """

    line: int
    reason: str
    raw: str
    final: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBatch:
    """Consecutive rows of a table.

    Attributes
    ----------
    columns : dict of str to list
        Cells by column; ``None`` where a cell is empty. Spaces around a cell of CSV are no part
        of it.
    lines : list of int
        Physical line (row, for Parquet) each row begins on, from 1.
    raws : list of str or None
        Text of each row; ``None`` where the table holds no text (Parquet).
    bad : tuple of BadRow
        Rows between them that could not be read.
    """

    columns: dict[str, list[Any]]
    lines: list[int]
    raws: list[str] | None
    bad: tuple[BadRow, ...] = ()

    def raw(self, row: int) -> str:
        """Text of row ``row`` of this batch; JSON where the table holds no text."""
        if self.raws is not None:
            return self.raws[row]
        cells = {name: cells[row] for name, cells in self.columns.items()}
        return json.dumps(cells, ensure_ascii=False, default=str)
