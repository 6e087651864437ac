"""The sections that a back-test fills: leaderboard, tasks, calibration, scatter."""

from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.evaluation.coverage import coverage_table, task_coverage
from recsys_ms.evaluation.metrics import QUALITY_METRICS, REGRET_AT_1, SECONDS
from recsys_ms.evaluation.result import ORACLE, BacktestResult
from recsys_ms.evaluation.result_table import comparison_texts, heading, notes, title
from recsys_ms.evaluation.text_table import TextTable, fill, records
from recsys_ms.report.blocks import Chart, Control, Section, count, plural
from recsys_ms.report.charts import chart_spec, ranker_colours
from recsys_ms.report.frames import (
    calibration_curve,
    kept_predictions,
    leaderboard,
    per_task,
    ranker_order,
    thinned,
)
from recsys_ms.report.report_data import ReportData

_NO_BACKTEST: Final = "There was no back-test."
_NO_INTERVALS: Final = (
    "The back-test kept no predictions; 'recsys-ms evaluate --intervals' does, and the nightly job "
    "with [report] intervals = true."
)
#: Columns of the leaderboard: the cost of a wrong choice comes first.
_METRICS: Final = sorted(QUALITY_METRICS, key=lambda metric: not metric.startswith("regret"))
#: Tasks in the chart and the filter, points of the scatter, and rows of its table.
_MAX_TASKS: Final = 150
_MAX_POINTS: Final = 5000
_MAX_ROWS: Final = 200
_MAX_FAILURES: Final = 20


def leaderboard_section(data: ReportData) -> Section | str:
    """Means with intervals against popularity, random, static and oracle; failures."""
    result = data.result
    if result is None:
        return _NO_BACKTEST
    order = ranker_order(result, data.focus)
    whole = comparison_texts(result, metrics=[*_METRICS, SECONDS], rankers=order)[""]
    frame = leaderboard(result, data.focus)
    first = records(frame[frame["metric"] == REGRET_AT_1])
    chart = Chart(
        title="Means with 95 % bootstrap intervals",
        description="Mean regret@1 by ranker: "
        + "; ".join(fill("{ranker} {mean:.4f}", row) for row in first)
        + ".",
        spec=chart_spec(
            "leaderboard",
            means=frame,
            metric=REGRET_AT_1,
            rankers=ranker_colours(result.rankers, data.focus),
        ),
        table=replace(
            whole,
            caption=f"{title(result)}. Mean [95 % bootstrap interval over {result.unit}s]",
        ),
        table_open=True,
    )
    failures = pd.DataFrame(
        [(x.ranker, x.task_id, str(x.failure).splitlines()[0]) for x in result.failures],
        columns=["ranker", "task", "reason"],
    )
    failed = TextTable.from_frame(
        failures,
        {"ranker": "{ranker}", "task": "{task}", "reason": "{reason}"},
        caption="Rankers that failed on a task",
        max_rows=_MAX_FAILURES,
    )
    return Section(
        text=(
            *notes(result),
            "Regret is in the metric's own unit: for a fraction, 0.01 is one percentage point.",
        ),
        control=Control(
            signal="metric",
            label="Metric",
            options=tuple((metric, heading(result, metric)) for metric in _METRICS),
        ),
        tables=(failed,) if failed.rows else (),
        chart=chart,
    )


def tasks_section(data: ReportData) -> Section | str:
    """Regret of each task, and the task filter, which the scatter follows too."""
    result = data.result
    if result is None:
        return _NO_BACKTEST
    places = _task_places(result)
    frame = per_task(result, data.focus).assign(task_at=lambda rows: rows["task"].map(places))
    names = ranker_order(result, data.focus)
    # Rankers by position: a name may hold any character.
    wide = frame.pivot(index="task", columns="ranker", values=REGRET_AT_1)[names]
    wide = wide.set_axis([f"r{i}" for i in range(len(names))], axis=1).reset_index()
    every = frame[frame["ranker"] == data.focus].merge(wide, on="task")
    own = every.head(_MAX_TASKS)
    n_best = int((own[REGRET_AT_1] == 0.0).sum())
    table = TextTable.from_frame(
        every,
        {
            "task": "{task}",
            "metric": "{metric}",
            "models": "{n_models:d}",
            **{name: f"{{r{i}:.4f}}" for i, name in enumerate(names)},
            f"pearson of {data.focus}": "{pearson:.3f}",
        },
        caption="Regret@1 of each task, worst of the ranker in focus first",
        max_rows=_MAX_TASKS,
        tasks="task_at",
    )
    # The oracle's regret is 0 everywhere.
    shown = frame[frame["task"].isin(own["task"]) & (frame["ranker"] != ORACLE)]
    return Section(
        text=(
            "Regret: how far the model that a ranker puts first falls short of the best model, in "
            "the task's metric.",
        ),
        hints=("The filter also acts on the tables and the scatter below.",),
        control=Control(
            signal="task",
            label="Task",
            options=(
                ("", "all tasks"),
                *((str(places[task]), task) for task in sorted(own["task"])),
            ),
        ),
        chart=Chart(
            title="Regret@1 of each task",
            description=f"{data.focus} loses most on "
            + fill("{task} (regret@1 {r0:.4f}) and nothing on ", records(own)[0])
            + f"{plural(n_best, 'task')} of {count(len(own))}.",
            spec=chart_spec(
                "tasks",
                tasks=shown.assign(focus=shown["ranker"] == data.focus),
                rankers=ranker_colours(result.rankers, data.focus),
                names={"task_names": list(places)},
            ),
            table=table,
        ),
    )


