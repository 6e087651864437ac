"""The greedy portfolio: planted answers, the guarantee, and its limits."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.ranker.portfolio import portfolio_order


def picks(key: np.ndarray, k: int) -> list[int]:
    return np.argsort(-key, kind="stable")[:k].tolist()


def test_second_pick_serves_the_tasks_that_the_first_fails() -> None:
    # Models 0 and 1 are good on the first two tasks, model 2 only on the third.
    scenarios = np.array([[2.0, 1.9, -1.0], [2.0, 1.9, -1.0], [-2.0, -2.0, 2.0]])
    value = scenarios.mean(axis=0)
    assert picks(value, 2) == [0, 1]
    assert picks(portfolio_order(value, scenarios, smoothing=0.0), 2) == [0, 2]


def test_full_smoothing_is_the_order_of_the_values() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=30)
    key = portfolio_order(value, rng.normal(size=(5, 30)), smoothing=1.0)
    assert picks(key, 30) == np.argsort(-value).tolist()


def test_unknown_outcomes_count_as_the_expected_value() -> None:
    value = np.array([0.5, 0.1, 0.0])
    scenarios = np.full((2, 3), np.nan)
    assert picks(portfolio_order(value, scenarios, smoothing=0.0), 3) == [0, 1, 2]


def test_many_models_are_preselected_without_losing_the_specialist() -> None:
    rng = np.random.default_rng(1)
    value = rng.normal(size=3_000)
    scenarios = np.tile(value, (4, 1))
    specialist = int(np.argmin(value))
    scenarios[3, specialist] = 50.0
    key = portfolio_order(value, scenarios, smoothing=0.0)
    assert specialist in picks(key, 2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_greedy_is_within_the_submodular_bound_of_the_best_set(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    # Non-negative utilities, for which the 1 - 1/e bound of Nemhauser et al. (1978) is stated.
    scenarios = rng.random((4, 7))
    key = portfolio_order(np.zeros(7), scenarios, smoothing=0.0)

    def best_of(models: tuple[int, ...]) -> float:
        return float(scenarios[:, list(models)].max(axis=1).mean())

    optimum = max(best_of(chosen) for chosen in itertools.combinations(range(7), k))
    assert best_of(tuple(picks(key, k))) >= (1 - 1 / np.e) * optimum - 1e-12


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_key_is_a_permutation_and_inputs_are_untouched(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value, scenarios = rng.normal(size=12), rng.normal(size=(3, 12))
    before = value.copy(), scenarios.copy()
    key = portfolio_order(value, scenarios, smoothing=0.5)
    assert sorted(key.tolist()) == list(range(1, 13))
    np.testing.assert_array_equal(value, before[0])
    np.testing.assert_array_equal(scenarios, before[1])


def test_no_models_and_no_scenarios() -> None:
    assert portfolio_order(np.empty(0), np.empty((2, 0)), smoothing=0.5).size == 0
    assert portfolio_order(np.array([1.0, 2.0]), np.empty((0, 2)), smoothing=0.5).tolist() == [1, 2]


@pytest.mark.parametrize("depth", [1, 3])
def test_depth_ends_the_greedy_part(depth: int) -> None:
    scenarios = np.diag(np.arange(5, 0, -1.0))
    value = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    order = picks(portfolio_order(value, scenarios, smoothing=0.0, depth=depth), 5)
    assert order[:depth] == [0, 1, 2][:depth]
    assert order[depth:] == [m for m in (4, 3, 2, 1, 0) if m not in order[:depth]]
