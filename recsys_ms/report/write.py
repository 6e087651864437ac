"""Write a report to a file."""

from pathlib import Path
from typing import Final, Literal, TypeAlias

from recsys_ms.core.errors import UsageError
from recsys_ms.core.files import write_atomic
from recsys_ms.report.markdown import render_markdown
from recsys_ms.report.page import render_html
from recsys_ms.report.report_data import ReportData

ReportFormat: TypeAlias = Literal["html", "md"]
REPORT_FORMATS: Final[tuple[ReportFormat, ...]] = ("html", "md")


def render_report(data: ReportData, report_format: ReportFormat = "html") -> str:
    """The report as text.

    Raises
    ------
    MissingExtraError
        The format is HTML and the plotting library is not installed.
    UsageError
        Unknown format.
    """
    if report_format == "html":
        return render_html(data)
    if report_format == "md":
        return render_markdown(data)
    raise UsageError(
        f"report format {report_format!r} is unknown; choose {' or '.join(REPORT_FORMATS)}"
    )


def write_report(
    path: str | Path, data: ReportData, *, report_format: ReportFormat = "html"
) -> None:
    """Write the report, whole or not at all.

    Raises
    ------
    MissingExtraError, UsageError
        See :func:`render_report`.
    StorageError
        The file cannot be written.
    """
    write_atomic(Path(path), render_report(data, report_format).encode("utf-8"))
