"""The options that ``evaluate`` and ``simulate`` share: what to read, how to run, what to print."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import RenderableType
from typer import Option

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cli.console import show, show_json
from recsys_ms.cli.options import (
    DEFAULT_HISTORY,
    CatalogOption,
    HistoryOption,
    MetricOption,
    SeedOption,
    open_catalog,
)
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import EXECUTORS
from recsys_ms.core.files import write_atomic
from recsys_ms.core.types import JsonDict
from recsys_ms.history.interactions import OnTwoMetrics


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """Options of a verb that measures rankers on a history."""

    history: HistoryOption = DEFAULT_HISTORY
    catalog: CatalogOption = None
    metric: MetricOption = None
    on_two_metrics: Annotated[
        OnTwoMetrics,
        Option(help="A task with several metrics: an error, or take the most frequent."),
    ] = "error"
    seed: SeedOption = 0
    executor: Annotated[str, Option(help=f"{EXECUTORS}.")] = "serial"
    json_out: Annotated[
        Path | None, Option("--json", help="Also write the result as JSON; - for stdout only.")
    ] = None
    markdown: Annotated[bool, Option("--markdown", help="Print the table as Markdown.")] = False

    def __post_init__(self) -> None:
        path = self.json_out
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"--json {path}: the folder {path.parent} does not exist; create it")

    def cards(self) -> Catalog:
        """The catalog, empty where none is named."""
        return open_catalog(self.catalog)

    def show(self, document: JsonDict, *tables: RenderableType) -> None:
        """Write the JSON document where it is asked for, and print the tables."""
        if self.json_out is not None and str(self.json_out) == "-":
            show_json(document)
            return
        if self.json_out is not None:
            write_atomic(self.json_out, json.dumps(document, indent=1, allow_nan=False).encode())
        for table in tables:
            show(table)
