"""Histories with a known answer, and small real rankers, shared by the tests of evaluation."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.state import Learned
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskView
from recsys_ms.rankers.popularity import PopularityRanker, RandomRanker

BASELINES = {"popularity": PopularityRanker, "random": RandomRanker}


def planted_runs(n_tasks: int = 6, n_models: int = 12, *, density: float = 0.9, seed: int = 0):
    """Runs of models that have one quality everywhere, and some noise, over some months."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=n_models)
    rows = []
    for task in range(n_tasks):
        for model in range(n_models):
            if rng.random() > density:
                continue
            score = 0.7 + 0.05 * quality[model] + 0.02 * task + rng.normal(scale=0.02)
            rows.append(
                {
                    "task_id": f"task-{task}",
                    "model_id": f"model-{model:02d}",
                    "metric": "accuracy",
                    "direction": "max",
                    "value": float(np.clip(score, 0.05, 0.95)),
                    "status": "finished",
                }
            )
    runs = pd.DataFrame(rows)
    # Tasks start one after the other and overlap: a cut meets some of them half done.
    start = pd.Timestamp("2026-01-01", tz="UTC")
    day = runs["task_id"].str[5:].astype(int) * n_models // 2 + rng.permutation(n_models).take(
        runs["model_id"].str[6:].astype(int)
    )
    return runs.assign(finished_at=start + pd.to_timedelta(day * 24, unit="h"))


def planted(n_tasks: int = 6, n_models: int = 12, **options) -> Interactions:
    return Interactions.from_runs(planted_runs(n_tasks, n_models, **options))


def planted_catalog(n_tasks: int = 6, n_models: int = 12) -> Catalog:
    """Cards with what every head can read: sizes, families, classes."""
    return Catalog.from_cards(
        models=[
            ModelCard(
                model_id=f"model-{model:02d}",
                family=f"family-{model % 4}",
                architecture=f"net{model % 4}",
                n_parameters=10**6 * (1 + model),
                gmacs=0.1 * (1 + model),
                input_size=224,
                pretrained_domain="imagenet",
            )
            for model in range(n_models)
        ],
        tasks=[
            TaskCard(task_id=f"task-{task}", n_samples=1000 * (task + 1), n_classes=10 + task)
            for task in range(n_tasks)
        ],
    )


class ObservedRanker(BaseRanker):
    """Popularity, moved by what the query reveals: reads every input a ranker may read."""

    name: ClassVar[str] = "observed"

    mean_: Learned[dict[str, float]]
    noise_: Learned[float]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        scores = standardize(interactions, "zscore").scores
        self.mean_ = {
            model_id: float(scores[interactions.model_index == i].mean())
            for i, model_id in enumerate(interactions.model_ids)
        }
        self.noise_ = float(rng.normal(scale=1e-9))

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        shift = float(task.observed_scores.mean()) if task.observed_ids else 0.0
        value = np.array([self.mean_.get(m, shift) + self.noise_ for m in model_ids])
        return Prediction(value=value, order=value)


class BrokenRanker(ObservedRanker):
    """Fails to fit wherever task-1 is held out, and to answer about task-2."""

    name: ClassVar[str] = "broken"

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        if "task-1" not in interactions.task_ids:
            raise ValueError("no task-1 to learn from")
        super()._fit(interactions, rng)

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        if task.task_id == "task-2":
            raise RuntimeError("speechless")
        return super()._predict(task, model_ids)
