"""A small history with known structure, and its catalog, for the contract of rankers."""

from functools import cache

import numpy as np
import pandas as pd

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.history.interactions import Interactions

_N_TASKS, _N_MODELS, _N_BLOCKS = 12, 18, 3


@cache
def planted_history() -> Interactions:
    """Twelve tasks, eighteen models, three blocks: a model is better on tasks of its block."""
    rng = np.random.default_rng(0)
    pairs = [(task, model) for task in range(_N_TASKS) for model in range(_N_MODELS)]
    values = [
        0.6
        + 0.2 * (task % _N_BLOCKS == model % _N_BLOCKS)
        + 0.02 * model / _N_MODELS
        + 0.02 * rng.standard_normal()
        for task, model in pairs
    ]
    return Interactions.from_triplets(
        [f"t{task:02d}" for task, _ in pairs],
        [f"m{model:02d}" for _, model in pairs],
        values,
        metric="accuracy",
    )


@cache
def planted_catalog() -> Catalog:
    """Cards that identify the blocks, a model without runs, and every score of the package."""
    from recsys_ms.scores.methods import METHODS

    history = planted_history()
    models = [
        ModelCard(
            model_id=f"m{model:02d}",
            family=f"family{model % _N_BLOCKS}",
            n_parameters=(model + 1) * 1_000_000,
            gmacs=0.1 * (model + 1),
        )
        for model in range(_N_MODELS)
    ]
    models.append(ModelCard(model_id="new-model", family="family1", n_parameters=3_000_000))
    tasks = [
        TaskCard(task_id=f"t{task:02d}", domain=f"domain{task % _N_BLOCKS}", n_samples=1000)
        for task in range(_N_TASKS)
    ]
    rng = np.random.default_rng(1)
    scores = {name: rng.standard_normal(history.n_interactions) for name in METHODS.own}
    table = {
        "task_id": [history.task_ids[int(at)] for at in history.task_index],
        "model_id": [history.model_ids[int(at)] for at in history.model_index],
        **scores,
    }
    catalog = Catalog.from_cards(models=models, tasks=tasks)
    return catalog.with_scores(ScoreTable(pd.DataFrame(table)))
