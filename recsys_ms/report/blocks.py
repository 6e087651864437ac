"""What a report is made of, before it is HTML or Markdown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from recsys_ms.core.types import JsonDict

UNDEFINED: Final = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of texts.

    Attributes
    ----------
    caption : str
        What it shows.
    headings : tuple of str
    rows : tuple of tuple of str
    numeric : frozenset of int
        Columns that are numbers.
    tasks : tuple of str
        Task of each row, for the task filter; empty where rows have none.
    n_all : int
        Rows there were before the table was cut; 0 means all are here.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    tasks: tuple[str, ...] = ()
    n_all: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart and its two text alternatives.

    Attributes
    ----------
    key : str
        Unique in the report.
    title : str
    description : str
        What is to be seen, in a sentence or two, for who cannot see it.
    spec : dict
        Vega-Lite, without a schema address and without colours of its own.
    table : TextTable
        The numbers behind it.
    min_width : int
        Pixels below which the chart scrolls sideways instead of shrinking.
    table_open : bool
        Whether the table is shown beside the chart at once.
    in_markdown : bool
        Whether Markdown shows the table in its place.
    """

    key: str
    title: str
    description: str
    spec: JsonDict
    table: TextTable
    min_width: int = 0
    table_open: bool = False
    in_markdown: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A choice that charts follow.

    Attributes
    ----------
    signal : str
        Name of the Vega-Lite parameter that is set.
    label : str
    options : tuple of (value, text)
        The first is chosen at the start.
    """

    signal: str
    label: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One heading of the report and what stands below it.

    Attributes
    ----------
    key, title : str
        Anchor and heading.
    text : tuple of str
        Paragraphs.
    hints : tuple of str
        Paragraphs on how to read or use the charts; Markdown has none.
    items : tuple of str
        A list below them.
    facts : tuple of (label, value)
        Short figures.
    controls : tuple of Control
    tables : tuple of TextTable
    charts : tuple of Chart
    """

    key: str
    title: str
    text: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    controls: tuple[Control, ...] = ()
    tables: tuple[TextTable, ...] = ()
    charts: tuple[Chart, ...] = field(default_factory=tuple)


def number(value: Any, digits: int = 4) -> str:
    """A number for a reader; a dash where there is none."""
    if value is None or not math.isfinite(float(value)):
        return UNDEFINED
    return f"{float(value):.{digits}f}"


def count(value: int | None, unit: str = "") -> str:
    """A whole number with thin groups of thousands; words where it is not known."""
    if value is None:
        return "not known"
    return f"{value:,}".replace(",", "\u202f") + (f" {unit}" if unit else "")


def plural(n: int, singular: str, several: str | None = None) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count(n)} {singular if n == 1 else several or singular + 's'}"


def records(frame: Any) -> list[Mapping[str, Any]]:
    """Rows of a frame as JSON values: NaN is ``None``."""
    rows: list[Mapping[str, Any]] = (
        frame.astype(object).where(frame.notna(), None).to_dict("records")
    )
    return rows
