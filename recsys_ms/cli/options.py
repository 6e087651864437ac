"""Options that several verbs share: single ones, sets of them, and how their texts are read."""

import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.files import file_errors

if TYPE_CHECKING:
    from recsys_ms.catalog.cards import TaskCard
    from recsys_ms.catalog.catalog import Catalog
    from recsys_ms.history.history import History
    from recsys_ms.serving.registry import Registry

HistoryOption = Annotated[
    Path,
    typer.Option("--history", "-H", help="Folder of the history."),
]
RegistryOption = Annotated[
    Path, typer.Option("--registry", "-R", help="Folder of published rankers.")
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        envvar="RECSYS_MS_KEY_FILE",
        help="File with the key of signed rankers; others are refused.",
    ),
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
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Source of every random choice.")]

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


def expand_option_sets(verb: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a verb that is a dataclass by the fields of that dataclass.

    Verbs share a set of options in this way: the command line of ``suggest(question:
    QuestionOptions, …)`` has an option for each field of ``QuestionOptions``.
    """
    sets: dict[str, type[Any]] = {}
    options: list[inspect.Parameter] = []
    for each in inspect.signature(verb, eval_str=True).parameters.values():
        kind = each.annotation
        if not (isinstance(kind, type) and is_dataclass(kind)):
            options.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        sets[each.name] = kind
        hints = get_type_hints(kind, include_extras=True)
        options += [
            each.replace(
                name=one.name,
                kind=inspect.Parameter.KEYWORD_ONLY,
                default=one.default,
                annotation=hints[one.name],
            )
            for one in fields(kind)
        ]

    @wraps(verb)
    def called(**given: Any) -> None:
        for name, kind in sets.items():
            given[name] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        verb(**given)

    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in options}
    return called


def open_registry(path: Path, key_file: Path | None) -> "Registry":
    """Open a registry; with a key, it reads rankers that are signed with it only."""
    from recsys_ms.serving.registry import Registry
    from recsys_ms.serving.signature import read_key

    return Registry.open(path, key=None if key_file is None else read_key(key_file))


def open_history(path: Path) -> "History":
    """Open a history that must exist, and compare its files with what was written."""
    from recsys_ms.history.history import History

    return History.open(path, create=False).check()


def open_catalog(path: Path | None) -> "Catalog":
    """Read a catalog, or an empty one without a path."""
    from recsys_ms.catalog.catalog import Catalog

    return Catalog.empty() if path is None else Catalog.read(path)


def read_task_card(path: Path) -> "TaskCard":
    """Read one task card from a JSON file; ``DataError`` if it does not hold one."""
    from recsys_ms.catalog.card_files import TASKS

    wanted = 'expected JSON such as {"task_id": "birds"}'
    not_json = (ValueError, TypeError)
    with (
        file_errors(f"{path}: cannot be read", raises=DataError),
        file_errors(f"{path}: not a task card", wanted, catch=not_json, raises=DataError),
    ):
        card = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(card, dict) or "task_id" not in card:
            raise ValueError("no field task_id")
        return TASKS.from_rows([card])[0]


def parse_observed(texts: Iterable[str]) -> dict[str, float]:
    """Read ``MODEL=VALUE`` options; a model id may hold equals signs itself, ``91%`` is 0.91."""
    observed: dict[str, float] = {}
    for text in texts:
        model, equals, value = text.rpartition("=")
        try:
            number = float(value[:-1]) / 100.0 if value.endswith("%") else float(value)
        except ValueError:
            number = float("nan")
        if not equals or not model or number != number:
            raise UsageError(
                f"--observed {text!r}: expected MODEL=VALUE, such as resnet50=0.91 or 91%"
            )
        if model in observed:
            raise UsageError(f"--observed: model {model!r} is given twice; keep one value")
        observed[model] = number
    return observed
