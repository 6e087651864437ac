"""Every task by its id: those that are drawn, and those of image files that a study names."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from recsys_ms.core.errors import UsageError
from training.zoo.tasks import digits, glyphs, sprites, textures
from training.zoo.tasks.base import ImageTask, Split
from training.zoo.tasks.pictures import PictureTask

#: Tasks that need no files.
TASKS: Final[Mapping[str, ImageTask]] = MappingProxyType(
    {"digits": digits.DIGITS, **glyphs.TASKS, **textures.TASKS, **sprites.TASKS}
)


@dataclass(frozen=True, slots=True)
class TaskBook:
    """All tasks of a study.

    Attributes
    ----------
    pictures : tuple of PictureTask
        Tasks of image files, besides :data:`TASKS`.
    """

    pictures: tuple[PictureTask, ...] = ()

    def __post_init__(self) -> None:
        names = [task.task_id for task in self.pictures]
        twice = sorted(name for name in set(names) if names.count(name) > 1 or name in TASKS)
        if twice:
            raise UsageError(f"tasks {twice} are declared twice; give each images table a new id")

    def get(self, task_id: str) -> ImageTask:
        """Look a task up.

        Raises
        ------
        UsageError
            No task has this id.
        """
        found = {task.task_id: task for task in self.pictures}
        if task_id in found:
            return found[task_id]
        if task_id not in TASKS:
            raise UsageError(
                f"task {task_id!r} is unknown; the laboratory has {sorted([*TASKS, *found])}"
            )
        return TASKS[task_id]

    def at_most(self, task_id: str, split: Split, n_samples: int, *, seed: int) -> int:
        """``n_samples``, or all images of the split of a set of files that has fewer."""
        task = self.get(task_id)
        return (
            min(n_samples, task.count(split, seed=seed))
            if isinstance(task, PictureTask)
            else n_samples
        )

    def absent(self, task_id: str) -> bool:
        """Whether the files of a task are not there."""
        task = self.get(task_id)
        return isinstance(task, PictureTask) and not task.is_present
