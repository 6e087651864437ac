"""Parts that a report is made of: sections with texts, tables, charts and controls."""

from dataclasses import dataclass

from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.text_table import TextTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with its two text alternatives.

    Attributes
    ----------
    title : str
    description : str
        What the chart shows, in a sentence or two, for readers who cannot see it.
    spec : dict
        Vega-Lite, without a schema address and without colours of its own.
    table : TextTable
        The numbers behind it.
    min_width : int
        Pixels below which the chart scrolls sideways instead of shrinking.
    table_open : bool
        Whether the table is shown beside the chart at once.
    in_markdown : bool
        Whether Markdown shows the table instead of the description.
    """

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
    """One heading of the report and its contents.

    Attributes
    ----------
    key, title : str
        Anchor and heading; :func:`recsys_ms.report.sections.sections` sets them.
    text : tuple of str
        Paragraphs.
    hints : tuple of str
        Paragraphs on how to read or use the chart; Markdown has none.
    items : tuple of str
        A list below them.
    facts : tuple of (label, value)
        Short figures.
    control : Control or None
    tables : tuple of TextTable
    chart : Chart or None
    """

    key: str = ""
    title: str = ""
    text: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    control: Control | None = None
    tables: tuple[TextTable, ...] = ()
    chart: Chart | None = None


def count(value: int | None) -> str:
    """A whole number with a thin space between thousands; ``unknown`` for ``None``."""
    return "unknown" if value is None else f"{value:,}".replace(",", "\u202f")


def plural(n: int, singular: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count(n)} {singular}{'' if n == 1 else 's'}"
