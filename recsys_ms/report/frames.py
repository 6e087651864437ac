"""Tables behind the charts, computed from a back-test."""

from typing import Final

import numpy as np
import pandas as pd
from scipy.special import ndtri

from recsys_ms.core.rng import named_stream
from recsys_ms.evaluation.bootstrap import bootstrap_intervals
from recsys_ms.evaluation.metrics import PEARSON, QUALITY_METRICS, REGRET_AT_1, REGRET_AT_5
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.report.report_data import BASELINES

_LEVELS: Final = (0.05, *np.round(np.arange(0.1, 0.96, 0.05), 2).tolist(), 0.99)


def ranker_order(result: BacktestResult, focus: str) -> list[str]:
    """The ranker in focus, the other compared ones, then popularity, random, static and oracle."""
    compared = [name for name in result.rankers if name not in BASELINES]
    there = [name for name in BASELINES if name in result.rankers]
    return list(dict.fromkeys([focus, *compared, *there]))


def leaderboard(result: BacktestResult, focus: str) -> pd.DataFrame:
    """One row per ranker and metric.

    Returns
    -------
    DataFrame
        ``ranker, metric, mean, low, high`` (95 % bootstrap over tasks), ``n`` (tasks where the
        metric is defined), ``verdict`` (1 better than popularity, -1 worse, 0 undecided).
    """
    verdicts = result.differences()[["ranker", "metric", "verdict"]]
    frame = result.means().merge(verdicts, on=["ranker", "metric"], how="left")
    frame["verdict"] = frame["verdict"].fillna(0).astype(int)
    by_ranker = frame[frame["metric"].isin(QUALITY_METRICS)].set_index("ranker")
    return by_ranker.loc[ranker_order(result, focus)].reset_index()


def per_task(result: BacktestResult, focus: str) -> pd.DataFrame:
    """One row per ranker and task, the tasks on which the ranker in focus loses most first.

    Returns
    -------
    DataFrame
        ``ranker, task, metric, n_models, regret@1, regret@5, pearson``.
    """
    sizes: dict[str, int] = {}
    for cell in result.cells:
        sizes[cell.task_id] = max(sizes.get(cell.task_id, 0), cell.n_models)
    scores = {name: result.per_task(name) for name in ranker_order(result, focus)}
    lost = {task: own[REGRET_AT_1] for task, own in scores[focus].items()}
    # A task without an answer comes first of all.
    order = sorted(lost, key=lambda task: (-np.nan_to_num(lost[task], nan=np.inf), task))
    rows = [
        {
            "ranker": name,
            "task": task,
            "metric": result.task_metrics.get(task, ""),
            "n_models": sizes[task],
            **{key: of[task][key] for key in (REGRET_AT_1, REGRET_AT_5, PEARSON)},
        }
        for task in order
        for name, of in scores.items()
    ]
    return pd.DataFrame(rows)


def kept_predictions(result: BacktestResult, focus: str) -> pd.DataFrame:
    """Predictions of the ranker in focus that have an interval; empty where none were kept."""
    kept = result.predictions
    return kept[(kept["ranker"] == focus) & kept["low"].notna()].reset_index(drop=True)


def calibration_curve(predictions: pd.DataFrame, stated: float, seed: int) -> pd.DataFrame:
    """Share of outcomes inside intervals of growing width; every task has the same weight.

    The ranker states one interval, of the level ``stated``; for the other levels it is widened or
    narrowed as for a normal distribution.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`kept_predictions`.
    stated : float
        Level of the intervals in it.
    seed : int
        Of the bootstrap over tasks.

    Returns
    -------
    DataFrame
        ``level, observed, low, high`` (95 % bootstrap over tasks), and ``stated``, whether the
        level is the ranker's own.
    """
    value, predicted, low, high = (
        predictions[name].to_numpy(dtype=np.float64)
        for name in ("outcome", "predicted", "low", "high")
    )
    error = np.abs(value - predicted)
    # An interval may be cut at the end of the metric's range; the other side has the full width.
    half = np.maximum(high - predicted, predicted - low)
    levels = sorted({*_LEVELS, stated})
    unit = float(ndtri(0.5 + stated / 2.0))
    inside = pd.DataFrame(
        {level: error <= half * float(ndtri(0.5 + level / 2.0)) / unit for level in levels},
        dtype=np.float64,
    )
    shares = inside.groupby(predictions["task_id"].to_numpy()).mean().to_numpy()
    ends = bootstrap_intervals(shares, named_stream(seed, "calibration curve"))
    return pd.DataFrame(
        {
            "level": levels,
            "observed": shares.mean(axis=0),
            "low": ends[:, 0],
            "high": ends[:, 1],
            "stated": [level == stated for level in levels],
        }
    )


def thinned(predictions: pd.DataFrame, n_rows: int, seed: int) -> pd.DataFrame:
    """At most ``n_rows`` rows, drawn at random; each task keeps its share, and the order stays."""
    if len(predictions) <= n_rows:
        return predictions
    drawn = named_stream(seed, "thinned").permutation(len(predictions))
    # Sorted by task, every k-th row: no task is thinned more than another.
    by_task = drawn[np.argsort(predictions["task_id"].to_numpy()[drawn], kind="stable")]
    at = np.floor(np.arange(n_rows) * (len(predictions) / n_rows)).astype(np.int64)
    return predictions.iloc[np.sort(by_task[at])].reset_index(drop=True)
