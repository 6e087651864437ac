"""Location and spread of a task from few outcomes."""

import numpy as np
import pytest

from recsys_ms.history.interactions import Interactions
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
