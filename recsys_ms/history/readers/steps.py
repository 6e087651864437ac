"""Says whether the rows of a table are epochs or steps of runs, so that none of them is a run."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.core.known_metrics import find_metric
from recsys_ms.history.readers.number_style import to_number

_EPOCHS: Final = ("epoch", "current_epoch", "epoch_num", "epoch_number", "epoch_id")
_STEPS: Final = (
    "step",
    "_step",
    "global_step",
    "trainer/global_step",
    "iteration",
    "iter",
    "training_iteration",
    "round",
    "n_iter",
)
_VAL: Final = "val_"
#: What pandas writes, and reads, as the name of an index without one.
INDEX_NAMES: Final = ("", "Unnamed: 0", "index", "column_1")
_CLOCK: Final = re.compile(r"(\d+:)?\d+:\d\d(\.\d+)?|\d{4}-\d\d-\d\d([T ].*)?")
#: Also with a comma, a percent sign or a spread: no name of a model or task.
_NUMBER_LIKE: Final = re.compile(
    r"[+-]?(\d[\d.,]*(e[+-]?\d+)?|[.,]\d+|inf|infinity|nan)\s*%?(\s*((±|\+/?-|\$?\\pm).*|\(.*\)))?",
    re.IGNORECASE,
)
_EMPTY: Final = ("", "NA", "nan", "NaN")
#: How the text of an array or an object begins, which loggers write and no reader takes.
LIST_SIGNS: Final = ("[", "(", "{", '"')
#: What :func:`steps_in` answers where no column counts the rows, each of which is an epoch.
_ROW_NUMBER: Final = "the row number"
#: What a training logs each epoch besides metrics.
_BESIDE: Final = re.compile(r"lr|learning[_ ]rate|(epoch[_ ])?(time|duration|seconds)(_s)?")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NO_WORD: Final = re.compile(r"[^a-z]+")
_HELD_OUT: Final = frozenset({"val", "valid", "validation", "dev", "eval", "test"})


def time_columns(names: Sequence[str]) -> dict[str, str]:
    """The columns that count epochs and steps, under ``epoch`` and ``step``; the epoch first."""
    found: dict[str, str] = {}
    for kind, known in ((c.EPOCH, _EPOCHS), (c.STEP, _STEPS)):
        spelt = {name.strip().lower().replace(" ", "_"): name for name in reversed(names)}
        name = next((spelt[each] for each in known if each in spelt), None)
        if name is not None:
            found[kind] = name
    return found


def is_history(names: Sequence[str]) -> bool:
    """Whether columns are what a training logs each epoch, though none of them counts.

    People save Keras' ``history.history``, or the lists of their own loop, as a table whose rows
    are epochs, with an index or without any count. It holds nothing but metrics, so that no row has
    a model, a task or settings of its own; and the loss twice, of the data that the model was
    fitted on and of others.
    """
    named = [name for name in names if name not in INDEX_NAMES]
    losses = set()
    for name in named:
        metric = find_metric(name)
        if metric is not None and metric.name == "loss":
            losses.add(_HELD_OUT.isdisjoint(_NO_WORD.split(spaced(name).lower())))
        bare = name.removeprefix(_VAL)
        is_pair = {bare, f"{_VAL}{bare}"} <= {*named}
        if metric is None and not is_pair and not _BESIDE.fullmatch(name.lower()):
            return False
    return len(losses) == 2


def spaced(name: str) -> str:
    """``ValLoss`` as ``Val_Loss``."""
    return _CAMEL.sub("_", name)


def is_clock(text: object) -> bool:
    """Whether a cell is a time of day, a duration or a date."""
    return isinstance(text, str) and _CLOCK.fullmatch(text) is not None


def steps_in(columns: Mapping[str, Sequence[Any]]) -> str | None:
    """What counts the rows where they are steps of runs; ``None`` where they need not be.

    Epochs or steps rise from the first row of a run to its last. Where columns of text tell the
    runs apart, each run has at least two rows and begins at 0 or 1: a table of runs may have the
    epoch of the best value. A table of steps has a metric.

    Parameters
    ----------
    columns : mapping of name to sequence
        Cells, as text or typed, of some first rows; the last run may break off.
    """
    times = time_columns([*columns])
    if not times and is_history([*columns]):
        others = [cells for name, cells in columns.items() if name not in INDEX_NAMES]
        are_numbers = all(len(cells) > 1 and not _is_text(cells) for cells in others)
        return _ROW_NUMBER if are_numbers else None
    if not times or not any(find_metric(name) for name in columns if name not in times.values()):
        return None
    time = times.get(c.STEP, times.get(c.EPOCH, ""))
    at = [to_number(cell) for cell in columns[time]]
    texts = [cells for name, cells in columns.items() if name != time and _is_text(cells)]
    runs: dict[tuple[Any, ...], list[float]] = {}
    for row, moment in enumerate(at):
        if moment is None:
            return None
        runs.setdefault(tuple(str(cells[row]) for cells in texts), []).append(moment)
    if not runs:
        return None
    if texts:
        whole = [*runs.values()]
        # Of the run that is last in the table there may be more rows than these.
        whole = whole[:-1] if len(whole) > 1 else whole
        good = all(len(run) > 1 and run[0] <= 1 and _rises(run) for run in whole)
    else:
        [moments] = runs.values()
        ends = [*restarts(moments), len(moments)]
        good = all(_rises(moments[begin:end]) for begin, end in pairwise(ends))
    return time if good else None


def _is_text(cells: Sequence[Any]) -> bool:
    given = [cell for cell in cells if isinstance(cell, str) and cell not in _EMPTY]
    return any(
        not (is_clock(cell) or cell.startswith(LIST_SIGNS) or _NUMBER_LIKE.fullmatch(cell))
        for cell in given
    )


def restarts(moments: Sequence[float]) -> list[int]:
    """Positions at which a run begins: the first, and where the time falls back to its begin."""
    found: list[int] = []
    first = last = 0.0
    for at, moment in enumerate(moments):
        if not found or (moment < last and moment <= min(first, 1.0)):
            found.append(at)
            first = moment
        last = moment
    return found


def _rises(moments: Sequence[float]) -> bool:
    if len(moments) == 1:
        return moments[0] <= 1
    if all(a < b for a, b in pairwise(moments)):
        return True
    # Several rows an epoch.
    steady = all(b - a in (0.0, 1.0) for a, b in pairwise(moments))
    return steady and moments[0] <= 1 and moments[0] < moments[-1]
