"""The task that a verb is asked about, and the options that say it: id, card, images, outcomes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_ms.cli.console import progress_bars, warn
from recsys_ms.cli.options import DEFAULT_CACHE, read_task_card
from recsys_ms.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from recsys_ms.catalog.cards import TaskCard
    from recsys_ms.serving.question import Constraints
    from recsys_ms.serving.ranker import Ranker

TaskOption = Annotated[
    str | None, typer.Option("--task", "-t", help="A task of the history, or a new name.")
]
ArtifactOption = Annotated[
    Path | None,
    typer.Option("--artifact", help="A saved ranker, in place of the registry's current one."),
]
CardOption = Annotated[
    Path | None, typer.Option("--card", help="JSON file that describes a new task.")
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", help="A folder or Parquet file of images of the task, labelled or not."
    ),
]
NamesOption = Annotated[
    str | None, typer.Option("--names", help="Names of the task's classes, separated by commas.")
]
ProxyOption = Annotated[
    str,
    typer.Option(
        "--proxy", help="What looks at them: embedded, NAME=TAG of open_clip, or a folder."
    ),
]
MaxImagesOption = Annotated[int, typer.Option("--max-images", help="Images to look at, at most.")]
ObservedOption = Annotated[
    list[str] | None,
    typer.Option("--observed", help="MODEL=VALUE already reached on the task; repeat it."),
]
ScoresOption = Annotated[
    Path | None,
    typer.Option("--catalog", "-C", help="Folder with scores of the task (recsys-ms score)."),
]
MaxParamsOption = Annotated[
    float | None, typer.Option("--max-params", help="Most parameters, in millions.")
]
MaxGmacsOption = Annotated[float | None, typer.Option("--max-gmacs", help="Most GMACs.")]
LicencesOption = Annotated[
    list[str] | None, typer.Option("--licence", help="An accepted licence; repeat it.")
]


def asked_ranker(artifact: Path | None, registry: Path, scores: Path | None) -> "Ranker":
    """The saved ranker, or the one in service, with the scores of a catalog where one is named."""
    from recsys_ms.serving.ranker import Ranker
    from recsys_ms.serving.registry import Registry

    ranker = Ranker.load(artifact) if artifact else Registry.open(registry).load_current()
    if scores is not None:
        from recsys_ms.catalog.score_table import ScoreTable

        ranker.add_scores(ScoreTable.read(scores))
    return ranker


def named_task(
    task: str | None, card: Path | None, images: Path | None
) -> "tuple[str, TaskCard | None]":
    """Id of the task that the options name, and its card where one is given.

    Raises
    ------
    UsageError
        No option names a task.
    DataError
        Not a card.
    """
    described = None if card is None else read_task_card(card)
    name = task or (described.task_id if described else None)
    if name is None and images is not None:
        name = images.resolve().stem
    if name is None:
        raise UsageError("which task? give --task NAME, --images PATH, or --card FILE")
    return name, described


def seen_task(
    ranker: "Ranker",
    card: "TaskCard | None",
    name: str,
    *,
    images: Path | None,
    names: str | None,
    proxy: str,
    max_images: int,
) -> "TaskCard | None":
    """The card with what the proxy sees in images and names of classes, where they are given.

    Raises
    ------
    DataError
        The ranker's tasks were looked at by another proxy, or by none.
    """
    if images is None and names is None:
        return card
    from recsys_ms.catalog.cards import TaskCard

    return _seen(card or TaskCard(task_id=name), images, names, proxy, max_images, ranker)


def _seen(
    card: "TaskCard",
    images: Path | None,
    names: str | None,
    source: str,
    max_images: int,
    ranker: "Ranker",
) -> "TaskCard":
    """The card with what the proxy sees in the images and names.

    Raises
    ------
    DataError
        The ranker's tasks were looked at by another proxy, or by none.
    """
    # Loads what reads images and class names, which most questions do without.
    from recsys_ms.cold_start.proxy import Proxy

    known = ranker.proxy
    if known is None:
        raise DataError(
            "the ranker knows nothing of its tasks' images or class names; put them on their "
            "cards (recsys-ms embed images PATH --task T --out CATALOG) and train again"
        )
    classes = None if names is None else [each.strip() for each in names.split(",")]
    with progress_bars() as progress:
        seen = Proxy(source, cache=DEFAULT_CACHE / "proxy").task_embedding(
            images, classes, max_images, progress=progress
        )
    if seen.source != known:
        raise DataError(
            f"--proxy {source} is {seen.source}, and the ranker's tasks were looked at by {known}; "
            "name that one, or embed the tasks anew and train again"
        )
    for path in seen.left_out:
        warn(f"{path}: left out, it cannot be read as an image")
    return seen.on(replace(card, class_names=card.class_names or tuple(classes or ()) or None))


def asked_constraints(
    max_params: float | None, max_gmacs: float | None, licences: list[str] | None
) -> "Constraints":
    """What a recommended model must meet."""
    from recsys_ms.serving.question import Constraints

    return Constraints(max_params=max_params, max_gmacs=max_gmacs, licences=tuple(licences or ()))
