"""What ``auto`` weighs its parts by, estimated on tasks and on models that were held out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.progress import Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import BoolArray, FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.learners.factor_model import FactorModelConfig
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.calibration import N_OBSERVED, shown_and_rest
from recsys_ms.rankers.held_out import held_out_models, held_out_tasks
from recsys_ms.rankers.meta import LightGBMRanker, LinearRanker
from recsys_ms.rankers.outcome_shape import OutcomeShape, TrainingScores
from recsys_ms.rankers.popularity import positions
from recsys_ms.rankers.posterior import condition
from recsys_ms.rankers.stack import Stack, fit_stack
from recsys_ms.rankers.strengths import HeldOutTask, Strengths, fit_bend, fit_strengths
from recsys_ms.rankers.task_scale import ScalePrior
from recsys_ms.rankers.transfer_model import ModelRows, TransferModel

#: Learners on features of pairs that the stack may use beside popularity and the transfer score.
PARTS: Final[dict[str, type[BaseRanker]]] = {
    ranker.name: ranker for ranker in (LinearRanker, LightGBMRanker)
}
#: The columns of the stack: popularity, the score from similar tasks, and the learners.
COLUMNS: Final = ("popularity", "transfer", *PARTS)
#: Folds of held-out tasks and of held-out models, and bounds of the cost: tasks that are held out,
#: tasks that each fold of models is asked about, and models of a task. Weights and strengths are a
#: dozen numbers, for which a hundred tasks are enough.
_N_FOLDS: Final = 5
_N_MODEL_FOLDS: Final = 3
_MAX_HELD_OUT: Final = 100
_MAX_ASKED: Final = 8
_MAX_ROWS: Final = 300
_MIN_TASKS: Final = 3
_MIN_MODELS: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What was estimated on held-out tasks and models."""

    stack: Stack  # weights of the columns for models with runs
    cold_stack: Stack  # and without runs
    strengths: Strengths
    #: Errors in standard deviations, by the number of observed runs, one array a held-out task.
    errors: dict[int, list[FloatArray]]

    @classmethod
    def gather(
        cls,
        data: TrainingScores,
        catalog: Catalog,
        config: FactorModelConfig,
        *,
        seed: int,
        progress: Progress,
    ) -> Self:
        """Hold out tasks, then models, and estimate weights, strengths and errors on them."""
        asker = _Asker(data, catalog, config, seed)
        questions = list(asker.task_questions(progress))
        stack = Stack.prior(len(COLUMNS))
        if questions:
            rows = np.concatenate([each.rows for each in questions])
            predicted = np.vstack([each.columns for each in questions])
            groups = data.interactions.task_index[rows]
            stack = fit_stack(predicted, data.normal[rows], groups)
        cold_stack = asker.cold_stack()
        held_out = [each.held_out(data, stack) for each in questions]
        strengths = fit_bend(
            held_out,
            [data.standard[each.rows] for each in questions],
            [each.fold.shape for each in questions],
            fit_strengths(held_out, seed=seed),
        )
        errors: dict[int, list[FloatArray]] = {n: [] for n in N_OBSERVED}
        for question, task in zip(questions, held_out, strict=True):
            for n, error in question.errors(data.interactions, task, strengths, seed):
                errors[n].append(error)
        return cls(stack, cold_stack, strengths, errors)


@dataclass(frozen=True, slots=True, eq=False)
class _Fold:
    """A transfer model and learners that did not see some tasks, or some models."""

    model: TransferModel
    parts: dict[str, BaseRanker]
    scale: ScalePrior
    shape: OutcomeShape


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """A held-out task: some of its models, and what was expected of them."""

    fold: _Fold
    task: int
    rows: IntArray
    columns: FloatArray
    variance: float
    models: ModelRows

    def held_out(self, data: TrainingScores, stack: Stack) -> HeldOutTask:
        return HeldOutTask(
            name=data.interactions.task_ids[self.task],
            mean=self.columns @ stack.weights,
            level=float(np.sqrt(self.fold.model.level_variance)),
            factor_sd=float(np.sqrt(self.variance)),
            models=self.models,
            normal=data.normal[self.rows],
        )

    def errors(
        self, interactions: Interactions, task: HeldOutTask, strengths: Strengths, seed: int
    ) -> Iterator[tuple[int, FloatArray]]:
        """Numbers of observed runs, and by how much the outcomes of the others strayed."""
        metric = interactions.metrics[self.task]
        if metric not in self.fold.scale.metrics:
            return
        prior = task.prior(strengths)
        scale = self.fold.scale.of_metric(metric, np.empty(0))
        outcomes, compared = interactions.outcomes[self.rows], interactions.comparable[self.rows]
        for n in N_OBSERVED:
            errors = []
            for seen, rest in shown_and_rest(outcomes.size, n, task.name, seed):
                posterior = condition(prior.take(seen), compared[seen], scale, self.fold.shape)
                errors.append(posterior.believe(prior.take(rest)).strayed(outcomes[rest]))
            if errors:
                yield n, np.concatenate(errors)


