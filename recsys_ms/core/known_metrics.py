"""The metrics that people log: direction, range, and scale of each, found by its name."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

from recsys_ms.core.types import BoolArray, Direction, FloatArray, Unit

#: Lowest and highest value; infinite where there is no bound.
Range: TypeAlias = tuple[float, float]
#: Scale on which outcomes of a task are compared: as they are, or by their logarithm.
Link: TypeAlias = Literal["identity", "log"]

_INF: Final = math.inf
UNBOUNDED: Final[Range] = (-_INF, _INF)
#: How far a bound may be exceeded: a metric computed in single precision is 1.0000001 at its best.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMetric:
    """What is known of a metric, whatever the task.

    Attributes
    ----------
    name : str
        Its usual name.
    direction : {"max", "min"} or None
        Whether higher or lower values are better; ``None`` if that depends on the use.
    low, high : float
        Values outside are impossible; infinite where there is no bound. A metric with
        ``high == 1`` is a fraction.
    percent : bool
        Whether logs often hold it times 100.
    heavy_tailed : bool
        Whether values spread over orders of magnitude, so that those of one task are compared by
        ratios; otherwise one diverged model would determine the scale of its task.
    """

    name: str
    direction: Direction | None
    low: float
    high: float
    percent: bool = False
    heavy_tailed: bool = False


#: Metrics of equal properties. Each word is a name and its other spellings, joined by "=";
#: "cross_entropy" is two words of a logged name in this order.
_TABLE: Final[tuple[tuple[KnownMetric, str], ...]] = (
    (
        KnownMetric(name="", direction="max", low=0.0, high=1.0, percent=True),
        "accuracy=acc=acc1=acc5=prec1=prec5=accuracies=macc=aacc=oacc "
        "precision=prec recall=sensitivity=tpr=rec "
        "specificity=tnr f1=fbeta=f1score=fscore=f_score=f_measure=fmeasure=f05=f2 "
        "auc=auroc=rocauc=aucroc=auprc=prauc=aucpr c_index=cindex=concordance "
        "ap=map=map50=map75=ap50=ap75=average_precision=mar=lrap iou=miou=io_u=jaccard=fwiou "
        "dice=dsc=dice_coefficient=dice_coef panoptic_quality=pq "
        "ndcg mrr=reciprocal_rank hits=hit exact_match=em=exact pass win_rate=winrate "
        "success_rate=success g_mean=gmean fowlkes_mallows "
        "meteor nmi v_measure=vmeasure homogeneity completeness purity",
    ),
    # Weak names: they say which accuracy or error, if another word names the metric.
    (
        KnownMetric(name="", direction="max", low=0.0, high=1.0, percent=True),
        "top1=top5=top=rank1",
    ),
    (
        KnownMetric(name="", direction="max", low=-1.0, high=1.0, percent=True),
        "mcc=matthews=phi kappa=qwk=cohen pearson=pearsonr=plcc spearman=spearmanr=srcc=srocc "
        "kendall=kendalltau=krcc correlation=corr=correlation_coefficient ccc "
        "cosine_similarity=cosine ari=adjusted_rand "
        "ami=adjusted_mutual gini=gini_coefficient p_mrr silhouette ssim=msssim stoi bertscore",
    ),
    (
        KnownMetric(name="", direction="max", low=-_INF, high=1.0, percent=True),
        "r2=d2=r_squared=rsquared explained_variance skill_score",
    ),
    # Reported as 0 to 100 by some tools and as 0 to 1 by others: both are possible.
    (
        KnownMetric(name="", direction="max", low=0.0, high=100.0, percent=True),
        "bleu=sacrebleu=bleu1=bleu2=bleu3=bleu4 rouge=rouge1=rouge2=rougel=rougelsum "
        "chrf=chrfpp=chr_f gleu spice",
    ),
    (
        KnownMetric(name="", direction="max", low=-_INF, high=_INF),
        "psnr sdr=sisdr=sisnr=snr=si_sdr=si_snr pesq mos comet bleurt elo reward "
        "log_likelihood=loglik=loglikelihood elbo calinski_harabasz",
    ),
    (
        KnownMetric(name="", direction="max", low=0.0, high=_INF),
        "dcg cider inception_score throughput",
    ),
    (
        KnownMetric(name="", direction="min", low=0.0, high=_INF, percent=True, heavy_tailed=True),
        "error=err=errors wer cer ter mer=wip der=diarization_error mape=smape=wape=wmape=smdape",
    ),
    (
        KnownMetric(name="", direction="min", low=0.0, high=1.0, percent=True, heavy_tailed=True),
        "eer fpr fnr ece mce=calibration_error",
    ),
    (
        KnownMetric(name="", direction="min", low=0.0, high=2.0, heavy_tailed=True),
        "brier=brier_score cosine_distance",
    ),
    (
        KnownMetric(name="", direction="min", low=0.0, high=_INF, heavy_tailed=True),
        "mae=absolute_error=medae mse=squared_error rmse rmsle=msle nrmse=nmse mase=owa crps=wql "
        "pinball fid lpips hausdorff=hd95=assd chamfer davies_bouldin=dbi "
        "cross_entropy=crossentropy=xent=log_loss=logloss=bce bpc=bpb=bits_per bits=bpd "
        "rmsd edit_distance=levenshtein latency",
    ),
    (
        KnownMetric(name="", direction="min", low=1.0, high=_INF, heavy_tailed=True),
        "perplexity=ppl",
    ),
    # A density above 1, a margin, or a reward inside a loss makes it negative.
    (
        KnownMetric(name="", direction="min", low=-_INF, high=_INF, heavy_tailed=True),
        "loss=losses=objective_loss nll=negative_log_likelihood=neg_log_likelihood kl=kld kid",
    ),
    (
        KnownMetric(name="", direction=None, low=0.0, high=_INF, heavy_tailed=True),
        "entropy",
    ),
)
_WEAK: Final = frozenset({"top1"})
#: A name with one of these words is about a metric, or about the training; it does not name one.
_OTHER_QUANTITY: Final = frozenset(
    "std stdev stderr se ci var runtime time seconds sec samples count num lr threshold weight "
    "weights coef coefficient scale grad gain delta diff drop gap change ratio improvement "
    "patience margin".split()
)
_NEGATED: Final = frozenset({"neg", "negative", "minus"})
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DIGITS: Final = re.compile(r"(?<=[a-z])\d+$")


def _spellings() -> Iterator[tuple[tuple[str, ...], KnownMetric]]:
    for properties, words in _TABLE:
        for word in words.split():
            name, *others = word.split("=")
            metric = replace(properties, name=name.replace("_", " "))
            for spelling in (name, *others):
                yield tuple(spelling.split("_")), metric


_SPELLINGS: Final[Mapping[tuple[str, ...], KnownMetric]] = dict(_spellings())
_LONGEST: Final = max(map(len, _SPELLINGS))
#: All known metrics, by name.
KNOWN_METRICS: Final[Mapping[str, KnownMetric]] = {
    metric.name: metric for metric in _SPELLINGS.values()
}


@lru_cache(maxsize=4096)
def find_metric(name: str) -> KnownMetric | None:
    """The known metric that a logged name contains, or ``None``.

    Words of the name are compared: case, separators, splits (``eval``, ``test``) and trailing
    numbers (``ndcg@10``) do not matter. What ends in ``loss`` is a loss (``dice_loss``), and
    ``neg_mean_squared_error``, as scikit-learn writes it, is the negated metric. A name whose words
    name metrics of different directions, or another quantity (``accuracy_std``, ``loss_scale``), is
    unknown.

    Examples
    --------
    >>> find_metric("eval/top-1_accuracy").direction, find_metric("valLoss").direction
    ('max', 'min')
    >>> find_metric("neg_root_mean_squared_error").direction, find_metric("my score")
    ('max', None)
    """
    plain = _words(name)
    found, others = _matches(plain)
    if not found:
        found, others = _matches(_words(_CAMEL.sub(" ", name)))
    if not _OTHER_QUANTITY.isdisjoint(others):
        return None
    strong = [metric for metric in found if metric.name not in _WEAK] or found
    if not strong:
        return None
    metric = strong[-1]
    if metric.name != "loss" and len({each.direction for each in strong}) > 1:
        return None
    negated = not _NEGATED.isdisjoint(plain) and metric.name != "nll"
    if not negated or metric.direction != "min":
        return metric
    return KnownMetric(
        name=f"negative {metric.name}",
        direction="max",
        low=-metric.high,
        high=0.0 - metric.low,
        percent=metric.percent,
    )


def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in _SEPARATORS.split(name.lower()) if word)


def _matches(words: tuple[str, ...]) -> tuple[list[KnownMetric], list[str]]:
    """Metrics that words name, the longest spelling at each place, and the other words."""
    found: list[KnownMetric] = []
    others: list[str] = []
    at = 0
    while at < len(words):
        for n_words in range(_LONGEST, 0, -1):
            spelling = words[at : at + n_words]
            metric = _SPELLINGS.get(spelling)
            if metric is None and n_words == 1:
                metric = _SPELLINGS.get((_DIGITS.sub("", spelling[0]),))
            if metric is not None:
                found.append(metric)
                break
        else:
            others.append(words[at])
        at += n_words
    return found, others


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Values of a metric that are accepted as logged, and what they are divided by to be kept."""

    low: float
    high: float
    divisor: float = 1.0

    def excludes(self, logged: Any) -> Any:
        """Whether a value, or each of an array, is out of range by more than rounding."""
        margin = _ROUNDING * self.divisor
        return (logged < self.low - margin) | (logged > self.high + margin)


