"""What to run next: greedy gains, budgets, the public answer."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UnknownIdError, UsageError
from recsys_ms.history.interactions import Interactions
from recsys_ms.planning import suggestion as suggest
from recsys_ms.planning.suggestion import Budget
from recsys_ms.rankers.belief import Belief
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.task_scale import TaskScale
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.question import Constraints
from recsys_ms.serving.ranker import Ranker


def costed(blocks: Interactions, costs: np.ndarray) -> Interactions:
    """The same history, each run with the cost of its model."""
    return replace(blocks, costs=costs[blocks.model_index])


def joint(mean: list[float], covariance: np.ndarray, highest: float = np.inf) -> Belief:
    """A normal belief on the scale of the metric itself."""
    root = np.linalg.cholesky(np.asarray(covariance) + 1e-14 * np.eye(len(mean)))
    scale = TaskScale(0.0, 1.0, 0.0, range=(-np.inf, highest))
    zeros = np.zeros(len(mean))
    return Belief(
        np.array(mean),
        np.array(mean),
        root,
        zeros + 1e-14,
        zeros,
        zeros,
        scale,
        OutcomeShape.normal(),
    )


def next_runs(belief: Belief, best: float | None, cost: np.ndarray, budget: Budget, **options):
    return suggest.next_runs(belief, best, cost, budget, **options)


def expected_improvement(mean: np.ndarray, sd: np.ndarray, best: float) -> np.ndarray:
    """Jones et al. 1998, Eq. 15."""
    z = (mean - best) / sd
    return (mean - best) * norm.cdf(z) + sd * norm.pdf(z)


@pytest.fixture(scope="module")
def ranker(blocks: Interactions, cards: Catalog) -> Ranker:
    return Ranker(RankerConfig(ranker="gp")).fit(blocks.without_task("t01"), cards)


def test_the_first_run_is_the_one_of_most_expected_improvement():
    mean, sd = np.array([0.5, 0.45, 0.1]), np.array([0.01, 0.3, 0.001])
    found = next_runs(joint([0.5, 0.45, 0.1], np.diag(sd**2)), 0.6, np.ones(3), Budget(n_runs=1))
    assert found.chosen.tolist() == [1]
    wanted = expected_improvement(mean, sd, 0.6)
    # 1,024 draws.
    assert found.gain[0] == pytest.approx(wanted.max(), rel=0.15)


def test_before_any_run_the_best_expected_one_goes_first():
    belief = joint([0.5, 0.45, 0.1], np.diag([0.01, 0.3, 0.001]) ** 2)
    found = next_runs(belief, None, np.ones(3), Budget(n_runs=1))
    assert found.chosen.tolist() == [0]
    # What it is expected to reach above the mean of the three.
    assert found.gain[0] == pytest.approx(0.5 - 1.05 / 3, abs=1e-3)


def test_what_all_models_share_is_no_reason_to_run_any():
    # The location of a task without runs is hardly known; no gain comes from that.
    alone = joint([0.5, 0.45, 0.1], np.eye(3) * 0.01)
    shared = replace(alone, between_sd=np.full(3, 10.0))
    first, second = (next_runs(each, 0.4, np.ones(3), Budget(n_runs=3)) for each in (alone, shared))
    assert first.chosen.tolist() == second.chosen.tolist()
    np.testing.assert_array_equal(first.gain, second.gain)


def test_nothing_is_gained_above_what_the_metric_can_be():
    mean, sd = [0.97, 0.9], np.array([0.05, 0.2])
    found = next_runs(joint(mean, np.diag(sd**2), 1.0), 0.96, np.ones(2), Budget(n_runs=2))
    # Without the bound the uncertain one would be worth more than twice the other.
    assert found.chosen.tolist() == [0, 1]
    free = next_runs(joint(mean, np.diag(sd**2)), 0.96, np.ones(2), Budget(n_runs=1))
    assert free.chosen.tolist() == [1]
    assert found.gain.sum() < 0.04
    full = next_runs(joint(mean, np.diag(sd**2), 1.0), 1.0, np.ones(2), Budget(n_runs=2))
    assert full.gain.tolist() == [0.0, 0.0]


def test_two_models_that_stand_or_fall_together_are_not_worth_two_runs():
    # 0 and 1 are one and the same; 2 is independent and a little worse.
    covariance = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = next_runs(joint([0.2, 0.19, 0.1], covariance), 0.0, np.ones(3), Budget(n_runs=3))
    assert found.chosen.tolist() == [0, 2, 1]
    assert found.gain[2] == pytest.approx(0.0, abs=1e-6)
    rng = np.random.default_rng(0)
    x, y = 0.2 + rng.normal(size=400_000), 0.1 + rng.normal(size=400_000)
    wanted = np.maximum(np.maximum(x, y), 0.0).mean()
    assert found.gain[:2].sum() == pytest.approx(wanted, rel=0.06)


def test_far_behind_the_best_nothing_is_promised_and_the_likeliest_goes_first():
    belief = joint([0.1, 0.4, 0.2, 0.3], np.eye(4) * 1e-6)
    behind = next_runs(belief, 10.0, np.ones(4), Budget(n_runs=4))
    assert behind.chosen.tolist() == [1, 3, 2, 0]
    assert behind.gain.tolist() == [0.0] * 4


def test_within_a_cost_cheap_runs_go_before_a_dear_one_of_the_same_worth():
    belief = joint([0.42, 0.4, 0.4], np.eye(3) * 0.01)
    cost = np.array([40.0, 10.0, 30.0])
    assert next_runs(belief, 0.3, cost, Budget(cost=45.0)).chosen.tolist() == [1, 2]
    assert next_runs(belief, 0.3, cost, Budget(n_runs=1, cost=1000.0)).chosen.tolist() == [0]
    assert next_runs(belief, 0.3, cost, Budget(n_runs=1)).chosen.tolist() == [0]
    assert next_runs(belief, 0.3, cost, Budget(cost=5.0)).chosen.size == 0


def test_within_a_cost_one_good_dear_run_goes_before_many_poor_cheap_ones():
    # By the second, the poor one is worth twice as much, and leaves no room for the good one.
    belief = joint([0.31, 0.9], np.eye(2) * 1e-6)
    cost = np.array([1.0, 100.0])
    found = next_runs(belief, 0.3, cost, Budget(cost=100.0))
    assert found.chosen.tolist() == [1]
    assert sorted(next_runs(belief, 0.3, cost, Budget(cost=101.0)).chosen.tolist()) == [0, 1]
    assert next_runs(belief, 0.3, cost, Budget(cost=99.0)).chosen.tolist() == [0]


def test_a_plan_without_a_number_of_runs_ends():
    belief = joint([0.0] * 300, np.eye(300))
    found = next_runs(belief, 0.0, np.ones(300), Budget(cost=1e9))
    assert found.chosen.size == suggest.MAX_PLAN


@pytest.mark.parametrize("bad", [{}, {"n_runs": 0}, {"cost": 0.0}, {"cost": float("nan")}])
def test_invalid_budgets(bad):
    with pytest.raises(UsageError, match="Budget"):
        Budget(**bad)


def test_the_answer(ranker: Ranker):
    table = ranker.suggest("t01", observed={"m00": 0.62, "m01": 0.81})
    assert len(table) == 5
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert not {"m00", "m01"} & set(table["model_id"])
    assert (table["low"] < table["predicted"]).all()
    assert (table["gain"] >= 0).all()
    assert table["expected_cost"].isna().all()
    assert all(table["reasons"])
    # Models of the task's block, told by its card, come first.
    assert all(int(model[1:]) % 3 == 1 for model in table["model_id"].iloc[:2] if model[0] == "m")
    assert ranker.suggest("t01", budget=2)["rank"].tolist() == [1, 2]


def test_what_was_run_is_not_suggested_again(blocks: Interactions, cards: Catalog):
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(blocks, cards)
    assert ranker.suggest("t01")["model_id"].tolist() == ["new-model"]
    with pytest.raises(DataError, match="every model that may be suggested for 't01' was run"):
        ranker.suggest("t01", models=["m00", "m03"])


def test_constraints_and_names_are_those_of_recommend(ranker: Ranker):
    small = ranker.suggest("t01", constraints=Constraints(max_params=2.5))
    assert (small["n_parameters"] <= 2.5e6).all()
    with pytest.raises(UnknownIdError, match="did you mean"):
        ranker.suggest("t01", observed={"m0O": 0.5})


def test_cost_aware(blocks: Interactions, cards: Catalog):
    costs = np.full(blocks.n_models, 100.0)
    costs[4] = 1.0
    costs[5] = np.nan
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(
        costed(blocks, costs).without_task("t01"), cards
    )
    table = ranker.suggest("t01", cost=250.0, observed={"m00": 0.7})
    # Two of the good ones, and what is left pays for the cheap one.
    assert len(table) == 3
    assert "m04" in table["model_id"].tolist()
    assert table["expected_cost"].sum() <= 250.0
    assert ranker.suggest("t01", cost=50.0)["model_id"].tolist() == ["m04"]
    assert ranker.suggest("t01", models=["m05"])["expected_cost"].tolist() == pytest.approx([100.0])
    with pytest.raises(DataError, match=r"no run fits into 0\.5 GPU seconds: the cheapest of"):
        ranker.suggest("t01", cost=0.5)


def test_without_costs_no_budget_of_seconds(ranker: Ranker):
    with pytest.raises(DataError, match="a budget in GPU seconds needs runs with a cost"):
        ranker.suggest("t01", cost=100.0)


def test_more_models_than_are_looked_at_jointly(blocks: Interactions):
    many = Catalog.from_cards(models=[ModelCard(model_id=f"x{i:04d}") for i in range(900)])
    ranker = Ranker(RankerConfig(ranker="popularity")).fit(blocks.without_task("t01"), many)
    told = ranker.suggest("t01", observed={"m00": 0.6})["model_id"]
    # The models that are known to be good go before 900 that nothing is known of.
    assert told.str.startswith("m").iloc[:2].all()
    assert len(told) == 5


def test_the_same_question_has_the_same_answer(ranker: Ranker, tmp_path):
    ranker.save(tmp_path / "a")
    asked = {"observed": {"m00": 0.62}, "budget": 4}
    first, again = (
        ranker.suggest("t01", **asked),
        Ranker.load(tmp_path / "a").suggest("t01", **asked),
    )
    assert first["model_id"].tolist() == again["model_id"].tolist()
    np.testing.assert_array_equal(first["gain"], again["gain"])


def test_a_plan_and_an_order_begin_with_the_same_model_whatever_the_seed() -> None:
    # Models that hardly differ: which gains most is told by the draws.
    noise = np.random.default_rng(0).normal(size=(6, 30))
    noise -= noise.mean(axis=0)
    runs = {f"t{t}": {f"m{m:02d}": noise[t, m] for m in range(30)} for t in range(6)}
    for seed in range(4):
        ranker = Ranker(RankerConfig(ranker="popularity", seed=seed)).fit(runs)
        seen = {"m03": 0.5, "m07": 1.5}
        first = ranker.recommend("new", observed=seen, top=1)["model_id"][0]
        assert ranker.suggest("new", observed=seen, budget=1)["model_id"][0] == first
