"""The default ranker: popularity, transfer and meta scores, blended by nested back-test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.placement import Placed
from recsys_ms.core.rng import named_stream, seed_from
from recsys_ms.core.state import State
from recsys_ms.core.types import BoolArray, FloatArray, IntArray, JsonDict
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.ranker.base import PLAIN_TASK, BaseRanker, Prediction, TaskView
from recsys_ms.ranker.cards import CardRanker
from recsys_ms.ranker.choice import choose_blend, choose_order, order_loss
from recsys_ms.ranker.contributions import Contributions, Source
from recsys_ms.ranker.correction import ResidualCorrection
from recsys_ms.ranker.folds import (
    HeldOutPredictions,
    held_out_models,
    held_out_tasks,
    predict_held_out,
)
from recsys_ms.ranker.gp import PairProcessRanker
from recsys_ms.ranker.joint import Joint
from recsys_ms.ranker.meta import FactorizationMachineRanker, LightGBMRanker, LinearRanker
from recsys_ms.ranker.popularity import PopularityRanker, positions
from recsys_ms.ranker.portfolio import portfolio_order
from recsys_ms.ranker.scenarios import columns_of_models, largest_tasks, rows_of_tasks
from recsys_ms.ranker.transfer import NMFRanker

#: Parts of the blend. For models with runs ``cards`` is popularity itself.
CANDIDATES: Final[dict[str, type[BaseRanker]]] = {
    ranker.name: ranker
    for ranker in (
        CardRanker,
        NMFRanker,
        LinearRanker,
        FactorizationMachineRanker,
        LightGBMRanker,
        PairProcessRanker,
    )
}
#: Part of the prediction that outcomes observed on the task itself make.
OBSERVED_PART: Final = "observed runs"
_DEFAULT: Final = CardRanker.name
_POPULARITY_ORDER: Final = PopularityRanker.name
_MAX_TASK_FOLDS: Final = 8
_N_MODEL_FOLDS: Final = 4
_MIN_TASKS: Final = 3
_MIN_MODELS: Final = 10
#: Smoothing of the greedy portfolio; 1 is no portfolio.
_SMOOTHING: Final = {"portfolio": 0.5, "portfolio, smoother": 0.7, "robust mean": 1.0}
_DEFAULT_ORDER: Final = "portfolio"
#: Observed outcomes at which half of the portfolio's caution is gone: the task itself is known.
_HALF_OBSERVED: Final = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class _Surprises:
    """Observed models with runs, their positions and residuals, and the task's own scenario."""

    ids: tuple[str, ...]
    at: IntArray
    residual: FloatArray
    own: int


