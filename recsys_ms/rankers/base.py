"""What every ranker has in common, and the life of one. Read this to write a new ranker.

1. **Made.** Settings are a frozen dataclass beside the class, which checks itself:
   ``NMFRanker(n_factors=8)``, or ``make_ranker("nmf:8")`` once the class has a line in
   :mod:`recsys_ms.rankers.ranker_names`.
2. **Fitted.** :meth:`BaseRanker.fit` keeps the catalog, learns for each metric where outcomes lie
   and how they spread (:class:`~recsys_ms.rankers.task_scale.ScalePrior`), and calls ``_fit``. A
   subclass learns from standardised outcomes (:func:`~recsys_ms.history.standardize.standardize`).
3. **Asked.** A :class:`TaskQuery` is in the metric's unit. :meth:`BaseRanker.view` makes it
   comparable, a :class:`TaskView`, and ``_predict`` answers one number a model: the expected
   standardised outcome, higher is better, also for models and tasks that it never saw.
4. **Read.** :meth:`BaseRanker.believe` makes a :class:`~recsys_ms.rankers.belief.Belief` of the
   numbers: outcomes in the metric's unit, intervals and the order to try models in. By default
   errors are independent; override ``_prior`` where the ranker knows more about them.
5. **Explained.** :meth:`BaseRanker.parts` and :meth:`BaseRanker.explain` share out each number
   exactly; the default is one part, the ranker.
6. **Updated.** :meth:`BaseRanker.use_catalog` brings cards that came after training. Rankers inside
   (``_inner``) get it too, and each ``functools.cached_property`` is computed again.
7. **Saved.** Attributes annotated ``Learned[...]`` are stored; ``_derive`` computes those annotated
   ``Derived[...]`` from them (:mod:`recsys_ms.core.state`). Loaded, the ranker answers the same.

The least that a subclass defines is ``name``, ``_fit`` and ``_predict``;
:class:`recsys_ms.testing.RankerContract` tests it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self, final

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.placement import Placed
from recsys_ms.core.configured import Configured, Settings, plain
from recsys_ms.core.errors import NotFittedError, NotSavableError
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.state import Derived, State, declares, learned_state, restore_learned
from recsys_ms.core.types import FloatArray, RngLike
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.arguments import read_card, read_outcomes, read_text
from recsys_ms.rankers.belief import Belief
from recsys_ms.rankers.contributions import Contributions, Source
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.posterior import TaskPosterior, TaskPrior, condition
from recsys_ms.rankers.task_scale import MetricScale, ScalePrior, TaskScale, to_link


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """A task to rank models for.

    Attributes
    ----------
    task_id : str
        A task of the training history (hot), or any other name.
    observed : mapping or Series of model id to float
        Known outcomes (higher is better, the metric's unit) besides the training history. Kept as
        a dict.
    card : TaskCard, mapping of its fields, or None
        Description of the task; ``None`` looks the id up in the training catalog. Kept as a card.
    metric : str or None
        Metric of the observed outcomes; ``None`` takes the card's, or the history's most frequent.

    Raises
    ------
    UsageError
        An argument of another type (:mod:`recsys_ms.rankers.arguments`).
    DataError
        An outcome that is not a finite number, or an invalid field of the card.
    """

    task_id: str
    observed: Mapping[str, float] = field(default_factory=dict)
    card: TaskCard | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        task_id = read_text(self.task_id, "task")
        object.__setattr__(self, "task_id", task_id)
        object.__setattr__(self, "observed", read_outcomes(self.observed, task_id))
        object.__setattr__(self, "card", read_card(self.card, task_id))
        if self.metric is not None:
            object.__setattr__(self, "metric", read_text(self.metric, "metric"))


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Two answers about the requested models, each of shape (n_models,).

    Attributes
    ----------
    value : ndarray
        Expected standardised outcome (z-score within the task), higher is better.
    order : ndarray
        Key to sort by, higher first. It may differ from ``value``, to find the best model sooner.
    """

    value: FloatArray
    order: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskView:
    """A task as rankers see it: its card, and observed outcomes that are standardised."""

    task_id: str
    card: TaskCard | None
    observed_ids: tuple[str, ...] = ()  # models with an observed outcome
    observed_scores: FloatArray = field(default_factory=lambda: np.empty(0))  # (n_observed,)
    query: TaskQuery | None = None  # the question itself, if there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class NoConfig:
    """Config of a ranker without settings."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A query as a ranker sees it, the posterior, and the best outcome (higher is better)."""

    query: TaskQuery
    view: TaskView
    posterior: TaskPosterior
    best: float | None


class BaseRanker(Configured, ABC):
    """Orders models for a task; the module says how one is made, fitted, asked and saved.

    Parameters
    ----------
    config : dataclass instance, optional
        Frozen settings, of the class of :attr:`default_config`. Default: that one.
    **params : object
        Its fields by name, in place of ``config``: ``NMFRanker(n_factors=8)``.

    Raises
    ------
    UsageError
        Both, an unknown setting, or an invalid value.
    """

    #: Name in specs, on the command line and in artifacts.
    name: ClassVar[str]
    #: Settings where none are given.
    default_config: ClassVar[Settings] = NoConfig()
    #: The setting that a sign in a spec is short for: with ``{":": "n_factors"}``, ``nmf:8`` means
    #: ``nmf:n_factors=8``. The signs are ``:`` and ``+``.
    short_forms: ClassVar[Mapping[str, str]] = {}

    config: Settings = NoConfig()

    #: Told about long loops inside ``fit``.
    progress: Progress = NO_PROGRESS

    #: Whether it can be saved although it declares nothing, since it has nothing to store.
    learns_nothing: ClassVar[bool] = False
    #: Attributes of an outer ranker that a ranker inside it is restored with.
    restored_with: ClassVar[tuple[str, ...]] = ("_catalog",)

    _fitted: bool = False
    #: What the last query says: one answer reads it several times.
    _last: _Seen | None = None
    #: Maps normal scores to outcomes.
    _shape: OutcomeShape = OutcomeShape.normal()
    _scale_prior: Derived[ScalePrior]
    _residual_sd: Derived[float]
    _catalog: Derived[Catalog]

    @property
    def scale_prior(self) -> ScalePrior:
        """Location and spread of outcomes on the training tasks, per metric."""
        return self._scale_prior

    @final
    def fit(
        self, interactions: Interactions, catalog: Catalog | None = None, *, rng: RngLike = None
    ) -> Self:
        """Learn from the training interactions; a second call forgets the first.

        Parameters
        ----------
        interactions : Interactions
            Training interactions only, without those held out.
        catalog : Catalog, optional
            Cards of models and tasks; may describe more ids than have runs.
        rng : int, Generator or None
            Source of every random choice.
        """
        self._catalog = catalog if catalog is not None else Catalog.empty()
        self._forget()
        self._scale_prior = ScalePrior.fit(interactions)
        self._residual_sd = _popularity_residual_sd(interactions)
        self._fit(interactions, np.random.default_rng(rng))
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
        return self.predict_view(self.view(query), model_ids)

    @final
    def predict_view(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        """The same for a task whose outcomes are standardised already."""
        found = self._predict(task, model_ids)
        prediction = found if isinstance(found, Prediction) else Prediction(found, found)
        for part in (prediction.value, prediction.order):
            if part.shape != (len(model_ids),) or not np.isfinite(part).all():
                raise RuntimeError(
                    f"{type(self).__name__} must answer one finite number per model, "
                    f"got shape {part.shape} for {len(model_ids)} models"
                )
        return prediction

    @final
    def view(self, query: TaskQuery) -> TaskView:
        """The task with its observed outcomes standardised.

        One or two outcomes in a metric that no training task has cannot be compared with anything,
        and are left out.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        return self._seen(query).view

    @final
    def scale_of(self, query: TaskQuery) -> TaskScale:
        """The task's location and spread, given its observed outcomes."""
        return self._seen(query).posterior.scale

    @final
    def believe(self, query: TaskQuery, model_ids: Sequence[str]) -> Belief:
        """The joint belief about the models' outcomes, from which every answer is read."""
        seen = self._seen(query)
        return seen.posterior.believe(self._prior(seen.view, model_ids))

    def _trained_on(self, task_id: str) -> Mapping[str, float]:
        """Outcomes of the training history that condition the posterior besides the observed."""
        return {}

    def _prior(self, task: TaskView, model_ids: Sequence[str]) -> TaskPrior:
        """What is expected of models: by default as predicted, with independent, equal errors."""
        value = self.predict_view(task, model_ids).value
        return TaskPrior.independent(value, np.full(value.size, self._residual_sd**2))

    def _seen(self, query: TaskQuery) -> _Seen:
        if self._last is None or self._last.query is not query:
            described = TaskView(task_id=query.task_id, card=self._card_of(query), query=query)
            known = {**self._trained_on(query.task_id), **query.observed}
            ids, outcomes, scale = self._compared(query, known)
            prior = self._prior(replace(described, query=None), ids)
            posterior = condition(prior, outcomes, scale, self._shape, names=ids)
            best = max((known[model_id] for model_id in ids), default=None)
            ids, outcomes, _ = self._compared(query, query.observed)
            standard = (outcomes - posterior.scale.center) / posterior.scale.scale
            view = replace(described, observed_ids=ids, observed_scores=standard)
            self._last = _Seen(query, view, posterior, best)
        return self._last

    def _compared(
        self, query: TaskQuery, seen: Mapping[str, float]
    ) -> tuple[tuple[str, ...], FloatArray, MetricScale]:
        """Models, their outcomes on the scale of the metric's link, and that metric's scale."""
        ids = tuple(sorted(seen))
        outcomes, metric = np.array([seen[i] for i in ids]), self.metric_of(query)
        if not self._scale_prior.can_place(metric, outcomes):
            ids, outcomes, metric = (), np.empty(0), self._scale_prior.main_metric
        scale = self._scale_prior.of_metric(metric, outcomes)
        return ids, to_link(outcomes, scale.link, scale.sign), scale

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
        """Weight and value of each part of the predicted value, by the part's name.

        Both have shape (n_models,), and the products add up to the predicted value.
        """
        return {self.name: (np.ones(len(model_ids)), self.predict_view(task, model_ids).value)}

    def explain(self, task: TaskView, model_ids: Sequence[str]) -> tuple[Contributions, ...]:
        """Contributions of each part's sources, which add up to the predicted value of each model.

        By default all comes from one source. A part of weight 0 may be left out.
        """
        return tuple(
            Contributions.whole(name, weight * value, self._source())
            for name, (weight, value) in self.parts(task, model_ids).items()
        )

    def _source(self) -> Source | None:
        """The one source of the default :meth:`explain`; ``None`` for the part itself."""
        return None

    def place(self, task: TaskView) -> Placed | None:
        """Place of a task without runs among the known ones, if this ranker places tasks."""
        return None

    def strayed(self) -> dict[int, list[FloatArray]] | None:
        """Errors on held-out tasks in standard deviations, if ``fit`` itself measured them.

        By the number of observed runs, one array a task (:meth:`Belief.strayed`).
        """
        return None

    def feature_names(self) -> list[str]:
        """Columns that the ranker learns from, besides the interactions."""
        return [name for each in self._inner() for name in each.feature_names()]

    @final
    def use_catalog(self, catalog: Catalog) -> None:
        """Use a catalog that has grown since training, also in the rankers inside."""
        self._catalog = catalog
        self._forget()
        for each in self._inner():
            each.use_catalog(catalog)

    def _inner(self) -> Iterable["BaseRanker"]:
        """Rankers that this one is made of."""
        return ()

    def _forget(self) -> None:
        """Drop what was computed from a former catalog or fit."""
        self._last = None
        for name in tuple(vars(self)):
            if isinstance(getattr(type(self), name, None), cached_property):
                delattr(self, name)

    @classmethod
    @final
    def require_savable(cls) -> None:
        """Check that the class declares what it learned.

        Raises
        ------
        NotSavableError
            It does not.
        """
        if not (declares(cls) or cls.learns_nothing):
            raise NotSavableError(
                f"{cls.__name__} cannot be saved: it does not declare what it learned. It can be "
                "fitted and back-tested as it is; to publish it annotate what _fit sets as "
                "Learned[...], or set learns_nothing = True"
            )

    @final
    def state(self) -> State:
        """Everything that :meth:`from_state` needs besides the catalog, as plain data.

        Raises
        ------
        NotSavableError
            An attribute that ``_fit`` sets is not declared, or none is.
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
    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> FloatArray | Prediction:
        """Expected standardised outcomes (n_models,), or a prediction whose order differs."""

    def _derive(self) -> None:
        """Compute what is not stored from :attr:`config`, the catalog and what was learned."""


def _popularity_residual_sd(interactions: Interactions) -> float:
    # Error of the mean of a model's other tasks: roughly the size of task-specific effects.
    score = standardize(interactions, "zscore").scores
    sums = np.bincount(interactions.model_index, weights=score, minlength=interactions.n_models)
    counts = np.bincount(interactions.model_index, minlength=interactions.n_models)
    others = counts[interactions.model_index] - 1
    left_out = (sums[interactions.model_index] - score) / np.maximum(others, 1)
    error = (score - left_out)[others > 0]
    return float(np.sqrt(np.mean(error**2))) if error.size and error.any() else 1.0
