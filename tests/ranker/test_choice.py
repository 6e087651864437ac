"""Cautious choices: closed forms, and doubt that keeps the default."""

import numpy as np
import pytest
from scipy.optimize import nnls

from recsys_ms.ranker.choice import blends, cautious_best, choose_blend, order_loss


def test_the_gain_is_the_mean_less_the_standard_errors() -> None:
    base = np.zeros(4)
    other = np.array([0.1, 0.3, 0.2, 0.2])
    error = np.std(other, ddof=1) / 2
    # Chosen just below the caution at which the gain is used up, and kept out just above it.
    edge = other.mean() / error
    skill = {"base": base, "other": other}
    assert cautious_best(skill, default="base", caution=edge * 0.99) == "other"
    assert cautious_best(skill, default="base", caution=edge * 1.01) == "base"


def test_one_task_is_no_evidence() -> None:
    skill = {"base": np.array([0.0]), "other": np.array([5.0])}
    assert cautious_best(skill, default="base", caution=0.0) == "base"


def test_a_gain_below_the_least_is_not_worth_it() -> None:
    skill = {"base": np.zeros(5), "other": np.full(5, 0.01)}
    assert cautious_best(skill, default="base", caution=0.5, least=0.02) == "base"
    assert cautious_best(skill, default="base", caution=0.5, least=0.005) == "other"


def test_blends_are_convex_weights() -> None:
    found = blends(("a", "b", "c"), "a")
    assert set(found) == {"a", "b", "c", "a + b", "a + c", "all"}
    for weights in found.values():
        assert weights.sum() == pytest.approx(1.0)
        assert (weights >= 0).all()


def test_the_candidate_that_knows_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 20)
    truth = rng.normal(size=240)
    weak = 0.5 * truth + rng.normal(size=240)
    strong = truth + 0.3 * rng.normal(size=240)
    noise = rng.normal(size=240)
    weights, table = choose_blend(
        ("weak", "strong"), np.column_stack([weak, strong]), truth, group, default="weak"
    )
    assert weights[1] > 0.8 > 0.2 > weights[0] >= 0.0
    assert table["strong"] > table["weak"]
    weights, _ = choose_blend(
        ("weak", "noise"), np.column_stack([weak, noise]), truth, group, default="weak"
    )
    np.testing.assert_array_equal(weights, [1.0, 0.0])


def test_stacked_weights_are_non_negative_least_squares() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(15), 12)
    parts = rng.normal(size=(180, 3))
    truth = parts @ [0.5, 0.7, 0.0] + 0.1 * rng.normal(size=180)
    names = ("a", "b", "c")
    weights, table = choose_blend(names, parts, truth, group, default="a")
    np.testing.assert_allclose(weights, nnls(parts, truth)[0], atol=1e-5)
    assert table["stacked"] == max(table.values())


def test_stacked_weights_are_judged_by_other_groups() -> None:
    """With more candidates than rows of a group weights fit noise; the judgement is not fooled."""
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(3), 10)
    noise, truth = rng.normal(size=(30, 12)), rng.normal(size=30)
    names = tuple("abcdefghijkl")
    _, table = choose_blend(names, noise, truth, group, default="a")
    fitted = np.corrcoef(noise @ nnls(noise, truth)[0], truth)[0, 1]
    assert table["stacked"] < 0.5 * fitted


def test_rows_without_a_prediction_are_left_out() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=40)
    held_out = np.column_stack([truth, truth])
    held_out[:20] = np.nan
    _, table = choose_blend(("a", "b"), held_out, truth, np.repeat([0, 1], 20), default="a")
    assert table["a"] == pytest.approx(1.0)


def test_order_loss_is_weighted_regret_in_standard_deviations() -> None:
    outcome = np.array([0.9, 0.8, 0.5, 0.1])
    key = np.array([1.0, 2.0, 3.0, 4.0])  # worst first: 0.1, 0.5, 0.8, 0.9
    expected = (0.4 * 0.8 + 0.2 * 0.1 + 0.2 * 0.0 + 0.2 * 0.0) / outcome.std()
    assert order_loss(key, outcome) == pytest.approx(expected)
    assert order_loss(-key, outcome) == 0.0
    assert order_loss(key, np.full(4, 0.5)) == 0.0


def test_among_the_clearly_better_the_best_mean_wins() -> None:
    rng = np.random.default_rng(2)
    steady = 0.2 + 0.001 * rng.normal(size=10)
    better = 0.4 + 0.1 * rng.normal(size=10)
    doubtful = 0.6 + 2.0 * rng.normal(size=10)
    skill = {"base": np.zeros(10), "steady": steady, "better": better, "doubtful": doubtful}
    assert cautious_best(skill, default="base", caution=2.0) == "better"
