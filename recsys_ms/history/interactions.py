"""Tasks × models interactions: the best outcome of each pair, sparse, with string ids."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp

from recsys_ms.core import columns as c
from recsys_ms.core.declared import ANY_NUMBER, SORTED, PositionsIn, Shape, Within
from recsys_ms.core.errors import DataError, UnknownIdError, UsageError, did_you_mean, kind_of
from recsys_ms.core.known_metrics import Link, link_of
from recsys_ms.core.types import BoolArray, FloatArray, IntArray
from recsys_ms.history.forms import RunsLike, as_runs
from recsys_ms.history.plausibility import implausible, plausible

MetricChoice: TypeAlias = str | Mapping[str, str] | None
OnTwoMetrics: TypeAlias = Literal["error", "most-runs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Interactions:
    """The (task, model) pairs with at least one finished run, and the best value each reached.

    Triplets sorted by (task, model); all arrays are read-only. Build one with
    :meth:`from_runs` or :meth:`from_triplets`.

    Attributes
    ----------
    task_ids, model_ids : tuple of str
        Sorted ids; positions in them are the indices below.
    task_index, model_index : ndarray of shape (n_interactions,)
        Row and column of each interaction.
    values : ndarray of shape (n_interactions,)
        Best value in the metric's own unit and direction.
    counts : ndarray of shape (n_interactions,)
        Finished runs behind the value.
    costs : ndarray of shape (n_interactions,)
        Mean GPU seconds of those runs, NaN where unknown.
    metrics : tuple of str
        Metric of each task, shape (n_tasks,).
    signs : ndarray of shape (n_tasks,)
        +1 where higher values are better, -1 where lower.
    run_ids : tuple of str, shape (n_interactions,)
        Run that reached the value, "" where it has no id; empty if the runs have no ids.
    """

    task_ids: Annotated[tuple[str, ...], Shape("task"), SORTED]
    model_ids: Annotated[tuple[str, ...], Shape("model"), SORTED]
    task_index: Annotated[IntArray, Shape("interaction"), PositionsIn("task", each=True), SORTED]
    model_index: Annotated[IntArray, Shape("interaction"), PositionsIn("model")]
    values: Annotated[FloatArray, Shape("interaction")]
    counts: Annotated[IntArray, Shape("interaction"), Within(least=0)]
    costs: Annotated[FloatArray, Shape("interaction"), ANY_NUMBER]
    metrics: Annotated[tuple[str, ...], Shape("task")]
    signs: Annotated[FloatArray, Shape("task")]
    run_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("task_index", "model_index", "values", "counts", "costs", "signs"):
            getattr(self, name).setflags(write=False)

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.task_ids)

    @property
    def n_models(self) -> int:
        """Number of models."""
        return len(self.model_ids)

    @property
    def n_interactions(self) -> int:
        """Number of (task, model) pairs with a value."""
        return int(self.values.size)

    def pairs(self) -> pd.MultiIndex:
        """Task and model of each interaction, by id."""
        return pd.MultiIndex.from_arrays(
            [np.take(self.task_ids, self.task_index), np.take(self.model_ids, self.model_index)]
        )

    @property
    def outcomes(self) -> FloatArray:
        """``values`` with the sign that makes higher better, shape (n_interactions,)."""
        return self.values * self.signs[self.task_index]

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Scale on which each task's outcomes are compared, shape (n_tasks,)."""
        named = np.array(self.metrics, dtype=object)[self.task_index]
        found: dict[str, Link] = {}
        for metric in set(self.metrics):
            values = self.values[named == metric]
            found[metric] = link_of(metric, float(values.min()), float(values.max()))
        return tuple(found[metric] for metric in self.metrics)

    @cached_property
    def comparable(self) -> FloatArray:
        """Outcomes, higher is better, on the scale of their task's link; (n_interactions,)."""
        is_log = (np.array(self.links) == "log")[self.task_index]
        compared = np.where(is_log, np.log(np.where(is_log, self.values, 1.0)), self.values)
        found: FloatArray = compared * self.signs[self.task_index]
        found.setflags(write=False)
        return found

    @classmethod
    def from_runs(
        cls,
        runs: RunsLike,
        *,
        metric: MetricChoice = None,
        on_two_metrics: OnTwoMetrics = "error",
    ) -> Self:
        """Reduce runs to the best value per (task, model) by the metric's direction.

        Failed and running runs, and runs without a value, do not count as outcomes; neither do
        those that cannot be right beside the others, which are logged
        (:func:`recsys_ms.history.plausibility.implausible`).

        Parameters
        ----------
        runs : DataFrame, History, Series, mapping or iterable of triplets
            A frame has the columns ``task_id, model_id, value`` and, where known, ``metric,
            direction, status, cost_gpu_seconds`` and ``run_id``; :meth:`History.runs` gives one.
            Other forms are those of :func:`recsys_ms.history.forms.as_runs`, errors too.
        metric : str, mapping of task id to str, or None
            Which metric to learn from where a task was logged in several. Runs in other metrics are
            left out; tasks that a mapping does not name keep their only metric.
        on_two_metrics : {"error", "most-runs"}
            What to do with a task that still has two metrics: refuse, or take the metric with most
            finished runs (ties by name).

        Raises
        ------
        DataError
            Two metrics for one task, or no finished run at all.
        """
        runs = as_runs(runs)
        usable = runs[(runs[c.STATUS] == "finished") & runs[c.VALUE].notna()]
        if metric is not None:
            if isinstance(metric, str):
                usable = usable[usable[c.METRIC] == metric]
            else:
                wanted = usable[c.TASK_ID].map(dict(metric))
                usable = usable[wanted.isna() | (usable[c.METRIC] == wanted)]
        judged = plausible(usable)
        if judged.empty:
            left_out = "" if usable.empty else f" ({implausible(usable)[0].text})"
            raise DataError(
                f"no finished run with a value among {len(runs)} runs"
                + (f" for metric {metric!r}" if metric is not None else "")
                + (left_out or "; ingest runs first, or name another metric")
            )
        usable = _one_metric_per_task(judged, on_two_metrics)
        sign = np.where(usable[c.DIRECTION].to_numpy() == "min", -1.0, 1.0)
        task_codes, task_ids = pd.factorize(usable[c.TASK_ID], sort=True)
        model_codes, model_ids = pd.factorize(usable[c.MODEL_ID], sort=True)
        outcome = usable[c.VALUE].to_numpy(dtype=np.float64) * sign
        order = np.lexsort((-outcome, model_codes, task_codes))
        moved = np.diff(task_codes[order], prepend=-1) | np.diff(model_codes[order], prepend=-1)
        starts = np.flatnonzero(moved)
        counts = np.diff(starts, append=order.size)
        first = order[starts]
        per_task = usable.iloc[np.unique(task_codes, return_index=True)[1]]
        mean_costs = np.full(starts.size, np.nan)
        if c.COST_GPU_SECONDS in usable:
            costs = usable[c.COST_GPU_SECONDS].to_numpy(dtype=np.float64, na_value=np.nan)[order]
            groups = pd.Series(costs).groupby(np.repeat(np.arange(starts.size), counts))
            mean_costs = groups.mean().to_numpy()
        return cls(
            task_ids=tuple(map(str, task_ids)),
            model_ids=tuple(map(str, model_ids)),
            task_index=task_codes[first].astype(np.int64),
            model_index=model_codes[first].astype(np.int64),
            values=outcome[first] * sign[first],
            counts=counts.astype(np.int64),
            costs=mean_costs,
            metrics=tuple(map(str, per_task[c.METRIC])),
            signs=np.where(per_task[c.DIRECTION].to_numpy() == "min", -1.0, 1.0),
            run_ids=tuple(usable[c.RUN_ID].iloc[first].fillna("").astype(str))
            if c.RUN_ID in usable
            else (),
        )

    @classmethod
    def from_triplets(
        cls,
        tasks: Sequence[str],
        models: Sequence[str],
        values: Sequence[float] | FloatArray,
        *,
        metric: str = "score",
        direction: str = "max",
    ) -> Self:
        """Build from parallel sequences of ids and values that share one metric and direction.

        Raises
        ------
        UsageError
            Not sequences.
        DataError
            Sequences of different lengths, or values that are not numbers.
        """
        given = {c.TASK_ID: tasks, c.MODEL_ID: models, c.VALUE: values}
        for name, each in given.items():
            is_other = isinstance(each, str | bytes | Mapping | Set) or not hasattr(each, "__len__")
            if is_other or getattr(each, "ndim", 1) != 1:
                raise UsageError(f"from_triplets: {name} is {kind_of(each)}; expected a sequence")
        lengths = {name: len(each) for name, each in given.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"from_triplets: the lengths differ, {lengths}; expected one of each")
        frame = pd.DataFrame({name: list(each) for name, each in given.items()})
        return cls.from_runs(frame.assign(**{c.METRIC: metric, c.DIRECTION: direction}))

    def task_position(self, task_id: str) -> int:
        """Row of ``task_id``.

        Raises
        ------
        UnknownIdError
            The task has no finished run here.
        """
        return _position(self.task_ids, task_id, "task")

    def of_task(self, task_id: str) -> tuple[IntArray, FloatArray]:
        """Columns and outcomes (higher is better) of one task, sorted by model."""
        row = self.task_position(task_id)
        begin, end = np.searchsorted(self.task_index, [row, row + 1])
        return self.model_index[begin:end], self.values[begin:end] * self.signs[row]

    def matrix(self, data: FloatArray | None = None) -> sp.csr_array:
        """Sparse tasks × models matrix of ``data`` (default: outcomes), explicit zeros kept."""
        chosen = self.outcomes if data is None else data
        starts = np.searchsorted(self.task_index, np.arange(self.n_tasks + 1))
        return sp.csr_array(
            (chosen.copy(), self.model_index.copy(), starts), shape=(self.n_tasks, self.n_models)
        )

    def dense(self, data: FloatArray | None = None) -> FloatArray:
        """Tasks × models array of ``data`` (default: outcomes) with NaN where there is no run."""
        full = np.full((self.n_tasks, self.n_models), np.nan)
        full[self.task_index, self.model_index] = self.outcomes if data is None else data
        return full

    def select(self, keep: BoolArray) -> Self:
        """Interactions where ``keep`` (n_interactions,) is true; ids that lose all are dropped.

        Raises
        ------
        DataError
            Nothing is left.
        """
        if not keep.any():
            raise DataError("the selection leaves no interaction; widen it")
        tasks, task_index = np.unique(self.task_index[keep], return_inverse=True)
        models, model_index = np.unique(self.model_index[keep], return_inverse=True)
        return type(self)(
            task_ids=tuple(self.task_ids[i] for i in tasks),
            model_ids=tuple(self.model_ids[i] for i in models),
            task_index=task_index.astype(np.int64),
            model_index=model_index.astype(np.int64),
            values=self.values[keep],
            counts=self.counts[keep],
            costs=self.costs[keep],
            metrics=tuple(self.metrics[i] for i in tasks),
            signs=self.signs[tasks],
            run_ids=tuple(self.run_ids[i] for i in np.flatnonzero(keep)) if self.run_ids else (),
        )

    def without_task(self, task_id: str) -> Self:
        """Everything but one task."""
        return self.select(self.task_index != self.task_position(task_id))


