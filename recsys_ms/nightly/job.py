"""The retraining job: lock, ingest, compact, train, back-test, publish or keep, prune, report.

Every step can be killed. Nothing is visible to readers before one rename, and what a killed job had
finished (ingested runs, a judged candidate, an artifact moved but not yet pointed to) is found and
used by the next one.
"""

import hashlib
import json
import logging
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import ArtifactError, DataError, RecsysError, StorageError
from recsys_ms.core.executor import Executor, kept_open, make_executor
from recsys_ms.core.files import write_atomic
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.types import JsonDict
from recsys_ms.core.version import package_version
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.named_protocols import make_protocol
from recsys_ms.evaluation.result import POPULARITY, BacktestResult
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.nightly.challenge import challenge
from recsys_ms.nightly.decision import CANDIDATE, CURRENT, Decision, decide
from recsys_ms.nightly.night_report import (
    SUMMARY_FILE,
    capped,
    collect,
    count_runs,
    last_summary,
    measure_growth,
    write_nightly_report,
)
from recsys_ms.nightly.settings import NightlyConfig
from recsys_ms.rankers.ranker_names import make_ranker
from recsys_ms.serving.artifact import read_manifest
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker
from recsys_ms.serving.registry import Registry
from recsys_ms.serving.training_data import interactions_of

_log = logging.getLogger(__name__)

_DIGEST: Final = "candidate_digest"
_RECIPE: Final = "recipe_digest"
_N_NAMED_TASKS: Final = 10
Outcome: TypeAlias = Literal["published", "kept", "unchanged"]


@dataclass(slots=True, kw_only=True)
class NightlySummary:
    """What a nightly run did; written to ``summary.json`` in the registry.

    Attributes
    ----------
    outcome : {"published", "kept", "unchanged"}
        ``unchanged``: neither runs, cards, settings nor the version of this package changed since
        the published ranker.
    reason : str
        Why.
    started_at : str
        UTC, ISO 8601.
    version : int or None
        Published version that readers get now.
    history_version : int
        Version of the history that was read.
    ingest : dict
        Counts of the inbox's ingest.
    n_tasks, n_models, n_interactions : int
        What the candidate was trained on.
    n_runs : int
        Runs of the history, failed ones too.
    n_new_runs : int or None
        Runs more than at the last summary; ``None`` where there is none.
    checks : list of dict
        Each comparison of the decision.
    decided_by : str
        ``newer outcomes`` where the published ranker and the candidate's recipe were compared on
        what was run since the published one was trained, ``back-test`` where there was too little
        of it: then the procedures are compared on tasks held out of today's history.
    newer : dict or None
        The comparison on newer outcomes, ``current`` against ``candidate``, as ``backtest`` is.
    backtest : dict or None
        The whole back-test, as ``evaluate --json`` writes it.
    pruned : list of int
        Versions deleted.
    learning_curve : dict or None
        How good quick rankers are on parts of the history, see
        :func:`recsys_ms.nightly.night_report.measure_growth`.
    report : str
        Path of the HTML report; empty where none was written.
    warnings : list of str
        What a person should look at: tasks with several metrics, a damaged published ranker.
    seconds : dict of str to float
        Wall clock of each step.
    peak_mib : float
        Peak memory of the process.
    """

    outcome: Outcome = "kept"
    reason: str = ""
    started_at: str = ""
    version: int | None = None
    history_version: int = 0
    ingest: JsonDict = field(default_factory=dict)
    n_tasks: int = 0
    n_models: int = 0
    n_interactions: int = 0
    n_runs: int = 0
    n_new_runs: int | None = None
    checks: list[JsonDict] = field(default_factory=list)
    decided_by: str = ""
    newer: JsonDict | None = None
    backtest: JsonDict | None = None
    pruned: list[int] = field(default_factory=list)
    learning_curve: JsonDict | None = None
    report: str = ""
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0


