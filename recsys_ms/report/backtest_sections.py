"""The sections that a back-test fills: leaderboard, tasks, calibration, scatter."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from recsys_ms.evaluation.coverage import coverage_table
from recsys_ms.evaluation.metrics import HIGHER_IS_BETTER, QUALITY_METRICS, REGRET_AT_1
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.evaluation.result_table import notes, title
from recsys_ms.report.blocks import (
    Chart,
    Control,
    Section,
    TextTable,
    count,
    number,
    plural,
    records,
)
from recsys_ms.report.charts import (
    METRIC,
    TASK,
    calibration_chart,
    leaderboard_chart,
    scatter_chart,
    task_chart,
)
from recsys_ms.report.encodings import colour_domain
from recsys_ms.report.frames import (
    calibration_curve,
    kept_predictions,
    leaderboard,
    per_task,
    ranker_order,
    task_coverage,
    thinned,
)
from recsys_ms.report.report_data import ReportData

_NO_BACKTEST: Final = "There was no back-test."
_NO_INTERVALS: Final = (
    "The back-test kept no predictions; 'recsys-ms evaluate --intervals' does, and the nightly job "
    "with [report] intervals = true."
)
#: Columns of the leaderboard: what a bad choice costs comes first.
_METRICS: Final = (
    *(metric for metric in QUALITY_METRICS if metric.startswith("regret")),
    *(metric for metric in QUALITY_METRICS if not metric.startswith("regret")),
)
_MARKS: Final = {1: " +", -1: " −", 0: ""}
#: Tasks in the chart and the filter, points of the scatter, and rows of its table.
_MAX_TASKS: Final = 150
_MAX_POINTS: Final = 5000
_MAX_ROWS: Final = 200
_FAILURES: Final = 20


def leaderboard_section(data: ReportData) -> Section:
    """Means with intervals against popularity, random, static and oracle; failures."""
    key, heading = "leaderboard", "Leaderboard"
    result = data.result
    if result is None:
        return Section(key=key, title=heading, text=(data.notes.get(key, _NO_BACKTEST),))
    frame = leaderboard(result, data.focus)
    table = TextTable(
        caption=f"{title(result)}. Mean [95 % bootstrap interval over {result.unit}s]",
        headings=("ranker", *(_heading(metric) for metric in _METRICS), "seconds"),
        rows=tuple(
            (str(name), *_cells(own), number(result.mean(str(name), "seconds"), 2))
            for name, own in frame.groupby("ranker", sort=False)
        ),
        numeric=frozenset(range(1, len(QUALITY_METRICS) + 2)),
    )
    first = frame[frame["metric"] == REGRET_AT_1]
    said = "; ".join(f"{row['ranker']} {number(row['mean'])}" for row in records(first))
    domain = colour_domain(result.rankers, data.focus)
    chart = Chart(
        key="leaderboard-chart",
        title="Means with 95 % bootstrap intervals",
        description=f"Mean regret@1 by ranker: {said}.",
        spec=leaderboard_chart(frame, domain, REGRET_AT_1),
        table=table,
        table_open=True,
    )
    return Section(
        key=key,
        title=heading,
        text=(
            *notes(result),
            "Regret is in the metric's own unit: of a fraction, 0.01 is a point.",
        ),
        controls=(
            Control(
                signal=METRIC, label="Metric", options=tuple((m, _heading(m)) for m in _METRICS)
            ),
        ),
        tables=_failures(result),
        charts=(chart,),
    )


def _heading(metric: str) -> str:
    return f"{metric} {'↑' if HIGHER_IS_BETTER[metric] else '↓'}"


def _cells(own: pd.DataFrame) -> list[str]:
    by_metric = {row["metric"]: row for row in records(own)}
    return [_cell(by_metric[metric]) for metric in _METRICS]


def _cell(row: Mapping[str, Any]) -> str:
    digits = 4 if str(row["metric"]).startswith("regret") else 3
    if row["mean"] is None:
        return number(None)
    ends = (number(row[name], digits) for name in ("low", "high"))
    interval = "" if row["low"] is None else f" [{', '.join(ends)}]"
    return number(row["mean"], digits) + interval + _MARKS[int(row["verdict"])]


def _failures(result: BacktestResult) -> tuple[TextTable, ...]:
    if not result.failures:
        return ()
    shown = result.failures[:_FAILURES]
    return (
        TextTable(
            caption="Rankers that failed on a task",
            headings=("ranker", "task", "reason"),
            rows=tuple(
                (cell.ranker, cell.task_id, str(cell.failure).splitlines()[0]) for cell in shown
            ),
            n_all=len(result.failures) if len(result.failures) > _FAILURES else 0,
        ),
    )


def tasks_section(data: ReportData) -> Section:
    """Regret of each task, and the filter that the scatter follows, too."""
    key, heading = "tasks", "Regret of each task"
    result = data.result
    if result is None:
        return Section(key=key, title=heading, text=(data.notes.get(key, _NO_BACKTEST),))
    whole = per_task(result, data.focus)
    tasks = list(dict.fromkeys(whole["task"]))
    frame = whole[whole["task"].isin(tasks[:_MAX_TASKS])]
    names = ranker_order(result, data.focus)
    wide = frame.pivot(index="task", columns="ranker", values=REGRET_AT_1)
    own = frame[frame["ranker"] == data.focus].set_index("task")
    table = TextTable(
        caption="Regret@1 of each task, worst of the ranker in focus first",
        headings=("task", "metric", "models", *names, f"pearson of {data.focus}"),
        rows=tuple(
            (
                task,
                own.loc[task, "metric"],
                str(own.loc[task, "n_models"]),
                *(number(wide.loc[task, name]) for name in names),
                number(own.loc[task, "pearson"], 3),
            )
            for task in own.index
        ),
        numeric=frozenset(range(2, len(names) + 4)),
        tasks=tuple(own.index),
        n_all=len(tasks) if len(tasks) > _MAX_TASKS else 0,
    )
    worst = own.iloc[0]
    chart = Chart(
        key="tasks-chart",
        title="Regret@1 of each task",
        description=f"{data.focus} loses most on {own.index[0]} (regret@1 "
        f"{number(worst[REGRET_AT_1])}) and nothing on "
        f"{plural(int((own[REGRET_AT_1] == 0.0).sum()), 'task')} of {count(len(own))}.",
        spec=task_chart(frame, colour_domain(result.rankers, data.focus), data.focus),
        table=table,
    )
    filters = (
        Control(
            signal=TASK,
            label="Task",
            options=(("", "all tasks"), *((task, task) for task in sorted(own.index))),
        ),
    )
    return Section(
        key=key,
        title=heading,
        text=(
            "What the first choice of a ranker reaches less than the best model does, in the "
            "task's metric.",
        ),
        hints=("The filter also acts on the tables and the scatter below.",),
        controls=filters,
        charts=(chart,),
    )


def calibration_section(data: ReportData) -> Section:
    """Whether intervals hold what they state."""
    key, heading = "calibration", "Calibration of the intervals"
    result = data.result
    kept = None if result is None else kept_predictions(result, data.focus)
    if result is None or kept is None or kept.empty or result.coverage is None:
        missing = _NO_BACKTEST if result is None else _NO_INTERVALS
        return Section(key=key, title=heading, text=(data.notes.get(key, missing),))
    stated = result.coverage
    held = coverage_table(result)
    own = held[(held["ranker"] == data.focus) & (held["warmth"] == "all")].iloc[0]
    curve = calibration_curve(kept, stated, result.seed)
    said = (
        f"{own['observed']:.1%} of the outcomes of a held-out task lie inside intervals that state "
        f"{stated:.0%} (95 % bootstrap over {plural(int(own['n_tasks']), 'task')}: "
        f"{own['observed_low']:.1%} … {own['observed_high']:.1%})."
    )
    chart = Chart(
        key="calibration-chart",
        title="Observed against stated share",
        description="Shares of outcomes inside intervals of every level; the dashed line is where "
        "they would be if the intervals held what they state.",
        spec=calibration_chart(curve),
        table=TextTable(
            caption="Observed share of outcomes inside intervals of each stated level",
            headings=("stated", "observed", "interval"),
            rows=tuple(
                (
                    f"{r['level']:.0%}",
                    f"{r['observed']:.1%}",
                    f"{_percent(r['low'])} … {_percent(r['high'])}",
                )
                for r in records(curve)
            ),
            numeric=frozenset({0, 1, 2}),
        ),
        in_markdown=False,
    )
    by_task = task_coverage(kept)
    table = TextTable(
        caption=f"Share of each task's outcomes inside their intervals (stated: {stated:.0%})",
        headings=("task", "models", "inside", "mean width"),
        rows=tuple(
            (r["task"], str(r["n_models"]), f"{r['inside']:.0%}", number(r["width"]))
            for r in records(by_task.head(_MAX_TASKS))
        ),
        numeric=frozenset({1, 2, 3}),
        tasks=tuple(by_task["task"].head(_MAX_TASKS)),
        n_all=len(by_task) if len(by_task) > _MAX_TASKS else 0,
    )
    hint = (
        "The large point is the level that the ranker states; at the others its intervals are made "
        "wider or narrower as a normal distribution has it. On the dashed line, stated and "
        "observed agree; below it, intervals are too narrow."
    )
    return Section(
        key=key, title=heading, text=(said,), hints=(hint,), tables=(table,), charts=(chart,)
    )


def _percent(value: float | None) -> str:
    return number(None) if value is None else f"{value:.1%}"


def scatter_section(data: ReportData) -> Section:
    """Predicted against reached outcomes."""
    key, heading = "scatter", "Predicted against reached"
    result = data.result
    kept = None if result is None else kept_predictions(result, data.focus)
    if result is None or kept is None or kept.empty:
        missing = _NO_BACKTEST if result is None else _NO_INTERVALS
        return Section(key=key, title=heading, text=(data.notes.get(key, missing),))
    metric = kept["task_id"].map(dict(result.task_metrics)).fillna("")
    main = str(metric.mode().iloc[0])
    one = kept[metric == main].reset_index(drop=True)
    shown = _points(thinned(one, _MAX_POINTS, result.seed))
    worst = shown.loc[shown["error"].sort_values(ascending=False, kind="stable").index[:_MAX_ROWS]]
    table = TextTable(
        caption=f"The {len(worst)} largest errors",
        headings=("task", "model", "predicted", "interval", "reached", "inside"),
        rows=tuple(
            (
                row["task"],
                row["model"],
                number(row["predicted"]),
                f"{number(row['low'])} … {number(row['high'])}",
                number(row["outcome"]),
                "yes" if row["inside"] else "no",
            )
            for row in records(worst)
        ),
        numeric=frozenset({2, 3, 4}),
        tasks=tuple(worst["task"]),
        n_all=len(shown) if len(shown) > len(worst) else 0,
    )
    cold = not (one["n_observed"].astype("int64") > 0).any()
    known = "before any run of the task was known" if cold else "with some runs of the task known"
    text = [
        f"Every tested pair of {data.focus}, in {main or 'the metric of its task'}: what it said "
        f"{known}, and what fine-tuning reached."
    ]
    if len(shown) < len(one):
        text.append(f"{count(len(shown))} of {count(len(one))} pairs, drawn at random.")
    if len(one) < len(kept):
        text.append(f"{count(len(kept) - len(one))} pairs of tasks in other metrics are not shown.")
    chart = Chart(
        key="scatter-chart",
        title="Predicted and reached outcomes",
        description=f"{plural(len(shown), 'point')}; {shown['inside'].mean():.0%} inside their "
        f"interval, median error {number(shown['error'].median())}.",
        spec=scatter_chart(shown.drop(columns=["error"])),
        table=table,
        in_markdown=False,
    )
    return Section(key=key, title=heading, text=tuple(text), charts=(chart,))


def _points(kept: pd.DataFrame) -> pd.DataFrame:
    numbers = kept[["predicted", "low", "high", "outcome"]].astype("float64")
    # What is rounded here is drawn to a pixel and shown with four digits.
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
