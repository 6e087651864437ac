"""One Optuna trial as a run of a log, whatever it was read from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import Direction
from recsys_ms.history.readers.formats.exported import settings
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.store.curves import Series

#: What a state says of a run. A pruned trial was stopped before its end: it has no outcome.
STATUS_OF: Final = {
    "COMPLETE": "finished",
    "PRUNED": "failed",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "running",
}
STATES: Final = tuple(STATUS_OF)

#: Above any number of intermediate values: a trial that ended is further than one that runs.
_ENDED: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One objective of a study.

    Attributes
    ----------
    series : str
        Name of its series: ``value``, ``values_0``, ``values_<name>``.
    name : str
        Name the study gives it (``set_metric_names``); empty where it gives none.
    direction : {"max", "min"} or None
        Where the log says.
    """

    series: str
    name: str = ""
    direction: Direction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial.

    Attributes
    ----------
    file, identity, line, number, state
        As of :class:`LoggedRun`; number and state as Optuna has them.
    values : mapping of objective's series to float
        Objective values there are.
    params, user_attrs, system_attrs : mapping
        As Optuna has them.
    intermediate : sequence of (step, value)
        Reported values, in order.
    more : mapping
        Further columns.
    """

    file: str
    identity: str
    line: int
    number: int
    state: str
    values: Mapping[str, float]
    params: Mapping[str, Any]
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]
    intermediate: Sequence[tuple[int, float]] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def run_of_trial(trial: Trial, objectives: Sequence[Objective]) -> LoggedRun:
    """The run of a trial.

    The metric of a series is empty where the study does not name its objective. A study with one
    objective selects by it, and its intermediate values are of the same metric.
    """
    only = objectives[0] if len(objectives) == 1 else None
    series = [
        Series(
            name=each.series,
            metric=each.name,
            split=None,
            steps=(None,),
            epochs=(None,),
            values=(trial.values[each.series],),
        )
        for each in objectives
        if each.series in trial.values
    ]
    if trial.intermediate:
        series.append(
            Series(
                name="intermediate",
                metric=only.name if only else "",
                split=None,
                steps=[step for step, _ in trial.intermediate],
                epochs=[None] * len(trial.intermediate),
                values=[value for _, value in trial.intermediate],
            )
        )
    directions = {each.series: each.direction for each in objectives if each.direction}
    if only is not None and only.direction:
        directions["intermediate"] = only.direction
    fields: dict[str, Any] = {
        c.STATUS: STATUS_OF[trial.state],
        c.HYPERPARAMETERS: settings(trial.params),
    }
    if only is not None:
        # Also where there is no value: a failed run has a metric and a direction too.
        said = {c.METRIC: only.name or None, c.DIRECTION: only.direction}
        fields |= {name: text for name, text in said.items() if text}
    if trial.state == "PRUNED":
        fields[c.TAGS] = {"reason": "pruned"}
    progress = len(trial.intermediate)
    if trial.state != "WAITING":
        progress += 1 if trial.state == "RUNNING" else _ENDED
    return LoggedRun(
        file=trial.file,
        identity=trial.identity,
        line=trial.line,
        columns={
            **trial.more,
            "number": trial.number,
            "state": trial.state,
            "params": dict(trial.params),
            "user_attrs": dict(trial.user_attrs),
            "system_attrs": dict(trial.system_attrs),
        },
        fields=fields,
        series=series,
        chosen=only.series if only else None,
        directions=directions,
        progress=progress,
    )
