"""Tasks made of image files on disk: Parquet with an image column, folders, torchvision's own sets.

The files are not the project's and never enter it; a study names them, and is carried out without
those that are absent.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.optional import require
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import IntArray
from recsys_ms.scores.images import find_images
from training.zoo.tasks.base import ImageSet, Split, check_request

#: Of the images of a set that has no splits of its own, this share of each class is for training.
TRAIN_SHARE: Final = 2.0 / 3.0
#: Names of the splits that sets on disk use for what is not for training.
_TEST_NAMES: Final = frozenset({"test", "val", "valid", "validation", "eval"})
_LABEL_FILES: Final = ("metadata.csv", "labels.csv")
_TORCHVISION: Final = "torchvision:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All images of a set, not yet decoded.

    Attributes
    ----------
    decode : callable of int to PIL image
        Image of a row.
    labels : ndarray of int64, shape (n_rows,)
    splits : sequence of str, or None
        ``train`` or ``test`` of each row; ``None`` where the set does not say.
    class_names : tuple of str
    """

    decode: Callable[[int], Image.Image]
    labels: IntArray
    splits: Sequence[str] | None
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureTask:
    """A classification task of image files.

    Attributes
    ----------
    task_id, domain, description : str
        As every task has them.
    path : str
        One of: a Parquet file with the columns ``image`` (bytes, or a struct with ``bytes``),
        ``label`` and maybe ``class_name`` and ``split``; a folder with a sub-folder a class, maybe
        inside ``train`` and ``test`` (torchvision's ``ImageFolder``); a folder of images with
        ``metadata.csv`` or ``labels.csv`` (``file_name,label[,split]``); or
        ``torchvision:NAME:ROOT``, a data set of torchvision that lies under ``ROOT``.
    """

    task_id: str
    domain: str
    description: str
    path: str

    @property
    def is_present(self) -> bool:
        """Whether its files are there."""
        return Path(_place(self.path)).exists()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        return read_pool(self.path).class_names

    def count(self, split: Split, *, seed: int) -> int:
        """Images of a split.

        Raises
        ------
        DataError
            The set cannot be read.
        """
        return len(self._rows(read_pool(self.path), split, seed))

    def sample(self, split: Split, n_samples: int, *, seed: int, size: int) -> ImageSet:
        """Draw ``n_samples`` images without replacement, classes as balanced as the set allows.

        Images are scaled so that the shorter side is ``size`` and cut to the middle square.

        Raises
        ------
        UsageError
            Unknown split, or more samples than the split holds.
        DataError
            The set cannot be read, or an image of it.
        """
        check_request(self.task_id, split, n_samples, size)
        pool = read_pool(self.path)
        rows = self._rows(pool, split, seed)
        by_class = [
            named_stream(seed, "zoo", self.task_id, split, str(label)).permutation(
                rows[pool.labels[rows] == label]
            )
            for label in range(len(pool.class_names))
        ]
        # Round robin over the classes, so that any prefix is balanced.
        deepest = max(len(members) for members in by_class)
        turn = [int(m[i]) for i in range(deepest) for m in by_class if i < len(m)]
        if n_samples > len(turn):
            raise UsageError(
                f"task {self.task_id!r}: {n_samples} {split} images asked for, {len(turn)} exist; "
                "lower n_train or n_test of the task in the study"
            )
        order = named_stream(seed, "zoo", self.task_id, split).permutation(n_samples)
        chosen = [turn[i] for i in order]
        images = np.stack([self._square(pool, row, size) for row in chosen])
        return ImageSet(images=images, labels=pool.labels[chosen], class_names=pool.class_names)

    def _rows(self, pool: Pool, split: Split, seed: int) -> IntArray:
        if pool.splits is not None:
            wanted: IntArray = np.flatnonzero(np.asarray(pool.splits) == split)
            return wanted
        cut = named_stream(seed, "zoo", self.task_id, "cut")
        parts = []
        for label in range(len(pool.class_names)):
            members = cut.permutation(np.flatnonzero(pool.labels == label))
            n_train = round(TRAIN_SHARE * len(members))
            parts.append(members[:n_train] if split == "train" else members[n_train:])
        return np.concatenate(parts)

    def _square(self, pool: Pool, row: int, size: int) -> NDArray[np.uint8]:
        try:
            image = pool.decode(row).convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{self.path}: image {row} cannot be read ({error})") from error
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        # Lanczos: without a filter, small images of textures are noise.
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box))


@lru_cache(maxsize=32)
def read_pool(path: str) -> Pool:
    """Read what a set holds; see :class:`PictureTask` for the layouts. Kept for the process.

    Raises
    ------
    DataError
        No such file, an unknown layout, or fewer than two classes.
    """
    if path.startswith(_TORCHVISION):
        pool = _of_torchvision(path)
    elif Path(path).is_file():
        pool = _of_parquet(Path(path))
    elif Path(path).is_dir():
        root = Path(path)
        listed = next((root / name for name in _LABEL_FILES if (root / name).is_file()), None)
        pool = _of_folders(root) if listed is None else _of_list(listed)
    else:
        raise DataError(f"{path}: no such file or folder; the task needs its images there")
    if len(pool.class_names) < 2:
        raise DataError(f"{path}: {len(pool.class_names)} classes; a task needs two")
    return pool


