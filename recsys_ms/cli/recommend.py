"""``recsys-ms recommend``: which models to fine-tune on a task."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.table import Table

from recsys_ms.cli.console import show, show_json
from recsys_ms.cli.options import (
    DEFAULT_REGISTRY,
    JsonFlag,
    MetricOption,
    RegistryOption,
    parse_observed,
    read_task_card,
)
from recsys_ms.core.errors import UsageError
from recsys_ms.ranker.answer import Constraints
from recsys_ms.ranker.ranker import Ranker
from recsys_ms.ranker.registry import Registry


def recommend(
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="A task of the history, or a new name.")
    ] = None,
    registry: RegistryOption = DEFAULT_REGISTRY,
    artifact: Annotated[
        Path | None, typer.Option(help="A saved ranker, in place of the registry's current one.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="JSON file that describes a new task.")
    ] = None,
    observed: Annotated[
        list[str] | None,
        typer.Option("--observed", help="MODEL=VALUE already reached on the task; repeat it."),
    ] = None,
    metric: MetricOption = None,
    top: Annotated[int, typer.Option(help="Number of models.", min=1)] = 10,
    max_params: Annotated[
        float | None, typer.Option("--max-params", help="Most parameters, in millions.")
    ] = None,
    max_gmacs: Annotated[float | None, typer.Option("--max-gmacs", help="Most GMACs.")] = None,
    licences: Annotated[
        list[str] | None, typer.Option("--licence", help="An accepted licence; repeat it.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank pre-trained models for a task: its id, a card, or a name with a few observed runs."""
    described = None if card is None else read_task_card(card)
    name = task or (described.task_id if described else None)
    if name is None:
        raise UsageError("which task? give --task NAME, or --card FILE for a new one")
    reached = parse_observed(observed or ())
    ranker = Ranker.load(artifact) if artifact else Registry.open(registry).load_current()
    answer = ranker.recommend(
        name,
        observed=reached,
        card=described,
        metric=metric,
        top=top,
        constraints=Constraints(
            max_params=max_params, max_gmacs=max_gmacs, licences=tuple(licences or ())
        ),
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
                "models": answer.to_dict(orient="records"),
            }
        )
    else:
        show(_table(answer, name, coverage=ranker.config.coverage, is_known=is_known))


def _table(answer: pd.DataFrame, task: str, *, coverage: float, is_known: bool) -> Table:
    kind = "known task" if is_known else "new task"
    shown = Table(title=f"models for {task} ({kind})", show_lines=True)
    for name in ("#", "model"):
        shown.add_column(name, no_wrap=True)
    for name in ("predicted", f"{coverage:.0%} interval", "reached", "parameters", "GMACs"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("why")
    for row in answer.to_dict(orient="records"):
        shown.add_row(
            str(row["rank"]),
            row["model_id"],
            f"{row['predicted']:.4f}",
            f"{row['low']:.4f} … {row['high']:.4f}",
            _number(row["observed"], ".4f"),
            _millions(row["n_parameters"]),
            _number(row["gmacs"], ".3f"),
            "\n".join(row["reasons"]),
        )
    return shown


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)


def _millions(value: float) -> str:
    return "" if pd.isna(value) else f"{value / 1e6:.2f} M"
