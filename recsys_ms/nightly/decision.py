"""The decision to publish a candidate or to keep the ranker in service, from their comparisons."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.bootstrap import bootstrap_intervals, mean_over_defined
from recsys_ms.evaluation.metrics import HIGHER_IS_BETTER
from recsys_ms.evaluation.result import POPULARITY, BacktestResult
from recsys_ms.nightly.settings import PublishSettings

CANDIDATE: Final = "candidate"
CURRENT: Final = "current"
#: What a comparison was made on: tasks held out of today's history, or runs made since the
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
        ``back-test``, or ``newer outcomes``: runs made since the published ranker was trained.
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
    """Whether a candidate is published, and why.

    Attributes
    ----------
    publish : bool
        Whether the trained ranker goes into service.
    fall_back_to_popularity : bool
        Whether popularity goes into service, since no ranker was there.
    reason : str
    checks : tuple of Check
    decided_by : str
        ``on`` of the comparison with the published ranker, see :class:`Check`.
    """

    publish: bool
    fall_back_to_popularity: bool
    reason: str
    checks: tuple[Check, ...]
    decided_by: str = BACKTEST


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
        Both rankers on runs made since the published one was trained
        (:func:`recsys_ms.nightly.challenge.challenge`). It then decides between the two, and
        ``result`` compares with popularity only.
    """
    compared = [(BACKTEST, result, POPULARITY)]
    if newer is not None:
        compared.append((NEWER, newer, CURRENT))
    elif CURRENT in result.rankers:
        compared.append((BACKTEST, result, CURRENT))
    checks = tuple(
        _check(measured, other, metric, settings.confidence, on)
        for on, measured, other in compared
        for metric in settings.metrics
    )
    failed = [check for check in checks if not check.passed]
    if failed and has_published:
        reason = f"the published ranker stays: {failed[0].describe()}"
    elif failed:
        reason = f"popularity goes into service, the candidate was refused: {failed[0].describe()}"
    else:
        # The comparison with the ranker in service, where there is one, says most.
        told = [check for check in checks if check.against == CURRENT] or checks
        best = told[0].describe() if told else "no metric to compare"
        reason = f"the candidate is not worse: {best}"
    return Decision(
        publish=not failed or not has_published,
        fall_back_to_popularity=bool(failed) and not has_published,
        reason=reason,
        checks=checks,
        decided_by=BACKTEST if newer is None else NEWER,
    )


def _check(result: BacktestResult, other: str, metric: str, confidence: float, on: str) -> Check:
    own_units, other_units = result.per_task(CANDIDATE), result.per_task(other)
    scores = np.array(
        [[own_units[task][metric], other_units[task][metric]] for task in sorted(own_units)],
        dtype=np.float64,
    )
    difference = scores[:, :1] - scores[:, 1:]
    # A candidate that fails on a task must not look better because the task is left out.
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
