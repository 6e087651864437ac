"""A back-test for a notebook and for a paper: one line, ten lines of HTML, LaTeX, a picture.

The methods of :class:`~recsys_ms.evaluation.result.BacktestResult` lead here.
"""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recsys_ms.core.errors import UnknownIdError
from recsys_ms.core.files import write_atomic
from recsys_ms.core.optional import require
from recsys_ms.evaluation.metrics import (
    METRICS,
    PEARSON,
    REGRET_AT_1,
    REGRET_AT_5,
    SECONDS,
    WEIGHTED_TAU,
)
from recsys_ms.evaluation.result_table import comparison_texts, heading, number, title
from recsys_ms.evaluation.text_table import UNDEFINED

if TYPE_CHECKING:
    from recsys_ms.evaluation.result import BacktestResult

#: Row that no ranker can better, and so is never marked as the best.
_ORACLE: Final = "oracle"
_FEW_METRICS: Final = (PEARSON, WEIGHTED_TAU, REGRET_AT_1, REGRET_AT_5)
_N_OWN_SHOWN: Final = 3
_N_ROWS: Final = 8
_N_IN_TEXT: Final = 6
_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "{}&%$#_"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
    }
)
_LATEX_MARKS: Final = str.maketrans({"+": "$^{+}$", "−": "$^{-}$"})


def as_text(result: "BacktestResult") -> str:
    """One line: what was tested, and the mean regret of the first few rankers."""
    shown = ", ".join(
        f"{_one_line(name)} {number(result.mean(name, REGRET_AT_1), REGRET_AT_1)}"
        for name in result.rankers[:_N_IN_TEXT]
    )
    rest = len(result.rankers) - _N_IN_TEXT
    more = f" and {rest} more" if rest > 0 else ""
    return f"<BacktestResult {title(result)}; mean {REGRET_AT_1}: {shown}{more}>"


def as_html(result: "BacktestResult") -> str:
    """About ten lines: a heading, at most eight rankers, and where to find the rest."""
    metrics = _few_metrics(result)[: len(_FEW_METRICS) + _N_OWN_SHOWN]
    names = result.rankers
    if len(names) > _N_ROWS:
        # The first few and the oracle.
        names = (*names[: _N_ROWS - 1], names[-1])
    rows = [["ranker", *(heading(result, metric) for metric in metrics)]]
    rows += [[name, *(number(result.mean(name, m), m) for m in metrics)] for name in names]
    lines = [f"<table><caption>{html.escape(title(result))}</caption>"]
    for i, row in enumerate(rows):
        tag = "td" if i else "th"
        cells = "".join(f"<{tag}>{html.escape(_one_line(cell))}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    rest = len(result.rankers) - len(names)
    more = f"{rest} more rankers: " if rest else ""
    lines.append(f"</table><small>{more}.means() has intervals, .frame() every number.</small>")
    return "\n".join(lines)


def as_latex(
    result: "BacktestResult",
    path: str | Path | None,
    *,
    metrics: Sequence[str] | None,
    intervals: bool,
) -> str:
    """See :meth:`BacktestResult.to_latex`."""
    columns = _few_metrics(result) if metrics is None else metrics
    table = comparison_texts(result, metrics=columns, intervals=intervals)[""]
    best = [_best(result, metric) for metric in columns]
    rows = [[latex_text(text) for text in table.headings]]
    for name, *cells in table.rows:
        shown = ("" if name == _ORACLE else figure for figure in best)
        rows.append([latex_text(name), *map(_latex_cell, cells, shown)])
    head, *body = (" & ".join(row) + r" \\" for row in rows)
    lines = [
        f"% {_one_line(title(result))}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        *("\\toprule", head, "\\midrule", *body, "\\bottomrule", "\\end{tabular}", ""),
    ]
    text = "\n".join(lines)
    if path is not None:
        write_atomic(Path(path), text.encode())
    return text


def drawn(result: "BacktestResult", metric: str, *, rankers: Sequence[str] | None, ax: Any) -> Any:
    """See :meth:`BacktestResult.plot`."""
    names = list(result.rankers) if rankers is None else list(rankers)
    # Raises where there is no such ranker or metric.
    means = [result.mean(name, metric) for name in names]
    if not names:
        raise UnknownIdError(f"no ranker to draw: choose from {', '.join(result.rankers)}")
    if ax is None:
        plots = require("matplotlib.pyplot", extra="notebook", purpose="draw a back-test")
        _, ax = plots.subplots(figsize=(6.4, 1.2 + 0.35 * len(names)), layout="constrained")
    for at, (name, mean) in enumerate(zip(names, means, strict=True)):
        low, high = result.summaries[name].interval[metric]
        # Fewer than two tasks have no interval.
        ends = None if math.isnan(low) else [[mean - low], [high - mean]]
        ax.errorbar([mean], [at], xerr=ends, fmt="o", capsize=3, color="C0")
    ax.set_yticks(range(len(names)), [_plain(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(_plain(heading(result, metric)))
    ax.set_title(_plain(title(result)), fontsize="medium")
    ax.grid(axis="x", alpha=0.3)
    return ax


def latex_text(text: str) -> str:
    """A text that LaTeX prints as it is, in one line."""
    return _one_line(text).translate(_LATEX)


def _few_metrics(result: "BacktestResult") -> tuple[str, ...]:
    own = tuple(metric for metric in result.metrics if metric not in METRICS)
    return (*(metric for metric in _FEW_METRICS if metric in result.metrics), *own)


def _best(result: "BacktestResult", metric: str) -> str:
    """The best mean as it is written, so that equal figures are bold together."""
    means = [result.mean(name, metric) for name in result.rankers if name != _ORACLE]
    defined = [mean for mean in means if not math.isnan(mean)]
    if not defined or metric == SECONDS:
        return ""
    return number(max(defined) if result.higher_is_better[metric] else min(defined), metric)


def _latex_cell(cell: str, best: str) -> str:
    if cell == UNDEFINED:
        return "--"
    mean, space, rest = cell.partition(" ")
    text = f"\\textbf{{{mean}}}" if mean == best else mean
    # The mark is a superscript: no space before it.
    return (text + space + rest).replace(" +", "+").replace(" −", "−").translate(_LATEX_MARKS)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    # A dollar would begin mathematics in matplotlib.
    return text.replace("$", r"\$")
