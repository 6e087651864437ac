"""One Optuna trial as a run of a log, from a study file or from a saved frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import Direction
from recsys_ms.history.readers.formats.plain_values import plain
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.store.curves import Series

#: Status of a run by the state of its trial. A pruned trial was stopped early: it has no outcome.
STATUS_OF: Final = {
    "COMPLETE": "finished",
    "PRUNED": "failed",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "running",
}

#: Above any number of intermediate values: a trial that ended is further than one that runs.
_ENDED: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One objective of a study.

    ``series`` is the name of its series (``value``, ``values_0``, ``values_<name>``), ``name`` that
    of its metric (``set_metric_names``), empty if the study gives none.
    """

    series: str
    name: str = ""
    direction: Direction | None = None


def run_of_trial(
    *,
    file: str,
    study: str | None = None,
    number: int,
    line: int,
    state: str,
    objectives: Sequence[Objective],
    values: Mapping[str, float],
    attributes: Mapping[str, Mapping[str, Any]],
    intermediate: Mapping[int, float] | None = None,
    more: Mapping[str, Any],
) -> LoggedRun:
    """The run of a trial.

    The metric of a series is empty if the study does not name its objective. A study with one
    objective selects by it, and its intermediate values are of the same metric.

    ``study`` is given if the file holds several; ``state`` is one of :data:`STATUS_OF`; ``values``
    are by the objective's series, ``intermediate`` ones by step, in order; ``attributes`` are the
    groups ``params``, ``user_attrs`` and ``system_attrs``; ``more`` are further columns.
    """
    only = objectives[0] if len(objectives) == 1 else None
    series = [
        Series.of(each.series, each.name, None, [(None, None, values[each.series])])
        for each in objectives
        if each.series in values
    ]
    if intermediate:
        points = [(step, None, value) for step, value in intermediate.items()]
        series.append(Series.of("intermediate", only.name if only else "", None, points))
    directions = {each.series: each.direction for each in objectives if each.direction}
    if only is not None and only.direction:
        directions["intermediate"] = only.direction
    fields: dict[str, Any] = {
        c.STATUS: STATUS_OF[state],
        c.HYPERPARAMETERS: plain(attributes["params"], finite=True),
        # Also without a value: a failed run has a metric and a direction too.
        c.METRIC: only.name if only else None,
        c.DIRECTION: only.direction if only else None,
        c.TAGS: {"reason": "pruned"} if state == "PRUNED" else None,
    }
    progress = len(intermediate or ())
    if state != "WAITING":
        progress += 1 if state == "RUNNING" else _ENDED
    return LoggedRun(
        file=file,
        identity=f"optuna:{file}#{number}" if study is None else f"optuna:{file}#{study}#{number}",
        line=line,
        columns={**more, "number": number, "state": state, **attributes},
        fields={name: value for name, value in fields.items() if value or value == {}},
        series=series,
        chosen=only.series if only else None,
        directions=directions,
        progress=progress,
    )
