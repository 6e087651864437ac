"""``recsys-ms suggest``: what to fine-tune next."""

from typing import TYPE_CHECKING, Annotated

import typer
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
from recsys_ms.cli.console import show, show_json
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


def suggest(
    task: TaskOption = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Runs that can be made; 5 unless --cost is given.")
    ] = None,
    cost: Annotated[
        float | None,
        typer.Option(help="GPU seconds that can be spent: runs are planned to fit into them."),
    ] = None,
    observed: ObservedOption = None,
    registry: RegistryOption = DEFAULT_REGISTRY,
    artifact: ArtifactOption = None,
    card: CardOption = None,
    images: ImagesOption = None,
    names: NamesOption = None,
    proxy: ProxyOption = EMBEDDED,
    max_images: MaxImagesOption = MAX_IMAGES,
    catalog: ScoresOption = None,
    metric: MetricOption = None,
    max_params: MaxParamsOption = None,
    max_gmacs: MaxGmacsOption = None,
    licences: LicencesOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Suggest the next models to fine-tune on a task, so that the best is found soonest.

    Tell it each outcome by --observed (or log the run) and ask again.
    """
    name, described = named_task(task, card, images)
    reached = parse_observed(observed or ())
    ranker = asked_ranker(artifact, registry, catalog)
    described = seen_task(
        ranker, described, name, images=images, names=names, proxy=proxy, max_images=max_images
    )
    answer = ranker.suggest(
        name,
        budget=budget,
        cost=cost,
        observed=reached,
        card=described,
        metric=metric,
        constraints=asked_constraints(max_params, max_gmacs, licences),
    )
    if as_json:
        show_json(
            {
                "task": name,
                "known_task": name in ranker.task_ids,
                "artifact": str(artifact or registry),
                "history_version": ranker.manifest.get("history_version"),
                "models": answer.to_dict(orient="records"),
            }
        )
    else:
        show(_table(answer, name))


def _table(answer: "pd.DataFrame", task: str) -> Table:
    shown = Table(title=Text(f"next runs on {task}"))
    shown.add_column("#", justify="right", no_wrap=True)
    shown.add_column("model", overflow="fold")
    # A column in which nothing is known only takes room.
    timed = bool(answer["expected_cost"].notna().any())
    names = ("predicted", "interval", "expected gain", "best of all", "GPU seconds")
    for name in names if timed else names[:-1]:
        shown.add_column(name, justify="right", no_wrap=True)
    for row in answer.to_dict(orient="records"):
        cost = [f"{row['expected_cost']:.3g}"] if timed else []
        shown.add_row(
            str(row["rank"]),
            Text(row["model_id"]),
            f"{row['predicted']:.4f}",
            f"{row['low']:.4f} … {row['high']:.4f}",
            f"{row['gain']:.4f}",
            f"{row['p_best']:.0%}",
            *cost,
        )
    return shown
