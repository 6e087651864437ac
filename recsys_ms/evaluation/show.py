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
from recsys_ms.evaluation.result_table import chosen_metrics, heading, n_digits, title

if TYPE_CHECKING:
    from recsys_ms.evaluation.result import BacktestResult

#: Row that no ranker can better, and so no competitor.
_ORACLE: Final = "oracle"
_FEW_METRICS: Final = (PEARSON, WEIGHTED_TAU, REGRET_AT_1, REGRET_AT_5)
_N_OWN_SHOWN: Final = 3
_N_ROWS: Final = 8
_N_IN_TEXT: Final = 6
_LATEX_MARKS: Final = {1: "$^{+}$", -1: "$^{-}$", 0: ""}
_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def as_text(result: "BacktestResult") -> str:
    """One line: what was tested, and the mean regret of the first few rankers."""
    shown = ", ".join(
        f"{_one_line(name)} {_number(result.mean(name, REGRET_AT_1), REGRET_AT_1)}"
        for name in result.rankers[:_N_IN_TEXT]
    )
    rest = len(result.rankers) - _N_IN_TEXT
    more = f" and {rest} more" if rest > 0 else ""
    return f"<BacktestResult {title(result)}; mean {REGRET_AT_1}: {shown}{more}>"


def as_html(result: "BacktestResult") -> str:
    """About ten lines: a heading, eight rankers at most, and where the rest is."""
    metrics = _few_metrics(result)[: len(_FEW_METRICS) + _N_OWN_SHOWN]
    headings = [html.escape(_one_line(heading(result, metric))) for metric in metrics]
    heads = "".join(f"<th>{text}</th>" for text in headings)
    lines = [
        f"<table><caption>{html.escape(title(result))}</caption>",
        f"<tr><th>ranker</th>{heads}</tr>",
    ]
    rankers = _few_rankers(result)
    for name in rankers:
        cells = "".join(
            f"<td>{_number(result.mean(name, metric), metric)}</td>" for metric in metrics
        )
        lines.append(f"<tr><td>{html.escape(_one_line(name))}</td>{cells}</tr>")
    rest = len(result.rankers) - len(rankers)
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
    columns = chosen_metrics(result, _few_metrics(result) if metrics is None else metrics)
    best = {metric: _best(result, metric) for metric in columns}
    lines = [
        f"% {_one_line(title(result))}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        _row("ranker", *(latex_text(heading(result, metric)) for metric in columns)),
        "\\midrule",
    ]
    for name in result.rankers:
        cells = [
            _latex_cell(result, name, metric, best[metric], intervals=intervals)
            for metric in columns
        ]
        lines.append(_row(latex_text(name), *cells))
    text = "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])
    if path is not None:
        write_atomic(Path(path), text.encode())
    return text


def drawn(result: "BacktestResult", metric: str, *, rankers: Sequence[str] | None, ax: Any) -> Any:
    """See :meth:`BacktestResult.plot`."""
    names = list(result.rankers) if rankers is None else list(rankers)
    for name in names:
        # Also says so where there is no such metric.
        result.mean(name, metric)
    if not names:
        raise UnknownIdError(f"no ranker to draw: there are {', '.join(result.rankers)}")
    if ax is None:
        plots = require("matplotlib.pyplot", extra="notebook", purpose="draw a back-test")
        _, ax = plots.subplots(figsize=(6.4, 1.2 + 0.35 * len(names)), layout="constrained")
    for at, name in enumerate(names):
        mean, (low, high) = result.mean(name, metric), result.summaries[name].interval[metric]
        # Without two tasks there is no interval: the mean stands alone.
        ends = None if math.isnan(low) else [[mean - low], [high - mean]]
        ax.errorbar([mean], [at], xerr=ends, fmt="o", capsize=3, color="C0")
    # A dollar would begin mathematics.
    ax.set_yticks(range(len(names)), [_plain(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(_plain(heading(result, metric)))
    ax.set_title(_plain(title(result)), fontsize="medium")
    ax.grid(axis="x", alpha=0.3)
    return ax


def latex_text(text: str) -> str:
    """A text that LaTeX prints as it is, in one line."""
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def _few_metrics(result: "BacktestResult") -> tuple[str, ...]:
    own = tuple(metric for metric in result.metrics if metric not in METRICS)
    return (*(metric for metric in _FEW_METRICS if metric in result.metrics), *own)


def _few_rankers(result: "BacktestResult") -> list[str]:
    """All, or the first few and the oracle."""
    names = list(result.rankers)
    return names if len(names) <= _N_ROWS else [*names[: _N_ROWS - 1], names[-1]]


def _best(result: "BacktestResult", metric: str) -> str:
    """The best mean as it is written, so that equal figures are bold together."""
    means = [result.mean(name, metric) for name in result.rankers if name != _ORACLE]
    known = [mean for mean in means if not math.isnan(mean)]
    if not known or metric == SECONDS:
        return ""
    return _number(max(known) if result.higher_is_better[metric] else min(known), metric)


def _latex_cell(
    result: "BacktestResult", name: str, metric: str, best: str, *, intervals: bool
) -> str:
    summary = result.summaries[name]
    mean, (low, high) = summary.mean[metric], summary.interval[metric]
    if math.isnan(mean):
        return "--"
    text = _number(mean, metric)
    if metric == SECONDS:
        return text
    if text == best and name != _ORACLE:
        text = f"\\textbf{{{text}}}"
    if intervals and not math.isnan(low):
        text += f" [{_number(low, metric)}, {_number(high, metric)}]"
    return text + _LATEX_MARKS[summary.difference[metric].verdict]


def _row(*cells: str) -> str:
    return " & ".join(cells) + r" \\"


def _number(value: float, metric: str) -> str:
    return "–" if math.isnan(value) else f"{value:.{n_digits(metric)}f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