@lru_cache(maxsize=4096)
def accepted(metric: str, unit: Unit | None = None) -> Accepted:
    """Which logged values of a metric are possible.

    Without a unit these are the values of the metric's range (:func:`find_metric`): fractions are
    not guessed to be percentages. ``percent`` is for metrics that are usually logged as fractions
    or in percent, BLEU and unknown metrics among them: they are divided by 100. The others (a loss)
    are kept as they are. ``fraction`` and ``percent`` say of an unknown metric that it is a
    fraction, and of BLEU that it is kept as one.

    Examples
    --------
    >>> accepted("accuracy", "percent")
    Accepted(low=0.0, high=100.0, divisor=100.0)
    >>> accepted("bleu").high, accepted("bleu", "fraction").high
    (100.0, 1.0)
    """
    known = find_metric(metric)
    if known is None:
        low, high = UNBOUNDED if unit is None else (0.0, 1.0)
    else:
        is_either = known.percent and known.high == 100.0
        low, high = known.low, 1.0 if unit is not None and is_either else known.high
    divisor = 100.0 if unit == "percent" and (known is None or known.percent) else 1.0
    return Accepted(low=divisor * low, high=divisor * high, divisor=divisor)


def is_possible(metric: str, values: FloatArray, unit: Unit | None = None) -> BoolArray:
    """Whether logged values of a metric are within its range, but for rounding; NaN is."""
    possible: BoolArray = ~accepted(metric, unit).excludes(values)
    return possible


