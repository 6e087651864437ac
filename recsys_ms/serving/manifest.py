"""What a trained ranker says of itself."""

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as library_version

from recsys_ms.core.types import JsonDict
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker
from recsys_ms.serving.config import RankerConfig


def trained_manifest(
    config: RankerConfig,
    interactions: Interactions,
    base: BaseRanker,
    *,
    history_version: int | None,
) -> JsonDict:
    """Settings, size of the training data, metrics, features, time and versions."""
    return {
        "ranker": config.spec,
        "config": asdict(config),
        "history_version": history_version,
        "n_tasks": interactions.n_tasks,
        "n_models": interactions.n_models,
        "n_interactions": interactions.n_interactions,
        "directions": {
            metric: "max" if sign > 0 else "min"
            for metric, sign in zip(interactions.metrics, interactions.signs, strict=True)
        },
        "features": base.feature_names(),
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{
                name: library_version(name)
                for name in ("recsys-ms", "numpy", "scipy", "lightgbm", "scikit-learn")
            },
        },
    }
