"""All transferability scores of one model on one probe set."""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.core.types import RngLike
from recsys_ms.scores.checks import LabelKind
from recsys_ms.scores.label_embeddings import LabelEmbedding
from recsys_ms.scores.methods import METHODS, Method
from recsys_ms.scores.probe import Probe

_LOG = logging.getLogger(__name__)

ScoreStatus: TypeAlias = Literal["ok", "failed", "not_applicable"]
_MANY_DEAD: Final = 0.5
#: Errors of our own scores; a plugin's may raise anything.
_EXPECTED: Final = (ArithmeticError, ValueError, np.linalg.LinAlgError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One score.

    Attributes
    ----------
    value : float
        Higher is better; NaN unless ``status`` is ``ok``.
    status : {"ok", "failed", "not_applicable"}
        ``not_applicable`` where an input it needs was not given, or it takes other labels.
    reason : str
        Why it was not computed; else empty.
    unit : str
        Unit of the value.
    seconds : float
        Wall clock, without the shared decomposition.
    """

    value: float
    status: ScoreStatus
    reason: str = ""
    unit: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """Scores of one model on one probe set, and facts about the probe set.

    Attributes
    ----------
    scores : dict of str to Score
        By name, in a fixed order.
    n_probe, n_features : int
        Size of the probe set; 0 where the features cannot be read.
    n_classes : int
        Classes that examples have; 0 for other labels.
    rank : int
        Dimensions that the features span.
    dead_fraction : float
        Fraction of features that are the same for every example.
    flags : tuple of str
        Warnings about the probe set.
    seconds_shared : float
        Wall clock of checks and of the decomposition that scores share.
    """

    scores: dict[str, Score]
    n_probe: int
    n_features: int
    n_classes: int
    rank: int
    dead_fraction: float
    flags: tuple[str, ...]
    seconds_shared: float

    def __getitem__(self, name: str) -> float:
        """Value of a score, NaN where it was not computed."""
        return self.scores[name].value

    @property
    def values(self) -> dict[str, float]:
        """Values by name."""
        return {name: score.value for name, score in self.scores.items()}

    def to_frame(self) -> pd.DataFrame:
        """One row a score: ``value``, ``unit``, ``status``, ``reason``, ``seconds``."""
        return pd.DataFrame(
            {
                name: [getattr(score, name) for score in self.scores.values()]
                for name in ("value", "unit", "status", "reason", "seconds")
            },
            index=pd.Index(list(self.scores), name="score"),
        )


def score_all(
    features: ArrayLike,
    labels: ArrayLike,
    source_probs: ArrayLike | None = None,
    label_embeddings: Sequence[LabelEmbedding] | None = None,
    *,
    kind: LabelKind = "classes",
    scores: Iterable[str] | None = None,
    device: str | None = None,
    rng: RngLike = 0,
) -> ScoreReport:
    """Compute every transferability score that applies; higher is better for each.

    The features are decomposed once for all linear scores. A score that cannot be computed is NaN
    with the reason.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features)
        Outputs of the model before its head, on the probe set.
    labels : array-like of shape (n_probe,) or (n_probe, n_targets)
        Classes (integers or texts); zeros and ones of label sets; numbers.
    source_probs : array-like of shape (n_probe, n_source_classes), optional
        Probabilities of the model's own head, for LEEP, NCE and PACTran-Dirichlet.
    label_embeddings : sequence of LabelEmbedding, optional
        Of the labels, for EMMS: :func:`recsys_ms.scores.label_embeddings.label_embeddings`.
    kind : {"classes", "multilabel", "regression"}
        Kind of the labels.
    scores : iterable of str, optional
        Names of :data:`recsys_ms.scores.methods.METHODS`; default: all.
    device : str, optional
        Torch device for the decomposition; default: NumPy.
    rng : int or Generator, default 0
        For N-LEEP's mixture.

    Returns
    -------
    ScoreReport

    Raises
    ------
    UsageError
        An unknown score, or kind of labels.
    PluginError
        A score named in ``scores`` of an installed package that cannot be used. Without ``scores``
        there is a warning, and the others are computed.
    """
    if kind not in get_args(LabelKind):
        raise UsageError(f"kind: got {kind!r}, expected one of {', '.join(get_args(LabelKind))}")
    chosen = _chosen(scores)
    probe = Probe(
        features,
        labels,
        source_probs=source_probs,
        label_embeddings=label_embeddings,
        kind=kind,
        device=device,
        rng=rng,
    )
    start = time.perf_counter()
    # Parts that several scores need; each of them reports what failed.
    try:
        if any(method.is_linear and kind in method.kinds for method in chosen):
            _ = probe.geometry if kind == "classes" else probe.statistics
    except (ProbeSetError, np.linalg.LinAlgError) as error:
        _LOG.debug("no decomposition: %s", error)
    shared = time.perf_counter() - start
    found = {method.name: score_one(method, probe) for method in chosen}
    return _report(probe, found, shared)


def _chosen(names: Iterable[str] | None) -> list[Method]:
    if names is None:
        return [method for _, method in METHODS.usable()]
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in METHODS]
    if unknown:
        raise UsageError(f"scores: {unknown[0]!r} is unknown; known are {', '.join(METHODS)}")
    return [METHODS[name] for name in wanted]


def score_one(method: Method, probe: Probe) -> Score:
    """Compute one score of a probe set; a failure is reported as its reason."""
    why_not = method.why_not(probe)
    if why_not:
        return Score(value=float("nan"), status="not_applicable", reason=why_not, unit=method.unit)
    start = time.perf_counter()
    value, reason = float("nan"), ""
    try:
        value = float(method.compute(probe))
    except ProbeSetError as error:
        reason = str(error)
    # A failing score must not stop the others.
    except Exception as error:
        if method.name in METHODS.own and not isinstance(error, _EXPECTED):
            raise
        reason = f"{type(error).__name__}: {error}"
        _LOG.warning("score %s failed: %s", method.name, reason)
    if not reason and not np.isfinite(value):
        value, reason = float("nan"), "the computation overflowed; scale the features"
    return Score(
        value=value,
        status="failed" if reason else "ok",
        reason=reason,
        unit=method.unit,
        seconds=time.perf_counter() - start,
    )


def _report(probe: Probe, found: dict[str, Score], shared: float) -> ScoreReport:
    n_probe = n_features = n_classes = rank = 0
    dead = float("nan")
    flags: list[str] = []
    try:
        n_probe, n_features = probe.features.shape
        if probe.kind == "classes":
            n_classes = probe.classes.n_classes
            smallest = int(probe.classes.counts.min())
            if smallest < 2:
                flags.append("a class has a single example, which no score can learn from")
        statistics = probe.statistics
        rank, dead = statistics.rank, statistics.dead_fraction
        if dead > 0.0:
            text = f"{dead:.0%} of the features are the same for every example"
            flags.append(text + ("; was the model run as intended?" if dead >= _MANY_DEAD else ""))
        if rank >= n_probe:
            flags.append(
                "the features span all examples: h_score, fda, sfda and emms are at their bounds; "
                "use more examples than features, or logme, h_score_shrunk, linear_probe"
            )
    except (ProbeSetError, np.linalg.LinAlgError) as error:
        flags.append(str(error))
    return ScoreReport(
        scores=found,
        n_probe=n_probe,
        n_features=n_features,
        n_classes=n_classes,
        rank=rank,
        dead_fraction=dead,
        flags=tuple(flags),
        seconds_shared=shared,
    )
