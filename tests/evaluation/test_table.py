"""The table, as text."""

import io

import pytest
from rich.console import Console

from evaluation.planted import BASELINES, BrokenRanker, ObservedRanker, planted, planted_runs
from recsys_ms.core.errors import UsageError
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.metrics import METRICS
from recsys_ms.evaluation.protocols import LeaveOneTaskOut
from recsys_ms.evaluation.result import BacktestResult, Cell, LeftOut
from recsys_ms.evaluation.result_table import comparison_markdown, comparison_table
from recsys_ms.evaluation.temporal import Temporal
from recsys_ms.history.interactions import Interactions


@pytest.fixture(scope="module")
def result():
    return backtest(
        planted(n_tasks=8),
        protocol=LeaveOneTaskOut(n_observed=1),
        rankers={**BASELINES, "observed": ObservedRanker, "broken": BrokenRanker},
        n_draws=300,
    )


def shown(table):
    console = Console(file=io.StringIO(), width=220)
    console.print(table)
    return console.file.getvalue()


def test_every_ranker_has_a_row_in_both(result):
    markdown, text = comparison_markdown(result), shown(comparison_table(result))
    for name in result.rankers:
        assert f"| {name} |" in markdown
        assert name in text
    assert "leave-one-task-out (n_observed=1): 8 tasks, 8 folds" in markdown
    mean, (low, high) = (
        result.mean("popularity", "pearson"),
        result.summaries["popularity"].interval["pearson"],
    )
    for out in (markdown, text):
        assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in out


def test_marks_against_popularity(result):
    rows = {
        line.split("|")[1].strip(): line
        for line in comparison_markdown(result).splitlines()
        if line.startswith("| ")
    }
    assert rows["random"].count("−") >= 1
    # Popularity finds the best model of some tasks, so that its regret may be the oracle's.
    assert rows["oracle"].count(" + ") >= 4
    assert "−" not in rows["oracle"]
    assert " + " not in rows["popularity"]
    assert "−" not in rows["popularity"]


def test_failures_are_said(result):
    assert "broken failed on 2 tests; the first: fit: ValueError: no task-1" in (
        comparison_markdown(result)
    )
    assert "(6)" in comparison_markdown(result)


def test_columns_can_be_chosen(result):
    markdown = comparison_markdown(result, metrics=("regret@1",), intervals=False)
    assert "| ranker | regret@1 ↓ |" in markdown
    assert "pearson" not in markdown.split("\n\n")[1]
    assert "[" not in markdown.split("\n\n")[1]
    with pytest.raises(UsageError, match="unknown"):
        comparison_table(result, metrics=("accuracy",))


def test_warmths_have_sections():
    runs = planted_runs()
    result = backtest(
        Interactions.from_runs(runs),
        protocol=Temporal(runs=runs, fractions=(0.7,)),
        rankers=BASELINES,
        n_draws=50,
    )
    markdown = comparison_markdown(result)
    assert "*cold tasks (1)*" in markdown
    assert "*hot tasks (1)*" in markdown
    assert "cold tasks (1)" in shown(comparison_table(result))


def test_mixed_units_are_said():
    history = Interactions.from_runs(
        planted_runs().assign(
            metric=lambda runs: runs["task_id"].map(lambda task: f"metric of {task}")
        )
    )
    markdown = comparison_markdown(
        backtest(history, protocol=LeaveOneTaskOut(), rankers=BASELINES, n_draws=50)
    )
    assert "Regret mixes the units of 6 metrics" in markdown


def test_what_was_not_tested_is_said_and_brackets_are_no_markup():
    def cell(ranker, failure=None):
        scores = dict.fromkeys(METRICS, float("nan") if failure else 0.5)
        return Cell(
            ranker=ranker,
            fold="f",
            task_id="t",
            warmth="hot",
            n_models=3,
            n_observed=0,
            scores=scores,
            failure=failure,
        )

    result = BacktestResult.from_cells(
        [cell("popularity"), cell("mine", "fit: ValueError: got [/x] | [red]\nsecond line")],
        protocol="settings-1",
        rankers=("popularity", "mine"),
        seed=0,
        left_out=[LeftOut(fold=str(i), task_id=f"task-{i}") for i in range(7)],
    )
    for out in (comparison_markdown(result), shown(comparison_table(result))):
        assert "settings-1: 1 task, 1 fold" in out
        assert "task-4 and 2 more" in out
        assert "got [/x] | [red]." in out
        assert "second line" not in out
        assert "–" in out
