"""Location and spread of a task from few outcomes."""

import numpy as np
import pytest

from recsys_ms.core.errors import DataError
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.posterior import TaskPrior, condition
from recsys_ms.rankers.task_scale import ScalePrior, TaskScale
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker


def history(centers: list[float], scales: list[float], n_models: int = 40) -> Interactions:
    rng = np.random.default_rng(0)
    z = rng.normal(size=n_models)
    z = (z - z.mean()) / z.std()
    tasks = [f"t{i}" for i in range(len(centers)) for _ in range(n_models)]
    models = [f"m{j:02d}" for _ in centers for j in range(n_models)]
    values = np.concatenate([c + s * z for c, s in zip(centers, scales, strict=True)])
    # Of an accuracy, values above 1 would be left out.
    return Interactions.from_triplets(tasks, models, values, metric="score")


def believed(
    prior: ScalePrior, expected: np.ndarray, outcomes: np.ndarray, noise: float
) -> TaskScale:
    """Location and spread by outcomes of models that nothing moves together."""
    own = TaskPrior.independent(expected, np.full(expected.size, noise**2))
    metric = prior.of_metric("score", outcomes)
    return condition(own, outcomes, metric, OutcomeShape.normal()).scale


def test_without_observations_it_is_the_average_training_task() -> None:
    prior = ScalePrior.fit(history([0.5, 0.7, 0.9], [0.1, 0.1, 0.1]))
    scale = believed(prior, np.empty(0), np.empty(0), 0.7)
    assert scale.center == pytest.approx(0.7)
    assert scale.scale == pytest.approx(0.1)
    # Predictive: how centers vary, and how well three of them tell their mean.
    assert scale.center_sd == pytest.approx(np.std([0.5, 0.7, 0.9], ddof=1) * np.sqrt(4 / 3))


def test_many_observations_find_the_true_center_and_spread() -> None:
    prior = ScalePrior.fit(history([0.5, 0.6, 0.7, 0.65], [0.02, 0.1, 0.3, 0.1]))
    rng = np.random.default_rng(1)
    z = rng.normal(size=200)
    outcomes = 0.8 + 0.1 * (z + 0.3 * rng.normal(size=200))
    scale = believed(prior, z, outcomes, 0.3)
    # 0.1 * 0.3 / sqrt(200) is the standard error of the center.
    assert scale.center == pytest.approx(0.8, abs=6 * 0.1 * 0.3 / np.sqrt(200))
    assert scale.scale == pytest.approx(0.1, rel=0.3)
    assert scale.center_sd < 0.01


def test_one_observation_matches_the_gaussian_posterior_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    centers = 0.6 + 0.1 * rng.normal(size=30)
    prior = ScalePrior.fit(history(centers.tolist(), [0.1] * 30))
    got = believed(prior, np.array([1.0]), np.array([0.9]), 0.5)
    variance, noise = centers.var(ddof=1) * (1 + 1 / 30), (0.1 * 0.5) ** 2
    gain = variance / (variance + noise)
    # Spreads of a tenth more or less are thought possible.
    wanted = centers.mean() + gain * (0.9 - 0.1 - centers.mean())
    assert got.center == pytest.approx(wanted, abs=0.01)
    assert got.center_sd == pytest.approx(np.sqrt(variance * (1 - gain)), rel=0.15)


def test_minimised_metrics_are_kept_apart_with_their_sign() -> None:
    loss = Interactions.from_triplets(
        ["a"] * 3, ["x", "y", "z"], [3.0, 2.0, 1.0], metric="loss", direction="min"
    )
    prior = ScalePrior.fit(loss)
    assert prior.metrics == ("loss",)
    assert prior.sign("loss") == -1.0
    scale = prior.of_metric("loss", np.empty(0)).usual
    # A loss is compared by its logarithm: the geometric mean, lower is better.
    assert scale.link == "log"
    assert scale.outcome(np.array([scale.center]))[0] == pytest.approx(-(6.0 ** (1 / 3)))


