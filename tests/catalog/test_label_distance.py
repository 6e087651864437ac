"""Distances of label sets."""

import numpy as np

from recsys_ms.catalog.label_distance import label_distances


def test_one_minus_the_cosine():
    found = label_distances([(1.0, 0.0), (1.0, 1.0)], [(2.0, 0.0), (0.0, 3.0), (-1.0, 0.0)])
    half = 1.0 - np.sqrt(0.5)
    np.testing.assert_allclose(found, [[0.0, 1.0, 2.0], [half, half, 2.0 - half]])


def test_what_is_unknown_has_no_distance():
    found = label_distances([None, (1.0, 0.0), (1.0, 0.0, 0.0)], [(1.0, 0.0), None, (0.0, 0.0)])
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(np.isnan(found[1]), [False, True, True])
    assert np.isnan(found[2]).all()


def test_no_tasks_or_no_models():
    assert label_distances([], [(1.0,)]).shape == (0, 1)
    assert label_distances([(1.0,)], []).shape == (1, 0)
