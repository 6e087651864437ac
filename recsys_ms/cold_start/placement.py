"""Where a task without runs stands in the transfer space: proxy embedding → task factors.

Fennec (Bao et al. 2024, §3.3) fits one regressor from CLIP embeddings to the factors of known
tasks. Here the regressor and the views it reads are chosen in a nested back-test: the history is
factorised again without some of its tasks, which are then ranked by where each candidate places
them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Self, TypeAlias

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.cold_start.smoothers import (
    SMOOTHER_KINDS,
    MeanSmoother,
    Smoother,
    make_smoother,
    smoother_from_state,
)
from recsys_ms.cold_start.views import TaskVectors, joined, known_rows
from recsys_ms.core.metrics import pearson
from recsys_ms.core.state import State
from recsys_ms.core.types import BoolArray, FloatArray, IntArray

#: Fewest known tasks with a view for a regressor to read it.
MIN_TASKS: Final = 4
_MAX_FOLDS: Final = 10

#: Task factors (n_tasks, n_factors) and model factors (n_models, n_factors) of the interactions
#: that a mask keeps; rows of tasks without interactions are not looked at.
Factorise: TypeAlias = Callable[[BoolArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, slots=True)
class Choice:
    """A kind of regressor and the views it reads."""

    kind: str
    views: tuple[str, ...]

    @property
    def label(self) -> str:
        """Such as ``"ridge of images and names"``."""
        return f"{self.kind} of {' and '.join(self.views)}" if self.views else self.kind


@dataclass(frozen=True, slots=True)
class Placed:
    """A task's place.

    Attributes
    ----------
    factors : ndarray of shape (n_factors,)
    weights : mapping of task id to float
        What each known task contributes to it; they add up to 1.
    similarity : mapping of task id to float
        Cosine of the centred vectors that were read, for the same tasks; empty where none was.
    choice : Choice
        How it was placed.
    """

    factors: FloatArray
    weights: Mapping[str, float]
    similarity: Mapping[str, float]
    choice: Choice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """Interactions as placement needs them: indices of tasks and models, and z-scores."""

    task_index: IntArray
    model_index: IntArray
    score: FloatArray


class TaskPlacement:
    """Places tasks by their cards, with the best regressor for the views a card has.

    Attributes
    ----------
    skill : dict of str to float
        Mean Pearson over held-out tasks of every candidate of the nested back-test, by label.
    """

    skill: dict[str, float]

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
        placement._vectors = TaskVectors().fit(cards)
        candidates = _candidates(placement._vectors, cards)
        losses = _back_test(candidates, cards, outcomes, factorise, rng) if candidates else {}
        placement.skill = {choice.label: value for choice, value in losses.items()}
        placement._smoothers = {}
        vectors = placement._vectors(cards)
        metric = _metric(model_factors)
        for views in _patterns(candidates):
            choice = _best(losses, views)
            if choice.views == views:
                rows = known_rows(vectors, views)
                fitted = make_smoother(choice.kind).fit(
                    joined(vectors, views)[rows], task_factors[rows], metric
                )
                placement._smoothers[views] = (fitted, rows)
        placement._skill_of = {
            views: losses[Choice(smoother.kind, views)]
            for views, (smoother, _) in placement._smoothers.items()
        }
        return placement

    _task_ids: tuple[str, ...]
    _factors: FloatArray
    _vectors: TaskVectors
    _smoothers: dict[tuple[str, ...], tuple[Smoother, BoolArray]]
    _skill_of: dict[tuple[str, ...], float]

    def place(self, card: TaskCard | None) -> Placed:
        """Place a task by what its card says; in the middle where it says nothing of use."""
        n = len(self._task_ids)
        if card is not None and self._smoothers:
            vectors = self._vectors([card])
            usable = [views for views in self._smoothers if known_rows(vectors, views)[0]]
            if usable:
                views = max(usable, key=lambda key: self._skill_of[key])
                return self._placed(joined(vectors, views), views)
        middle: FloatArray = self._factors.mean(axis=0)
        return Placed(middle, dict.fromkeys(self._task_ids, 1.0 / n), {}, Choice("mean", ()))

    def _placed(self, vector: FloatArray, views: tuple[str, ...]) -> Placed:
        smoother, rows = self._smoothers[views]
        weights = smoother.weights(vector)[0]
        ids = [self._task_ids[int(i)] for i in np.flatnonzero(rows)]
        known = smoother.vectors
        norms = np.linalg.norm(known, axis=1) * np.linalg.norm(vector)
        cosine = (known @ vector[0]) / np.maximum(norms, 1e-12)
        return Placed(
            weights @ self._factors[rows],
            dict(zip(ids, weights.tolist(), strict=True)),
            dict(zip(ids, cosine.tolist(), strict=True)),
            Choice(smoother.kind, views),
        )

    def state(self) -> State:
        """Everything that :meth:`from_state` needs."""
        patterns = list(self._smoothers)
        return State(
            values={
                "task_ids": list(self._task_ids),
                "patterns": [list(views) for views in patterns],
                "skill_of": [self._skill_of[views] for views in patterns],
                "skill": self.skill,
            },
            arrays={
                "factors": self._factors,
                **{f"rows_{i}": self._smoothers[views][1] for i, views in enumerate(patterns)},
            },
            children={
                "vectors": self._vectors.state(),
                **{
                    f"smoother_{i}": self._smoothers[views][0].state()
                    for i, views in enumerate(patterns)
                },
            },
        )

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Restore; places equal the saved one's bit for bit."""
        placement = cls()
        placement._task_ids = tuple(state.values["task_ids"])
        placement._factors = np.asarray(state.arrays["factors"], dtype=np.float64)
        placement._vectors = TaskVectors.from_state(state.children["vectors"])
        placement.skill = dict(state.values["skill"])
        patterns = [tuple(views) for views in state.values["patterns"]]
        placement._skill_of = dict(zip(patterns, state.values["skill_of"], strict=True))
        placement._smoothers = {
            views: (
                smoother_from_state(state.children[f"smoother_{i}"]),
                np.asarray(state.arrays[f"rows_{i}"], dtype=np.bool_),
            )
            for i, views in enumerate(patterns)
        }
        return placement


