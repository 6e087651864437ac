"""A metric has one direction on a task: the contrary is a question at ingest, not a dead night."""

from pathlib import Path
from typing import Any

import pytest

from recsys_ms.core.errors import DataError
from recsys_ms.history.history import History
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.quarantine import ReadBatch
from recsys_ms.history.run import Run
from recsys_ms.history.store.schema import runs_to_table


def make(run_id: str, direction: Any, metric: str = "quux", task: str = "t", **more: Any) -> Run:
    fields = {"model_id": f"m-{run_id}", "value": 0.5, **more}
    return Run(run_id=run_id, task_id=task, metric=metric, direction=direction, **fields)


def batch(file: str, *runs: Run) -> ReadBatch:
    return ReadBatch(runs=runs_to_table(runs), file=file)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "h")


def test_the_contrary_of_stored_runs_is_refused_with_both_facts(history: History) -> None:
    history.append([make("a", "max"), make("b", "max", task="u")])
    report = history.append(
        [make("c", "min"), make("d", "max"), make("e", "min", task="v"), make("f", "min", "zorp")]
    )
    assert (report.n_new, report.n_quarantined) == (3, 1)
    (reject,) = history.quarantine.pending()
    assert "'quux' on task 't'" in reject.reason
    assert "'max', this one says 'min'" in reject.reason
    assert "task_id = 't' AND metric = 'quux'" in reject.reason
    # The way out that the message names.
    history.retract(where="task_id = 't' AND metric = 'quux'")
    assert history.replay().n_new == 1
    assert sorted(history.runs()["run_id"]) == ["b", "c", "e", "f"]
    # Of a metric that two tasks minimise and one maximises, the one is left out, and reported.
    assert Interactions.from_runs(history, on_two_metrics="most-runs").task_ids == ("t", "v")


def test_within_one_log_the_first_run_decides(history: History) -> None:
    report = history.ingest(
        [batch("f", make("a", "min"), make("b", "max")), batch("g", make("c", "max"))]
    )
    assert (report.n_new, report.n_quarantined) == (1, 2)


def test_runs_without_an_outcome_do_not_decide(history: History) -> None:
    history.append([make("a", "max", value=None, status="failed")])
    assert history.append([make("b", "min")]).n_new == 1
    assert history.append([make("c", "max", value=None, status="failed")]).n_new == 1


def test_a_log_is_replaced_in_the_other_direction_as_a_whole(history: History) -> None:
    history.ingest([batch("f", make("a", "max")), batch("g", make("b", "max"))])
    contrary = [batch("f", make("a", "min")), batch("g", make("b", "min"))]
    with pytest.raises(DataError, match="nothing was replaced"):
        history.ingest(contrary[:1], replace=True)
    assert history.runs()["direction"].tolist() == ["max", "max"]
    assert history.ingest(contrary, replace=True).n_updated == 2
    assert history.runs()["direction"].tolist() == ["min", "min"]


def test_what_would_cross_is_not_brought_back(history: History) -> None:
    wrong = history.append([make("a", "max")]).ingest_id
    history.retract(wrong)
    history.append([make("b", "min")])
    with pytest.raises(DataError, match="nothing was brought back"):
        history.retract(wrong, undo=True)
    assert history.runs()["run_id"].tolist() == ["b"]
