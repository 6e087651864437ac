"""The question of ``recommend`` and ``suggest``: a task, its ranker, and what a model must meet."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from recsys_ms.cli.console import progress_bars, warn
from recsys_ms.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_REGISTRY,
    KeyFileOption,
    MetricOption,
    RegistryOption,
    open_registry,
    parse_observed,
    read_task_card,
)
from recsys_ms.cold_start import EMBEDDED, MAX_IMAGES
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import JsonDict

if TYPE_CHECKING:
    from recsys_ms.catalog.cards import TaskCard
    from recsys_ms.serving.ranker import Ranker


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """The arguments of :meth:`recsys_ms.Ranker.recommend` and :meth:`recsys_ms.Ranker.suggest`."""

    task: Annotated[
        str | None, Option("--task", "-t", help="A task of the history, or a new name.")
    ] = None
    observed: Annotated[
        list[str] | None,
        Option(help="MODEL=VALUE already reached on the task, in its metric; may be repeated."),
    ] = None
    card: Annotated[Path | None, Option(help="JSON file that describes a new task.")] = None
    images: Annotated[
        Path | None,
        Option(help="A folder or Parquet file of images of the task, labelled or not."),
    ] = None
    names: Annotated[
        str | None, Option(help="Names of the task's classes, separated by commas.")
    ] = None
    proxy: Annotated[
        str,
        Option(help="Model that embeds the images: embedded, NAME=TAG of open_clip, or a folder."),
    ] = EMBEDDED
    max_images: Annotated[int, Option(help="Most images to embed.")] = MAX_IMAGES
    registry: RegistryOption = DEFAULT_REGISTRY
    key_file: KeyFileOption = None
    artifact: Annotated[
        Path | None, Option(help="A saved ranker, in place of the one in service.")
    ] = None
    catalog: Annotated[
        Path | None,
        Option("--catalog", "-C", help="Folder with scores of the task (recsys-ms score)."),
    ] = None
    metric: MetricOption = None
    max_params: Annotated[float | None, Option(help="Most parameters, in millions.")] = None
    max_gmacs: Annotated[float | None, Option(help="Most GMACs.")] = None
    licences: Annotated[
        list[str] | None, Option("--licence", help="An accepted licence; may be repeated.")
    ] = None

    def read(self) -> "tuple[Ranker, str, dict[str, Any]]":
        """Load the ranker, and return it with the name of the task and the other arguments."""
        described = None if self.card is None else read_task_card(self.card)
        name = self.task or (described.task_id if described else None)
        if name is None and self.images is not None:
            name = self.images.resolve().stem
        if name is None:
            raise UsageError("no task is named; give --task NAME, --images PATH, or --card FILE")
        observed = parse_observed(self.observed or ())
        # Loads pandas, which a question that cannot be read does without.
        from recsys_ms.serving.question import Constraints

        ranker = self._ranker()
        limits = Constraints(
            max_params=self.max_params,
            max_gmacs=self.max_gmacs,
            licences=tuple(self.licences or ()),
        )
        card = self._embedded(described, name, ranker)
        known = {"observed": observed, "card": card, "metric": self.metric, "constraints": limits}
        return ranker, name, known

    def facts(self, ranker: "Ranker", name: str) -> JsonDict:
        """The head of an answer for programs."""
        return {
            "task": name,
            "known_task": name in ranker.task_ids,
            "artifact": str(self.artifact or self.registry),
            "history_version": ranker.manifest.get("history_version"),
        }

    def _ranker(self) -> "Ranker":
        from recsys_ms.serving.ranker import Ranker
        from recsys_ms.serving.signature import read_key

        if self.artifact is not None:
            key = None if self.key_file is None else read_key(self.key_file)
            ranker = Ranker.load(self.artifact, key=key)
        else:
            ranker = open_registry(self.registry, self.key_file).load_current()
        if self.catalog is not None:
            from recsys_ms.catalog.score_table import ScoreTable

            ranker.add_scores(ScoreTable.read(self.catalog))
        return ranker

    def _embedded(self, card: "TaskCard | None", name: str, ranker: "Ranker") -> "TaskCard | None":
        """The card with embeddings of images and class names, where they are given."""
        if self.images is None and self.names is None:
            return card
        # Loads what reads images and class names, which most questions do without.
        from recsys_ms.catalog.cards import TaskCard
        from recsys_ms.cold_start.proxy import Proxy

        if ranker.proxy is None:
            raise DataError(
                "the ranker was trained without images or class names of its tasks; put them on "
                "their cards (recsys-ms embed images PATH --task T --out CATALOG) and train again"
            )
        classes = None if self.names is None else [each.strip() for each in self.names.split(",")]
        with progress_bars() as progress:
            seen = Proxy(self.proxy, cache=DEFAULT_CACHE / "proxy").task_embedding(
                self.images, classes, self.max_images, progress=progress
            )
        if seen.source != ranker.proxy:
            raise DataError(
                f"--proxy {self.proxy} is {seen.source}, but the ranker's tasks were embedded by "
                f"{ranker.proxy}; give that one, or embed the tasks again and train again"
            )
        for path in seen.left_out:
            warn(f"{path}: left out, it cannot be read as an image")
        card = card or TaskCard(task_id=name)
        return seen.on(replace(card, class_names=card.class_names or tuple(classes or ()) or None))
