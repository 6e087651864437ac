"""Kept predictions, and whether intervals hold what they state."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest

from evaluation.planted import planted
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.executor import ProcessExecutor
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.coverage import coverage_markdown, coverage_rich, coverage_table
from recsys_ms.evaluation.protocols import LeaveOneTaskOut, Setting3
from recsys_ms.evaluation.result import PREDICTION_COLUMNS, BacktestResult
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker


def run(history=None, protocol=None, **options):
    options = {"rankers": ["popularity"], "keep": ["popularity"], "n_draws": 50} | options
    return backtest(history or planted(), protocol=protocol or LeaveOneTaskOut(), **options)


def drawn(n_tasks, n_models, *, direction="max", seed=0):
    """Tasks that are exchangeable: location, spread, skill of models and noise are drawn."""
    rng = np.random.default_rng(seed)
    skill = rng.normal(size=n_models)
    location = rng.normal(0.6, 0.1, n_tasks)
    spread = np.exp(rng.normal(-3.0, 0.3, n_tasks))
    value = location[:, None] + spread[:, None] * (skill + rng.normal(size=(n_tasks, n_models)))
    tasks = [f"t{i:03d}" for i in np.repeat(np.arange(n_tasks), n_models)]
    models = [f"m{i:02d}" for i in np.tile(np.arange(n_models), n_tasks)]
    return Interactions.from_triplets(tasks, models, value.ravel(), direction=direction)


def test_what_is_kept_is_what_the_ranker_would_answer():
    history = planted()
    kept = run(history).predictions
    assert tuple(kept.columns) == PREDICTION_COLUMNS
    task = history.task_ids[2]
    own = kept[kept["task_id"] == task].set_index("model_id")
    answer = (
        Ranker(RankerConfig(ranker="popularity"))
        .fit(history.without_task(task))
        .recommend(task, top=None)
        .set_index("model_id")
        .loc[own.index]
    )
    for name in ("predicted", "low", "high"):
        np.testing.assert_allclose(own[name], answer[name], rtol=1e-12)
    columns, outcomes = history.of_task(task)
    truth = dict(zip([history.model_ids[int(i)] for i in columns], outcomes, strict=True))
    np.testing.assert_array_equal(own["outcome"], [truth[model] for model in own.index])


def test_predictions_stand_in_the_metric_itself():
    up, down = drawn(12, 8), drawn(12, 8, direction="min")
    for history in (up, down):
        kept = run(history).predictions
        assert (kept["low"] <= kept["predicted"]).all()
        assert (kept["predicted"] <= kept["high"]).all()
        # A metric that is better when lower is not turned round: its values are positive here.
        assert np.corrcoef(kept["outcome"], kept["predicted"])[0, 1] > 0.0
        assert kept["outcome"].mean() > 0.0


def test_revealed_runs_and_hot_tasks_make_intervals_narrower():
    history = drawn(12, 12)

    def width(result):
        return coverage_table(result)["width"].iloc[0]

    cold = width(run(history))
    warm = run(history, LeaveOneTaskOut(n_observed=3))
    assert (warm.predictions["n_observed"] == 3).all()
    assert width(warm) < 0.8 * cold
    hot = run(history, Setting3(n_repeats=1))
    assert set(hot.predictions["warmth"]) == {"hot"}
    assert (hot.predictions["n_observed"] == 6).all()
    assert width(hot) < 0.8 * cold


@pytest.mark.parametrize(
    ("n_tasks", "n_observed", "coverage"),
    [
        (40, 0, 0.8),
        (40, 3, 0.5),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(40, 0, 0.5), (40, 3, 0.8), *product([60], [0, 3], [0.5, 0.8])]
        ),
    ],
)
def test_exchangeable_tasks_are_covered_as_stated(n_tasks, n_observed, coverage):
    # The time grows with the square of the tasks.
    result = run(drawn(n_tasks, 10), LeaveOneTaskOut(n_observed=n_observed), coverage=coverage)
    table = coverage_table(result)
    assert table["stated"].tolist() == [coverage]
    assert table["observed"].iloc[0] == pytest.approx(coverage, abs=0.05)
    assert table["observed_low"].iloc[0] < table["observed"].iloc[0]
    assert table["n_pairs"].iloc[0] == n_tasks * (10 - n_observed)


def test_shares_by_hand():
    cells = run().cells
    table = pd.DataFrame(
        {
            "ranker": "popularity",
            "fold": "f",
            "task_id": ["a", "a", "a", "a", "b"],
            "model_id": ["1", "2", "3", "4", "1"],
            "warmth": ["cold"] * 4 + ["warm"],
            "n_observed": [0, 0, 0, 0, 2],
            "outcome": [0.0, 1.0, 2.0, 3.0, 5.0],
            "predicted": [0.0, 1.0, 0.0, 0.0, 5.0],
            "low": [0.0, 0.0, 3.0, 4.0, 4.0],
            "high": [0.0, 1.0, 4.0, 5.0, 6.0],
        }
    )
    result = BacktestResult.from_cells(
        cells, protocol="p", rankers=("popularity",), seed=0, predictions=table, coverage=0.8
    )
    found = coverage_table(result).set_index("warmth")
    assert found.index.tolist() == ["all", "cold", "warm"]
    # Ends belong to the interval, and every task weighs the same.
    assert found["observed"].tolist() == [0.75, 0.5, 1.0]
    assert found["width"].tolist() == pytest.approx([(0.75 + 2.0) / 2, 0.75, 2.0])
    assert found["n_pairs"].tolist() == [5, 4, 1]


def test_json_keeps_predictions():
    result = run()
    again = BacktestResult.from_json(json.dumps(result.to_json()))
    assert again.coverage == 0.8
    pd.testing.assert_frame_equal(again.predictions, result.predictions)
    pd.testing.assert_frame_equal(coverage_table(again), coverage_table(result))


def test_results_of_before_have_no_predictions():
    document = run(keep=[]).to_json()
    del document["predictions"], document["coverage"]
    with pytest.raises(DataError, match="kept no predictions"):
        coverage_table(BacktestResult.from_json(document))


def test_processes_keep_the_same():
    history = drawn(6, 5)
    alone = run(history).predictions
    pd.testing.assert_frame_equal(run(history, executor=ProcessExecutor(2)).predictions, alone)


def test_keeping_changes_no_score():
    history = planted()
    kept, plain = run(history), run(history, keep=[])
    for name in ("pearson", "regret@1"):
        assert kept.mean("popularity", name) == plain.mean("popularity", name)


def test_only_what_is_compared_can_be_kept():
    with pytest.raises(UsageError, match="keep names 'nmf', which is not compared"):
        run(keep=["nmf"])


def test_the_query_alone_says_the_scale():
    # The interval of a held-out task must not know its location.
    history = drawn(10, 6)
    kept = run(history).predictions
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(history.without_task("t003"))
    value, _ = ranker.predict(TaskQuery(task_id="t003"), ["m00", "m01"])
    own = kept[kept["task_id"] == "t003"].set_index("model_id")["predicted"]
    slope = (own["m01"] - own["m00"]) / (value[1] - value[0])
    others = history.without_task("t003")
    spreads = [others.of_task(task)[1].std() for task in others.task_ids]
    assert slope == pytest.approx(np.exp(np.mean(np.log(spreads))), rel=1e-9)


def test_tables_for_people():
    table = coverage_table(run(drawn(6, 5)))
    lines = coverage_markdown(table).splitlines()
    assert lines[0] == "| ranker | tasks | pairs | stated | observed | width |"
    assert lines[2].startswith("| popularity | all (6) | 30 | 0.80 | ")
    assert coverage_rich(table).row_count == 1
