"""What every ranker has in common: fit on interactions, predict one task at a time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self, final

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.placement import Placed
from recsys_ms.core.configured import Configured, Settings, plain
from recsys_ms.core.errors import NotFittedError, NotSavableError
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import as_generator
from recsys_ms.core.state import Derived, State, declares, learned_state, restore_learned
from recsys_ms.core.types import FloatArray, RngLike
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.arguments import read_card, read_outcomes, read_text
from recsys_ms.rankers.belief import Belief
from recsys_ms.rankers.contributions import Contributions
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.posterior import TaskPosterior, TaskPrior, condition
from recsys_ms.rankers.task_scale import ScalePrior, TaskScale, to_link

#: Outcomes of a ranker that says nothing of their shape.
_STRAIGHT: Final = OutcomeShape.normal()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """A task to rank models for.

    Attributes
    ----------
    task_id : str
        A task of the training history (hot), or any other name.
    observed : mapping or Series of model id to float
        Outcomes (higher is better, the metric's unit) that are known besides the training history:
        a new task with some is warm. Kept as a dict.
    card : TaskCard, mapping of its fields, or None
        Description of the task; ``None`` looks the id up in the training catalog. Kept as a card.
    metric : str or None
        Metric of the observed outcomes; ``None`` takes the card's, or the history's most frequent.

    Raises
    ------
    UsageError
        An argument of another type (:mod:`recsys_ms.rankers.arguments`).
    DataError
        An outcome that is no finite number, or a field that a card cannot hold.
    """

    task_id: str
    observed: Mapping[str, float] = field(default_factory=dict)
    card: TaskCard | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        task_id = read_text(self.task_id, "task")
        read = {
            "task_id": task_id,
            "observed": read_outcomes(self.observed, task_id),
            "card": read_card(self.card, task_id),
            "metric": None if self.metric is None else read_text(self.metric, "metric"),
        }
        for name, value in read.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Two answers about the requested models, each of shape (n_models,).

    Attributes
    ----------
    value : ndarray
        Expected standardised outcome (z-score within the task), higher is better.
    order : ndarray
        Key to sort by, higher first. It may differ from ``value``: what predicts values best is
        not what finds the best model soonest.
    """

    value: FloatArray
    order: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskView:
    """A task as rankers see it: its id, its card, and observed outcomes made comparable.

    Attributes
    ----------
    task_id : str
    card : TaskCard or None
    observed_ids : tuple of str
        Models with an observed outcome.
    observed_scores : ndarray of shape (n_observed,)
        Their standardised outcomes, by what is believed of the task's location and spread.
    query : TaskQuery or None
        The question itself, where there is one.
    """

    task_id: str
    card: TaskCard | None
    observed_ids: tuple[str, ...] = ()
    observed_scores: FloatArray = field(default_factory=lambda: np.empty(0))
    query: TaskQuery | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoConfig:
    """Of a ranker that has nothing to set."""


class BaseRanker(Configured, ABC):
    """Orders models for a task.

    ``fit`` and ``predict`` are finished here; subclasses fill in ``_fit`` and ``_predict`` and work
    with standardised outcomes only. One entry is answered per requested id: a model without runs
    gets what its card says, or the mean. A subclass that shall be saved too says what it learned:
    it annotates the attributes that ``_fit`` sets as :data:`~recsys_ms.core.state.Learned`
    (``means_: Learned[FloatArray]``), and as :data:`~recsys_ms.core.state.Derived` those that
    ``_derive`` works out of them again. To be fitted and back-tested it needs neither.

    Parameters
    ----------
    config : dataclass instance, optional
        Frozen settings, of the class of :attr:`default_config`. Default: that one.
    **params : object
        Its fields by name, in place of ``config``: ``NMFRanker(n_factors=8)``.

    Raises
    ------
    UsageError
        Both, an unknown setting, or a value that it cannot have.
    """

    #: Name in specs, on the command line and in artifacts.
    name: ClassVar[str]
    #: Settings where none are given. Their class stands beside the ranker's and checks itself.
    default_config: ClassVar[Settings] = NoConfig()
    #: What a sign in a spec is short for: ``{":": "n_factors"}`` lets ``nmf:8`` mean
    #: ``nmf:n_factors=8``. The signs are ``:`` and ``+``.
    short_forms: ClassVar[Mapping[str, str]] = {}

    #: The settings.
    config: Settings = NoConfig()

    #: Told about long loops inside ``fit``.
    progress: Progress = NO_PROGRESS

    #: A ranker without anything to store says so: it can be saved, and has nothing to declare.
    learns_nothing: ClassVar[bool] = False
    #: What a ranker inside another one is restored with: attributes of that one.
    restored_with: ClassVar[tuple[str, ...]] = ("_catalog",)

    _fitted: bool = False
    _scale_prior: Derived[ScalePrior]
    _residual_sd: Derived[float]
    _catalog: Derived[Catalog]

    @property
    def scale_prior(self) -> ScalePrior:
        """What the training tasks say about location and spread, per metric."""
        return self._scale_prior

    @final
    def fit(
        self, interactions: Interactions, catalog: Catalog | None = None, *, rng: RngLike = None
    ) -> Self:
        """Learn from the training interactions; a second call forgets the first.

        Parameters
        ----------
        interactions : Interactions
            Training interactions only; what is held out must not be in them.
        catalog : Catalog, optional
            Cards of models and tasks; may describe more ids than have runs.
        rng : int, Generator or None
            Source of every random choice.
        """
        self._catalog = catalog if catalog is not None else Catalog.empty()
        self._scale_prior = ScalePrior.fit(interactions)
        self._residual_sd = _popularity_residual_sd(interactions)
        self._fit(interactions, as_generator(rng))
        self._fitted = True
        return self

    @final
    def predict(self, query: TaskQuery, model_ids: Sequence[str]) -> Prediction:
        """Predict the standardised outcome and order of ``model_ids`` on one task.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        return self._checked(self._answer(query, model_ids), model_ids)

    def _answer(self, query: TaskQuery, model_ids: Sequence[str]) -> Prediction:
        return self._predict(self.view(query), model_ids)

    @final
    def predict_view(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        """The same for a task that is on the standardised scale already."""
        return self._checked(self._predict(task, model_ids), model_ids)

    def _checked(self, prediction: Prediction, model_ids: Sequence[str]) -> Prediction:
        for part in (prediction.value, prediction.order):
            if part.shape != (len(model_ids),) or not np.isfinite(part).all():
                raise RuntimeError(
                    f"{type(self).__name__} must answer one finite number per model, "
                    f"got shape {part.shape} for {len(model_ids)} models"
                )
        return prediction

    @final
    def view(self, query: TaskQuery) -> TaskView:
        """Put a query on the standardised scale.

        Raises
        ------
        NotFittedError
            Before ``fit``.

        Notes
        -----
        One or two outcomes in a metric that no training task has cannot be made comparable, and
        are left out.
        """
        return self._view(query, None)

    def _view(self, query: TaskQuery, scale: TaskScale | None) -> TaskView:
        card = self._card_of(query)
        ids, outcomes = self._comparable(query)
        if not ids:
            return TaskView(task_id=query.task_id, card=card, query=query)
        scale = scale or self.scale_of(query)
        return TaskView(
            task_id=query.task_id,
            card=card,
            observed_ids=ids,
            observed_scores=(outcomes - scale.center) / scale.scale,
            query=query,
        )

    def scale_of(self, query: TaskQuery) -> TaskScale:
        """What is believed of the task's location and spread, given its observed outcomes."""
        return self._scaled(query).scale

    def _scaled(self, query: TaskQuery) -> TaskPosterior:
        """The task's location and spread by its outcomes and what was expected of them."""
        ids, outcomes = self._comparable(query)
        cold = TaskView(task_id=query.task_id, card=self._card_of(query))
        expected = self._predict(cold, ids).value if ids else np.empty(0)
        metric = self.metric_of(query)
        if not self._scale_prior.can_place(metric, outcomes):
            metric = self._scale_prior.main_metric
        return condition(
            TaskPrior.independent(expected, self._noise(len(ids))),
            outcomes,
            self._scale_prior.of_metric(metric, outcomes),
            _STRAIGHT,
        )

    def _comparable(self, query: TaskQuery) -> tuple[tuple[str, ...], FloatArray]:
        """Observed models and outcomes on the scale of the link; none where it is unknown."""
        ids = tuple(sorted(query.observed))
        outcomes = np.array([query.observed[i] for i in ids])
        metric = self.metric_of(query)
        if not ids or not self._scale_prior.can_place(metric, outcomes):
            return (), np.empty(0)
        scale = self._scale_prior.of_metric(metric, outcomes)
        return ids, to_link(outcomes, scale.link, scale.sign)

    def _noise(self, n_models: int) -> FloatArray:
        return np.full(n_models, self._residual_sd**2)

    def believe(self, query: TaskQuery, model_ids: Sequence[str]) -> Belief:
        """What is believed of all these outcomes at once: every answer is read from it.

        Unless a ranker knows better, its errors are independent and alike.
        """
        posterior = self._scaled(query)
        value = self.predict_view(self._view(query, posterior.scale), model_ids).value
        return posterior.believe(TaskPrior.independent(value, self._noise(value.size)))

    @final
    def metric_of(self, query: TaskQuery) -> str:
        """Metric of a query: its own, its card's, or the most frequent of the history."""
        card = self._card_of(query)
        named = query.metric or (card.metric if card is not None else None)
        return named if named is not None else self._scale_prior.main_metric

    def _card_of(self, query: TaskQuery) -> TaskCard | None:
        self._require_fitted()
        if query.card is not None:
            return query.card
        return self._catalog.find_task_card(query.task_id)

    def _require_fitted(self) -> None:
        if not self._fitted:
            raise NotFittedError(f"{type(self).__name__} is not fitted; call fit() first")

    def parts(
        self, task: TaskView, model_ids: Sequence[str]
    ) -> dict[str, tuple[FloatArray, FloatArray]]:
        """What the predicted value is made of: weights and values of each part, by name.

        Both have shape (n_models,), and the products add up to the predicted value.
        """
        return {self.name: (np.ones(len(model_ids)), self.predict_view(task, model_ids).value)}

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """What is inside the parts; everything adds up to the predicted value of each model.

        A part that does not say more is its own source. A part of weight 0 may be left out.
        """
        return tuple(
            Contributions.whole(name, weight * value)
            for name, (weight, value) in self.parts(task, model_ids).items()
        )

    def place(self, task: TaskView) -> Placed | None:
        """Where a task without runs was placed among the known ones, if this ranker does so."""
        return None

    def strayed(self) -> dict[int, list[FloatArray]] | None:
        """How far held-out outcomes strayed from beliefs, where ``fit`` itself measured it.

        By the number of observed runs; one array a held-out task, in standard deviations
        (:meth:`Belief.strayed`).
        """
        return None

    def feature_names(self) -> list[str]:
        """Columns that the ranker learns from, besides the interactions."""
        return []

    def use_catalog(self, catalog: Catalog) -> None:
        """Use a catalog that has grown since training."""
        self._catalog = catalog

    @classmethod
    @final
    def require_savable(cls) -> None:
        """Check that the class says what it learned.

        Raises
        ------
        NotSavableError
            It does not.
        """
        if not (declares(cls) or cls.learns_nothing):
            raise NotSavableError(
                f"{cls.__name__} cannot be saved: it does not say what it learned. It can be "
                "fitted and back-tested as it is; to publish it annotate what _fit sets as "
                "Learned[...], or set learns_nothing = True"
            )

    @final
    def state(self) -> State:
        """Everything that :meth:`from_state` needs besides the catalog, as plain data.

        Raises
        ------
        NotSavableError
            It does not say what it learned, or not of an attribute that ``_fit`` sets.
        NotFittedError
            Before ``fit``.
        """
        self._require_fitted()
        # First, since it names the attribute.
        own = learned_state(self)
        self.require_savable()
        return State(
            values={
                "name": self.name,
                "params": plain(self.get_params()),
                "residual_sd": self._residual_sd,
            },
            children={"scale": self._scale_prior.state(), "own": own},
        )

    @classmethod
    @final
    def from_state(cls, state: State, catalog: Catalog) -> Self:
        """Restore a fitted ranker; predictions equal the saved one's bit for bit.

        Parameters
        ----------
        state : State
            What :meth:`state` gave.
        catalog : Catalog
            The catalog it was trained with; it may have grown since.
        """
        ranker = cls(**state.values["params"])
        ranker._catalog = catalog
        ranker._scale_prior = ScalePrior.from_state(state.children["scale"])
        ranker._residual_sd = float(state.values["residual_sd"])
        restore_learned(ranker, state.children["own"])
        ranker._fitted = True
        return ranker

    @abstractmethod
    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None: ...

    @abstractmethod
    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction: ...

    def _derive(self) -> None:
        """Work out what is not stored; :attr:`config`, catalog and what was learned are there."""


def _popularity_residual_sd(interactions: Interactions) -> float:
    # Error of the mean of a model's other tasks: what a task's own wishes amount to, roughly.
    score = standardize(interactions, "zscore").scores
    sums = np.bincount(interactions.model_index, weights=score, minlength=interactions.n_models)
    counts = np.bincount(interactions.model_index, minlength=interactions.n_models)
    others = counts[interactions.model_index] - 1
    left_out = (sums[interactions.model_index] - score) / np.maximum(others, 1)
    error = (score - left_out)[others > 0]
    return float(np.sqrt(np.mean(error**2))) if error.size and error.any() else 1.0
