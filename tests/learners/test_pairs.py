"""The Gaussian process over pairs: gradients, conditioning and what it does not know."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.cold_start.model_entities import ModelEntities
from recsys_ms.learners.gaussian.pairs import (
    BOUNDS,
    ITSELF,
    MAX_ITERATIONS,
    Entities,
    Pairs,
    pair_evidence,
    pair_kernel,
)
from recsys_ms.learners.gaussian.process import Process, fit
from recsys_ms.learners.gaussian.vectors import median_distance


def entities(n_tasks=6, n_models=5, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n_tasks, 3))
    images[2] = np.nan
    tasks = Entities(
        ids=tuple(f"t{i}" for i in range(n_tasks)),
        labels={},
        vectors={"images": images, "names": rng.standard_normal((n_tasks, 2))},
    )
    models = Entities(
        ids=tuple(f"m{j}" for j in range(n_models)),
        labels={"source": ("a", "a", "b", None, None)},
        vectors={"archi2vec": rng.standard_normal((n_models, 2))},
    )
    return tasks, models


def pairs(seed=0, n_scores=2):
    tasks, models = entities(seed=seed)
    task, model = np.divmod(np.arange(30), 5)
    scores = np.random.default_rng(seed + 1).standard_normal((30, n_scores))
    return Pairs(tasks=tasks, models=models, task=task, model=model, scores=scores)


@pytest.fixture
def kernel():
    return pair_kernel(("images", "names"), (ITSELF, "source", "archi2vec"), 2)


def settings(kernel, seed=0):
    """Logarithms of settings around the start of the search."""
    evidence = pair_evidence(kernel, pairs(), np.zeros(30))
    at = evidence.first + 0.5 * np.random.default_rng(seed).standard_normal(len(evidence.names))
    return dict(zip(evidence.names, at.tolist(), strict=True))


def covariance(kernel, logs, left, right):
    return kernel(logs, left.compare(right))


def test_the_gradient_is_that_of_differences(kernel):
    at = np.array(list(settings(kernel).values()))
    evidence = pair_evidence(kernel, pairs(), np.random.default_rng(2).standard_normal(30))
    error = check_grad(lambda x: evidence(x)[0], lambda x: evidence(x)[1], at)
    assert error < 1e-5 * np.linalg.norm(evidence(at)[1])


def test_the_likelihood_is_scipys(kernel):
    rows, logs = pairs(), settings(kernel)
    target = np.random.default_rng(2).standard_normal(30)
    noisy = covariance(kernel, logs, rows, rows) + np.exp(logs["noise"]) * np.eye(30)
    evidence = pair_evidence(kernel, rows, target)
    at = np.array(list(logs.values()))
    prior = 0.5 * float((((at - evidence.first) / 2.5) ** 2).sum())
    expected = -multivariate_normal(np.zeros(30), noisy).logpdf(target)
    constant = 0.5 * 30 * np.log(2.0 * np.pi)
    assert evidence(at)[0] + constant == pytest.approx(expected + prior, rel=1e-6)


def test_a_covariance_by_hand(kernel):
    rows = pairs()
    logs = settings(kernel)
    value = {name: np.exp(log) for name, log in logs.items()}
    a, b = 0, 6  # t0 m0 and t1 m1: other tasks, other models of one source
    d = rows.tasks.vectors
    near = np.exp(
        -0.5 * ((d["images"][0] - d["images"][1]) ** 2).sum() / value["length images"] ** 2
    )
    near += value["view names"] * np.exp(
        -0.5 * ((d["names"][0] - d["names"][1]) ** 2).sum() / value["length names"] ** 2
    )
    archi = rows.models.vectors["archi2vec"]
    alike = {"source": 1.0, "archi2vec": np.exp(-0.5 * ((archi[0] - archi[1]) ** 2).sum())}
    expected = sum((value[f"main {n}"] + near * value[f"shared {n}"]) * k for n, k in alike.items())
    expected += value["score"] * float(rows.scores[a] @ rows.scores[b]) / 2
    assert covariance(kernel, logs, rows, rows)[a, b] == pytest.approx(expected)


def test_covariances_are_positive_definite(kernel):
    rows = pairs()
    for seed in range(5):
        values = np.linalg.eigvalsh(covariance(kernel, settings(kernel, seed), rows, rows))
        assert values.min() > -1e-8


def test_what_is_unknown_is_like_nothing_else():
    tasks, models = entities()
    distance = tasks.compare(tasks)["images"]
    assert np.isinf(np.delete(distance[2], 2)).all()
    assert distance[2, 2] == 0.0
    alike = models.compare(models)["source"]
    np.testing.assert_array_equal(alike[3], [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(alike[0], [1, 1, 0, 0, 0])


def test_the_posterior_is_that_of_the_joint_normal(kernel):
    rows, logs = pairs(), settings(kernel)
    target = np.random.default_rng(3).standard_normal(30)
    known, asked = rows.take(np.arange(22)), rows.take(np.arange(22, 30))
    process = Process(kernel, logs).condition(known, target[:22])
    full = covariance(kernel, logs, rows, rows)
    gram = full[:22, :22] + np.exp(logs["noise"]) * np.eye(22)
    expected = full[22:, :22] @ np.linalg.solve(gram, target[:22])
    np.testing.assert_allclose(process.mean(asked), expected, atol=1e-10)
    left = full[22:, 22:] - full[22:, :22] @ np.linalg.solve(gram, full[:22, 22:])
    np.testing.assert_allclose(process.covariance(asked, asked), left, atol=1e-10)
    reduced = np.diag(full)[22:] - np.diag(left)
    np.testing.assert_allclose(process.explained(asked), reduced, atol=1e-10)


def test_more_outcomes_are_as_if_they_had_been_there_all_along(kernel):
    rows, logs = pairs(), settings(kernel)
    target = np.random.default_rng(3).standard_normal(30)
    first, more, asked = (rows.take(np.arange(*span)) for span in ((0, 15), (15, 20), (20, 30)))
    together = Process(kernel, logs).condition(rows.take(np.arange(20)), target[:20])
    process = Process(kernel, logs).condition(first, target[:15])
    before = process.mean(asked)
    after = process.condition(more, target[15:20])
    np.testing.assert_allclose(after.mean(asked), together.mean(asked), atol=1e-10)
    np.testing.assert_allclose(
        after.covariance(asked, more), together.covariance(asked, more), atol=1e-10
    )
    # The process before is still what it was.
    np.testing.assert_array_equal(process.mean(asked), before)


def test_tuning_finds_what_made_the_data(kernel):
    """No settings are likelier than those found, not even those that the data were drawn with."""
    rng = np.random.default_rng(4)
    n_tasks, n_models = 30, 8
    tasks = Entities(
        ids=tuple(map(str, range(n_tasks))),
        labels={},
        vectors={
            "images": rng.standard_normal((n_tasks, 2)),
            "names": rng.standard_normal((n_tasks, 2)),
        },
    )
    models = Entities(
        ids=tuple(map(str, range(n_models))),
        labels={"source": tuple("aabbccdd")},
        vectors={},
    )
    task, model = np.divmod(np.arange(n_tasks * n_models), n_models)
    rows = Pairs(tasks, models, task, model, np.zeros((task.size, 0)))
    kernel = pair_kernel(("images", "names"), (ITSELF, "source"), 0)
    at_start = pair_evidence(kernel, rows, np.zeros(task.size))
    true = dict(zip(at_start.names, at_start.first.tolist(), strict=True))
    true |= {"view names": -8.0, "shared source": 0.0, "noise": -2.0, "main itself": -0.5}
    noisy = covariance(kernel, true, rows, rows) + np.exp(-2.0) * np.eye(task.size)
    evidence = pair_evidence(
        kernel, rows, np.linalg.cholesky(noisy) @ rng.standard_normal(task.size)
    )
    found = fit(evidence, BOUNDS, MAX_ITERATIONS)
    best, planted = (evidence(np.array(list(logs.values())))[0] for logs in (found, true))
    assert best <= planted
    assert found["noise"] == pytest.approx(-2.0, abs=0.6)
    assert found["view names"] < 0.0 < found["shared source"] + 1.5


def test_taking_rows_leaves_out_what_they_do_not_need(kernel):
    rows, logs = pairs(), settings(kernel)
    chosen = np.array([7, 3, 29])
    part = rows.take(chosen)
    assert len(part.models.ids) == 3
    np.testing.assert_allclose(
        covariance(kernel, logs, part, part),
        covariance(kernel, logs, rows, rows)[np.ix_(chosen, chosen)],
    )


def test_labels_that_say_nothing_new_are_no_components():
    cards = [
        ModelCard(
            model_id=f"a{i}@s{j}", architecture=f"a{i}", family=f"f{i}", pretrained_domain=f"s{j}"
        )
        for i in range(3)
        for j in range(2)
    ]
    # A family an architecture: the same groups by another name.
    assert ModelEntities().fit(cards).components == (ITSELF, "architecture", "source")
    alone = [ModelCard(model_id=f"m{i}", architecture=f"a{i}") for i in range(4)]
    assert ModelEntities().fit(alone).components == (ITSELF,)


def test_vectors_of_models_come_in_units_of_their_median_distance():
    rng = np.random.default_rng(5)
    cards = [
        ModelCard(model_id=f"m{i}", embedding=tuple(rng.standard_normal(4)), n_parameters=10**i)
        for i in range(1, 8)
    ]
    fitted = ModelEntities().fit(cards)
    assert fitted.components == (ITSELF, "archi2vec", "size")
    for table in fitted(cards).vectors.values():
        assert median_distance(table) == pytest.approx(1.0)
    again = ModelEntities.from_state(fitted.state())
    np.testing.assert_array_equal(
        again(cards).vectors["archi2vec"], fitted(cards).vectors["archi2vec"]
    )
    unlike = fitted([ModelCard(model_id="new", embedding=(1.0, 2.0))])
    assert np.isnan(unlike.vectors["archi2vec"]).all()
    assert np.isnan(unlike.vectors["size"]).all()


def test_shares_of_known_outcomes_are_the_mean(kernel):
    rows, logs = pairs(), settings(kernel)
    rng = np.random.default_rng(3)
    target, outcome = rng.standard_normal(20), rng.standard_normal(4)
    process = Process(kernel, logs).condition(rows.take(np.arange(20)), target)
    asked, seen = rows.take(np.arange(22, 28)), rows.take(np.array([20, 21, 28, 29]))
    shares = process.shares(asked)
    assert shares.shape == (6, 20)
    np.testing.assert_allclose(shares @ target, process.mean(asked), rtol=0, atol=1e-10)
    after = process.condition(seen, outcome)
    shares = after.shares(asked)
    found = shares @ np.concatenate([target, outcome])
    np.testing.assert_allclose(found, after.mean(asked), rtol=0, atol=1e-10)
    # As conditioning on both at once.
    together = Process(kernel, logs).condition(
        rows.take(np.r_[np.arange(20), 20, 21, 28, 29]), np.concatenate([target, outcome])
    )
    np.testing.assert_allclose(shares, together.shares(asked), rtol=0, atol=1e-10)
