"""``log_history`` of a ``trainer_state.json`` as series."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from recsys_ms.core.types import Direction
from recsys_ms.history.store.curves import Series

_EVAL: Final = "eval_"
#: ``trainer.predict`` and the scripts that save its metrics.
_OTHER_SPLITS: Final = ("test", "predict")
_RUNTIME: Final = "_runtime"
#: How fast, not how well.
_SPEED: Final = re.compile(
    r".*(_runtime|_(samples|steps|tokens)_per_second(_per_gpu)?|_jit_compilation_time"
    r"|_model_preparation_time|_samples|_mem_\w+_delta|_mem_before_init|_flos)|total_flos"
)
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)$")
_MAX_STEP: Final = 2**53
_SPELT: Final = ("nan", "inf", "-inf")

Point = tuple[int | None, float | None, float]


def number(value: Any) -> float | None:
    """``value`` as a float, where it is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def step_of(value: Any) -> int | None:
    """``value`` as a step, where it is a whole number."""
    found = number(value)
    if found is None or not abs(found) < _MAX_STEP or found != int(found):
        return None
    return int(found)


def series_of(rows: Iterable[Mapping[str, Any]], results: Mapping[str, Any]) -> tuple[Series, ...]:
    """All metrics of a run.

    Parameters
    ----------
    rows : iterable of mapping
        ``log_history``: training rows, evaluation rows (one a set, several at one step) and the
        final row of the training.
    results : mapping
        What ``*_results.json`` say; taken where the history does not have the metric.
    """
    points: dict[str, dict[object, Point]] = {}
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
            of_key = points.setdefault(_clean(key), {})
            at = step if step is not None else ("row", position)
            # Logged again after a resume: the later one counts, where it stands now.
            of_key.pop(at, None)
            of_key[at] = (step, epoch, found)
    epoch = number(results.get("epoch"))
    for key, value in results.items():
        # JSON that was made plain has no other way to say so.
        found = float(value) if value in _SPELT else number(value)
        split = key.startswith((_EVAL, *(f"{name}_" for name in _OTHER_SPLITS)))
        if found is not None and split and not _SPEED.fullmatch(key) and _clean(key) not in points:
            points[_clean(key)] = {None: (None, epoch, found)}
    sets = _eval_sets([*points, *map(str, results)], rows)
    return tuple(_series(key, of_key, sets) for key, of_key in points.items())


def _eval_sets(keys: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the evaluation sets, the longest first; the Trainer logs a run time for each."""
    named = {key for row in rows for key in row} | set(keys)
    sets = {
        key[len(_EVAL) : -len(_RUNTIME)]
        for key in named
        if key.startswith(_EVAL) and key.endswith(_RUNTIME)
    }
    return sorted(filter(None, sets), key=lambda name: (-len(name), name))


def _series(key: str, points: Mapping[object, Point], sets: Sequence[str]) -> Series:
    metric, split = key, "train"
    if key.startswith(_EVAL):
        metric, split = key[len(_EVAL) :], "eval"
        for name in sets:
            if metric.startswith(f"{name}_"):
                metric, split = metric[len(name) + 1 :], f"eval_{name}"
                break
    else:
        for name in _OTHER_SPLITS:
            if key.startswith(f"{name}_"):
                metric, split = key[len(name) + 1 :], name
    return Series(
        name=key,
        metric=metric or key,
        split=split,
        steps=[step for step, _, _ in points.values()],
        epochs=[epoch for _, epoch, _ in points.values()],
        values=[value for _, _, value in points.values()],
    )


def best_series(
    state: Mapping[str, Any], series: Iterable[Series]
) -> tuple[str | None, dict[str, Direction]]:
    """The series that the Trainer chose its best model by, and its direction, by evidence.

    The state holds ``best_metric`` and not whose it is: it is the one evaluation series of which it
    is the largest value and not the smallest (or the other way round), at the step the state says.
    Where several fit, or none, nothing is said.
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
        finite = [value for value in each.values if value == value]
        if not finite or max(finite) == min(finite):
            continue
        if best == max(finite):
            found[each.name] = "max"
        elif best == min(finite):
            found[each.name] = "min"
    if len(found) != 1:
        return None, {}
    return next(iter(found)), found


def _clean(key: str) -> str:
    # Half of a surrogate pair is no text that a table can hold.
    return key.encode(errors="backslashreplace").decode()
