"""Names that Weights & Biases gives to metrics, states and runs."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.history.run import ISO_WITH_ZONE
from recsys_ms.history.store.curves import Series

#: States by what they say of a run; a preempted run may come back under the same id.
STATUS_OF: Final = {
    "finished": "finished",
    "crashed": "failed",
    "failed": "failed",
    "killed": "failed",
    "preempted": "failed",
    "running": "running",
    "pending": "running",
    "preempting": "running",
}
#: How NaN and infinities stand in the JSON of W&B.
SPELT_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: What counts time and is no metric.
EPOCHS: Final = ("epoch", "train/epoch")

_SPLIT: Final = re.compile(
    r"(train|training|val|valid|validation|eval|evaluation|test|dev)[/_.](.+)", re.DOTALL
)
_MAX_DEPTH: Final = 4
#: Run fields that a column of an export means when it is called so.
_MEANT: Final = {
    c.MODEL_ID,
    c.MODEL_REVISION,
    c.TASK_ID,
    c.SEED,
    c.DATASET_FINGERPRINT,
}


def split_of(name: str) -> tuple[str | None, str]:
    """Split and metric of a name: ``val/acc`` and ``val_acc`` are ``acc`` on ``val``."""
    found = _SPLIT.fullmatch(name)
    return (found[1], found[2]) if found else (None, name)


def number_of(value: object) -> float | None:
    """Number of a logged value; ``None`` for truth values, texts and media."""
    if isinstance(value, str):
        return SPELT_FLOATS.get(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def summary_numbers(
    summary: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, float]]:
    """Metrics of a summary, nested ones by ``name.min``; what W&B keeps for itself is left out."""
    for key, value in summary.items():
        if (not prefix and key.startswith("_")) or (not prefix and key in EPOCHS):
            continue
        if isinstance(value, dict):
            if "_type" not in value and depth < _MAX_DEPTH:
                yield from summary_numbers(value, f"{prefix}{key}.", depth + 1)
            continue
        number = number_of(value)
        if number is not None:
            yield f"{prefix}{key}", number


def last_value(name: str, value: float) -> Series:
    """Series of the one value that a summary holds; when it was logged is not said."""
    split, metric = split_of(name)
    return Series(
        name=name, metric=metric, split=split, steps=(None,), epochs=(None,), values=(value,)
    )


def moment_of(cell: object) -> datetime | None:
    """Time that says its zone; ``None`` for any other cell."""
    if isinstance(cell, datetime):
        return cell if cell.tzinfo is not None else None
    if not isinstance(cell, str) or not ISO_WITH_ZONE.fullmatch(cell):
        return None
    try:
        return datetime.fromisoformat(cell)
    except ValueError:
        return None


def unwrapped(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a config, without W&B's own; ``{"value": 3, "desc": null}`` is 3."""
    return {
        name: value["value"]
        if isinstance(value, dict) and "value" in value and value.keys() <= {"value", "desc"}
        else value
        for name, value in config.items()
        if not name.startswith("_") and name != "wandb_version"
    }


def apart(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of an export; those named like a field of a run without being one go to ``export``.

    ``epoch``, ``metric`` or ``status`` are words of many tables; ``seed`` means the seed.
    """
    other = {name: cell for name, cell in cells.items() if name in c.RUN_COLUMNS}
    other = {name: cell for name, cell in other.items() if name not in _MEANT}
    found = {name: cell for name, cell in cells.items() if name not in other}
    return {**found, "export": other} if other else found


def progress_of(
    *, timestamp: object = None, step: object = None, runtime: object = None, ended: bool
) -> int | None:
    """How far a run has come: time of its last row, else its step, else its seconds; then its end.

    Times are in milliseconds since 1970 and thus above any step: the export that tells more wins.
    """
    for value, scale in ((timestamp, 1000.0), (step, 1.0), (runtime, 1.0)):
        number = number_of(value)
        if number is not None and 0.0 <= number < 1e12:
            return 2 * int(number * scale) + int(ended)
    return None
