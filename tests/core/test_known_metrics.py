"""What is known of a metric by its name."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.core.known_metrics import (
    KNOWN_METRICS,
    KnownMetric,
    accepted,
    direction_of,
    find_metric,
    is_possible,
    natural_range,
    range_problem,
)
from recsys_ms.core.types import Unit

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


#: Names as frameworks log them, by what is better. Sources: Hugging Face evaluate and Trainer,
#: scikit-learn's scorers, Keras, torchmetrics in Lightning, Ultralytics, mmengine, detectron2,
#: timm, fastai, LightGBM and XGBoost, MTEB, lm-eval-harness, TorchVision, GluonTS.
HIGHER = """accuracy eval_accuracy val_accuracy test/acc valid_acc1 eval_top1 eval_top5 acc@1
sparse_categorical_accuracy top_k_categorical_accuracy val_MulticlassAccuracy balanced_accuracy
accuracy/top1 coco/bbox_mAP coco/bbox_mAP_50 mIoU aAcc mAcc metrics/precision(B) metrics/recall(B)
metrics/mAP50(B) metrics/mAP50-95(B) bbox/AP segm/AP50 f1 eval_f1 f1_macro f1_weighted fbeta_score
micro/f1 roc_auc roc_auc_ovr val_auc pr_auc average_precision mean_average_precision BinaryAUROC
recall_at_10 hit_rate_at_1 ndcg_at_10 map_at_100 mrr_at_10 eval_matthews_correlation mcc
cohen_kappa quadratic_weighted_kappa_qwk pearson eval_pearsonr spearmanr cosine_spearman
eval_spearman kendall_tau r2 explained_variance bleu eval_bleu sacrebleu rouge1 rougeL
eval_rougeLsum meteor chrf chr_f bertscore_f1 exact_match eval_exact em acc,none acc_norm,none
exact_match,strict-match pass@1 v_measure nmi adjusted_rand_score silhouette_score val_dice
dice_coefficient dice_coef matthews_corrcoef correlation_coefficient
jaccard_score mean_io_u psnr ssim val_psnr pesq si_sdr stoi neg_log_loss
neg_mean_squared_error neg_root_mean_squared_error win_rate concordance_index reward""".split()
LOWER = """loss eval_loss val_loss valid_loss train/loss trainLoss valLoss loss_cls val/box_loss
f1_loss dice_loss hamming_loss hinge_loss log_loss binary_logloss multi_logloss cross_entropy
binary_crossentropy nll eval_nll kl_divergence perplexity eval_perplexity word_perplexity,none ppl
bits_per_byte mse rmse eval_rmse val_mse mae l1_mae mean_absolute_error root_mean_squared_error
rmsle mape smape mase wape mean_absolute_percentage_error max_error error error_rate top1_error
train_err wer eval_wer cer eval_cer ter brier_score ece expected_calibration_error fid kid lpips
chamfer_distance hausdorff_distance eer crps pinball_loss edit_distance cosine_distance""".split()


@pytest.mark.parametrize("logged", HIGHER)
def test_higher_is_better(logged: str) -> None:
    assert direction_of(logged) == "max"


@pytest.mark.parametrize("logged", LOWER)
def test_lower_is_better(logged: str) -> None:
    assert direction_of(logged) == "min"


@pytest.mark.parametrize("metric", KNOWN_METRICS.values(), ids=lambda metric: metric.name)
@settings(max_examples=15, deadline=None)
@given(st.floats(allow_nan=False))
def test_the_gate_is_the_range_of_the_metric(metric: KnownMetric, value: float) -> None:
    inside = metric.low - 1e-6 <= value <= metric.high + 1e-6
    assert (range_problem(metric.name, value) is None) == inside
    assert bool(is_possible(metric.name, np.array([value]))[0]) == inside
    # A percentage of the same value is judged alike, but for metrics that are seen in both units.
    bounds = accepted(metric.name, "percent")
    scaled = value * bounds.divisor
    if math.isfinite(scaled) and metric.high != 100.0 and abs(value - metric.high) > 1e-5:
        assert (range_problem(metric.name, scaled, "percent") is None) == inside


@pytest.mark.parametrize(
    ("metric", "value", "unit", "said"),
    [
        ("accuracy", 61.0, None, "did you mean 0.61? For values in percent: --unit percent"),
        ("mcc", -61.0, None, "did you mean -0.61?"),
        ("accuracy", 913.0, None, "is outside [0, 1]: if it is another quantity"),
        ("accuracy", 193.0, "percent", "accuracy 193.0 % is outside [0 %, 100 %]"),
        ("accuracy", -1.0, "percent", "--missing=-1"),
        ("bleu", 92.0, "fraction", "did you mean 0.92?"),
        ("perplexity", 0.5, None, "perplexity 0.5 is below 1"),
        ("r2", 3.0, None, "is outside (-inf, 1]"),
        ("my score", 61.0, "fraction", "did you mean 0.61?"),
    ],
)
def test_the_way_out(metric: str, value: float, unit: Unit | None, said: str) -> None:
    assert said in str(range_problem(metric, value, unit))


@pytest.mark.parametrize(
    ("metric", "unit", "divisor"),
    [
        ("accuracy", "percent", 100.0),
        ("bleu", "percent", 100.0),
        ("my score", "percent", 100.0),
        ("wer", "percent", 100.0),
        # One table may hold a loss beside an accuracy in percent.
        ("loss", "percent", 1.0),
        ("psnr", "percent", 1.0),
        ("accuracy", None, 1.0),
        ("accuracy", "fraction", 1.0),
    ],
)
def test_what_percent_divides(metric: str, unit: Unit | None, divisor: float) -> None:
    assert accepted(metric, unit).divisor == divisor


@pytest.mark.parametrize(
    "logged",
    # Another quantity, two directions, or a name that says nothing: the direction is not guessed.
    """accuracy_std acc_stderr loss_scale time_to_acc auc_error loss_accuracy
    d2_absolute_error_score kl_coef score objective
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