class AutoRanker(BaseRanker):
    """Blend and order chosen on tasks and models that were held out from the candidates.

    *Value.* Candidates are popularity (of models without runs, predicted from their cards), NMF
    (transfer score), LR and LightGBM on features (meta scores), and a Gaussian process over pairs
    where tasks have cards, a factorization machine where none has. For models with runs their
    weights are chosen on held-out tasks; for models without runs on held-out models, where
    popularity itself says nothing. Outcomes observed on the task itself then move the prediction
    (:class:`ResidualCorrection`).

    *Order.* The mean normal score of ranks instead of z-scores is robust to failed runs, and a
    greedy portfolio over past tasks finds a good model among the first few; both move by what the
    blend makes of this task's card and observed outcomes. Which of them orders the answer is
    chosen on the same held-out tasks by regret, popularity among them.

    The ``choices`` say what was chosen, and on what evidence.
    """

    name: ClassVar[str] = "auto"

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        seed = seed_from(rng)
        score = standardize(interactions, "zscore").scores
        normal = standardize(interactions, "rank").scores
        self._model_ids = interactions.model_ids
        self._hot = frozenset(interactions.task_ids)
        self._names = self._candidates(interactions)
        held_out = self._held_out(interactions, "task", seed)
        cold = self._held_out(interactions, "model", seed)
        self.choices: JsonDict = {}
        self._weights = self._chosen_weights(held_out, score, interactions, "blend")
        self._cold_weights = self._chosen_weights(cold, score, interactions, "blend_cold_models")
        self._held_out_value: FloatArray | None = None
        if held_out is not None:
            self._held_out_value = held_out.value @ self._weights
        self._scenario_tasks = largest_tasks(interactions)
        self._scenarios = rows_of_tasks(interactions, normal, self._scenario_tasks)
        self._correction: ResidualCorrection | None = None
        if self._held_out_value is not None:
            kept = [interactions.task_position(task) for task in self._scenario_tasks]
            self._correction = ResidualCorrection.fit(
                interactions, self._held_out_value, np.array(kept), seed=seed
            )
        self._order = self._choose_order(interactions, held_out)
        self._children = {
            name: CANDIDATES[name]().fit(
                interactions, self._catalog, rng=named_stream(seed, "child", name)
            )
            for name in self._names
        }

    def _candidates(self, interactions: Interactions) -> tuple[str, ...]:
        """Candidates of this history.

        Products of task and model are learned by the Gaussian process where tasks have cards, and
        by the factorization machine where none has: either costs more than all others together.
        """
        described = any(
            self._catalog.find_task_card(task_id) is not None for task_id in interactions.task_ids
        )
        left_out = FactorizationMachineRanker if described else PairProcessRanker
        return tuple(name for name in CANDIDATES if name != left_out.name)

    def held_out_value(self) -> FloatArray | None:
        """Predictions of the training outcomes by blends that did not see their task."""
        return self._held_out_value

    def use_catalog(self, catalog: Catalog) -> None:
        """Use a catalog that has grown since training, in all parts."""
        super().use_catalog(catalog)
        for child in self._children.values():
            child.use_catalog(catalog)

    def place(self, task: TaskView) -> Placed | None:
        """Where the transfer space has a task without runs."""
        return self._children[NMFRanker.name].place(task)

    def feature_names(self) -> list[str]:
        """Columns of the design matrix of the linear head."""
        return self._children["lr"].feature_names()

    def parts(
        self, task: TaskView, model_ids: Sequence[str]
    ) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Weight and value of each candidate, and of the correction by observed outcomes."""
        at = positions(self._model_ids, model_ids)
        values = self._child_values(task, model_ids)
        weights = self._weights_of(at)
        found = {name: (weights[:, i], values[:, i]) for i, name in enumerate(self._names)}
        correction = self._corrections(task, at)
        found[OBSERVED_PART] = (np.ones(at.size), correction)
        return found

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """What is inside each candidate, by its weight, and what each observed outcome moved."""
        at = positions(self._model_ids, model_ids)
        weights = self._weights_of(at)
        described = TaskView(task_id=task.task_id, card=task.card)
        found = [
            each.weighted(weights[:, i])
            for i, name in enumerate(self._names)
            if weights[:, i].any()
            for each in self._children[name].explain(described, model_ids)
        ]
        seen = self._surprises(task)
        if self._correction is not None and seen.ids:
            shares = self._correction.shares(at, seen.at, without_task=seen.own)
            amounts = np.where((at >= 0)[:, None], shares * seen.residual, 0.0)
            sources = tuple(Source.observed(model_id) for model_id in seen.ids)
            found.append(Contributions(OBSERVED_PART, sources, amounts))
        return tuple(found)

    def joint(self, task: TaskView, model_ids: Sequence[str]) -> Joint:
        """The blend, and how past tasks strayed from it together, given the observed outcomes."""
        belief = super().joint(task, model_ids)
        if self._correction is None:
            return belief
        seen = self._surprises(task)
        at = positions(self._model_ids, model_ids)
        spread = self._correction.covariance(at, seen.at, without_task=seen.own)
        return Joint(belief.mean, spread)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        at = positions(self._model_ids, model_ids)
        parts = self.parts(task, model_ids)
        value = np.sum([weight * part for weight, part in parts.values()], axis=0)
        key = _order_key(
            self._order,
            value=value,
            deviation=value - self._plain_value(task, model_ids, value),
            popularity=parts[_DEFAULT][1],
            scenarios=columns_of_models(self._scenarios, at),
            smoothing=self._smoothing(len(task.observed_ids)),
        )
        return Prediction(value=value, order=key)

    def _plain_value(
        self, task: TaskView, model_ids: Sequence[str], value: FloatArray
    ) -> FloatArray:
        """What would be predicted for a task of which nothing is known."""
        is_plain = task.card is None and not task.observed_ids and task.task_id not in self._hot
        if is_plain:
            return value
        weights = self._weights_of(positions(self._model_ids, model_ids))
        plain: FloatArray = (weights * self._child_values(PLAIN_TASK, model_ids)).sum(axis=1)
        return plain

    def _smoothing(self, n_observed: int) -> float:
        # The more of the task itself is known, the less past tasks have to stand in for it.
        caution = 1.0 - _SMOOTHING.get(self._order, 1.0)
        return 1.0 - caution * _HALF_OBSERVED / (_HALF_OBSERVED + n_observed)

    def _child_values(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray:
        # Candidates see the task as it was described, not the outcomes: those enter once, below.
        described = TaskView(task_id=task.task_id, card=task.card)
        return np.column_stack(
            [child.predict_view(described, model_ids).value for child in self._children.values()]
        )

    def _corrections(self, task: TaskView, at: IntArray) -> FloatArray:
        seen = self._surprises(task)
        if self._correction is None or not seen.ids:
            return np.zeros(at.size)
        moved = self._correction.expected(seen.at, seen.residual, without_task=seen.own)
        return np.where(at >= 0, moved[at], 0.0)

    def _surprises(self, task: TaskView) -> "_Surprises":
        """Observed outcomes of models with runs, and by how much the blend was off."""
        at = positions(self._model_ids, task.observed_ids)
        seen = np.flatnonzero(at >= 0)
        ids = tuple(task.observed_ids[int(i)] for i in seen)
        residual = np.empty(0)
        if ids:
            residual = task.observed_scores[seen] - self._child_values(task, ids) @ self._weights
        own = np.flatnonzero(self._scenario_tasks == task.task_id)
        return _Surprises(ids, at[seen], residual, int(own[0]) if own.size else -1)

    def _weights_of(self, at: IntArray) -> FloatArray:
        """Weights of the candidates for models with runs and without, (n_models, n_candidates)."""
        return np.where((at >= 0)[:, None], self._weights, self._cold_weights)

    def _held_out(
        self, interactions: Interactions, axis: str, seed: int
    ) -> HeldOutPredictions | None:
        """Held-out predictions of every candidate, (n_interactions, n_candidates)."""
        stand_ins = {name: CANDIDATES[name] for name in self._names}
        if axis == "task":
            if interactions.n_tasks < _MIN_TASKS:
                return None
            folds = held_out_tasks(interactions, _MAX_TASK_FOLDS, seed)
            # No model is cold when tasks are held out: the cards need not be learned from.
            stand_ins[CardRanker.name] = PopularityRanker
        else:
            if interactions.n_models < _MIN_MODELS:
                return None
            families = [self._family(model_id) for model_id in interactions.model_ids]
            folds = held_out_models(interactions, families, _N_MODEL_FOLDS, seed)
        columns = [
            predict_held_out(
                make,
                interactions,
                self._catalog,
                folds,
                axis=axis,
                seed=seed,
                progress=self.progress,
                description=f"inner back-test, {axis}s held out: {name}",
            )
            for name, make in stand_ins.items()
        ]
        return HeldOutPredictions(
            np.column_stack([each.value for each in columns]),
            np.column_stack([each.plain for each in columns]),
        )

    def _family(self, model_id: str) -> str | None:
        card = self._catalog.find_model_card(model_id)
        return card.family if card is not None else None

    def _chosen_weights(
        self,
        held_out: HeldOutPredictions | None,
        score: FloatArray,
        interactions: Interactions,
        label: str,
    ) -> FloatArray:
        names = self._names
        if held_out is None or np.isnan(held_out.value).any(axis=1).all():
            self.choices[label] = {_DEFAULT: 1.0}
            alone: FloatArray = np.eye(len(names))[names.index(_DEFAULT)]
            return alone
        weights, table = choose_blend(
            names, held_out.value, score, interactions.task_index, default=_DEFAULT
        )
        self.choices[label] = {n: float(w) for n, w in zip(names, weights, strict=True) if w > 0}
        self.choices[f"{label}_pearson"] = table
        return weights

    def _choose_order(self, interactions: Interactions, held_out: HeldOutPredictions | None) -> str:
        if held_out is None:
            return _DEFAULT_ORDER
        popularity = held_out.value[:, self._names.index(_DEFAULT)]
        value = held_out.value @ self._weights
        deviation = value - held_out.plain @ self._weights
        losses: dict[str, list[float]] = {}
        for row, task_id in enumerate(self._scenario_tasks):
            own = interactions.task_index == interactions.task_ids.index(task_id)
            usable: BoolArray = own & ~np.isnan(value)
            if usable.sum() < _MIN_TASKS:
                continue
            columns = interactions.model_index[usable]
            scenarios = np.delete(self._scenarios, row, axis=0)[:, columns]
            for name in (_POPULARITY_ORDER, "value", *_SMOOTHING):
                key = _order_key(
                    name,
                    value=value[usable],
                    deviation=deviation[usable],
                    popularity=popularity[usable],
                    scenarios=scenarios,
                    smoothing=_SMOOTHING.get(name, 1.0),
                )
                losses.setdefault(name, []).append(order_loss(key, interactions.outcomes[usable]))
        if not losses:
            return _DEFAULT_ORDER
        chosen = choose_order(losses, default=_DEFAULT_ORDER)
        self.choices["order"] = chosen
        self.choices["order_loss"] = {n: float(np.mean(v)) for n, v in losses.items()}
        return chosen

    def _state(self) -> State:
        children = {name: child.state() for name, child in self._children.items()}
        if self._correction is not None:
            children["correction"] = self._correction.state()
        return State(
            values={
                "model_ids": list(self._model_ids),
                "task_ids": sorted(self._hot),
                "candidates": list(self._names),
                "scenario_tasks": self._scenario_tasks.tolist(),
                "order": self._order,
                "choices": self.choices,
            },
            arrays={
                "weights": self._weights,
                "cold_weights": self._cold_weights,
                "scenarios": self._scenarios,
            },
            children=children,
        )

    def _restore(self, state: State) -> None:
        self._model_ids = tuple(state.values["model_ids"])
        self._hot = frozenset(state.values["task_ids"])
        self._scenario_tasks = np.array(state.values["scenario_tasks"], dtype=object)
        self._order = state.values["order"]
        self.choices = state.values["choices"]
        self._weights = np.asarray(state.arrays["weights"], dtype=np.float64)
        self._cold_weights = np.asarray(state.arrays["cold_weights"], dtype=np.float64)
        self._scenarios = np.asarray(state.arrays["scenarios"], dtype=np.float64)
        self._held_out_value = None
        correction = state.children.get("correction")
        self._correction = None if correction is None else ResidualCorrection.from_state(correction)
        self._names = tuple(state.values["candidates"])
        self._children = {
            name: CANDIDATES[name].from_state(state.children[name], self._catalog)
            for name in self._names
        }


def _order_key(
    order: str,
    *,
    value: FloatArray,
    deviation: FloatArray,
    popularity: FloatArray,
    scenarios: FloatArray,
    smoothing: float,
) -> FloatArray:
    if order == _POPULARITY_ORDER:
        return popularity
    if order == "value":
        return value
    run = ~np.isnan(scenarios)
    n_tasks = run.sum(axis=0)
    mean = np.where(run, scenarios, 0.0).sum(axis=0) / np.maximum(n_tasks, 1)
    # Robust mean of past ranks, moved by what is known of this task in particular.
    robust = np.where(n_tasks > 0, mean + deviation, value)
    # Past tasks stand for how a task strays from what is expected of it, this one included.
    return portfolio_order(robust, scenarios + deviation, smoothing=smoothing)
