"""Outcomes of the training history that a ranker keeps, for answers and their reasons."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from recsys_ms.core.state import Stateful
from recsys_ms.core.types import FloatArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize


@dataclass(frozen=True, eq=False)
class KnownOutcomes(Stateful):
    """Outcomes of the training history, and of tasks added since."""

    interactions: Interactions
    #: Outcomes (higher is better) by model of tasks that were added without a refit, by task.
    added: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, interactions: Interactions) -> Self:
        """The outcomes of these interactions, without added tasks."""
        return cls(interactions, {})

    @cached_property
    def scores(self) -> FloatArray:
        """Z-scores of the interactions within their tasks, shape (n_interactions,)."""
        return standardize(self.interactions, "zscore").scores

    def values_in(self, metric: str) -> FloatArray:
        """Values of the training history in one metric, in its own unit and direction."""
        rows = np.array([each == metric for each in self.interactions.metrics], dtype=bool)
        found: FloatArray = self.interactions.values[rows[self.interactions.task_index]]
        return found

    def with_task(self, task_id: str, outcomes: Mapping[str, float]) -> Self:
        """Add outcomes of a task; they replace earlier ones of the same models."""
        merged = {**self.added.get(task_id, {}), **outcomes}
        return type(self)(self.interactions, {**self.added, task_id: merged})

    def of_task(self, task_id: str) -> dict[str, float]:
        """Outcomes of a task by model id; empty for an unknown task."""
        known: dict[str, float] = {}
        if task_id in self.interactions.task_ids:
            columns, outcomes = self.interactions.of_task(task_id)
            ids = self.interactions.model_ids
            known = {ids[int(j)]: float(v) for j, v in zip(columns, outcomes, strict=True)}
        return {**known, **self.added.get(task_id, {})}

    @cached_property
    def n_tasks_by_model(self) -> dict[str, int]:
        """Number of training tasks that each model was run on."""
        counts = np.bincount(self.interactions.model_index, minlength=self.interactions.n_models)
        return dict(zip(self.interactions.model_ids, counts.tolist(), strict=True))

    @cached_property
    def cost_by_model(self) -> dict[str, float]:
        """Mean GPU seconds of a run of each model, NaN where unknown."""
        inter, said = self.interactions, ~np.isnan(self.interactions.costs)
        index, n = inter.model_index[said], inter.n_models
        sums = np.bincount(index, weights=inter.costs[said], minlength=n)
        counts = np.bincount(index, minlength=n)
        with np.errstate(invalid="ignore"):
            means = np.where(counts > 0, sums / counts, np.nan)
        return dict(zip(inter.model_ids, means.tolist(), strict=True))

    def rank_on(self, model_id: str, task_id: str) -> tuple[int, int] | None:
        """Rank (from 1) of a model among those run on a training task; None if it was not."""
        row = self._row(task_id, model_id)
        return None if row is None else self._rank(row)

    def run_id(self, task_id: str, model_id: str) -> str | None:
        """Id of the best run of a model on a training task; None where unknown."""
        row, ids = self._row(task_id, model_id), self.interactions.run_ids
        return None if row is None or not ids else ids[row] or None

    def best_tasks(self, model_id: str, *, n: int = 2) -> list[tuple[str, int, int]]:
        """Training tasks on which a model ranked highest: (task id, rank from 1, models run)."""
        inter = self.interactions
        model = _at(inter.model_ids, model_id)
        rows = np.flatnonzero(inter.model_index == model) if model is not None else np.empty(0, int)
        best = rows[np.argsort(-self.scores[rows], kind="stable")[:n]]
        return [(inter.task_ids[int(inter.task_index[i])], *self._rank(int(i))) for i in best]

    def _row(self, task_id: str, model_id: str) -> int | None:
        inter = self.interactions
        task, model = _at(inter.task_ids, task_id), _at(inter.model_ids, model_id)
        if task is None or model is None:
            return None
        begin, end = np.searchsorted(inter.task_index, [task, task + 1]).tolist()
        row = begin + int(np.searchsorted(inter.model_index[begin:end], model))
        return row if row < end and inter.model_index[row] == model else None

    def _rank(self, row: int) -> tuple[int, int]:
        """Rank of a row's score in its task, and the number of models run there."""
        task = self.interactions.task_index[row]
        begin, end = np.searchsorted(self.interactions.task_index, [task, task + 1])
        return int(np.sum(self.scores[begin:end] > self.scores[row])) + 1, int(end - begin)


def _at(ids: tuple[str, ...], wanted: str) -> int | None:
    """Position in sorted ids."""
    at = bisect_left(ids, wanted)
    return at if at < len(ids) and ids[at] == wanted else None
