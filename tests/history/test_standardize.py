"""Per-task standardisation against closed forms."""

import numpy as np
import pytest
from scipy.special import ndtri

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize


@pytest.fixture
def interactions() -> Interactions:
    return Interactions.from_triplets(
        ["a"] * 4 + ["b"] * 3 + ["c"],
        ["m1", "m2", "m3", "m4", "m1", "m2", "m3", "m1"],
        [0.1, 0.2, 0.4, 0.9, 0.5, 0.5, 0.5, 0.3],
    )


def test_zscore_has_mean_zero_and_unit_population_spread(interactions: Interactions) -> None:
    got = standardize(interactions, "zscore")
    x = np.array([0.1, 0.2, 0.4, 0.9])
    np.testing.assert_allclose(got.scores[:4], (x - x.mean()) / x.std(), rtol=1e-12)
    # A task without spread, and one with a single model, carry no order: all scores are 0.
    np.testing.assert_array_equal(got.scores[4:], 0.0)
    np.testing.assert_array_equal(got.scale[1:], 1.0)


def test_robust_uses_median_and_scaled_mad(interactions: Interactions) -> None:
    got = standardize(interactions, "robust")
    x = np.array([0.1, 0.2, 0.4, 0.9])
    mad = 1.4826 * np.median(np.abs(x - 0.3))
    np.testing.assert_allclose(got.scores[:4], (x - 0.3) / mad, rtol=1e-12)


def test_robust_falls_back_to_the_spread_when_most_values_are_equal() -> None:
    inter = Interactions.from_triplets(["a"] * 5, list("vwxyz"), [0.5, 0.5, 0.5, 0.5, 0.9])
    assert np.isfinite(standardize(inter, "robust").scores).all()
    assert standardize(inter, "robust").scores[-1] > 0


def test_rank_is_the_normal_score(interactions: Interactions) -> None:
    got = standardize(interactions, "rank").scores
    np.testing.assert_allclose(got[:4], ndtri((np.arange(1, 5) - 0.5) / 4), rtol=1e-12)
    np.testing.assert_allclose(got[4:7], 0.0, atol=1e-12)


def test_logit_is_the_zscore_of_log_odds(interactions: Interactions) -> None:
    got = standardize(interactions, "logit").scores[:4]
    x = np.array([0.1, 0.2, 0.4, 0.9])
    odds = np.log(x / (1 - x))
    np.testing.assert_allclose(got, (odds - odds.mean()) / odds.std(), rtol=1e-12)


def test_logit_refuses_what_is_no_fraction() -> None:
    inter = Interactions.from_triplets(["a", "a"], ["x", "y"], [0.5, 91.0])
    with pytest.raises(DataError, match="'a' has the outcome 91; logit"):
        standardize(inter, "logit")


def test_a_task_does_not_see_another(interactions: Interactions) -> None:
    alone = interactions.select(interactions.task_index == 0)
    for method in ("zscore", "robust", "rank", "logit", "none"):
        np.testing.assert_array_equal(
            standardize(interactions, method).scores[:4], standardize(alone, method).scores
        )


def test_unknown_method(interactions: Interactions) -> None:
    with pytest.raises(UsageError, match="choose one of none, zscore"):
        standardize(interactions, "percentile")  # type: ignore[arg-type]
