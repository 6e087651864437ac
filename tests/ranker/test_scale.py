"""Location and spread of a task from few outcomes."""

import numpy as np
import pytest

from recsys_ms.core.state import State
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.config import RankerConfig
from recsys_ms.ranker.ranker import Ranker
from recsys_ms.ranker.scale import ScalePrior


def history(centers: list[float], scales: list[float], n_models: int = 40) -> Interactions:
    rng = np.random.default_rng(0)
    z = rng.normal(size=n_models)
    z = (z - z.mean()) / z.std()
    tasks = [f"t{i}" for i in range(len(centers)) for _ in range(n_models)]
    models = [f"m{j:02d}" for _ in centers for j in range(n_models)]
    values = np.concatenate([c + s * z for c, s in zip(centers, scales, strict=True)])
    return Interactions.from_triplets(tasks, models, values, metric="accuracy")


def test_without_observations_it_is_the_average_training_task() -> None:
    prior = ScalePrior.fit(history([0.5, 0.7, 0.9], [0.1, 0.1, 0.1]))
    scale = prior.posterior(
        "accuracy", predicted=np.empty(0), outcomes=np.empty(0), residual_sd=0.7
    )
    assert scale.center == pytest.approx(0.7)
    assert scale.scale == pytest.approx(0.1)
    # Predictive: how centers vary, and how well three of them tell their mean.
    assert scale.center_sd == pytest.approx(np.std([0.5, 0.7, 0.9], ddof=1) * np.sqrt(4 / 3))


def test_many_observations_find_the_true_center_and_the_nearest_spread() -> None:
    prior = ScalePrior.fit(history([0.5, 0.6, 0.7], [0.02, 0.1, 0.3]))
    rng = np.random.default_rng(1)
    z = rng.normal(size=200)
    outcomes = 0.8 + 0.1 * (z + 0.3 * rng.normal(size=200))
    scale = prior.posterior("accuracy", predicted=z, outcomes=outcomes, residual_sd=0.3)
    # 0.1 * 0.3 / sqrt(200) is the standard error of the center.
    assert scale.center == pytest.approx(0.8, abs=4 * 0.1 * 0.3 / np.sqrt(200))
    assert scale.scale == pytest.approx(0.1, rel=1e-3)
    assert scale.center_sd < 0.01


def test_one_observation_matches_the_gaussian_posterior_in_closed_form() -> None:
    prior = ScalePrior.fit(history([0.4, 0.8], [0.1, 0.1]))
    got = prior.posterior(
        "accuracy", predicted=np.array([1.0]), outcomes=np.array([0.9]), residual_sd=0.5
    )
    # Two centers .4 apart: unbiased variance, times 1 + 1/2 for the mean of two.
    prior_var, noise_var = 0.5 * 0.4**2 * 1.5, (0.1 * 0.5) ** 2
    gain = prior_var / (prior_var + noise_var)
    assert got.center == pytest.approx(0.6 + gain * (0.9 - 0.1 - 0.6))
    assert got.center_sd == pytest.approx(np.sqrt(prior_var * (1 - gain)))


def test_minimised_metrics_are_kept_apart_with_their_sign() -> None:
    loss = Interactions.from_triplets(
        ["a"] * 3, ["x", "y", "z"], [3.0, 2.0, 1.0], metric="loss", direction="min"
    )
    prior = ScalePrior.fit(loss)
    assert prior.metrics == ("loss",)
    assert prior.sign("loss") == -1.0
    scale = prior.posterior("loss", predicted=np.empty(0), outcomes=np.empty(0), residual_sd=1.0)
    assert scale.center == pytest.approx(-2.0)


def test_state_round_trip_is_exact() -> None:
    prior = ScalePrior.fit(history([0.5, 0.6, 0.7], [0.02, 0.1, 0.3]))
    again = ScalePrior.from_state(prior.state())
    kwargs = {
        "predicted": np.array([0.3, -1.0]),
        "outcomes": np.array([0.6, 0.5]),
        "residual_sd": 0.6,
    }
    assert prior.posterior("accuracy", **kwargs) == again.posterior("accuracy", **kwargs)


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
    assert (answer[best].iloc[0] == bound) == bool(np.isfinite(bound))
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
    assert told["predicted"].tolist() == pytest.approx([1.0, 1.0, 0.98])


def test_a_state_of_before_has_no_bounds():
    prior = ScalePrior.fit(_near_the_top())
    state = prior.state()
    old = State(
        values={k: v for k, v in state.values.items() if k != "ranges"}, arrays=state.arrays
    )
    asked = {"predicted": np.empty(0), "outcomes": np.empty(0), "residual_sd": 1.0}
    assert ScalePrior.from_state(state).posterior("accuracy", **asked).range == (0.0, 1.0)
    assert ScalePrior.from_state(old).posterior("accuracy", **asked).range == (-np.inf, np.inf)