def _task_places(result: BacktestResult) -> dict[str, int]:
    """Position of each task: what charts, tables and the filter tell tasks apart by."""
    ids = sorted({cell.task_id for cell in result.cells} | set(result.predictions["task_id"]))
    return {task: at for at, task in enumerate(ids)}


def calibration_section(data: ReportData) -> Section | str:
    """Stated and observed coverage of the prediction intervals."""
    found = _predictions(data)
    if isinstance(found, str):
        return found
    result, kept = found
    stated = result.coverage
    if stated is None:
        return _NO_INTERVALS
    held = coverage_table(result)
    own = records(held[(held["ranker"] == data.focus) & (held["warmth"] == "all")])[0]
    curve = calibration_curve(kept, stated, result.seed)
    by_level = TextTable.from_frame(
        curve,
        {
            "stated": "{level:.0%}",
            "observed": "{observed:.1%}",
            "interval": "{low:.1%} … {high:.1%}",
        },
        caption="Observed share of outcomes inside intervals of each stated level",
    )
    by_task = TextTable.from_frame(
        task_coverage(kept).assign(task_at=lambda rows: rows["task"].map(_task_places(result))),
        {
            "task": "{task}",
            "models": "{n_models:d}",
            "inside": "{inside:.0%}",
            "mean width": "{width:.4f}",
        },
        caption=f"Share of each task's outcomes inside their intervals (stated: {stated:.0%})",
        max_rows=_MAX_TASKS,
        tasks="task_at",
    )
    said = fill(
        "{observed:.1%} of the outcomes of a held-out task lie inside intervals that state "
        "{stated:.0%} (95 % bootstrap over {tasks}: {observed_low:.1%} … {observed_high:.1%}).",
        {**own, "tasks": plural(own["n_tasks"], "task")},
    )
    return Section(
        text=(said,),
        hints=(
            "The large point is the level that the ranker states. For the other levels its "
            "intervals are widened or narrowed as for a normal distribution. On the dashed line "
            "stated and observed shares agree; below it, intervals are too narrow.",
        ),
        tables=(by_task,),
        chart=Chart(
            title="Observed against stated share",
            description="Shares of outcomes inside intervals of every level; the dashed line is "
            "perfect calibration.",
            spec=chart_spec("calibration", levels=curve),
            table=by_level,
            in_markdown=False,
        ),
    )


def scatter_section(data: ReportData) -> Section | str:
    """Predicted against observed outcomes."""
    found = _predictions(data)
    if isinstance(found, str):
        return found
    result, kept = found
    metric = kept["task_id"].map(dict(result.task_metrics)).fillna("")
    main = str(metric.mode().iloc[0])
    one = kept[metric == main].reset_index(drop=True)
    shown = _points(thinned(one, _MAX_POINTS, result.seed))
    shown = shown.assign(task_at=shown["task"].map(_task_places(result)))
    ends = shown[["predicted", "outcome"]].to_numpy()
    ends = np.array([ends.min(), ends.max()])
    largest = shown["error"].sort_values(ascending=False, kind="stable").index
    worst = shown.loc[largest].assign(within=shown["inside"].map({True: "yes", False: "no"}))
    table = TextTable.from_frame(
        worst,
        {
            "task": "{task}",
            "model": "{model}",
            "predicted": "{predicted:.4f}",
            "interval": "{low:.4f} … {high:.4f}",
            "observed": "{outcome:.4f}",
            "inside": "{within}",
        },
        caption=f"The {min(len(worst), _MAX_ROWS)} largest errors",
        max_rows=_MAX_ROWS,
        tasks="task_at",
    )
    cold = not (one["n_observed"].astype("int64") > 0).any()
    known = "before any run of the task was known" if cold else "with some runs of the task known"
    text = [
        f"Every tested pair of {data.focus}, in {main or 'the metric of its task'}: the prediction "
        f"{known}, and the outcome of fine-tuning."
    ]
    if len(shown) < len(one):
        text.append(f"{count(len(shown))} of {count(len(one))} pairs, drawn at random.")
    if len(one) < len(kept):
        text.append(f"{count(len(kept) - len(one))} pairs of tasks in other metrics are not shown.")
    return Section(
        text=tuple(text),
        chart=Chart(
            title="Predicted and observed outcomes",
            description=f"{plural(len(shown), 'point')}; {shown['inside'].mean():.0%} inside their "
            f"interval, median error {shown['error'].median():.4f}.",
            spec=chart_spec(
                "scatter",
                points=shown.drop(columns=["error"]),
                diagonal=pd.DataFrame({"predicted": ends, "outcome": ends}),
            ),
            table=table,
            in_markdown=False,
        ),
    )


def _predictions(data: ReportData) -> tuple[BacktestResult, pd.DataFrame] | str:
    """The back-test and the predictions of the ranker in focus, or the reason there are none."""
    if data.result is None:
        return _NO_BACKTEST
    kept = kept_predictions(data.result, data.focus)
    return _NO_INTERVALS if kept.empty else (data.result, kept)


def _points(kept: pd.DataFrame) -> pd.DataFrame:
    numbers = kept[["predicted", "low", "high", "outcome"]].astype("float64")
    # Six digits: points are drawn to a pixel and shown with four digits.
    return pd.DataFrame(
        {
            "task": kept["task_id"],
            "model": kept["model_id"],
            **{name: numbers[name].round(6) for name in numbers},
            "inside": (numbers["low"] <= numbers["outcome"])
            & (numbers["outcome"] <= numbers["high"]),
            "error": (numbers["outcome"] - numbers["predicted"]).abs(),
        }
    )
