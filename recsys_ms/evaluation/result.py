"""The answer of a back-test: scores per ranker, fold and task, their means and their intervals."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
import pandas as pd

from recsys_ms.core.errors import DataError, UnknownIdError
from recsys_ms.core.types import FloatArray, JsonDict
from recsys_ms.evaluation.bootstrap import N_DRAWS
from recsys_ms.evaluation.folds import WARMTHS, TaskWarmth
from recsys_ms.evaluation.metrics import REGRET_AT_1, directions
from recsys_ms.evaluation.show import as_html, as_latex, as_text, drawn
from recsys_ms.evaluation.summary import RankerSummary, summarise

POPULARITY: Final = "popularity"
RANDOM: Final = "random"
STATIC: Final = "static"
ORACLE: Final = "oracle"

#: What the bootstrap resamples: tasks, or folds where there is one task only.
Unit: TypeAlias = Literal["task", "fold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One ranker on one task of one fold.

    Attributes
    ----------
    ranker, fold, task_id : str
        Which.
    warmth : {"cold", "warm", "hot"}
        What training knew of the task.
    n_models : int
        Tested models.
    n_observed : int
        Runs revealed in the query.
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


def no_predictions() -> pd.DataFrame:
    """Table without rows."""
    return pd.DataFrame({name: pd.Series(dtype=object) for name in PREDICTION_COLUMNS})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A task that a fold could not test: fewer than two models were held out."""

    fold: str
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BacktestResult:
    """Scores of every ranker, with means and intervals. Build with :meth:`from_cells`.

    A task's score is the mean over the folds that test it; a ranker's ``mean`` is the mean over
    tasks (over folds when a single task is tested). Undefined scores (NaN) are left out of both;
    ``n_defined`` of the summary says how many units remain. ``interval`` is the 95 % percentile
    bootstrap over the same units, ``difference`` that of ranker minus ``reference`` on the units
    where both are defined.

    Attributes
    ----------
    protocol : str
        Name of the protocol.
    settings : dict
        Its configuration.
    rankers : tuple of str
        Rows in order: popularity, random, static, the compared ones, oracle.
    cells : tuple of Cell
        Everything measured.
    left_out : tuple of LeftOut
        Tasks that could not be tested.
    task_metrics : mapping of task id to str
        The metric, and so the unit of regret, of each task.
    history_version : int or None
        Version of the history that was tested.
    seed, n_draws : int
        Of the whole back-test, and of the bootstrap.
    unit : {"task", "fold"}
        What was resampled.
    summaries : mapping of ranker to RankerSummary
        Over everything.
    scenarios : mapping of warmth to mapping of ranker to RankerSummary
        Over the tasks of one warmth; only those that occur.
    predictions : DataFrame
        What the rankers that were asked for it said of every tested pair: columns
        ``PREDICTION_COLUMNS``; outcome, prediction and interval in the task's own metric, NaN where
        no training task has that metric.
    coverage : float or None
        Share of outcomes that those intervals are made to hold.
    reference : str
        The ranker that differences are taken from, popularity unless :meth:`against` another.
    higher_is_better : mapping of metric to bool
        Direction of every metric, those of one's own included, in the order of the tables.
    """

    protocol: str
    settings: JsonDict
    rankers: tuple[str, ...]
    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]
    task_metrics: Mapping[str, str]
    history_version: int | None
    seed: int
    n_draws: int
    unit: Unit
    summaries: Mapping[str, RankerSummary]
    scenarios: Mapping[TaskWarmth, Mapping[str, RankerSummary]]
    predictions: pd.DataFrame
    coverage: float | None
    reference: str = POPULARITY
    higher_is_better: Mapping[str, bool] = field(default_factory=directions)

    @classmethod
    def from_cells(
        cls,
        cells: Iterable[Cell],
        *,
        protocol: str,
        rankers: Sequence[str],
        seed: int,
        settings: JsonDict | None = None,
        left_out: Iterable[LeftOut] = (),
        task_metrics: Mapping[str, str] | None = None,
        history_version: int | None = None,
        n_draws: int = N_DRAWS,
        predictions: pd.DataFrame | None = None,
        coverage: float | None = None,
        reference: str = POPULARITY,
        higher_is_better: Mapping[str, bool] | None = None,
    ) -> Self:
        """Summarise measured cells; equal cells and seed give equal intervals, in any order."""
        metrics = dict(directions() if higher_is_better is None else higher_is_better)
        kept = tuple(sorted(cells, key=lambda cell: (cell.fold, cell.task_id, cell.ranker)))
        unit: Unit = "task" if len({cell.task_id for cell in kept}) > 1 else "fold"

        def summary(of: Sequence[Cell], label: str) -> dict[str, RankerSummary]:
            units = sorted({getattr(cell, _UNIT_FIELD[unit]) for cell in of})
            return summarise(
                {name: _unit_scores(of, name, unit, units, list(metrics)) for name in rankers},
                metrics=metrics,
                reference=reference,
                seed=seed,
                label=label,
                n_draws=n_draws,
            )

        tested = {cell.task_id for cell in kept}
        return cls(
            protocol=protocol,
            settings=dict(settings or {}),
            rankers=tuple(rankers),
            cells=kept,
            left_out=tuple(left_out),
            task_metrics={k: v for k, v in (task_metrics or {}).items() if k in tested},
            history_version=history_version,
            seed=seed,
            n_draws=n_draws,
            unit=unit,
            summaries=summary(kept, "all"),
            scenarios={
                warmth: summary(of, warmth)
                for warmth in WARMTHS
                if (of := [cell for cell in kept if cell.warmth == warmth])
            },
            predictions=no_predictions() if predictions is None else predictions,
            coverage=coverage,
            reference=reference,
            higher_is_better=metrics,
        )

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics in the order of the tables."""
        return tuple(self.higher_is_better)

    def against(self, ranker: str) -> Self:
        """The same result with differences from another ranker, task by task paired.

        Raises
        ------
        UnknownIdError
            No such ranker in this result.
        """
        if ranker not in self.rankers:
            raise UnknownIdError(
                f"no ranker {ranker!r} to compare with: there are {', '.join(self.rankers)}"
            )
        if ranker == self.reference:
            return self
        rest = {own.name: getattr(self, own.name) for own in fields(self)}
        del rest["summaries"], rest["scenarios"], rest["unit"]
        return type(self).from_cells(**{**rest, "reference": ranker})

    def differences(self) -> pd.DataFrame:
        """Every ranker minus ``reference``, task by task paired, with 95 % bootstrap intervals.

        Returns
        -------
        DataFrame
            One row a ranker and metric: ``ranker``, ``metric``, ``difference`` (the mean), ``low``,
            ``high``, ``n`` (units where both are defined) and ``verdict`` (1 better, -1 worse, 0
            where the interval holds 0).
        """
        rows = [
            (name, metric, own.mean, *own.interval, own.n, own.verdict)
            for name in self.rankers
            if name != self.reference
            for metric, own in self.summaries[name].difference.items()
        ]
        names = ["ranker", "metric", "difference", "low", "high", "n", "verdict"]
        return pd.DataFrame(rows, columns=names)

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
        """Folds with a test."""
        return len({cell.fold for cell in self.cells})

    def mean(self, ranker: str, metric: str) -> float:
        """Mean of one metric over the units where it is defined, NaN when there is none.

        Raises
        ------
        UnknownIdError
            No such ranker, or no such metric, in this result.
        """
        if ranker not in self.summaries or metric not in self.metrics:
            raise UnknownIdError(
                f"no {metric!r} of {ranker!r}: the rankers are {', '.join(self.rankers)}, "
                f"the metrics {', '.join(self.metrics)}"
            )
        return self.summaries[ranker].mean[metric]

    def frame(self) -> pd.DataFrame:
        """Everything measured as a tidy table, one number a row.

        Returns
        -------
        DataFrame
            Columns ``FRAME_COLUMNS``, always these: ``ranker``, ``fold``, ``task_id``, ``warmth``
            (what training knew of the task), ``n_models`` (tested), ``n_observed`` (runs revealed),
            ``metric`` and ``score`` (NaN where undefined).
        """
        rows = [
            (x.ranker, x.fold, x.task_id, x.warmth, x.n_models, x.n_observed, metric, score)
            for x in self.cells
            for metric, score in x.scores.items()
        ]
        return pd.DataFrame(rows, columns=list(FRAME_COLUMNS))

    def means(self) -> pd.DataFrame:
        """Means with 95 % bootstrap intervals as a tidy table.

        Returns
        -------
        DataFrame
            Columns ``MEAN_COLUMNS``, one row a ranker and metric: ``ranker``, ``metric``, ``mean``,
            ``low``, ``high`` and ``n`` (units where the metric is defined).
        """
        rows = [
            (name, metric, of.mean[metric], *of.interval[metric], of.n_defined[metric])
            for name, of in self.summaries.items()
            for metric in self.metrics
        ]
        return pd.DataFrame(rows, columns=list(MEAN_COLUMNS))

    def plot(
        self,
        metric: str = REGRET_AT_1,
        *,
        rankers: Sequence[str] | None = None,
        ax: Any = None,
    ) -> Any:
        """Draw the mean of one metric with its 95 % interval, one line a ranker.

        Parameters
        ----------
        metric : str
            One of ``metrics``.
        rankers : sequence of str, optional
            Which, from above to below; default all.
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

        The best mean of each column is bold, the oracle's left out; ``+`` and ``-`` say better and
        worse than ``reference``, as in the other tables.

        Parameters
        ----------
        path : str or Path, optional
            Also write it there.
        metrics : sequence of str, optional
            Columns; default Pearson, weighted tau, regret@1, regret@5 and those of one's own.
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

    def per_task(self, ranker: str) -> dict[str, dict[str, float]]:
        """Task id → metric → mean over the folds that tested the task."""
        scores = _unit_scores(self.cells, ranker, "task", self.tasks, self.metrics)
        return {
            task: dict(zip(self.metrics, map(float, row), strict=True))
            for task, row in zip(self.tasks, scores, strict=True)
        }

    def to_json(self) -> JsonDict:
        """Plain JSON values in the layout of DESIGN §6 and more; NaN is ``None``.

        Besides ``mean``, ``per_task`` and ``interval``, a ranker has ``n_defined``, ``n_failures``
        and ``difference_to_popularity`` (or to another ``reference``). ``cells`` holds everything
        measured, and :meth:`from_json` restores the result from it.
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
                    "mean": dict(self.summaries[name].mean),
                    "per_task": self.per_task(name),
                    **_extra_json(self.summaries[name], self.reference),
                    "n_failures": failed.count(name),
                }
                for name in self.rankers
            },
            "scenario": {
                warmth: {
                    "n_tasks": len({x.task_id for x in self.cells if x.warmth == warmth}),
                    "rankers": {
                        name: {
                            "mean": dict(summary.mean),
                            **_extra_json(summary, self.reference),
                        }
                        for name, summary in summaries.items()
                    },
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
        """Restore what :meth:`to_json` gave, from the values or from their text.

        Raises
        ------
        DataError
            Not such a document.
        """
        try:
            data = json.loads(document) if isinstance(document, str) else document
            cells = [
                Cell(**{**x, "scores": {k: _number(v) for k, v in x["scores"].items()}})
                for x in data["cells"]
            ]
            return cls.from_cells(
                cells,
                protocol=data["protocol"],
                settings=data["settings"],
                rankers=tuple(data["rankers"]),
                left_out=[LeftOut(**entry) for entry in data["left_out"]],
                task_metrics=data["task_metrics"],
                history_version=data["history_version"],
                seed=data["seed"],
                n_draws=data["n_draws"],
                predictions=pd.DataFrame(
                    data.get("predictions", {}), columns=list(PREDICTION_COLUMNS)
                ),
                coverage=data.get("coverage"),
                reference=data.get("reference", POPULARITY),
                higher_is_better=data.get("higher_is_better"),
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(
                f"this is not a back-test result ({type(error).__name__}: {error}); "
                "give what `recsys-ms evaluate --json` wrote"
            ) from error


_UNIT_FIELD: Final[Mapping[Unit, str]] = {"task": "task_id", "fold": "fold"}


def _unit_scores(
    cells: Iterable[Cell], ranker: str, unit: Unit, units: Sequence[str], metrics: Sequence[str]
) -> FloatArray:
    # (n_units, n_metrics): mean over the ranker's cells of a unit, undefined ones left out.
    position = {name: row for row, name in enumerate(units)}
    sums = np.zeros((len(units), len(metrics)))
    counts = np.zeros_like(sums)
    for cell in cells:
        if cell.ranker == ranker:
            row = position[getattr(cell, _UNIT_FIELD[unit])]
            scores = np.array([cell.scores[metric] for metric in metrics])
            defined = ~np.isnan(scores)
            sums[row, defined] += scores[defined]
            counts[row] += defined
    means = np.full_like(sums, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _extra_json(summary: RankerSummary, reference: str) -> JsonDict:
    return {
        "interval": {metric: list(ends) for metric, ends in summary.interval.items()},
        "n_defined": dict(summary.n_defined),
        f"difference_to_{reference}": {
            metric: {"mean": part.mean, "interval": list(part.interval), "n": part.n}
            for metric, part in summary.difference.items()
        },
    }


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
