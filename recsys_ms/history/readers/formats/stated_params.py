"""What the parameters of a run, as a tracker keeps them, say of its model, its task and its metric.

Only names that state it are taken: ``task`` and ``name`` mean something else in most scripts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.core.types import Direction, JsonDict
from recsys_ms.history.readers.formats.hub_card import is_model_id
from recsys_ms.history.readers.formats.plain_values import (
    named_by_path,
    not_none,
    plain,
    stated,
    whole_number,
)

#: In this order: those of Hugging Face first, whose own ``model_name`` may be shortened.
MODEL_PARAMS: Final = (
    "model_id",
    "model_name_or_path",
    "pretrained_model_name_or_path",
    "_name_or_path",
    "base_model",
    "model_name",
    "model",
    "architecture",
    "arch",
    "backbone",
)
TASK_PARAMS: Final = ("task_id", "task_name", "dataset_name", "dataset_id", "dataset", "data_set")
#: The data of Ultralytics and others, by the path of its file.
_DATA_PATH: Final = "data"
#: Longer texts are the printed layers of a model, or the rows of a table.
_LONGEST: Final = 200
_NOTHING: Final = ("None", "none", "null", "nan", "NaN")
_WEIGHTS: Final = ".pt"
_DIRECTIONS: Final[Mapping[str, Direction]] = {
    "true": "max",
    "max": "max",
    "false": "min",
    "min": "min",
}


def settings_fields(settings: Mapping[str, Any]) -> JsonDict:
    """Fields of a run by its settings: the settings, and the model, the task and the seed in them.

    Without those that are not stated.
    """
    fields: JsonDict = {
        c.MODEL_ID: model_of(settings),
        c.TASK_ID: task_of(settings),
        c.SEED: whole_number(settings.get(c.SEED)),
        c.HYPERPARAMETERS: plain(settings, finite=True),
    }
    return not_none(fields)


def model_of(params: Mapping[str, Any]) -> str | None:
    """The model by the first parameter that names one; paths on a disk are skipped."""
    named = (one_name(params.get(name)) for name in MODEL_PARAMS)
    found = next((name for name in named if is_model_id(name)), None)
    return found.removesuffix(_WEIGHTS) if found else None


def task_of(params: Mapping[str, Any]) -> str | None:
    """The data set by the first parameter that names one."""
    named = next(filter(None, (one_name(params.get(name)) for name in TASK_PARAMS)), None)
    return named or named_by_path(one_name(params.get(_DATA_PATH)))


def one_name(value: Any) -> str | None:
    """A text that can be a name: one line, and not a missing value or a printed object."""
    found = stated(value)
    if found is None or len(found) > _LONGEST or not found.isprintable():
        return None
    return None if found in _NOTHING or found[0] in "[{(<" else found


def best_by(
    params: Mapping[str, Any], names: Sequence[str]
) -> tuple[str | None, dict[str, Direction]]:
    """The series by which the training chose its best model, of ``names``, and its direction.

    Hugging Face logs ``metric_for_best_model`` and ``greater_is_better``, early stopping of PyTorch
    Lightning ``monitor`` and ``mode``.
    """
    for metric, way in (("metric_for_best_model", "greater_is_better"), ("monitor", "mode")):
        direction = _DIRECTIONS.get(str(params.get(way)).lower())
        named = stated(params.get(metric))
        # Trackers spell the split of Hugging Face in two ways.
        bare = (named or "").removeprefix("eval_").removeprefix("eval/")
        spelt = (named, f"eval_{bare}", f"eval/{bare}")
        found = next((name for name in spelt if named and name in names), None)
        if found is not None and direction is not None:
            return found, {found: direction}
    return None, {}
