"""Images of the sources, and batches of them with captions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from recsys_ms.core.errors import UsageError
from recsys_ms.core.rng import named_stream
from recsys_ms.core.types import IntArray
from training.proxy.captions import CaptionBook, caption_book
from training.proxy.design import Augmentation, Design
from training.zoo.tasks.base import ImageSet

Part: TypeAlias = Literal["train", "validation", "test"]


def source_images(design: Design, source: str, part: Part) -> ImageSet:
    """Images of a source: for training, for choices, or for the figures; the three are disjoint.

    Raises
    ------
    UsageError
        It is not a source of the study; targets are never read.
    """
    if source not in design.study.sources:
        raise UsageError(
            f"proxy {design.name!r}: {source!r} is not a source of the study; the proxy is "
            "trained on no other images"
        )
    task = design.study.book.get(source)
    size, seed = int(design.model["vision_cfg"]["image_size"]), design.study.seed
    plan = design.data
    if part == "train":
        n_train = plan.n_train_of.get(source, plan.n_train)
        return task.sample("train", n_train, seed=seed, size=size)
    held_out = task.sample("test", plan.n_validation + plan.n_test, seed=seed, size=size)
    rows = slice(plan.n_validation) if part == "validation" else slice(plan.n_validation, None)
    return ImageSet(
        images=held_out.images[rows], labels=held_out.labels[rows], class_names=held_out.class_names
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step sees.

    Attributes
    ----------
    images : Tensor of shape (n_images, 3, side, side)
        Standardised.
    captions : list of str
    truth : Tensor of bool, shape (n_images, n_captions)
    """

    images: torch.Tensor
    captions: list[str]
    truth: torch.Tensor


class Batches:
    """Batches by their number: any of them can be made again, in any order.

    Parameters
    ----------
    design : Design
    """

    def __init__(self, design: Design) -> None:
        self._design = design
        self._sets = {name: source_images(design, name, "train") for name in design.sources}
        names = {name: data.class_names for name, data in self._sets.items()}
        self.book: CaptionBook = caption_book(names)
        starts = np.cumsum([0, *(len(listed) for listed in names.values())])
        self._first = dict(zip(names, starts.tolist(), strict=False))

    def make(self, step: int) -> Batch:
        """The batch of a step, from 0."""
        rng = named_stream(self._design.seed, "proxy", "batch", str(step))
        images: list[NDArray[np.uint8]] = []
        labels: list[IntArray] = []
        mirrored: list[bool] = []
        for source, n_images in self._design.batch.items():
            data = self._sets[source]
            rows = rng.choice(len(data.images), n_images, replace=False)
            images.append(data.images[rows])
            labels.append(data.labels[rows] + self._first[source])
            mirrored += [source in self._design.augmentation.mirror] * n_images
        captions, truth = self.book.draw(np.concatenate(labels), self._design.training.partial, rng)
        pixels = as_pixels(np.concatenate(images))
        varied = augmented(pixels, self._design.augmentation, mirrored, rng)
        return Batch(standardised(varied, self._design), captions, torch.from_numpy(truth))


def as_pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    """Images (n, side, side, 3) as float32 in [0, 1], shape (n, 3, side, side)."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255.0)


def standardised(pixels: torch.Tensor, design: Design) -> torch.Tensor:
    """Take the mean of the design off pixels in [0, 1], divide by its spread."""
    mean, spread = (
        torch.tensor(design.preprocess[name], dtype=torch.float32)[:, None, None]
        for name in ("mean", "std")
    )
    return ((pixels - mean) / spread).contiguous(memory_format=torch.channels_last)


def augmented(
    pixels: torch.Tensor, how: Augmentation, mirrored: Sequence[bool], rng: np.random.Generator
) -> torch.Tensor:
    """Vary images, each in its own way: place, size and turn, then resolution, then colours.

    Parameters
    ----------
    pixels : Tensor of shape (n_images, 3, side, side)
        In [0, 1].
    how : Augmentation
    mirrored : sequence of bool
        Which of the images may be mirrored left to right.
    rng : Generator
    """
    n = len(pixels)
    zoom = np.exp(rng.uniform(-1.0, 1.0, n) * math.log1p(how.zoom))
    turn = rng.uniform(-how.turn, how.turn, n)
    side = np.where(np.asarray(mirrored) & (rng.random(n) < 0.5), -1.0, 1.0)
    shift = rng.uniform(-2.0 * how.shift, 2.0 * how.shift, (n, 2))
    cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
    rows = np.stack(
        [
            np.stack([cos * side, -sin, shift[:, 0]], axis=1),
            np.stack([sin * side, cos, shift[:, 1]], axis=1),
        ],
        axis=1,
    )
    grid = functional.affine_grid(
        torch.from_numpy(rows.astype(np.float32)), list(pixels.shape), align_corners=False
    )
    moved = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    halved = torch.from_numpy(rng.random(n) < how.halve)
    small = functional.avg_pool2d(moved[halved], 2)
    moved[halved] = functional.interpolate(small, scale_factor=2, mode="bilinear")
    return _recoloured(moved, how, rng)


def _recoloured(pixels: torch.Tensor, how: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    n = len(pixels)

    def each(values: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).reshape(n, -1, 1, 1)

    contrast = each(rng.uniform(1.0 - how.contrast, 1.0 + how.contrast, n))
    cast = each(rng.uniform(-how.cast, how.cast, (n, 3)))
    gray = each((rng.random(n) < how.gray).astype(np.float64))
    inverted = each((rng.random(n) < how.invert).astype(np.float64))
    bright = pixels.mean(dim=1, keepdim=True)
    mixed = gray * bright + (1.0 - gray) * (pixels + cast)
    level = mixed.mean(dim=(1, 2, 3), keepdim=True)
    stretched = (level + contrast * (mixed - level)).clamp(0.0, 1.0)
    return inverted * (1.0 - stretched) + (1.0 - inverted) * stretched
