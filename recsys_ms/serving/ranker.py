"""The public ranker: trained on a history, answers in tables, saved without pickle."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Final, Self, Unpack

import pandas as pd

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core.errors import DataError, NotFittedError, UnknownIdError, UsageError
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.rng import named_stream
from recsys_ms.core.state import State
from recsys_ms.core.types import FloatArray, JsonDict
from recsys_ms.history.forms import HistoryLike, is_run_table
from recsys_ms.planning.suggestion import Budget, choose_runs
from recsys_ms.planning.training_outcomes import KnownOutcomes
from recsys_ms.rankers.arguments import (
    CardLike,
    Outcomes,
    read_card,
    read_count,
    read_models,
    read_outcomes,
    read_reached,
    read_tasks,
    read_text,
)
from recsys_ms.rankers.base import BaseRanker, TaskQuery
from recsys_ms.rankers.calibration import calibrate
from recsys_ms.serving.answer import answer_table, explanation
from recsys_ms.serving.artifact import save_artifact
from recsys_ms.serving.config import RankerConfig, interactions_of
from recsys_ms.serving.question import (
    Asked,
    Constraints,
    Question,
    QuestionOptions,
    TaskOptions,
    with_outcomes,
)
from recsys_ms.serving.stored_ranker import StoredRanker, answering, require_finite

#: What :meth:`Ranker.check` asks about, and for how many models.
_NEW_TASK: Final = "a task that no history has"
_N_CHECKED: Final = 10
#: Libraries whose versions are recorded with a trained ranker.
_LIBRARIES: Final = ("recsys-ms", "numpy", "scipy", "lightgbm", "scikit-learn")


class Ranker:
    """Orders pre-trained models for a task, learned from logged fine-tuning runs.

    Parameters
    ----------
    config : RankerConfig, optional

    Examples
    --------
    >>> import recsys_ms as rms
    >>> runs = rms.Interactions.from_triplets(
    ...     ["a", "a", "b", "b"], ["small", "large", "small", "large"], [0.5, 0.7, 0.6, 0.9]
    ... )
    >>> ranker = rms.Ranker(rms.RankerConfig(ranker="popularity")).fit(runs)
    >>> ranker.recommend("a new task")["model_id"].tolist()
    ['large', 'small']
    """

    def __init__(self, config: RankerConfig | None = None) -> None:
        self.config = config or RankerConfig()
        self._base: BaseRanker | None = None
        self.manifest: JsonDict = {}
        #: The artifact that it was loaded from.
        self._folder: Path | None = None

    def fit(
        self,
        history: HistoryLike,
        catalog: Catalog | None = None,
        *,
        progress: Progress = NO_PROGRESS,
    ) -> Self:
        """Train; a second call forgets the first.

        Parameters
        ----------
        history : History, Interactions, DataFrame, Series, mapping or iterable of triplets
            Outcomes (:func:`recsys_ms.history.forms.as_runs`). The version of a :class:`History` is
            recorded.
        catalog : Catalog, optional
            Cards of models and tasks, including models that have no run yet.
        progress : Progress
            Told about the inner back-test.

        Raises
        ------
        UsageError
            Not a history.
        DataError
            No finished run, or two metrics for a task and no choice between them.
        """
        self._catalog = catalog if catalog is not None else Catalog.empty()
        interactions = interactions_of(history, self.config, self._catalog)
        rng = named_stream(self.config.seed, "fit")
        base = self.config.make(progress).fit(interactions, self._catalog, rng=rng)
        self._calibration = calibrate(
            base,
            self.config.make,
            interactions,
            self._catalog,
            coverage=self.config.coverage,
            seed=self.config.seed,
            progress=progress,
        )
        self._known = KnownOutcomes.of(interactions)
        self._base, self._folder = base, None
        versions = {name: version(name) for name in _LIBRARIES}
        self.manifest = {
            "ranker": self.config.spec,
            "config": asdict(self.config),
            "history_version": history.version if is_run_table(history) else None,
            "n_tasks": interactions.n_tasks,
            "n_models": interactions.n_models,
            "n_interactions": interactions.n_interactions,
            "directions": {
                metric: "max" if sign > 0 else "min"
                for metric, sign in zip(interactions.metrics, interactions.signs, strict=True)
            },
            "features": base.feature_names(),
            "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {"python": python_version(), **versions},
        }
        return self

    @property
    def task_ids(self) -> tuple[str, ...]:
        """Tasks with known outcomes, sorted."""
        self._require_base()
        return tuple(sorted({*self._known.interactions.task_ids, *self._known.added}))

    @property
    def model_ids(self) -> tuple[str, ...]:
        """Models that can be recommended: with runs, or with a card; sorted."""
        self._require_base()
        with_runs = self._known.interactions.model_ids
        return tuple(sorted({*with_runs, *self._catalog.models.index}))

    @property
    def proxy(self) -> str | None:
        """The proxy that made the vectors of the known tasks; ``None`` without vectors."""
        known = self._catalog.tasks.reindex(list(self.task_ids))
        sources = known["embedding_source"].dropna()
        return None if sources.empty else str(sources.mode().iloc[0])

    def recommend(
        self,
        task: str,
        *,
        top: int | None = 10,
        reasons: bool = True,
        **options: Unpack[QuestionOptions],
    ) -> pd.DataFrame:
        """Which models to fine-tune on a task, best first.

        Parameters
        ----------
        task : str
            A task of the history, or the name of a new one.
        top : int or None
            Number of rows, ``None`` for all.
        reasons : bool
            Whether to give reasons, which take most of the time of an answer.
        observed : mapping or Series of model id to float, optional
            Outcomes on the task, in the metric's own unit and direction; these models are not
            recommended.
        card : TaskCard or mapping of its fields, optional
            Description of a new task.
        metric : str, optional
            Metric of ``observed`` and of the predictions; needed only for a new task in a history
            with several metrics.
        models : iterable of str, optional
            Rank these only.
        constraints : Constraints, optional
            Upper bounds and licences a model must meet.

        Returns
        -------
        DataFrame
            One row a model, in the order to try: ``rank``, ``model_id``, ``predicted`` (the task's
            metric and unit), ``low``, ``high`` (interval of the stated coverage; all three are cut
            to the metric's range, such as 0 to 1 for an accuracy), ``observed`` (outcome of the
            history for this pair, or NaN), ``transfer_score``, ``meta_score`` (standardised, higher
            is better, NaN if the ranker has no such part), ``n_tasks`` (tasks the model was run
            on), ``n_parameters``, ``gmacs``, ``cost_gpu_seconds`` (mean of past runs), and, unless
            switched off, ``reasons`` (tuple of str).

        Raises
        ------
        UsageError
            An invalid argument, such as an observed value outside the range of the metric.
        UnknownIdError
            An id in ``models`` or ``observed`` that has neither runs nor a card.
        DataError
            No model meets the constraints, an observed value is not finite, or the history has no
            task in the metric.
        """
        n_rows = read_count(top, "top", none="all models")
        return self._answer(self._asked(task, **options), n_rows, reasons=reasons)

    def recommend_many(
        self,
        tasks: Iterable[str | TaskCard],
        *,
        observed: Mapping[str, Outcomes] | None = None,
        metric: str | None = None,
        top: int | None = 10,
        models: Iterable[str] | None = None,
        constraints: Constraints | None = None,
        reasons: bool = True,
    ) -> pd.DataFrame:
        """Which models to fine-tune on each of several tasks: :meth:`recommend` for each.

        Parameters
        ----------
        tasks : iterable of str or TaskCard
            Tasks of the history, names of new ones, or their cards; each once.
        observed : mapping of task id to outcomes, optional
            Outcomes on some of the tasks, each as for :meth:`recommend`.
        metric, top, models, constraints, reasons
            As for :meth:`recommend`, and the same for all tasks.

        Returns
        -------
        DataFrame
            ``task_id``, then the columns of :meth:`recommend`: the rows of each task, in the order
            of ``tasks``. ``attrs["nearest_tasks"]`` has those of each task, by its id.

        Raises
        ------
        UsageError
            No tasks, a task twice, or outcomes of a task that is not among them; and the errors of
            :meth:`recommend`.
        """
        cards = read_tasks(tasks)
        reached = read_reached(observed, cards)
        chosen = read_models(models)
        answers = {
            task: self.recommend(
                task,
                observed=reached.get(task),
                card=card,
                metric=metric,
                top=top,
                models=chosen,
                constraints=constraints,
                reasons=reasons,
            )
            for task, card in cards.items()
        }
        near = {task: answer.attrs.pop("nearest_tasks") for task, answer in answers.items()}
        table = pd.concat(answers, names=["task_id"]).reset_index("task_id").reset_index(drop=True)
        table.attrs["nearest_tasks"] = near
        return table

    def suggest(
        self,
        task: str,
        *,
        budget: int | None = None,
        cost: float | None = None,
        **options: Unpack[QuestionOptions],
    ) -> pd.DataFrame:
        """Which models to fine-tune next, so that the best is found soonest.

        The first has the largest expected improvement on the best outcome so far, each further one
        adds most to it (:mod:`recsys_ms.planning.suggestion`). Ask again after each run: its
        outcome changes what is worth trying.

        Parameters
        ----------
        task, observed, card, metric, models, constraints
            As for :meth:`recommend`. Models with a run on the task are left out.
        budget : int, optional
            Runs that can be made; 5 where neither bound is given.
        cost : float, optional
            GPU seconds that can be spent, by the cost of past runs: of two plans that fit, by gain
            and by gain per second, the one with the larger expected gain.

        Returns
        -------
        DataFrame
            The columns of :meth:`recommend` for the suggested models, in the order to run them, and
            ``gain`` (expected improvement in the task's metric on the best so far; before the first
            run, on the mean of the models), ``p_best`` (probability that it is the best of
            all) and ``expected_cost`` (GPU seconds).

        Raises
        ------
        DataError
            Every model was run already, no run fits into the cost, or no past run has a cost; and
            the errors of :meth:`recommend`.
        """
        bounds = Budget(n_runs=5 if budget is None and cost is None else budget, cost=cost)
        asked = self._asked(task, **options)
        base, candidates = self._require_base(), asked.candidates(self._catalog)
        with self._answering():
            runs = choose_runs(base, self._known, asked.query, candidates, bounds)
        require_finite(self._folder, runs)
        chosen = runs["model_id"].tolist()
        answer = self._answer(replace(asked, models=tuple(chosen)), None, reasons=True)
        table = answer.merge(runs, on="model_id").set_index("model_id").loc[chosen].reset_index()
        table["rank"] = range(1, len(table) + 1)
        return table[["rank", "model_id", *table.columns.drop(["rank", "model_id"])]]

    def explain(self, task: str, model_id: str, **options: Unpack[TaskOptions]) -> pd.DataFrame:
        """Exact contributions to the prediction for one model.

        Parameters and errors are those of :meth:`recommend`.

        Returns
        -------
        DataFrame
            One row a source: ``part`` of the ranker, ``kind`` (``base``, ``feature``, ``task``,
            ``run``, ``factor``, ``observed``, ``part``; see
            :mod:`recsys_ms.rankers.contributions`), ``name``, ``task_id``, ``model_id`` and
            ``run_id`` of a task or a run, and ``amount`` in standard deviations over the task's
            models. ``attrs["center"] + attrs["scale"] * amount.sum()`` is the predicted value in
            ``attrs["metric"]`` before it is cut to the metric's range, or its logarithm where
            ``attrs["link"]`` is ``"log"`` (a loss, an RMSE); where lower is better the scale is
            negative.
        """
        model_id = read_text(model_id, "model_id")
        asked = self._asked(task, models=[model_id], **options)
        with self._answering():
            table = explanation(asked, model_id, base=self._require_base(), known=self._known)
        require_finite(self._folder, table)
        return table

    def predict(self, query: TaskQuery, model_ids: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Standardised value and sort key of models on one task, each of shape (n_models,)."""
        with self._answering():
            prediction = self._require_base().predict(query, model_ids)
        require_finite(self._folder, pd.DataFrame({"predicted": prediction.value}))
        return prediction.value, prediction.order

    def add_models(self, cards: Iterable[ModelCard]) -> None:
        """Make models recommendable by their cards, without a refit."""
        self._replace_catalog(self._catalog.with_models(cards))

    def add_scores(self, scores: ScoreTable) -> None:
        """Use transferability scores, those of new tasks too, without a refit."""
        self._replace_catalog(self._catalog.with_scores(scores))

    def add_task(
        self,
        task_id: str,
        *,
        observed: Outcomes = None,
        card: CardLike = None,
        metric: str | None = None,
    ) -> None:
        """Remember a new task, its card and its outcomes, without a refit.

        Parameters
        ----------
        task_id : str
            Name of the task.
        observed, card, metric
            As for :meth:`recommend`: outcomes are in the metric's own unit and direction.

        Raises
        ------
        UsageError
            Neither outcomes nor a card, a card of another task, an argument of another type, or an
            outcome that the metric cannot have.
        DataError
            An outcome that is not a finite number, or an invalid field of the card.
        """
        base = self._require_base()
        task_id = read_text(task_id, "task_id")
        outcomes, own = read_outcomes(observed, task_id), read_card(card, task_id)
        if not outcomes and own is None:
            raise UsageError(f"add_task({task_id!r}): give observed outcomes, a card, or both")
        if own is not None and own.task_id != task_id:
            raise UsageError(f"add_task({task_id!r}): the card is of task {own.task_id!r}")
        if metric is not None:
            known = own or self._catalog.find_task_card(task_id) or TaskCard(task_id=task_id)
            own = replace(known, metric=read_text(metric, "metric"))
        if outcomes:
            query = TaskQuery(task_id=task_id, observed=outcomes, card=own)
            outcomes = with_outcomes(query, base, self._known)[1]
        if own is not None:
            self._replace_catalog(self._catalog.with_tasks([own]))
        if outcomes:
            self._known = self._known.with_task(task_id, outcomes)

    def save(
        self,
        folder: str | Path,
        *,
        manifest: Mapping[str, object] | None = None,
        key: bytes | None = None,
    ) -> None:
        """Write the ranker to a new folder (layout: :mod:`recsys_ms.serving.artifact`).

        Parameters
        ----------
        folder : str or Path
            Must not exist.
        manifest : mapping, optional
            Recorded beside the ranker's own manifest, for example its back-test.
        key : bytes, optional
            Sign the ranker with this key (:func:`recsys_ms.serving.signature.read_key`).
        """
        base = self._require_base()
        models, tasks = self._catalog.to_jsonl()
        state = State(
            texts={
                "catalog_models": models,
                "catalog_tasks": tasks,
                "catalog_scores": self._catalog.scores.to_json(),
            },
            children={
                "base": base.state(),
                "known": self._known.state(),
                "calibration": self._calibration.state(),
            },
        )
        told = {**self.manifest, **(manifest or {})}
        save_artifact(state, Path(folder), manifest=told, key=key)

    @classmethod
    def load(cls, folder: str | Path, *, key: bytes | None = None) -> Self:
        """Read a saved ranker; its answers equal the saved one's bit for bit.

        Parameters
        ----------
        folder : str or Path
            What :meth:`save` wrote.
        key : bytes, optional
            Refuse a ranker that is not signed with this key
            (:func:`recsys_ms.serving.signature.read_key`).

        Raises
        ------
        ArtifactError
            Missing, altered, truncated, of another format version, or not signed with the key.
        """
        found = StoredRanker.read(Path(folder), key=key)
        ranker = cls(found.config)
        ranker._catalog, ranker._known = found.catalog, found.known
        ranker._base, ranker._calibration = found.base, found.calibration
        ranker.manifest, ranker._folder = found.manifest, Path(folder)
        return ranker

    def check(self) -> None:
        """Answer questions about a new task and a known one, to see that the ranker can.

        Raises
        ------
        ArtifactError
            It was loaded from an artifact whose parts do not fit each other.
        """
        base, ids = self._require_base(), self.model_ids
        with answering(self._folder):
            for task in (_NEW_TASK, self.task_ids[0]):
                asked = Asked.of(Question(task_id=task), base, self._known, ids)
                require_finite(self._folder, self._table(asked, _N_CHECKED, reasons=True))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Errors about the question are raised as they are; the artifact is blamed for others."""
        try:
            with answering(self._folder, let_through=(DataError, UsageError, UnknownIdError)):
                yield
        except (DataError, UsageError):
            # Whether it is about the question is seen by asking another one.
            if self._folder is not None:
                self.check()
            raise

    def _asked(self, task: str, **options: Unpack[QuestionOptions]) -> Asked:
        # Question converts the options to what its fields hold.
        question = Question(task_id=task, **options)  # type: ignore[arg-type]
        base, known = self._require_base(), self.model_ids
        with self._answering():
            return Asked.of(question, base, self._known, known)

    def _answer(self, asked: Asked, top: int | None, *, reasons: bool) -> pd.DataFrame:
        with self._answering():
            table = self._table(asked, top, reasons=reasons)
        require_finite(self._folder, table)
        return table

    def _table(self, asked: Asked, top: int | None, *, reasons: bool) -> pd.DataFrame:
        return answer_table(
            asked,
            base=self._require_base(),
            known=self._known,
            calibration=self._calibration,
            catalog=self._catalog,
            top=top,
            reasons=reasons,
        )

    def _replace_catalog(self, catalog: Catalog) -> None:
        base = self._require_base()
        self._catalog = catalog
        base.use_catalog(catalog)

    def _require_base(self) -> BaseRanker:
        if self._base is None:
            raise NotFittedError("Ranker is not fitted; call fit() or Ranker.load() first")
        return self._base
