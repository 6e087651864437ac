"""The posterior against closed forms and brute force, the belief against draws."""

import numpy as np
import pytest
from scipy.stats import norm

from recsys_ms.rankers.belief import Belief, greedy_maximum
from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.posterior import TaskPrior, condition
from recsys_ms.rankers.task_scale import MetricScale


def metric(center_sd: float = 1e-6, log_spread_sd: float = 1e-9, **options: object) -> MetricScale:
    return MetricScale(
        **{
            "sign": 1.0,
            "link": "identity",
            "range": (-np.inf, np.inf),
            "center": 0.0,
            "slope": 0.0,
            "center_sd": center_sd,
            "log_spread": 0.0,
            "log_spread_sd": log_spread_sd,
        }
        | options
    )


def prior(n: int = 7, k: int = 3, seed: int = 0) -> TaskPrior:
    rng = np.random.default_rng(seed)
    return TaskPrior(rng.normal(size=n), rng.normal(size=(n, k)), 0.1 + rng.random(n), np.zeros(n))


def test_with_a_known_scale_it_is_the_gaussian_conditional() -> None:
    own = prior()
    seen, rest = np.array([0, 3, 5]), np.array([1, 2, 4, 6])
    y = np.array([0.5, -1.0, 0.2])
    cov = own.loadings @ own.loadings.T + np.diag(own.noise)
    gain = cov[np.ix_(rest, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
    mean = own.mean[rest] + gain @ (y - own.mean[seen])
    left = cov[np.ix_(rest, rest)] - gain @ cov[np.ix_(seen, rest)]
    belief = condition(own.take(seen), y, metric(), OutcomeShape.normal()).believe(own.take(rest))
    np.testing.assert_allclose(belief.mean, mean, atol=1e-5)
    np.testing.assert_allclose(belief.root @ belief.root.T + np.diag(belief.noise), left, atol=1e-5)
    np.testing.assert_allclose(belief.value, mean, atol=1e-5)


def test_an_unknown_location_is_one_more_loading() -> None:
    """``c ~ N(0, t²)`` with ``s = 1`` is a loading of ``t`` on every model: closed form."""
    own, width = prior(), 0.8
    seen = np.array([0, 1, 2, 3])
    y = np.array([0.9, 0.1, 1.4, 0.3])
    wide = TaskPrior(
        own.mean, np.column_stack([np.full(7, width), own.loadings]), own.noise, own.bend
    )
    exact = condition(wide.take(seen), y, metric(), OutcomeShape.normal()).believe(wide)
    summed = condition(own.take(seen), y, metric(width), OutcomeShape.normal()).believe(own)
    predicted = summed.scale.center + summed.scale.scale * summed.value
    # Eleven locations stand in for the integral.
    np.testing.assert_allclose(predicted, exact.value, atol=0.02)
    total = np.sqrt(exact.sd**2)
    np.testing.assert_allclose(np.hypot(summed.sd, summed.between_sd), total, rtol=0.05)


def test_location_and_spread_against_numerical_integration() -> None:
    own = prior(5, 1, seed=2)
    seen = np.array([0, 1, 2])
    y = np.array([1.2, -0.3, 0.8])
    cov = own.take(seen).loadings @ own.take(seen).loadings.T + np.diag(own.noise[seen])

    # The trapezium rule on a grid, exact to 1e-12 for a density that is nothing at its edges.
    c, log_s = np.linspace(-8, 8, 801)[:, None], np.linspace(-4, 4, 401)
    s = np.exp(log_s)[None, :, None]
    miss = (y - c[..., None] - s * own.mean[seen]) / s
    told = (
        np.exp(-0.5 * np.einsum("cij,jk,cik->ci", miss, np.linalg.inv(cov), miss)) / s[..., 0] ** 3
    )
    density = told * norm(0, 1.0).pdf(c) * norm(0, 0.5).pdf(log_s)
    center = float((c * density).sum() / density.sum())
    found = condition(own.take(seen), y, metric(1.0, 0.5), OutcomeShape.normal())
    assert found.scale.center == pytest.approx(center, abs=0.06)


def test_the_shape_is_turned_around_for_what_is_observed() -> None:
    """With a known scale and no noise to speak of, an observed model is believed at its outcome."""
    rng = np.random.default_rng(0)
    shape = OutcomeShape(np.cumsum(0.02 + rng.random(41) * 0.2) - 2.0)
    own = TaskPrior(np.zeros(2), np.array([[1.0], [1.0]]), np.full(2, 1e-8), np.zeros(2))
    y = shape(np.array([0.7]))
    belief = condition(own.take(np.array([0])), y, metric(), shape).believe(own)
    np.testing.assert_allclose(belief.mean, 0.7, atol=1e-3)
    np.testing.assert_allclose(belief.predicted, y[0], atol=1e-2)


def test_nothing_observed_leaves_the_prior() -> None:
    own = prior()
    none = np.empty(0, dtype=np.int64)
    found = condition(own.take(none), np.empty(0), metric(2.0, 0.3), OutcomeShape.normal())
    belief = found.believe(own)
    np.testing.assert_allclose(belief.mean, own.mean, atol=1e-12)
    np.testing.assert_allclose(belief.sd**2, (own.loadings**2).sum(axis=1) + own.noise, atol=1e-8)
    np.testing.assert_allclose(belief.between_sd, 2.0)


def test_each_outcome_adds_in_proportion_to_its_surprise() -> None:
    own = prior()
    seen = np.array([0, 3])
    found = condition(
        own.take(seen), np.array([1.0, -1.0]), metric(1.0, 0.3), OutcomeShape.normal(),
        names=("a", "b"),
    )  # fmt: skip
    names, each = found.told
    assert names == ("a", "b")
    np.testing.assert_allclose(each.sum(axis=1), found.weight @ found.shift, atol=1e-10)


def test_observed_outcomes_narrow_the_belief() -> None:
    own = prior(30, 2, seed=4)
    widths = []
    for n in (0, 1, 3, 10, 20):
        seen = np.arange(n)
        y = own.mean[seen] + 0.5
        found = condition(own.take(seen), y, metric(2.0, 0.3), OutcomeShape.normal())
        belief = found.believe(own.take(np.arange(20, 30)))
        low, high = belief.interval(1.0)
        widths.append(float((high - low).mean()))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.6 * widths[0]


def test_draws_have_the_moments_of_the_belief() -> None:
    own = prior()
    belief = condition(
        own.take(np.array([0])), np.array([0.4]), metric(), OutcomeShape.normal()
    ).believe(own)
    drawn = belief.outcomes(belief.draws(40_000))
    np.testing.assert_allclose(drawn.mean(axis=1), belief.predicted, atol=0.03)
    wanted = belief.root @ belief.root.T + np.diag(belief.noise)
    np.testing.assert_allclose(np.cov(drawn), wanted, atol=0.06)


def test_strayed_and_interval_are_two_sides_of_one_thing() -> None:
    rng = np.random.default_rng(3)
    shape = OutcomeShape(np.cumsum(0.02 + rng.random(41) * 0.2) - 2.0)
    own = prior()
    belief = condition(own.take(np.array([0])), np.array([0.4]), metric(0.5), shape).believe(own)
    for outcome in (-2.0, 0.0, 1.5):
        strayed = belief.strayed(np.full(7, outcome))
        for widening in (0.5, 1.3):
            low, high = belief.interval(widening)
            inside = (outcome >= low) & (outcome <= high)
            np.testing.assert_array_equal(inside, strayed <= widening)


@pytest.mark.parametrize("link", ["identity", "log"])
def test_a_minimised_metric_comes_back_in_its_own_unit(link: str) -> None:
    scale = metric(0.1, 0.1, sign=-1.0, link=link, range=(-np.inf, -0.0), center=-1.0)
    own = prior(3, 1)
    belief = condition(own.take(np.arange(0)), np.empty(0), scale, OutcomeShape.normal()).believe(
        own
    )
    assert (belief.predicted <= 0.0).all()
    low, high = belief.interval(1.0)
    assert (low <= belief.predicted).all()
    assert (belief.predicted <= high).all()
    assert (high <= 0.0).all()
    # A loss may come as near to 0 as it likes; an error on its own scale ends there.
    ends = belief.draws().max() <= belief.scale.center / -belief.scale.scale + 1e-9
    assert ends == (link == "identity")


def normal_belief(mean: np.ndarray, covariance: np.ndarray) -> Belief:
    """A belief on the scale of the metric itself."""
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(mean)))
    own = TaskPrior(mean, root, np.full(len(mean), 1e-12), np.zeros(len(mean)))
    none = np.arange(0)
    return condition(own.take(none), np.empty(0), metric(), OutcomeShape.normal()).believe(own)


