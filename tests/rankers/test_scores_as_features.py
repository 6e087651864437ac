"""Transferability scores S beside d and m: a head learns what they are worth, on unseen tasks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.named_protocols import make_protocol
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.run import Run
from recsys_ms.history.store.schema import runs_to_table
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker

N_TASKS, N_MODELS = 14, 20
TASKS = [f"t{i}" for i in range(N_TASKS)]
MODELS = [f"m{j}" for j in range(N_MODELS)]


def world(seed: int = 0) -> tuple[Interactions, Catalog]:
    """Which model suits a task is known to one score, up to noise, and to nothing else."""
    rng = np.random.default_rng(seed)
    fit = rng.normal(size=(N_TASKS, N_MODELS))
    runs = runs_to_table(
        [
            Run(
                model_id=model,
                task_id=task,
                metric="accuracy",
                direction="max",
                value=float(0.5 + 0.1 * fit[i, j] / 4),
            )
            for i, task in enumerate(TASKS)
            for j, model in enumerate(MODELS)
        ]
    )
    rows = [
        {
            "task_id": task,
            "model_id": model,
            # Of a scale and level that differ from task to task.
            "logme": (i + 1) * (fit[i, j] + 0.3 * rng.normal()) + 10 * i,
            "noise": rng.normal(),
        }
        for i, task in enumerate(TASKS)
        for j, model in enumerate(MODELS)
    ]
    scores = ScoreTable(pd.DataFrame(rows))
    return Interactions.from_runs(runs.to_pandas()), Catalog.empty().with_scores(scores)


def pearson(interactions: Interactions, catalog: Catalog, ranker: str) -> float:
    result = backtest(
        interactions,
        catalog=catalog,
        protocol=make_protocol("leave-one-task-out"),
        rankers=[ranker],
        seed=0,
    )
    return float(result.to_json()["rankers"][ranker]["mean"]["pearson"])


@pytest.mark.parametrize("ranker", ["lr", "gbdt", "fm"])
def test_a_head_learns_which_score_to_trust(ranker: str) -> None:
    interactions, catalog = world()
    without = pearson(interactions, Catalog.empty(), ranker)
    with_scores = pearson(interactions, catalog, ranker)
    assert abs(without) < 0.4
    assert with_scores > 0.8


def test_a_saved_ranker_answers_alike_and_takes_scores_of_new_tasks(tmp_path: Path) -> None:
    interactions, catalog = world()
    ranker = Ranker(RankerConfig(ranker="lr")).fit(interactions, catalog)
    rng = np.random.default_rng(5)
    fit = rng.normal(size=N_MODELS)
    scores = ScoreTable.empty()
    for model, value in zip(MODELS, fit, strict=True):
        scores = scores.with_scores("new", model, {"logme": 3.0 * value, "noise": rng.normal()})
    ranker.save(tmp_path / "a")
    loaded = Ranker.load(tmp_path / "a")
    before = loaded.recommend("t3")
    np.testing.assert_array_equal(before["predicted"], ranker.recommend("t3")["predicted"])
    loaded.add_scores(scores)
    answer = loaded.recommend("new", top=None).set_index("model_id")["predicted"]
    assert np.corrcoef(answer.reindex(MODELS), fit)[0, 1] > 0.9
