"""Settles which values of a metric are better: by the log, the metric's name, and the caller."""

from dataclasses import dataclass

from recsys_ms.core import columns as c
from recsys_ms.core.metrics import direction_of, direction_problem

_WORDS = {"max": "maximised", "min": "minimised"}


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
        Direction that the caller gives (``--set direction=max``), or the column of a table.
    logged : str or None
        What the log itself says that its series is chosen by.
    series, series_metric : str or None
        The series that the value is of, and its metric by the log.

    Two of these that differ are a problem: none is overridden in silence. Only where the log
    contradicts the name that it gives itself (a Trainer that kept the model of the highest
    word error rate), the caller decides.
    """
    known = None if metric is None else direction_of(metric)
    own = direction_of(series_metric or series or "")
    if said is not None and metric is not None and (problem := direction_problem(metric, said)):
        return SettledDirection(said, problem)
    if known and own and known != own:
        return SettledDirection(
            known,
            f"{metric!r} is known to be {_WORDS[known]}, the series {series!r} {_WORDS[own]}: "
            "choose the series of the metric",
        )
    if logged is not None and logged in _WORDS:
        names_differ = known is not None and known != logged
        if said is not None and said != logged and own != said:
            return SettledDirection(
                said,
                f"the log says that {series or metric!r} is {_WORDS[logged]}, {c.DIRECTION} {said} "
                "says the contrary: leave the direction out, or choose the series of another "
                "metric with --set metric=NAME",
            )
        if said is None and names_differ:
            way = f"if the log is wrong, --set direction={known}" if own else "name what it holds"
            return SettledDirection(
                known,
                f"the log says that {series or metric!r} is {_WORDS[logged]}, but {metric!r} is "
                f"known to be {_WORDS[str(known)]}: {way}, or with another --set metric=NAME",
            )
    return SettledDirection(said or logged or known)
