"""``recsys-ms nightly``: retrain on new runs, and publish the ranker if it is not worse."""

import shlex
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from recsys_ms.cli.console import progress_bars, show, show_json, show_table, warn
from recsys_ms.cli.options import (
    DEFAULT_HISTORY,
    DEFAULT_REGISTRY,
    CatalogOption,
    JsonFlag,
    KeyFileOption,
    open_registry,
)
from recsys_ms.core.errors import RefusedError
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.evaluation.result_table import comparison_table
from recsys_ms.history.embedded import embedded_folder, ingest_embedded
from recsys_ms.history.history import History
from recsys_ms.nightly.decision import CURRENT
from recsys_ms.nightly.job import run_nightly
from recsys_ms.nightly.night_summary import NightlySummary
from recsys_ms.nightly.settings import BacktestSettings, NightlyConfig, ReportSettings

#: Tasks that the embedded history holds out.
_FIRST_TASKS: Final = 6
#: Shares of it that the first learning curve is measured at: half as many as usual.
_FIRST_SHARES: Final = (0.25, 1.0)
#: Models that are shown once a ranker is published.
_SHOWN: Final = 3


def nightly(
    history: Annotated[
        Path | None,
        typer.Option("--history", "-H", help="Folder of the history; default: the embedded one."),
    ] = None,
    registry: Annotated[
        Path | None, typer.Option("--registry", "-R", help="Folder of published rankers.")
    ] = None,
    catalog: CatalogOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML; see training/nightly.toml.")
    ] = None,
    key_file: KeyFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Ingest the inbox, train, back-test, and publish if the candidate is not worse.

    Without options it learns from the history that ships with the project, in ./recsys-ms-data.
    Exit code 4: the candidate was worse, or another job is running.
    """
    settings = _settings(history, registry, catalog, config, key_file)
    with progress_bars() as progress:
        # With --json the answer is one document, printed at the end.
        told = None if as_json else partial(_show_answer, settings)
        summary = run_nightly(settings, progress=progress, on_decided=told)
    if as_json:
        show_json(asdict(summary))
    else:
        _show(summary, settings)
    if summary.outcome == "kept":
        raise RefusedError(f"not published: {summary.reason}")


def _settings(
    history: Path | None,
    registry: Path | None,
    catalog: Path | None,
    config: Path | None,
    key_file: Path | None,
) -> NightlyConfig:
    if config is not None:
        return NightlyConfig.from_toml(
            config, history=history, registry=registry, catalog=catalog, key_file=key_file
        )
    # Spawned processes import this command, which is guarded.
    backtest, report = BacktestSettings(executor="processes"), ReportSettings()
    if history is None:
        # A first run must not take a quarter of an hour.
        backtest = replace(backtest, max_tasks=_FIRST_TASKS)
        report = replace(report, fractions=_FIRST_SHARES)
        # The embedded runs are copied into a history, so that runs logged later join them.
        ingest_embedded(History.open(DEFAULT_HISTORY))
        catalog = catalog or embedded_folder()
    return NightlyConfig(
        history=history or DEFAULT_HISTORY,
        registry=registry or DEFAULT_REGISTRY,
        catalog=catalog,
        backtest=backtest,
        report=report,
        key_file=key_file,
    )


def _show_answer(settings: NightlyConfig, summary: NightlySummary) -> None:
    """Show a command that asks the new ranker, and the first models of its answer."""
    if summary.outcome != "published":
        return
    ranker = open_registry(settings.registry, settings.key_file).load_current()
    task = ranker.task_ids[0]
    command = ["recsys-ms", "recommend", "--registry", str(settings.registry), "--task", task]
    show(Text(f"version {summary.version} is published; it answers:"))
    show(Text(f"  {shlex.join(command)}"))
    for place, model in enumerate(ranker.recommend(task, top=_SHOWN)["model_id"], start=1):
        show(Text(f"  {place}. {model}"))


def _decided_by(summary: NightlySummary) -> str:
    if summary.newer is None:
        return f"the {summary.decided_by}"
    compared = "; ".join(
        f"{check['metric']} {check['candidate']:.4f} against {check['other']:.4f}"
        for check in summary.checks
        if check["against"] == CURRENT and None not in (check["candidate"], check["other"])
    )
    return f"{summary.newer['n_tasks']} tasks with {summary.decided_by}: {compared or 'undefined'}"


def _show(summary: NightlySummary, settings: NightlyConfig) -> None:
    if summary.backtest is not None:
        show(comparison_table(BacktestResult.from_json(summary.backtest)))
    ingested = summary.ingest
    steps = ", ".join(f"{step} {spent:.1f} s" for step, spent in summary.seconds.items())
    facts = {
        "why": summary.reason,
        "decided by": _decided_by(summary) if summary.decided_by else "",
        "trained on": f"{summary.n_interactions} interactions of {summary.n_tasks} tasks and "
        f"{summary.n_models} models, history version {summary.history_version}",
        "inbox": f"{ingested['n_new']} new runs, {ingested['n_quarantined']} in quarantine",
        "registry": f"{settings.registry}, version {summary.version}",
        "report": summary.report or "not written",
        "time": f"{steps}; peak memory {summary.peak_mib:.0f} MiB",
    }
    show_table(f"nightly: {summary.outcome}", (), [fact for fact in facts.items() if fact[1]])
    for text in summary.warnings:
        warn(text)
