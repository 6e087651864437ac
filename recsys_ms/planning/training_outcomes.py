"""What a trained ranker keeps of its history: who reached what, to answer and to give reasons."""

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
    """Outcomes of the training history, and of tasks added since.

    Attributes
    ----------
    interactions : Interactions
        Training interactions.
    added : mapping of task id to mapping of model id to float
        Outcomes (higher is better) of tasks that were added without a refit.
    """

    interactions: Interactions
    added: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, interactions: Interactions) -> Self:
        """Keep these interactions, with no task added."""
        return cls(interactions, {})

    @cached_property
    def scores(self) -> FloatArray:
        """Z-scores of the interactions within their tasks, shape (n_interactions,)."""
        return standardize(self.interactions, "zscore").scores

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
        """Mean GPU seconds of a run of each model, NaN where no run said."""
        costs = self.interactions.costs
        said = ~np.isnan(costs)
        n = self.interactions.n_models
        index = self.interactions.model_index
        sums = np.bincount(index[said], weights=costs[said], minlength=n)
        counts = np.bincount(index[said], minlength=n)
        with np.errstate(invalid="ignore"):
            means = np.where(counts > 0, sums / counts, np.nan)
        return dict(zip(self.interactions.model_ids, means.tolist(), strict=True))

    def rank_on(self, model_id: str, task_id: str) -> tuple[int, int] | None:
        """Rank (from 1) of a model among the models run on a training task; None if it was not."""
        inter = self.interactions
        if task_id not in inter.task_ids or model_id not in inter.model_ids:
            return None
        task, model = inter.task_position(task_id), inter.model_ids.index(model_id)
        begin, end = np.searchsorted(inter.task_index, [task, task + 1])
        own = np.flatnonzero(inter.model_index[begin:end] == model)
        if own.size == 0:
            return None
        scores = self.scores[begin:end]
        return int(np.sum(scores > scores[own[0]])) + 1, int(scores.size)

    def run_id(self, task_id: str, model_id: str) -> str | None:
        """Id of the best run of a model on a training task; None where there is none."""
        inter = self.interactions
        task, model = _at(inter.task_ids, task_id), _at(inter.model_ids, model_id)
        if task is None or model is None or not inter.run_ids:
            return None
        begin, end = np.searchsorted(inter.task_index, [task, task + 1]).tolist()
        row = begin + int(np.searchsorted(inter.model_index[begin:end], model))
        found = row < end and inter.model_index[row] == model
        return (inter.run_ids[row] or None) if found else None

    def best_tasks(self, model_id: str, *, n: int = 2) -> list[tuple[str, int, int]]:
        """Training tasks on which a model ranked highest: (task id, rank from 1, models run)."""
        inter = self.interactions
        if model_id not in inter.model_ids:
            return []
        rows = np.flatnonzero(inter.model_index == inter.model_ids.index(model_id))
        best = rows[np.argsort(-self.scores[rows], kind="stable")[:n]]
        found = []
        for row in best:
            begin, end = np.searchsorted(
                inter.task_index, [inter.task_index[row], inter.task_index[row] + 1]
            )
            own = self.scores[begin:end]
            found.append(
                (
                    inter.task_ids[int(inter.task_index[row])],
                    int(np.sum(own > self.scores[row])) + 1,
                    int(own.size),
                )
            )
        return found


def _at(ids: tuple[str, ...], wanted: str) -> int | None:
    """Position in sorted ids."""
    at = bisect_left(ids, wanted)
    return at if at < len(ids) and ids[at] == wanted else None
