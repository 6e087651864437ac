"""The Gaussian process over pairs: gradients, conditioning and what it does not know."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.cold_start.model_entities import ModelThings
from recsys_ms.learners.gaussian.pair_process import (
    ITSELF,
    PairKernel,
    PairProcess,
    Pairs,
    Things,
    tuned,
    unlikelihood,
)
from recsys_ms.learners.gaussian.vectors import median_distance


def things(n_tasks=6, n_models=5, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n_tasks, 3))
    images[2] = np.nan
    tasks = Things(
        ids=tuple(f"t{i}" for i in range(n_tasks)),
        labels={},
        vectors={"images": images, "names": rng.standard_normal((n_tasks, 2))},
    )
    models = Things(
        ids=tuple(f"m{j}" for j in range(n_models)),
        labels={"source": ("a", "a", "b", None, None)},
        vectors={"archi2vec": rng.standard_normal((n_models, 2))},
    )
    return tasks, models


def pairs(seed=0, n_scores=2):
    tasks, models = things(seed=seed)
    task, model = np.divmod(np.arange(30), 5)
    scores = np.random.default_rng(seed + 1).standard_normal((30, n_scores))
    return Pairs(tasks=tasks, models=models, task=task, model=model, scores=scores)


@pytest.fixture
def kernel():
    return PairKernel(("images", "names"), (ITSELF, "source", "archi2vec"), 2)


def settings(kernel, seed=0):
    return kernel.start + 0.5 * np.random.default_rng(seed).standard_normal(kernel.start.size)


def test_the_gradient_is_that_of_differences(kernel):
    rows, log = pairs(), settings(kernel)
    target = np.random.default_rng(2).standard_normal(30)
    compared = kernel.compare(rows, rows)
    error = check_grad(
        lambda x: unlikelihood(kernel, x, compared, target)[0],
        lambda x: unlikelihood(kernel, x, compared, target)[1],
        log,
    )
    size = np.linalg.norm(unlikelihood(kernel, log, compared, target)[1])
    assert error < 1e-5 * size


def test_the_likelihood_is_scipys(kernel):
    rows, log = pairs(), settings(kernel)
    target = np.random.default_rng(2).standard_normal(30)
    covariance = kernel.covariance(log, rows, rows) + np.exp(log[-1]) * np.eye(30)
    prior = 0.5 * float((((log - kernel.start) / 2.5) ** 2).sum())
    expected = -multivariate_normal(np.zeros(30), covariance).logpdf(target)
    found = unlikelihood(kernel, log, kernel.compare(rows, rows), target)[0]
    constant = 0.5 * 30 * np.log(2.0 * np.pi)
    assert found + constant == pytest.approx(expected + prior, rel=1e-6)


def test_a_covariance_by_hand(kernel):
    rows = pairs()
    log = settings(kernel)
    value = dict(zip(kernel.names, np.exp(log), strict=True))
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
    assert kernel.covariance(log, rows, rows)[a, b] == pytest.approx(expected)


def test_covariances_are_positive_definite(kernel):
    rows = pairs()
    for seed in range(5):
        values = np.linalg.eigvalsh(kernel.covariance(settings(kernel, seed), rows, rows))
        assert values.min() > -1e-8


def test_what_is_unknown_is_like_nothing_else():
    tasks, models = things()
    distance = tasks.distances(tasks, "images")
    assert np.isinf(np.delete(distance[2], 2)).all()
    assert distance[2, 2] == 0.0
    alike = models.alike(models)["source"]
    np.testing.assert_array_equal(alike[3], [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(alike[0], [1, 1, 0, 0, 0])


def test_the_mean_is_that_of_the_joint_normal(kernel):
    rows, log = pairs(), settings(kernel)
    target = np.random.default_rng(3).standard_normal(30)
    known, asked = rows.take(np.arange(22)), rows.take(np.arange(22, 30))
    process = PairProcess.condition(kernel, log, known, target[:22])
    full = kernel.covariance(log, rows, rows)
    gram = full[:22, :22] + np.exp(log[-1]) * np.eye(22)
    expected = full[22:, :22] @ np.linalg.solve(gram, target[:22])
    np.testing.assert_allclose(process.mean(asked), expected, atol=1e-5)


def test_more_outcomes_are_as_if_they_had_been_there_all_along(kernel):
    rows, log = pairs(), settings(kernel)
    target = np.random.default_rng(3).standard_normal(30)
    first, more, asked = (rows.take(np.arange(*span)) for span in ((0, 15), (15, 20), (20, 30)))
    together = PairProcess.condition(kernel, log, rows.take(np.arange(20)), target[:20])
    process = PairProcess.condition(kernel, log, first, target[:15])
    np.testing.assert_allclose(
        process.updated(asked, more, target[15:20]), together.mean(asked), atol=1e-5
    )


def test_tuning_finds_what_made_the_data(kernel):
    """No settings are likelier than those found, not even those that the data were drawn with."""
    rng = np.random.default_rng(4)
    n_tasks, n_models = 30, 8
    tasks = Things(
        ids=tuple(map(str, range(n_tasks))),
        labels={},
        vectors={
            "images": rng.standard_normal((n_tasks, 2)),
            "names": rng.standard_normal((n_tasks, 2)),
        },
    )
    models = Things(
        ids=tuple(map(str, range(n_models))),
        labels={"source": tuple("aabbccdd")},
        vectors={},
    )
    task, model = np.divmod(np.arange(n_tasks * n_models), n_models)
    rows = Pairs(tasks, models, task, model, np.zeros((task.size, 0)))
    kernel = PairKernel(("images", "names"), (ITSELF, "source"), 0)
    true = dict(zip(kernel.names, kernel.start.tolist(), strict=True))
    true |= {"view names": -8.0, "shared source": 0.0, "noise": -2.0, "main itself": -0.5}
    log = np.array([true[name] for name in kernel.names])
    covariance = kernel.covariance(log, rows, rows) + np.exp(-2.0) * np.eye(task.size)
    target = np.linalg.cholesky(covariance) @ rng.standard_normal(task.size)
    found = tuned(kernel, rows, target)
    compared = kernel.compare(rows, rows)
    assert (
        unlikelihood(kernel, found, compared, target)[0]
        <= unlikelihood(kernel, log, compared, target)[0]
    )
    by_name = dict(zip(kernel.names, found.tolist(), strict=True))
    assert by_name["noise"] == pytest.approx(-2.0, abs=0.6)
    assert by_name["view names"] < 0.0 < by_name["shared source"] + 1.5


def test_taking_rows_leaves_out_what_they_do_not_need(kernel):
    rows, log = pairs(), settings(kernel)
    chosen = np.array([7, 3, 29])
    part = rows.take(chosen)
    assert len(part.models.ids) == 3
    np.testing.assert_allclose(
        kernel.covariance(log, part, part),
        kernel.covariance(log, rows, rows)[np.ix_(chosen, chosen)],
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
    assert ModelThings().fit(cards).components == (ITSELF, "architecture", "source")
    alone = [ModelCard(model_id=f"m{i}", architecture=f"a{i}") for i in range(4)]
    assert ModelThings().fit(alone).components == (ITSELF,)


def test_vectors_of_models_come_in_units_of_their_median_distance():
    rng = np.random.default_rng(5)
    cards = [
        ModelCard(model_id=f"m{i}", embedding=tuple(rng.standard_normal(4)), n_parameters=10**i)
        for i in range(1, 8)
    ]
    fitted = ModelThings().fit(cards)
    assert fitted.components == (ITSELF, "archi2vec", "size")
    for table in fitted(cards).vectors.values():
        assert median_distance(table) == pytest.approx(1.0)
    again = ModelThings.from_state(fitted.state())
    np.testing.assert_array_equal(
        again(cards).vectors["archi2vec"], fitted(cards).vectors["archi2vec"]
    )
    unlike = fitted([ModelCard(model_id="new", embedding=(1.0, 2.0))])
    assert np.isnan(unlike.vectors["archi2vec"]).all()
    assert np.isnan(unlike.vectors["size"]).all()


def test_shares_of_known_outcomes_are_the_mean(kernel):
    rows, log = pairs(), settings(kernel)
    rng = np.random.default_rng(3)
    target, outcome = rng.standard_normal(20), rng.standard_normal(4)
    process = PairProcess.condition(kernel, log, rows.take(np.arange(20)), target)
    asked, seen = rows.take(np.arange(22, 28)), rows.take(np.array([20, 21, 28, 29]))
    training, observed = process.shares(asked)
    assert observed.shape == (6, 0)
    np.testing.assert_allclose(training @ target, process.mean(asked), rtol=0, atol=1e-10)
    training, observed = process.shares(asked, seen)
    found = training @ target + observed @ outcome
    np.testing.assert_allclose(found, process.updated(asked, seen, outcome), rtol=0, atol=1e-10)
    # Nothing else was known: conditioning on both at once.
    together = PairProcess.condition(
        kernel,
        log,
        rows.take(np.r_[np.arange(20), 20, 21, 28, 29]),
        np.concatenate([target, outcome]),
    )
    shares, _ = together.shares(asked)
    np.testing.assert_allclose(np.hstack([training, observed]), shares, rtol=0, atol=1e-6)
