"""Charts of the report: the Vega-Lite specifications of ``charts.yaml`` with their data put in."""

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import pandas as pd
import yaml

from recsys_ms.core.types import JsonDict
from recsys_ms.evaluation.result import ORACLE, POPULARITY, RANDOM, STATIC
from recsys_ms.evaluation.text_table import records


def chart_spec(
    key: str,
    *,
    metric: str | None = None,
    rankers: Sequence[str] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    **data: pd.DataFrame,
) -> JsonDict:
    """Vega-Lite specification of one chart.

    Parameters
    ----------
    key : str
        Key of ``charts.yaml``.
    metric : str, optional
        The metric that is shown first, where readers can choose one.
    rankers : sequence of str
        Rankers in the order of the theme's colours (:func:`ranker_colours`): a ranker has the same
        colour and shape in every chart. The legend names those that occur in the data, whose column
        ``ranker`` is joined by the position there, ``ranker_at``.
    names : mapping of str to sequence of str, optional
        Texts that the specification looks up by position, such as ``task_names``.
    **data : DataFrame
        The data sets that the specification names.
    """
    spec: JsonDict = copy.deepcopy(_templates()[key])
    place = {name: at for at, name in enumerate(rankers)}
    for name, frame in data.items():
        if rankers and "ranker" in frame:
            data[name] = frame.assign(ranker_at=frame["ranker"].map(place))
    spec["datasets"] = {name: records(frame) for name, frame in data.items()}
    if "usermeta" in spec:
        (rows,) = data.values()
        n_rows = rows[spec["encoding"]["y"]["field"]].nunique()
        spec["height"] = n_rows * spec["usermeta"]["step"]
    if metric is not None:
        spec["params"][0]["value"] = metric
    looked_up = {**({"ranker_names": rankers} if rankers else {}), **(names or {})}
    if looked_up:
        added = [{"name": name, "value": list(texts)} for name, texts in looked_up.items()]
        spec["params"] = [*spec.get("params", ()), *added]
    for part in (spec, *spec.get("layer", ())):
        for name in ("color", "shape"):
            channel = part.get("encoding", {}).get(name, {})
            if channel.get("field") == "ranker_at":
                channel["scale"]["domain"] = list(range(len(rankers)))
                if channel["legend"] is not None:
                    present = set().union(*(frame["ranker_at"] for frame in data.values()))
                    channel["legend"]["values"] = sorted(int(at) for at in present)
    return spec


def ranker_colours(rankers: Sequence[str], focus: str) -> list[str]:
    """Rankers in the order of the theme's colours: focus, the reference rows, the others."""
    fixed = [focus, *(name for name in (POPULARITY, RANDOM, ORACLE, STATIC) if name != focus)]
    return [*fixed, *sorted(set(rankers) - set(fixed))]


@lru_cache(maxsize=1)
def _templates() -> dict[str, Any]:
    text = resources.files("recsys_ms.report").joinpath("charts.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found
