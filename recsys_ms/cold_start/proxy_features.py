"""Features of images by the image tower of a CLIP, each image computed once."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys_ms.cold_start.pictures import Content, Picture, Pictures, UnreadableError
from recsys_ms.core.array_files import read_arrays, write_arrays
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.files import sha256_file
from recsys_ms.core.optional import require
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.types import JsonDict
from recsys_ms.scores.label_embeddings import Float32Array, unit_rows
from recsys_ms.scores.label_encoders import OpenClipEncoder
from recsys_ms.scores.label_weights import EXTRA, fingerprint, folder_digest

_LOG = logging.getLogger(__name__)
_LOADERS: Final = 4
_PURPOSE: Final = "look at images with a CLIP"


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """Features of images by a proxy.

    Attributes
    ----------
    vectors : ndarray of shape (n_readable, width)
        Float32, rows of length 1.
    names : tuple of str
        Image of each row.
    left_out : tuple of str
        Images that cannot be read.
    n_computed : int
        Images that were not in the cache.
    """

    vectors: Float32Array
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    n_computed: int


class ClipTowers(OpenClipEncoder):
    """Both towers of a CLIP; parameters are those of its text tower, :class:`OpenClipEncoder`."""

    @property
    def weights_digest(self) -> str:
        """Digest of architecture, vocabulary and weights; the folder's name does not count."""
        if self._in_folder:
            return folder_digest(self._folder)
        return fingerprint(
            "open_clip", "", model=self._model_name, weights=sha256_file(self._checkpoint)
        )

    @property
    def preprocessing(self) -> JsonDict:
        """Settings of the preprocessing (size, mean, spread …), by open_clip's names."""
        return dict(self._model.visual.preprocess_cfg)

    def prepared(self, content: Content) -> Any:
        """An image as a tensor (3, height, width)."""
        return self._transform(content.image())

    def encode_images(self, tensors: Sequence[Any], names: Sequence[str]) -> Float32Array:
        """Unit rows of shape (n_images, width) for prepared images."""
        torch = require("torch", extra=EXTRA, purpose=_PURPOSE)
        with torch.inference_mode():
            outputs = self._model.encode_image(torch.stack(list(tensors)).to(self.device))
        return unit_rows(outputs.float().cpu().numpy(), names, self.name)

    @cached_property
    def _model(self) -> Any:
        try:
            return self._created().eval()
        except DataError as error:
            torch = require("torch", extra=EXTRA, purpose=_PURPOSE)
            try:
                torch.zeros(1, device=self.device)
            except (RuntimeError, AssertionError) as refusal:
                reason = str(refusal).strip().split("\n", 1)[0]
                raise UsageError(f"device {self.device!r}: {reason}") from error
            raise

    @cached_property
    def _transform(self) -> Any:
        library = require("open_clip.transform", extra=EXTRA, purpose=_PURPOSE)
        settings = library.PreprocessCfg(**self._model.visual.preprocess_cfg)
        return library.image_transform_v2(settings, is_train=False)


def image_features(
    towers: ClipTowers,
    pictures: Pictures,
    *,
    cache: Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> ImageFeatures:
    """Compute the features of all images, or take them from the cache.

    ``cache`` is a folder for these towers alone; it keeps features by the contents of the image.
    Raises a ``DataError`` if no image can be read, a ``StorageError`` if the cache cannot be
    written.
    """
    rows: list[Float32Array | None] = []
    n_computed = 0
    reasons: list[str] = []
    starts = range(0, len(pictures), towers.batch_size)
    description = f"images by {towers.name}"
    with ThreadPoolExecutor(_LOADERS) as pool:
        for start in progress.track(starts, total=len(starts), description=description):
            some = pictures.items[start : start + towers.batch_size]
            found, computed, why = _batch(towers, some, cache, pool)
            rows += found
            n_computed += computed
            reasons += why
    names = [picture.name for picture in pictures.items]
    left_out = tuple(name for name, row in zip(names, rows, strict=True) if row is None)
    kept = [row for row in rows if row is not None]
    if not kept:
        raise DataError(f"{pictures.origin}: none of {len(rows)} images can be read; {reasons[0]}")
    for reason in reasons:
        _LOG.warning("left out: %s", reason)
    return ImageFeatures(
        vectors=np.stack(kept),
        names=tuple(name for name, row in zip(names, rows, strict=True) if row is not None),
        left_out=left_out,
        n_computed=n_computed,
    )


def _batch(
    towers: ClipTowers, pictures: Sequence[Picture], cache: Path | None, pool: ThreadPoolExecutor
) -> tuple[list[Float32Array | None], int, list[str]]:
    """Vectors of some images, how many were computed, and why the others have none."""
    # One after another: data sets of torch and Parquet files may not allow several readers.
    contents = [_tried(picture.read) for picture in pictures]
    reasons = [str(each) for each in contents if isinstance(each, UnreadableError)]
    rows: list[Float32Array | None] = [
        _known(cache, each, towers.width) if isinstance(each, Content) else None
        for each in contents
    ]
    missing = [
        (at, each)
        for at, each in enumerate(contents)
        if rows[at] is None and isinstance(each, Content)
    ]
    if not missing:
        return rows, 0, reasons
    # The model is loaded here, by one thread.
    prepare = towers.prepared
    tensors = pool.map(lambda each: _tried(lambda: prepare(each)), [each for _, each in missing])
    ready: list[tuple[int, Content, Any]] = []
    for (at, each), tensor in zip(missing, tensors, strict=True):
        if isinstance(tensor, UnreadableError):
            reasons.append(str(tensor))
        else:
            ready.append((at, each, tensor))
    if ready:
        vectors = towers.encode_images(
            [tensor for _, _, tensor in ready], [each.name for _, each, _ in ready]
        )
        for (at, each, _), vector in zip(ready, vectors, strict=True):
            rows[at] = vector
            if cache is not None:
                write_arrays(_place(cache, each), way_out="name another cache", features=vector)
    return rows, len(ready), reasons


def _tried(action: Any) -> Any:
    """The result of ``action``, or its :class:`UnreadableError`."""
    try:
        return action()
    except UnreadableError as error:
        return error


def _place(cache: Path, content: Content) -> Path:
    digest = content.digest
    return cache / digest[:2] / f"{digest}.npz"


def _known(cache: Path | None, content: Content, width: int) -> Float32Array | None:
    """Features from the cache; ``None`` for a damaged file, which is then replaced."""
    if cache is None:
        return None
    found: Float32Array | None = (read_arrays(_place(cache, content)) or {}).get("features")
    return found if found is not None and found.shape == (width,) else None
