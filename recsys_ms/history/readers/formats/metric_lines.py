"""JSON lines of metrics: one object an epoch or step."""

from pathlib import Path

from recsys_ms.core.errors import DataError
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.metric_csv import MetricRow, Metrics
from recsys_ms.history.readers.formats.plain_values import clean, number
from recsys_ms.history.readers.logged import BadLog, BadLogError, LogFiles


def json_rows(path: Path, files: LogFiles, bad: list[BadLog]) -> list[tuple[int, JsonDict]]:
    """Objects of a file by line, from 1; what is not an object is added to ``bad``.

    Raises
    ------
    BadLogError
        The file is empty, or cannot be read.
    """
    rows: list[tuple[int, JsonDict]] = []
    # Only the newline ends a row: texts may contain other line separators.
    lines = files.text(path).split("\n")
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            rows.append((line, json_object(text)))
        except DataError as error:
            cut = line == len(lines) > 1
            bad.append(BadLog(file=path, line=line, reason=str(error), raw=text, cut=cut))
    if not rows and not bad:
        raise BadLogError(BadLog(file=path, reason="the file is empty", raw=""))
    return rows


def json_object(text: str) -> JsonDict:
    """The object that a line is; ``DataError`` where it is none."""
    found = parse_json(text)
    if not isinstance(found, dict):
        raise DataError(f"got a {type(found).__name__}, expected an object")
    return found


def read_json_metrics(path: Path, files: LogFiles, bad: list[BadLog]) -> Metrics:
    """Numbers and texts of each object of a file; what is in lists and objects is left out.

    Raises
    ------
    BadLogError
        As :func:`json_rows`.
    """
    columns: dict[str, None] = {}
    rows: list[MetricRow] = []
    for line, found in json_rows(path, files, bad):
        rows.append(MetricRow(line, {}, {}))
        for key, value in found.items():
            name = clean(key)
            as_number = number(value)
            if as_number is not None:
                columns[name] = None
                rows[-1].cells[name] = as_number
            elif isinstance(value, str) and value:
                rows[-1].texts[name] = clean(value)
    return Metrics(tuple(columns), rows)
