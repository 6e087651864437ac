"""``recsys-ms recommend``: which models to fine-tune on a task."""

import math
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from recsys_ms.cli.asked_task import (
    ArtifactOption,
    CardOption,
    ImagesOption,
    LicencesOption,
    MaxGmacsOption,
    MaxImagesOption,
    MaxParamsOption,
    NamesOption,
    ObservedOption,
    ProxyOption,
    ScoresOption,
    TaskOption,
    asked_constraints,
    asked_ranker,
    named_task,
    seen_task,
)
from recsys_ms.cli.console import show, show_json, width
from recsys_ms.cli.options import (
    DEFAULT_REGISTRY,
    JsonFlag,
    MetricOption,
    RegistryOption,
    parse_observed,
)
from recsys_ms.cold_start.defaults import EMBEDDED, MAX_IMAGES

if TYPE_CHECKING:
    import pandas as pd

#: Below this many columns the reasons stand under the table.
_WIDE: Final = 120


def recommend(
    task: TaskOption = None,
    registry: RegistryOption = DEFAULT_REGISTRY,
    artifact: ArtifactOption = None,
    card: CardOption = None,
    images: ImagesOption = None,
    names: NamesOption = None,
    proxy: ProxyOption = EMBEDDED,
    max_images: MaxImagesOption = MAX_IMAGES,
    observed: ObservedOption = None,
    catalog: ScoresOption = None,
    metric: MetricOption = None,
    top: Annotated[int, typer.Option(help="Number of models.", min=1)] = 10,
    max_params: MaxParamsOption = None,
    max_gmacs: MaxGmacsOption = None,
    licences: LicencesOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank models for a task: its id, its images, names of its classes, a card, observed runs."""
    name, described = named_task(task, card, images)
    reached = parse_observed(observed or ())
    ranker = asked_ranker(artifact, registry, catalog)
    described = seen_task(
        ranker, described, name, images=images, names=names, proxy=proxy, max_images=max_images
    )
    answer = ranker.recommend(
        name,
        observed=reached,
        card=described,
        metric=metric,
        top=top,
        constraints=asked_constraints(max_params, max_gmacs, licences),
    )
    is_known = name in ranker.task_ids
    if as_json:
        show_json(
            {
                "task": name,
                "known_task": is_known,
                "artifact": str(artifact or registry),
                "history_version": ranker.manifest.get("history_version"),
                "coverage": ranker.config.coverage,
                "nearest_tasks": answer.attrs["nearest_tasks"],
                "models": answer.to_dict(orient="records"),
            }
        )
    else:
        for near in answer.attrs["nearest_tasks"]:
            show(Text(f"like {near['task_id']}: similarity {near['similarity']:.2f}"))
        show(_table(answer, name, coverage=ranker.config.coverage, is_known=is_known))
        if width() < _WIDE:
            for row in answer.to_dict(orient="records"):
                show(Text(f"{row['rank']}. {row['model_id']}", style="bold"))
                for reason in row["reasons"]:
                    show(Padding(Text(reason), (0, 0, 0, 3)))


def _table(answer: "pd.DataFrame", task: str, *, coverage: float, is_known: bool) -> Table:
    kind = "known task" if is_known else "new task"
    is_wide = width() >= _WIDE
    shown = Table(title=Text(f"models for {task} ({kind})"), show_lines=is_wide)
    shown.add_column("#", justify="right", no_wrap=True)
    shown.add_column("model", overflow="fold")
    numbers = {
        "predicted": [f"{value:.4f}" for value in answer["predicted"]],
        f"{coverage:.0%} interval": [
            f"{low:.4f} … {high:.4f}"
            for low, high in zip(answer["low"], answer["high"], strict=True)
        ],
        "reached": [_number(value, ".4f") for value in answer["observed"]],
        "parameters": [_millions(value) for value in answer["n_parameters"]],
        "GMACs": [_number(value, ".3f") for value in answer["gmacs"]],
    }
    # A column in which nothing is known only takes room.
    told = {name: texts for name, texts in numbers.items() if any(texts)}
    for name in told:
        shown.add_column(name, justify="right", no_wrap=True)
    if is_wide:
        shown.add_column("why")
    for i, (rank, model) in enumerate(zip(answer["rank"], answer["model_id"], strict=True)):
        why = [Text("\n".join(answer["reasons"].iloc[i]))] if is_wide else []
        shown.add_row(str(rank), Text(model), *(texts[i] for texts in told.values()), *why)
    return shown


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def _millions(value: float) -> str:
    return "" if math.isnan(value) else f"{value / 1e6:.2f} M"