def run_nightly(
    config: NightlyConfig,
    *,
    progress: Progress = NO_PROGRESS,
    on_decided: Callable[[NightlySummary], None] | None = None,
) -> NightlySummary:
    """Bring the published ranker up to date with the history.

    Parameters
    ----------
    config : NightlyConfig
    progress : Progress
        Told about training and back-test.
    on_decided : callable, optional
        Called with the summary as it is once it is known which ranker is in service: the report
        takes its time, and the ranker answers already.

    Returns
    -------
    NightlySummary
        ``outcome`` is ``kept`` where the candidate was worse than the published ranker or than
        popularity; it is then dropped.

    Raises
    ------
    LockedError
        Another nightly job is at work on this registry.
    DataError
        No finished run to learn from, or runs of one task only.
    StorageError
        A folder cannot be written.
    """
    summary = NightlySummary(started_at=datetime.now(UTC).isoformat(timespec="seconds"))
    registry = Registry.open(config.registry, create=True)
    # The same processes judge the candidate and measure the learning curve.
    with registry.lock(), kept_open(make_executor(config.backtest.executor)) as executor:
        previous = last_summary(registry.root) or {}
        with _timed(summary, "ingest"):
            history = History.open(config.history)
            summary.ingest = asdict(history.ingest_inbox())
        with _timed(summary, "compact"):
            _compact(history, summary)
        with _timed(summary, "read"):
            summary.history_version = history.version
            catalog = Catalog.read(config.catalog) if config.catalog else Catalog.empty()
            summary.warnings += _look_over(history, config)
            summary.n_runs = count_runs(history)
            if isinstance(previous.get("n_runs"), int):
                summary.n_new_runs = summary.n_runs - previous["n_runs"]

        @cache
        def outcomes() -> Interactions:
            # Read by the first step that needs them: a night without news needs none.
            return interactions_of(history, config.ranker, catalog)

        digest = _digest(config, history.version, catalog)
        registry.sweep(keep_staged=digest)
        if not _finish_killed_publish(registry, digest, summary):
            _train_and_decide(
                config, registry, history, outcomes, catalog, digest, summary, executor, progress
            )
        summary.pruned = registry.prune(config.publish.keep_versions)
        current = registry.current_folder()
        summary.version = int(current.name) if current else None
        summary.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if on_decided is not None:
            on_decided(summary)
        if config.report.html:
            _report(
                config,
                registry,
                history,
                outcomes,
                catalog,
                digest,
                summary,
                previous,
                executor,
                progress,
            )
        write_atomic(registry.root / SUMMARY_FILE, json.dumps(asdict(summary), indent=1).encode())
    return summary


def _report(
    config: NightlyConfig,
    registry: Registry,
    history: History,
    outcomes: Callable[[], Interactions],
    catalog: Catalog,
    digest: str,
    summary: NightlySummary,
    previous: JsonDict,
    executor: Executor,
    progress: Progress,
) -> None:
    """Write the report; what was decided and published stands without it."""
    known = catalog if config.catalog else None
    try:
        interactions = outcomes()
        with _timed(summary, "learning curve"):
            summary.learning_curve = measure_growth(
                config,
                interactions,
                catalog,
                digest=digest,
                previous=previous.get("learning_curve"),
                executor=executor,
                progress=progress,
            )
        with _timed(summary, "report"):
            data = collect(
                asdict(summary),
                registry=registry,
                history=history,
                catalog=known,
                interactions=interactions,
            )
            summary.report = str(write_nightly_report(registry.root, data))
    except RecsysError as error:
        _log.warning("%s", error)
        summary.warnings.append(f"no report was written: {error}")


def _compact(history: History, summary: NightlySummary) -> None:
    """Put small files together; a job that can train does not stop because it could not."""
    try:
        history.compact()
    except StorageError as error:
        _log.warning("%s", error)
        summary.warnings.append(str(error))


