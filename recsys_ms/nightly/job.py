"""The nightly job: ingest, read, recall, train, judge, publish, report.

Each of the seven steps takes the :class:`Night` that the steps before it made, and returns it with
its own result. The job can be killed at any point: readers see a new ranker only when one pointer
is renamed, and the next job continues with what a killed one had finished (ingested runs, a judged
candidate, an artifact that was moved and not yet pointed to).
"""

import hashlib
import json
import logging
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Final

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, LockedError, RecsysError, StorageError
from recsys_ms.core.executor import Executor, kept_open, make_executor
from recsys_ms.core.lock import file_lock
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.temporary import discard
from recsys_ms.core.types import JsonDict
from recsys_ms.core.version import package_version
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.contestants import Contestant
from recsys_ms.evaluation.named_protocols import make_protocol
from recsys_ms.evaluation.result import POPULARITY, BacktestResult
from recsys_ms.history.diagnosis import pairing_problem
from recsys_ms.history.findings import findings_of, first_of
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.nightly.challenge import challenge
from recsys_ms.nightly.decision import CANDIDATE, CURRENT, decide
from recsys_ms.nightly.night_report import REPORT_FILE, capped, collect, measure_growth
from recsys_ms.nightly.night_summary import NightlySummary, is_judgement, last_summary
from recsys_ms.nightly.settings import NightlyConfig
from recsys_ms.rankers.ranker_names import make_ranker
from recsys_ms.report.report_data import at_the_cost_of, reason_in_words
from recsys_ms.report.write import write_report
from recsys_ms.serving.artifact import read_manifest
from recsys_ms.serving.config import RankerConfig, interactions_of
from recsys_ms.serving.ranker import Ranker
from recsys_ms.serving.registry import Registry, Version
from recsys_ms.serving.signature import read_key

_log = logging.getLogger(__name__)

#: Held for the whole night, so that no second job starts. The registry's own lock, which a rollback
#: takes too, is held only while the job writes there.
NIGHT_LOCK: Final = ".night.lock"
_WAIT_SECONDS: Final = 10.0
_DIGEST: Final = "candidate_digest"
_RECIPE: Final = "recipe_digest"
_N_NAMED_TASKS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What the steps of a night hand on.

    Attributes
    ----------
    summary, previous
        Summaries of this night, to which each step adds, and of the one before.
    outcomes : callable
        Returns the interactions, which the first call reads: a night without news needs none.
    digest : str
        Identifies the candidate by its runs, cards, settings and version of this package.
    ranker : Ranker or None
        The candidate, trained and not yet judged.
    manifest : dict
        Manifest of the judged candidate; empty before.
    version : Version or None
        The judged candidate where an earlier job moved it into the registry. Else it is in
        :attr:`staged`.
    """

    config: NightlyConfig
    registry: Registry
    executor: Executor
    progress: Progress
    summary: NightlySummary
    previous: JsonDict
    history: History
    catalog: Catalog
    outcomes: Callable[[], Interactions]
    digest: str
    ranker: Ranker | None = None
    manifest: JsonDict = field(default_factory=dict)
    version: Version | None = None

    @property
    def staged(self) -> Path:
        """Folder of the candidate until it is published."""
        return self.registry.staging_folder(self.digest)

    @contextmanager
    def writing(self) -> Iterator[Registry]:
        """The registry, locked for as long as the job writes to it."""
        with self.registry.lock(timeout_seconds=_WAIT_SECONDS):
            yield self.registry


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
        Shows training and back-test.
    on_decided : callable, optional
        Called with the summary once the ranker in service is known, before the report is made.

    Returns
    -------
    NightlySummary
        ``outcome`` is ``kept`` where the candidate was worse than the published ranker or than
        popularity; it is then dropped.

    Raises
    ------
    LockedError
        Another nightly job is running on this registry.
    DataError
        There is no history or catalog, one of them is damaged, there is no finished run to learn
        from, or runs of one task only. A registry that was not there is not made then.
    StorageError
        A folder cannot be written.
    """
    summary = NightlySummary(started_at=datetime.now(UTC).isoformat(timespec="seconds"))
    # Before anything is made or moved: a name that was mistyped.
    key = None if config.key_file is None else read_key(config.key_file)
    history = History.open(config.history, create=False)
    catalog = Catalog.read(config.catalog) if config.catalog else Catalog.empty()
    # The same processes judge the candidate and measure the learning curve.
    with (
        _registry(config.registry, key) as registry,
        file_lock(registry.root / NIGHT_LOCK),
        kept_open(make_executor(config.backtest.executor)) as executor,
    ):
        ingest(history, summary)
        night = read(config, history, catalog, registry, summary, executor, progress)
        night = recall(night)
        night = train(night)
        night = judge(night)
        publish(night)
        try:
            if on_decided is not None:
                on_decided(summary)
        finally:
            report(night)
    return summary