class _Asker:
    """Fits folds and asks them about the tasks, or the models, that they did not see."""

    def __init__(
        self, data: TrainingScores, catalog: Catalog, config: FactorModelConfig, seed: int
    ) -> None:
        self._data, self._interactions = data, data.interactions
        self._catalog, self._config, self._seed = catalog, config, seed
        # For models with runs, a learner knows more than popularity only by the task or the pair;
        # popularity and factors of models without runs are told by cards, so scores are needed.
        scored = bool(catalog.scores.names)
        described = scored or any(map(catalog.find_task_card, self._interactions.task_ids))
        self._learners = {"task": PARTS if described else {}, "model": PARTS if scored else {}}

    def _fold(self, inside: BoolArray, axis: str, number: int) -> _Fold:
        train = self._data.without(inside)
        shape = train.shape()
        parts = {}
        for name, make in self._learners[axis].items():
            rng = named_stream(self._seed, "fold", f"{axis} {number}", name)
            parts[name] = make().fit(train.interactions, self._catalog, rng=rng)
        model = TransferModel().fit(train, shape, self._catalog, self._config)
        return _Fold(model, parts, ScalePrior.fit(train.interactions), shape)

    def _view(self, task: int) -> TaskView:
        task_id = self._interactions.task_ids[task]
        return TaskView(task_id=task_id, card=self._catalog.find_task_card(task_id))

    def task_questions(self, progress: Progress) -> Iterator[_Question]:
        """Held-out tasks, each asked of a fold that did not see it."""
        if self._interactions.n_tasks < _MIN_TASKS:
            return
        folds = held_out_tasks(self._interactions, _N_FOLDS, self._seed)
        share = -(-_MAX_HELD_OUT // len(folds))
        track = progress.track(folds, total=len(folds), description="held-out tasks")
        for number, tasks in enumerate(track):
            stream = named_stream(self._seed, "held out", str(number))
            chosen = np.sort(stream.permutation(tasks)[:share])
            inside = np.isin(self._interactions.task_index, chosen)
            if inside.all():
                continue
            fold = self._fold(inside, "task", number)
            questions = (self._question(fold, int(task)) for task in chosen)
            # A single model cannot be compared with another.
            yield from (each for each in questions if each.rows.size > 1)

    def _question(self, fold: _Fold, task: int) -> _Question:
        view = self._view(task)
        begin, end = np.searchsorted(self._interactions.task_index, [task, task + 1])
        rows = np.arange(begin, end)
        rows = rows[positions(fold.model.model_ids, self._data.model_ids(rows)) >= 0]
        if rows.size > _MAX_ROWS:
            stream = named_stream(self._seed, "rows", view.task_id)
            rows = rows[np.sort(stream.permutation(rows.size)[:_MAX_ROWS])]
        ids = self._data.model_ids(rows)
        factors, variance = fold.model.tasks.place(view.card)
        models = fold.model.rows(self._catalog, ids)
        columns = stack_columns(models, factors, fold.parts, view, ids)
        return _Question(fold, task, rows, columns, variance, models)

    def cold_stack(self) -> Stack:
        """Weights for models without runs, from models that were held out of all tasks."""
        inter = self._interactions
        if inter.n_models < _MIN_MODELS or not self._learners["model"]:
            # Without scores: popularity and factors, both predicted from cards.
            return Stack(np.eye(len(COLUMNS))[1])
        cards = map(self._catalog.find_model_card, inter.model_ids)
        families = [card.family if card is not None else None for card in cards]
        predicted = np.full((inter.n_interactions, len(COLUMNS)), np.nan)
        group = np.zeros(inter.n_interactions, dtype=np.int64)
        folds = held_out_models(inter, families, _N_MODEL_FOLDS, self._seed)
        for number, models in enumerate(folds):
            inside = np.isin(inter.model_index, models)
            if inside.all() or not inside.any():
                continue
            fold = self._fold(inside, "model", number)
            tasks = np.unique(inter.task_index[inside])
            stream = named_stream(self._seed, "asked", str(number))
            for task in stream.permutation(tasks)[:_MAX_ASKED]:
                view = self._view(int(task))
                rows = np.flatnonzero(inside & (inter.task_index == task))
                ids = self._data.model_ids(rows)
                own = fold.model.rows(self._catalog, ids)
                at = positions(fold.model.task_ids, [view.task_id])[0]
                factors = fold.model.factors[at] if at >= 0 else 0.0 * fold.model.factors[0]
                predicted[rows] = stack_columns(own, factors, fold.parts, view, ids)
                # Each fold's models of a task are a group of their own.
                group[rows] = int(task) * _N_MODEL_FOLDS + number
        return fit_stack(predicted, self._data.normal, group)


def stack_columns(
    rows: ModelRows,
    factors: FloatArray,
    parts: Mapping[str, BaseRanker],
    task: TaskView,
    model_ids: Sequence[str],
) -> FloatArray:
    """What each column of the stack predicts of some models on one task, (n_models, n_columns)."""
    found = np.zeros((len(model_ids), len(COLUMNS)))
    found[:, 0] = rows.level
    found[:, 1] = rows.level + rows.loadings @ factors
    if model_ids:
        for name, part in parts.items():
            found[:, COLUMNS.index(name)] = part.predict_view(task, model_ids).value
    return found
