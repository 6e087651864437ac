"""The report as Markdown: for a terminal and for pull requests."""

from collections.abc import Iterator
from typing import Final

from recsys_ms.evaluation.text_table import TextTable, escape_markdown
from recsys_ms.report.blocks import Section, count
from recsys_ms.report.report_data import ReportData
from recsys_ms.report.sections import sections

_MAX_ROWS: Final = 20


def render_markdown(data: ReportData) -> str:
    """The whole report; each chart is replaced by a table of at most twenty rows or a sentence."""
    parts = [f"# {escape_markdown(data.title)}"]
    if data.made_at:
        parts.append(f"Made at {data.made_at}.")
    for section in sections(data):
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"## {section.title}"
    if section.facts:
        yield "\n".join(f"- {label}: {escape_markdown(value)}" for label, value in section.facts)
    yield from map(escape_markdown, section.text)
    if section.items:
        yield "\n".join(f"- {escape_markdown(item)}" for item in section.items)
    if section.chart is not None:
        if section.chart.in_markdown:
            yield from _table(section.chart.table)
        else:
            yield escape_markdown(section.chart.description)
    for table in section.tables:
        yield from _table(table)


def _table(table: TextTable) -> Iterator[str]:
    yield f"*{escape_markdown(table.caption)}*"
    yield table.markdown(_MAX_ROWS)
    n_more = max(table.n_all, len(table.rows)) - min(_MAX_ROWS, len(table.rows))
    if n_more:
        yield f"… {count(n_more)} more rows."
