"""Small planted histories that the ranker tests share."""

import numpy as np
import pytest

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.history.interactions import Interactions

N_BLOCKS = 3


def block_history(
    n_tasks: int = 12, n_models: int = 18, *, noise: float = 0.02, seed: int = 0
) -> Interactions:
    """Models of block b do well on tasks of block b and alike elsewhere; all else is noise."""
    rng = np.random.default_rng(seed)
    tasks = [f"t{i:02d}" for i in range(n_tasks) for _ in range(n_models)]
    models = [f"m{j:02d}" for _ in range(n_tasks) for j in range(n_models)]
    values = [
        0.6
        + 0.2 * (i % N_BLOCKS == j % N_BLOCKS)
        + 0.02 * (j / n_models)
        + noise * rng.standard_normal()
        for i in range(n_tasks)
        for j in range(n_models)
    ]
    return Interactions.from_triplets(tasks, models, values, metric="accuracy")


def block_catalog(n_tasks: int = 12, n_models: int = 18) -> Catalog:
    """Cards that tell the block of every task and model, and one model without runs."""
    models = [
        ModelCard(
            model_id=f"m{j:02d}",
            family=f"family{j % N_BLOCKS}",
            n_parameters=(j + 1) * 1_000_000,
            gmacs=0.1 * (j + 1),
            licence="Apache-2.0" if j % 2 else "cc-by-nc-4.0",
        )
        for j in range(n_models)
    ]
    models.append(ModelCard(model_id="new-model", family="family1", n_parameters=3_000_000))
    tasks = [
        TaskCard(task_id=f"t{i:02d}", domain=f"domain{i % N_BLOCKS}", n_samples=1000, n_classes=10)
        for i in range(n_tasks)
    ]
    return Catalog.from_cards(models=models, tasks=tasks)


@pytest.fixture(scope="session")
def blocks() -> Interactions:
    return block_history()


@pytest.fixture(scope="session")
def cards() -> Catalog:
    return block_catalog()
