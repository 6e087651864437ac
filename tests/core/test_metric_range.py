"""What a metric can be, by its name and by what was logged."""

import math

import pytest

from recsys_ms.core.metric_range import natural_range

INF = math.inf


@pytest.mark.parametrize(
    ("metric", "lowest", "highest", "wanted"),
    [
        ("accuracy", 0.1, 0.9, (0.0, 1.0)),
        ("eval_accuracy", 0.1, 1.0, (0.0, 1.0)),
        ("val/top-1 acc", 0.1, 0.9, (0.0, 1.0)),
        ("F1-macro", 0.1, 0.9, (0.0, 1.0)),
        ("mAP50", 0.1, 0.9, (0.0, 1.0)),
        # A percentage, or something that only sounds like it.
        ("accuracy", 10.0, 93.2, (0.0, INF)),
        ("accuracy", -0.2, 0.9, (-INF, 1.0)),
        ("matthews_correlation", -0.1, 0.9, (-1.0, 1.0)),
        ("r2", -4.0, 0.9, (-INF, 1.0)),
        ("eval_loss", 0.1, 7.0, (0.0, INF)),
        ("top1_error", 0.1, 0.4, (0.0, INF)),
        ("map_loss", 0.1, 0.4, (0.0, INF)),
        # The density of something can be above 1, and its negative logarithm below 0.
        ("nll_loss", -3.0, 7.0, (-INF, INF)),
        ("score", 0.1, 0.9, (-INF, INF)),
        ("mapping_speed", 0.1, 0.9, (-INF, INF)),
        ("", 0.1, 0.9, (-INF, INF)),
    ],
)
def test_ranges(metric: str, lowest: float, highest: float, wanted: tuple[float, float]) -> None:
    assert natural_range(metric, lowest, highest) == wanted
