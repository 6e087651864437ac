"""The comparison of rankers as a table: for a terminal (rich) and for a README (Markdown)."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from recsys_ms.core.errors import UsageError
from recsys_ms.evaluation.metrics import SECONDS
from recsys_ms.evaluation.summary import RankerSummary

if TYPE_CHECKING:
    from recsys_ms.evaluation.result import BacktestResult

_MARKS: Final[Mapping[int, str]] = {1: " +", -1: " −", 0: ""}
_STYLES: Final[Mapping[int, str]] = {1: "green", -1: "red", 0: ""}
_UNDEFINED: Final = "–"


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
    metrics = chosen_metrics(result, metrics)
    # Texts, not strings: a bracket in a name or in an error message is no markup.
    table = Table(
        title=Text(title(result)), caption=Text("\n".join(notes(result))), caption_justify="left"
    )
    table.add_column("ranker", no_wrap=True)
    for metric in metrics:
        table.add_column(heading(result, metric), justify="right")
    for label, summaries in _sections(result):
        if label:
            table.add_section()
            table.add_row(Text(label, style="italic"))
        for name in result.rankers:
            cells = []
            for metric in metrics:
                verdict = summaries[name].difference[metric].verdict
                text = _cell(summaries[name], metric, intervals=intervals)
                style = _STYLES[verdict] if metric != SECONDS else ""
                cells.append(Text(text, style=style))
            table.add_row(Text(name), *cells)
    return table


def comparison_markdown(
    result: "BacktestResult", *, metrics: Sequence[str] | None = None, intervals: bool = True
) -> str:
    """The same table as Markdown, notes below it; see :func:`comparison_table`."""
    metrics = chosen_metrics(result, metrics)
    lines: list[str] = []
    for label, summaries in _sections(result):
        lines += ["", f"*{label}*", ""] if label else []
        lines.append(
            "| ranker | "
            + " | ".join(_cell_text(heading(result, metric)) for metric in metrics)
            + " |"
        )
        lines.append("|---|" + "---:|" * len(metrics))
        for name in result.rankers:
            cells = [_cell(summaries[name], metric, intervals=intervals) for metric in metrics]
            lines.append(f"| {_cell_text(name)} | " + " | ".join(cells) + " |")
    return "\n".join([f"**{title(result)}**", "", *lines, "", *notes(result), ""])


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
        f"+ / − better / worse than {result.reference}, where the interval of the paired "
        "difference leaves out 0."
    ]
    units = sorted(set(result.task_metrics.values()))
    if len(units) > 1:
        said.append(f"Regret mixes the units of {len(units)} metrics ({', '.join(units)}).")
    if any(_n_short(result, name, metric) for name in result.rankers for metric in result.metrics):
        said.append("(n): the metric is defined on n of them only; the mean is over those.")
    if result.left_out:
        tasks = sorted({entry.task_id for entry in result.left_out})
        said.append(f"Not tested, fewer than two models held out: {_few(tasks)}.")
    for name in result.rankers:
        failed = [cell for cell in result.failures if cell.ranker == name]
        if failed:
            reason = str(failed[0].failure).splitlines()[0]
            said.append(f"{name} failed on {len(failed)} tests; the first: {reason}.")
    return said


def _sections(result: "BacktestResult") -> list[tuple[str, Mapping[str, RankerSummary]]]:
    sections: list[tuple[str, Mapping[str, RankerSummary]]] = [("", result.summaries)]
    if len(result.scenarios) > 1:
        for warmth, summaries in result.scenarios.items():
            n_tasks = len({cell.task_id for cell in result.cells if cell.warmth == warmth})
            sections.append((f"{warmth} tasks ({n_tasks})", summaries))
    return sections


def n_digits(metric: str) -> int:
    """Decimals that are shown of a metric."""
    return 2 if metric == SECONDS else 4 if metric.startswith("regret") else 3


def _cell(summary: RankerSummary, metric: str, *, intervals: bool) -> str:
    mean, (low, high) = summary.mean[metric], summary.interval[metric]
    if math.isnan(mean):
        return _UNDEFINED
    digits = n_digits(metric)
    text = f"{mean:.{digits}f}"
    if intervals and not math.isnan(low) and metric != SECONDS:
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    if summary.n_defined[metric] < summary.n_units:
        text += f" ({summary.n_defined[metric]})"
    if metric != SECONDS:
        text += _MARKS[summary.difference[metric].verdict]
    return text


def _n_short(result: "BacktestResult", name: str, metric: str) -> bool:
    summary = result.summaries[name]
    return 0 < summary.n_defined[metric] < summary.n_units


def heading(result: "BacktestResult", metric: str) -> str:
    """Name of a metric, and an arrow to what is better."""
    return f"{metric} {'↑' if result.higher_is_better[metric] else '↓'}"


def _cell_text(name: str) -> str:
    """A name that neither ends its cell of a Markdown table nor begins HTML."""
    text = html.escape(" ".join(name.split()), quote=False)
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _few(names: Sequence[str], n_shown: int = 5) -> str:
    shown = ", ".join(names[:n_shown])
    return shown if len(names) <= n_shown else f"{shown} and {len(names) - n_shown} more"


def chosen_metrics(result: "BacktestResult", metrics: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics asked for; all where nobody asked.

    Raises
    ------
    UsageError
        Unknown metric.
    """
    if metrics is None:
        return result.metrics
    unknown = [metric for metric in metrics if metric not in result.metrics]
    if unknown:
        raise UsageError(
            f"metric {unknown[0]!r} is unknown; choose from {', '.join(result.metrics)}"
        )
    return tuple(metrics)
