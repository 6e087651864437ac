"""What the nightly job reports: values from its summary, the history and the published ranker."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
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
from recsys_ms.nightly.settings import NightlyConfig
from recsys_ms.report.frames import thinned
from recsys_ms.report.learning import CURVE_COLUMNS, learning_curve
from recsys_ms.report.matrix import run_matrix
from recsys_ms.report.missing import missing_runs
from recsys_ms.report.report_data import Decided, ReportData, TrainedOn, best_ranker
from recsys_ms.report.space_chart import transfer_map
from recsys_ms.report.write import write_report
from recsys_ms.serving.artifact import read_manifest
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker
from recsys_ms.serving.registry import Registry
from recsys_ms.serving.training_data import interactions_of

_log = logging.getLogger(__name__)

SUMMARY_FILE: Final = "summary.json"
REPORT_FILE: Final = "report.html"
#: Predictions that a manifest keeps; a back-test of many tasks and models makes millions.
_MAX_PREDICTIONS: Final = 20_000
_N_REASONS: Final = 5


def last_summary(root: Path) -> JsonDict | None:
    """Summary of the nightly run before; ``None`` where there is none that can be read."""
    try:
        found = json.loads((root / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # The first night, or a summary that a person has edited: the report does without.
        return None
    return found if isinstance(found, dict) else None


def summary_of_manifest(folder: Path) -> JsonDict:
    """What the manifest of a published ranker says of the night it was made in.

    Raises
    ------
    ArtifactError
        The manifest cannot be read.
    """
    manifest = read_manifest(folder)
    decision = manifest.get("decision", {})
    return {
        "outcome": "published",
        "reason": decision.get("reason", "it was trained and published by hand"),
        "started_at": manifest.get("trained_at", ""),
        "version": int(folder.name) if folder.name.isdigit() else None,
        **{
            name: manifest.get(name)
            for name in ("history_version", "n_tasks", "n_models", "n_interactions", "backtest")
        },
        "checks": manifest.get("checks", []),
        "seconds": manifest.get("seconds", {}),
    }


def capped(result: BacktestResult) -> BacktestResult:
    """The back-test with as many predictions as a manifest should hold, each task thinned alike."""
    return replace(result, predictions=thinned(result.predictions, _MAX_PREDICTIONS, result.seed))


def count_runs(history: History) -> int:
    """Runs of the history, whatever became of them."""
    return int(history.query("SELECT count(*) AS n FROM runs")["n"].iloc[0])


def measure_growth(
    config: NightlyConfig,
    interactions: Interactions,
    catalog: Catalog,
    *,
    digest: str,
    previous: Mapping[str, Any] | None,
    executor: Executor | None = None,
    progress: Progress = NO_PROGRESS,
) -> JsonDict | None:
    """Learning curve, as the summary keeps it; the one of before where nothing has changed.

    Parameters
    ----------
    config : NightlyConfig
    interactions : Interactions
    catalog : Catalog
    digest : str
        Of everything the candidate is learned from.
    previous : mapping or None
        The ``learning_curve`` of the summary before.
    executor : Executor, optional
        Where its folds run; default here, one after the other.
    progress : Progress

    Returns
    -------
    dict or None
        ``digest``, ``settings`` and ``rows``, column by column; ``None`` where no ranker is to be
        measured.
    """
    settings = config.report
    if not settings.learning_curve:
        return None
    asked = {
        "rankers": list(settings.learning_curve),
        "fractions": list(settings.fractions),
        "max_tasks": settings.max_tasks,
    }
    before = dict(previous) if isinstance(previous, Mapping) else {}
    if before.get("digest") == digest and before.get("settings") == asked and "rows" in before:
        return before
    frame = learning_curve(
        interactions,
        catalog,
        rankers=settings.learning_curve,
        fractions=settings.fractions,
        max_tasks=settings.max_tasks,
        seed=config.ranker.seed,
        executor=executor,
        progress=progress,
    )
    rows = frame.astype(object).where(frame.notna(), None)
    return {
        "digest": digest,
        "settings": asked,
        "rows": {name: rows[name].tolist() for name in CURVE_COLUMNS},
    }


def collect(
    summary: Mapping[str, Any],
    *,
    registry: Registry | None,
    history: History | None,
    catalog: Catalog | None,
    settings: RankerConfig | None = None,
    interactions: Interactions | None = None,
    result: BacktestResult | None = None,
) -> ReportData:
    """Put together what a report shows.

    Parameters
    ----------
    summary : mapping
        Of a nightly run, as ``summary.json`` has it; empty where there was none.
    registry : Registry or None
        Where the ranker in service is, which is asked what to run next.
    history : History or None
    catalog : Catalog or None
    settings : RankerConfig, optional
        How to read the history's outcomes. Default: those of the ranker in service.
    interactions : Interactions, optional
        The outcomes, where they have been read already.
    result : BacktestResult, optional
        A back-test to show instead of the summary's.

    Raises
    ------
    DataError
        The history holds no outcome that can be read, or the back-test is none.
    ArtifactError
        The ranker in service is damaged.
    """
    notes: dict[str, str] = {}
    shown = result
    if shown is None and summary.get("backtest") is not None:
        shown = BacktestResult.from_json(summary["backtest"])
    published = registry is not None and registry.current_folder() is not None
    ranker = registry.load_current() if registry is not None and published else None
    if ranker is None:
        notes["missing"] = "No ranker is in service that could say which run is worth making."
    if history is not None and interactions is None:
        chosen = settings or (ranker.config if ranker else RankerConfig(on_two_metrics="most-runs"))
        interactions = interactions_of(
            history, chosen, catalog if catalog is not None else Catalog.empty()
        )
    missing = pd.DataFrame()
    if ranker is not None and interactions is not None:
        missing = missing_runs(ranker, interactions)
        notes.update(_about_missing(missing, interactions))
    elif ranker is not None:
        notes["missing"] = "The history is not at hand, so nobody knows which runs are missing."
    if interactions is None:
        notes["map"] = notes["coverage"] = "The history is not at hand."
    made = None if result is not None else _decided(summary, ranker)
    if result is not None:
        notes["decision"] = "No decision: this report is of a back-test that was given to it."
    focus = ""
    if shown is not None:
        focus = CANDIDATE if CANDIDATE in shown.rankers else best_ranker(shown)
    return ReportData(
        title="recsys-ms: nightly report" if result is None else "recsys-ms: back-test report",
        made_at=str(summary.get("started_at", "")),
        trained=_trained(summary, history, catalog, interactions),
        decision=made,
        result=shown,
        focus=focus,
        curve=_curve(summary, notes),
        space=pd.DataFrame() if interactions is None else transfer_map(interactions),
        matrix=None if interactions is None else run_matrix(interactions),
        missing=missing,
        seconds=summary.get("seconds", {}),
        peak_mib=summary.get("peak_mib"),
        warnings=tuple(summary.get("warnings", ())),
        notes=notes,
    )


def write_nightly_report(root: Path, data: ReportData) -> Path:
    """Write the report beside the rankers; see :func:`write_report` for what it raises."""
    path = root / REPORT_FILE
    write_report(path, data)
    return path


def _about_missing(missing: pd.DataFrame, interactions: Interactions) -> dict[str, str]:
    n_missing, n_tasks = missing.attrs["n_missing"], missing.attrs["n_tasks"]
    if n_missing == 0:
        return {"missing": "No run is missing: every model has been run on every task."}
    if missing.empty:
        return {"missing": "Nothing can be predicted of the missing runs."}
    if n_tasks < interactions.n_tasks:
        text = f"Of {interactions.n_tasks} tasks, {n_tasks} with missing runs were looked at."
        return {"missing": text}
    return {}


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
    counts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    n_waiting: int | None = None
    if history is not None:
        by_status = history.query("SELECT status, count(*) AS n FROM runs GROUP BY status")
        counts = {str(s): int(n) for s, n in zip(by_status["status"], by_status["n"], strict=True)}
        rejects = history.quarantine.table()
        waiting = rejects[~rejects["resolved"].astype(bool)]
        n_waiting = len(waiting)
        most = waiting["reason"].value_counts().head(_N_REASONS)
        reasons = {str(reason): int(n) for reason, n in most.items()}
    version = summary.get("history_version")
    return TrainedOn(
        history_version=history.version if version is None and history is not None else version,
        n_runs=sum(counts.values()) if history is not None else None,
        n_failed_runs=counts.get("failed", 0) if history is not None else None,
        n_new_runs=summary.get("n_new_runs"),
        n_quarantined=n_waiting,
        quarantine_reasons=reasons,
        n_tasks=_known(summary, "n_tasks", interactions),
        n_models=_known(summary, "n_models", interactions),
        n_interactions=_known(summary, "n_interactions", interactions),
        n_model_cards=None if catalog is None else len(catalog.models),
        n_task_cards=None if catalog is None else len(catalog.tasks),
    )


def _known(summary: Mapping[str, Any], name: str, interactions: Interactions | None) -> int | None:
    if summary.get(name):
        return int(summary[name])
    return None if interactions is None else int(getattr(interactions, name))


def _curve(summary: Mapping[str, Any], notes: dict[str, str]) -> pd.DataFrame:
    kept = summary.get("learning_curve")
    if not isinstance(kept, Mapping) or "rows" not in kept:
        notes["learning"] = (
            "No learning curve was measured; the nightly job does, with [report] learning_curve."
        )
        return pd.DataFrame()
    return pd.DataFrame(kept["rows"], columns=list(CURVE_COLUMNS))
