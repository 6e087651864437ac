"""Range and scale of a metric, by its name: an accuracy is at most 1."""

import re
from typing import Final, Literal, TypeAlias

#: Lowest and highest value; infinite where there is no bound.
Range: TypeAlias = tuple[float, float]

UNBOUNDED: Final[Range] = (-float("inf"), float("inf"))
_FRACTION: Final[Range] = (0.0, 1.0)
_CORRELATION: Final[Range] = (-1.0, 1.0)
_AT_LEAST_0: Final[Range] = (0.0, float("inf"))
_AT_MOST_1: Final[Range] = (-float("inf"), 1.0)

#: Ranges by words of the name; the first match decides.
_WORDS: Final[tuple[tuple[Range, str], ...]] = (
    (
        _AT_LEAST_0,
        "loss error err mae mse rmse mase smape mape nll perplexity ppl wer cer fid brier ece "
        "entropy",
    ),
    (
        _CORRELATION,
        "mcc matthews kappa pearson pearsonr spearman spearmanr kendall correlation corr",
    ),
    (_AT_MOST_1, "r2"),
    (
        _FRACTION,
        "accuracy acc acc1 acc5 top1 top5 precision recall f1 fbeta auc auroc auprc rocauc map "
        "map50 ap ap50 iou miou dice jaccard sensitivity specificity rouge rougel ndcg mrr",
    ),
)
#: Scale on which outcomes of a task are compared: as they are, or by their logarithm.
Link: TypeAlias = Literal["identity", "log"]
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")


def natural_range(metric: str, lowest: float, highest: float) -> Range:
    """Values that a metric can take.

    Bounds come from the metric's name; they are infinite where it says nothing, and where the
    ``lowest`` or ``highest`` logged value violates them: the metric is then a percentage, or its
    name misleads.

    Examples
    --------
    >>> natural_range("eval/top-1_accuracy", 0.2, 0.9)
    (0.0, 1.0)
    >>> natural_range("accuracy", 20.0, 90.0)
    (0.0, inf)
    >>> natural_range("images per second", 20.0, 90.0)
    (-inf, inf)
    """
    words = set(_SEPARATORS.split(metric.lower()))
    for (low, high), names in _WORDS:
        if not words.isdisjoint(names.split()):
            return (
                low if lowest >= low else -float("inf"),
                high if highest <= high else float("inf"),
            )
    return UNBOUNDED


def link_of(metric: str, lowest: float, highest: float) -> Link:
    """Scale on which outcomes in a metric are compared.

    A metric that is positive and has no upper bound (a loss, an RMSE, a perplexity) is compared by
    ratios; otherwise one diverged model would determine the scale of its task.

    Examples
    --------
    >>> link_of("rmse", 0.1, 1e6), link_of("accuracy", 0.1, 0.9), link_of("score", 0.1, 9.0)
    ('log', 'identity', 'identity')
    """
    low, high = natural_range(metric, lowest, highest)
    # A percentage has no upper bound here either, but is not compared by ratios.
    named = not set(_SEPARATORS.split(metric.lower())).isdisjoint(_WORDS[0][1].split())
    positive = low == 0.0 and lowest > 0.0 and high == float("inf")
    return "log" if named and positive else "identity"
