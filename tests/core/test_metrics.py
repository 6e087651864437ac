"""What is known of a metric by its name."""

import math

import pytest

from recsys_ms.core.metrics import KNOWN_METRICS, find_metric, natural_range

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
        ("accuracy", 10.0, 93.2, (0.0, 100.0)),
        ("accuracy", 10.0, 193.2, (0.0, INF)),
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


@pytest.mark.parametrize(
    ("logged", "name", "direction"),
    [
        ("metrics/mAP50-95(B)", "ap", "max"),
        ("mIoU", "iou", "max"),
        ("eval_rougeLsum", "rouge", "max"),
        ("MulticlassAccuracy", "accuracy", "max"),
        ("acc_norm,none", "accuracy", "max"),
        ("top1_error", "error", "min"),
        ("eval_top1", "top1", "max"),
        ("loss_epoch", "loss", "min"),
        ("f1_loss", "loss", "min"),
        ("valLoss", "loss", "min"),
        ("negative log likelihood", "nll", "min"),
        ("neg_mean_squared_error", "negative mse", "max"),
        ("neg_log_loss", "negative cross entropy", "max"),
        ("bits-per-byte", "bpc", "min"),
        ("word_perplexity,none", "perplexity", "min"),
        ("ndcg@10", "ndcg", "max"),
        ("map@10", "ap", "max"),
        ("entropy", "entropy", None),
    ],
)
def test_names_as_frameworks_log_them(logged: str, name: str, direction: str | None) -> None:
    found = find_metric(logged)
    assert found is not None
    assert (found.name, found.direction) == (name, direction)


@pytest.mark.parametrize(
    "logged",
    # Another quantity, two directions, or a name that says nothing: the direction is not guessed.
    """accuracy_std acc_stderr loss_scale time_to_acc auc_error loss_accuracy score objective
    mapping_speed learning_rate f @5 точность""".split(),
)
def test_unknown_names(logged: str) -> None:
    assert find_metric(logged) is None
    assert find_metric("") is None


def test_each_name_of_the_table_is_found_by_itself() -> None:
    assert len(KNOWN_METRICS) > 60
    for name, metric in KNOWN_METRICS.items():
        assert find_metric(name) == metric
        assert metric.low < metric.high
