"""Labelled images of a folder: one sub-folder a class, as torchvision lays them out."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.types import IntArray

#: Suffixes of image files.
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Image files, sorted by class and name; their classes (places in ``names``); class names."""

    paths: tuple[Path, ...]
    labels: IntArray
    names: tuple[str, ...]

    def take(self, rows: Sequence[int]) -> "LabelledImages":
        """Some of the images, in that order."""
        return LabelledImages(
            tuple(self.paths[row] for row in rows), self.labels[list(rows)], self.names
        )


def find_images(folder: str | Path, *, most: int | None = None) -> LabelledImages:
    """Find the images of a folder with one sub-folder a class, at any depth within it.

    ``most`` takes at most that number, evenly from the classes; the choice depends on their paths
    alone. ``DataError`` without such a folder, or two classes with images; ``UsageError`` if
    ``most`` is smaller than the number of classes.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; name one with a sub-folder of images a class")
    found: dict[str, list[Path]] = {}
    for place in sorted(root.iterdir()):
        if place.is_dir() and not place.name.startswith("."):
            images = images_below(place)
            if images:
                found[place.name] = images
    if len(found) < 2:
        raise DataError(
            f"{root}: {len(found)} sub-folders hold images ({', '.join(SUFFIXES)}), wanted at "
            "least 2, one a class"
        )
    if most is not None:
        if most < len(found):
            raise UsageError(f"at most {most} images of {len(found)} classes; ask for more")
        # The classes take turns.
        turns = sorted((n, name) for name, images in found.items() for n in range(len(images)))
        for name, share in Counter(name for _, name in turns[:most]).items():
            keys = [path.relative_to(root).as_posix() for path in found[name]]
            found[name] = [found[name][row] for row in sample_of(keys, share)]
    names = tuple(found)
    return LabelledImages(
        paths=tuple(path for images in found.values() for path in images),
        labels=np.repeat(np.arange(len(names)), [len(images) for images in found.values()]),
        names=names,
    )


def images_below(folder: Path) -> list[Path]:
    """Image files at any depth, sorted; hidden files and folders are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def sample_of(keys: Sequence[str], most: int) -> list[int]:
    """Positions of at most ``most`` keys, in their order, chosen by the keys alone."""
    # The order of a digest is as good as chance, and the same on every machine.
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]
    return sorted(sorted(range(len(digests)), key=digests.__getitem__)[:most])
