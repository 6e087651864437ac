"""The back-test: rows, truth, failures, seeds, executors."""

import logging

import numpy as np
import pytest

from evaluation.planted import (
    BASELINES,
    BrokenRanker,
    ObservedRanker,
    planted,
    planted_catalog,
    planted_runs,
)
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.executor import ProcessExecutor
from recsys_ms.core.ranking_metrics import pearson
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.protocols import LeaveOneTaskOut, Setting1, UnseenModels
from recsys_ms.evaluation.temporal import Temporal
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize

RANKERS = {**BASELINES, "observed": ObservedRanker}


def run(protocol=None, history=None, rankers=RANKERS, **options):
    return backtest(
        planted() if history is None else history,
        protocol=protocol or LeaveOneTaskOut(),
        rankers=rankers,
        n_draws=200,
        **options,
    )


def timeless(result):
    frame = result.frame()
    return frame[frame["metric"] != "seconds"].reset_index(drop=True)


def test_rows_and_their_order():
    assert run().rankers == ("popularity", "random", "static", "observed", "oracle")


def test_popularity_by_hand():
    history = planted()
    z = history.dense(standardize(history, "zscore").scores)
    got = run().per_task("popularity")
    for row, task in enumerate(history.task_ids):
        own, outcomes = history.of_task(task)
        predicted = np.nanmean(np.delete(z, row, axis=0), axis=0)[own]
        assert got[task]["pearson"] == pytest.approx(pearson(predicted, outcomes), abs=1e-12)


def test_the_oracle_is_perfect_and_the_planted_quality_is_found():
    result = run()
    assert result.mean("oracle", "pearson") == pytest.approx(1.0)
    assert result.mean("oracle", "regret@1") == 0.0
    assert result.mean("popularity", "spearman") > 0.7
    assert abs(result.mean("random", "spearman")) < 0.5
    assert result.mean("popularity", "regret@1") < result.mean("random", "regret@1")


def test_a_failing_ranker_is_noted_and_ends_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        result = run(rankers={**RANKERS, "broken": BrokenRanker})
    assert {(x.ranker, x.task_id, x.failure) for x in result.failures} == {
        ("broken", "task-1", "fit: ValueError: no task-1 to learn from"),
        ("broken", "task-2", "predict: RuntimeError: speechless"),
    }
    assert len(caplog.records) == 2
    assert np.isnan(result.per_task("broken")["task-1"]["regret@1"])
    assert result.summaries["broken"].n_defined["pearson"] == 4
    assert result.summaries["broken"].difference["pearson"].n == 4
    assert result.mean("popularity", "pearson") == run().mean("popularity", "pearson")


def test_processes_answer_as_one_process_does():
    rankers = {**RANKERS, "broken": BrokenRanker}
    here = run(rankers=rankers, catalog=planted_catalog())
    there = run(rankers=rankers, catalog=planted_catalog(), executor=ProcessExecutor(2))
    assert timeless(there).equals(timeless(here))
    assert [x.failure for x in there.failures] == [x.failure for x in here.failures]


def test_answers_do_not_depend_on_other_rankers_or_their_order():
    alone = timeless(run(rankers=BASELINES))
    swapped = timeless(run(rankers={"observed": ObservedRanker, **BASELINES}))
    both = timeless(run())
    assert swapped.equals(both)
    kept = both[both["ranker"] != "observed"].reset_index(drop=True)
    assert kept.equals(alone)


def test_another_seed_is_another_chance():
    same, other = run(), run(seed=1)
    assert timeless(run()).equals(timeless(same))
    assert other.mean("random", "pearson") != same.mean("random", "pearson")
    assert other.mean("popularity", "pearson") == same.mean("popularity", "pearson")


def test_revealed_runs_reach_the_ranker_and_are_not_tested():
    result = run(LeaveOneTaskOut(n_observed=3))
    assert {cell.warmth for cell in result.cells} == {"warm"}
    assert {cell.n_observed for cell in result.cells} == {3}
    assert result.settings == {"n_observed": 3, "max_tasks": None}


def test_temporal_reports_cold_and_hot_apart():
    runs = planted_runs()
    result = run(Temporal(runs=runs, fractions=(0.7,)), Interactions.from_runs(runs))
    assert set(result.scenarios) == {"cold", "hot"}
    assert {cell.warmth for cell in result.cells} == {"cold", "hot"}


def test_one_task_is_resampled_over_folds():
    history = Interactions.from_triplets(
        ["t"] * 30, [f"m{i:02d}" for i in range(30)], np.arange(30.0)
    )
    result = run(UnseenModels(n_repeats=4), history)
    assert result.unit == "fold"
    assert result.summaries["random"].n_defined["pearson"] == 4
    # Without runs on other tasks popularity knows nothing of an unseen model.
    assert np.isnan(result.mean("popularity", "pearson"))


def test_progress_is_updated_after_every_fold():
    class Heard:
        def track(self, items, *, total, description):
            self.total, self.description, self.n = total, description, 0
            for item in items:
                self.n += 1
                yield item

    heard = Heard()
    run(progress=heard)
    assert (heard.total, heard.n) == (6, 6)
    assert "leave-one-task-out" in heard.description


def test_registered_names_are_resolved():
    result = run(rankers=["lr", "popularity", "oracle"], history=planted(n_tasks=3))
    assert result.rankers == ("popularity", "random", "static", "lr", "oracle")
    assert not result.failures
    assert result.mean("lr", "seconds") > 0.0


def test_a_wrong_name_ends_it_before_the_first_fold():
    class Unsplittable(LeaveOneTaskOut):
        def folds(self, interactions, catalog, *, seed):
            raise AssertionError("a fold was asked for")

    with pytest.raises(UsageError, match="'popularty'"):
        run(Unsplittable(), rankers=["popularty"])


def test_nothing_to_test():
    history = Interactions.from_triplets(["t", "u"], ["a", "b"], [1.0, 2.0])
    with pytest.raises(DataError, match="nothing to test"):
        run(history=history)


def test_invalid_arguments():
    with pytest.raises(UsageError, match="oracle"):
        run(rankers={**RANKERS, "oracle": ObservedRanker})
    with pytest.raises(UsageError, match="sequence of names"):
        run(rankers="popularity")
    with pytest.raises(UsageError, match="cannot be sent"):
        run(rankers={**RANKERS, "mine": lambda: ObservedRanker()}, executor=ProcessExecutor(1))


def test_tasks_left_out_are_listed():
    tasks = ["a"] * 4 + ["b"] * 4 + ["c"]
    history = Interactions.from_triplets(tasks, [*"wxyz", *"wxyz", "w"], np.arange(9.0))
    result = run(history=history)
    assert [(x.fold, x.task_id) for x in result.left_out] == [("c", "c")]
    assert result.tasks == ("a", "b")


def test_settings_1_popularity_is_undefined_not_zero():
    result = run(Setting1(n_repeats=1))
    assert np.isnan(result.mean("popularity", "pearson"))
    assert result.summaries["popularity"].n_defined["pearson"] == 0
    assert result.mean("popularity", "regret@1") >= 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"coverage": 5.0}, r"coverage is 5\.0, expected a share between 0 and 1"),
        ({"coverage": -1.0}, r"coverage is -1\.0, expected"),
        ({"seed": -1}, "seed is -1, expected a whole number of at least 0"),
    ],
)
def test_settings_outside_their_range(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        run(**wrong)
