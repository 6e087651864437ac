"""Turns wide tables, models by tasks, into tables of one cell a row, before any mapping."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from recsys_ms.core import columns as c
from recsys_ms.core.errors import UsageError, did_you_mean

WideKind: TypeAlias = Literal["tasks", "models"]

#: Field that a column's name becomes, and field of the first column, by what the columns are.
_FIELDS: Final = {"tasks": (c.TASK_ID, c.MODEL_ID), "models": (c.MODEL_ID, c.TASK_ID)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wide:
    """What the columns of a wide table are.

    Attributes
    ----------
    columns : {"tasks", "models"}
        What the names of the columns are; the first column names the other.
    row_columns : tuple of str
        More columns that describe the row, and are not taken for tasks or models.
    keep_blank : bool
        Whether a blank cell is a run too: one without a result.

    Raises
    ------
    UsageError
        Another word for the columns.
    """

    columns: WideKind
    row_columns: tuple[str, ...] = ()
    keep_blank: bool = False

    def __post_init__(self) -> None:
        if self.columns not in get_args(WideKind):
            raise UsageError(f"--wide {self.columns!r}: expected 'tasks' or 'models'")


@dataclass(frozen=True, slots=True)
class Unpivot:
    """A wide table as a long one: ``names`` are its columns, ``beside`` those that stay."""

    names: tuple[str, ...]
    beside: tuple[str, ...]
    cells: tuple[str, ...]
    keep_blank: bool

    @classmethod
    def of(cls, wide: Wide, header: Sequence[str]) -> "Unpivot":
        """Check that a header is that of a wide table.

        Raises
        ------
        UsageError
            A column that the header does not have, or a name that the long table has twice.
        """
        for name in wide.row_columns:
            if name not in header:
                raise UsageError(
                    f"--row-column {name}: the table has no such column{did_you_mean(name, header)}"
                )
        column_field, row_field = _FIELDS[wide.columns]
        beside = tuple(n for n in header[1:] if n in wide.row_columns and n != header[0])
        names = (row_field, *beside, column_field, c.VALUE)
        twice = next((name for name in beside if name in (row_field, column_field, c.VALUE)), None)
        if twice is not None:
            raise UsageError(
                f"--row-column {twice}: a wide table makes columns {', '.join(names)}, so none may "
                "have one of these names; rename it"
            )
        cells = tuple(name for name in header[1:] if name not in beside)
        if not cells:
            raise UsageError(
                f"--wide {wide.columns}: the table has no column of {wide.columns} besides "
                f"{', '.join(header)}"
            )
        return cls(names, (header[0], *beside), cells, wide.keep_blank)

    def long(
        self, columns: dict[str, list[Any]], lines: Sequence[int]
    ) -> tuple[dict[str, list[Any]], list[int], list[str]]:
        """Columns, lines, and the column of each cell: row by row, from left to right."""
        places = [
            (row, name)
            for row in range(len(lines))
            for name in self.cells
            if self.keep_blank or columns[name][row] is not None
        ]
        long = {
            name: [columns[source][row] for row, _ in places]
            for name, source in zip(self.names, self.beside, strict=False)
        }
        long[self.names[-2]] = [name for _, name in places]
        long[self.names[-1]] = [columns[name][row] for row, name in places]
        return long, [lines[row] for row, _ in places], [name for _, name in places]
