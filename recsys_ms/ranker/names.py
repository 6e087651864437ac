"""Rankers by name, as the command line and the back-test ask for them."""

from typing import Final

from recsys_ms.core.errors import UsageError
from recsys_ms.ranker.auto import AutoRanker
from recsys_ms.ranker.base import BaseRanker
from recsys_ms.ranker.by_score import ScoredHistoryRanker, ScoreRanker
from recsys_ms.ranker.cards import CardRanker
from recsys_ms.ranker.fennec import FennecRanker
from recsys_ms.ranker.meta import (
    FactorizationMachineRanker,
    HeadRanker,
    LightGBMRanker,
    LinearRanker,
)
from recsys_ms.ranker.popularity import PopularityRanker, RandomRanker
from recsys_ms.ranker.transfer import ALSRanker, NMFRanker

RANKERS: Final[dict[str, type[BaseRanker]]] = {
    ranker.name: ranker
    for ranker in (
        RandomRanker,
        PopularityRanker,
        CardRanker,
        NMFRanker,
        ALSRanker,
        LinearRanker,
        FactorizationMachineRanker,
        LightGBMRanker,
        FennecRanker,
        AutoRanker,
    )
}
RANKER_NAMES: Final = tuple(RANKERS)


#: How a back-test may ask for variants of the rankers.
SPEC_HELP: Final = (
    "NAME; score:SCORE (that score alone); lr+SCORE[+SCORE], fm+SCORE, gbdt+SCORE (of the scores, "
    "these only; +none for no score); fennec:ALPHA; NAME@SCORE (trained on a history of that score)"
)
_HEADS: Final[dict[str, type[HeadRanker]]] = {
    head.name: head for head in (LinearRanker, FactorizationMachineRanker, LightGBMRanker)
}
_NO_SCORE: Final = "none"


def make_ranker(name: str) -> BaseRanker:
    """Make an unfitted ranker.

    Parameters
    ----------
    name : str
        A name of :data:`RANKER_NAMES`, or one of the variants that :data:`SPEC_HELP` lists.

    Raises
    ------
    UsageError
        No ranker has that name.
    """
    if name in RANKERS:
        return RANKERS[name]()
    inner, at, score = name.partition("@")
    if at and score:
        return ScoredHistoryRanker(make_ranker(inner), score)
    kind, colon, option = name.partition(":")
    if colon and kind == ScoreRanker.name and option:
        return ScoreRanker(option)
    if colon and kind == FennecRanker.name:
        return FennecRanker(_alpha(name, option))
    head, plus, scores = name.partition("+")
    if plus and head in _HEADS and scores:
        return _HEADS[head]([] if scores == _NO_SCORE else scores.split("+"))
    raise UsageError(
        f"no ranker is named {name!r}; choose from {', '.join(RANKER_NAMES)}. Variants: {SPEC_HELP}"
    )


def _alpha(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"ranker {name!r}: {text!r} is no number; wanted fennec:0.5") from error
