"""What an image task is: a name, its classes, and images as a function of (seed, split)."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recsys_ms.core.errors import UsageError
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import FloatArray, IntArray

Split: TypeAlias = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

#: Draws one image of a class: (class index, random stream, side in pixels) -> (side, side, 3).
Renderer: TypeAlias = Callable[[int, np.random.Generator, int], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Labelled images of one split.

    Attributes
    ----------
    images : ndarray of uint8, shape (n_samples, side, side, 3)
    labels : ndarray of int64, shape (n_samples,)
        Indices into ``class_names``.
    class_names : tuple of str
    """

    images: NDArray[np.uint8]
    labels: IntArray
    class_names: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of images and labels: two equal prints mean the same data."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


class ImageTask(Protocol):
    """A classification task that yields its own images."""

    @property
    def task_id(self) -> str:
        """Name in the history."""
        ...

    @property
    def domain(self) -> str:
        """Kind of images, for the task card."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        ...

    @property
    def description(self) -> str:
        """One sentence for the datasheet."""
        ...

    def sample(self, split: Split, n_samples: int, *, seed: int, size: int) -> ImageSet:
        """Images and labels, a function of the arguments alone."""
        ...


def balanced_labels(n_samples: int, n_classes: int, rng: np.random.Generator) -> IntArray:
    """Shuffled labels whose class counts differ by one at most, shape (n_samples,)."""
    labels = np.arange(n_samples, dtype=np.int64) % n_classes
    return rng.permutation(labels)


def check_request(task_id: str, split: str, n_samples: int, size: int) -> None:
    """Refuse a request that no generator can answer.

    Raises
    ------
    UsageError
        Unknown split, no samples, or images under 8 pixels.
    """
    if split not in SPLITS:
        raise UsageError(f"task {task_id!r}: split {split!r} is unknown; use one of {SPLITS}")
    if n_samples < 1:
        raise UsageError(f"task {task_id!r}: {n_samples} samples asked for; ask for at least one")
    if size < 8:
        raise UsageError(f"task {task_id!r}: images of {size} pixels; draw them at 8 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedTask:
    """A task whose images are drawn one by one by ``render``, from one stream a (seed, split)."""

    task_id: str
    domain: str
    class_names: tuple[str, ...]
    description: str
    render: Renderer

    def sample(self, split: Split, n_samples: int, *, seed: int, size: int) -> ImageSet:
        """Draw ``n_samples`` images with balanced labels.

        Parameters
        ----------
        split : {"train", "test"}
            Splits come from different random streams, never from one pool.
        n_samples : int
        seed : int
            Seed of the data, the same for all models of a study.
        size : int
            Side of the square images, in pixels.

        Raises
        ------
        UsageError
            Unknown split, no samples, or a side under 8 pixels.
        """
        check_request(self.task_id, split, n_samples, size)
        rng = named_stream(seed, "zoo", self.task_id, split)
        labels = balanced_labels(n_samples, len(self.class_names), rng)
        images = np.empty((n_samples, size, size, 3), dtype=np.uint8)
        for index, label in enumerate(labels):
            image = self.render(int(label), rng, size)
            images[index] = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
        return ImageSet(images=images, labels=labels, class_names=self.class_names)


class RenderedTasks(dict[str, RenderedTask]):
    """Tasks of one domain by id, declared at the functions that draw their images.

    Parameters
    ----------
    domain : str
    """

    def __init__(self, domain: str) -> None:
        super().__init__()
        self._domain = domain

    def declare(
        self, task_id: str, description: str, class_names: Iterable[str]
    ) -> Callable[[Renderer], Renderer]:
        """Decorate the function that draws the images of a new task."""

        def add(render: Renderer) -> Renderer:
            self[task_id] = RenderedTask(
                task_id=task_id,
                domain=self._domain,
                class_names=tuple(class_names),
                description=description,
                render=render,
            )
            return render

        return add
