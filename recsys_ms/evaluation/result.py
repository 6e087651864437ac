"""The result of a back-test: scores per ranker, fold and task, their means and their intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import pandas as pd

from recsys_ms.core.errors import DataError, UnknownIdError
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.bootstrap import N_DRAWS
from recsys_ms.evaluation.folds import WARMTHS, TaskWarmth
from recsys_ms.evaluation.metrics import REGRET_AT_1, directions
from recsys_ms.evaluation.show import as_html, as_latex, as_text, drawn
from recsys_ms.evaluation.summary import RankerSummary, summarise

POPULARITY: Final = "popularity"
RANDOM: Final = "random"
STATIC: Final = "static"
ORACLE: Final = "oracle"

#: What the bootstrap resamples.
Unit: TypeAlias = Literal["task", "fold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One ranker on one task of one fold.

    Attributes
    ----------
    ranker, fold, task_id : str
    warmth : {"cold", "warm", "hot"}
        What training knew of the task.
    n_models : int
        Number of tested models.
    n_observed : int
        Number of runs revealed in the query.
    scores : mapping of metric to float
        All metrics of the back-test; NaN where undefined. ``seconds`` is the fit on the fold plus
        this task's prediction, by the wall clock.
    failure : str or None
        Why the ranker gave no answer.
    """

    ranker: str
    fold: str
    task_id: str
    warmth: TaskWarmth
    n_models: int
    n_observed: int
    scores: Mapping[str, float]
    failure: str | None = None


#: Columns of :attr:`BacktestResult.predictions`.
PREDICTION_COLUMNS: Final = (
    "ranker",
    "fold",
    "task_id",
    "model_id",
    "warmth",
    "n_observed",
    "outcome",
    "predicted",
    "low",
    "high",
)
#: Columns of :meth:`BacktestResult.frame`.
FRAME_COLUMNS: Final = (
    "ranker",
    "fold",
    "task_id",
    "warmth",
    "n_models",
    "n_observed",
    "metric",
    "score",
)
#: Columns of :meth:`BacktestResult.means`.
MEAN_COLUMNS: Final = ("ranker", "metric", "mean", "low", "high", "n")
#: Columns of :meth:`BacktestResult.differences`.
DIFFERENCE_COLUMNS: Final = ("ranker", "metric", "difference", "low", "high", "n", "verdict")


