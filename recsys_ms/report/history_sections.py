"""The sections that the history fills: learning curve, map, coverage, missing runs."""

from typing import Final

import pandas as pd

from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.metrics import REGRET_AT_1
from recsys_ms.evaluation.result import POPULARITY
from recsys_ms.evaluation.text_table import TextTable, fill, records
from recsys_ms.report.blocks import Chart, Control, Section, count, plural
from recsys_ms.report.charts import chart_spec, ranker_colours
from recsys_ms.report.matrix import RunMatrix
from recsys_ms.report.report_data import ReportData
from recsys_ms.report.space_chart import names_below

#: Task names on the map, and model names at the matrix, are drawn up to this number.
_N_TASKS_NAMED: Final = 30
_N_MODELS_NAMED: Final = 80


def learning_section(data: ReportData) -> Section | str:
    """Whether more runs make rankers better."""
    frame = data.curve
    if frame.empty:
        return "No learning curve was measured."
    names = sorted(set(frame["ranker"]))
    metrics = list(dict.fromkeys(frame["metric"]))
    table = TextTable.from_frame(
        frame,
        {
            "ranker": "{ranker}",
            "metric": "{metric}",
            "share": "{fraction:.0%}",
            "outcomes": "{n_outcomes:.0f}",
            "tasks": "{n_tasks:d}",
            "mean": "{mean:.4f}",
            "interval": "{low:.4f} … {high:.4f}",
        },
        caption="Points of the learning curve, mean over tasks [95 % bootstrap interval]",
    )
    trends = []
    for name, own in frame[frame["metric"] == REGRET_AT_1].groupby("ranker"):
        first, *_, last = records(own.iloc[[0, -1]])
        trends.append(
            fill(f"{name}: regret@1 {{mean:.4f}} with {{fraction:.0%}} of the history, ", first)
            + fill("{mean:.4f} with {fraction:.0%}", last)
        )
    note = data.notes.get("learning")
    return Section(
        text=(
            f"{plural(int(frame['n_tasks'].max()), 'task')} held out, the same at every size; the "
            "other tasks' outcomes are thinned at random. Quick rankers only "
            f"({', '.join(names)}): the shape of the curve shows whether more runs help, not how "
            "good the ranker in service is.",
            *([note] if note else []),
        ),
        control=Control(signal="metric", label="Metric", options=tuple((m, m) for m in metrics)),
        chart=Chart(
            title="Mean on held-out tasks over the outcomes trained on",
            description="; ".join(trends) + ".",
            spec=chart_spec(
                "learning",
                curve=frame,
                metric=metrics[0],
                rankers=ranker_colours([*names, POPULARITY], data.focus),
            ),
            table=table,
        ),
    )


def map_section(data: ReportData) -> Section | str:
    """Tasks and models in the transfer space."""
    frame = data.space
    if frame.empty:
        return "No map was made."
    is_task = frame["kind"] == "task"
    n_tasks = int(is_task.sum())
    explained, left_out = frame.attrs.get("explained", 1.0), frame.attrs.get("n_left_out", 0)
    table = TextTable.from_frame(
        frame,
        {
            "kind": "{kind}",
            "name": "{name}",
            "x": "{x:.2f}",
            "y": "{y:.2f}",
            "runs": "{n_pairs:d}",
            "best": "{best}",
        },
        caption="Tasks and models with their places on the map",
    )
    named = is_task & (n_tasks <= _N_TASKS_NAMED)
    below = pd.Series(names_below(frame), dtype=object).where(named.to_numpy())
    return Section(
        text=(
            "Tasks for which the same models are good are near each other, and a model is near the "
            "tasks on which it does well compared with other tasks. Shown are the directions of "
            "the vectors of a factorisation of the outcomes, not their lengths, on the plane that "
            f"holds {explained:.0%} of their spread.",
            *([f"{count(left_out)} with the fewest runs are left out."] if left_out else []),
        ),
        chart=Chart(
            title="Transfer space",
            description=f"{plural(n_tasks, 'task')} and {plural(len(frame) - n_tasks, 'model')} "
            "as points; the table below names the best model of each task.",
            spec=chart_spec("map", places=frame.assign(below=below.to_numpy())),
            table=table,
            in_markdown=False,
        ),
    )