def test_greedy_choice_is_that_of_an_exhaustive_search() -> None:
    rng = np.random.default_rng(7)
    root = rng.normal(size=(12, 12))
    belief = normal_belief(rng.normal(size=12), root @ root.T / 12)
    drawn = belief.draws()
    chosen = greedy_maximum(drawn, belief.value, 6, best=0.2)
    reached = np.full(drawn.shape[1], 0.2)
    for pick in chosen:
        every = np.maximum(drawn - reached, 0.0).mean(axis=1)
        assert pick == every.argmax()
        reached = np.maximum(reached, drawn[pick])


def test_the_order_begins_with_the_best_mean_and_goes_on_with_what_adds() -> None:
    # 0 and 1 are one and the same; 2 is independent and a little worse.
    cov = np.array([[1.0, 1.0 - 1e-9, 0.0], [1.0 - 1e-9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    belief = normal_belief(np.array([0.3, 0.2, 0.0]), cov)
    assert np.argsort(-belief.order()).tolist() == [0, 2, 1]


def test_far_behind_the_best_the_likeliest_goes_first() -> None:
    belief = normal_belief(np.array([0.1, 0.3, 0.2]), 1e-6 * np.eye(3))
    assert np.argsort(-belief.order(best=100.0)).tolist() == [1, 2, 0]


def test_draws_end_where_the_metric_ends() -> None:
    own = prior()
    scale = metric(0.5, range=(0.0, 0.3))
    belief = condition(own.take(np.arange(0)), np.empty(0), scale, OutcomeShape.normal()).believe(
        own
    )
    scores = belief.draws()
    assert scores.max() == pytest.approx(belief.normal(0.3))
    assert belief.outcomes(scores).max() == pytest.approx(0.3)


def test_a_score_and_its_outcome_are_two_names_of_one_thing() -> None:
    rng = np.random.default_rng(5)
    shape = OutcomeShape(np.cumsum(0.02 + rng.random(41) * 0.2) - 2.0)
    own = TaskPrior.independent(np.array([0.4]), np.array([1e-12]))
    belief = condition(own.take(np.arange(0)), np.empty(0), metric(0.5), shape).believe(own)
    assert belief.normal(float(belief.predicted[0])) == pytest.approx(0.4, abs=1e-5)