def _look_over(history: History, config: NightlyConfig) -> list[str]:
    """What to say about the runs before training; refuses a history that nothing can judge."""
    counts = history.query(
        "SELECT task_id, metric, count(*) AS n FROM runs "
        "WHERE status = 'finished' AND value IS NOT NULL "
        "GROUP BY ALL ORDER BY task_id, n DESC, metric"
    )
    if config.ranker.metric is not None:
        counts = counts[counts["metric"] == config.ranker.metric]
    if counts["task_id"].nunique() == 1:
        raise DataError(
            f"{config.history}: all finished runs are of one task ({counts['task_id'].iloc[0]!r}), "
            "and a ranker is judged on tasks it was not trained on; log runs of a second task, or "
            "train without a judgement with 'recsys-ms train'"
        )
    several = [group for _, group in counts.groupby("task_id") if len(group) > 1]
    found = [
        f"task {group['task_id'].iloc[0]!r}: learned from {group['metric'].iloc[0]!r} "
        f"({group['n'].iloc[0]} runs), left out {', '.join(map(repr, group['metric'].iloc[1:]))}; "
        "set [ranker] metric to choose"
        for group in several[:_N_NAMED_TASKS]
    ]
    if len(several) > _N_NAMED_TASKS:
        found.append(f"{len(several) - _N_NAMED_TASKS} more tasks have several metrics")
    return found


def _digest(config: NightlyConfig, history_version: int, catalog: Catalog) -> str:
    """Of all that the candidate and the judgement of it follow from."""
    return _short([_recipe(config.ranker, catalog), config.procedure(), history_version])


def _recipe(config: RankerConfig, catalog: Catalog) -> str:
    """Digest of what a ranker follows from besides its runs."""
    known = [*catalog.to_jsonl(), catalog.scores.to_json()]
    # Another version of this package may learn otherwise from the same runs.
    return _short(["recsys-ms", package_version(), asdict(config), *known])


def _short(document: object) -> str:
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finish_killed_publish(registry: Registry, digest: str, summary: NightlySummary) -> bool:
    """Whether the candidate of this digest is published already; ends a publish that was killed."""
    version = registry.find(_DIGEST, digest)
    if version is None or not registry.is_intact(version.folder):
        # Damaged since: the same candidate is trained again and gets a number of its own.
        return False
    if version.is_current:
        summary.outcome = "unchanged"
        summary.reason = "nothing is new since the published ranker: run, card, setting, recsys-ms"
    elif version.folder.name == registry.unfinished:
        registry.point_to(version.folder)
        summary.outcome = "published"
        summary.reason = "finished the publication that an earlier job was killed in"
    elif version.number == registry.versions()[-1].number:
        # A person put an earlier one back: this job must not undo that.
        summary.outcome = "unchanged"
        summary.reason = f"version {version.number} was rolled back, and nothing is new since"
    else:
        return False
    _tell_decision(summary, version.manifest)
    for name in ("n_tasks", "n_models", "n_interactions"):
        setattr(summary, name, version.manifest[name])
    return True


