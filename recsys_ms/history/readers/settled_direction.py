"""Settles which values of a metric are better: by the log, the metric's name, and the caller."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from recsys_ms.core.known_metrics import direction_of

_BETTER: Final[Mapping[str | None, str]] = {"max": "higher", "min": "lower"}


@dataclass(frozen=True, slots=True)
class SettledDirection:
    """A direction (``None`` if nothing tells it), and why it cannot be taken; empty if it can."""

    direction: str | None
    problem: str = ""


def settle_direction(
    metric: str | None,
    *,
    said: str | None = None,
    logged: str | None = None,
    series: str | None = None,
    series_metric: str | None = None,
) -> SettledDirection:
    """Join all that is known of the direction of a run's value.

    Parameters
    ----------
    metric : str or None
        Metric of the run.
    said : str or None
        Direction that the caller gives (``--set direction=max``).
    logged : str or None
        What the log itself says of its series.
    series, series_metric : str or None
        The series that the value is of, and its metric by the log.

    Two of these that differ are a problem: none is overridden in silence. Only where a log
    contradicts the name that it gives itself (a Trainer that kept the model of the highest word
    error rate), the caller decides.
    """
    known = None if metric is None else direction_of(metric)
    own = direction_of(series_metric or series or "")
    by_name = f"of {metric!r} {_BETTER.get(known, '')} values are better ({known})"
    by_log = (
        f"the log says that {_BETTER.get(logged, '')} values of {series or metric!r} are better"
    )
    if said in _BETTER:
        facts = [by_name] if known not in (None, said) else []
        facts += [by_log] if logged not in (None, said) and (facts or own != said) else []
        if facts:
            return SettledDirection(
                said,
                f"{said} contradicts what is known: {', and '.join(facts)}; leave the direction "
                "out, or choose another metric with --set metric=NAME",
            )
        return SettledDirection(said)
    if known and own and known != own:
        return SettledDirection(
            known,
            f"{by_name}, but of the series {series!r} {_BETTER[own]} ones: choose the series of "
            "the metric",
        )
    if known and logged and known != logged and said is None:
        way = f"--set direction={known} if the log is wrong" if own else "call it what the log has"
        return SettledDirection(known, f"{by_log}, but {by_name}: {way} (--set metric=NAME)")
    return SettledDirection(said or logged or known)