def test_one_task_that_diverged_does_not_hide_the_others() -> None:
    """RMSE on any scale: what popularity says does not hang on the largest values."""
    rows = [(t, m, 10.0**t * (1.0 + 0.1 * m + 50.0 * (t == 3 and m == 0)))
            for t in range(6) for m in range(5)]  # fmt: skip
    inter = Interactions.from_triplets(
        [f"t{t}" for t, _, _ in rows],
        [f"m{m}" for _, m, _ in rows],
        [value for *_, value in rows],
        metric="rmse",
        direction="min",
    )
    told = Ranker(RankerConfig(ranker="popularity")).fit(inter).recommend("new", top=None)
    assert told["model_id"].tolist()[-1] == "m4"
    assert (told["low"] <= told["predicted"]).all()
    assert (told["predicted"] <= told["high"]).all()
    assert (told["low"] > 0).all()


def test_a_value_that_has_no_logarithm_is_refused() -> None:
    inter = Interactions.from_triplets(
        ["a", "a", "b", "b"], ["x", "y"] * 2, [3.0, 2.0, 1.0, 4.0], metric="loss", direction="min"
    )
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(inter)
    with pytest.raises(DataError, match="compared by its logarithm"):
        ranker.recommend("new", observed={"x": 0.0})


def test_state_round_trip_is_exact() -> None:
    prior = ScalePrior.fit(history([0.5, 0.6, 0.7], [0.02, 0.1, 0.3]))
    again = ScalePrior.from_state(prior.state())
    asked = (np.array([0.3, -1.0]), np.array([0.6, 0.5]), 0.6)
    assert believed(prior, *asked) == believed(again, *asked)


def _near_the_top(metric: str = "accuracy", unit: float = 1.0, direction: str = "max"):
    rng = np.random.default_rng(1)
    i, j = np.indices((8, 10)).reshape(2, -1)
    value = np.clip(0.9 + 0.012 * j + 0.05 * rng.normal(size=i.size), 0.2, 0.999)
    value = value if direction == "max" else 1.0 - value
    return Interactions.from_triplets(
        [f"t{k}" for k in i],
        [f"m{k}" for k in j],
        value * unit,
        metric=metric,
        direction=direction,
    )


@pytest.mark.parametrize(
    ("metric", "unit", "direction", "lowest", "highest"),
    [
        ("accuracy", 1.0, "max", 0.0, 1.0),
        ("accuracy", 100.0, "max", 0.0, np.inf),
        ("goodness", 1.0, "max", -np.inf, np.inf),
        ("top1_error", 1.0, "min", 0.0, np.inf),
    ],
)
def test_answers_are_what_the_metric_can_be(metric, unit, direction, lowest, highest, tmp_path):
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(_near_the_top(metric, unit, direction))
    answer = ranker.recommend("new", top=None)
    worst, best = ("low", "high") if direction == "max" else ("high", "low")
    values = answer[["low", "predicted", "high"]].to_numpy()
    assert values.min() >= lowest
    assert values.max() <= highest
    assert (np.diff(values, axis=1) >= 0).all()
    # A bound cuts the interval of the best model, and only where there is one.
    bound = highest if direction == "max" else lowest
    # A logarithm only comes near it.
    reached = np.isclose(answer[best].iloc[0], bound, rtol=0, atol=1e-3 * unit)
    assert reached == bool(np.isfinite(bound))
    assert answer[worst].iloc[0] != bound
    ranker.save(tmp_path / "a")
    again = Ranker.load(tmp_path / "a").recommend("new", top=None)
    np.testing.assert_array_equal(again[["low", "predicted", "high"]].to_numpy(), values)


def test_no_gain_is_promised_above_the_best_there_can_be():
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(_near_the_top())
    suggested = ranker.suggest("new", observed={"m0": 0.97}, budget=9)
    assert 0.0 < suggested["gain"].sum() <= 0.03


def test_models_at_the_best_there_can_be_keep_their_order():
    # Each model is .03 better than the one before; on t0 the best two were not run.
    rows = [(i, j, 0.55 + 0.05 * i + 0.03 * j) for i in range(5) for j in range(9)]
    rows += [(5, j, 0.8 + 0.03 * j) for j in range(7)]
    history = Interactions.from_triplets(
        [f"t{i}" for i, _, _ in rows],
        [f"m{j}" for _, j, _ in rows],
        [value for *_, value in rows],
        metric="accuracy",
    )
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(history)
    told = ranker.recommend("t5", top=3)
    assert told["model_id"].tolist() == ["m8", "m7", "m6"]
    assert told["predicted"].tolist() == pytest.approx([1.0, 1.0, 0.98], abs=0.01)
    assert told["predicted"].max() <= 1.0
