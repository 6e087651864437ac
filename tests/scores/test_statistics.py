"""The decomposition that all linear scores share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.core.errors import MissingExtraError, ProbeSetError, UsageError
from recsys_ms.scores.checks import (
    check_classes,
    check_features,
    check_probabilities,
    check_targets,
)
from recsys_ms.scores.statistics import ProbeStatistics, sums_by_class

SHAPES = [(60, 20, 20), (30, 30, 30), (20, 50, 20), (60, 20, 7), (20, 50, 5), (2, 1, 1)]


def features(n_probe: int, n_features: int, rank: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_probe, rank)) @ rng.normal(size=(rank, n_features))


@pytest.mark.parametrize(("n_probe", "n_features", "rank"), SHAPES)
def test_it_is_the_singular_value_decomposition(n_probe: int, n_features: int, rank: int) -> None:
    matrix = features(n_probe, n_features, rank)
    found = ProbeStatistics(matrix)
    left, lengths, right = np.linalg.svd(matrix, full_matrices=False)
    left, lengths, right = left[:, :rank], lengths[:rank], right[:rank]
    assert found.rank == rank
    assert found.is_tall == (n_probe >= n_features)
    # A Gram matrix knows its eigenvalues to the rounding of the largest one.
    np.testing.assert_allclose(
        found.eigenvalues, np.sort(lengths**2), rtol=1e-9, atol=1e-13 * lengths[0] ** 2
    )
    targets = np.random.default_rng(1).normal(size=(n_probe, 3))
    # Signs of singular vectors are free: squares are not.
    order = np.argsort(lengths)
    expected = np.square(left.T @ targets)[order]
    np.testing.assert_allclose(np.square(found.coordinates(targets)), expected, atol=1e-9)
    weights = np.random.default_rng(2).normal(size=(rank, 2))
    rotated = np.concatenate([block for _, block in found.rotated_blocks()])
    np.testing.assert_allclose(rotated @ rotated.T, matrix @ matrix.T, atol=1e-8)
    np.testing.assert_allclose(found.apply(weights), rotated @ weights, atol=1e-8)
    compact = np.concatenate([block for _, block in found.compact_blocks()])
    assert compact.shape[1] <= min(n_features, max(n_probe, rank))
    np.testing.assert_allclose(compact @ compact.T, matrix @ matrix.T, atol=1e-8)
    np.testing.assert_allclose(found.mean, matrix.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize(("n_probe", "n_features", "rank"), SHAPES[:5])
def test_coordinates_of_classes_are_those_of_their_indicators(
    n_probe: int, n_features: int, rank: int
) -> None:
    matrix = features(n_probe, n_features, rank)
    classes = check_classes(np.arange(n_probe) % 3, n_probe)
    indicators = np.eye(3)[classes.codes]
    found = ProbeStatistics(matrix)
    np.testing.assert_allclose(found.coordinates(classes), found.coordinates(indicators), atol=1e-9)
    np.testing.assert_allclose(sums_by_class(matrix, classes), indicators.T @ matrix, atol=1e-9)


@pytest.mark.parametrize(
    ("n_probe", "n_features", "rank"), [*SHAPES[:5], (300, 40, 40), (300, 40, 39)]
)
def test_coordinates_in_any_basis_have_the_same_inner_products(
    n_probe: int, n_features: int, rank: int
) -> None:
    matrix = features(n_probe, n_features, rank)
    targets = np.random.default_rng(1).normal(size=(n_probe, 3))
    classes = check_classes(np.arange(n_probe) % 3, n_probe)
    decomposed, fresh = ProbeStatistics(matrix), ProbeStatistics(matrix)
    assert decomposed.rank == rank
    for each in (targets, classes):
        one, other = decomposed.span_coordinates(each), fresh.span_coordinates(each)
        np.testing.assert_allclose(one.T @ one, other.T @ other, atol=1e-8)
    # Decomposed later, it is the same as decomposed first.
    np.testing.assert_allclose(fresh.eigenvalues, decomposed.eigenvalues)


def test_features_of_bad_condition_are_decomposed_whoever_asks() -> None:
    matrix = features(60, 8, 8)
    matrix[:, 0] = matrix[:, 1] * (1 + 1e-9)
    statistics = ProbeStatistics(matrix)
    targets = np.random.default_rng(1).normal(size=(60, 2))
    found = statistics.span_coordinates(targets)
    np.testing.assert_allclose(found, statistics.coordinates(targets))


@pytest.mark.parametrize("n_probe", [9000, 300])
def test_blocks_of_rows_and_of_columns_add_up(n_probe: int) -> None:
    matrix = features(n_probe, 9300 - n_probe, 40).astype(np.float32)
    found = ProbeStatistics(matrix)
    lengths = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[: found.rank]
    np.testing.assert_allclose(found.eigenvalues[-40:], np.sort(lengths[:40] ** 2), rtol=1e-9)


def test_features_are_kept_as_they_are_and_not_written_to() -> None:
    matrix = features(50, 8, 8).astype(np.float32)
    matrix.setflags(write=False)
    found = ProbeStatistics(matrix)
    assert found.features is matrix
    assert ProbeStatistics(matrix.astype(np.float16)).features.dtype == np.float32
    assert ProbeStatistics((matrix * 100).astype(np.int64)).features.dtype == np.float64


def test_dead_features_are_found() -> None:
    matrix = features(50, 8, 8)
    matrix[:, [1, 5]] = 3.0, 0.0
    found = ProbeStatistics(matrix)
    assert np.flatnonzero(found.dead).tolist() == [1, 5]
    assert found.dead_fraction == 0.25
    assert found.rank == 7


@pytest.mark.parametrize(("n_probe", "n_features", "rank"), SHAPES[:5])
def test_torch_gives_the_same(n_probe: int, n_features: int, rank: int) -> None:
    pytest.importorskip("torch", reason="torch is not installed (extra embed)")
    matrix = features(n_probe, n_features, rank).astype(np.float32)
    targets = np.random.default_rng(1).normal(size=(n_probe, 3))
    here, there = ProbeStatistics(matrix), ProbeStatistics(matrix, device="cpu")
    np.testing.assert_allclose(here.eigenvalues, there.eigenvalues, rtol=1e-6)
    np.testing.assert_allclose(
        np.square(here.coordinates(targets)), np.square(there.coordinates(targets)), atol=1e-4
    )


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed (extra embed)")
    with pytest.raises(UsageError, match="mps:7"):
        ProbeStatistics(features(5, 3, 3), device="mps:7")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match="embed"):
        ProbeStatistics(features(5, 3, 3), device="cpu")


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.zeros((5, 3)), "all of them are zero"),
        (np.full((5, 3), 1e200), r"up to 1e\+200.*multiply"),
        ([[1.0, np.nan], [1.0, 2.0]], r"row 0, column 1 is nan"),
        ([[1.0, 2.0], [-np.inf, 2.0]], r"row 1, column 0 is -inf"),
        ([1.0, 2.0], r"shape \(2,\)"),
        (np.zeros((3, 2, 2)), r"shape \(3, 2, 2\)"),
        (np.zeros((1, 4)), "1 examples"),
        (np.zeros((4, 0)), "0 features"),
        ([["a", "b"], ["c", "d"]], "expected numbers"),
        (np.zeros((3, 2), dtype=complex), "complex"),
    ],
)
def test_invalid_features(bad: object, match: str) -> None:
    with pytest.raises(ProbeSetError, match=match):
        ProbeStatistics(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ([0, 1], r"shape \(2,\)"),
        ([[0], [1], [2]], "shape"),
        ([0, 0, 0], "1 class"),
        ([0.5, 1.0, 2.0], "fractions"),
        ([0.0, np.nan, 1.0], "fractions"),
        (["a", 1, None], "got NoneType, int, str, expected integers only or texts only"),
        ([1j, 0, 1], "complex"),
    ],
)
def test_invalid_labels(bad: object, match: str) -> None:
    with pytest.raises(ProbeSetError, match=match):
        check_classes(np.array(bad, dtype=object) if "a" in bad else bad, 3)  # type: ignore[operator,arg-type]


def test_labels_become_dense() -> None:
    classes = check_classes([7, -2, 7, 1000], 4)
    assert classes.codes.tolist() == [1, 0, 1, 2]
    assert classes.counts.tolist() == [1, 2, 1]
    assert classes.names == (-2, 7, 1000)
    assert check_classes(np.array(["b", "a", "b"], dtype=object), 3).codes.tolist() == [1, 0, 1]
    assert check_classes([2.0, 1.0], 2).n_classes == 2
    assert check_classes([True, False], 2).n_classes == 2


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ([[0.5, 0.6], [0.5, 0.5]], "row 0 sums to 1.1"),
        ([[1.5, -0.5], [0.5, 0.5]], "expected probabilities"),
        ([[0.5, 0.5]], "examples"),
        ([[0.5, 0.5]] * 3, "3 rows, expected 2"),
    ],
)
def test_probabilities_that_are_none(bad: object, match: str) -> None:
    with pytest.raises(ProbeSetError, match=match):
        check_probabilities(bad, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [[1.0], [[np.inf], [1.0]], np.zeros((2, 0)), ["a", "b"]])
def test_targets_that_are_none(bad: object) -> None:
    with pytest.raises(ProbeSetError):
        check_targets(bad, 2)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 1000))
def test_rotating_features_changes_no_statistic(n_probe: int, n_features: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n_probe, n_features))
    turn = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    targets = rng.normal(size=(n_probe, 2))
    one, two = ProbeStatistics(matrix), ProbeStatistics(matrix @ turn)
    np.testing.assert_allclose(one.eigenvalues, two.eigenvalues, rtol=1e-6, atol=1e-9)
    lengths = [np.square(each.coordinates(targets)).sum(axis=0) for each in (one, two)]
    np.testing.assert_allclose(*lengths, atol=1e-7)


def test_checked_features_are_the_same_object() -> None:
    matrix = np.ones((3, 2), dtype=np.float32)
    assert check_features(matrix) is matrix
