"""Handwritten digits that ship with scikit-learn: 1,797 scans of 8 x 8 pixels (UCI)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from recsys_ms.core.errors import UsageError
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import IntArray
from training.zoo.tasks.base import ImageSet, Split, check_request


@lru_cache(maxsize=1)
def _scans() -> tuple[NDArray[np.float64], IntArray]:
    """Distinct scans (n, 8, 8) with values 0 to 16 and their labels (n,)."""
    images, labels = load_digits(return_X_y=True)
    _, first = np.unique(images, axis=0, return_index=True)
    first.sort()
    return images[first].reshape(-1, 8, 8), labels[first].astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsTask:
    """Handwritten digits, enlarged to the asked size; test scans never occur in training.

    The pool is cut once a seed: 45 % train, 55 % test, class by class.
    """

    task_id: str = "digits"
    domain: str = "handwriting"
    class_names: tuple[str, ...] = tuple(str(i) for i in range(10))
    description: str = "Handwritten digits of scikit-learn, 8 x 8 scans enlarged, grey."

    def sample(self, split: Split, n_samples: int, *, seed: int, size: int) -> ImageSet:
        """Draw ``n_samples`` scans without replacement, classes as balanced as the pool allows.

        Raises
        ------
        UsageError
            Unknown split, or more samples than the split holds.
        """
        check_request(self.task_id, split, n_samples, size)
        scans, labels = _scans()
        cut = named_stream(seed, "zoo", self.task_id, "cut")
        by_class = []
        for label in range(10):
            members = cut.permutation(np.flatnonzero(labels == label))
            n_train = int(0.45 * len(members))
            by_class.append(members[:n_train] if split == "train" else members[n_train:])
        # Round robin over the classes, so that any prefix is balanced.
        deepest = max(len(members) for members in by_class)
        turn = [m[i] for i in range(deepest) for m in by_class if i < len(m)]
        if n_samples > len(turn):
            raise UsageError(
                f"task {self.task_id!r}: {n_samples} {split} samples asked for, {len(turn)} exist; "
                "lower n_train or n_test in the study"
            )
        rng = named_stream(seed, "zoo", self.task_id, split)
        chosen = rng.permutation(np.asarray(turn[:n_samples]))
        images = np.stack([_enlarged(scans[i], size) for i in chosen])
        return ImageSet(images=images, labels=labels[chosen], class_names=self.class_names)


def _enlarged(scan: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    grey = Image.fromarray(np.rint(scan * (255.0 / 16.0)).astype(np.uint8))
    pixels = np.asarray(grey.resize((size, size), Image.Resampling.BICUBIC))
    return np.repeat(pixels[..., None], 3, axis=2)


DIGITS: Final = DigitsTask()