def _candidates(vectors: TaskVectors, cards: Sequence[TaskCard]) -> list[Choice]:
    """Every kind of regressor on every set of views that enough tasks have."""
    table = vectors(cards)
    found = []
    for size in range(1, len(vectors.views) + 1):
        for views in combinations(vectors.views, size):
            if known_rows(table, views).sum() >= MIN_TASKS:
                found += [Choice(kind, views) for kind in SMOOTHER_KINDS]
    return found


def _patterns(candidates: Sequence[Choice]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(choice.views for choice in candidates))


def _best(losses: Mapping[Choice, float], views: tuple[str, ...]) -> Choice:
    """The best candidate that reads some or all of ``views``; the earliest of equal ones."""
    usable = [choice for choice in losses if set(choice.views) <= set(views)]
    return max(usable, key=lambda choice: losses[choice])


def _back_test(
    candidates: Sequence[Choice],
    cards: Sequence[TaskCard],
    outcomes: Outcomes,
    factorise: Factorise,
    rng: np.random.Generator,
) -> dict[Choice, float]:
    """Mean Pearson of each candidate over tasks that neither space nor regressor has seen."""
    n_tasks = len(cards)
    found: dict[Choice, list[float]] = {choice: [] for choice in candidates}
    for fold in np.array_split(rng.permutation(n_tasks), min(_MAX_FOLDS, n_tasks)):
        held_out = np.isin(outcomes.task_index, fold)
        if held_out.all():
            continue
        tasks, models = factorise(~held_out)
        seen = np.setdiff1d(np.arange(n_tasks), fold)
        vectors = TaskVectors().fit([cards[int(t)] for t in seen])
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
    if choice.kind == MeanSmoother.kind or not all(view in table for view in choice.views):
        return factors
    known = known_rows(table, choice.views)
    rows = seen[known[seen]]
    asked = known[fold]
    if rows.size < MIN_TASKS - 1 or not asked.any():
        return factors
    vectors = joined(table, choice.views)
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
