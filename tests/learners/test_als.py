"""ALS through implicit: its objective, planted answers, fold-in in closed form, determinism."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from child import outputs_by_threads
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.learners.als import ALSConfig, fit_als, fold_in_als, preference_and_confidence


def problem(rng, n_tasks=9, n_models=14, density=0.5):
    task, model = np.nonzero(rng.random((n_tasks, n_models)) < density)
    preference = (rng.random(task.size) < 0.6).astype(float)
    # Halves and quarters are exact in the single precision that implicit keeps them in.
    confidence = rng.integers(4, 20, task.size) / 4.0
    return task, model, preference, confidence


def test_reaches_a_stationary_point_of_the_stated_objective():
    task, model, preference, confidence = problem(np.random.default_rng(0))
    config = ALSConfig(n_factors=3, regularization=0.5, n_sweeps=2000)
    fitted = fit_als(
        task, model, preference, confidence, n_tasks=9, n_models=14, config=config, rng=1
    )
    c, p = np.ones((9, 14)), np.zeros((9, 14))
    c[task, model], p[task, model] = confidence, preference
    x, y = fitted.task_factors, fitted.model_factors
    pull = c * (x @ y.T - p)
    # Stopped by the number of sweeps: far below any entry of the factors.
    np.testing.assert_allclose(pull @ y + 0.5 * x, 0.0, atol=1e-5)
    np.testing.assert_allclose(pull.T @ x + 0.5 * y, 0.0, atol=1e-5)


def test_checkerboard_prefers_the_hidden_cell():
    n = 20
    board = np.add.outer(np.arange(n), np.arange(n)) % 2 == 0
    hidden = np.arange(n)
    observed = np.ones((n, n), dtype=bool)
    observed[np.arange(n), hidden] = False
    task, model = np.nonzero(observed)
    fitted = fit_als(
        task,
        model,
        board[task, model].astype(float),
        np.full(task.size, 5.0),
        n_tasks=n,
        n_models=n,
        config=ALSConfig(n_factors=2, regularization=0.1),
        rng=0,
    )
    assert fitted.task_factors.shape == fitted.model_factors.shape == (n, 2)
    good = fitted.predict(np.arange(n), hidden)
    bad = fitted.predict(np.arange(n), (hidden + 1) % n)
    assert (good > bad).all()


def test_fold_in_equals_recalculate_user_of_implicit():
    task, model, preference, confidence = problem(np.random.default_rng(3))
    signed = np.where(preference > 0, confidence, -confidence)
    matrix = sp.csr_matrix((signed, (task, model)), shape=(9, 14))
    with threadpool_limits(limits=1, user_api="blas"):
        peer = AlternatingLeastSquares(
            factors=4,
            regularization=0.3,
            dtype=np.float64,
            use_cg=False,
            num_threads=1,
            random_state=0,
        )
        peer.fit(matrix, show_progress=False)
        expected = peer.recalculate_user(np.arange(9), matrix)
    for row in range(9):
        own = task == row
        folded = fold_in_als(
            peer.item_factors, model[own], preference[own], confidence[own], regularization=0.3
        )
        np.testing.assert_allclose(folded, expected[row], rtol=1e-8, atol=1e-10)


def test_fold_in_of_nothing_is_zero():
    none = np.array([], dtype=np.int64)
    folded = fold_in_als(np.ones((3, 2)), none, np.array([]), np.array([]), regularization=1.0)
    assert np.array_equal(folded, np.zeros(2))


def test_outcomes_become_preference_and_confidence():
    preference, confidence = preference_and_confidence(np.array([-1.0, 0.0, 2.0]), slope=3.0)
    assert preference.tolist() == [0.0, 0.0, 1.0]
    assert confidence.tolist() == [4.0, 1.0, 7.0]
    with pytest.raises(UsageError, match="slope"):
        preference_and_confidence(np.zeros(1), slope=-1.0)


def test_same_seed_same_bits_with_any_number_of_solver_threads():
    task, model, preference, confidence = problem(np.random.default_rng(5), 50, 60)
    fits = [
        fit_als(
            task,
            model,
            preference,
            confidence,
            n_tasks=50,
            n_models=60,
            config=ALSConfig(n_threads=threads),
            rng=seed,
        )
        for threads, seed in ((1, 0), (2, 0), (1, 1))
    ]
    assert np.array_equal(fits[0].task_factors, fits[1].task_factors)
    assert np.array_equal(fits[0].model_factors, fits[1].model_factors)
    assert not np.array_equal(fits[0].task_factors, fits[2].task_factors)


PROGRAM = """
import hashlib, warnings, numpy as np
warnings.simplefilter("error")
from recsys_ms.learners.als import fit_als
rng = np.random.default_rng(0)
task, model = np.nonzero(rng.random((300, 400)) < 0.3)
n = task.size
fitted = fit_als(task, model, (rng.random(n) < 0.5) * 1.0, 1 + rng.random(n),
                 n_tasks=300, n_models=400, rng=0)
print(hashlib.sha256(fitted.task_factors.tobytes() + fitted.model_factors.tobytes()).hexdigest())
"""


def test_no_warning_escapes_and_blas_threads_do_not_change_the_bits():
    [(_, errors)] = outputs_by_threads(PROGRAM)
    assert errors == ""


def test_inputs_are_unchanged_and_nothing_warns():
    arrays = problem(np.random.default_rng(8))
    before = [a.copy() for a in arrays]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_als(*arrays, n_tasks=9, n_models=14, rng=0)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"preference": np.array([1.0, 0.5])}, "preference"),
        ({"confidence": np.array([1.0, 0.0])}, "confidence"),
        ({"confidence": np.array([1.0, np.inf])}, "confidence"),
        ({"confidence": np.array([1.0])}, "one length"),
        ({"task_index": np.array([0, 2])}, "task"),
        ({"task_index": np.array([0, 0]), "model_index": np.array([1, 1])}, "twice"),
    ],
)
def test_bad_interactions_are_refused(change, says):
    arrays = {
        "task_index": np.array([0, 1]),
        "model_index": np.array([0, 1]),
        "preference": np.array([1.0, 0.0]),
        "confidence": np.array([2.0, 2.0]),
    } | change
    with pytest.raises(DataError, match=says):
        fit_als(**arrays, n_tasks=2, n_models=2, rng=0)


def test_bad_settings_are_refused():
    for wrong in ({"n_factors": 0}, {"n_sweeps": 0}, {"n_threads": 0}, {"regularization": 0.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ALSConfig(**wrong)
    with pytest.raises(UsageError, match="regularization"):
        fold_in_als(np.ones((1, 1)), np.array([0]), np.ones(1), np.ones(1), regularization=0.0)
    with pytest.raises(DataError, match="beyond"):
        fold_in_als(np.ones((1, 1)), np.array([1]), np.ones(1), np.ones(1), regularization=1.0)
    with pytest.raises(DataError, match="one length"):
        fold_in_als(np.ones((1, 1)), np.array([0]), np.ones(2), np.ones(1), regularization=1.0)
