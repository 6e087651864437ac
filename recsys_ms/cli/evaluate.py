"""``recsys-ms evaluate``: how good rankers are on a history, honestly split."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from recsys_ms.catalog.catalog import Catalog
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
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.coverage import coverage_markdown, coverage_rich, coverage_table
from recsys_ms.evaluation.named_protocols import PROTOCOL_NAMES, make_protocol
from recsys_ms.evaluation.result import ORACLE, POPULARITY, RANDOM, STATIC
from recsys_ms.evaluation.result_table import comparison_markdown, comparison_table
from recsys_ms.history.interactions import Interactions, OnTwoMetrics
from recsys_ms.rankers.ranker_names import RANKER_NAMES, SPEC_HELP, split_specs


def evaluate(
    history: HistoryOption = DEFAULT_HISTORY,
    catalog: CatalogOption = None,
    protocol: Annotated[
        str, typer.Option(help=f"One of {', '.join(PROTOCOL_NAMES)}.")
    ] = "leave-one-task-out",
    rankers: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated, from {', '.join(RANKER_NAMES)}. Variants: {SPEC_HELP}."
        ),
    ] = "popularity,nmf,lr,fm,gbdt,auto",
    n_observed: Annotated[
        int | None, typer.Option(help="leave-one-task-out: runs revealed of the held-out task.")
    ] = None,
    max_tasks: Annotated[
        int | None, typer.Option(help="leave-one-task-out: tasks held out at most.")
    ] = None,
    history_fraction: Annotated[
        float | None,
        typer.Option(help="leave-one-task-out: share of the other tasks' outcomes to train on."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="tasks.FIELD, models.FIELD or scores: as if nobody knew it; repeat it."),
    ] = None,
    n_repeats: Annotated[
        int | None, typer.Option(help="unseen-models, settings-1 and -3: random splits.")
    ] = None,
    group_by: Annotated[
        Literal["family"] | None, typer.Option(help="unseen-models: hold out whole families.")
    ] = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="unseen-models: share of models held out.")
    ] = None,
    train_fraction: Annotated[
        float | None, typer.Option(help="settings-1 and -3: share of the task's models known.")
    ] = None,
    before: Annotated[
        list[str] | None, typer.Option(help="temporal: train on runs finished before (ISO 8601).")
    ] = None,
    metric: MetricOption = None,
    on_two_metrics: Annotated[
        OnTwoMetrics,
        typer.Option(help="A task with several metrics: ask, or take the most frequent."),
    ] = "error",
    seed: SeedOption = 0,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Also check how many outcomes intervals hold.")
    ] = False,
    coverage: Annotated[
        float, typer.Option(help="With --intervals: share of outcomes they are made to hold.")
    ] = 0.8,
    against: Annotated[
        str, typer.Option(help="The ranker that + and − compare with, task by task paired.")
    ] = POPULARITY,
    executor: Annotated[str, typer.Option(help=f"{EXECUTORS}.")] = "serial",
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Also write the result as JSON; - for stdout.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown.")] = False,
) -> None:
    """Back-test rankers; popularity, random, static and oracle rows are always there."""
    names = split_specs(rankers)
    if not names:
        raise UsageError(f"--rankers names none; choose from {', '.join(RANKER_NAMES)}")
    rows = tuple(dict.fromkeys((POPULARITY, RANDOM, STATIC, *names, ORACLE)))
    if against not in rows:
        raise UsageError(f"--against {against}: no such row; there are {', '.join(rows)}")
    opened = open_history(history)
    runs = opened.runs()
    split = make_protocol(
        protocol,
        n_observed=n_observed,
        max_tasks=max_tasks,
        history_fraction=history_fraction,
        n_repeats=n_repeats,
        group_by=group_by,
        test_fraction=test_fraction,
        train_fraction=train_fraction,
        runs=runs,
        before=before,
    )
    interactions = Interactions.from_runs(runs, metric=metric, on_two_metrics=on_two_metrics)
    with progress_bars() as progress:
        result = backtest(
            interactions,
            catalog=_forgetting(open_catalog(catalog), without or ()),
            protocol=split,
            rankers=names,
            seed=seed,
            executor=make_executor(executor),
            progress=progress,
            history_version=opened.version,
            keep=names if intervals else (),
            coverage=coverage,
        )
    result = result.against(against)
    document = result.to_json()
    if json_out is not None and str(json_out) == "-":
        show_json(document)
        return
    if json_out is not None:
        write_atomic(json_out, json.dumps(document, indent=1, allow_nan=False).encode())
    show(comparison_markdown(result) if markdown else comparison_table(result))
    if intervals:
        held = coverage_table(result)
        show(coverage_markdown(held) if markdown else coverage_rich(held))


def _forgetting(catalog: Catalog | None, fields: Sequence[str]) -> Catalog | None:
    """The catalog without the fields that ``--without`` names."""
    if not fields:
        return catalog
    if catalog is None:
        raise UsageError("--without takes fields from cards: give a --catalog")
    named: dict[str, list[str]] = {"models": [], "tasks": []}
    for text in fields:
        if text == "scores":
            continue
        kind, _, name = text.partition(".")
        if kind not in named or not name:
            raise UsageError(f"--without {text}: wanted tasks.FIELD, models.FIELD or scores")
        named[kind].append(name)
    return catalog.without(models=named["models"], tasks=named["tasks"], scores="scores" in fields)
