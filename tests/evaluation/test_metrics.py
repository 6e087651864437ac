"""The metrics of one task: references (scipy, scikit-learn), closed forms, properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import ndcg_score

from recsys_ms.core.errors import DataError
from recsys_ms.evaluation.metrics import (
    HIGHER_IS_BETTER,
    METRICS,
    QUALITY_METRICS,
    spearman,
    task_metrics,
    undefined_metrics,
    weighted_tau,
)
from recsys_ms.rankers.base import Prediction


def scored(order, outcomes, value=None):
    order = np.asarray(order, dtype=float)
    return task_metrics(
        Prediction(order if value is None else np.asarray(value, dtype=float), order),
        np.asarray(outcomes, dtype=float),
    )


# Integers: distances that survive every monotone map below without rounding two into a tie.
vectors = st.integers(2, 25).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=st.integers(-50, 50).map(float))] * 2)
)


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy_and_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    outcomes = rng.normal(size=40).round(1)  # with ties
    order = outcomes + rng.normal(size=40).round(1)
    value = rng.normal(size=40)
    got = scored(order, outcomes, value)
    # Exact up to summation order.
    assert got["pearson"] == pytest.approx(stats.pearsonr(value, outcomes).statistic, abs=1e-12)
    assert got["spearman"] == pytest.approx(stats.spearmanr(order, outcomes).statistic, abs=1e-12)
    assert got["weighted_tau"] == pytest.approx(stats.weightedtau(outcomes, order).statistic)


@pytest.mark.parametrize("seed", range(5))
def test_ndcg_against_scikit_learn_without_ties(seed):
    rng = np.random.default_rng(seed)
    outcomes, order = rng.permutation(30) / 29.0, rng.normal(size=30)
    # Gains span [0, 1] already, so the min-max scaling of ours changes nothing.
    reference = ndcg_score([outcomes], [order], k=5)
    assert scored(order, outcomes)["ndcg@5"] == pytest.approx(reference, abs=1e-12)


def test_regret_by_hand():
    got = scored(order=[6, 5, 4, 3, 2, 1], outcomes=[0.2, 0.5, 0.4, 0.1, 0.3, 0.9])
    assert got["regret@1"] == pytest.approx(0.9 - 0.2)
    assert got["regret@5"] == pytest.approx(0.9 - 0.5)


def test_value_and_order_are_judged_apart():
    outcomes = np.array([1.0, 2.0, 3.0, 4.0])
    got = scored(order=-outcomes, outcomes=outcomes, value=10 + 2 * outcomes)
    assert got["pearson"] == pytest.approx(1.0)
    assert got["spearman"] == pytest.approx(-1.0)
    assert got["weighted_tau"] == pytest.approx(-1.0)
    assert got["regret@1"] == 3.0


def test_a_constant_prediction_has_no_correlation_but_a_regret():
    got = scored([0.3, 0.3, 0.3], [1.0, 2.0, 3.0])
    assert np.isnan([got["pearson"], got["spearman"], got["weighted_tau"]]).all()
    assert got["regret@1"] == 2.0  # ties go by position


def test_constant_outcomes_have_neither_correlation_nor_gain():
    got = scored([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
    assert np.isnan([got[m] for m in ("pearson", "spearman", "weighted_tau", "ndcg@5")]).all()
    assert got["regret@1"] == 0.0


def test_one_model_is_neither_ordered_nor_regretted():
    got = scored([1.0], [0.5])
    assert np.isnan([got["pearson"], got["spearman"], got["weighted_tau"], got["ndcg@5"]]).all()


@given(vectors)
def test_bounds(pair):
    order, outcomes = pair
    got = scored(order, outcomes)
    for metric in ("pearson", "spearman", "weighted_tau"):
        assert np.isnan(got[metric]) or -1.0 <= got[metric] <= 1.0
    assert np.isnan(got["ndcg@5"]) or 0.0 <= got["ndcg@5"] <= 1.0 + 1e-12
    assert 0.0 <= got["regret@5"] <= got["regret@1"] <= np.ptp(outcomes)


@given(vectors)
def test_order_metrics_see_the_order_only(pair):
    order, outcomes = pair
    one, other = scored(order, outcomes), scored(order**3 + 7.0 * order, outcomes)
    for metric in QUALITY_METRICS[1:]:
        assert other[metric] == pytest.approx(one[metric], abs=1e-12, nan_ok=True)


@given(vectors, st.floats(0.5, 20), st.floats(-5, 5))
def test_a_change_of_unit_scales_regret_and_nothing_else(pair, scale, shift):
    order, outcomes = pair
    one, other = scored(order, outcomes), scored(order, scale * outcomes + shift)
    for metric in ("pearson", "spearman", "ndcg@5"):
        assert other[metric] == pytest.approx(one[metric], abs=1e-8, nan_ok=True)
    assert other["regret@1"] == pytest.approx(scale * one["regret@1"], abs=1e-9)


@given(vectors)
def test_the_truth_is_perfect(pair):
    _, outcomes = pair
    got = scored(outcomes, outcomes)
    assert got["regret@1"] == got["regret@5"] == 0.0
    if np.ptp(outcomes) > 0:
        for metric in ("pearson", "spearman", "weighted_tau", "ndcg@5"):
            assert got[metric] == pytest.approx(1.0)


def test_weighted_tau_minds_the_top_more_than_the_bottom():
    outcomes = np.arange(10.0)
    top_swapped, bottom_swapped = outcomes.copy(), outcomes.copy()
    top_swapped[[8, 9]] = top_swapped[[9, 8]]
    bottom_swapped[[0, 1]] = bottom_swapped[[1, 0]]
    assert weighted_tau(top_swapped, outcomes) < weighted_tau(bottom_swapped, outcomes) < 1.0
    assert spearman(top_swapped, outcomes) == pytest.approx(spearman(bottom_swapped, outcomes))


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="shape"):
        scored([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="finite"):
        scored([1.0, np.nan], [1.0, 2.0])


def test_names_and_directions():
    assert set(HIGHER_IS_BETTER) == set(METRICS)
    assert set(scored([1.0, 2.0], [1.0, 2.0])) == set(QUALITY_METRICS)
    assert np.isnan(list(undefined_metrics().values())).all()


def test_inputs_are_not_changed():
    order, outcomes = np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.3, 0.2])
    scored(order, outcomes)
    assert order.tolist() == [3.0, 1.0, 2.0]
    assert outcomes.tolist() == [0.1, 0.3, 0.2]