def _train_and_decide(
    config: NightlyConfig,
    registry: Registry,
    history: History,
    outcomes: Callable[[], Interactions],
    catalog: Catalog,
    digest: str,
    summary: NightlySummary,
    executor: Executor,
    progress: Progress,
) -> None:
    staged = registry.staging_folder(digest)
    published = _published_ranker(registry, summary)
    if not _is_usable(registry, staged, has_published=published is not None):
        if staged.exists():
            shutil.rmtree(staged, ignore_errors=True)
        with _timed(summary, "train"):
            ranker = Ranker(config.ranker).fit(outcomes(), catalog, progress=progress)
        newer, has_published = None, published is not None
        if published is not None:
            with _timed(summary, "newer outcomes"):
                newer = challenge(
                    published,
                    config.ranker,
                    history,
                    catalog,
                    now=outcomes(),
                    same_recipe=published.manifest.get(_RECIPE) == _recipe(config.ranker, catalog),
                )
        in_service = published.config.spec if published is not None and newer is None else None
        # Two rankers need not lie in memory while a third is judged.
        del published
        with _timed(summary, "back-test"):
            result = capped(
                _backtest(config, in_service, history, outcomes(), catalog, executor, progress)
            )
        decision = decide(result, config.publish, has_published=has_published, newer=newer)
        if decision.fall_back_to_popularity:
            # Nothing is published yet, and no ranker at all helps nobody: popularity is never
            # worse than itself.
            with _timed(summary, "train"):
                simple = replace(config.ranker, ranker=POPULARITY, params={})
                ranker = Ranker(simple).fit(outcomes(), catalog, progress=progress)
        ranker.save(
            staged,
            manifest={
                _DIGEST: digest,
                _RECIPE: _recipe(ranker.config, catalog),
                "history_version": summary.history_version,
                "backtest": result.to_json(),
                "newer": None if newer is None else newer.to_json(),
                "decision": decision.to_json(),
                "checks": [asdict(check) for check in decision.checks],
                "seconds": summary.seconds,
            },
        )
    manifest = read_manifest(staged)
    made = Decision.from_json(manifest["decision"], manifest["checks"])
    _tell_decision(summary, manifest)
    summary.reason = made.reason
    for name in ("n_tasks", "n_models", "n_interactions"):
        setattr(summary, name, manifest[name])
    if made.publish:
        with _timed(summary, "publish"):
            registry.publish(staged)
        summary.outcome = "published"
    else:
        summary.outcome = "kept"
    _log.info("%s: %s", summary.outcome, summary.reason)


def _is_usable(registry: Registry, staged: Path, *, has_published: bool) -> bool:
    """Whether an earlier job left the judged candidate of this digest."""
    if not staged.exists() or not registry.is_intact(staged):
        return False
    # A refusal was in favour of a published ranker; where that is gone, judge again.
    return has_published or bool(read_manifest(staged)["decision"]["publish"])


def _backtest(
    config: NightlyConfig,
    published: str | None,
    history: History,
    interactions: Interactions,
    catalog: Catalog,
    executor: Executor,
    progress: Progress,
) -> BacktestResult:
    """Compare procedures on today's history: the candidate's, the published one's, popularity."""
    rankers = {CANDIDATE: config.ranker.make}
    # The same procedure on the same folds gives the same numbers: nothing to compare.
    if published is not None and published != config.ranker.spec:
        rankers[CURRENT] = partial(make_ranker, published)
    settings = config.backtest
    return backtest(
        interactions,
        catalog=catalog,
        protocol=make_protocol(
            "leave-one-task-out", n_observed=settings.n_observed, max_tasks=settings.max_tasks
        ),
        rankers=rankers,
        seed=config.ranker.seed,
        executor=executor,
        progress=progress,
        history_version=history.version,
        keep=[CANDIDATE] if config.report.intervals else (),
        coverage=config.ranker.coverage,
    )


def _tell_decision(summary: NightlySummary, manifest: JsonDict) -> None:
    """Put what a manifest says of its decision into the summary."""
    summary.backtest, summary.newer = manifest.get("backtest"), manifest.get("newer")
    summary.checks = manifest.get("checks", [])
    summary.decided_by = manifest.get("decision", {}).get("decided_by", "")


def _published_ranker(registry: Registry, summary: NightlySummary) -> Ranker | None:
    """The ranker in service; ``None`` where there is none, or none that can be read."""
    current = registry.current_folder()
    if current is None:
        return None
    try:
        return Ranker.load(current)
    except (ArtifactError, OSError) as error:
        # A damaged ranker serves nobody, nor does one of a version that this one cannot read: the
        # candidate is compared with popularity alone.
        _log.warning("%s", error)
        summary.warnings.append(f"the published ranker {current} is damaged and is replaced")
        return None


@contextmanager
def _timed(summary: NightlySummary, step: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        spent = time.perf_counter() - started
        summary.seconds[step] = round(summary.seconds.get(step, 0.0) + spent, 3)
