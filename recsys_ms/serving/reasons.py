"""Why a model is recommended: the contributions of a ranker's parts in a few words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.types import FloatArray
from recsys_ms.planning.training_outcomes import KnownOutcomes
from recsys_ms.rankers.base import BaseRanker, TaskView
from recsys_ms.rankers.contributions import OBSERVED_PART, POPULARITY, Contributions, Source

_PART_NAMES: Final = {
    "popularity": "popularity over past tasks",
    "cards": "popularity over past tasks",
    "nmf": "transfer space (nmf)",
    "als": "transfer space (als)",
    "lr": "features (lr)",
    "fm": "features (fm)",
    "gbdt": "features (gbdt)",
    "gp": "Gaussian process (gp)",
    "fennec": "transfer and meta score",
    "transfer": "similar tasks and models",
    "shape of outcomes": "the spread of outcomes on past tasks",
}
#: Nearest known tasks that are reported for a cold task.
_N_NEAREST: Final = 3
#: Contributions below this many standard deviations are left out of the reasons.
_MIN_CONTRIBUTION: Final = 0.005
#: Sources that are named of a part, and tasks whose runs are.
_N_SOURCES: Final = 3
_N_RUN_TASKS: Final = 2


@dataclass(frozen=True, slots=True)
class NearTask:
    """A known task that a cold task was placed by."""

    task_id: str
    similarity: float  # cosine of both tasks' views, in [-1, 1]
    weight: float  # share of the known task in the cold task's place


def nearest_tasks(base: BaseRanker, view: TaskView) -> list[NearTask]:
    """The known tasks with the largest weights in the place of a cold task, largest first."""
    placed = base.place(view)
    if placed is None or not placed.similarity:
        return []
    largest = sorted(placed.weights.items(), key=lambda item: -item[1])[:_N_NEAREST]
    return [
        NearTask(task, placed.similarity[task], weight) for task, weight in largest if weight > 0.0
    ]


def reasons_of(
    base: BaseRanker,
    view: TaskView,
    models: Sequence[str],
    *,
    known: KnownOutcomes,
    catalog: Catalog,
    near: Sequence[NearTask],
) -> list[tuple[str, ...]]:
    """Exact contributions to each model's predicted value, then its runs and traits."""
    parts = [_Told(each, known) for each in base.explain(view, models)]
    counts = known.n_tasks_by_model
    return [
        (
            *_contributions(row, model, parts, view, is_cold=not counts.get(model, 0)),
            *_background(model, counts.get(model, 0), known, catalog, near),
        )
        for row, model in enumerate(models)
    ]


def explanation_table(
    base: BaseRanker, view: TaskView, model: str, known: KnownOutcomes
) -> pd.DataFrame:
    """The table that :meth:`recsys_ms.Ranker.explain` documents, without its ``attrs``."""
    rows = [
        (each.part, source.kind, source.name, source.task_id, source.model_id,
         _run_id(source, known), float(amount))
        for each in base.explain(view, [model])
        for source, amount in zip(each.sources, each.amounts[0], strict=True)
        if amount != 0.0
    ]  # fmt: skip
    names = ["part", "kind", "name", "task_id", "model_id", "run_id", "amount"]
    table = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(names[:-1], "string"))
    # By the size of the part's whole contribution, then by the row's own.
    part_sizes = table.groupby("part")["amount"].transform("sum").abs()
    order = np.lexsort((-table["amount"].abs(), -part_sizes.to_numpy(dtype=np.float64)))
    return table.iloc[order].reset_index(drop=True)


def _run_id(source: Source, known: KnownOutcomes) -> str | None:
    if source.kind != "run" or source.task_id is None or source.model_id is None:
        return None
    return known.run_id(source.task_id, source.model_id)


