"""The Bayesian factor model: planted factors, missing values, closed forms, warm starts."""

import numpy as np
import pytest

from recsys_ms.core.errors import UsageError
from recsys_ms.learners.factor_model import FactorModel, FactorModelConfig, fit_factor_model


def planted(
    n_tasks: int = 60, n_models: int = 40, n_factors: int = 2, noise: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, loadings and a full table (n_tasks, n_models) of a model with known parameters."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=n_models)
    loadings = rng.normal(size=(n_models, n_factors)) * np.linspace(0.9, 0.6, n_factors)
    factors = rng.normal(size=(n_tasks, n_factors))
    table = level + factors @ loadings.T + noise * rng.normal(size=(n_tasks, n_models))
    return level, loadings, table


def fit(table: np.ndarray, known: np.ndarray, **options: object) -> FactorModel:
    task, model = np.nonzero(known)
    return fit_factor_model(
        task, model, table[known], n_tasks=table.shape[0], n_models=table.shape[1], **options
    )


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_planted_parameters_are_found(share: float) -> None:
    level, loadings, table = planted(n_tasks=200)
    known = np.random.default_rng(1).random(table.shape) < share
    found = fit(table, known)
    centred = found.level - found.level.mean() - (level - level.mean())
    # The level of 200 tasks is known to about the standard deviation of a task over sqrt(200).
    assert np.sqrt(np.mean(centred**2)) < 0.15
    covariance = found.loadings @ found.loadings.T
    truth = loadings @ loadings.T
    assert np.corrcoef(covariance.ravel(), truth.ravel())[0, 1] > 0.97
    assert found.noise.mean() == pytest.approx(0.09, rel=0.35)


def test_factors_without_evidence_are_switched_off() -> None:
    _, _, table = planted(n_tasks=100, n_factors=1, noise=0.3)
    found = fit(table, np.ones(table.shape, dtype=bool), config=FactorModelConfig(n_factors=5))
    sizes = np.sqrt((found.loadings**2).mean(axis=0))
    assert sizes[0] > 0.5
    assert sizes[1:].max() < 0.12
    noise = np.random.default_rng(0).normal(size=(12, 30))
    nothing = fit(noise, np.ones(noise.shape, dtype=bool))
    assert np.sqrt((nothing.loadings**2).sum(axis=1)).mean() < 0.45


def test_factors_are_centred_uncorrelated_and_of_variance_one() -> None:
    _, _, table = planted()
    found = fit(table, np.random.default_rng(2).random(table.shape) < 0.7)
    np.testing.assert_allclose(found.factors.mean(axis=0), 0.0, atol=1e-8)
    kept = found.loadings.std(axis=0) > 0.1
    gram = found.loadings[:, kept].T @ found.loadings[:, kept]
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-6 * gram.max()
    second = (found.factors[:, kept] ** 2).mean(axis=0)
    assert (second > 0.5).all()
    assert (second < 1.05).all()


def test_without_factors_levels_are_means_drawn_to_zero() -> None:
    """With one factor too many forbidden, the posterior of a level has a closed form."""
    rng = np.random.default_rng(3)
    table = rng.normal(size=12)[None, :] + 0.5 * rng.normal(size=(30, 12))
    config = FactorModelConfig(n_factors=0, tolerance=1e-9, max_rounds=500)
    found = fit(table, np.ones(table.shape, dtype=bool), config=config)
    means = table.mean(axis=0)
    # Levels shrink by n / (n + noise / variance), with the noise between .2 and .3 here.
    assert np.abs(found.level).sum() < np.abs(means).sum()
    np.testing.assert_allclose(found.level, means, atol=0.06)


def test_the_order_of_values_does_not_matter() -> None:
    _, _, table = planted(n_tasks=20, n_models=15)
    task, model = np.nonzero(np.ones(table.shape, dtype=bool))
    turned = np.random.default_rng(0).permutation(task.size)
    found = [
        fit_factor_model(task[at], model[at], table[task[at], model[at]], n_tasks=20, n_models=15)
        for at in (np.arange(task.size), turned)
    ]
    np.testing.assert_allclose(found[0].level, found[1].level, atol=1e-9)
    np.testing.assert_allclose(found[0].noise, found[1].noise, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_tiny_tables(shape: tuple[int, int]) -> None:
    table = np.arange(float(np.prod(shape))).reshape(shape)
    found = fit(table, np.ones(shape, dtype=bool))
    assert found.level.shape == (shape[1],)
    assert np.isfinite(found.level).all()
    assert np.isfinite(found.noise).all()
    assert (found.noise > 0).all()


@pytest.mark.parametrize("bad", [{"n_factors": -1}, {"tolerance": 0.0}, {"max_rounds": 0}])
def test_what_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="FactorModelConfig"):
        FactorModelConfig(**bad)
