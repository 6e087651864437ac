"""Tables of texts: filled from a frame by format strings, shown as Markdown or in a terminal."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Final, Self, cast

import pandas as pd
from rich.table import Table
from rich.text import Text

UNDEFINED: Final = "–"


class _Numbers(Formatter):
    """Writes undefined numbers as a dash, and thousands in groups with a thin space."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return UNDEFINED
        return str(super().format_field(value, format_spec)).replace(
            *((",", "\u202f") if "," in format_spec else ("", ""))
        )


_NUMBERS: Final = _Numbers()


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Fill a format string such as ``{low:.4f} … {high:.4f}``; undefined numbers are dashes."""
    return _NUMBERS.vformat(template, (), values)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as JSON values: NaN is ``None``."""
    return cast(
        list[dict[str, Any]],
        frame.astype(object).where(frame.notna(), None).to_dict("records"),
    )


def escape_markdown(text: object) -> str:
    """A text in one line in which Markdown finds no markup."""
    flat = " ".join(str(text).splitlines())
    return "".join(f"\\{mark}" if mark in "\\|*`<>" else mark for mark in flat)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of texts.

    Attributes
    ----------
    caption : str
        What the table shows.
    headings : tuple of str
    rows : tuple of tuple of str
    numeric : frozenset of int
        Positions of the columns that hold numbers; they are aligned to the right.
    tasks : tuple of str
        What the report's filter knows the task of each row by; empty where rows have none.
    n_all : int
        Number of rows before the table was cut; 0 if nothing was cut.
    notes : str
        Printed below the table in a terminal.
    """

    caption: str = ""
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    tasks: tuple[str, ...] = ()
    n_all: int = 0
    notes: str = ""

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        columns: Mapping[str, str],
        *,
        caption: str = "",
        max_rows: int | None = None,
        tasks: str | None = None,
    ) -> Self:
        """Write a frame row by row.

        Parameters
        ----------
        frame : DataFrame
        columns : mapping of heading to format string
            See :func:`fill`. Columns with a number format (a colon) are numeric.
        caption : str
        max_rows : int, optional
            Cut the table after this many rows.
        tasks : str, optional
            Column that says which task each row is about.
        """
        shown = frame if max_rows is None else frame.head(max_rows)
        return cls(
            caption=caption,
            headings=tuple(columns),
            rows=tuple(
                tuple(fill(text, row) for text in columns.values()) for row in records(shown)
            ),
            numeric=frozenset(i for i, text in enumerate(columns.values()) if ":" in text),
            tasks=tuple(map(str, shown[tasks])) if tasks else (),
            n_all=len(frame) if len(frame) > len(shown) else 0,
        )

    def markdown(self, max_rows: int | None = None) -> str:
        """The table as Markdown without its caption; rows beyond ``max_rows`` are left out."""
        rule = ("---:|" if i in self.numeric else "---|" for i in range(len(self.headings)))
        head, *rows = (
            f"| {' | '.join(map(escape_markdown, row))} |"
            for row in (self.headings, *self.rows[:max_rows])
        )
        return "\n".join([head, "|" + "".join(rule), *rows])

    def rich(self) -> Table:
        """The table for a terminal."""
        caption, notes = (Text(text) if text else None for text in (self.caption, self.notes))
        table = Table(title=caption, caption=notes, caption_justify="left")
        for i, heading in enumerate(self.headings):
            if i in self.numeric:
                table.add_column(Text(heading), justify="right", no_wrap=True)
            else:
                table.add_column(Text(heading), overflow="fold")
        for row in self.rows:
            # Texts, not strings: a bracket in a name must not be read as markup.
            table.add_row(*map(Text, row))
        return table