@contextmanager
def _registry(root: Path, key: bytes | None) -> Iterator[Registry]:
    """The registry, made for this job if need be; a job that fails leaves no empty one behind."""
    is_new = not os.path.lexists(root)
    registry = Registry.open(root, create=True, key=key)
    try:
        yield registry
    except LockedError:
        # It belongs to the job that holds the lock.
        raise
    except BaseException:
        if is_new and registry.is_empty():
            shutil.rmtree(root, ignore_errors=True)
        raise


def ingest(history: History, summary: NightlySummary) -> None:
    """Step 1: move the inbox into the history, and compact the history's small files."""
    with summary.timed("ingest"):
        summary.ingest = asdict(history.ingest_inbox())
    with summary.timed("compact"):
        try:
            history.compact()
        except StorageError as error:
            # Small files make reading slow; they do not prevent training.
            summary.warn(str(error))


def read(
    config: NightlyConfig,
    history: History,
    catalog: Catalog,
    registry: Registry,
    summary: NightlySummary,
    executor: Executor,
    progress: Progress,
) -> Night:
    """Step 2: check the runs, and say which candidate they make."""
    previous = last_summary(registry.root)
    with summary.timed("read"):
        summary.history_version = history.version
        summary.warnings += _check_runs(history, config)
        for text in first_of(findings_of(history)):
            summary.warn(text)
        summary.n_runs = int(history.query("SELECT count(*) AS n FROM runs")["n"].iloc[0])
        if isinstance(previous.get("n_runs"), int):
            summary.n_new_runs = summary.n_runs - previous["n_runs"]
    return Night(
        config=config,
        registry=registry,
        executor=executor,
        progress=progress,
        summary=summary,
        previous=previous,
        history=history,
        catalog=catalog,
        outcomes=cache(partial(interactions_of, history, config.ranker, catalog)),
        digest=_digest([_recipe(config.ranker, catalog), config.procedure(), history.version]),
    )


def recall(night: Night) -> Night:
    """Step 3: find the candidate where an earlier job has judged or published it already."""
    registry, staged = night.registry, night.staged
    with night.writing():
        registry.sweep(keep_staged=night.digest)
    version = registry.find(_DIGEST, night.digest)
    # A damaged version is trained again, and gets a number of its own.
    if (
        version is not None
        and is_judgement(version.manifest)
        and registry.is_intact(version.folder)
    ):
        is_newest = version.number == registry.versions()[-1].number
        if version.is_current or is_newest or version.folder.name == registry.unfinished:
            return replace(night, manifest=version.manifest, version=version)
    if registry.is_intact(staged):
        manifest = read_manifest(staged)
        # A refusal was in favour of a published ranker; where that is gone, judge again.
        if is_judgement(manifest) and (
            manifest["decision"]["publish"] or _published(registry)[0] is not None
        ):
            return replace(night, manifest=manifest)
    if os.path.lexists(staged):
        discard(staged)
    return night


def train(night: Night) -> Night:
    """Step 4: train the candidate."""
    return night if night.manifest else replace(night, ranker=_fit(night, night.config.ranker))


def judge(night: Night) -> Night:
    """Step 5: compare the candidate with popularity and the published ranker, and save it."""
    config, summary, ranker = night.config, night.summary, night.ranker
    if ranker is None:
        return night
    in_service, newer = _challenge(night)
    with summary.timed("back-test"):
        result = capped(_backtest(night, None if newer else in_service))
    decision = decide(result, config.publish, has_published=in_service is not None, newer=newer)
    if decision.fall_back_to_popularity:
        # Nothing is published yet, and popularity serves better than no ranker.
        ranker = _fit(night, replace(config.ranker, ranker=POPULARITY, params={}))
    judgement = asdict(decision)
    ranker.save(
        night.staged,
        manifest={
            _DIGEST: night.digest,
            _RECIPE: _recipe(ranker.config, night.catalog),
            "history_version": summary.history_version,
            "backtest": result.to_json(),
            "newer": None if newer is None else newer.to_json(),
            "checks": judgement.pop("checks"),
            "decision": judgement,
            "seconds": summary.seconds,
        },
        key=night.registry.key,
    )
    return replace(night, ranker=None, manifest=read_manifest(night.staged))


def publish(night: Night) -> None:
    """Step 6: put the candidate into service, or keep the ranker that is; delete old versions."""
    summary, version, decision = night.summary, night.version, night.manifest["decision"]
    with night.writing() as registry, summary.timed("publish"):
        if version is None and decision["publish"]:
            registry.publish(night.staged)
            summary.outcome, summary.reason = "published", decision["reason"]
        elif version is None:
            summary.outcome, summary.reason = "kept", decision["reason"]
        elif version.is_current:
            summary.outcome = "unchanged"
            summary.reason = "no new run, card, setting or version of recsys-ms since it was made"
        elif version.folder.name == registry.unfinished:
            registry.point_to(version.folder)
            summary.outcome = "published"
            summary.reason = "finished the publication that an earlier job was killed in"
        elif registry.current_folder() is None:
            registry.point_to(version.folder)
            summary.outcome = "published"
            summary.reason = "no ranker was in service any more: the pointer to it was lost"
        else:
            # A person put an earlier version back: the job must not undo that.
            summary.outcome = "unchanged"
            summary.reason = f"version {version.number} was rolled back, and nothing is new since"
        summary.pruned = registry.prune(night.config.publish.keep_versions)
        current = registry.current_folder()
    summary.version = int(current.name) if current else None
    summary.judged(night.manifest)
    summary.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _log.info("%s: %s", summary.outcome, summary.reason)