def no_predictions() -> pd.DataFrame:
    """A table of predictions without rows."""
    return pd.DataFrame({name: pd.Series(dtype=object) for name in PREDICTION_COLUMNS})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A task that a fold could not test: fewer than two models were held out."""

    fold: str
    task_id: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BacktestResult:
    """Scores of every ranker, with means and intervals.

    A task's score is the mean over the folds that test it; a ranker's ``mean`` is the mean over
    tasks (over folds when a single task is tested). Undefined scores (NaN) are left out of both;
    ``n_defined`` of the summary is the number of units that remain. ``interval`` is the 95 %
    percentile bootstrap over the same units, ``difference`` that of ranker minus ``reference`` on
    the units where both are defined. Equal cells and seed give equal intervals, in any order.

    Attributes
    ----------
    cells : tuple of Cell
        Everything measured, sorted by fold, task and ranker.
    protocol : str
        Name of the protocol.
    rankers : tuple of str
        Rows in order: popularity, random, static, the compared ones, oracle.
    seed : int
        Of the whole back-test.
    settings : dict
        Configuration of the protocol.
    left_out : tuple of LeftOut
        Tasks that could not be tested.
    task_metrics : mapping of task id to str
        The metric, and so the unit of regret, of each tested task.
    history_version : int or None
        Version of the history that was tested.
    n_draws : int
        Bootstrap draws.
    predictions : DataFrame
        Predictions of every tested pair by the rankers whose predictions were kept: columns
        ``PREDICTION_COLUMNS``; outcome, prediction and interval in the task's own metric, NaN where
        no training task has that metric.
    coverage : float or None
        Share of outcomes that those intervals are made to hold.
    reference : str
        The ranker that differences are taken from, popularity unless :meth:`against` another.
    higher_is_better : mapping of metric to bool
        Direction of every metric, user-defined ones included, in the order of the tables.
    """

    cells: tuple[Cell, ...]
    protocol: str
    rankers: tuple[str, ...]
    seed: int
    settings: JsonDict = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    task_metrics: Mapping[str, str] = field(default_factory=dict)
    history_version: int | None = None
    n_draws: int = N_DRAWS
    predictions: pd.DataFrame = field(default_factory=no_predictions)
    coverage: float | None = None
    reference: str = POPULARITY
    higher_is_better: Mapping[str, bool] = field(default_factory=directions)

    def __post_init__(self) -> None:
        def key(cell: Cell) -> tuple[str, ...]:
            return cell.fold, cell.task_id, cell.ranker

        kept: dict[str, object] = {
            "cells": tuple(sorted(self.cells, key=key)),
            "rankers": tuple(self.rankers),
            "left_out": tuple(self.left_out),
        }
        tested = {cell.task_id for cell in self.cells}
        kept["task_metrics"] = {k: v for k, v in self.task_metrics.items() if k in tested}
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_cells(cls, cells: Iterable[Cell], **options: Any) -> Self:
        """Summarise measured cells; ``options`` are other attributes, ``None`` the default."""
        given = {name: value for name, value in options.items() if value is not None}
        return cls(cells=tuple(cells), **given)

    @property
    def unit(self) -> Unit:
        """What the bootstrap resamples: ``task``, or ``fold`` where a single task is tested."""
        return "task" if len(self.tasks) > 1 else "fold"

    @cached_property
    def summaries(self) -> Mapping[str, RankerSummary]:
        """Means, intervals and differences of each ranker over everything."""
        return self._summarised(self._scores, "all")

    @cached_property
    def scenarios(self) -> Mapping[TaskWarmth, Mapping[str, RankerSummary]]:
        """The same over the tasks of one warmth; only those that occur."""
        warmth = self._scores.index.get_level_values("warmth")
        return {
            each: self._summarised(self._scores[warmth == each], each)
            for each in WARMTHS
            if (warmth == each).any()
        }

    @cached_property
    def _scores(self) -> pd.DataFrame:
        """One row per cell, one column per metric."""
        keys = [(cell.ranker, cell.task_id, cell.fold, cell.warmth) for cell in self.cells]
        index = pd.MultiIndex.from_tuples(keys, names=["ranker", "task", "fold", "warmth"])
        scores = [[cell.scores[metric] for metric in self.metrics] for cell in self.cells]
        return pd.DataFrame(scores, index=index, columns=list(self.metrics), dtype="float64")

    def _summarised(self, scores: pd.DataFrame, label: str) -> dict[str, RankerSummary]:
        means = scores.groupby(level=["ranker", self.unit]).mean()
        units = sorted(scores.index.unique(self.unit))
        return summarise(
            {
                name: means.reindex(pd.MultiIndex.from_product([[name], units])).to_numpy()
                for name in self.rankers
            },
            metrics=self.higher_is_better,
            reference=self.reference,
            seed=self.seed,
            label=label,
            n_draws=self.n_draws,
        )

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics in the order of the tables."""
        return tuple(self.higher_is_better)

    @property
    def failures(self) -> tuple[Cell, ...]:
        """Cells where a ranker gave no answer."""
        return tuple(cell for cell in self.cells if cell.failure is not None)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tested tasks, sorted."""
        return tuple(sorted({cell.task_id for cell in self.cells}))

    @property
    def n_folds(self) -> int:
        """Number of folds with a test."""
        return len({cell.fold for cell in self.cells})

    def against(self, ranker: str) -> Self:
        """The same result with differences from another ranker, paired task by task.

        Raises
        ------
        UnknownIdError
            No such ranker in this result.
        """
        if ranker not in self.rankers:
            raise UnknownIdError(
                f"no ranker {ranker!r} to compare with: choose from {', '.join(self.rankers)}"
            )
        return self if ranker == self.reference else replace(self, reference=ranker)

    def mean(self, ranker: str, metric: str) -> float:
        """Mean of one metric over the units where it is defined, NaN when there is none.

        Raises
        ------
        UnknownIdError
            No such ranker, or no such metric, in this result.
        """
        if ranker not in self.rankers or metric not in self.metrics:
            raise UnknownIdError(
                f"no {metric!r} of {ranker!r}: the rankers are {', '.join(self.rankers)}, "
                f"the metrics {', '.join(self.metrics)}"
            )
        return self.summaries[ranker].mean[metric]

    def means(self) -> pd.DataFrame:
        """Means with 95 % bootstrap intervals as a tidy table.

        Returns
        -------
        DataFrame
            Columns ``MEAN_COLUMNS``, one row per ranker and metric: ``ranker``, ``metric``,
            ``mean``, ``low``, ``high`` and ``n`` (units where the metric is defined).
        """
        rows = [
            (name, metric, of.mean[metric], *of.interval[metric], of.n_defined[metric])
            for name, of in self.summaries.items()
            for metric in self.metrics
        ]
        return pd.DataFrame(rows, columns=list(MEAN_COLUMNS))

    def differences(self) -> pd.DataFrame:
        """Every ranker minus ``reference``, paired task by task, with 95 % bootstrap intervals.

        Returns
        -------
        DataFrame
            One row per ranker and metric: ``ranker``, ``metric``, ``difference`` (the mean),
            ``low``, ``high``, ``n`` (units where both are defined) and ``verdict`` (1 better, -1
            worse, 0 where the interval contains 0).
        """
        rows = [
            (name, metric, own.mean, *own.interval, own.n, own.verdict)
            for name in self.rankers
            if name != self.reference
            for metric, own in self.summaries[name].difference.items()
        ]
        return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))

    def frame(self) -> pd.DataFrame:
        """Everything measured as a tidy table, one number per row.

        Returns
        -------
        DataFrame
            Columns ``FRAME_COLUMNS``: ``ranker``, ``fold``, ``task_id``, ``warmth`` (what training
            knew of the task), ``n_models`` (tested), ``n_observed`` (runs revealed), ``metric`` and
            ``score`` (NaN where undefined).
        """
        rows = [
            (x.ranker, x.fold, x.task_id, x.warmth, x.n_models, x.n_observed, metric, score)
            for x in self.cells
            for metric, score in x.scores.items()
        ]
        return pd.DataFrame(rows, columns=list(FRAME_COLUMNS))

    def per_task(self, ranker: str) -> dict[str, dict[str, float]]:
        """Task id → metric → mean over the folds that tested the task."""
        own = self._scores[self._scores.index.get_level_values("ranker") == ranker]
        means = own.groupby(level="task").mean().reindex(list(self.tasks))
        rows = means.to_numpy().tolist()
        return {
            task: dict(zip(self.metrics, row, strict=True))
            for task, row in zip(self.tasks, rows, strict=True)
        }

    def plot(
        self,
        metric: str = REGRET_AT_1,
        *,
        rankers: Sequence[str] | None = None,
        ax: Any = None,
    ) -> Any:
        """Draw the mean of one metric with its 95 % interval, one line per ranker.

        Parameters
        ----------
        metric : str
            One of ``metrics``.
        rankers : sequence of str, optional
            Rows from top to bottom; default all.
        ax : matplotlib Axes, optional
            Where to draw; default a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        UnknownIdError
            No such metric or ranker in this result.
        MissingExtraError
            matplotlib is not installed.
        """
        return drawn(self, metric, rankers=rankers, ax=ax)

    def to_latex(
        self,
        path: str | Path | None = None,
        *,
        metrics: Sequence[str] | None = None,
        intervals: bool = True,
    ) -> str:
        """Table for a paper, with the lines of the LaTeX package booktabs.

        The best mean of each column, the oracle excepted, is bold; ``+`` and ``-`` mean better and
        worse than ``reference``, as in the other tables.

        Parameters
        ----------
        path : str or Path, optional
            Also write it there.
        metrics : sequence of str, optional
            Columns; default Pearson, weighted tau, regret@1, regret@5 and user-defined ones.
        intervals : bool
            Write the 95 % interval behind the mean.

        Raises
        ------
        UsageError
            Unknown metric.
        StorageError
            ``path`` cannot be written.
        """
        return as_latex(self, path, metrics=metrics, intervals=intervals)

    def to_json(self) -> JsonDict:
        """Plain JSON values; NaN is ``None``.

        ``rankers`` has for each ranker ``mean``, ``per_task``, ``interval``, ``n_defined``,
        ``n_failures`` and ``difference_to_popularity`` (or to another ``reference``). ``cells``
        holds everything measured, and :meth:`from_json` restores the result from it.
        """
        failed = [cell.ranker for cell in self.failures]
        document: JsonDict = {
            "protocol": self.protocol,
            "history_version": self.history_version,
            "settings": self.settings,
            "seed": self.seed,
            "n_draws": self.n_draws,
            "n_tasks": len(self.tasks),
            "n_folds": self.n_folds,
            "interval_over": self.unit,
            "reference": self.reference,
            "higher_is_better": dict(self.higher_is_better),
            "task_metrics": dict(self.task_metrics),
            "rankers": {
                name: {
                    **summary.to_json(self.reference),
                    "per_task": self.per_task(name),
                    "n_failures": failed.count(name),
                }
                for name, summary in self.summaries.items()
            },
            "scenario": {
                warmth: {
                    "n_tasks": len({x.task_id for x in self.cells if x.warmth == warmth}),
                    "rankers": {name: x.to_json(self.reference) for name, x in summaries.items()},
                }
                for warmth, summaries in self.scenarios.items()
            },
            "failures": [
                {"ranker": x.ranker, "fold": x.fold, "task": x.task_id, "reason": x.failure}
                for x in self.failures
            ],
            "left_out": [asdict(entry) for entry in self.left_out],
            "cells": [asdict(cell) for cell in self.cells],
            "coverage": self.coverage,
            "predictions": {name: self.predictions[name].tolist() for name in PREDICTION_COLUMNS},
        }
        cleaned: JsonDict = _without_nan(document)
        return cleaned

    @classmethod
    def from_json(cls, document: str | Mapping[str, Any]) -> Self:
        """Restore the result that :meth:`to_json` gave, from the values or from their text.

        Raises
        ------
        DataError
            The document is not a back-test result.
        """
        try:
            data = parse_json(document) if isinstance(document, str) else document
            cells = [
                Cell(**{**x, "scores": {k: _number(v) for k, v in x["scores"].items()}})
                for x in data["cells"]
            ]
            kept = data.get("predictions", {})
            # Results of earlier versions may not have these.
            newer = ("coverage", "reference", "higher_is_better")
            return cls.from_cells(
                cells,
                left_out=[LeftOut(**entry) for entry in data["left_out"]],
                predictions=pd.DataFrame(kept, columns=list(PREDICTION_COLUMNS)),
                **{name: data[name] for name in _AS_THEY_ARE},
                **{name: data.get(name) for name in newer},
            )
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise DataError(
                f"this is not a back-test result ({type(error).__name__}: {error}); "
                "give what `recsys-ms evaluate --json` wrote"
            ) from error


#: Attributes that JSON holds as they are.
_AS_THEY_ARE: Final = (
    *("protocol", "settings", "rankers", "task_metrics", "history_version", "seed", "n_draws"),
)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
