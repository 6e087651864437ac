"""Options that several verbs share, and how their texts are read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_ms.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from recsys_ms.catalog.cards import TaskCard
    from recsys_ms.catalog.catalog import Catalog
    from recsys_ms.history.history import History

HistoryOption = Annotated[
    Path,
    typer.Option("--history", "-H", help="Folder of the history.", show_default=True),
]
RegistryOption = Annotated[
    Path, typer.Option("--registry", "-R", help="Folder of published rankers.", show_default=True)
]
CatalogOption = Annotated[
    Path | None,
    typer.Option("--catalog", "-C", help="Folder of model and task cards."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]
MetricOption = Annotated[
    str | None,
    typer.Option("--metric", help="Use runs of this metric, where tasks have several."),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Source of every random choice.")]

MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="FIELD=TEMPLATE, such as 'model_id={arch}@{source}'; of a log, value={SERIES}.",
    ),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE for every row.")]

#: Where commands without folders work: the embedded history, and what is learned from it.
DEFAULT_HISTORY = Path("recsys-ms-data") / "history"
DEFAULT_REGISTRY = Path("recsys-ms-data") / "registry"
#: Features and vectors by content.
DEFAULT_CACHE = Path("~/.cache/recsys-ms")


def open_history(path: Path) -> "History":
    """Open a history that must exist."""
    from recsys_ms.history.history import History

    return History.open(path, create=False)


def open_catalog(path: Path | None) -> "Catalog":
    """Read a catalog, or an empty one without a path."""
    from recsys_ms.catalog.catalog import Catalog

    return Catalog.empty() if path is None else Catalog.read(path)


def read_task_card(path: Path) -> "TaskCard":
    """Read one task card from a JSON file.

    Raises
    ------
    DataError
        The file cannot be read, or does not hold one card.
    """
    from recsys_ms.catalog.catalog import Catalog

    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: no valid JSON ({error})") from error
    try:
        cards = Catalog.from_jsonl("", json.dumps(card))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if len(cards.tasks) != 1:
        raise DataError(f'{path}: wanted one card, such as {{"task_id": "birds"}}')
    return cards.task_card(str(cards.tasks.index[0]))


def parse_observed(texts: Iterable[str]) -> dict[str, float]:
    """Read ``MODEL=VALUE`` options; a model id may hold equals signs itself.

    Raises
    ------
    UsageError
        No equals sign, a value that is no number, or a model twice.
    """
    observed: dict[str, float] = {}
    for text in texts:
        model, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not equals or not model or number != number:
            raise UsageError(f"--observed {text!r}: wanted MODEL=VALUE, such as resnet50=0.91")
        if model in observed:
            raise UsageError(f"--observed: model {model!r} is given twice; keep one value")
        observed[model] = number
    return observed
