"""The report as Markdown: for a terminal and for pull requests."""

from typing import Final

from recsys_ms.report.blocks import Section, TextTable, count
from recsys_ms.report.report_data import ReportData
from recsys_ms.report.sections import sections

_MAX_ROWS: Final = 20


def render_markdown(data: ReportData) -> str:
    """The whole report; tables of twenty rows, or a sentence, in the place of charts."""
    lines = [f"# {_escaped(data.title)}", ""]
    if data.made_at:
        lines += [f"Made at {data.made_at}.", ""]
    for section in sections(data):
        lines += _section(section)
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section) -> list[str]:
    lines = [f"## {section.title}", ""]
    if section.facts:
        lines += [*(f"- {label}: {_escaped(value)}" for label, value in section.facts), ""]
    for paragraph in section.text:
        lines += [_escaped(paragraph), ""]
    if section.items:
        lines += [*(f"- {_escaped(item)}" for item in section.items), ""]
    for chart in section.charts:
        lines += _table(chart.table) if chart.in_markdown else [_escaped(chart.description), ""]
    for table in section.tables:
        lines += _table(table)
    return lines


def _table(table: TextTable) -> list[str]:
    head = "| " + " | ".join(map(_escaped, table.headings)) + " |"
    numeric = (index in table.numeric for index in range(len(table.headings)))
    rule = "|" + "".join("---:|" if right else "---|" for right in numeric)
    rows = ["| " + " | ".join(map(_escaped, row)) + " |" for row in table.rows[:_MAX_ROWS]]
    n_all = max(table.n_all, len(table.rows))
    more = [f"… {count(n_all - len(rows))} more rows."] if n_all > len(rows) else []
    return [
        f"*{_escaped(table.caption)}*",
        "",
        head,
        rule,
        *rows,
        "",
        *more,
        *([""] if more else []),
    ]


def _escaped(text: str) -> str:
    # Ids and error messages are texts, not markup; a line break would end a table's row.
    flat = " ".join(str(text).splitlines())
    for mark in "\\|*`<>":
        flat = flat.replace(mark, f"\\{mark}")
    return flat