def range_problem(
    metric: str, value: float, unit: Unit | None = None, *, option: str = "--unit percent"
) -> str | None:
    """Why a logged value of a metric is impossible, with the way out; ``None`` if it is possible.

    ``option`` is how the caller says that values are in percent; empty if it cannot.

    Examples
    --------
    >>> range_problem("accuracy", 61.0)
    'accuracy 61.0 is outside [0, 1]: did you mean 0.61? For values in percent: --unit percent'
    """
    bounds, known = accepted(metric, unit), find_metric(metric)
    if not bounds.excludes(value):
        return None
    sign = " %" if bounds.divisor > 1.0 else ""
    low, high = f"{bounds.low:g}{sign}", f"{bounds.high:g}{sign}"
    if math.isinf(bounds.high):
        where = f"is below {low}"
    else:
        where = f"is outside {f'(-inf, {high}]' if math.isinf(bounds.low) else f'[{low}, {high}]'}"
    way = "if it is another quantity, give the metric another name"
    if not sign and bounds.high == 1.0 < abs(value) <= 100.0 and (known is None or known.percent):
        way = f"did you mean {value / 100.0:g}?"
        way += f" For values in percent: {option}" if option else ""
    if value == -1.0 and option:
        way = "if it means that there is no result: --missing=-1"
    return f"{metric} {value!r}{sign} {where}: {way}"


def direction_of(metric: str) -> Direction | None:
    """Which values of a metric are better; ``None`` if that is not known of its name."""
    known = find_metric(metric)
    return None if known is None else known.direction


def direction_problem(metric: str, direction: str) -> str | None:
    """Why a metric cannot have a direction, with the way out; ``None`` if it can.

    Examples
    --------
    >>> direction_problem("eval_loss", "max").partition(":")[0]
    "'eval_loss' is known as loss, of which lower is better (min), not max"
    >>> direction_problem("eval_loss", "min")
    """
    known = find_metric(metric)
    if known is None or known.direction is None or known.direction == direction:
        return None
    better = "lower" if known.direction == "min" else "higher"
    kind = "" if known.name == metric else f"is known as {known.name}, of which "
    told = f"{metric!r} {kind}" if kind else f"of {metric!r} "
    return (
        f"{told}{better} is better ({known.direction}), not {direction}: leave the direction out; "
        "if it is another quantity, give the metric another name"
    )


def natural_range(metric: str, lowest: float, highest: float) -> Range:
    """Values that a metric can take in a task whose logged values span ``lowest`` to ``highest``.

    Bounds come from :func:`find_metric`; a fraction logged in percent is at most 100. A bound that
    logged values violate is left out: the name misleads.

    Examples
    --------
    >>> natural_range("eval/top-1_accuracy", 0.2, 0.9), natural_range("accuracy", 20.0, 90.0)
    ((0.0, 1.0), (0.0, 100.0))
    >>> natural_range("images per second", 20.0, 90.0)
    (-inf, inf)
    """
    known = find_metric(metric)
    if known is None:
        return UNBOUNDED
    low = 0.0 if known.heavy_tailed and known.low < 0.0 <= lowest else known.low
    high = known.high
    if known.percent and high + _ROUNDING < highest:
        low, high = 100.0 * low, 100.0 * high
    return (
        low if lowest >= low - _ROUNDING else -_INF,
        high if highest <= high + _ROUNDING else _INF,
    )


def link_of(metric: str, lowest: float, highest: float) -> Link:
    """Scale on which outcomes in a metric are compared.

    Positive values of a heavy-tailed metric (a loss, an RMSE, a perplexity) are compared by ratios.

    Examples
    --------
    >>> link_of("rmse", 0.1, 1e6), link_of("accuracy", 0.1, 0.9), link_of("score", 0.1, 9.0)
    ('log', 'identity', 'identity')
    """
    known = find_metric(metric)
    return "log" if known is not None and known.heavy_tailed and lowest > 0.0 else "identity"
