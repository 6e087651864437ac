"""The best of many models: against sorting all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.learners.transfer_space import TransferSpace, best_positions


@given(st.integers(1, 6000), st.integers(1, 30), st.integers(0, 2**32 - 1), st.booleans())
def test_the_best_are_those_of_a_stable_sort(n_models, top, seed, with_ties):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(n_models).astype(np.float32)
    if with_ties:
        scores = np.round(scores * 2.0)
    expected = np.argsort(-scores, kind="stable")[:top]
    np.testing.assert_array_equal(best_positions(scores, top), expected)


def test_rank_by_hand():
    space = TransferSpace(["a", "b", "c"], [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert space.rank([1.0, 1.0], top=2) == [("b", 2.0), ("c", 2.0)]
    assert space.rank([1.0, 0.0], top=10) == [("a", 1.0), ("c", 1.0), ("b", 0.0)]


def test_what_cannot_be_ranked():
    with pytest.raises(DataError, match="one row a model"):
        TransferSpace(["a"], [[1.0], [2.0]])
    with pytest.raises(DataError, match="not all are finite"):
        TransferSpace(["a"], [[np.nan]])
    space = TransferSpace(["a"], [[1.0]])
    with pytest.raises(UsageError, match=r"expected \(1,\)"):
        space.rank([1.0, 2.0])
    with pytest.raises(UsageError, match="at least 1"):
        space.rank([1.0], top=0)
