"""The comparison of rankers as a table: for a terminal (rich) and for a README (Markdown)."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from recsys_ms.core.errors import UsageError
from recsys_ms.evaluation.metrics import HIGHER_IS_BETTER, METRICS, QUALITY_METRICS
from recsys_ms.evaluation.result import BacktestResult
from recsys_ms.evaluation.summary import RankerSummary

_MARKS: Final[Mapping[int, str]] = {1: " +", -1: " −", 0: ""}
_STYLES: Final[Mapping[int, str]] = {1: "green", -1: "red", 0: ""}
_UNDEFINED: Final = "–"


def comparison_table(
    result: BacktestResult, *, metrics: Sequence[str] = METRICS, intervals: bool = True
) -> Table:
    """Rows are rankers, columns metrics; several task warmths get a section each below the whole.

    Parameters
    ----------
    result : BacktestResult
        What to show.
    metrics : sequence of str
        Columns, from ``METRICS``.
    intervals : bool
        Write the 95 % interval behind the mean.

    Raises
    ------
    UsageError
        Unknown metric.
    """
    _check(metrics)
    # Texts, not strings: a bracket in a name or in an error message is no markup.
    table = Table(
        title=Text(title(result)), caption=Text("\n".join(notes(result))), caption_justify="left"
    )
    table.add_column("ranker", no_wrap=True)
    for metric in metrics:
        table.add_column(_heading(metric), justify="right")
    for label, summaries in _sections(result):
        if label:
            table.add_section()
            table.add_row(Text(label, style="italic"))
        for name in result.rankers:
            cells = []
            for metric in metrics:
                verdict = summaries[name].difference[metric].verdict(metric)
                text = _cell(result, summaries[name], metric, intervals=intervals)
                style = _STYLES[verdict] if metric in QUALITY_METRICS else ""
                cells.append(Text(text, style=style))
            table.add_row(Text(name), *cells)
    return table


def comparison_markdown(
    result: BacktestResult, *, metrics: Sequence[str] = METRICS, intervals: bool = True
) -> str:
    """The same table as Markdown, notes below it; see :func:`comparison_table`."""
    _check(metrics)
    lines: list[str] = []
    for label, summaries in _sections(result):
        lines += ["", f"*{label}*", ""] if label else []
        lines.append("| ranker | " + " | ".join(map(_heading, metrics)) + " |")
        lines.append("|---|" + "---:|" * len(metrics))
        for name in result.rankers:
            cells = [
                _cell(result, summaries[name], metric, intervals=intervals) for metric in metrics
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([f"**{title(result)}**", "", *lines, "", *notes(result), ""])


def title(result: BacktestResult) -> str:
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


def notes(result: BacktestResult) -> list[str]:
    """What a reader must know to read the numbers, one sentence a line."""
    said = [
        f"Mean over {result.unit}s [95 % bootstrap interval over {result.unit}s]; "
        f"+ / − better / worse than {result.reference}, where the interval of the paired "
        "difference leaves out 0."
    ]
    units = sorted(set(result.task_metrics.values()))
    if len(units) > 1:
        said.append(f"Regret mixes the units of {len(units)} metrics ({', '.join(units)}).")
    if any(_n_short(result, name, metric) for name in result.rankers for metric in METRICS):
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


def _sections(result: BacktestResult) -> list[tuple[str, Mapping[str, RankerSummary]]]:
    sections: list[tuple[str, Mapping[str, RankerSummary]]] = [("", result.summaries)]
    if len(result.scenarios) > 1:
        for warmth, summaries in result.scenarios.items():
            n_tasks = len({cell.task_id for cell in result.cells if cell.warmth == warmth})
            sections.append((f"{warmth} tasks ({n_tasks})", summaries))
    return sections


def _cell(result: BacktestResult, summary: RankerSummary, metric: str, *, intervals: bool) -> str:
    mean, (low, high) = summary.mean[metric], summary.interval[metric]
    if math.isnan(mean):
        return _UNDEFINED
    digits = 2 if metric not in QUALITY_METRICS else 4 if metric.startswith("regret") else 3
    text = f"{mean:.{digits}f}"
    if intervals and not math.isnan(low) and metric in QUALITY_METRICS:
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    if summary.n_defined[metric] < summary.n_units:
        text += f" ({summary.n_defined[metric]})"
    if metric in QUALITY_METRICS:
        text += _MARKS[summary.difference[metric].verdict(metric)]
    return text


def _n_short(result: BacktestResult, name: str, metric: str) -> bool:
    summary = result.summaries[name]
    return 0 < summary.n_defined[metric] < summary.n_units


def _heading(metric: str) -> str:
    return f"{metric} {'↑' if HIGHER_IS_BETTER[metric] else '↓'}"


def _few(names: Sequence[str], n_shown: int = 5) -> str:
    shown = ", ".join(names[:n_shown])
    return shown if len(names) <= n_shown else f"{shown} and {len(names) - n_shown} more"


def _check(metrics: Sequence[str]) -> None:
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise UsageError(f"metric {unknown[0]!r} is unknown; choose from {', '.join(METRICS)}")
