"""Publish or keep: what a back-test must show before a ranker replaces the one in service."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.bootstrap import bootstrap_intervals, mean_over_defined
from recsys_ms.evaluation.metrics import HIGHER_IS_BETTER
from recsys_ms.evaluation.result import POPULARITY, BacktestResult
from recsys_ms.nightly_config import PublishSettings

CANDIDATE: Final = "candidate"
CURRENT: Final = "current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison of the candidate.

    Attributes
    ----------
    against : str
        ``popularity`` or ``current``.
    metric : str
    candidate, other : float or None
        Mean over held-out tasks; ``None`` where it is not defined.
    low, high : float or None
        Paired bootstrap interval of candidate minus other.
    passed : bool
        False where the whole interval is on the bad side of 0.
    """

    against: str
    metric: str
    candidate: float | None
    other: float | None
    low: float | None
    high: float | None
    passed: bool

    def describe(self) -> str:
        """One line for a person."""
        if self.low is None or self.candidate is None or self.other is None:
            return f"{self.metric} against {self.against}: too few tasks to compare"
        verdict = "not worse" if self.passed else "worse"
        return (
            f"{self.metric} {self.candidate:.4f} against {self.other:.4f} of {self.against} "
            f"(difference {self.low:+.4f} … {self.high:+.4f}): {verdict}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a candidate.

    Attributes
    ----------
    publish : bool
        Whether the trained ranker goes into service.
    fall_back_to_popularity : bool
        Whether popularity is what goes into service, since nothing else is there.
    reason : str
    checks : tuple of Check
    """

    publish: bool
    fall_back_to_popularity: bool
    reason: str
    checks: tuple[Check, ...]

    def to_json(self) -> JsonDict:
        """All but the checks."""
        document = asdict(self)
        del document["checks"]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]) -> Self:
        """Restore what :meth:`to_json` gave."""
        return cls(**document, checks=tuple(Check(**check) for check in checks))


def decide(result: BacktestResult, settings: PublishSettings, *, has_published: bool) -> Decision:
    """Compare the candidate with popularity, and with the published procedure where it differs.

    Parameters
    ----------
    result : BacktestResult
        With the row ``candidate`` and, where the published ranker is another, ``current``.
    settings : PublishSettings
        Metrics and confidence.
    has_published : bool
        Whether a ranker is in service.
    """
    others = [POPULARITY, *([CURRENT] if CURRENT in result.rankers else [])]
    checks = tuple(
        _check(result, other, metric, settings.confidence)
        for other in others
        for metric in settings.metrics
    )
    failed = [check for check in checks if not check.passed]
    if not failed:
        best = checks[0].describe() if checks else "no metric to compare"
        return Decision(
            publish=True,
            fall_back_to_popularity=False,
            reason=f"the candidate is not worse: {best}",
            checks=checks,
        )
    reason = failed[0].describe()
    if has_published:
        return Decision(
            publish=False,
            fall_back_to_popularity=False,
            reason=f"the published ranker stays: {reason}",
            checks=checks,
        )
    return Decision(
        publish=True,
        fall_back_to_popularity=True,
        reason=f"nothing was in service and the candidate was refused ({reason}): popularity is",
        checks=checks,
    )


def _check(result: BacktestResult, other: str, metric: str, confidence: float) -> Check:
    own_units, other_units = result.per_task(CANDIDATE), result.per_task(other)
    scores = np.array(
        [[own_units[task][metric], other_units[task][metric]] for task in sorted(own_units)],
        dtype=np.float64,
    )
    difference = scores[:, :1] - scores[:, 1:]
    # A candidate that fails where the other answers must not look good by what is left.
    failures = int(np.sum(np.isnan(scores[:, 0]) & ~np.isnan(scores[:, 1])))
    interval = bootstrap_intervals(
        difference, named_stream(result.seed, "decision", other, metric), coverage=confidence
    )[0]
    means = mean_over_defined(scores)
    low, high = (_finite(end) for end in interval)
    worse = False
    if low is not None and high is not None:
        worse = high < 0.0 if HIGHER_IS_BETTER[metric] else low > 0.0
    return Check(
        against=other,
        metric=metric,
        candidate=_finite(means[0]),
        other=_finite(means[1]),
        low=low,
        high=high,
        passed=not worse and failures == 0,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
