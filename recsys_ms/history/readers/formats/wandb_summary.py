"""What W&B keeps of a run at its end: settings, and the last value of each metric."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.plain_values import not_none, number, split_of
from recsys_ms.history.readers.formats.stated_params import best_by, settings_fields
from recsys_ms.history.readers.formats.wandb_history import (
    EPOCHS,
    SPELT_FLOATS,
    TIMES,
    progress_of,
)
from recsys_ms.history.readers.logged import LoggedRun
from recsys_ms.history.store.curves import Series

#: Entries of a config that W&B makes.
_OWN: Final = ("_wandb", "wandb_version")
_MAX_DEPTH: Final = 4
_SUMMARY: Final = re.compile(r"\.(max|min|best|last|mean|first)$")


def summary_run(
    *,
    file: str,
    identity: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    fields: Mapping[str, Any],
    columns: Mapping[str, Any],
    line: int | None = None,
) -> LoggedRun:
    """The run of a config and a summary, with further ``fields`` and ``columns``."""
    settings = settings_in(config)
    series = [last_value(*each) for each in dict(numbers_in(summary)).items()]
    # What define_metric(NAME, summary="max") leaves of a metric, where it leaves nothing else.
    kept = Counter(_SUMMARY.sub("", each.metric) for each in series)
    series = [
        replace(each, metric=name) if kept[name := _SUMMARY.sub("", each.metric)] == 1 else each
        for each in series
    ]
    chosen, directions = best_by(settings, [each.name for each in series])
    stated: JsonDict = {**settings_fields(settings), **fields}
    return LoggedRun(
        file=file,
        identity=identity,
        line=line,
        columns={**columns, "config": settings, "summary": summary},
        fields=not_none(stated),
        series=series,
        chosen=chosen,
        directions=directions,
        progress=progress_of(
            *(number_in(summary.get(name)) for name in TIMES),
            ended=stated.get(c.STATUS) != "running",
        ),
    )


def settings_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a config, without W&B's own; ``{"value": 3, "desc": null}`` is 3."""
    return {
        name: value["value"]
        if isinstance(value, dict) and "value" in value and value.keys() <= {"value", "desc"}
        else value
        for name, value in config.items()
        if name not in _OWN
    }


def number_in(value: object) -> float | None:
    """Number of a summary's value; ``None`` for truth values, texts and media."""
    return SPELT_FLOATS.get(value) if isinstance(value, str) else number(value)


def numbers_in(
    summary: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, float]]:
    """Metrics of a summary, nested ones by ``name.min``, without W&B's own entries."""
    for key, value in summary.items():
        if not prefix and (key.startswith("_") or key in EPOCHS):
            continue
        if isinstance(value, dict):
            if "_type" not in value and depth < _MAX_DEPTH:
                yield from numbers_in(value, f"{prefix}{key}.", depth + 1)
            continue
        found = number_in(value)
        if found is not None:
            yield f"{prefix}{key}", found


def last_value(name: str, value: float) -> Series:
    """Series of a single value; a summary does not say when it was logged."""
    split, metric = split_of(name)
    return Series.of(name, metric, split, [(None, None, value)])
