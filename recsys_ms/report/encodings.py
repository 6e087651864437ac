"""Encodings that the charts share.

The colours of rankers are named by place in the theme's list, so that a ranker has one colour in
all charts, in the light and in the dark.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.result import ORACLE, POPULARITY, RANDOM, STATIC
from recsys_ms.report.blocks import records


def colour_domain(rankers: Sequence[str], focus: str) -> list[str]:
    """Rankers in the order of the theme's colours: focus, the rows always there, others."""
    fixed = [focus, *(name for name in (POPULARITY, RANDOM, ORACLE, STATIC) if name != focus)]
    return [*fixed, *sorted(set(rankers) - set(fixed))]


def inline(frame: pd.DataFrame) -> JsonDict:
    """Data of a chart, in the specification itself."""
    return {"data": {"values": records(frame)}}


def nominal(field: str, *, sort: Sequence[str]) -> JsonDict:
    """A field of names, in a given order."""
    return {"field": field, "type": "nominal", "sort": list(sort), "title": None}


def quantity(field: str, title: str, **more: Any) -> JsonDict:
    """A field of numbers; ``domain`` and ``zero`` go to its scale, ``format`` to its axis."""
    encoding: JsonDict = {"field": field, "type": "quantitative", "title": title}
    scale = {key: more.pop(key) for key in ("domain", "zero") if key in more}
    if scale:
        encoding["scale"] = scale
    if "format" in more:
        encoding["axis"] = {"format": more.pop("format")}
    return {**encoding, **more}


def tip(field: str, title: str | None = None, shape: str | None = None) -> JsonDict:
    """A line of a tooltip; with a format the field is a number."""
    tip: JsonDict = {"field": field, "title": title or field}
    # A text stays one though it looks like a number; numbers are written in their format.
    tip["type"] = "quantitative" if shape else "nominal"
    return {**tip, "format": shape} if shape else tip


_SHAPES: Final = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")


def ranker_colour(
    domain: Sequence[str], present: Sequence[str], *, legend: bool = True
) -> JsonDict:
    """Colour by ranker, from the theme's list."""
    return _by_ranker({"domain": list(domain), "range": "category"}, domain, present, legend)


def ranker_shape(domain: Sequence[str], present: Sequence[str], *, legend: bool = True) -> JsonDict:
    """Shape by ranker, so that colour is not alone."""
    shapes = [_SHAPES[i % len(_SHAPES)] for i in range(len(domain))]
    return _by_ranker({"domain": list(domain), "range": shapes}, domain, present, legend)


def _by_ranker(
    scale: Mapping[str, Any], domain: Sequence[str], present: Sequence[str], legend: bool
) -> JsonDict:
    shown = {"title": None, "values": [name for name in domain if name in set(present)]}
    return {
        "field": "ranker",
        "type": "nominal",
        "scale": dict(scale),
        "legend": shown if legend else None,
    }
