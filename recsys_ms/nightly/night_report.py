"""The nightly report: its values, from the summary, the history and the published ranker."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.executor import Executor
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.nightly.decision import CANDIDATE
from recsys_ms.nightly.settings import ReportSettings
from recsys_ms.report.frames import thinned
from recsys_ms.report.learning import CURVE_COLUMNS, learning_curve
from recsys_ms.report.matrix import run_matrix
from recsys_ms.report.missing import missing_runs
from recsys_ms.report.report_data import (
    Decided,
    ReportData,
    TrainedOn,
    at_the_cost_of,
    best_ranker,
)
from recsys_ms.report.space_chart import transfer_map
from recsys_ms.serving.config import RankerConfig, interactions_of
from recsys_ms.serving.ranker import Ranker
from recsys_ms.serving.registry import Registry

REPORT_FILE: Final = "report.html"
#: Predictions that a manifest keeps; a back-test of many tasks and models makes millions.
_MAX_PREDICTIONS: Final = 20_000
_N_REASONS: Final = 5


def capped(result: BacktestResult) -> BacktestResult:
    """The back-test with at most 20,000 predictions, each task thinned alike."""
    return replace(result, predictions=thinned(result.predictions, _MAX_PREDICTIONS, result.seed))


def measure_growth(
    settings: ReportSettings,
    interactions: Interactions,
    catalog: Catalog,
    *,
    seed: int,
    digest: str,
    previous: object,
    executor: Executor | None = None,
    progress: Progress = NO_PROGRESS,
) -> JsonDict | None:
    """Learning curve, as the summary keeps it: ``digest``, ``settings``, and ``rows`` by column.

    ``previous`` is the ``learning_curve`` of the last summary. It is returned where the settings
    and ``digest`` (of everything the candidate is learned from) are the same. ``None`` where the
    settings name no ranker.
    """
    if not settings.learning_curve:
        return None
    options: dict[str, Any] = {
        "rankers": list(settings.learning_curve),
        "fractions": list(settings.fractions),
        "max_tasks": settings.max_tasks,
    }
    before = dict(previous) if isinstance(previous, Mapping) else {}
    if before.get("digest") == digest and before.get("settings") == options and "rows" in before:
        return before
    frame = learning_curve(
        interactions, catalog, seed=seed, executor=executor, progress=progress, **options
    )
    rows = frame.astype(object).where(frame.notna(), None)
    return {
        "digest": digest,
        "settings": options,
        "rows": {name: rows[name].tolist() for name in CURVE_COLUMNS},
    }


def collect(
    summary: Mapping[str, Any],
    *,
    registry: Registry | None,
    history: History | None,
    catalog: Catalog | None,
    interactions: Interactions | None = None,
    result: BacktestResult | None = None,
    findings: Sequence[str] = (),
) -> ReportData:
    """Collect what a report shows: of a nightly summary (may be empty), or of ``result``.

    The ranker in service of ``registry`` says which runs to make next, and how to read the outcomes
    of ``history`` unless they are given as ``interactions``. ``findings`` are shown beside the
    warnings of the summary.

    Raises
    ------
    DataError
        The history has no finished run.
    ArtifactError
        The ranker in service is damaged.
    """
    notes: dict[str, str] = {}
    failures: dict[str, str] = {}
    shown = result
    if shown is None and summary.get("backtest") is not None:
        shown = BacktestResult.from_json(summary["backtest"])
    published = registry is not None and registry.current_folder() is not None
    ranker = registry.load_current() if registry is not None and published else None
    if history is not None and interactions is None:
        config = ranker.config if ranker else RankerConfig(on_two_metrics="most-runs")
        interactions = interactions_of(
            history, config, catalog if catalog is not None else Catalog.empty()
        )
    missing = pd.DataFrame()
    if ranker is None:
        notes["missing"] = "No ranker is in service to say which run is worth making."
    elif interactions is None:
        notes["missing"] = "The history is not available, so missing runs are unknown."
    else:
        with at_the_cost_of("missing", failures):
            missing = missing_runs(ranker, interactions)
            if note := _about_missing(missing, interactions):
                notes["missing"] = note
    if interactions is None:
        notes["map"] = notes["coverage"] = "The history is not available."
    if result is not None:
        notes["decision"] = "No decision: this report shows a back-test that was given to it."
    focus = ""
    if shown is not None:
        focus = CANDIDATE if CANDIDATE in shown.rankers else best_ranker(shown)
    curve = summary.get("learning_curve")
    if not isinstance(curve, Mapping) or "rows" not in curve:
        curve = {"rows": None}
        notes["learning"] = (
            "No learning curve was measured; the nightly job does, with [report] learning_curve."
        )
    space, matrix = pd.DataFrame(), None
    if interactions is not None:
        with at_the_cost_of("map", failures):
            space = transfer_map(interactions)
        with at_the_cost_of("coverage", failures):
            matrix = run_matrix(interactions)
    trained = TrainedOn()
    with at_the_cost_of("trained", failures):
        trained = _trained(summary, history, catalog, interactions)
    return ReportData(
        title="recsys-ms: nightly report" if result is None else "recsys-ms: back-test report",
        made_at=str(summary.get("started_at", "")),
        trained=trained,
        decision=None if result is not None else _decided(summary, ranker),
        result=shown,
        focus=focus,
        curve=pd.DataFrame(curve["rows"], columns=list(CURVE_COLUMNS)),
        space=space,
        matrix=matrix,
        missing=missing,
        seconds=summary.get("seconds", {}),
        peak_mib=summary.get("peak_mib"),
        warnings=tuple(dict.fromkeys((*summary.get("warnings", ()), *findings))),
        notes=notes,
        failures=failures,
    )


def _about_missing(missing: pd.DataFrame, interactions: Interactions) -> str:
    """Why the table of missing runs is empty or short; empty where it is complete."""
    n_tasks = missing.attrs["n_tasks"]
    if missing.attrs["n_missing"] == 0:
        return "No run is missing: every model has been run on every task."
    if missing.empty:
        return "Nothing can be predicted of the missing runs."
    if n_tasks < interactions.n_tasks:
        return f"Of {interactions.n_tasks} tasks, {n_tasks} with missing runs were looked at."
    return ""


def _decided(summary: Mapping[str, Any], ranker: Ranker | None) -> Decided | None:
    if "outcome" not in summary:
        return None
    return Decided(
        outcome=str(summary["outcome"]),
        reason=str(summary.get("reason", "")).rstrip("."),
        version=summary.get("version"),
        ranker="" if ranker is None else ranker.config.spec,
        checks=tuple(summary.get("checks", ())),
    )


def _trained(
    summary: Mapping[str, Any],
    history: History | None,
    catalog: Catalog | None,
    interactions: Interactions | None,
) -> TrainedOn:
    facts: dict[str, Any] = {
        "history_version": summary.get("history_version"),
        "n_new_runs": summary.get("n_new_runs"),
    }
    if history is not None:
        by_status = history.query("SELECT status, count(*) AS n FROM runs GROUP BY status")
        counts = by_status.set_index("status")["n"]
        rejects = history.quarantine.table(raw=False)
        waiting = rejects[~rejects["resolved"].astype(bool)]
        most = waiting["reason"].value_counts().head(_N_REASONS)
        facts |= {
            "n_runs": int(counts.sum()),
            "n_failed_runs": int(counts.get("failed", 0)),
            "n_quarantined": len(waiting),
            "quarantine_reasons": {str(reason): int(n) for reason, n in most.items()},
        }
        if facts["history_version"] is None:
            facts["history_version"] = history.version
    for name in ("n_tasks", "n_models", "n_interactions"):
        facts[name] = summary.get(name) or getattr(interactions, name, None)
    if catalog is not None:
        facts |= {"n_model_cards": len(catalog.models), "n_task_cards": len(catalog.tasks)}
    return TrainedOn(**facts)
