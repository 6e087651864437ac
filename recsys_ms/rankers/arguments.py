"""Reads what a caller gives a ranker, in every form that is accepted.

An argument of another type raises ``UsageError``, an invalid value in one ``DataError``.
"""

from collections.abc import Container, Iterable, Mapping, Set
from contextlib import suppress
from math import isfinite
from typing import Any, Final, TypeAlias, TypeGuard

import numpy as np
import pandas as pd

from recsys_ms.catalog.card_files import TASKS
from recsys_ms.catalog.cards import TASK_FIELDS, TaskCard
from recsys_ms.core.errors import DataError, UsageError, did_you_mean, kind_of

#: Outcomes by model id, if there are any.
Outcomes: TypeAlias = "Mapping[str, float] | pd.Series[Any] | None"
#: A card, its fields by name, or none.
CardLike: TypeAlias = "TaskCard | Mapping[str, object] | None"

_CARD: Final = "TaskCard(task_id='birds', n_classes=200), or its fields by name, {'n_classes': 200}"


def read_text(given: object, name: str) -> str:
    """An id or another text that is not empty."""
    if isinstance(given, str) and given:
        return str(given)
    raise UsageError(f"{name} is {kind_of(given)}; expected a text that is not empty")


def read_count(given: object, name: str, *, none: str) -> int | None:
    """A whole number of at least 1, or ``None``, which means what ``none`` says."""
    if given is None:
        return None
    if isinstance(given, int | np.integer) and not isinstance(given, bool) and given >= 1:
        return int(given)
    raise UsageError(f"{name} is {kind_of(given)}; expected at least 1, or None for {none}")


def read_seconds(given: object, name: str) -> float | None:
    """A positive number of seconds, or ``None``."""
    if given is None:
        return None
    if isinstance(given, int | float | np.number) and not isinstance(given, bool) and given > 0:
        return float(given)
    raise UsageError(f"{name} is {kind_of(given)}; expected a positive number of seconds")


def _is_listing(given: object) -> TypeGuard[Iterable[object]]:
    """Whether it is an iterable of ids, unlike a text, a mapping or a table."""
    is_other = isinstance(given, str | bytes | Mapping | pd.DataFrame)
    return isinstance(given, Iterable) and not is_other


def read_models(given: object) -> tuple[str, ...] | None:
    """Model ids of any iterable that is not empty, each once; those of a set sorted."""
    if given is None:
        return None
    if not _is_listing(given):
        hint = f"; for one model, models=[{given!r}]" if isinstance(given, str) else ""
        raise UsageError(f"models is {kind_of(given)}; expected a list of model ids{hint}")
    found = tuple(dict.fromkeys(read_text(each, "a model id in models") for each in given))
    if not found:
        raise UsageError("models is empty; expected a list of model ids, or None for all models")
    return tuple(sorted(found)) if isinstance(given, Set) else found


def read_tasks(given: object) -> dict[str, TaskCard | None]:
    """Tasks of any iterable of ids and cards, in order, each with its card if it was a card."""
    wanted = "expected a list of task ids, or of cards"
    if not _is_listing(given):
        raise UsageError(f"tasks is {kind_of(given)}; {wanted}")
    found: dict[str, TaskCard | None] = {}
    for each in given:
        card = each if isinstance(each, TaskCard) else None
        task_id = read_text(each if card is None else card.task_id, "a task in tasks")
        if task_id in found:
            raise UsageError(f"tasks has {task_id!r} twice; give each once")
        found[task_id] = card
    if not found:
        raise UsageError(f"tasks is empty; {wanted}")
    return found


def read_outcomes(given: object, task_id: str) -> dict[str, float]:
    """Finite outcomes by model id, from a mapping or a Series; none from ``None``."""
    where = f"task {task_id!r}"
    if given is None:
        return {}
    if isinstance(given, pd.Series):
        if not given.index.is_unique:
            twice = given.index[given.index.duplicated()][0]
            raise UsageError(f"{where}: observed has model {twice!r} twice; keep one outcome")
        given = given.to_dict()
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{where}: observed is {kind_of(given)}; expected outcomes by model id, such as "
            "{'resnet50': 0.91}, or a Series with model ids as its index"
        )
    name = f"{where}: a model id in observed"
    return {
        read_text(model_id, name): _outcome(value, model_id, where)
        for model_id, value in given.items()
    }


def read_reached(given: object, tasks: Container[str]) -> Mapping[str, Outcomes]:
    """Outcomes of some of the tasks, by task id; none from ``None``."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UsageError(
            f"observed is {kind_of(given)}; expected outcomes by task id, such as "
            "{'birds': {'resnet50': 0.91}}"
        )
    for task_id in given:
        if task_id not in tasks:
            raise UsageError(
                f"observed has outcomes of task {task_id!r}, which is not among the tasks; add it"
            )
    return given


def _outcome(value: object, model_id: object, where: str) -> float:
    found, told = float("nan"), None
    if not isinstance(value, str | bytes | bool | np.bool_):
        with suppress(TypeError, ValueError):
            found = float(value)  # type: ignore[arg-type]
            told = str(found)
    if isfinite(found):
        return found
    raise DataError(
        f"{where}: the observed outcome of model {model_id!r} is {told or kind_of(value)}; give a "
        "finite number, or leave the model out"
    )


def read_card(given: object, task_id: str) -> TaskCard | None:
    """A card, or one made of fields by name, which need not include the task."""
    if given is None or isinstance(given, TaskCard):
        return given
    where = f"task {task_id!r}"
    if not isinstance(given, Mapping):
        raise UsageError(f"{where}: card is {kind_of(given)}; expected {_CARD}")
    for name in given:
        if name not in TASK_FIELDS:
            hint = did_you_mean(str(name), TASK_FIELDS)
            raise UsageError(
                f"{where}: a card has no field {name!r}{hint}; it has {', '.join(TASK_FIELDS)}"
            )
    try:
        return TASKS.from_rows([{"task_id": task_id, **given}])[0]
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: the card's fields cannot be read ({error})") from error
