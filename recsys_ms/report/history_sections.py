"""The sections that the history fills: learning curve, map, coverage, missing runs."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from recsys_ms.evaluation.metrics import REGRET_AT_1
from recsys_ms.evaluation.result import POPULARITY
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
    learning_chart,
    matrix_chart,
    missing_chart,
    space_chart,
)
from recsys_ms.report.encodings import colour_domain
from recsys_ms.report.matrix import RunMatrix
from recsys_ms.report.report_data import ReportData

_N_NAMED: Final = 30
#: Columns of the missing runs that are read from the left.
_TEXTS: Final = frozenset({"task", "model", "metric"})


def learning_section(data: ReportData) -> Section:
    """Whether more runs make rankers better."""
    key, title = "learning", "Learning curve over the size of the history"
    note = data.notes.get(key)
    if data.curve.empty:
        return Section(key=key, title=title, text=(note or "No learning curve was measured.",))
    frame = data.curve
    names = sorted(set(frame["ranker"]))
    table = TextTable(
        caption="Points of the learning curve, mean over tasks [95 % bootstrap interval]",
        headings=("ranker", "metric", "share", "outcomes", "tasks", "mean", "interval"),
        rows=tuple(
            (
                row["ranker"],
                row["metric"],
                f"{row['fraction']:.0%}",
                f"{row['n_outcomes']:.0f}",
                str(row["n_tasks"]),
                number(row["mean"]),
                f"{number(row['low'])} … {number(row['high'])}",
            )
            for row in records(frame)
        ),
        numeric=frozenset({2, 3, 4, 5, 6}),
    )
    metrics = list(dict.fromkeys(frame["metric"]))
    chart = Chart(
        key="learning-chart",
        title="Mean on held-out tasks over the outcomes trained on",
        description=_trend(data),
        spec=learning_chart(frame, colour_domain([*names, POPULARITY], data.focus), metrics[0]),
        table=table,
    )
    n_tasks = int(frame["n_tasks"].max())
    text = (
        f"{plural(n_tasks, 'task')} held out, the same at every size; the other tasks' outcomes "
        f"are thinned at random. Quick rankers only ({', '.join(names)}): the shape of the curve "
        "says whether more runs help, not how good the ranker in service is.",
        *([note] if note else []),
    )
    control = Control(signal=METRIC, label="Metric", options=tuple((m, m) for m in metrics))
    return Section(key=key, title=title, text=text, controls=(control,), charts=(chart,))


def _trend(data: ReportData) -> str:
    said = []
    regret = data.curve[data.curve["metric"] == REGRET_AT_1]
    for name, own in regret.groupby("ranker"):
        first, last = own.iloc[0], own.iloc[-1]
        said.append(
            f"{name}: regret@1 {number(first['mean'])} with {first['fraction']:.0%} of the "
            f"history, {number(last['mean'])} with {last['fraction']:.0%}"
        )
    return "; ".join(said) + "."


def space_section(data: ReportData) -> Section:
    """Tasks and models in the transfer space."""
    key, title = "map", "Map of tasks and models"
    frame, note = data.space, data.notes.get("map")
    if frame.empty:
        return Section(key=key, title=title, text=(note or "No map was made.",))
    tasks = frame[frame["kind"] == "task"]
    explained, left_out = frame.attrs.get("explained", 1.0), frame.attrs.get("n_left_out", 0)
    table = TextTable(
        caption="Tasks and models with their places on the map",
        headings=("kind", "name", "x", "y", "runs", "best"),
        rows=tuple(
            (
                r["kind"],
                r["name"],
                number(r["x"], 2),
                number(r["y"], 2),
                str(r["n_pairs"]),
                r["best"],
            )
            for r in records(frame)
        ),
        numeric=frozenset({2, 3, 4}),
    )
    chart = Chart(
        key="map-chart",
        title="Transfer space",
        description=f"{plural(len(tasks), 'task')} and {plural(len(frame) - len(tasks), 'model')} "
        "as points; the table below names the best model of each task.",
        spec=space_chart(frame, with_names=len(tasks) <= _N_NAMED),
        table=table,
        in_markdown=False,
    )
    text = (
        "Tasks that want the same models stand near each other, and a model near the tasks that it "
        "does well on, compared with what it does elsewhere: drawn are the directions of the "
        "vectors of a factorisation of the outcomes, not their lengths, on the plane that holds "
        f"{explained:.0%} of their spread.",
        *([f"{count(left_out)} with the fewest runs are left out."] if left_out else []),
    )
    return Section(key=key, title=title, text=text, charts=(chart,))


def coverage_section(data: ReportData) -> Section:
    """Which pairs have a run."""
    key, title = "coverage", "Coverage of tasks × models"
    matrix = data.matrix
    if matrix is None:
        text = data.notes.get(key, "The history is not at hand, so there is no matrix to show.")
        return Section(key=key, title=title, text=(text,))
    n_all = matrix.n_tasks * matrix.n_models
    said = (
        f"{plural(matrix.n_pairs, 'pair')} of {count(n_all)} have a finished run "
        f"({matrix.share:.1%})."
    )
    if matrix.n_pairs == n_all:
        said += " The matrix is full."
    cut = (
        "The matrix is drawn in blocks; the colour is the share of a block's pairs with a run."
        if matrix.in_blocks
        else "The colour says how many of the task's other models a model beat; a blank tile has "
        "no run."
    )
    chart = Chart(
        key="coverage-chart",
        title=f"{plural(matrix.n_tasks, 'task')} × {plural(matrix.n_models, 'model')}",
        description="One tile a pair of task and model; the table below counts them by task."
        if not matrix.in_blocks
        else "One tile a block of tasks and models; the table below has their shares.",
        spec=matrix_chart(matrix.cells, in_blocks=matrix.in_blocks),
        table=_coverage_table(matrix),
        min_width=620,
        in_markdown=False,
    )
    return Section(key=key, title=title, text=(said, cut), charts=(chart,))


def _coverage_table(matrix: RunMatrix) -> TextTable:
    rows = []
    for tasks, own in matrix.cells.groupby("tasks", sort=False):
        runs = int(own["n_runs"].sum())
        rows.append((str(tasks), f"{own['share'].mean():.0%}", count(runs)))
    return TextTable(
        caption="Share of the models with a run, by task, and runs",
        headings=("task" if not matrix.in_blocks else "tasks", "models with a run", "runs"),
        rows=tuple(rows),
        numeric=frozenset({1, 2}),
    )


def missing_section(data: ReportData) -> Section:
    """What to fine-tune next."""
    key, title = "missing", "What to fine-tune next"
    frame, note = data.missing, data.notes.get("missing")
    if frame.empty:
        return Section(key=key, title=title, text=(note or "No missing run was looked at.",))
    costly = frame["gpu_hours"].notna().all()
    n_missing = frame.attrs.get("n_missing")
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("task", lambda row: str(row["task_id"])),
        ("model", lambda row: str(row["model_id"])),
        ("gain", lambda row: number(row["gain"], 5)),
        *([("GPU hours", lambda row: number(row["gpu_hours"], 3))] if costly else []),
        ("best so far", lambda row: number(row["best_known"])),
        ("predicted", lambda row: number(row["predicted"])),
        ("interval", lambda row: f"{number(row['low'])} … {number(row['high'])}"),
        *([("metric", lambda row: str(row["metric"]))] if frame["metric"].nunique() > 1 else []),
    ]
    table = TextTable(
        caption="Most valuable missing runs, best first; gain is the expected improvement",
        headings=tuple(name for name, _ in columns),
        rows=tuple(tuple(text(row) for _, text in columns) for row in records(frame)),
        numeric=frozenset(i for i, (name, _) in enumerate(columns) if name not in _TEXTS),
    )
    order = frame.attrs.get("order", "expected improvement")
    best = frame.iloc[0]
    chart = Chart(
        key="missing-chart",
        title=order[0].upper() + order[1:],
        description=f"Most is expected of {best['model_id']} on {best['task_id']}: "
        f"an improvement of {number(best['gain'], 5)} on {number(best['best_known'])}.",
        spec=missing_chart(frame, order),
        table=table,
        table_open=True,
        min_width=460,
    )
    text = (
        "Runs that nobody has made, by how much the task's best outcome is expected to improve: "
        "the outcome is taken as normal around its prediction, as wide as the ranker's interval, "
        "and never better than the metric can be; a run counts for what it adds to those of its "
        "task above it. "
        f"Sorted by {order}{'' if costly else '; no run logged its cost'}.",
        *([f"{count(n_missing)} pairs have no run."] if n_missing else []),
        *([note] if note else []),
    )
    return Section(key=key, title=title, text=text, charts=(chart,))
