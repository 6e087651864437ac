"""JSON lines of metrics: one object an epoch or step."""

import json
from pathlib import Path

from recsys_ms.history.readers.formats.metric_csv import MetricRow, Metrics
from recsys_ms.history.readers.formats.plain_values import clean, number
from recsys_ms.history.readers.logged import BadLog, LogFiles


def read_json_metrics(path: Path, files: LogFiles, bad: list[BadLog]) -> Metrics:
    """Numbers and texts of each object of a file; lines that are none are added to ``bad``.

    Values inside lists and objects are left out.

    Raises
    ------
    BadLogError
        The file cannot be read.
    """
    text = files.text(path)
    last = text.count("\n") + 1
    columns: dict[str, None] = {}
    rows: list[MetricRow] = []
    # Only the newline ends a row: texts may contain other line separators.
    for at, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = json_row(line)
        if row is None:
            reason = "not a JSON object"
            bad.append(BadLog(file=path, line=at, reason=reason, raw=line, cut=at == last > 1))
            continue
        rows.append(MetricRow(at, {}, {}))
        for key, value in row.items():
            name = clean(key)
            found = number(value)
            if found is not None:
                columns[name] = None
                rows[-1].cells[name] = found
            elif isinstance(value, str) and value:
                rows[-1].texts[name] = clean(value)
    return Metrics(tuple(columns), rows)


def json_row(line: str) -> dict[str, object] | None:
    """The JSON object of a line; ``None`` where it is none."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
