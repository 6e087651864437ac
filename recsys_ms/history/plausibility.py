"""Finds runs that cannot be right beside the others: wrong units, directions, and absurd values.

A run is judged by itself when it is ingested (``store/schema.py``), here by the other runs of its
task and metric. What is found is kept in the history and shown to a person, and rankers do not
learn from it. Nothing is stored: it is computed from the runs whenever it is needed.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd

from recsys_ms.core import columns as c
from recsys_ms.core.known_metrics import (
    KnownMetric,
    direction_of,
    direction_problem,
    find_metric,
    is_possible,
    range_problem,
)
from recsys_ms.core.types import BoolArray, FloatArray, IntArray, Unit

_LOG: Final = logging.getLogger(__name__)

DoubtKind: TypeAlias = Literal["range", "direction", "unit", "outlier"]
#: Which of some runs are found, and why; ``None`` if none is.
_Found: TypeAlias = tuple[BoolArray, str] | None

#: Columns of runs that :func:`implausible` reads; ``run_id`` may be absent.
JUDGED_COLUMNS: Final = (c.TASK_ID, c.METRIC, c.DIRECTION, c.VALUE, c.STATUS, c.RUN_ID)

#: A value is absurd if it is farther from the median of its task than so many robust standard
#: deviations: 1.4826 median absolute deviations, of logarithms at least 0.5, else at least a tenth
#: of the median. Of 9,710 RMSE and losses of two public histories (talent, TransferGraph) 30 are so
#: found, all of diverged runs: 22,000 to 10^16 times the median of their task. Of 253,717 other
#: outcomes of twelve public histories, taken for values of an unknown metric, 11 are.
_LOG_LIMIT: Final = 20.0
_LOG_LEAST: Final = 0.5
_PLAIN_LIMIT: Final = 1000.0
_PLAIN_LEAST: Final = 0.1
_MAD_TO_SD: Final = 1.4826
#: Values within this factor of each other are never absurd: both limits are farther.
_PLAIN_SPAN: Final = 50.0
#: Fewer values of a task have no scale of their own. Those of its metric in all tasks are then
#: taken, and only what is farther by a further factor is found, since scales of tasks differ.
_MIN_VALUES: Final = 5
_OTHER_TASKS: Final = 10.0
#: Values are in two units if those up to 1 and those above have medians apart by about 100 (within
#: a factor of five) and a gap between them. The small ones among more large ones must also fit, all
#: of them, the bulk of the large ones times 1.25: in percent, too, runs collapse to below 1. Of the
#: public histories' outcomes 10 are so found; 202 if all are taken for percentages (0.08 %).
_APART: Final = (20.0, 500.0)
_GAP: Final = 5.0
_BULK: Final = (0.1, 0.9)
_MARGIN: Final = 1.25
_N_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DoubtfulRuns:
    """Runs of one task and metric that cannot be right beside the others.

    Attributes
    ----------
    kind : {"range", "direction", "unit", "outlier"}
        A value that the metric cannot have; a direction that it cannot have, or that contradicts
        those of the other runs; a value in another unit; a value that nothing explains.
    task_id, metric : str
        Task and metric; the task is empty where the finding is about the metric as a whole.
    rows : ndarray of shape (n_found,)
        Positions in the frame of the runs that are left out, ascending.
    text : str
        What was found, with values and the way out.
    """

    kind: DoubtKind
    task_id: str
    metric: str
    rows: IntArray
    text: str


def implausible(runs: pd.DataFrame) -> tuple[DoubtfulRuns, ...]:
    """Find the finished runs that cannot be right beside the others.

    Parameters
    ----------
    runs : DataFrame
        Runs with :data:`JUDGED_COLUMNS`; failed and running ones are not looked at.

    Returns
    -------
    tuple of DoubtfulRuns
        Sorted by metric, task and kind. A run is in one of them at most. The order of the runs does
        not matter.
    """
    rows = np.flatnonzero((runs[c.STATUS] == "finished") & runs[c.VALUE].notna())
    used = runs.iloc[rows]
    values = used[c.VALUE].to_numpy(dtype=np.float64)
    is_max = used[c.DIRECTION].to_numpy() == "max"
    metric_codes, metrics = pd.factorize(used[c.METRIC].astype(str), sort=True)
    task_codes, tasks = pd.factorize(used[c.TASK_ID].astype(str), sort=True)
    run_ids = runs[c.RUN_ID].to_numpy(dtype=object) if c.RUN_ID in runs else None
    found: list[DoubtfulRuns] = []
    for of_metric in _groups(metric_codes):
        name = str(metrics[metric_codes[of_metric[0]]])
        metric = _Metric(name, values[of_metric], n_max=int(is_max[of_metric].sum()))
        if metric.unit == "percent":
            text = metric.told_of_percent()
            found.append(
                DoubtfulRuns(kind="unit", task_id="", metric=metric.name, rows=rows[:0], text=text)
            )
        rules = {
            kind: rule
            for kind, rule in _RULES.items()
            # Most metrics of most histories need no look at their tasks.
            if _can_find(kind, metric, values[of_metric], is_max[of_metric])
        }
        for at in _groups(task_codes[of_metric]) if rules else ():
            left = of_metric[at]
            task = str(tasks[task_codes[left[0]]])
            for kind, rule in rules.items():
                judged = rule(metric, values[left], is_max[left])
                if judged is None or not judged[0].any():
                    continue
                own = np.sort(rows[left[judged[0]]])
                text = f"task {task!r}, {metric.name}: {judged[1]}; {_told(run_ids, own)}"
                found.append(
                    DoubtfulRuns(kind=kind, task_id=task, metric=metric.name, rows=own, text=text)
                )
                left = left[~judged[0]]
                if not left.size:
                    break
    return tuple(found)


def plausible(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs without those that :func:`implausible` finds, which are logged."""
    findings = [finding for finding in implausible(runs) if finding.rows.size]
    if not findings:
        return runs
    for finding in findings:
        _LOG.warning("%s", finding.text)
    keep = np.ones(len(runs), dtype=bool)
    keep[np.concatenate([finding.rows for finding in findings])] = False
    return runs[keep]


