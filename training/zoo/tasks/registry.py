"""Every task by its id."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from recsys_ms.core.errors import UsageError
from training.zoo.tasks import digits, glyphs, sprites, textures
from training.zoo.tasks.base import ImageTask

_ALL: Final[tuple[ImageTask, ...]] = (
    glyphs.CAPITALS,
    textures.PATTERNS,
    sprites.SCENES,
    digits.DIGITS,
    glyphs.LETTERS,
    glyphs.NUMERALS,
    glyphs.STYLE,
    textures.GRATING_FREQUENCY,
    textures.GRATING_ORIENTATION,
    textures.MATERIALS,
    textures.SPECTRUM,
    sprites.COUNTING,
    sprites.DISTANCE,
    sprites.ORIENTATION,
    sprites.POSITION,
    sprites.SCALE,
)

TASKS: Final[Mapping[str, ImageTask]] = MappingProxyType({task.task_id: task for task in _ALL})


def get_task(task_id: str) -> ImageTask:
    """Look a task up.

    Raises
    ------
    UsageError
        No task has this id.
    """
    if task_id not in TASKS:
        raise UsageError(f"task {task_id!r} is unknown; the laboratory has {sorted(TASKS)}")
    return TASKS[task_id]
