"""Where a task without runs stands in the transfer space: proxy embedding → task factors.

Fennec (Bai et al. 2024, §3.3) fits one regressor from CLIP embeddings to the factors of known
tasks. Here the regressor of each view, and how much the view counts, are chosen in a nested
back-test: the history is factorised again without some of its tasks, which are then ranked by where
each candidate places them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.cold_start.views import CardTable, TaskVectors
from recsys_ms.core.ranking_metrics import pearson
from recsys_ms.core.state import Derived, Learned, Stateful
from recsys_ms.core.types import BoolArray, FloatArray, IntArray
from recsys_ms.learners.gaussian.smoothers import (
    SMOOTHER_KINDS,
    MeanSmoother,
    Smoother,
    make_smoother,
)
from recsys_ms.learners.gaussian.vectors import known_rows

#: Fewest known tasks with a view for a regressor to read it.
MIN_TASKS: Final = 4
_MAX_FOLDS: Final = 10

#: Task factors (n_tasks, n_factors) and model factors (n_models, n_factors) of the interactions
#: that a mask keeps; rows of tasks without interactions are not looked at.
Factorise: TypeAlias = Callable[[BoolArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, slots=True)
class Choice:
    """A kind of regressor and the view it reads."""

    kind: str
    view: str

    @property
    def label(self) -> str:
        """Such as ``"ridge of images"``."""
        return f"{self.kind} of {self.view}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A task's place.

    Attributes
    ----------
    factors : ndarray of shape (n_factors,)
    weights : mapping of task id to float
        What each known task contributes to it; they add up to 1.
    similarity : mapping of task id to float
        Cosine of the centred vectors that were read, averaged over views by their shares; empty
        where none was read.
    shares : mapping of str to float
        What each view contributes, by the label of its regressor; they add up to 1, or it is empty.
    """

    factors: FloatArray
    weights: Mapping[str, float]
    similarity: Mapping[str, float]
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """Interactions as placement needs them: indices of tasks and models, and z-scores."""

    task_index: IntArray
    model_index: IntArray
    score: FloatArray


class TaskPlacement(Stateful):
    """Places tasks by their cards: the mean of where its views put a task.

    A view counts by what its best regressor gained over the middle of all tasks in the nested
    back-test, in Pearson; a view that gained nothing does not count.

    Attributes
    ----------
    skill : dict of str to float
        Mean Pearson over held-out tasks of every candidate of the nested back-test, by label.
    """

    skill: Learned[dict[str, float]]

    _task_ids: Learned[tuple[str, ...]]
    _factors: Learned[FloatArray]
    _vectors: Learned[TaskVectors]
    #: Regressor of each view that gained something, the training tasks it knows, and its gain.
    _readers: Learned[dict[str, tuple[Smoother, BoolArray, float]]]
    #: The card that was placed last, and its place: a back-test asks about one task many times.
    _last: Derived[tuple[TaskCard | None, Placed] | None] = None

    @classmethod
    def fit(
        cls,
        cards: Sequence[TaskCard],
        task_factors: FloatArray,
        model_factors: FloatArray,
        outcomes: Outcomes,
        factorise: Factorise,
        *,
        rng: np.random.Generator,
    ) -> Self:
        """Choose and fit the regressors.

        Parameters
        ----------
        cards : sequence of TaskCard
            Of the training tasks, a bare one where none is known.
        task_factors, model_factors : ndarray of shape (n_tasks or n_models, n_factors)
            The transfer space.
        outcomes : Outcomes
            Training interactions.
        factorise : callable
            Makes the transfer space of a part of them.
        rng : Generator
            Draws the folds.
        """
        placement = cls()
        placement._task_ids = tuple(card.task_id for card in cards)
        placement._factors = task_factors
        known = CardTable.of(cards)
        placement._vectors = TaskVectors().fit(known)
        candidates = _candidates(placement._vectors, known)
        skill = _back_test(candidates, known, outcomes, factorise, rng) if candidates else {}
        placement.skill = {choice.label: value for choice, value in skill.items()}
        placement._readers = {}
        vectors = placement._vectors(known)
        metric = _metric(model_factors)
        for view in dict.fromkeys(choice.view for choice in skill):
            own = [choice for choice in skill if choice.view == view]
            best = max(own, key=lambda choice: skill[choice])
            gain = skill[best] - skill[Choice(MeanSmoother.kind, view)]
            if gain > 0.0:
                rows = known_rows(vectors[view])
                fitted = make_smoother(best.kind).fit(
                    vectors[view][rows], task_factors[rows], metric
                )
                placement._readers[view] = (fitted, rows, gain)
        return placement

    def place(self, card: TaskCard | None) -> Placed:
        """Place a task by what its card says; in the middle where it says nothing of use."""
        if self._last is None or self._last[0] is not card:
            self._last = card, self._placed(card)
        return self._last[1]

    def _placed(self, card: TaskCard | None) -> Placed:
        n = len(self._task_ids)
        vectors = {} if card is None or not self._readers else self._vectors([card])
        usable = [v for v in self._readers if v in vectors and known_rows(vectors[v])[0]]
        if not usable:
            middle: FloatArray = self._factors.mean(axis=0)
            return Placed(middle, dict.fromkeys(self._task_ids, 1.0 / n), {}, {})
        total = sum(self._readers[view][2] for view in usable)
        weights, similarity = np.zeros(n), np.zeros(n)
        shares = {}
        for view in usable:
            smoother, rows, gain = self._readers[view]
            share = gain / total
            shares[Choice(smoother.kind, view).label] = share
            weights[rows] += share * smoother.weights(vectors[view])[0]
            similarity[rows] += share * _cosines(smoother.vectors, vectors[view][0])
        return Placed(
            weights @ self._factors,
            dict(zip(self._task_ids, weights.tolist(), strict=True)),
            dict(zip(self._task_ids, similarity.tolist(), strict=True)),
            shares,
        )