def judge_values(
    metric: str, values: Iterable[float], known: FloatArray
) -> list[tuple[DoubtKind, str] | None]:
    """Judge values of a new task, each by all values that are known of its metric.

    Parameters
    ----------
    metric, values : str, iterable of float
        In the metric's own unit and direction.
    known : ndarray of shape (n_known,)
        Values of the metric in the history.

    Returns
    -------
    list of (kind, text) or None
        ``range`` and ``unit`` are mistakes of the unit, ``outlier`` is a run that diverged.
    """
    of_metric = _Metric(metric, known, n_max=known.size)
    return [_judged(of_metric, value) for value in values]


def _judged(of_metric: "_Metric", value: float) -> tuple[DoubtKind, str] | None:
    metric, known = of_metric.name, of_metric.values
    problem = range_problem(metric, value, of_metric.unit, option="")
    if problem is not None:
        return "range", problem
    together, is_max = np.append(known, value), np.ones(known.size + 1, dtype=bool)
    in_unit = _other_unit(of_metric, together, is_max)
    # Among percentages a small value may be that of a collapsed run.
    if in_unit is not None and value > 1.0 and in_unit[0].nonzero()[0].tolist() == [known.size]:
        return "unit", (
            f"{metric} {value:g} is about 100 times as large as the {_spanned(known)} that are "
            f"known: did you mean {value / 100.0:g}?"
        )
    unexplained = _unexplained(of_metric, np.array([value]), is_max[:1])
    return None if unexplained is None else ("outlier", unexplained[1])


class _Metric:
    """A metric with its values in all tasks."""

    def __init__(self, name: str, values: FloatArray, *, n_max: int) -> None:
        self.name = name
        #: Runs that say that higher is better, and that lower is.
        self.n_max, self.n_min = n_max, values.size - n_max
        self.known: KnownMetric | None = find_metric(name)
        self.values = values
        self._n_large = int(np.sum(values > 1.0 + 1e-6))
        is_fraction = self.known is not None and self.known.percent and self.known.high == 1.0
        #: Histories of earlier versions may hold a fraction in percent throughout.
        self.unit: Unit | None = (
            "percent" if is_fraction and 2 * self._n_large > values.size else None
        )

    @property
    def may_differ(self) -> bool:
        """Whether values in another unit are possible values."""
        known = self.known
        if known is None:
            return True
        return known.percent and (known.high > 1.0 or self.unit == "percent")

    @property
    def is_bounded(self) -> bool:
        """Whether the range leaves no room for absurd values."""
        known = self.known
        return known is not None and math.isfinite(known.low) and math.isfinite(known.high)

    def told_of_percent(self) -> str:
        """What to know of a fraction that is kept in percent."""
        return (
            f"{self.name}: {self._n_large} of {self.values.size} values are above 1, so all are "
            "taken for percentages; new values are kept as fractions, so ingest these again with "
            "--unit percent"
        )

    def scale(self, values: FloatArray, *, is_log: bool) -> tuple[float, float] | None:
        """Median and distance beyond which nothing is explained; ``None`` if there is none."""
        factor, found = 1.0, _middle_and_spread(values)
        if found is None:
            factor, found = _OTHER_TASKS, self._of_all_logs if is_log else self._of_all
            if found is None:
                return None
        middle, spread = found
        if is_log:
            return middle, _LOG_LIMIT * max(spread, _LOG_LEAST) + float(np.log(factor))
        limit = factor * _PLAIN_LIMIT * max(spread, _PLAIN_LEAST * abs(middle))
        return (middle, limit) if limit > 0.0 else None

    @cached_property
    def _of_all(self) -> tuple[float, float] | None:
        return _middle_and_spread(self.values)

    @cached_property
    def _of_all_logs(self) -> tuple[float, float] | None:
        return _middle_and_spread(np.log(self.values[self.values > 0.0]))


