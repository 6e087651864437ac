"""Labelled images of a folder: one sub-folder a class, as torchvision lays them out."""

import hashlib
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
            images = sorted(path for path in place.rglob("*") if _is_image(path))
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
        found = {name: _some(root, found[name], share) for name, share in _shares(found, most)}
    names = tuple(found)
    return LabelledImages(
        paths=tuple(path for images in found.values() for path in images),
        labels=np.repeat(np.arange(len(names)), [len(images) for images in found.values()]),
        names=names,
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _shares(found: dict[str, list[Path]], most: int) -> list[tuple[str, int]]:
    """How many images of each class: as even as the classes allow."""
    shares = dict.fromkeys(found, 0)
    left = min(most, sum(map(len, found.values())))
    while left:
        open_ones = [name for name, images in found.items() if shares[name] < len(images)]
        for name in open_ones[:left]:
            shares[name] += 1
        left -= min(left, len(open_ones))
    return list(shares.items())


def _some(root: Path, images: list[Path], share: int) -> list[Path]:
    # The order of a digest is as good as chance, and the same on every machine.
    def key(path: Path) -> bytes:
        return hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()

    return sorted(sorted(images, key=key)[:share])
