"""``recsys-ms simulate``: replay ways of choosing runs on a history."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recsys_ms.cli.console import progress_bars, show, show_json
from recsys_ms.cli.options import (
    DEFAULT_HISTORY,
    CatalogOption,
    HistoryOption,
    MetricOption,
    SeedOption,
    open_catalog,
    open_history,
)
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import EXECUTORS, make_executor
from recsys_ms.core.files import write_atomic
from recsys_ms.evaluation.simulation import Simulation
from recsys_ms.evaluation.simulation import simulate as replay
from recsys_ms.history.interactions import Interactions, OnTwoMetrics


def simulate(
    history: HistoryOption = DEFAULT_HISTORY,
    catalog: CatalogOption = None,
    policies: Annotated[
        str,
        typer.Option(
            help="Comma-separated rankers, asked again after each outcome; RANKER+ei follows the "
            "expected improvement, RANKER+plan what suggest plans for a budget."
        ),
    ] = "gp,gp+ei,auto,auto+ei",
    runs: Annotated[int, typer.Option(min=1, help="Runs to replay.")] = 10,
    budgets: Annotated[
        str | None,
        typer.Option(
            help="GPU seconds in place of runs, in units of the task's average run, such as "
            "1,3,5,10."
        ),
    ] = None,
    max_tasks: Annotated[int | None, typer.Option(help="Tasks held out at most.")] = None,
    metric: MetricOption = None,
    on_two_metrics: Annotated[
        OnTwoMetrics,
        typer.Option(help="A task with several metrics: ask, or take the most frequent."),
    ] = "error",
    seed: SeedOption = 0,
    executor: Annotated[str, typer.Option(help=f"{EXECUTORS}.")] = "serial",
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Also write every regret as JSON; - for stdout.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown.")] = False,
) -> None:
    """Replay ways of choosing runs: the regret after 1, 3, 5 and 10 runs on a held-out task.

    Random and popularity order are always there.
    """
    names = [name.strip() for name in policies.split(",") if name.strip()]
    if not names:
        raise UsageError("--policies names none; give rankers, such as gp or gp+ei")
    amounts = [_amount(text) for text in budgets.split(",")] if budgets is not None else []
    table = open_history(history).runs()
    interactions = Interactions.from_runs(table, metric=metric, on_two_metrics=on_two_metrics)
    with progress_bars() as progress:
        found = replay(
            interactions,
            catalog=open_catalog(catalog),
            policies=names,
            n_runs=runs,
            budgets=amounts,
            max_tasks=max_tasks,
            seed=seed,
            executor=make_executor(executor),
            progress=progress,
        )
    document = {
        "seed": seed,
        "by_cost": found.by_cost,
        "regret": found.regret.to_dict(orient="records"),
    }
    if json_out is not None and str(json_out) == "-":
        show_json(document)
        return
    if json_out is not None:
        write_atomic(json_out, json.dumps(document, indent=1, allow_nan=False).encode())
    after = tuple(amounts) or (1, 3, 5, 10)
    show(found.markdown(after) if markdown else _table(found, after))


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--budgets: {text!r} is no number; give some such as 1,3,5,10") from error


def _table(found: Simulation, after: Sequence[float]) -> Table:
    head, *rows = found.lines(after)
    shown = Table(
        title="regret on a task nobody has seen"
        + (", by GPU seconds (unit: the task's average run)" if found.by_cost else ""),
        caption="Mean over tasks [95 % bootstrap interval over tasks]; + / − better / worse than "
        "popularity, where the interval of the paired difference leaves out 0.",
        caption_justify="left",
    )
    for name in head:
        shown.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    return shown