def _place(path: str) -> str:
    return path.removeprefix(_TORCHVISION).partition(":")[2] if _is_torchvision(path) else path


def _is_torchvision(path: str) -> bool:
    return path.startswith(_TORCHVISION)


def _of_parquet(path: Path) -> Pool:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
    missing = [name for name in ("image", "label") if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; it has {table.column_names}")
    column = table["image"].combine_chunks()
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"{path}: image is {column.type}, expected bytes, or a struct with bytes")
    names = table["class_name"].to_pylist() if "class_name" in table.column_names else None
    labels, class_names = _numbered(path, table["label"].to_pylist(), names)
    splits = table["split"].to_pylist() if "split" in table.column_names else None
    return Pool(
        decode=lambda row: Image.open(io.BytesIO(column[row].as_py())),
        labels=labels,
        splits=None if splits is None else _known_splits(path, splits),
        class_names=class_names,
    )


def _of_folders(root: Path) -> Pool:
    inside = {place.name: place for place in root.iterdir() if place.is_dir()}
    tests = sorted(_TEST_NAMES & set(inside))
    if "train" not in inside or not tests:
        found = find_images(root)
        return _of_files(found.paths, found.labels, None, found.names)
    train, test = find_images(inside["train"]), find_images(inside[tests[0]])
    if train.names != test.names:
        differing = sorted(set(train.names) ^ set(test.names))
        raise DataError(f"{root}: classes {differing} are in one of train and {tests[0]} only")
    return _of_files(
        (*train.paths, *test.paths),
        np.concatenate([train.labels, test.labels]),
        ["train"] * len(train.paths) + ["test"] * len(test.paths),
        train.names,
    )


def _of_list(listed: Path) -> Pool:
    with listed.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or not {"file_name", "label"} <= set(rows[0]):
        raise DataError(f"{listed}: expected the columns file_name and label, and a row an image")
    labels, names = _numbered(listed, [row["label"] for row in rows], None)
    splits = [row["split"] for row in rows] if "split" in rows[0] else None
    return _of_files(
        tuple(listed.parent / row["file_name"] for row in rows),
        labels,
        None if splits is None else _known_splits(listed, splits),
        names,
    )


def _of_files(
    paths: Sequence[Path], labels: IntArray, splits: Sequence[str] | None, names: tuple[str, ...]
) -> Pool:
    return Pool(
        decode=lambda row: Image.open(paths[row]), labels=labels, splits=splits, class_names=names
    )


def _of_torchvision(path: str) -> Pool:
    datasets: Any = require("torchvision.datasets", extra="embed", purpose="read its data sets")
    name, _, root = path.removeprefix(_TORCHVISION).partition(":")
    if not hasattr(datasets, name):
        raise DataError(f"{path}: torchvision has no data set {name!r}")
    try:
        train, test = (
            getattr(datasets, name)(root, train=is_train, download=False)
            for is_train in (True, False)
        )
    except (RuntimeError, OSError, TypeError) as error:
        raise DataError(f"{path}: torchvision cannot read it ({error})") from error
    n_train = len(train)

    def decode(row: int) -> Image.Image:
        image: Image.Image = (train[row] if row < n_train else test[row - n_train])[0]
        return image

    targets = [int(label) for part in (train, test) for label in part.targets]
    return Pool(
        decode=decode,
        labels=np.asarray(targets, dtype=np.int64),
        splits=["train"] * n_train + ["test"] * len(test),
        class_names=tuple(str(each) for each in train.classes),
    )


def _numbered(
    path: Path, labels: Sequence[Any], names: Sequence[str] | None
) -> tuple[IntArray, tuple[str, ...]]:
    """Labels as places in their sorted values, and a name of each."""
    if None in labels or "" in labels:
        row = next(row for row, label in enumerate(labels) if label in (None, ""))
        raise DataError(f"{path}: row {row} has no label; name its class, or take it out")
    values = sorted(set(labels))
    place = {value: index for index, value in enumerate(values)}
    told = dict(zip(labels, names if names is not None else labels, strict=True))
    dense = np.asarray([place[label] for label in labels], dtype=np.int64)
    return dense, tuple(str(told[value]) for value in values)


def _known_splits(path: Path, splits: Sequence[str]) -> list[str]:
    known = [
        "train" if split == "train" else "test" if split in _TEST_NAMES else "" for split in splits
    ]
    if "" in known:
        raise DataError(
            f"{path}: row {known.index('')} is of split {splits[known.index('')]!r}; expected "
            f"'train' or one of {sorted(_TEST_NAMES)}"
        )
    return known
