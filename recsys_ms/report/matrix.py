"""The tasks × models matrix of runs, reduced to a size that can be drawn."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions

#: Larger matrices are drawn in blocks.
_MAX_TASKS: Final = 60
_MAX_MODELS: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunMatrix:
    """Which pairs have a run, and their outcomes.

    Attributes
    ----------
    cells : DataFrame
        One row per drawn cell: ``row``, ``column`` (positions, fullest first), ``tasks``,
        ``models`` (names, or a range of them), ``share`` (of the cell's pairs with a run),
        ``standing`` (mean share of the task's other models that the cell's models beat, NaN without
        a run), ``outcome`` (of a single pair, else NaN), ``n_runs``.
    n_tasks, n_models, n_pairs : int
        Of the whole matrix; ``n_pairs`` have a run.
    in_blocks : bool
        Whether a cell holds several pairs.
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
    """Lay out the matrix, tasks and models with most runs first; in blocks if it is large.

    Parameters
    ----------
    interactions : Interactions
    max_tasks, max_models : int
        Number of rows and columns at most.
    """
    n_tasks, n_models = interactions.n_tasks, interactions.n_models
    n_rows, n_columns = min(n_tasks, max_tasks), min(n_models, max_models)
    in_blocks = n_rows < n_tasks or n_columns < n_models
    standing = _standing(interactions)
    task_place = _place(interactions.task_index, n_tasks)
    model_place = _place(interactions.model_index, n_models, standing)
    row_of, column_of = task_place * n_rows // n_tasks, model_place * n_columns // n_models
    pairs = pd.DataFrame(
        {
            "row": row_of[interactions.task_index],
            "column": column_of[interactions.model_index],
            "standing": standing,
            "outcome": np.nan if in_blocks else interactions.values,
            "n_runs": interactions.counts,
        }
    )
    grid = pd.MultiIndex.from_product([range(n_rows), range(n_columns)], names=["row", "column"])
    blocks = pairs.groupby(["row", "column"])
    cells = blocks[["standing", "outcome"]].mean().reindex(grid)
    n_filled, n_runs = blocks.size(), blocks["n_runs"].sum()
    n_pairs = np.outer(np.bincount(row_of), np.bincount(column_of)).ravel()
    at_row, at_column = (grid.get_level_values(name) for name in ("row", "column"))
    cells = cells.assign(
        tasks=np.take(_names(interactions.task_ids, task_place, n_rows), at_row),
        models=np.take(_names(interactions.model_ids, model_place, n_columns), at_column),
        share=n_filled.reindex(grid, fill_value=0) / n_pairs,
        n_runs=n_runs.reindex(grid, fill_value=0),
    )
    return RunMatrix(
        cells=cells.reset_index(),
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


def _place(index: IntArray, n: int, standing: FloatArray | None = None) -> IntArray:
    """Position of each row or column: fullest first, then the best on average if given."""
    counts = np.bincount(index, minlength=n)
    means = np.bincount(index, weights=standing, minlength=n) / np.maximum(counts, 1)
    means = np.zeros(n) if standing is None else means
    place: IntArray = np.argsort(np.lexsort((-means, -counts)))
    return place


def _names(ids: tuple[str, ...], place: IntArray, n_blocks: int) -> list[str]:
    ordered = pd.Series(ids).iloc[np.argsort(place)]
    return [
        names.iloc[0] if len(names) == 1 else f"{names.iloc[0]} … {names.iloc[-1]} ({len(names)})"
        for _, names in ordered.groupby(np.arange(len(ids)) * n_blocks // len(ids))
    ]
