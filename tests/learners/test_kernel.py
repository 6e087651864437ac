"""The Gaussian process against scikit-learn and finite differences."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from recsys_ms.catalog.encoding import ColumnEncoder, EncodingConfig, RawColumns
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.learners.design import as_design, row_design
from recsys_ms.learners.gaussian import kernel_head as kernel
from recsys_ms.learners.gaussian.kernel_head import KernelConfig, KernelHead
from recsys_ms.learners.gaussian.process import Evidence
from recsys_ms.learners.linear import LinearHead


def problem(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    design = np.hstack([rng.normal(size=(n_rows, 2)), rng.integers(0, 2, (n_rows, 3))])
    target = np.sin(2 * design[:, 0]) + design[:, 2] * design[:, 1] + 0.5 * design[:, 3]
    return design, target


def features(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    raw = RawColumns(
        n_rows=n_rows,
        numeric={"x": rng.normal(size=n_rows), "y": rng.normal(size=n_rows)},
        categorical={"c": [["a", "b"][i] for i in rng.integers(0, 2, n_rows)]},
        tokens={},
        fields={"x": "position", "y": "position"},
    )
    return ColumnEncoder(EncodingConfig(quadratic=True)).fit(raw).transform(raw)


def test_smooth_functions_and_interactions_are_learned():
    design, target = problem(400)
    head = KernelHead().fit(design[:300], target[:300], rng=0)
    ridge = LinearHead().fit(design[:300], target[:300])
    error = np.std(head.predict(design[300:]) - target[300:])
    assert error < 0.2 * np.std(ridge.predict(design[300:]) - target[300:])


def test_the_mean_equals_scikit_learn_for_the_same_kernel(monkeypatch):
    rng = np.random.default_rng(0)
    design, target = rng.normal(size=(50, 1)), rng.normal(size=50)
    # Only the smooth part, with variance 2, scale 1.5 (length 1/√1.5) and noise 0.1.
    logs = {"rate 0": np.log(1.5), "smooth": np.log(2.0), "noise": np.log(0.1)}
    logs |= dict.fromkeys(("words", "joint", "products"), -40.0)
    monkeypatch.setattr(kernel, "fit", lambda *_: logs)
    head = KernelHead().fit(design, target)
    reference = GaussianProcessRegressor(
        ConstantKernel(2.0) * RBF(1 / np.sqrt(1.5)) + WhiteKernel(0.1),
        optimizer=None,
        normalize_y=True,
    ).fit(design, target)
    new = rng.normal(size=(20, 1))
    np.testing.assert_allclose(head.predict(new), reference.predict(new), rtol=1e-8, atol=1e-10)


def test_the_gradient_of_the_evidence():
    design, target = problem(40)
    columns = kernel._Columns.of(as_design(design))
    rows = columns.split(as_design(design).linear())
    evidence = Evidence(
        kernel=columns.kernel(),
        compared=rows.compare(rows),
        # Two targets share the kernel; some rows are known to be 0.
        target=np.column_stack([target, target**2]),
        start={"": 0.0},
        n_silent=7,
    )
    rng = np.random.default_rng(1)
    for _ in range(3):
        at = rng.normal(size=len(evidence.names)) - 1.0
        difference = check_grad(lambda p: evidence(p)[0], lambda p: evidence(p)[1], at)
        assert difference < 1e-3 * np.linalg.norm(evidence(at)[1])


def test_columns_of_a_feature_design_are_told_apart_by_kind():
    design = row_design(features(30))
    columns = kernel._Columns.of(design)
    assert [design.linear_names[i] for i in columns.numbers] == ["x", "y"]
    assert {design.linear_names[i] for i in columns.words} == {"c=a", "c=b"}
    # One scale for a field, however many columns it has; products are left to the linear head.
    np.testing.assert_array_equal(columns.fields, [0, 0])


def test_state_restores_bit_for_bit():
    design = row_design(features(60))
    target = np.random.default_rng(0).normal(size=60)
    head = KernelHead(KernelConfig(n_tuning_rows=30)).fit(design, target, rng=0)
    restored = KernelHead.from_state(head.state())
    assert restored.config == head.config
    np.testing.assert_array_equal(restored.predict(design), head.predict(design))


def test_the_same_seed_gives_the_same_answer_and_rows_stand_alone():
    design, target = problem(120)
    config = KernelConfig(n_tuning_rows=40, max_iterations=10)
    one, same, other = (
        KernelHead(config).fit(design, target, rng=seed).predict(design) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    head = KernelHead(config).fit(design, target, rng=0)
    single = [head.predict(design[[i]])[0] for i in range(0, 120, 10)]
    np.testing.assert_allclose(single, one[::10], rtol=1e-12)


def test_predictions_in_chunks_are_the_same(monkeypatch):
    design, target = problem(50)
    head = KernelHead(KernelConfig(max_iterations=5)).fit(design, target, rng=0)
    whole = head.predict(design)
    monkeypatch.setattr(kernel, "_CHUNK", 7)
    np.testing.assert_allclose(head.predict(design), whole, rtol=1e-12)


@pytest.mark.parametrize(
    "design", [np.zeros((4, 0)), np.ones((4, 2)), np.arange(4.0)[:, None]], ids=str
)
def test_little_information_still_gives_finite_answers(design):
    head = KernelHead().fit(design, np.full(4, 2.0), rng=0)
    np.testing.assert_allclose(head.predict(design), 2.0)
    assert np.isfinite(KernelHead().fit(design, np.arange(4.0), rng=0).predict(design)).all()


def test_misuse_is_refused():
    design, target = problem(20)
    with pytest.raises(UsageError, match="max_rows is 10"):
        KernelHead(KernelConfig(max_rows=10)).fit(design, target)
    with pytest.raises(UsageError, match="max_iterations"):
        KernelConfig(max_iterations=0)
    with pytest.raises(DataError, match="4 columns"):
        KernelHead(KernelConfig(max_iterations=2)).fit(design, target).predict(design[:, :4])