def coverage_section(data: ReportData) -> Section | str:
    """Which pairs have a run."""
    matrix = data.matrix
    if matrix is None:
        return "The history is not available, so there is no matrix to show."
    n_all = matrix.n_tasks * matrix.n_models
    full = " The matrix is full." if matrix.n_pairs == n_all else ""
    by_task = matrix.cells.groupby("tasks", sort=False)
    table = TextTable.from_frame(
        by_task.agg(share=("share", "mean"), n_runs=("n_runs", "sum")).reset_index(),
        {
            "tasks" if matrix.in_blocks else "task": "{tasks}",
            "models with a run": "{share:.0%}",
            "runs": "{n_runs:,}",
        },
        caption="Share of the models with a run, by task, and runs",
    )
    return Section(
        text=(
            f"{plural(matrix.n_pairs, 'pair')} of {count(n_all)} have a finished run "
            f"({matrix.share:.1%}).{full}",
            "The matrix is drawn in blocks; the colour is the share of a block's pairs with a run."
            if matrix.in_blocks
            else "The colour is the share of the task's other models that a model beat; a blank "
            "tile has no run.",
        ),
        chart=Chart(
            title=f"{plural(matrix.n_tasks, 'task')} × {plural(matrix.n_models, 'model')}",
            description="One tile per block of tasks and models; the table below has their shares."
            if matrix.in_blocks
            else "One tile per pair of task and model; the table below counts them by task.",
            spec=_matrix_spec(matrix),
            table=table,
            min_width=620,
            in_markdown=False,
        ),
    )


def _matrix_spec(matrix: RunMatrix) -> JsonDict:
    cells = matrix.cells
    rows, columns = (
        cells.drop_duplicates(at).sort_values(at)[name].tolist()
        for at, name in (("row", "tasks"), ("column", "models"))
    )
    spec = chart_spec(
        "coverage in blocks" if matrix.in_blocks else "coverage",
        names={"row_names": rows, "column_names": columns},
        cells=cells[cells["share"] > 0.0],
    )
    x, y = spec["encoding"]["x"], spec["encoding"]["y"]
    # Rows and columns without any run are drawn too.
    for channel, names in ((x, columns), (y, rows)):
        channel["scale"] = {"domain": list(range(len(names)))}
        channel["sort"] = channel["scale"]["domain"]
    if len(columns) > _N_MODELS_NAMED:
        x["title"] = "models"
        x["axis"]["labels"] = False
    spec["height"] = (16 if len(rows) <= 40 else 10) * len(rows)
    return spec


def missing_section(data: ReportData) -> Section | str:
    """What to fine-tune next."""
    frame, note = data.missing, data.notes.get("missing")
    if frame.empty:
        return "Missing runs were not evaluated."
    has_costs = bool(frame["gpu_hours"].notna().all())
    n_missing = frame.attrs.get("n_missing")
    order = frame.attrs.get("order", "expected improvement")
    table = TextTable.from_frame(
        frame,
        {
            "task": "{task_id}",
            "model": "{model_id}",
            "gain": "{gain:.5f}",
            **({"GPU hours": "{gpu_hours:.3f}"} if has_costs else {}),
            "best so far": "{best_known:.4f}",
            "predicted": "{predicted:.4f}",
            "interval": "{low:.4f} … {high:.4f}",
            **({"metric": "{metric}"} if frame["metric"].nunique() > 1 else {}),
        },
        caption="Most valuable missing runs, best first; gain is the expected improvement",
    )
    pairs = frame["task_id"] + " ← " + frame["model_id"]
    return Section(
        text=(
            "Pairs without a run, by how much the task's best outcome is expected to improve. The "
            "outcome is taken as normal around its prediction, as wide as the ranker's interval, "
            "and never better than the metric allows; a run counts for what it adds to the runs of "
            "its task above it. "
            f"Sorted by {order}{'' if has_costs else '; no run logged its cost'}.",
            *([f"{count(n_missing)} pairs have no run."] if n_missing else []),
            *([note] if note else []),
        ),
        chart=Chart(
            title=order[0].upper() + order[1:],
            description=fill(
                "The largest improvement is expected of {model_id} on {task_id}: {gain:.5f} on "
                "{best_known:.4f}.",
                records(frame)[0],
            ),
            spec=chart_spec(
                "missing",
                names={"pair_names": pairs.tolist()},
                runs=frame.assign(pair_at=range(len(frame))),
            ),
            table=table,
            table_open=True,
            min_width=460,
        ),
    )
