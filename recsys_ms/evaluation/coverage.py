"""Do intervals hold what they state? Checked on outcomes that nobody trained on."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

import numpy as np
import pandas as pd
from rich.table import Table

from recsys_ms.core.errors import DataError
from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.bootstrap import bootstrap_intervals
from recsys_ms.evaluation.folds import WARMTHS
from recsys_ms.evaluation.result import BacktestResult

_ALL: Final = "all"
#: Columns of the shown table, and how a row fills them.
_HEADINGS: Final[tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...]] = (
    ("ranker", lambda row: str(row["ranker"])),
    ("tasks", lambda row: f"{row['warmth']} ({row['n_tasks']})"),
    ("pairs", lambda row: str(row["n_pairs"])),
    ("stated", lambda row: f"{row['stated']:.2f}"),
    (
        "observed",
        lambda row: (
            f"{row['observed']:.3f} [{row['observed_low']:.3f}, {row['observed_high']:.3f}]"
        ),
    ),
    ("width", lambda row: f"{row['width']:.4g}"),
)
_TEXTS: Final = ("ranker", "tasks")


def coverage_table(result: BacktestResult) -> pd.DataFrame:
    """Share of held-out outcomes inside their intervals, by ranker and by what is known of a task.

    Every task weighs the same, whatever its number of models: outcomes of one task stand or fall
    together, so that it is tasks that are counted, and resampled.

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
            "this back-test kept no predictions, so that intervals cannot be checked; run it with "
            "keep=[RANKER], or `recsys-ms evaluate --intervals`"
        )
    # A metric that no other task has leaves an order, and no interval.
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
    """What :func:`coverage_table` gave, for a terminal."""
    shown = Table(title="outcomes inside their intervals")
    for name, _ in _HEADINGS:
        shown.add_column(name, justify="left" if name in _TEXTS else "right")
    for row in _lines(table):
        shown.add_row(*row)
    return shown


def coverage_markdown(table: pd.DataFrame) -> str:
    """The same as Markdown."""
    head = "| " + " | ".join(name for name, _ in _HEADINGS) + " |"
    rule = "|" + "".join("---|" if name in _TEXTS else "---:|" for name, _ in _HEADINGS)
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in _lines(table)), ""])


def _lines(table: pd.DataFrame) -> list[list[str]]:
    return [
        [text(row) for _, text in _HEADINGS]
        for row in cast(list[dict[str, Any]], table.to_dict("records"))
    ]


def _parts(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    if predictions.empty:
        return
    yield _ALL, predictions
    found = [warmth for warmth in WARMTHS if (predictions["warmth"] == warmth).any()]
    for warmth in found if len(found) > 1 else ():
        yield warmth, predictions[predictions["warmth"] == warmth]


def _observed(predictions: pd.DataFrame, seed: int, label: str) -> dict[str, float]:
    value = predictions["outcome"].to_numpy(dtype=np.float64)
    low = predictions["low"].to_numpy(dtype=np.float64)
    high = predictions["high"].to_numpy(dtype=np.float64)
    by_task = (
        pd.DataFrame(
            {"inside": (low <= value) & (value <= high), "width": high - low},
            dtype=np.float64,
        )
        .groupby(predictions["task_id"].to_numpy())
        .mean()
    )
    share = by_task["inside"].to_numpy()
    ends = bootstrap_intervals(share[:, None], named_stream(seed, "coverage", label))
    return {
        "observed": float(share.mean()),
        "observed_low": float(ends[0, 0]),
        "observed_high": float(ends[0, 1]),
        "width": float(by_task["width"].mean()),
    }
