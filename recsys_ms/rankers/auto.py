"""The default ranker: one Gaussian posterior over a task's models (docs/explanation/ranker.md)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.placement import Placed
from recsys_ms.core.rng import named_stream, seed_from
from recsys_ms.core.state import Derived, Learned
from recsys_ms.core.types import FloatArray, IntArray, JsonDict
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.learners.factor_model import FactorModelConfig
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskQuery, TaskView
from recsys_ms.rankers.belief import Belief
from recsys_ms.rankers.calibration import N_OBSERVED, shown_and_rest
from recsys_ms.rankers.contributions import POPULARITY, Contributions, Source
from recsys_ms.rankers.held_out import held_out_models, held_out_tasks
from recsys_ms.rankers.meta import LightGBMRanker, LinearRanker
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.popularity import positions
from recsys_ms.rankers.posterior import TaskPosterior, TaskPrior, condition
from recsys_ms.rankers.stack import Stack, fit_stack
from recsys_ms.rankers.strengths import HeldOutTask, Strengths, fit_bend, fit_strengths
from recsys_ms.rankers.task_scale import ScalePrior, TaskScale, to_link
from recsys_ms.rankers.transfer_model import ModelRows, TransferModel

#: Learners on features of pairs that the stack may use beside popularity and the transfer score.
PARTS: Final[dict[str, type[BaseRanker]]] = {
    ranker.name: ranker for ranker in (LinearRanker, LightGBMRanker)
}
#: Parts of a prediction, beside those: what a model is worth anywhere; what tasks that look alike
#: say; outcomes observed on the task itself; what the shape of outcomes makes of it all.
POPULARITY_PART: Final = "popularity"
TRANSFER_PART: Final = "transfer"
OBSERVED_PART: Final = "observed runs"
SHAPE_PART: Final = "shape of outcomes"
#: Evidence: folds of held-out tasks and of held-out models, tasks that are held out or asked at
#: most, and models of each that are judged. It bounds the cost: weights and strengths are a dozen
#: numbers, which a hundred tasks tell well.
_N_FOLDS: Final = 5
_N_MODEL_FOLDS: Final = 3
_MAX_HELD_OUT: Final = 100
_MAX_ASKED: Final = 8
_MAX_ROWS: Final = 300
_MIN_TASKS: Final = 3
_MIN_MODELS: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class _Fold:
    """A transfer model and parts that did not see some tasks, with what is needed to ask them."""

    model: TransferModel
    parts: dict[str, BaseRanker]
    scale: ScalePrior
    shape: OutcomeShape


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """A held-out task: some of its models, what was expected of them and what they reached."""

    fold: _Fold
    task: int
    rows: IntArray
    columns: FloatArray
    placed: tuple[FloatArray, float]
    known: ModelRows


@dataclass(frozen=True, slots=True, eq=False)
class _KnownModels:
    """All models that may be asked about: what is known of them, and their weights in the stack."""

    ids: tuple[str, ...]
    at: dict[str, int]
    rows: ModelRows
    weights: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _ToldOfTask:
    """What was worked out of the task that was asked about last, for all known models."""

    task_id: str
    card: TaskCard | None
    columns: FloatArray
    factors: FloatArray
    variance: float


class AutoRanker(BaseRanker):
    """Popularity, what tasks and models that look alike share, and what the task itself shows.

    The standardised outcome of a model is, in normal scores, a linear stack of popularity, transfer
    score (factors of tasks and models, placed by cards) and heads on features of the pair, plus
    factors that the task's own runs tell, plus noise. Weights and variances are estimated on tasks
    that were held out. Observed runs condition one Gaussian posterior, from which expected value,
    interval, order and the next run are read.
    """

    name: ClassVar[str] = "auto"
    default_config: ClassVar[FactorModelConfig] = FactorModelConfig()
    short_forms: ClassVar[Mapping[str, str]] = {":": "n_factors"}
    config: FactorModelConfig

    _shape: Learned[OutcomeShape]
    _row_task: Learned[NDArray[np.int32]]
    _row_model: Learned[NDArray[np.int32]]
    _row_outcome: Learned[FloatArray]
    _stack: Learned[Stack]
    _cold_stack: Learned[Stack]
    _strengths: Learned[Strengths]
    _model: Learned[TransferModel]
    _parts: Learned[dict[str, BaseRanker]]
    choices: Derived[JsonDict]
    _errors: Derived[dict[int, list[FloatArray]]]
    _all_models: Derived[_KnownModels | None]
    _told: Derived[_ToldOfTask | None]
    _answered: Derived[tuple[TaskQuery, TaskPosterior] | None]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        seed = seed_from(rng)
        normal = standardize(interactions, "rank").scores
        standard = standardize(interactions, "zscore").scores
        self._shape = OutcomeShape.fit(interactions, normal, standard)
        self._row_task = interactions.task_index.astype(np.int32)
        self._row_model = interactions.model_index.astype(np.int32)
        self._row_outcome = interactions.outcomes
        self._forget()
        self._candidates = self._candidate_parts(interactions)
        questions = list(self._questions(interactions, normal, standard, seed))
        self._stack = self._stacked(questions, interactions, normal)
        self._cold_stack = self._stacked_models(interactions, normal, standard, seed)
        held_out = [self._held_out_task(each, interactions, normal) for each in questions]
        strengths = fit_strengths(held_out, seed=seed)
        reached = [standard[each.rows] for each in questions]
        shapes = [each.fold.shape for each in questions]
        self._strengths = fit_bend(held_out, reached, shapes, strengths)
        self._errors = self._strayed(questions, held_out, interactions, seed)
        self._model = TransferModel().fit(
            interactions,
            normal,
            standard,
            self._shape,
            self._catalog,
            self.config,
            rng=named_stream(seed, "cards"),
        )
        used = (self._stack.weights + self._cold_stack.weights)[2:] > 0.0
        del self._candidates
        self._parts = {
            name: make().fit(interactions, self._catalog, rng=named_stream(seed, "part", name))
            for (name, make), is_used in zip(PARTS.items(), used, strict=True)
            if is_used
        }
        self.choices = self._choices()

    def _candidate_parts(self, interactions: Interactions) -> dict[str, tuple[str, ...]]:
        """Heads that may enter the stack for models with runs, and for models without.

        Of two models with runs a head tells more than popularity only by what is known of the task
        or of the pair; of models without runs, whose popularity and factors are told by their
        cards, by scores of the pair.
        """
        scored = bool(self._catalog.scores.names)
        described = scored or any(
            self._catalog.find_task_card(task_id) is not None for task_id in interactions.task_ids
        )
        return {"task": tuple(PARTS) if described else (), "model": tuple(PARTS) if scored else ()}

    def _choices(self) -> JsonDict:
        names = (POPULARITY_PART, TRANSFER_PART, *PARTS)
        return {
            "stack": dict(zip(names, self._stack.weights.tolist(), strict=True)),
            "stack_gain": self._stack.gain,
            "stack_cold_models": dict(zip(names, self._cold_stack.weights.tolist(), strict=True)),
            "strengths": asdict(self._strengths),
            "factor_sizes": np.sqrt((self._model.loadings**2).mean(axis=0)).tolist(),
        }

    def _fold(
        self, train: Interactions, normal: FloatArray, standard: FloatArray, seed: int, name: str
    ) -> _Fold:
        axis, _, _ = name.partition(" ")
        shape = OutcomeShape.fit(train, normal, standard)
        return _Fold(
            model=TransferModel().fit(train, normal, standard, shape, self._catalog, self.config),
            parts={
                part: PARTS[part]().fit(
                    train, self._catalog, rng=named_stream(seed, "fold", name, part)
                )
                for part in self._candidates[axis]
            },
            scale=ScalePrior.fit(train),
            shape=shape,
        )

    def _questions(
        self, interactions: Interactions, normal: FloatArray, standard: FloatArray, seed: int
    ) -> Iterator[_Question]:
        """Held-out tasks, each asked of a fold that did not see it."""
        if interactions.n_tasks < _MIN_TASKS:
            return
        folds = held_out_tasks(interactions, _N_FOLDS, seed)
        share = -(-_MAX_HELD_OUT // len(folds))
        track = self.progress.track(folds, total=len(folds), description="held-out tasks")
        for number, tasks in enumerate(track):
            chosen = np.sort(named_stream(seed, "held out", str(number)).permutation(tasks)[:share])
            inside = np.isin(interactions.task_index, chosen)
            if inside.all():
                continue
            train = interactions.select(~inside)
            fold = self._fold(train, normal[~inside], standard[~inside], seed, f"task {number}")
            for task in chosen:
                question = self._question(fold, interactions, int(task), seed)
                # One model alone is neither ordered nor told from another.
                if question.rows.size > 1:
                    yield question

    def _question(self, fold: _Fold, interactions: Interactions, task: int, seed: int) -> _Question:
        task_id = interactions.task_ids[task]
        begin, end = np.searchsorted(interactions.task_index, [task, task + 1])
        rows = np.arange(begin, end)
        ids = [interactions.model_ids[int(j)] for j in interactions.model_index[rows]]
        known = positions(fold.model.model_ids, ids) >= 0
        rows = rows[known]
        if rows.size > _MAX_ROWS:
            drawn = named_stream(seed, "rows", task_id).permutation(rows.size)[:_MAX_ROWS]
            rows = rows[np.sort(drawn)]
        ids = [interactions.model_ids[int(j)] for j in interactions.model_index[rows]]
        described = TaskView(task_id=task_id, card=self._catalog.find_task_card(task_id))
        placed = fold.model.place(described.card)
        models = fold.model.rows(self._catalog, ids)
        columns = _columns(models, placed[0], fold.parts, described, ids)
        return _Question(fold, task, rows, columns, placed, models)

    def _stacked(
        self, questions: Sequence[_Question], interactions: Interactions, normal: FloatArray
    ) -> Stack:
        if not questions:
            return Stack.prior(2 + len(PARTS))
        rows = np.concatenate([each.rows for each in questions])
        predicted = np.vstack([each.columns for each in questions])
        return fit_stack(predicted, normal[rows], interactions.task_index[rows])

    def _stacked_models(
        self, interactions: Interactions, normal: FloatArray, standard: FloatArray, seed: int
    ) -> Stack:
        """Weights for models without runs, from models that were held out of all tasks."""
        # Without scores: popularity by their cards, and the factors that cards tell.
        as_told = Stack(np.eye(2 + len(PARTS))[1])
        if interactions.n_models < _MIN_MODELS or not self._candidates["model"]:
            return as_told
        families = [self._family(model_id) for model_id in interactions.model_ids]
        predicted = np.full((interactions.n_interactions, 2 + len(PARTS)), np.nan)
        group = np.zeros(interactions.n_interactions, dtype=np.int64)
        folds = held_out_models(interactions, families, _N_MODEL_FOLDS, seed)
        for number, models in enumerate(folds):
            inside = np.isin(interactions.model_index, models)
            if inside.all() or not inside.any():
                continue
            train = interactions.select(~inside)
            fold = self._fold(train, normal[~inside], standard[~inside], seed, f"model {number}")
            tasks = np.unique(interactions.task_index[inside])
            for task in named_stream(seed, "asked", str(number)).permutation(tasks)[:_MAX_ASKED]:
                rows = np.flatnonzero(inside & (interactions.task_index == task))
                ids = [interactions.model_ids[int(j)] for j in interactions.model_index[rows]]
                task_id = interactions.task_ids[int(task)]
                described = TaskView(task_id=task_id, card=self._catalog.find_task_card(task_id))
                own = fold.model.rows(self._catalog, ids)
                at = positions(fold.model.task_ids, [task_id])[0]
                factors = fold.model.factors[at] if at >= 0 else 0.0 * fold.model.factors[0]
                predicted[rows] = _columns(own, factors, fold.parts, described, ids)
                # Even one task is told from itself by the models that another fold holds out.
                group[rows] = int(task) * _N_MODEL_FOLDS + number
        return fit_stack(predicted, normal, group)

    def _family(self, model_id: str) -> str | None:
        card = self._catalog.find_model_card(model_id)
        return card.family if card is not None else None

    def _held_out_task(
        self, question: _Question, interactions: Interactions, normal: FloatArray
    ) -> HeldOutTask:
        variance = question.placed[1]
        return HeldOutTask(
            name=interactions.task_ids[question.task],
            mean=question.columns @ self._stack.weights,
            level=float(np.sqrt(question.fold.model.level_variance)),
            factors=question.known.loadings * np.sqrt(variance),
            directions=question.known.directions,
            noise=question.known.noise,
            bend=question.known.bend,
            normal=normal[question.rows],
        )

    def _strayed(
        self,
        questions: Sequence[_Question],
        held_out: Sequence[HeldOutTask],
        interactions: Interactions,
        seed: int,
    ) -> dict[int, list[FloatArray]]:
        """How far held-out outcomes strayed, by the number of observed runs, an array a task."""
        found: dict[int, list[FloatArray]] = {n: [] for n in N_OBSERVED}
        for question, task in zip(questions, held_out, strict=True):
            metric = interactions.metrics[question.task]
            if metric not in question.fold.scale.metrics:
                continue
            prior = task.prior(self._strengths)
            scale = question.fold.scale.of_metric(metric, np.empty(0))
            outcomes = interactions.outcomes[question.rows]
            compared = interactions.comparable[question.rows]
            for n, own in found.items():
                errors = []
                for seen, rest in shown_and_rest(outcomes.size, n, task.name, seed):
                    posterior = condition(
                        prior.take(seen), compared[seen], scale, question.fold.shape
                    )
                    belief = posterior.believe(prior.take(rest))
                    errors.append(belief.strayed(outcomes[rest]))
                if errors:
                    own.append(np.concatenate(errors))
        return found

    def strayed(self) -> dict[int, list[FloatArray]] | None:
        """What the fit itself measured on held-out tasks, for the intervals."""
        return self._errors if any(self._errors.values()) else None

    def use_catalog(self, catalog: Catalog) -> None:
        """Use a catalog that has grown since training, in all parts."""
        super().use_catalog(catalog)
        self._forget()
        for part in self._parts.values():
            part.use_catalog(catalog)

    def place(self, task: TaskView) -> Placed | None:
        """Which known tasks tell where a task without runs stands."""
        return None if task.task_id in self._model.task_ids else self._model.placed(task.card)

    def feature_names(self) -> list[str]:
        """Columns of the design matrix of the linear part."""
        return [name for part in self._parts.values() for name in part.feature_names()]

    def believe(self, query: TaskQuery, model_ids: Sequence[str]) -> Belief:
        """The posterior over some models, given all outcomes that are known of the task."""
        described = self._described(query)
        return self._posterior(query).believe(self._prior(described, model_ids))

    def _described(self, query: TaskQuery) -> TaskView:
        return TaskView(task_id=query.task_id, card=self._card_of(query))

    def observed(self, query: TaskQuery) -> dict[str, float]:
        """Outcomes, higher is better: those of training and those of the query."""
        found: dict[str, float] = {}
        if query.task_id in self._model.task_ids:
            task = self._model.task_ids.index(query.task_id)
            begin, end = np.searchsorted(self._row_task, [task, task + 1])
            ids = [self._model.model_ids[int(j)] for j in self._row_model[begin:end]]
            found = dict(zip(ids, self._row_outcome[begin:end].tolist(), strict=True))
        found |= query.observed
        can_place = self._scale_prior.can_place(
            self.metric_of(query), np.array(list(found.values()))
        )
        # One or two outcomes in a metric that no task has cannot be compared with anything.
        return found if can_place else {}

    def _posterior(self, query: TaskQuery) -> TaskPosterior:
        if self._answered is None or self._answered[0] is not query:
            self._answered = query, self._conditioned(query)
        return self._answered[1]

    def _conditioned(self, query: TaskQuery) -> TaskPosterior:
        seen = self.observed(query)
        ids = sorted(seen)
        outcomes = np.array([seen[i] for i in ids])
        metric = self.metric_of(query)
        if not self._scale_prior.can_place(metric, outcomes):
            metric = self._scale_prior.main_metric
        scale = self._scale_prior.of_metric(metric, outcomes)
        prior = self._prior(self._described(query), ids)
        compared = to_link(outcomes, scale.link, scale.sign)
        return condition(prior, compared, scale, self._shape, names=tuple(ids))

    def _prior(self, task: TaskView, model_ids: Sequence[str]) -> TaskPrior:
        columns, weights, rows, variance = self._expected(task, model_ids)
        return self._strengths.prior(
            (columns * weights).sum(axis=1),
            float(np.sqrt(self._model.level_variance)),
            rows.loadings * np.sqrt(variance),
            rows.directions,
            rows.noise,
            rows.bend,
        )

    def _expected(
        self, task: TaskView, model_ids: Sequence[str]
    ) -> tuple[FloatArray, FloatArray, ModelRows, float]:
        """Columns of the stack and their weights, (n_models, n_parts) each, and what else is known.

        Everything about a task is worked out once for all models: a request asks many times.
        """
        known = self._known_models()
        told = self._told_of(task)
        at = np.array([known.at.get(model_id, -1) for model_id in model_ids], dtype=np.int64)
        if (at >= 0).all():
            return told.columns[at], known.weights[at], known.rows.take(at), told.variance
        # A model that neither the history nor the catalog has, known by its name alone.
        rows = self._model.rows(self._catalog, model_ids)
        weights = np.where((at >= 0)[:, None], known.weights[at], self._cold_stack.weights)
        columns = _columns(rows, told.factors, self._parts, task, model_ids)
        return columns, weights, rows, told.variance

    def _known_models(self) -> "_KnownModels":
        """All models of the history and of the catalog."""
        if self._all_models is None:
            cold = self._catalog.models.index.difference(list(self._model.model_ids))
            ids = (*self._model.model_ids, *cold)
            has_runs = np.arange(len(ids)) < len(self._model.model_ids)
            self._all_models = _KnownModels(
                ids=ids,
                at={model_id: i for i, model_id in enumerate(ids)},
                rows=self._model.rows(self._catalog, ids)
                if len(cold)
                else self._model.known_rows(),
                weights=np.where(has_runs[:, None], self._stack.weights, self._cold_stack.weights),
            )
        return self._all_models

    def _told_of(self, task: TaskView) -> "_ToldOfTask":
        if self._told is None or self._told.task_id != task.task_id or self._told.card != task.card:
            known = self._known_models()
            if task.task_id in self._model.task_ids:
                factors, variance = self._model.place_known(task.task_id)
            else:
                factors, variance = self._model.place(task.card)
            used = known.weights[:, 2:] > 0.0
            columns = _columns(known.rows, factors, {}, task, known.ids)
            described = TaskView(task_id=task.task_id, card=task.card)
            for i, name in enumerate(PARTS):
                rows = np.flatnonzero(used[:, i])
                if rows.size:
                    ids = [known.ids[int(j)] for j in rows]
                    columns[rows, 2 + i] = self._parts[name].predict_view(described, ids).value
            self._told = _ToldOfTask(task.task_id, task.card, columns, factors, variance)
        return self._told

    def _forget(self) -> None:
        """Nothing is worked out of any task: the model or the catalog is another."""
        self._all_models = None
        self._told = None
        self._answered = None

    def parts(
        self, task: TaskView, model_ids: Sequence[str]
    ) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Weight and value of each column of the stack, then what observed runs and shape add."""
        columns, weights, _, _ = self._expected(task, model_ids)
        names = (POPULARITY_PART, TRANSFER_PART, *PARTS)
        found = {name: (weights[:, i], columns[:, i]) for i, name in enumerate(names)}
        belief = self.believe(_query_of(task), model_ids)
        ones = np.ones(len(model_ids))
        expected = (columns * weights).sum(axis=1)
        found[OBSERVED_PART] = (ones, belief.mean - expected)
        found[SHAPE_PART] = (ones, belief.value - belief.mean)
        return found

    def scale_of(self, query: TaskQuery) -> TaskScale:
        """What is believed of the task's location and spread, given its outcomes."""
        return self._posterior(query).scale

    def _answer(self, query: TaskQuery, model_ids: Sequence[str]) -> Prediction:
        belief = self.believe(query, model_ids)
        best = max(self.observed(query).values(), default=None)
        return Prediction(value=belief.value, order=belief.order(best))

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        return self._answer(_query_of(task), model_ids)

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Popularity, the known tasks behind the transfer score, fields, and observed outcomes.

        The place of a task is a weighted sum of known tasks' factors, and what observed outcomes
        move is linear in how far each was from what was expected: each adds its share. Where the
        location and spread of the task are uncertain, shares are averaged over what they may be.
        """
        query = _query_of(task)
        described = self._described(query)
        columns, weights, rows, _ = self._expected(described, model_ids)
        found = [Contributions.whole(POPULARITY_PART, weights[:, 0] * rows.level, POPULARITY)]
        if weights[:, 1].any():
            found.append(self._transfer_sources(described, columns, weights[:, 1], rows))
        for at, name in enumerate(PARTS, start=2):
            if name in self._parts and weights[:, at].any():
                pieces = self._parts[name].explain(described, model_ids)
                found += [piece.weighted(weights[:, at]) for piece in pieces]
        belief = self.believe(query, model_ids)
        ids, moved = self._moved(query, model_ids)
        if ids:
            sources = tuple(Source.observed(model_id) for model_id in ids)
            found.append(Contributions(OBSERVED_PART, sources, moved))
        shape = Source("base", "shape of outcomes")
        found.append(Contributions.whole(SHAPE_PART, belief.value - belief.mean, shape))
        return tuple(found)

    def _transfer_sources(
        self, task: TaskView, columns: FloatArray, weight: FloatArray, rows: ModelRows
    ) -> Contributions:
        popularity = Contributions.whole(TRANSFER_PART, weight * rows.level, POPULARITY)
        placed = self.place(task)
        if placed is None:
            amount = weight * (columns[:, 1] - columns[:, 0])
            rest = Contributions.whole(TRANSFER_PART, amount)
        else:
            share = np.array([placed.weights[known] for known in self._model.task_ids])
            scores = rows.loadings @ self._model.factors.T
            sources = tuple(Source.task(known) for known in self._model.task_ids)
            rest = Contributions(TRANSFER_PART, sources, weight[:, None] * scores * share)
        return Contributions.joined(TRANSFER_PART, [popularity, rest])

    def _moved(
        self, query: TaskQuery, model_ids: Sequence[str]
    ) -> tuple[tuple[str, ...], FloatArray]:
        """Observed models, and what each moves the normal scores by, (n_models, n_observed)."""
        posterior = self._posterior(query)
        ids, told = posterior.told
        prior = self._prior(self._described(query), model_ids)
        return ids, prior.loadings @ told

    def _derive(self) -> None:
        self.choices = self._choices()
        self._errors = {}
        self._forget()


def _query_of(task: TaskView) -> TaskQuery:
    return task.query or TaskQuery(task_id=task.task_id, card=task.card)


def _columns(
    rows: ModelRows,
    factors: FloatArray,
    parts: Mapping[str, BaseRanker],
    task: TaskView,
    model_ids: Sequence[str],
) -> FloatArray:
    """Popularity, transfer score and heads of some models on one task, (n_models, n_parts)."""
    found = np.zeros((len(model_ids), 2 + len(PARTS)))
    found[:, 0] = rows.level
    found[:, 1] = rows.level + rows.loadings @ factors
    if model_ids:
        for at, name in enumerate(PARTS, start=2):
            if name in parts:
                found[:, at] = parts[name].predict_view(task, model_ids).value
    return found
