"""``recsys-ms evaluate``: how good rankers are on held-out tasks of a history."""

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cli.console import progress_bars
from recsys_ms.cli.experiment_options import ExperimentOptions
from recsys_ms.cli.options import open_history
from recsys_ms.core.errors import UsageError
from recsys_ms.core.executor import make_executor
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.coverage import coverage_markdown, coverage_rich, coverage_table
from recsys_ms.evaluation.named_protocols import PROTOCOL_NAMES, make_protocol
from recsys_ms.evaluation.result import ORACLE, POPULARITY, RANDOM, STATIC
from recsys_ms.evaluation.result_table import comparison_markdown, comparison_table
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.ranker_names import RANKER_NAMES, SPEC_HELP, split_specs


def evaluate(
    experiment: ExperimentOptions,
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
        typer.Option(help="Leave out tasks.FIELD, models.FIELD or scores; may be repeated."),
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
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Also check the coverage of the intervals.")
    ] = False,
    coverage: Annotated[
        float, typer.Option(help="With --intervals: their nominal coverage.")
    ] = 0.8,
    against: Annotated[
        str, typer.Option(help="Ranker to compare with, paired by task; marked + and −.")
    ] = POPULARITY,
) -> None:
    """Back-test rankers, with rows of popularity, random, static and oracle to compare with."""
    names = split_specs(rankers)
    if not names:
        raise UsageError(f"--rankers is empty; choose from {', '.join(RANKER_NAMES)}")
    rows = tuple(dict.fromkeys((POPULARITY, RANDOM, STATIC, *names, ORACLE)))
    if against not in rows:
        raise UsageError(f"--against {against}: unknown row; choose from {', '.join(rows)}")
    history = open_history(experiment.history)
    runs = history.runs()
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
    interactions = Interactions.from_runs(
        runs, metric=experiment.metric, on_two_metrics=experiment.on_two_metrics
    )
    with progress_bars() as progress:
        result = backtest(
            interactions,
            catalog=_without(experiment, without or ()),
            protocol=split,
            rankers=names,
            seed=experiment.seed,
            executor=make_executor(experiment.executor),
            progress=progress,
            history_version=history.version,
            keep=names if intervals else (),
            coverage=coverage,
        )
    result = result.against(against)
    tables = [comparison_markdown(result) if experiment.markdown else comparison_table(result)]
    if intervals:
        held = coverage_table(result)
        tables.append(coverage_markdown(held) if experiment.markdown else coverage_rich(held))
    experiment.show(result.to_json(), *tables)


def _without(experiment: ExperimentOptions, fields: Sequence[str]) -> Catalog:
    """The catalog without the fields that ``--without`` names."""
    catalog = experiment.cards()
    if not fields:
        return catalog
    if experiment.catalog is None:
        raise UsageError("--without removes fields of cards: give a --catalog")
    named: dict[str, list[str]] = {"models": [], "tasks": []}
    for text in fields:
        if text == "scores":
            continue
        kind, _, name = text.partition(".")
        if kind not in named or not name:
            raise UsageError(f"--without {text}: expected tasks.FIELD, models.FIELD or scores")
        named[kind].append(name)
    return catalog.without(models=named["models"], tasks=named["tasks"], scores="scores" in fields)
