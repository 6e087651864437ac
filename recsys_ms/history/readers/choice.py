"""Chooses the value of a run among those it logged: which series, best or last, which unit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import Unit
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.readers.settled_direction import settle_direction
from recsys_ms.history.readers.templates import named
from recsys_ms.history.store.curves import Series

#: Splits that a model was fitted on: never taken where another split has the same metric.
FITTED: Final = ("train", "training")
_N_NAMED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the mapping says about the value of one run; ``None`` where it says nothing.

    ``series`` is the name in ``--map value='{NAME}'``, ``unit`` that of the value in the log.
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
    unit : {"fraction", "percent"} or None
        Of ``value``, which is as the log has it, and of the series of its metric.
    metric : str
        Metric of the series by the log; empty without a value.
    missing : tuple of str
        Required fields that neither the log nor the mapping gives.
    contradiction : str
        Why the direction cannot be taken; else empty.
    problem : str
        Why there is no value though there should be one; else empty.
    diverged : str
        Name of the series when it holds no finite value.
    """

    fields: Mapping[str, object]
    unit: Unit | None = None
    metric: str = ""
    missing: tuple[str, ...] = ()
    contradiction: str = ""
    problem: str = ""
    diverged: str = ""


def choose_value(run: LoggedRun, asked: Asked, *, wanted: bool) -> Chosen:
    """Choose the value of a run.

    The series is the one that ``asked.series`` names; else the one of ``asked.metric`` (by its
    name in the log, or by its metric without the split), on ``asked.split`` where that is said and
    never on the training split where another one has the metric; else the one by which the
    framework chose its best model. Within it, the best finite value by the direction (the first of
    equal ones), or the last one.

    ``wanted`` says whether a run without a value is a problem (it is finished).
    """
    series, problem = _series(run, asked)
    fields: dict[str, object] = {}
    metric = asked.metric or ((series.metric or None) if series else None)
    settled = settle_direction(
        metric,
        said=asked.direction,
        logged=run.directions.get(series.name if series else asked.metric or ""),
        series=series.name if series else None,
        series_metric=series.metric if series else None,
    )
    direction = settled.direction
    fields |= {c.METRIC: metric, c.DIRECTION: direction}
    fields[c.SPLIT] = asked.split or (series.split if series else None)
    # Whether the direction has to be given is known with the metric.
    missing = tuple(name for name in (c.METRIC, c.DIRECTION) if fields[name] is None)[:1]
    if settled.problem:
        told = f"{c.DIRECTION}: {settled.problem}"
        return Chosen(fields=fields, missing=missing, problem=told, contradiction=told)
    if series is None:
        # Without a metric the value cannot be asked for either, unless its series was named.
        if c.METRIC in missing:
            wanted = asked.series is not None
        return Chosen(fields=fields, missing=missing, problem=problem if wanted else "")
    kind = str(asked.value_kind or run.fields.get(c.VALUE_KIND) or "best")
    at = _position(series, direction, kind)
    if at is None:
        diverged = series.name if len(series.values) else ""
        if wanted and not diverged and not missing:
            problem = (
                f"{c.VALUE}: the series {series.name!r} is empty; a finished run needs a value"
            )
        return Chosen(fields=fields, missing=missing, problem=problem, diverged=diverged)
    is_summary = len(series.values) == 1 and series.steps[0] is None and series.epochs[0] is None
    value_kind = asked.value_kind or run.value_kind or run.fields.get(c.VALUE_KIND)
    fields[c.VALUE_KIND] = value_kind or (None if is_summary else kind)
    fields |= {c.VALUE: float(series.values[at]), c.EPOCH: series.epochs[at]}
    unit: Unit | None = "percent" if asked.unit is None and series.percent else asked.unit
    return Chosen(fields=fields, unit=unit, metric=series.metric or series.name, missing=missing)


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
        if asked.metric in (series.name, series.metric) and asked.split in (None, series.split)
    ]
    if len(found) > 1:
        found = [series for series in found if series.split not in FITTED] or found
    if len(found) > 1:
        found = [series for series in found if series.name == run.chosen] or found
    if not found:
        # An objective without a name in its study has the name that the caller gives.
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
    told = f"{c.VALUE}: the log has no series of {asked.metric!r}{where}; {_named(run.series)}"
    return None, told


def _named(series: Sequence[Series]) -> str:
    names = [each.name for each in series]
    return f"its series are {named(names, _N_NAMED)}" if names else "it has no series at all"


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
