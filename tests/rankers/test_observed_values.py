"""Observed values pass the gate of the history, in the metric's own unit and direction."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import recsys_ms as rms
from recsys_ms.core.errors import UsageError

Ask = Callable[[rms.Ranker, dict[str, float]], object]
WAYS: dict[str, Ask] = {
    "recommend": lambda ranker, seen: ranker.recommend("new", observed=seen),
    "recommend_many": lambda ranker, seen: ranker.recommend_many(["new"], observed={"new": seen}),
    "suggest": lambda ranker, seen: ranker.suggest("new", observed=seen),
    "explain": lambda ranker, seen: ranker.explain("new", "m2", observed=seen),
    "add_task": lambda ranker, seen: ranker.add_task("added", observed=seen),
}
METRICS = {
    "accuracy": ("max", lambda model, noise: 0.5 + 0.06 * model + 0.01 * noise),
    "rmse": ("min", lambda model, noise: np.exp(0.3 * model + 0.1 * noise)),
    "my score": ("max", lambda model, noise: 0.5 + 0.06 * model + 0.01 * noise),
    "bleu": ("max", lambda model, noise: 20.0 + 3.0 * model + noise),
}


def history(metric: str) -> pd.DataFrame:
    way, value = METRICS[metric]
    noise = np.random.default_rng(0).standard_normal((8, 6))
    rows = [
        (f"t{task}", f"m{model}", float(value(model, noise[task, model])), metric, way)
        for task in range(8)
        for model in range(6)
    ]
    return pd.DataFrame(rows, columns=["task_id", "model_id", "value", "metric", "direction"])


def fitted(frame: pd.DataFrame) -> rms.Ranker:
    return rms.Ranker(rms.RankerConfig(ranker="popularity")).fit(frame)


@pytest.fixture(scope="module", params=["fitted", "loaded"])
def rankers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, rms.Ranker]:
    made = {metric: fitted(history(metric)) for metric in METRICS}
    if request.param == "fitted":
        return made
    folder = tmp_path_factory.mktemp("saved")
    for metric, ranker in made.items():
        ranker.save(folder / metric)
    return {metric: rms.Ranker.load(folder / metric) for metric in METRICS}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("accuracy", 61.0, r"'new|added'.*'m1': accuracy 61.0 is outside \[0, 1\].*mean 0.61\?"),
        ("accuracy", 1e30, r"is outside \[0, 1\]"),
        ("accuracy", -1.0, r"is outside \[0, 1\]"),
        ("rmse", -3.0, "is below 0"),
        ("my score", 61.0, "about 100 times as large as the 48 values.*did you mean 0.61"),
        ("bleu", 193.0, r"is outside \[0, 100\]"),
    ],
)
def test_an_impossible_value_is_refused(
    rankers: dict[str, rms.Ranker], way: str, metric: str, value: float, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        WAYS[way](rankers[metric], {"m1": value})
    assert "added" not in rankers[metric].task_ids


@pytest.mark.parametrize(("metric", "value"), [("rmse", 1e30), ("my score", 1e9), ("rmse", 1e9)])
def test_a_value_that_nothing_explains_moves_nothing(
    rankers: dict[str, rms.Ranker],
    metric: str,
    value: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ranker = rankers[metric]
    told = ranker.recommend("new", observed={"m1": value}, reasons=False)
    assert f"{value:g} cannot be explained by the others" in caplog.text
    others = [f"m{at}" for at in (0, 2, 3, 4, 5)]
    plain = ranker.recommend("new", models=others, reasons=False)
    pd.testing.assert_frame_equal(told, plain)


@pytest.mark.parametrize("metric", METRICS)
def test_a_task_is_added_as_it_is_recommended_for(metric: str) -> None:
    ranker = fitted(history(metric))
    known = ranker.recommend("t0", top=None)["observed"].to_numpy()
    seen = {"m1": float(np.sort(known)[2]), "m4": float(np.sort(known)[1])}
    asked = ranker.recommend("new", observed=seen, top=None, reasons=False)
    ranker.add_task("new", observed=seen, metric=metric)
    added = ranker.recommend("new", top=None, reasons=False).set_index("model_id")
    assert added["observed"].dropna().to_dict() == seen
    left = added.drop(index=list(seen)).reset_index()
    columns = ["model_id", "predicted", "low", "high"]
    pd.testing.assert_frame_equal(left[columns], asked[columns])


@pytest.mark.parametrize(
    ("metric", "wrong"),
    [("accuracy", 61.0), ("accuracy", 1e30), ("rmse", 1e30), ("my score", 1e9), ("bleu", 0.3)],
)
def test_a_wrong_run_of_the_history_moves_no_prediction(metric: str, wrong: float) -> None:
    """Case logs/08: one accuracy of 1e30 among fractions gave predictions of 1e25."""
    frame = history(metric)
    without = fitted(frame.drop(index=20)).recommend("new", top=None, reasons=False)
    frame.loc[20, "value"] = wrong
    pd.testing.assert_frame_equal(fitted(frame).recommend("new", top=None, reasons=False), without)
