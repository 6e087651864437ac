"""Which of the values that a run logged becomes its value: series, best or last, unit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import Unit
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.store.curves import Series

#: Splits that a model was fitted on: never taken where another split has the same metric.
_FITTED: Final = ("train", "training")
_N_NAMED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the mapping says of the value of one run; ``None`` where it says nothing.

    Attributes
    ----------
    series : str or None
        Name of the series, from ``--map value='{NAME}'``.
    metric, split, direction, value_kind : str or None
        Fields of the run.
    unit : {"fraction", "percent"} or None
        Of the value in the log.
    """

    series: str | None = None
    metric: str | None = None
    split: str | None = None
    direction: str | None = None
    value_kind: str | None = None
    unit: Unit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The value of one run.

    Attributes
    ----------
    fields : mapping of field to value
        Those of ``metric, direction, split, value_kind, value, epoch`` that are known.
    lacking : tuple of str
        Required fields that nobody says: the caller asks for them.
    problem : str
        Why there is no value though there should be one; empty where all is well.
    diverged : str
        Name of the series when it holds no finite value.
    """

    fields: Mapping[str, object]
    lacking: tuple[str, ...] = ()
    problem: str = ""
    diverged: str = ""


def choose_value(run: LoggedRun, asked: Asked, *, wanted: bool) -> Chosen:
    """Choose the value of a run.

    The series is the one that ``asked.series`` names; else the one of ``asked.metric`` (by its
    name in the log, or by its metric without the split), on ``asked.split`` where that is said and
    never on the training split where another one has the metric; else the one by which the
    framework chose its best model. Within it, the best value by the direction (the first of equal
    ones; NaN and infinities are no values), or the last one.

    Parameters
    ----------
    run : LoggedRun
        The run.
    asked : Asked
        What the mapping says.
    wanted : bool
        Whether a run without a value is a problem (it is finished).
    """
    series, problem = _series(run, asked)
    fields: dict[str, object] = {}
    metric = asked.metric or ((series.metric or None) if series else None)
    direction = asked.direction or (run.directions.get(series.name) if series else None)
    if direction is None and series is None and asked.metric is not None:
        direction = run.directions.get(asked.metric)
    lacking = [
        name for name, known in ((c.METRIC, metric), (c.DIRECTION, direction)) if known is None
    ]
    fields |= {c.METRIC: metric, c.DIRECTION: direction}
    fields[c.SPLIT] = asked.split or (series.split if series else None)
    if c.METRIC in lacking and series is None:
        # Without a metric nothing can be said about the value either, unless its series was named.
        problem = problem if asked.series is not None else ""
        return Chosen(fields=fields, lacking=tuple(lacking), problem=problem)
    if series is None:
        return Chosen(fields=fields, lacking=tuple(lacking), problem=problem if wanted else "")
    kind = str(asked.value_kind or run.fields.get(c.VALUE_KIND) or "best")
    at = _position(series, direction, kind)
    if at is None:
        diverged = series.name if len(series.values) else ""
        if wanted and not diverged and not lacking:
            problem = f"{c.VALUE}: the series {series.name!r} is empty, and a finished run has one"
        return Chosen(fields=fields, lacking=tuple(lacking), problem=problem, diverged=diverged)
    said = asked.value_kind or run.value_kind or run.fields.get(c.VALUE_KIND)
    fields[c.VALUE_KIND] = said or (None if _is_summary(series) else kind)
    value, problem = _in_unit(series, float(series.values[at]), asked.unit)
    fields |= {c.VALUE: value, c.EPOCH: series.epochs[at]}
    return Chosen(fields=fields, lacking=tuple(lacking), problem=problem)


def _series(run: LoggedRun, asked: Asked) -> tuple[Series | None, str]:
    if asked.series is not None:
        found = [series for series in run.series if series.name == asked.series]
        if found:
            return found[0], ""
        return None, f"{c.VALUE}: the log has no series {asked.series!r}; {_named(run.series)}"
    if asked.metric is None:
        found = [series for series in run.series if series.name == run.chosen]
        return (found[0] if found else None), f"{c.VALUE}: {_named(run.series)}"
    found = [
        series
        for series in run.series
        if (asked.metric in (series.name, series.metric))
        and (asked.split is None or asked.split == series.split)
    ]
    if len(found) > 1:
        found = [series for series in found if series.split not in _FITTED] or found
    if len(found) > 1:
        by_framework = [series for series in found if series.name == run.chosen]
        found = by_framework or found
    if not found:
        # An objective that its study does not name is whatever the caller says it is.
        found = [each for each in run.series if each.name == run.chosen and not each.metric]
    if len(found) == 1:
        return found[0], ""
    where = "" if asked.split is None else f" on the split {asked.split!r}"
    if found:
        names = ", ".join(repr(series.name) for series in found)
        return None, (
            f"{c.VALUE}: {len(found)} series hold {asked.metric!r}{where}: {names}; choose one "
            f"with --map value='{{{found[0].name}}}' or --set split={found[0].split or 'NAME'}"
        )
    return (
        None,
        f"{c.VALUE}: the log has no series of {asked.metric!r}{where}; {_named(run.series)}",
    )


def _named(series: Sequence[Series]) -> str:
    names = [each.name for each in series]
    if not names:
        return "it has no series at all"
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return f"its series are {', '.join(names[:_N_NAMED])}{more}"


def _is_summary(series: Series) -> bool:
    """Whether a series is one number that nobody said the time of."""
    return len(series.values) == 1 and series.steps[0] is None and series.epochs[0] is None


def _position(series: Series, direction: str | None, kind: str) -> int | None:
    if not len(series.values):
        return None
    if kind == "last":
        last = len(series.values) - 1
        return last if math.isfinite(series.values[last]) else None
    finite = [at for at, value in enumerate(series.values) if math.isfinite(value)]
    if not finite:
        return None
    sign = -1.0 if direction == "max" else 1.0
    return min(finite, key=lambda at: (sign * series.values[at], at))


def _in_unit(series: Series, value: float, unit: Unit | None) -> tuple[float, str]:
    """Value as the history keeps it, and what is wrong with it."""
    if unit is None:
        return (value / 100.0 if series.percent else value), ""
    top = 100.0 if unit == "percent" else 1.0
    if not 0.0 <= value <= top:
        kind = "percentage in [0, 100]" if unit == "percent" else "fraction in [0, 1]"
        return value, (
            f"{c.VALUE}: {value:g} of {series.name!r} is no {kind}; "
            "without --unit it is kept as it is"
        )
    return (value / 100.0 if unit == "percent" else value), ""
