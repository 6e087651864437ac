"""The result: means, intervals, differences, JSON there and back."""

import json

import numpy as np
import pytest

from recsys_ms.core.errors import DataError, UnknownIdError
from recsys_ms.evaluation.metrics import METRICS
from recsys_ms.evaluation.result import BacktestResult, Cell, LeftOut

NAN = float("nan")


def cell(ranker, task, score, *, fold=None, warmth="cold", failure=None, **scores):
    return Cell(
        ranker=ranker,
        fold=fold or task,
        task_id=task,
        warmth=warmth,
        n_models=5,
        n_observed=0,
        scores={**dict.fromkeys(METRICS, score), **scores},
        failure=failure,
    )


def result_of(*cells, rankers=("popularity", "mine"), **options):
    return BacktestResult.from_cells(
        cells, protocol="leave-one-task-out", rankers=rankers, seed=3, **options
    )


@pytest.fixture
def result():
    return result_of(
        cell("popularity", "a", 0.2),
        cell("popularity", "b", 0.4),
        cell("popularity", "c", 0.6, warmth="hot"),
        cell("mine", "a", 0.5),
        cell("mine", "b", 0.7, pearson=NAN),
        cell("mine", "c", 0.9, warmth="hot", failure="because"),
        task_metrics={"a": "accuracy", "b": "accuracy", "c": "rmse", "untested": "f1"},
        history_version=7,
        settings={"n_observed": 0},
        left_out=[LeftOut(fold="d", task_id="d")],
    )


def test_means_are_over_what_is_defined(result):
    assert result.mean("popularity", "spearman") == pytest.approx(0.4)
    assert result.mean("mine", "spearman") == pytest.approx(0.7)
    assert result.mean("mine", "pearson") == pytest.approx(0.7)  # of 0.5 and 0.9
    assert result.summaries["mine"].n_defined["pearson"] == 2


def test_differences_are_paired(result):
    difference = result.summaries["mine"].difference["spearman"]
    assert (difference.mean, difference.n) == (pytest.approx(0.3), 3)
    # Every task differs by 0.3, so no draw differs by anything else.
    assert difference.interval == pytest.approx((0.3, 0.3))
    assert difference.verdict == 1
    assert result.summaries["mine"].difference["regret@1"].verdict == -1
    assert result.summaries["popularity"].difference["spearman"].verdict == 0


def test_differences_from_another_ranker(result):
    turned = result.against("mine")
    assert turned.reference == "mine"
    assert turned.summaries["popularity"].difference["spearman"].mean == pytest.approx(-0.3)
    assert turned.summaries["popularity"].difference["spearman"].verdict == -1
    # Means and their intervals are what they were.
    assert turned.summaries["mine"].interval == result.summaries["mine"].interval
    assert turned.against("popularity").summaries == result.summaries
    document = turned.to_json()
    assert document["rankers"]["popularity"]["difference_to_mine"]["spearman"]["n"] == 3
    assert BacktestResult.from_json(document).summaries == turned.summaries
    with pytest.raises(UnknownIdError, match="no ranker 'other' to compare with: choose from"):
        result.against("other")


def test_differences_as_a_table(result):
    table = result.differences().set_index(["ranker", "metric"])
    assert set(table.index.get_level_values("ranker")) == set(result.rankers) - {"popularity"}
    row = table.loc[("mine", "spearman")]
    assert [row["difference"], row["low"], row["high"]] == pytest.approx([0.3, 0.3, 0.3])
    assert (row["n"], row["verdict"]) == (3, 1)
    assert table.loc[("mine", "regret@1"), "verdict"] == -1


def test_warmth_is_reported_apart(result):
    assert list(result.scenarios) == ["cold", "hot"]
    assert result.scenarios["cold"]["mine"].mean["spearman"] == pytest.approx(0.6)
    # One task: no interval, and no verdict.
    hot = result.scenarios["hot"]["mine"]
    assert np.isnan(hot.interval["spearman"]).all()
    assert hot.difference["spearman"].verdict == 0


def test_folds_of_a_task_are_averaged_before_tasks():
    result = result_of(
        cell("popularity", "a", 0.0, fold="1"),
        cell("popularity", "a", 1.0, fold="2"),
        cell("popularity", "a", NAN, fold="3"),
        cell("popularity", "b", 0.3, fold="1"),
        rankers=("popularity",),
    )
    assert result.per_task("popularity")["a"]["pearson"] == 0.5
    assert result.mean("popularity", "pearson") == pytest.approx(0.4)
    assert (result.unit, result.n_folds) == ("task", 3)


def test_the_order_of_cells_does_not_matter(result):
    again = result_of(*reversed(result.cells))
    assert again.summaries == result.summaries


def test_json_layout(result):
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["protocol"] == "leave-one-task-out"
    assert document["history_version"] == 7
    mine = document["rankers"]["mine"]
    assert set(mine) >= {"mean", "per_task", "interval"}
    assert set(mine["mean"]) == set(METRICS)
    assert mine["per_task"]["b"]["pearson"] is None
    assert mine["per_task"]["a"]["spearman"] == 0.5
    assert len(mine["interval"]["regret@1"]) == 2
    assert mine["n_defined"]["pearson"] == 2
    assert mine["n_failures"] == 1
    assert mine["difference_to_popularity"]["spearman"]["n"] == 3
    assert document["scenario"]["hot"]["n_tasks"] == 1
    assert document["scenario"]["hot"]["rankers"]["mine"]["interval"]["pearson"] == [None, None]
    assert document["failures"] == [
        {"ranker": "mine", "fold": "c", "task": "c", "reason": "because"}
    ]
    assert document["task_metrics"] == {"a": "accuracy", "b": "accuracy", "c": "rmse"}
    assert document["n_tasks"] == 3


def test_json_there_and_back(result):
    document = result.to_json()
    for source in (document, json.dumps(document)):
        again = BacktestResult.from_json(source)
        assert again.to_json() == document
        assert again.frame().equals(result.frame())


@pytest.mark.parametrize("document", ["", "{}", "[]", '{"cells": [{}]}', "not json", "[" * 100_000])
def test_invalid_documents(document):
    with pytest.raises(DataError, match="not a back-test result"):
        BacktestResult.from_json(document)


def test_the_frame_is_tidy(result):
    frame = result.frame()
    assert len(frame) == 6 * len(METRICS)
    pivot = frame[frame["metric"] == "spearman"].pivot(
        index="task_id", columns="ranker", values="score"
    )
    assert pivot.loc["b", "mine"] == 0.7


def test_unknown_names(result):
    with pytest.raises(UnknownIdError, match="the rankers are popularity, mine"):
        result.mean("theirs", "pearson")
    with pytest.raises(UnknownIdError, match="the metrics pearson"):
        result.mean("mine", "accuracy")
