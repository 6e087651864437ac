"""``log_history`` of a ``trainer_state.json`` as series."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from recsys_ms.core.types import Direction
from recsys_ms.history.readers.formats.plain_values import clean, number, step_of
from recsys_ms.history.store.curves import Series

_EVAL: Final = "eval_"
#: Prefixes of ``trainer.predict`` and of the scripts that save its metrics.
_OTHER_SPLITS: Final = ("test", "predict")
_RUNTIME: Final = "_runtime"
#: Measures of speed, which are not metrics.
_SPEED: Final = re.compile(
    r".*(_runtime|_(samples|steps|tokens)_per_second(_per_gpu)?|_jit_compilation_time"
    r"|_model_preparation_time|_samples|_mem_\w+_delta|_mem_before_init|_flos)|total_flos"
)
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)$")
#: Numbers that plain data holds as text.
_SPELT: Final = ("nan", "inf", "-inf")


def series_of(rows: Iterable[Mapping[str, Any]], results: Mapping[str, Any]) -> tuple[Series, ...]:
    """All metrics of a run.

    ``rows`` are the ``log_history``: training rows, evaluation rows (one a set, several at one
    step) and the final row of the training. ``results`` are the content of ``*_results.json``,
    used where the history does not have the metric.
    """
    points: dict[str, dict[object, tuple[int | None, float | None, float]]] = {}
    for position, row in enumerate(rows):
        step, epoch = step_of(row.get("step")), number(row.get("epoch"))
        # The last row sums the training up: its loss is a mean over all of it.
        final = "train_runtime" in row
        for key, value in row.items():
            found = number(value)
            if found is None or key in ("step", "epoch") or _SPEED.fullmatch(key):
                continue
            if final and key.startswith("train_"):
                continue
            of_key = points.setdefault(clean(key), {})
            at = step if step is not None else ("row", position)
            # Logged again after a resume: the later value counts, where it is now.
            of_key.pop(at, None)
            of_key[at] = (step, epoch, found)
    epoch = number(results.get("epoch"))
    for key, value in results.items():
        found = float(value) if value in _SPELT else number(value)
        split = key.startswith((_EVAL, *(f"{name}_" for name in _OTHER_SPLITS)))
        if found is not None and split and not _SPEED.fullmatch(key) and clean(key) not in points:
            points[clean(key)] = {None: (None, epoch, found)}
    sets = _eval_sets([*points, *map(str, results)], rows)
    return tuple(
        Series.of(key, *_parts(key, sets), of_key.values()) for key, of_key in points.items()
    )


def _eval_sets(keys: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the evaluation sets, the longest first; the Trainer logs a run time for each."""
    named = {key for row in rows for key in row} | set(keys)
    sets = {
        key[len(_EVAL) : -len(_RUNTIME)]
        for key in named
        if key.startswith(_EVAL) and key.endswith(_RUNTIME)
    }
    return sorted(filter(None, sets), key=lambda name: (-len(name), name))


def _parts(key: str, sets: Sequence[str]) -> tuple[str, str]:
    """Metric and split of a key; a key without a prefix is of the training."""
    prefixes = {f"{_EVAL}{name}_": f"eval_{name}" for name in sets}
    prefixes |= {f"{name}_": name for name in ("eval", *_OTHER_SPLITS)}
    for prefix, split in prefixes.items():
        if key.startswith(prefix):
            return key.removeprefix(prefix) or key, split
    return key, "train"


def best_series(
    state: Mapping[str, Any], series: Iterable[Series]
) -> tuple[str | None, dict[str, Direction]]:
    """The series that the Trainer chose its best model by, and its direction, by evidence.

    The state holds the value ``best_metric`` without the metric's name: it is of the one
    evaluation series of which it is the largest value and not the smallest (or vice versa), at the
    step in the state. Empty where several series fit, or none.
    """
    best = number(state.get("best_metric"))
    if best is None:
        return None, {}
    step = step_of(state.get("best_global_step"))
    if step is None:
        folder = _CHECKPOINT.search(str(state.get("best_model_checkpoint") or "").rstrip("/\\"))
        step = int(folder[1]) if folder and len(folder[1]) < 16 else None
    found: dict[str, Direction] = {}
    for each in series:
        if each.split is None or not each.split.startswith("eval"):
            continue
        at_step = [v for s, v in zip(each.steps, each.values, strict=True) if s == step]
        if step is not None and best not in at_step:
            continue
        known = [value for value in each.values if value == value]
        if known and max(known) != min(known) and best in (max(known), min(known)):
            found[each.name] = "max" if best == max(known) else "min"
    return (next(iter(found)), found) if len(found) == 1 else (None, {})
