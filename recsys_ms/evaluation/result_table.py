"""The comparison of rankers as a table: for a terminal (rich) and for a README (Markdown)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from recsys_ms.core.errors import UsageError
from recsys_ms.evaluation.metrics import SECONDS
from recsys_ms.evaluation.summary import RankerSummary
from recsys_ms.evaluation.text_table import UNDEFINED, TextTable

if TYPE_CHECKING:
    from recsys_ms.evaluation.result import BacktestResult

_MARKS: Final[Mapping[int, str]] = {1: " +", -1: " −", 0: ""}
_STYLES: Final[Mapping[str, str]] = {"+": "green", "−": "red"}
_N_TASKS_NAMED: Final = 5


def comparison_table(
    result: "BacktestResult", *, metrics: Sequence[str] | None = None, intervals: bool = True
) -> Table:
    """Rows are rankers, columns metrics; several task warmths get a section each below the whole.

    Parameters
    ----------
    result : BacktestResult
        What to show.
    metrics : sequence of str
        Columns, from the result's metrics; default all.
    intervals : bool
        Write the 95 % interval behind the mean.

    Raises
    ------
    UsageError
        Unknown metric.
    """
    # Texts, not strings: a bracket in a name or in an error message must not be read as markup.
    table = Table(
        title=Text(title(result)), caption=Text("\n".join(notes(result))), caption_justify="left"
    )
    table.add_column("ranker", no_wrap=True)
    for metric in chosen_metrics(result, metrics):
        table.add_column(heading(result, metric), justify="right")
    for label, part in comparison_texts(result, metrics=metrics, intervals=intervals).items():
        if label:
            table.add_section()
            table.add_row(Text(label, style="italic"))
        for name, *cells in part.rows:
            styled = (Text(cell, style=_STYLES.get(cell[-1:], "")) for cell in cells)
            table.add_row(Text(name), *styled)
    return table


def comparison_markdown(
    result: "BacktestResult", *, metrics: Sequence[str] | None = None, intervals: bool = True
) -> str:
    """The same table as Markdown, notes below it; see :func:`comparison_table`."""
    lines = [f"**{title(result)}**", ""]
    for label, part in comparison_texts(result, metrics=metrics, intervals=intervals).items():
        lines += ["", f"*{label}*", "", part.markdown()] if label else [part.markdown()]
    return "\n".join([*lines, "", *notes(result), ""])


def comparison_texts(
    result: "BacktestResult",
    *,
    metrics: Sequence[str] | None = None,
    intervals: bool = True,
    rankers: Sequence[str] | None = None,
) -> dict[str, TextTable]:
    """The cells of the comparison as texts, shared by all ways to show it.

    Parameters
    ----------
    result, metrics, intervals
        See :func:`comparison_table`.
    rankers : sequence of str, optional
        Rows in order; default those of the result.

    Returns
    -------
    dict of str to TextTable
        The whole under the key ``""``; then a table per task warmth, where there are several.
    """
    columns = chosen_metrics(result, metrics)
    parts = {"": result.summaries}
    if len(result.scenarios) > 1:
        for warmth, summaries in result.scenarios.items():
            n_tasks = len({cell.task_id for cell in result.cells if cell.warmth == warmth})
            parts[f"{warmth} tasks ({n_tasks})"] = summaries
    return {
        label: TextTable(
            headings=("ranker", *(heading(result, metric) for metric in columns)),
            rows=tuple(
                (name, *(_cell(summaries[name], metric, intervals) for metric in columns))
                for name in rankers or result.rankers
            ),
            numeric=frozenset(range(1, len(columns) + 1)),
        )
        for label, summaries in parts.items()
    }


def title(result: "BacktestResult") -> str:
    """One line: protocol, settings that are set, tasks, folds."""
    chosen = ", ".join(
        f"{key}={value}" for key, value in result.settings.items() if value not in (None, 0)
    )
    n_tasks = len(result.tasks)
    return (
        f"{result.protocol}{f' ({chosen})' if chosen else ''}: "
        f"{n_tasks} task{'s' if n_tasks != 1 else ''}, "
        f"{result.n_folds} fold{'s' if result.n_folds != 1 else ''}"
    )


def notes(result: "BacktestResult") -> list[str]:
    """What a reader must know to read the numbers, one sentence a line."""
    said = [
        f"Mean over {result.unit}s [95 % bootstrap interval over {result.unit}s]; "
        f"+ / − better / worse than {result.reference}: the interval of the paired difference "
        "excludes 0."
    ]
    units = sorted(set(result.task_metrics.values()))
    if len(units) > 1:
        said.append(f"Regret mixes the units of {len(units)} metrics ({', '.join(units)}).")
    if any(
        0 < n < summary.n_units
        for summary in result.summaries.values()
        for n in summary.n_defined.values()
    ):
        said.append(f"(n): the metric is defined on n {result.unit}s only; the mean is over those.")
    if result.left_out:
        tasks = sorted({entry.task_id for entry in result.left_out})
        rest = len(tasks) - _N_TASKS_NAMED
        named = ", ".join(tasks[:_N_TASKS_NAMED]) + (f" and {rest} more" if rest > 0 else "")
        said.append(f"Not tested, fewer than two models held out: {named}.")
    for name in result.rankers:
        failed = [cell for cell in result.failures if cell.ranker == name]
        if failed:
            reason = str(failed[0].failure).splitlines()[0]
            said.append(f"{name} failed on {len(failed)} tests; the first: {reason}.")
    return said


def number(value: float, metric: str) -> str:
    """A value of a metric with as many decimals as tables show; a dash where it is undefined."""
    digits = 2 if metric == SECONDS else 4 if metric.startswith("regret") else 3
    return UNDEFINED if math.isnan(value) else f"{value:.{digits}f}"


def _cell(summary: RankerSummary, metric: str, intervals: bool) -> str:
    mean, ends = summary.mean[metric], summary.interval[metric]
    text = number(mean, metric)
    if math.isnan(mean):
        return text
    if intervals and not math.isnan(ends[0]) and metric != SECONDS:
        text += f" [{', '.join(number(end, metric) for end in ends)}]"
    if summary.n_defined[metric] < summary.n_units:
        text += f" ({summary.n_defined[metric]})"
    return text if metric == SECONDS else text + _MARKS[summary.difference[metric].verdict]


def heading(result: "BacktestResult", metric: str) -> str:
    """Name of a metric, and an arrow to what is better."""
    return f"{metric} {'↑' if result.higher_is_better[metric] else '↓'}"


def chosen_metrics(result: "BacktestResult", metrics: Sequence[str] | None) -> tuple[str, ...]:
    """The given metrics; all of the result's by default.

    Raises
    ------
    UsageError
        Unknown metric.
    """
    unknown = [metric for metric in metrics or () if metric not in result.metrics]
    if unknown:
        raise UsageError(
            f"metric {unknown[0]!r} is unknown; choose from {', '.join(result.metrics)}"
        )
    return result.metrics if metrics is None else tuple(metrics)