def report(night: Night) -> None:
    """Step 7: write the report and the summary; what was published stands without them."""
    summary = night.summary
    try:
        if night.config.report.html:
            _write_report(night)
    except Exception as error:  # noqa: BLE001
        _log.debug("report", exc_info=True)
        summary.warn(f"no report was written: {reason_in_words(error)}")
    summary.write(night.registry.root)


def _write_report(night: Night) -> None:
    config, summary = night.config, night.summary
    failures: dict[str, str] = {}
    with at_the_cost_of("learning", failures), summary.timed("learning curve"):
        summary.learning_curve = measure_growth(
            config.report,
            night.outcomes(),
            night.catalog,
            seed=config.ranker.seed,
            digest=night.digest,
            previous=night.previous.get("learning_curve"),
            executor=night.executor,
            progress=night.progress,
        )
    with summary.timed("report"):
        page = collect(
            asdict(summary),
            registry=night.registry,
            history=night.history,
            catalog=night.catalog if config.catalog else None,
            interactions=night.outcomes(),
        )
        page.failures.update(failures)
        write_report(night.registry.root / REPORT_FILE, page)
        summary.report = str(night.registry.root / REPORT_FILE)
    for key, reason in page.failures.items():
        summary.warn(f"the section {key!r} of the report could not be made: {reason}")


def _check_runs(history: History, config: NightlyConfig) -> list[str]:
    """Warnings about tasks with several metrics; refuses runs that nothing can be learned from."""
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
            "but a ranker is judged on tasks it was not trained on; log runs of a second task, or "
            "train without judging with 'recsys-ms train'"
        )
    problem = pairing_problem(history, config.ranker.metric)
    if problem is not None:
        raise DataError(f"{config.history}: {problem}")
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


def _recipe(config: RankerConfig, catalog: Catalog) -> str:
    """Digest of all that a ranker depends on besides its runs."""
    known = [*catalog.to_jsonl(), catalog.scores.to_json()]
    # Another version of this package may learn differently from the same runs.
    return _digest(["recsys-ms", package_version(), asdict(config), *known])


def _digest(document: object) -> str:
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fit(night: Night, config: RankerConfig) -> Ranker:
    with night.summary.timed("train"):
        return Ranker(config).fit(night.outcomes(), night.catalog, progress=night.progress)


def _published(registry: Registry) -> tuple[Ranker | None, str]:
    """The ranker in service, or why it cannot be used; neither where there is none."""
    current = registry.current_folder()
    if current is None:
        return None, ""
    try:
        ranker = Ranker.load(current, key=registry.key)
        ranker.check()
    except RecsysError as error:
        # Damaged, not signed, or saved by a version that this one cannot read.
        return None, str(error)
    return ranker, ""


def _challenge(night: Night) -> tuple[str | None, BacktestResult | None]:
    """Ranker in service, and its comparison with the candidate's recipe on newer outcomes."""
    config, summary = night.config.ranker, night.summary
    # Loaded here and not before: a third ranker need not be in memory during the back-test.
    published, damage = _published(night.registry)
    if published is None:
        if damage:
            summary.warn(f"the published ranker cannot be used and is replaced: {damage}")
        return None, None
    with summary.timed("newer outcomes"):
        newer = challenge(
            published,
            config,
            night.history,
            night.catalog,
            now=night.outcomes(),
            same_recipe=published.manifest.get(_RECIPE) == _recipe(config, night.catalog),
        )
    return published.config.spec, newer


def _backtest(night: Night, in_service: str | None) -> BacktestResult:
    """Back-test the candidate's procedure, the given one and popularity on today's history."""
    config, settings = night.config.ranker, night.config.backtest
    rankers: dict[str, Contestant] = {CANDIDATE: partial(make_ranker, config.ranker, config.params)}
    # The same procedure gives the same numbers on the same folds: nothing to compare.
    if in_service is not None and in_service != config.spec:
        rankers[CURRENT] = in_service
    return backtest(
        night.outcomes(),
        catalog=night.catalog,
        protocol=make_protocol(
            "leave-one-task-out", n_observed=settings.n_observed, max_tasks=settings.max_tasks
        ),
        rankers=rankers,
        seed=config.seed,
        executor=night.executor,
        progress=night.progress,
        history_version=night.history.version,
        keep=[CANDIDATE] if night.config.report.intervals else (),
        coverage=config.coverage,
    )
