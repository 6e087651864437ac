"""Replay of policies on held-out tasks."""

import numpy as np
import pytest

from evaluation.planted import planted, planted_catalog
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.executor import ProcessExecutor
from recsys_ms.evaluation.simulate import simulate
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


def test_tables_for_people():
    lines = run(blocks(), ("gp+ei",), n_runs=3, max_tasks=4).markdown().splitlines()
    assert lines[0] == "| policy | after 1 | after 3 |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["random", "popularity", "gp+ei"]


def test_what_cannot_be_meant():
    with pytest.raises(UsageError, match="n_runs is 0"):
        run(n_runs=0)
    with pytest.raises(UsageError, match="nmfx"):
        run(policies=("nmfx+ei",))
    with pytest.raises(DataError, match="other tasks"):
        run(blocks(1, 4), ())
