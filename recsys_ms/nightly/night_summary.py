"""The summary of a nightly run: ``summary.json`` in the registry."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypedDict
from typing import get_type_hints as type_hints

from recsys_ms.core.declared import check_declared
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import read_regular, write_atomic
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.serving.artifact import read_manifest

_log = logging.getLogger(__name__)

SUMMARY_FILE: Final = "summary.json"
#: The whole back-test is in it.
_MAX_BYTES: Final = 1 << 28
#: Facts about the training data that a manifest and a summary share.
_COUNTS: Final = ("n_tasks", "n_models", "n_interactions")
Outcome: TypeAlias = Literal["published", "kept", "unchanged"]


class _Decided(TypedDict):
    publish: bool
    reason: str
    decided_by: str


class _Check(TypedDict):
    metric: str
    against: str
    candidate: float | None
    other: float | None
    low: float | None
    high: float | None
    passed: bool


#: What :meth:`NightlySummary.judged` and the steps of a night take of a manifest.
_JUDGED: Final[dict[str, Any]] = {
    "decision": _Decided,
    "checks": list[_Check],
    "backtest": JsonDict,
    "newer": JsonDict | None,
    **dict.fromkeys(_COUNTS, int),
}


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
        Version in service after the run.
    history_version : int
        Version of the history that was read.
    ingest : dict
        Counts of the inbox's ingest.
    n_tasks, n_models, n_interactions : int
        What the candidate was trained on.
    n_runs : int
        Runs of the history, failed ones included.
    n_new_runs : int or None
        Runs added since the last summary; ``None`` where there is none.
    checks : list of dict
        Each comparison of the decision.
    decided_by : str
        ``newer outcomes`` where the published ranker and the candidate's recipe were compared on
        runs made since the published one was trained. ``back-test`` where there were too few of
        them: the procedures are then compared on tasks held out of today's history.
    newer : dict or None
        The comparison on newer outcomes, ``current`` against ``candidate``, as ``backtest`` is.
    backtest : dict or None
        The whole back-test, as ``evaluate --json`` writes it.
    pruned : list of int
        Versions deleted.
    learning_curve : dict or None
        Quality of quick rankers on parts of the history, see
        :func:`recsys_ms.nightly.night_report.measure_growth`.
    report : str
        Path of the HTML report; empty where none was written.
    warnings : list of str
        What needs a person's attention: tasks with several metrics, runs that are not
        learned from (:mod:`recsys_ms.history.findings`), a damaged published ranker.
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

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the seconds that the block takes to those of a step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[step] = round(self.seconds.get(step, 0.0) + spent, 3)

    def warn(self, text: str) -> None:
        """Log a warning and keep it."""
        _log.warning("%s", text)
        self.warnings.append(text)

    def judged(self, manifest: JsonDict) -> None:
        """Copy the facts about training and judgement from a candidate's manifest."""
        for name in ("backtest", "newer", "checks", *_COUNTS):
            setattr(self, name, manifest[name])
        self.decided_by = manifest["decision"]["decided_by"]

    def write(self, root: Path) -> None:
        """Write ``summary.json`` into the registry at ``root``."""
        write_atomic(root / SUMMARY_FILE, json.dumps(asdict(self), indent=1).encode())


def last_summary(root: Path) -> JsonDict:
    """Summary of the previous nightly run; empty where none can be read."""
    try:
        found = parse_json(read_regular(root / SUMMARY_FILE, max_bytes=_MAX_BYTES))
        if not isinstance(found, dict):
            return {}
        hints = type_hints(NightlySummary)
        known = hints.keys() & found.keys()
        check_declared({name: found[name] for name in known}, hints)
    except DataError:
        # The first night, or a summary that was edited by hand: the report does without it.
        return {}
    return found


def is_judgement(manifest: JsonDict) -> bool:
    """Whether a candidate's manifest has all that a night needs of it; one by hand has not."""
    try:
        check_declared({name: manifest.get(name) for name in _JUDGED}, _JUDGED)
        BacktestResult.from_json(manifest["backtest"])
    except DataError:
        return False
    return True


def summary_of_manifest(folder: Path) -> JsonDict:
    """Summary of the night in which a published ranker was made, as far as its manifest says.

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
        **{name: manifest.get(name) for name in ("history_version", "backtest", *_COUNTS)},
        "checks": manifest.get("checks", []),
        "seconds": manifest.get("seconds", {}),
    }
