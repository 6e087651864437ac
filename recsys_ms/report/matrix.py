"""The tasks × models matrix of the runs there are, small enough to be looked at."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions

#: Rows and columns that are drawn one by one; more are drawn in blocks.
_MAX_TASKS: Final = 60
_MAX_MODELS: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunMatrix:
    """Which pairs have a run, and how well they did.

    Attributes
    ----------
    cells : DataFrame
        One row a drawn cell: ``row``, ``column`` (positions, fullest first), ``tasks``, ``models``
        (names, or a range of them), ``share`` (of the cell's pairs with a run), ``standing`` (mean
        share of the task's other models that the cell's models beat, NaN where nothing was run),
        ``outcome`` (of a single pair, else NaN), ``n_runs``.
    n_tasks, n_models, n_pairs : int
        Of the whole matrix; ``n_pairs`` have a run.
    in_blocks : bool
        Whether a cell stands for several pairs.
    """

    cells: pd.DataFrame
    n_tasks: int
    n_models: int
    n_pairs: int
    in_blocks: bool

    @property
    def share(self) -> float:
        """Share of the pairs with a run."""
        return self.n_pairs / (self.n_tasks * self.n_models)


def run_matrix(
    interactions: Interactions, *, max_tasks: int = _MAX_TASKS, max_models: int = _MAX_MODELS
) -> RunMatrix:
    """Lay out the matrix, tasks and models with most runs first; in blocks where it is large.

    Parameters
    ----------
    interactions : Interactions
    max_tasks, max_models : int
        Rows and columns at most.
    """
    n_tasks, n_models = interactions.n_tasks, interactions.n_models
    standing = _standing(interactions)
    row_of = _place(interactions.task_index, n_tasks, standing, by_mean=False)
    column_of = _place(interactions.model_index, n_models, standing, by_mean=True)
    rows, columns = min(n_tasks, max_tasks), min(n_models, max_models)
    in_blocks = rows < n_tasks or columns < n_models
    row = row_of[interactions.task_index] * rows // n_tasks
    column = column_of[interactions.model_index] * columns // n_models
    flat = row * columns + column
    filled = np.bincount(flat, minlength=rows * columns)
    possible = np.outer(_sizes(n_tasks, rows), _sizes(n_models, columns)).ravel()
    runs = np.bincount(flat, weights=interactions.counts, minlength=rows * columns)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(flat, weights=standing, minlength=rows * columns) / filled
    outcome = np.full(rows * columns, np.nan)
    if not in_blocks:
        outcome[flat] = interactions.values
    task_names = _names(interactions.task_ids, row_of, rows)
    model_names = _names(interactions.model_ids, column_of, columns)
    at = np.arange(rows * columns)
    cells = pd.DataFrame(
        {
            "row": at // columns,
            "column": at % columns,
            "tasks": [task_names[i] for i in at // columns],
            "models": [model_names[i] for i in at % columns],
            "share": filled / possible,
            "standing": mean,
            "outcome": outcome,
            "n_runs": runs.astype(np.int64),
        }
    )
    return RunMatrix(
        cells=cells,
        n_tasks=n_tasks,
        n_models=n_models,
        n_pairs=interactions.n_interactions,
        in_blocks=in_blocks,
    )


def _standing(interactions: Interactions) -> FloatArray:
    # Share of the task's other models that are beaten, ties half; 0.5 where there is no other.
    outcome = pd.Series(interactions.outcomes)
    by_task = outcome.groupby(interactions.task_index)
    rank = by_task.rank(method="average").to_numpy(dtype=np.float64)
    size = by_task.transform("size").to_numpy(dtype=np.float64)
    return np.where(size > 1, (rank - 1.0) / np.maximum(size - 1.0, 1.0), 0.5)


def _place(index: IntArray, n: int, standing: FloatArray, *, by_mean: bool) -> IntArray:
    """Position of each row or column: fullest first, then (models) the best on average."""
    counts = np.bincount(index, minlength=n)
    means = np.bincount(index, weights=standing, minlength=n) / np.maximum(counts, 1)
    order = np.lexsort((np.arange(n), -means if by_mean else np.zeros(n), -counts))
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    return place


def _sizes(n: int, n_blocks: int) -> IntArray:
    sizes: IntArray = np.bincount(np.arange(n) * n_blocks // n, minlength=n_blocks)
    return sizes


def _names(ids: tuple[str, ...], place: IntArray, n_blocks: int) -> list[str]:
    inside: list[list[str]] = [[] for _ in range(n_blocks)]
    for position in np.argsort(place):
        inside[int(place[position]) * n_blocks // len(ids)].append(ids[int(position)])
    return [
        names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"
        for names in inside
    ]
