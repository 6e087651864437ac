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
from recsys_ms.nightly.settings import PublishSettings

CANDIDATE: Final = "candidate"
CURRENT: Final = "current"
#: What a comparison was made on: tasks held out of today's history, or what was run since the
#: published ranker was trained (:mod:`recsys_ms.nightly.challenge`).
BACKTEST: Final = "back-test"
NEWER: Final = "newer outcomes"


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
    on : str
        ``back-test``, or ``newer outcomes``: those that the published ranker has never seen.
    """

    against: str
    metric: str
    candidate: float | None
    other: float | None
    low: float | None
    high: float | None
    passed: bool
    on: str = BACKTEST

    def describe(self) -> str:
        """One line for a person."""
        where = "" if self.on == BACKTEST else f" on {self.on}"
        if self.low is None or self.candidate is None or self.other is None:
            return f"{self.metric} against {self.against}{where}: too few tasks to compare"
        verdict = "not worse" if self.passed else "worse"
        return (
            f"{self.metric} {self.candidate:.4f} against {self.other:.4f} of {self.against}{where} "
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
    decided_by : str
        What the candidate was compared with the published ranker on, see :class:`Check`.
    """

    publish: bool
    fall_back_to_popularity: bool
    reason: str
    checks: tuple[Check, ...]
    decided_by: str = BACKTEST

    def to_json(self) -> JsonDict:
        """All but the checks."""
        document = asdict(self)
        del document["checks"]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]) -> Self:
        """Restore what :meth:`to_json` gave."""
        return cls(**document, checks=tuple(Check(**check) for check in checks))


def decide(
    result: BacktestResult,
    settings: PublishSettings,
    *,
    has_published: bool,
    newer: BacktestResult | None = None,
) -> Decision:
    """Compare the candidate with popularity, and with the published ranker.

    Parameters
    ----------
    result : BacktestResult
        With the row ``candidate`` and, where the published ranker is another, ``current``.
    settings : PublishSettings
        Metrics and confidence.
    has_published : bool
        Whether a ranker is in service.
    newer : BacktestResult, optional
        Both rankers on what was run since the published one was trained
        (:func:`recsys_ms.nightly.challenge.challenge`); it then decides between the two, and
        ``result`` about popularity alone.
    """
    compared = [(BACKTEST, result, POPULARITY)]
    if newer is not None:
        compared.append((NEWER, newer, CURRENT))
    elif CURRENT in result.rankers:
        compared.append((BACKTEST, result, CURRENT))
    decided_by = BACKTEST if newer is None else NEWER
    checks = tuple(
        _check(measured, other, metric, settings.confidence, on)
        for on, measured, other in compared
        for metric in settings.metrics
    )
    failed = [check for check in checks if not check.passed]
    if not failed:
        # Of the comparison with what is in service, where there is one: it says most.
        told = [check for check in checks if check.against == CURRENT] or checks
        best = told[0].describe() if told else "no metric to compare"
        return Decision(
            publish=True,
            fall_back_to_popularity=False,
            reason=f"the candidate is not worse: {best}",
            checks=checks,
            decided_by=decided_by,
        )
    reason = failed[0].describe()
    if has_published:
        return Decision(
            publish=False,
            fall_back_to_popularity=False,
            reason=f"the published ranker stays: {reason}",
            checks=checks,
            decided_by=decided_by,
        )
    return Decision(
        publish=True,
        fall_back_to_popularity=True,
        reason=f"nothing was in service and the candidate was refused ({reason}): popularity is",
        checks=checks,
        decided_by=decided_by,
    )


def _check(result: BacktestResult, other: str, metric: str, confidence: float, on: str) -> Check:
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
        on=on,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