class _Told:
    """A part, its runs summed by task; names its largest sources for a model."""

    def __init__(self, found: Contributions, known: KnownOutcomes) -> None:
        self.part = found.part
        self.total = found.total
        self._found, self._known = found, known
        is_run = np.array([source.kind == "run" for source in found.sources], dtype=bool)
        self._runs, self._single = np.flatnonzero(is_run), np.flatnonzero(~is_run)
        of_runs = [found.sources[i].task_id or "" for i in self._runs]
        self._tasks, self._task_of = np.unique(np.array(of_runs, dtype=str), return_inverse=True)

    def sources(self, row: int, model: str) -> Iterator[str]:
        """The largest sources with their amounts; none where the part's name says it all."""
        amounts = self._found.amounts[row]
        sums = np.bincount(self._task_of, weights=amounts[self._runs], minlength=self._tasks.size)
        for task in np.argsort(-np.abs(sums), kind="stable")[:_N_RUN_TASKS]:
            if abs(sums[task]) >= _MIN_CONTRIBUTION:
                run = self._heaviest(amounts, int(task), model)
                yield f"runs on {self._tasks[task]} {sums[task]:+.2f} ({run})"
        largest = self._single[np.argsort(-np.abs(amounts[self._single]), kind="stable")]
        told = [
            (self._found.sources[i], amounts[i])
            for i in largest
            if abs(amounts[i]) >= _MIN_CONTRIBUTION
        ]
        if self._runs.size == 0 and [source for source, _ in told] == [POPULARITY]:
            return
        for source, amount in told[:_N_SOURCES]:
            if source.kind not in ("base", "part"):
                yield f"{source.name} {amount:+.2f}"

    def _heaviest(self, amounts: FloatArray, task: int, model: str) -> str:
        """The run of a task with the largest contribution in the direction of their sum."""
        runs = self._runs[self._task_of == task]
        sign = np.sign(amounts[runs].sum())
        source = self._found.sources[runs[int(np.argmax(sign * amounts[runs]))]]
        run_id = _run_id(source, self._known)
        if source.model_id == model:
            return f"its run {run_id}" if run_id else "its own run"
        return f"{source.model_id}, run {run_id}" if run_id else f"{source.model_id}"


def _contributions(
    row: int, model: str, parts: Sequence[_Told], view: TaskView, *, is_cold: bool
) -> Iterator[str]:
    for part in sorted(parts, key=lambda part: -abs(part.total[row])):
        amount = part.total[row]
        if abs(amount) < _MIN_CONTRIBUTION:
            continue
        label = _PART_NAMES.get(part.part, part.part)
        if part.part == OBSERVED_PART:
            label = f"{len(view.observed_ids)} observed runs of this task"
        elif part.part == "cards" and is_cold:
            label = "the card of a model without runs (cards)"
        inside = ", ".join(part.sources(row, model))
        yield f"{amount:+.2f} sd from {label}{f': {inside}' if inside else ''}"


def _background(
    model: str, n_tasks: int, known: KnownOutcomes, catalog: Catalog, near: Sequence[NearTask]
) -> Iterator[str]:
    for task in near:
        place = known.rank_on(model, task.task_id)
        rank = "not run there" if place is None else f"rank {place[0]} of {place[1]} there"
        run_id = known.run_id(task.task_id, model)
        run = "" if run_id is None else f", run {run_id}"
        yield f"like {task.task_id} (similarity {task.similarity:.2f}): {rank}{run}"
    if n_tasks:
        told = [f"rank {rank} of {n} on {task}" for task, rank, n in known.best_tasks(model)]
        yield f"run on {n_tasks} past tasks: {', '.join(told)}"
    traits = _traits(catalog.find_model_card(model))
    if not n_tasks:
        yield f"no run yet, predicted from its card{f' ({traits})' if traits else ''}"
    elif traits:
        yield traits


def _traits(card: ModelCard | None) -> str:
    """Family, pre-training and size on the card."""
    if card is None:
        return ""
    said = [] if card.family is None else [card.family]
    if card.pretrained_domain is not None:
        said.append(f"pre-trained on {card.pretrained_domain}")
    if card.n_parameters is not None:
        said.append(f"{card.n_parameters / 1e6:.3g} M parameters")
    return ", ".join(said)
