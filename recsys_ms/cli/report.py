"""``recsys-ms report``: a page about the ranker in service and its training data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cli.console import stderr
from recsys_ms.cli.options import (
    DEFAULT_HISTORY,
    DEFAULT_REGISTRY,
    CatalogOption,
    HistoryOption,
    KeyFileOption,
    RegistryOption,
    open_registry,
)
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.history.findings import findings_of, first_of
from recsys_ms.history.history import History
from recsys_ms.nightly.night_report import collect
from recsys_ms.nightly.night_summary import last_summary, summary_of_manifest
from recsys_ms.report.write import ReportFormat, render_report, write_report

_DEFAULT_OUT: Final = Path("report.html")


def report(
    registry: RegistryOption = DEFAULT_REGISTRY,
    key_file: KeyFileOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    catalog: CatalogOption = None,
    backtest: Annotated[
        Path | None,
        typer.Option("--backtest", "-B", help="Report what `evaluate --json` wrote instead."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; default report.html, Markdown: stdout."),
    ] = None,
    report_format: Annotated[
        ReportFormat, typer.Option("--format", help="A page, or Markdown for a pull request.")
    ] = "html",
) -> None:
    """Write one self-contained HTML page, or Markdown, about the last nightly run.

    With --backtest, about that back-test; registry and history are used where they exist.
    """
    result = None if backtest is None else _read_backtest(backtest)
    opened = open_registry(registry, key_file) if result is None or registry.exists() else None
    summary: Mapping[str, Any] = {}
    if opened is not None and result is None:
        current = opened.require_current()
        summary = last_summary(opened.root) or summary_of_manifest(current)
    runs = History.open(history, create=False) if result is None or history.exists() else None
    data = collect(
        summary,
        registry=opened,
        history=runs,
        catalog=None if catalog is None else Catalog.read(catalog),
        result=result,
        # Those of the last night are in its summary, and the history may have grown since.
        findings=() if runs is None else first_of(findings_of(runs)),
    )
    if report_format == "md" and out is None:
        typer.echo(render_report(data, "md"), nl=False)
        return
    path = out or _DEFAULT_OUT
    write_report(path, data, report_format=report_format)
    stderr.print(f"written: {path}", soft_wrap=True, highlight=False, markup=False)


def _read_backtest(path: Path) -> BacktestResult:
    caught, way_out = (OSError, UnicodeDecodeError), "give what `recsys-ms evaluate --json` wrote"
    with file_errors(f"{path}: cannot be read", way_out, catch=caught, raises=DataError):
        text = path.read_text(encoding="utf-8")
    try:
        return BacktestResult.from_json(text)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