def _cosines(rows: FloatArray, vector: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector)
    cosines: FloatArray = (rows @ vector) / np.maximum(norms, 1e-12)
    return cosines


def _candidates(vectors: TaskVectors, cards: CardTable) -> list[Choice]:
    """Every kind of regressor on every view that enough tasks have."""
    table = vectors(cards)
    return [
        Choice(kind, view)
        for view in vectors.views
        if known_rows(table[view]).sum() >= MIN_TASKS
        for kind in SMOOTHER_KINDS
    ]


def _back_test(
    candidates: Sequence[Choice],
    cards: CardTable,
    outcomes: Outcomes,
    factorise: Factorise,
    rng: np.random.Generator,
) -> dict[Choice, float]:
    """Mean Pearson of each candidate over tasks that neither space nor regressor has seen."""
    n_tasks = len(cards.cards)
    found: dict[Choice, list[float]] = {choice: [] for choice in candidates}
    for fold in np.array_split(rng.permutation(n_tasks), min(_MAX_FOLDS, n_tasks)):
        held_out = np.isin(outcomes.task_index, fold)
        if held_out.all():
            continue
        tasks, models = factorise(~held_out)
        seen = np.setdiff1d(np.arange(n_tasks), fold)
        vectors = TaskVectors().fit(cards.take(seen))
        table = vectors(cards)
        metric = _metric(models)
        for choice in candidates:
            factors = _predicted(choice, table, seen, fold, tasks, metric)
            for task, row in zip(fold, factors, strict=True):
                own = outcomes.task_index == task
                value = models[outcomes.model_index[own]] @ row
                found[choice].append(float(np.nan_to_num(pearson(value, outcomes.score[own]))))
    return {choice: float(np.mean(values)) for choice, values in found.items() if values}


def _predicted(
    choice: Choice,
    table: Mapping[str, FloatArray],
    seen: IntArray,
    fold: IntArray,
    tasks: FloatArray,
    metric: FloatArray,
) -> FloatArray:
    """Factor rows of the tasks of a fold; the middle for those that lack a view."""
    factors = np.tile(tasks[seen].mean(axis=0), (fold.size, 1))
    if choice.kind == MeanSmoother.kind or choice.view not in table:
        return factors
    vectors = table[choice.view]
    known = known_rows(vectors)
    rows = seen[known[seen]]
    asked = known[fold]
    if rows.size < MIN_TASKS - 1 or not asked.any():
        return factors
    smoother = make_smoother(choice.kind).fit(vectors[rows], tasks[rows], metric)
    factors[asked] = smoother.weights(vectors[fold[asked]]) @ tasks[rows]
    return factors


def _metric(model_factors: FloatArray) -> FloatArray:
    """Covariance C of the model factors.

    An error e of a task's factors changes how its models differ by ``eᵀ C e`` on average.
    """
    centred = model_factors - model_factors.mean(axis=0)
    covariance: FloatArray = centred.T @ centred / max(len(centred), 1)
    return covariance
