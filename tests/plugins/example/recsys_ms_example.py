"""One ranker, one score and one reader of logs, as a package of somebody else adds them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from recsys_ms.core.errors import UsageError
from recsys_ms.core.state import Learned
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.readers.logged import (
    BadLog,
    BadLogError,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.standardize import standardize
from recsys_ms.history.store.curves import Series
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskView
from recsys_ms.scores.method import Method
from recsys_ms.scores.probe import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianConfig:
    """Settings: the quantile of a model's outcomes that it is ranked by."""

    quantile: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.quantile <= 1.0:
            raise UsageError(f"MedianConfig: quantile is {self.quantile}, expected one in [0, 1]")


class MedianRanker(BaseRanker):
    """Orders models by a quantile of their outcomes on other tasks."""

    name: ClassVar[str] = "median"
    default_config: ClassVar[MedianConfig] = MedianConfig()
    short_forms: ClassVar[Mapping[str, str]] = {":": "quantile"}

    config: MedianConfig
    _values: Learned[dict[str, float]]

    def _fit(self, interactions: Interactions, rng: np.random.Generator) -> None:
        scores = standardize(interactions, "zscore").scores
        self._values = {
            model_id: float(
                np.quantile(scores[interactions.model_index == at], self.config.quantile)
            )
            for at, model_id in enumerate(interactions.model_ids)
        }

    def _predict(self, task: TaskView, model_ids: Sequence[str]) -> Prediction:
        value = np.array([self._values.get(model_id, 0.0) for model_id in model_ids])
        return Prediction(value=value, order=value)


def _spread(probe: Probe) -> float:
    return float(np.var(probe.features, axis=0).sum())


SPREAD = Method(name="spread", title="Spread", compute=_spread, unit="squared features")


class PlainResults(LogFormat):
    """``NAME.result.json``: one finished run with its model, task and accuracies."""

    name: ClassVar[str] = "plain-results"
    wanted: ClassVar[str] = "NAME.result.json with model, task and accuracy"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The file itself, by its name."""
        return candidate.path if candidate.path.name.endswith(".result.json") else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Read the one run."""
        text = files.text(place)
        try:
            told = json.loads(text)
            model, task = str(told["model"]), str(told["task"])
            values = [float(value) for value in told["accuracy"]]
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no result: {error!r}"
            raise BadLogError(BadLog(file=place, reason=reason, raw=text)) from error
        epochs = [float(at) for at in range(len(values))]
        yield LoggedRun(
            file=str(place),
            identity=f"plain-results:{place.resolve()}",
            fields={"model_id": model, "task_id": task, "status": "finished"},
            series=(
                Series(
                    name="accuracy",
                    metric="accuracy",
                    split="test",
                    steps=[None] * len(values),
                    epochs=epochs,
                    values=values,
                    percent=False,
                ),
            ),
            chosen="accuracy",
            directions={"accuracy": "max"},
            progress=len(values),
        )
