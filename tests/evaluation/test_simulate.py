"""Replay of policies on held-out tasks."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.planted import planted, planted_catalog
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.executor import ProcessExecutor
from recsys_ms.evaluation.simulation import simulate
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize


def run(history=None, policies=("nmf",), **options):
    return simulate(history or planted(), policies=policies, **{"n_runs": 4} | options)


def blocks(n_tasks=9, n_models=12, seed=0):
    rng = np.random.default_rng(seed)
    i, j = np.indices((n_tasks, n_models)).reshape(2, -1)
    value = 0.5 + 0.3 * (i % 3 == j % 3) + 0.05 * j / n_models + 0.01 * rng.normal(size=i.size)
    return Interactions.from_triplets(
        [f"t{k}" for k in i], [f"m{k:02d}" for k in j], value, metric="accuracy"
    )


def test_popularity_by_hand():
    history = planted()
    regret = run(history).regret
    task = history.task_ids[1]
    others = history.without_task(task)
    z = others.dense(standardize(others, "zscore").scores)
    columns, outcomes = history.of_task(task)
    key = {m: np.nanmean(z[:, i]) for i, m in enumerate(others.model_ids)}
    order = sorted(range(columns.size), key=lambda i: -key[history.model_ids[int(columns[i])]])
    best = np.maximum.accumulate(outcomes[order])[:4]
    own = regret[(regret["policy"] == "popularity") & (regret["task_id"] == task)]
    assert own["n_runs"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(own["regret"], outcomes.max() - best)


def test_random_is_the_mean_over_orders():
    history = blocks()
    regret = run(history, ()).regret
    own = regret[(regret["policy"] == "random") & (regret["n_runs"] == 1)].set_index("task_id")
    _, outcomes = history.of_task("t0")
    assert own.loc["t0", "regret"] == pytest.approx(outcomes.max() - outcomes.mean(), abs=0.08)


def test_regret_falls_to_nothing_once_all_are_tried():
    regret = run(blocks(4, 5), ("popularity", "gp+ei"), n_runs=8).regret
    for _, own in regret.groupby(["policy", "task_id"]):
        assert (np.diff(own["regret"]) <= 1e-12).all()
        assert own["regret"].iloc[-1] == 0.0


@pytest.mark.parametrize("policy", ["nmf", "nmf+ei"])
def test_outcomes_that_are_told_show_the_block(policy):
    # After a run outside the task's block, a ranker that listens finds the block at once.
    table = run(blocks(), (policy,)).table(after=(4,)).set_index("policy")
    assert table.loc[policy, "mean"] < 0.05 < table.loc["popularity", "mean"]
    assert table.loc[policy, "difference_high"] < 0.0


def test_cards_of_the_held_out_task_are_known():
    history = planted()
    told = run(history, ("gp",), catalog=planted_catalog())
    assert set(told.regret["policy"]) == {"random", "popularity", "gp"}


def test_processes_replay_the_same():
    history = blocks(4, 6)
    alone = run(history, ("popularity",)).regret
    together = run(history, ("popularity",), executor=ProcessExecutor(2)).regret
    assert alone.equals(together)


def test_improvement_under_the_belief_of_a_ranker_that_knows_nothing():
    assert "random+ei" in set(run(blocks(4, 6), ("random+ei",)).regret["policy"])


def test_tables_for_people():
    lines = run(blocks(), ("gp+ei",), n_runs=3, max_tasks=4).markdown().splitlines()
    assert lines[0] == "| policy | after 1 | after 3 |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["random", "popularity", "gp+ei"]


def timed(costs):
    """``blocks()`` whose runs take ``costs`` of shape (n_tasks, n_models)."""
    history = blocks(*costs.shape)
    return replace(history, costs=costs[history.task_index, history.model_index])


def test_budgets_of_gpu_seconds_by_hand():
    # Half of the models take three seconds, the others one: an average run takes two.
    history = timed(np.where(np.arange(12) % 2 == 0, 3.0, 1.0) * np.ones((9, 1)))
    regret = run(history, ("popularity",), budgets=(0.25, 1.0, 2.0)).regret
    own = regret[regret["policy"] == "popularity"].pivot(
        index="task_id", columns="n_runs", values="regret"
    )
    _, outcomes = history.of_task("t4")
    others = history.without_task("t4")
    key = np.nanmean(others.dense(standardize(others, "zscore").scores), axis=0)
    cost = np.where(np.arange(12) % 2 == 0, 1.5, 0.5)

    def reached(budget):
        best = outcomes.min()
        for model in np.argsort(-key):
            if cost[model] <= budget:
                best, budget = max(best, outcomes[model]), budget - cost[model]
        return outcomes.max() - best

    assert own.loc["t4"].tolist() == pytest.approx([reached(b) for b in (0.25, 1.0, 2.0)])
    assert own.loc["t4", 0.25] == outcomes.max() - outcomes.min()


def test_a_plan_knows_what_runs_take():
    # All models of the block are as good; one of them takes a hundredth of the others.
    costs = np.full((9, 12), 100.0)
    costs[:, 9:] = 1.0
    table = run(timed(costs), ("popularity", "popularity+plan"), budgets=(0.5,)).table((0.5,))
    mean = table.set_index("policy")["mean"]
    assert mean["popularity+plan"] < 0.06
    assert (
        run(timed(costs), ("nmf",), budgets=(0.5, 2))
        .markdown((0.5, 2))
        .startswith("| policy | cost of 0.5 | cost of 2 |")
    )


def test_a_run_that_takes_more_than_was_left_does_not_count():
    costs = np.ones((9, 12))
    costs[2] = 0.01
    costs[2, 0] = 50.0
    history = timed(costs)
    regret = run(history, ("popularity",), budgets=(1.5,)).regret
    # On t2 an average run takes about four; the first of the order takes 50.
    own = regret[(regret["task_id"] == "t2") & (regret["policy"] == "popularity")]
    _, outcomes = history.of_task("t2")
    assert own["regret"].iloc[0] >= 0.0
    assert own["regret"].iloc[0] <= outcomes.max() - outcomes.min()


def test_invalid_costs_and_budgets():
    with pytest.raises(DataError, match="no run of the history has a cost"):
        run(budgets=(1.0,))
    with pytest.raises(UsageError, match="plan for GPU seconds"):
        run(policies=("nmf+plan",))
    with pytest.raises(UsageError, match="expected positive"):
        run(timed(np.ones((9, 12))), budgets=(1.0, 0.0))


def test_invalid_arguments():
    with pytest.raises(UsageError, match="n_runs is 0"):
        run(n_runs=0)
    with pytest.raises(UsageError, match="nmfx"):
        run(policies=("nmfx+ei",))
    with pytest.raises(DataError, match="other tasks"):
        run(blocks(1, 4), ())
