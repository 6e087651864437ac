"""Output of all verbs: the answer on stdout, the log and the progress on stderr."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import typer
from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from recsys_ms.core.errors import RecsysError

T = TypeVar("T")

stderr = Console(stderr=True)
_PIPE_WIDTH: Final = 200


def show(answer: RenderableType) -> None:
    """Print a table or text for people on stdout."""
    Console(width=width()).print(answer)


def show_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], *, ruled: bool = False
) -> None:
    """Print a table of texts on stdout; without headings, of names and values."""
    # Texts, not strings: square brackets are markup in rich; ids and paths may contain them.
    table = Table(*headings, title=Text(title), show_header=bool(headings), show_lines=ruled)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    show(table)


def counted(n: int, singular: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{n} {singular}{'' if n == 1 else 's'}"


def width() -> int:
    """Columns of stdout."""
    console = Console()
    # A pipe has no width: tables must not be folded at 80 columns.
    return console.width if console.is_terminal else _PIPE_WIDTH


def show_json(answer: Any) -> None:
    """Print an answer for programs on stdout: one JSON document, NaN as null."""
    typer.echo(json.dumps(_without_nan(answer), indent=1, ensure_ascii=False, allow_nan=False))


def show_error(error: RecsysError) -> None:
    """Print an error on stderr."""
    _tell("error", "bold red", str(error))


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _tell("warning", "bold yellow", text)


class _PlainHandler(logging.Handler):
    """Shows records as the command line's own warnings, so that a text reads alike from both."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "bold yellow" if record.levelno < logging.ERROR else "bold red"
        _tell(record.levelname.lower(), style, record.getMessage())


def set_up_logging(verbosity: int) -> None:
    """Show the library's log on stderr: warnings, information with ``-v``, all with ``-vv``."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    with_time = RichHandler(console=stderr, show_path=False)
    handler = with_time if verbosity else _PlainHandler()
    logger = logging.getLogger("recsys_ms")
    logger.handlers = [handler]
    logger.setLevel(level)


class RichProgress:
    """Progress of nested loops as bars on stderr; nothing where stderr is not a terminal."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def track(self, items: Iterable[T], *, total: int | None, description: str) -> Iterator[T]:
        """Yield ``items`` and advance a bar, which disappears when the loop ends."""
        bar = self._bars.add_task(description, total=total)
        try:
            for item in items:
                yield item
                self._bars.advance(bar)
        finally:
            self._bars.remove_task(bar)


@contextmanager
def progress_bars() -> Iterator[RichProgress]:
    """Bars that live as long as the block."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bars:
        yield RichProgress(bars)


def _tell(kind: str, style: str, text: str) -> None:
    stderr.print(Text.assemble((f"{kind}:", style), " ", text), soft_wrap=True)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
