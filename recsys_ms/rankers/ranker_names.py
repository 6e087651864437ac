"""Rankers by name, or by a spec of name and settings such as ``nmf:8``."""

import inspect
import re
from collections.abc import Mapping
from typing import Final

from recsys_ms.core.configured import text_of, values_of
from recsys_ms.core.errors import UsageError
from recsys_ms.core.plugins import PluginTable
from recsys_ms.rankers.base import BaseRanker

#: Our own rankers; a new one is a file and a line here.
_HOMES: Final[Mapping[str, str]] = {
    "random": "recsys_ms.rankers.popularity:RandomRanker",
    "popularity": "recsys_ms.rankers.popularity:PopularityRanker",
    "static": "recsys_ms.rankers.static:StaticRanker",
    "cards": "recsys_ms.rankers.by_cards:CardRanker",
    "nmf": "recsys_ms.rankers.transfer:NMFRanker",
    "als": "recsys_ms.rankers.transfer:ALSRanker",
    "lr": "recsys_ms.rankers.meta:LinearRanker",
    "fm": "recsys_ms.rankers.meta:FactorizationMachineRanker",
    "gbdt": "recsys_ms.rankers.meta:LightGBMRanker",
    "fennec": "recsys_ms.rankers.fennec:FennecRanker",
    "gp": "recsys_ms.rankers.gp:PairProcessRanker",
    "auto": "recsys_ms.rankers.auto:AutoRanker",
}
#: Rankers that need scores in the catalog.
_OF_SCORES: Final[Mapping[str, str]] = {
    "score": "recsys_ms.rankers.by_score:ScoreRanker",
    "scored-history": "recsys_ms.rankers.by_score:ScoredHistoryRanker",
}
_GROUP: Final = "recsys_ms.rankers"
#: ``NAME@SCORE`` is this ranker, and NAME the ranker that learns.
_AT: Final = "scored-history"
_SIGNS: Final = re.compile(r"[:+]")
_SETTING: Final = re.compile(r"\s*[A-Za-z_]\w*=")


def _checked(name: str, found: object) -> type[BaseRanker]:
    if not (inspect.isclass(found) and issubclass(found, BaseRanker)):
        raise TypeError(f"{found!r} is not a subclass of recsys_ms.rankers.base.BaseRanker")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise TypeError(f"{found.__name__} does not define {missing}")
    if getattr(found, "name", None) != name:
        raise TypeError(f"{found.__name__}.name is {getattr(found, 'name', None)!r}, not {name!r}")
    return found


#: Every ranker class by name, ours and those that installed packages add.
RANKERS: Final = PluginTable(_GROUP, {**_HOMES, **_OF_SCORES}, _checked)
#: Our own rankers that learn from any history.
RANKER_NAMES: Final = tuple(_HOMES)

#: The forms of a spec.
SPEC_HELP: Final = (
    "NAME:SETTING=VALUE,SETTING=VALUE; short: nmf:RANK; fennec:ALPHA; lr+SCORE[+SCORE], fm+SCORE, "
    "gbdt+SCORE, gp+SCORE (of the scores, these only; +none for no score); score:SCORE (that score "
    "alone); NAME@SCORE (trained on a history of that score)"
)


def ranker_class(name: str) -> type[BaseRanker]:
    """The class of a ranker.

    Raises
    ------
    UsageError
        An unknown name.
    PluginError
        The installed package that adds the ranker cannot be used.
    """
    if name not in RANKERS:
        raise _unknown(name)
    return RANKERS[name]


def _unknown(spec: str) -> UsageError:
    return UsageError(
        f"no ranker is named {spec!r}; choose from {', '.join(RANKERS)}. Variants: {SPEC_HELP}"
    )


def make_ranker(spec: str, params: Mapping[str, object] | None = None) -> BaseRanker:
    """Make an unfitted ranker.

    Parameters
    ----------
    spec : str
        A name of :data:`RANKERS`, alone or with settings, as :data:`SPEC_HELP` says.
    params : mapping of setting to value, optional
        More settings; ``make_ranker("nmf", {"n_factors": 8})`` is ``make_ranker("nmf:8")``.

    Raises
    ------
    UsageError
        An unknown name, an unknown setting, or an invalid value.
    PluginError
        The installed package that adds the ranker cannot be used.
    """
    name, found = parse_spec(spec)
    return ranker_class(name)(**joined(spec, found, params or {}))


def joined(
    spec: str, found: Mapping[str, object], params: Mapping[str, object]
) -> dict[str, object]:
    """Settings of a spec and those beside it; a setting in both raises ``UsageError``."""
    if twice := sorted(set(found) & set(params)):
        raise UsageError(f"ranker {spec!r}: {twice[0]} is set in the name and in params; keep one")
    return {**found, **params}


def parse_spec(spec: str) -> tuple[str, dict[str, object]]:
    """Split a spec into the name of a ranker and its settings, as texts.

    Raises
    ------
    UsageError
        An unknown name, or a short form that the ranker does not have.
    """
    if spec in RANKERS:
        return spec, {}
    inner, _, score = spec.rpartition("@")
    if inner and score:
        return _AT, {"ranker": inner, "score": score}
    sign = _SIGNS.search(spec)
    if sign is None or spec[: sign.start()] not in RANKERS or not spec[sign.end() :]:
        raise _unknown(spec)
    name, rest = spec[: sign.start()], spec[sign.end() :]
    found: dict[str, object] = {}
    short = ranker_class(name).short_forms.get(sign.group())
    for at, piece in enumerate(rest.split(",")):
        if sign.group() == ":" and _SETTING.match(piece):
            setting, _, text = piece.strip().partition("=")
        elif at == 0 and short is not None:
            setting, text = short, piece
        else:
            raise UsageError(
                f"ranker {spec!r}: {piece!r} is not SETTING=VALUE of {name}. Variants: {SPEC_HELP}"
            )
        if setting in found:
            raise UsageError(f"ranker {spec!r}: {setting} is set twice; keep one")
        found[setting] = text
    return name, found


def spec_of(name: str, params: Mapping[str, object]) -> str:
    """The spec that :func:`parse_spec` splits into a name and settings."""
    if name == _AT:
        # Settings after a colon would be those of the ranker that learns.
        told = values_of(ranker_class(name)(**params).config)
        return f"{told['ranker']}@{told['score']}"
    texts = ",".join(f"{setting}={text_of(value)}" for setting, value in params.items())
    return f"{name}:{texts}" if texts else name


def split_specs(text: str) -> list[str]:
    """Split specs at commas; ``SETTING=VALUE`` belongs to the spec before it."""
    found: list[str] = []
    for piece in text.split(","):
        if found and _SETTING.match(piece):
            found[-1] += f",{piece.strip()}"
        elif piece.strip():
            found.append(piece.strip())
    return found
