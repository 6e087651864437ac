"""Coverage of prediction intervals: the share of held-out outcomes that lie inside them."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd
from rich.table import Table

from recsys_ms.core.errors import DataError
from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.bootstrap import bootstrap_intervals
from recsys_ms.evaluation.folds import WARMTHS
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.evaluation.text_table import TextTable

_ALL: Final = "all"
_COLUMNS: Final = {
    "ranker": "{ranker}",
    "tasks": "{warmth} ({n_tasks})",
    "pairs": "{n_pairs:d}",
    "stated": "{stated:.2f}",
    "observed": "{observed:.3f} [{observed_low:.3f}, {observed_high:.3f}]",
    "width": "{width:.4g}",
}


def coverage_table(result: BacktestResult) -> pd.DataFrame:
    """Share of held-out outcomes inside their intervals, by ranker and task warmth.

    Every task has the same weight, whatever its number of models: outcomes of one task are
    correlated, so tasks are counted and resampled.

    Parameters
    ----------
    result : BacktestResult
        With ``predictions``, see ``keep`` of :func:`recsys_ms.evaluation.backtest.backtest`.

    Returns
    -------
    DataFrame
        One row a ranker and warmth (``all`` first): ``ranker``, ``warmth``, ``n_tasks``,
        ``n_pairs``, ``stated``, ``observed`` (mean over tasks), ``observed_low``,
        ``observed_high`` (95 % bootstrap over tasks), ``width`` (mean over tasks, in the metric).

    Raises
    ------
    DataError
        The back-test kept no predictions.
    """
    if result.predictions.empty or result.coverage is None:
        raise DataError(
            "this back-test kept no predictions, so intervals cannot be checked; run it with "
            "keep=[RANKER], or `recsys-ms evaluate --intervals`"
        )
    # In a metric that no training task has, models are only ordered.
    known = result.predictions[result.predictions["low"].notna()]
    rows = [
        {
            "ranker": ranker,
            "warmth": warmth,
            "n_tasks": own["task_id"].nunique(),
            "n_pairs": len(own),
            "stated": result.coverage,
            **_observed(own, result.seed, f"{ranker} {warmth}"),
        }
        for ranker in result.rankers
        for warmth, own in _parts(known[known["ranker"] == ranker])
    ]
    return pd.DataFrame(rows)


def coverage_rich(table: pd.DataFrame) -> Table:
    """The table of :func:`coverage_table` for a terminal."""
    caption = "outcomes inside their intervals"
    return TextTable.from_frame(table, _COLUMNS, caption=caption).rich()


def coverage_markdown(table: pd.DataFrame) -> str:
    """The table of :func:`coverage_table` as Markdown."""
    return TextTable.from_frame(table, _COLUMNS).markdown() + "\n"


def _parts(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    if predictions.empty:
        return
    yield _ALL, predictions
    found = [warmth for warmth in WARMTHS if (predictions["warmth"] == warmth).any()]
    for warmth in found if len(found) > 1 else ():
        yield warmth, predictions[predictions["warmth"] == warmth]


def _observed(predictions: pd.DataFrame, seed: int, label: str) -> dict[str, float]:
    # Sorted by task, so that the bootstrap draws do not depend on the shares.
    by_task = task_coverage(predictions).sort_values("task")
    share = by_task["inside"].to_numpy()
    ends = bootstrap_intervals(share[:, None], named_stream(seed, "coverage", label))
    return {
        "observed": float(share.mean()),
        "observed_low": float(ends[0, 0]),
        "observed_high": float(ends[0, 1]),
        "width": float(by_task["width"].mean()),
    }


def task_coverage(predictions: pd.DataFrame) -> pd.DataFrame:
    """Share of each task's outcomes inside their intervals.

    Parameters
    ----------
    predictions : DataFrame
        Rows of ``BacktestResult.predictions`` that have an interval.

    Returns
    -------
    DataFrame
        ``task``, ``n_models``, ``inside`` and ``width`` (mean width in the task's metric), least
        inside first.
    """
    value, low, high = (
        predictions[name].to_numpy(dtype=np.float64) for name in ("outcome", "low", "high")
    )
    frame = pd.DataFrame(
        {
            "task": predictions["task_id"].to_numpy(),
            "inside": ((low <= value) & (value <= high)).astype(np.float64),
            "width": high - low,
        }
    )
    grouped = frame.groupby("task", sort=True)
    table = grouped.mean().assign(n_models=grouped.size()).reset_index()
    return table.sort_values(["inside", "task"], ignore_index=True)[
        ["task", "n_models", "inside", "width"]
    ]
