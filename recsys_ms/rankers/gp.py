"""Gaussian process over (task, model) pairs: images, names and cards on both sides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Final

import numpy as np

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.cold_start.model_entities import ModelEntities
from recsys_ms.cold_start.views import TaskVectors
from recsys_ms.core.declared import PositionsIn, Shape
from recsys_ms.core.state import Derived, Learned
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.learners.gaussian.kernels import Kernel
from recsys_ms.learners.gaussian.pairs import (
    BOUNDS,
    MAX_ITERATIONS,
    Entities,
    Pairs,
    pair_evidence,
    pair_kernel,
)
from recsys_ms.learners.gaussian.process import Process, fit
from recsys_ms.learners.gaussian.vectors import median_distance
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.contributions import POPULARITY, Contributions, Source
from recsys_ms.rankers.meta import HeadRankerConfig
from recsys_ms.rankers.popularity import lookup, positions

#: Most training pairs: time grows with their cube, memory with their square.
_MAX_ROWS: Final = 3000
#: Pairs that the settings are tuned on.
_TUNING_ROWS: Final = 400
#: Models that are asked about at a time.
_CHUNK: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PairProcessConfig(HeadRankerConfig):
    """Settings of the :class:`PairProcessRanker`, those of a ranker on features of pairs."""


class PairProcessRanker(BaseRanker):
    """A Gaussian process whose kernel compares tasks by their views and models by their cards.

    See :mod:`recsys_ms.learners.gaussian.pairs`. Cold tasks, cold models and tasks with a few
    outcomes are all answered by conditioning. Of a history with more than 3,000 pairs, a random
    sample of 3,000 is conditioned on, as residuals from the mean over a model's other tasks; the
    mean over the whole history is added again.

    Parameters
    ----------
    config : PairProcessConfig, optional
        Default: every score of the catalog.
    """

    name: ClassVar[str] = "gp"
    default_config: ClassVar[PairProcessConfig] = PairProcessConfig()
    short_forms: ClassVar[Mapping[str, str]] = {"+": "scores"}

    config: PairProcessConfig
    _task_ids: Learned[Annotated[tuple[str, ...], Shape("task")]]
    _model_ids: Learned[Annotated[tuple[str, ...], Shape("model")]]
    _score_names: Learned[tuple[str, ...]]
    _vectors: Learned[TaskVectors]
    _units: Learned[dict[str, float]]
    _models: Learned[ModelEntities]
    _row_task: Learned[Annotated[IntArray, Shape("row"), PositionsIn("task")]]
    _row_model: Learned[Annotated[IntArray, Shape("row"), PositionsIn("model")]]
    _target: Learned[Annotated[FloatArray, Shape("row")]]
    _offsets: Learned[Annotated[FloatArray, Shape("model")]]
    _logs: Learned[dict[str, float]]
    _process: Derived[Process]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        score = standardize(interactions, "zscore").scores
        self._task_ids, self._model_ids = interactions.task_ids, interactions.model_ids
        names = self._catalog.scores.names
        self._score_names = tuple(
            name for name in names if self.config.scores is None or name in self.config.scores
        )
        task_cards = [self._task_card(task_id) for task_id in self._task_ids]
        self._vectors = TaskVectors().fit(task_cards)
        table = self._vectors(task_cards)
        self._units = {view: median_distance(table[view]) for view in self._vectors.views}
        self._models = ModelEntities().fit(self._model_cards(self._model_ids))
        chosen = np.arange(score.size)
        self._offsets = np.zeros(len(self._model_ids))
        if score.size > _MAX_ROWS:
            chosen = np.sort(rng.permutation(score.size)[:_MAX_ROWS])
            # Means of each model's other tasks, one a row, and of all its tasks, both drawn to 0.
            model = interactions.model_index
            sums = np.bincount(model, weights=score, minlength=len(self._model_ids))
            counts = np.bincount(model, minlength=len(self._model_ids))
            left_out, self._offsets = (sums[model] - score) / counts[model], sums / (counts + 1)
            score = score - left_out
        self._row_task = interactions.task_index[chosen]
        self._row_model = interactions.model_index[chosen]
        self._target = score[chosen]
        rows = self._training_pairs()
        part = rng.permutation(chosen.size)[:_TUNING_ROWS]
        evidence = pair_evidence(self._kernel(), rows.take(part), self._target[part])
        self._logs = fit(evidence, BOUNDS, MAX_ITERATIONS)
        self._derive(rows)

    def _derive(self, rows: Pairs | None = None) -> None:
        prior = Process(self._kernel(), self._logs)
        self._process = prior.condition(rows or self._training_pairs(), self._target)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        process, _ = self._given(task)
        value = self._offset(model_ids)
        for start in range(0, len(model_ids), _CHUNK):
            part = list(model_ids[start : start + _CHUNK])
            value[start : start + len(part)] += process.mean(self._pairs_of(task, part))
        return value

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """What the outcome of each known run adds, and each observed one.

        The expected outcome is linear in the known ones: a run adds its standardised outcome times
        its share (:meth:`Process.shares`), the change of the prediction if the run had come out as
        the mean of its task.
        """
        process, outcome = self._given(task)
        shares = process.shares(self._pairs_of(task, model_ids))
        runs = zip(self._row_task.tolist(), self._row_model.tolist(), strict=True)
        sources = [Source.run(self._task_ids[t], self._model_ids[m]) for t, m in runs]
        sources += [Source.observed(model_id) for model_id in task.observed_ids[: outcome.size]]
        amounts = shares * np.concatenate([self._target, outcome])
        offset = self._offset(model_ids)[:, None]
        return (Contributions(self.name, (*sources, POPULARITY), np.hstack([amounts, offset])),)

    def _given(self, task: TaskView) -> tuple[Process, FloatArray]:
        """The process given the observed outcomes of a new task, and their residuals."""
        if not task.observed_ids or task.task_id in self._task_ids:
            return self._process, np.empty(0)
        outcome = task.observed_scores - self._offset(task.observed_ids)
        return self._process.condition(self._pairs_of(task, task.observed_ids), outcome), outcome

    def _offset(self, model_ids: Sequence[str]) -> FloatArray:
        """Mean over each model's tasks that its residuals were taken from, 0 for a cold model."""
        return lookup(self._model_ids, self._offsets, model_ids)

    def _pairs_of(self, task: TaskView, model_ids: Sequence[str]) -> Pairs:
        # A known task is the training task itself; any other differs from all by its id.
        card = task.card if task.card is not None else TaskCard(task_id=task.task_id)
        n = len(model_ids)
        at = positions(self._model_ids, model_ids)
        is_known = bool((at >= 0).all())
        models = self._known_models.take(at) if is_known else self._models_of(model_ids)
        return Pairs(
            tasks=self._task_entities([card], [task.task_id]),
            models=models,
            task=np.zeros(n, dtype=np.int64),
            model=np.arange(n, dtype=np.int64),
            scores=self._pair_scores([task.task_id] * n, model_ids),
        )

    def _training_pairs(self) -> Pairs:
        cards = [self._task_card(task_id) for task_id in self._task_ids]
        return Pairs(
            tasks=self._task_entities(cards, self._task_ids),
            models=self._known_models,
            task=self._row_task,
            model=self._row_model,
            scores=self._pair_scores(
                [self._task_ids[int(row)] for row in self._row_task],
                [self._model_ids[int(row)] for row in self._row_model],
            ),
        )

    @cached_property
    def _known_models(self) -> Entities:
        """The models with runs, which most queries ask for."""
        return self._models_of(self._model_ids)

    def _models_of(self, model_ids: Sequence[str]) -> Entities:
        return self._models(self._model_cards(model_ids))

    def _task_entities(self, cards: Sequence[TaskCard], ids: Sequence[str]) -> Entities:
        table = self._vectors(cards)
        vectors = {view: table[view] / unit for view, unit in self._units.items()}
        return Entities(ids=tuple(ids), labels={}, vectors=vectors)

    def _pair_scores(self, task_ids: Sequence[str], model_ids: Sequence[str]) -> FloatArray:
        values = self._catalog.scores.relative(self._score_names, task_ids, model_ids)
        return np.nan_to_num(values)

    def _kernel(self) -> Kernel:
        return pair_kernel(tuple(self._units), self._models.components, len(self._score_names))

    def _task_card(self, task_id: str) -> TaskCard:
        return self._catalog.find_task_card(task_id) or TaskCard(task_id=task_id)

    def _model_cards(self, model_ids: Sequence[str]) -> list[ModelCard]:
        find = self._catalog.find_model_card
        return [find(model_id) or ModelCard(model_id=model_id) for model_id in model_ids]