def _middle_and_spread(values: FloatArray) -> tuple[float, float] | None:
    """Median and robust standard deviation; ``None`` of too few values."""
    if values.size < _MIN_VALUES:
        return None
    middle = float(np.median(values))
    return middle, _MAD_TO_SD * float(np.median(np.abs(values - middle)))


def _can_find(kind: DoubtKind, metric: _Metric, values: FloatArray, is_max: BoolArray) -> bool:
    """Whether a rule could find something in any task, by all values of the metric."""
    if kind == "unit":
        return metric.may_differ and bool((values > 1.0).any() and (values <= 1.0).any())
    if kind == "outlier":
        return not metric.is_bounded
    judged = _RULES[kind](metric, values, is_max)
    return judged is not None and bool(judged[0].any())


def _impossible(metric: _Metric, values: FloatArray, is_max: BoolArray) -> _Found:
    found = ~is_possible(metric.name, values, metric.unit)
    if not found.any():
        return None
    worst = float(values[found][np.argmax(np.abs(values[found]))])
    return found, str(range_problem(metric.name, worst, metric.unit))


def _wrong_way(metric: _Metric, values: FloatArray, is_max: BoolArray) -> _Found:
    known = direction_of(metric.name)
    if known is not None:
        wrong = "min" if known == "max" else "max"
        return is_max == (wrong == "max"), str(direction_problem(metric.name, wrong))
    n_max, n_min = metric.n_max, metric.n_min
    if not n_max or not n_min:
        return None
    # One direction in all tasks: rankers learn how outcomes of a metric lie from all of them.
    found = np.ones(is_max.size, bool) if n_max == n_min else is_max == (n_max < n_min)
    return found, f"{n_max} runs of the metric say that higher is better, {n_min} that lower is"


def _other_unit(metric: _Metric, values: FloatArray, is_max: BoolArray) -> _Found:
    if not metric.may_differ or (metric.known is None and values.size < _MIN_VALUES):
        return None
    small, large = (values > 0.0) & (values <= 1.0), values > 1.0
    if not small.any() or not large.any():
        return None
    middle = float(np.median(values[small]))
    large &= values <= _APART[1] * middle
    if not large.any() or values[large].min() <= _GAP * values[small].max():
        return None
    if np.median(values[large]) < _APART[0] * middle:
        return None
    found = large
    if large.sum() > small.sum():
        low, high = np.quantile(values[large], _BULK)
        scaled = 100.0 * values[small]
        if not ((scaled >= low / _MARGIN) & (scaled <= high * _MARGIN)).all():
            return None
        found = small
    return found, (
        f"{_spanned(values[small])} and {_spanned(values[large])}, about 100 times as large, "
        "cannot be in one unit; read the ones in percent with --unit percent"
    )


def _unexplained(metric: _Metric, values: FloatArray, is_max: BoolArray) -> _Found:
    known = metric.known
    if metric.is_bounded:
        return None
    if values.size >= _MIN_VALUES and np.abs(values).max() <= _PLAIN_SPAN * np.abs(values).min():
        return None
    positive = values > 0.0
    never_negative = bool(positive.all()) or (known is not None and known.low >= 0.0)
    is_log = known is not None and known.heavy_tailed and never_negative
    judged = positive if is_log else np.ones(values.size, bool)
    compared = np.log(values[judged]) if is_log else values
    scale = metric.scale(compared, is_log=is_log)
    if scale is None:
        return None
    found = np.zeros(values.size, bool)
    found[judged] = np.abs(compared - scale[0]) > scale[1]
    if not found.any():
        return None
    rest = values[~found] if not found.all() else metric.values
    if not rest.size:
        return None
    worst = float(values[found][np.argmax(np.abs(values[found]))])
    return found, f"{worst:g} cannot be explained by the others, {_spanned(rest)}"


_Rule: TypeAlias = Callable[[_Metric, FloatArray, BoolArray], _Found]
#: The rules, in the order in which they judge.
_RULES: Final[Mapping[DoubtKind, _Rule]] = {
    "range": _impossible,
    "direction": _wrong_way,
    "unit": _other_unit,
    "outlier": _unexplained,
}


def _groups(codes: IntArray) -> Iterator[IntArray]:
    """Positions of each code, ascending."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    yield from np.split(order, starts[1:]) if order.size else ()


def _spanned(values: FloatArray) -> str:
    low, high = float(values.min()), float(values.max())
    if values.size == 1:
        return f"one value of {low:g}"
    return f"{values.size} values from {low:g} to {high:g}"


def _told(run_ids: np.ndarray[Any, Any] | None, rows: IntArray) -> str:
    """The runs that are left out, some of them by name."""
    count = "1 run is left out" if rows.size == 1 else f"{rows.size} runs are left out"
    if run_ids is None:
        return count
    names = sorted(name for name in run_ids[rows] if isinstance(name, str))
    more = ", …" if len(names) > _N_NAMED else ""
    return f"{count} ({', '.join(names[:_N_NAMED])}{more})" if names else count
