"""The bootstrap: closed forms, coverage, undefined scores."""

import numpy as np
import pytest

from recsys_ms.core.errors import UsageError
from recsys_ms.evaluation.bootstrap import bootstrap_intervals, mean_over_defined


def interval(column, seed=0, **options):
    rng = np.random.default_rng(seed)
    return bootstrap_intervals(np.asarray(column, dtype=float)[:, None], rng, **options)[0]


def test_width_is_that_of_the_normal_mean():
    scores = np.random.default_rng(1).normal(size=400)
    low, high = interval(scores, n_draws=20_000)
    half = 1.959964 * scores.std() / np.sqrt(scores.size)
    # Two quantiles of 20,000 draws: a relative error of about 1 %; 4 % is four of those.
    assert (high - low) / 2 == pytest.approx(half, rel=0.04)
    assert (high + low) / 2 == pytest.approx(scores.mean(), abs=0.1 * half)


def test_coverage_of_a_known_mean():
    rng = np.random.default_rng(2)
    columns = rng.normal(loc=3.0, size=(30, 600))
    intervals = bootstrap_intervals(columns, rng)
    covered = ((intervals[:, 0] <= 3.0) & (intervals[:, 1] >= 3.0)).mean()
    # Nominal 0.95; percentile intervals of 30 units cover about 0.935, and 600 columns share draws.
    assert 0.89 <= covered <= 0.98


def test_columns_share_their_draws():
    scores = np.random.default_rng(3).normal(size=(12, 1))
    both = np.hstack([scores, scores + 5.0, scores - scores])
    intervals = bootstrap_intervals(both, np.random.default_rng(0))
    assert intervals[1] == pytest.approx(intervals[0] + 5.0)
    assert intervals[2].tolist() == [0.0, 0.0]


def test_undefined_units_are_left_out():
    scores = np.array([1.0, np.nan, 3.0, 5.0])
    assert mean_over_defined(scores[:, None])[0] == 3.0
    low, high = interval(scores)
    assert 1.0 <= low < 3.0 < high <= 5.0


def test_too_few_units_have_no_interval():
    assert np.isnan(interval([1.0])).all()
    assert np.isnan(interval([1.0, np.nan, np.nan])).all()
    assert np.isnan(interval([np.nan, np.nan])).all()
    assert np.isnan(mean_over_defined(np.full((3, 1), np.nan))).all()


def test_equal_scores_have_a_point():
    assert interval([0.7] * 9).tolist() == pytest.approx([0.7, 0.7])


def test_seed_decides():
    scores = np.random.default_rng(4).normal(size=20)
    assert interval(scores, seed=1).tolist() == interval(scores, seed=1).tolist()
    assert interval(scores, seed=1).tolist() != interval(scores, seed=2).tolist()


def test_wider_coverage_is_wider():
    scores = np.random.default_rng(5).normal(size=20)
    low, high = interval(scores, coverage=0.5)
    wide_low, wide_high = interval(scores, coverage=0.99)
    assert wide_low < low < high < wide_high


@pytest.mark.parametrize("options", [{"n_draws": 0}, {"coverage": 1.0}, {"coverage": 0.0}])
def test_bad_settings(options):
    with pytest.raises(UsageError, match="bootstrap"):
        interval([1.0, 2.0], **options)