def _position(ids: tuple[str, ...], wanted: str, kind: str) -> int:
    # ids are sorted: a binary search, since a history may hold 20,000 of them.
    at = int(np.searchsorted(np.asarray(ids, dtype=object), wanted))
    if at == len(ids) or ids[at] != wanted:
        raise UnknownIdError(
            f"{kind} {wanted!r} is not among the {len(ids)} {kind}s{did_you_mean(wanted, ids)}"
        )
    return at


def _one_metric_per_task(usable: pd.DataFrame, on_two_metrics: OnTwoMetrics) -> pd.DataFrame:
    pairs = usable.groupby([c.TASK_ID, c.METRIC], observed=True, sort=True)
    counts = pairs.size().reset_index(name="n_runs")
    twice = counts[counts.duplicated(c.TASK_ID, keep=False)]
    if twice.empty:
        return usable
    if on_two_metrics == "error":
        task = twice[c.TASK_ID].iloc[0]
        names = sorted(twice.loc[twice[c.TASK_ID] == task, c.METRIC])
        raise DataError(
            f"task {task!r} has runs in {len(names)} metrics ({', '.join(names)}), which cannot be "
            f"compared; choose one with metric={names[0]!r} or metric={{{task!r}: {names[0]!r}}}, "
            "or take the most frequent with on_two_metrics='most-runs'"
        )
    best = counts.sort_values(
        [c.TASK_ID, "n_runs", c.METRIC], ascending=[True, False, True]
    ).drop_duplicates(c.TASK_ID)
    chosen = usable[c.TASK_ID].map(best.set_index(c.TASK_ID)[c.METRIC])
    return usable[usable[c.METRIC] == chosen]
