"""Rankers by name, as the command line and the back-test ask for them."""

from dataclasses import replace
from typing import Final, TypeVar

from recsys_ms.core.errors import UsageError
from recsys_ms.ranker.auto import AutoRanker
from recsys_ms.ranker.base import BaseRanker
from recsys_ms.ranker.by_score import ScoredHistoryRanker, ScoreRanker
from recsys_ms.ranker.cards import CardRanker
from recsys_ms.ranker.fennec import FennecRanker
from recsys_ms.ranker.gp import PairProcessRanker
from recsys_ms.ranker.meta import (
    FactorizationMachineRanker,
    HeadRanker,
    LightGBMRanker,
    LinearRanker,
)
from recsys_ms.ranker.popularity import PopularityRanker, RandomRanker
from recsys_ms.ranker.static import StaticRanker
from recsys_ms.ranker.transfer import ALSRanker, NMFRanker

Number = TypeVar("Number", int, float)

RANKERS: Final[dict[str, type[BaseRanker]]] = {
    ranker.name: ranker
    for ranker in (
        RandomRanker,
        PopularityRanker,
        StaticRanker,
        CardRanker,
        NMFRanker,
        ALSRanker,
        LinearRanker,
        FactorizationMachineRanker,
        LightGBMRanker,
        FennecRanker,
        PairProcessRanker,
        AutoRanker,
    )
}
RANKER_NAMES: Final = tuple(RANKERS)


#: How a back-test may ask for variants of the rankers.
SPEC_HELP: Final = (
    "NAME; score:SCORE (that score alone); lr+SCORE[+SCORE], fm+SCORE, gbdt+SCORE (of the scores, "
    "these only; +none for no score); fennec:ALPHA; nmf:RANK; NAME@SCORE (trained on a history of "
    "that score)"
)
_HEADS: Final[dict[str, type[HeadRanker] | type[PairProcessRanker]]] = {
    LinearRanker.name: LinearRanker,
    FactorizationMachineRanker.name: FactorizationMachineRanker,
    LightGBMRanker.name: LightGBMRanker,
    PairProcessRanker.name: PairProcessRanker,
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
        return FennecRanker(_number(name, option, float))
    if colon and kind == NMFRanker.name:
        return NMFRanker(replace(NMFRanker().config, n_factors=_number(name, option, int)))
    head, plus, scores = name.partition("+")
    if plus and head in _HEADS and scores:
        return _HEADS[head]([] if scores == _NO_SCORE else scores.split("+"))
    raise UsageError(
        f"no ranker is named {name!r}; choose from {', '.join(RANKER_NAMES)}. Variants: {SPEC_HELP}"
    )


def _number(name: str, text: str, kind: type[Number]) -> Number:
    try:
        return kind(text)
    except ValueError as error:
        raise UsageError(
            f"ranker {name!r}: {text!r} is no number; wanted such as fennec:0.5 or nmf:8"
        ) from error
