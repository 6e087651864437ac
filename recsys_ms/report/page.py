"""The report as one HTML file that needs no network."""

import base64
import hashlib
import html
import json
from collections.abc import Iterator
from importlib import resources
from string import Template
from typing import Final

from recsys_ms.evaluation.metrics import REGRET_AT_1
from recsys_ms.evaluation.result import POPULARITY
from recsys_ms.report.blocks import (
    Chart,
    Control,
    Section,
    TextTable,
    count,
    number,
)
from recsys_ms.report.bundle import vega_script
from recsys_ms.report.report_data import ReportData
from recsys_ms.report.sections import sections

_PACKAGE: Final = "recsys_ms.report"


def render_html(data: ReportData) -> str:
    """The whole report, scripts, styles and numbers in one text.

    Its content security policy refuses every address and every script but its own.

    Raises
    ------
    MissingExtraError
        The plotting library is not installed.
    """
    parts = sections(data)
    vega, script = vega_script(), _resource("page.js")
    specs = {chart.key: chart.spec for part in parts for chart in part.charts}
    return Template(_resource("page.html")).substitute(
        policy=_policy(vega, script),
        title=_text(data.title),
        made=_text(f"Made at {data.made_at}" if data.made_at else ""),
        style=_resource("page.css"),
        tiles="\n".join(_tile(label, value) for label, value in tiles(data)),
        contents="\n".join(
            f'<li><a href="#{part.key}">{_text(part.title)}</a></li>' for part in parts
        ),
        sections="\n".join(map(_section, parts)),
        specs=_json(specs),
        vega=vega,
        script=script,
    )


def tiles(data: ReportData) -> list[tuple[str, str]]:
    """The figures at the head: label and value."""
    found: list[tuple[str, str]] = []
    if data.decision is not None:
        version = "" if data.decision.version is None else f", version {data.decision.version}"
        found.append(("decision", f"{data.decision.outcome}{version}"))
    if data.result is not None:
        for name in dict.fromkeys((data.focus, POPULARITY)):
            mean = data.result.mean(name, REGRET_AT_1)
            found.append((f"regret@1 of {name}", number(mean)))
    if data.trained.n_runs is not None:
        found.append(("runs", count(data.trained.n_runs)))
    if data.trained.n_new_runs is not None:
        found.append(("new runs", count(data.trained.n_new_runs)))
    if data.trained.n_quarantined is not None:
        found.append(("in quarantine", count(data.trained.n_quarantined)))
    return found


def _tile(label: str, value: str) -> str:
    return f"<li><b>{_text(value)}</b><span>{_text(label)}</span></li>"


def _section(section: Section) -> str:
    return "\n".join(_section_parts(section))


def _section_parts(section: Section) -> Iterator[str]:
    heading = f"{section.key}-heading"
    yield f'<section id="{section.key}" aria-labelledby="{heading}">'
    yield f'<h2 id="{heading}">{_text(section.title)}</h2>'
    if section.facts:
        pairs = (f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in section.facts)
        yield f"<dl>{''.join(pairs)}</dl>"
    yield from (f"<p>{_text(paragraph)}</p>" for paragraph in (*section.text, *section.hints))
    if section.items:
        yield f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in section.items)}</ul>"
    if section.controls:
        chosen = "".join(_control(section, control) for control in section.controls)
        yield f'<div class="controls">{chosen}</div>'
    yield from map(_chart, section.charts)
    yield from map(_table, section.tables)
    yield "</section>"


def _control(section: Section, control: Control) -> str:
    key = f"{section.key}-{control.signal}"
    options = "".join(
        f'<option value="{_text(value)}">{_text(text)}</option>' for value, text in control.options
    )
    return (
        f'<label for="{key}">{_text(control.label)}'
        f'<select id="{key}" data-signal="{control.signal}">{options}</select></label>'
    )


def _chart(chart: Chart) -> str:
    width = f' style="min-width:{chart.min_width}px"' if chart.min_width else ""
    said = _text(chart.description)
    table = chart.table
    is_open = " open" if chart.table_open else ""
    # A chart that scrolls sideways must be reachable by the keyboard.
    scrolls = f' tabindex="0" role="group" aria-label="{_text(chart.title)}, scrolls sideways"'
    return (
        f'<figure id="{chart.key}-figure" aria-labelledby="{chart.key}-title">'
        f'<figcaption><h3 id="{chart.key}-title">{_text(chart.title)}</h3><p>{said}</p>'
        f'</figcaption><div class="scroll"{scrolls if chart.min_width else ""}>'
        f'<div class="chart" id="{chart.key}" role="img" data-description="{said}" '
        f'aria-label="{said}"{width}></div></div>'
        f"<details{is_open}><summary>Table: {_text(table.caption)}</summary>"
        f"{_table(table)}</details></figure>"
    )


def _table(table: TextTable) -> str:
    heads = "".join(
        f'<th scope="col"{_class(table, i)}>{_text(name)}</th>'
        for i, name in enumerate(table.headings)
    )
    rows = []
    for index, row in enumerate(table.rows):
        task = f' data-task="{_text(table.tasks[index])}"' if table.tasks else ""
        cells = "".join(f"<td{_class(table, i)}>{_text(cell)}</td>" for i, cell in enumerate(row))
        rows.append(f"<tr{task}>{cells}</tr>")
    more = table.n_all - len(table.rows)
    left_out = f'<p class="note">{count(more)} more rows are left out.</p>' if more > 0 else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{_text(table.caption)}">'
        f"<table><caption><span>{_text(table.caption)}</span></caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{left_out}"
    )


def _class(table: TextTable, column: int) -> str:
    return ' class="n"' if column in table.numeric else ""


def _text(text: str) -> str:
    return html.escape(str(text), quote=True)


def _json(value: object) -> str:
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Inside a script element nothing may look like its end.
    return written.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _resource(name: str) -> str:
    return resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")
