"""Joint beliefs: expected improvement, conditioning, agreement with the intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.rng import named_stream
from recsys_ms.history.interactions import Interactions
from recsys_ms.ranker.base import TaskQuery
from recsys_ms.ranker.correction import ResidualCorrection
from recsys_ms.ranker.joint import Joint, expected_improvement
from recsys_ms.ranker.names import make_ranker


@given(st.floats(-3, 3), st.floats(0.01, 3), st.floats(-3, 3))
def test_expected_improvement_is_the_integral_of_its_definition(mean, sd, best):
    density = stats.norm(mean, sd).pdf
    upper = max(best, mean) + 12 * sd
    wanted, _ = integrate.quad(
        lambda x: (x - best) * density(x), best, upper, points=[mean], limit=200
    )
    found = expected_improvement(np.array([mean]), np.array([sd]), best)[0]
    assert found == pytest.approx(wanted, abs=1e-7)


def test_a_certain_outcome_improves_by_what_it_is():
    found = expected_improvement(np.array([1.0, 3.0]), np.zeros(2), 2.0)
    np.testing.assert_array_equal(found, [0.0, 1.0])


def test_far_below_the_best_nothing_is_expected():
    assert expected_improvement(np.array([-50.0]), np.array([1.0]), 50.0)[0] == 0.0


def test_draws_have_the_moments_of_the_belief():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 2))
    joint = Joint(rng.normal(size=4), root @ root.T)
    drawn = joint.draws(200_000, named_stream(0, "x"))
    np.testing.assert_allclose(drawn.mean(axis=0), joint.mean, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), joint.covariance, atol=0.05)


def test_on_a_scale_the_mean_square_of_the_sds_is_as_wanted():
    joint = Joint(np.array([0.0, 1.0]), np.array([[1.0, 0.5], [0.5, 3.0]]))
    scaled = joint.scaled(0.6, 0.1, sd=0.2, center_sd=0.05)
    np.testing.assert_allclose(scaled.mean, [0.6, 0.7])
    assert np.sqrt(np.mean(scaled.sd**2)) == pytest.approx(0.2)
    # Less the location's part, the correlation is the belief's.
    own = scaled.covariance - 0.05**2
    assert own[0, 1] / np.sqrt(own[0, 0] * own[1, 1]) == pytest.approx(0.5 / np.sqrt(3.0))


def correction(n_tasks=7, n_models=5, noise=0.5):
    residuals = np.random.default_rng(1).normal(size=(n_tasks, n_models))
    return ResidualCorrection(residuals, np.full(4, noise))


def test_covariance_of_residuals_is_that_of_the_conditioned_process():
    ours = correction()
    v = np.mean(ours.residuals**2)
    prior = (ours.residuals.T @ ours.residuals / 7 + 0.5 * v * np.eye(5)) / 1.5
    seen, asked = np.array([1, 3]), np.array([0, 2, 4])
    # Conditioning of a normal vector whose 5 values include their own noise.
    gain = prior[np.ix_(asked, seen)] @ np.linalg.inv(prior[np.ix_(seen, seen)])
    wanted = prior[np.ix_(asked, asked)] - gain @ prior[np.ix_(seen, asked)]
    np.testing.assert_allclose(ours.covariance(asked, seen), wanted, atol=1e-12)
    # ... and the mean is the one that `expected` gives.
    residual = np.array([0.3, -1.0])
    np.testing.assert_allclose(ours.expected(seen, residual)[asked], gain @ residual, atol=1e-12)


def test_a_model_without_runs_is_independent_of_all():
    ours = correction()
    found = ours.covariance(np.array([-1, 2, -1]), np.array([1]))
    v = np.mean(ours.residuals**2)
    np.testing.assert_allclose(found[[0, 2], [0, 2]], v)
    np.testing.assert_array_equal(found[0, 1:], 0.0)
    assert ours.covariance(np.array([0]), np.array([], dtype=int)).item() > 0


def test_without_a_correction_errors_are_independent():
    ours = correction(noise=np.inf)
    v = np.mean(ours.residuals**2)
    np.testing.assert_allclose(ours.covariance(np.arange(5), np.array([0])), v * np.eye(5))


def test_a_task_does_not_explain_itself():
    ours = correction()
    without = ResidualCorrection(np.delete(ours.residuals, 2, axis=0), ours.noise)
    np.testing.assert_array_equal(
        ours.covariance(np.arange(3), np.array([4]), without_task=2),
        without.covariance(np.arange(3), np.array([4])),
    )


@pytest.mark.parametrize("name", ["popularity", "nmf", "gp", "auto"])
def test_every_ranker_believes_something(name, blocks: Interactions, cards: Catalog):
    task = "t01"
    ranker = make_ranker(name).fit(blocks.without_task(task), cards, rng=0)
    ids = [f"m{j:02d}" for j in range(6)]
    columns, outcomes = blocks.of_task(task)
    observed = {blocks.model_ids[int(j)]: float(y) for j, y in zip(columns, outcomes, strict=True)}
    queries = [
        TaskQuery(task_id=task, observed={}),
        TaskQuery(task_id=task, observed={m: observed[m] for m in ("m10", "m11", "m12")}),
    ]
    for query in queries:
        view = ranker.view(query)
        joint = ranker.joint(view, ids)
        np.testing.assert_allclose(joint.mean, ranker.predict_view(view, ids).value)
        np.testing.assert_allclose(joint.covariance, joint.covariance.T)
        assert np.linalg.eigvalsh(joint.covariance).min() > -1e-9
        assert (joint.sd > 0).all()


def test_what_was_seen_makes_the_process_surer(blocks: Interactions, cards: Catalog):
    ranker = make_ranker("gp").fit(blocks.without_task("t01"), cards, rng=0)
    ids = ["m01", "m04"]
    none = ranker.joint(ranker.view(TaskQuery(task_id="t01")), ids)
    seen = TaskQuery(task_id="t01", observed={"m07": 0.8, "m10": 0.82, "m02": 0.6})
    assert (ranker.joint(ranker.view(seen), ids).sd < none.sd).all()
