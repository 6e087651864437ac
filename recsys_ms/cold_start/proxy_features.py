"""Features of images by the image tower of a CLIP, each image computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from recsys_ms.cold_start.pictures import Pictures
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.files import sha256_file
from recsys_ms.core.optional import require
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.types import JsonDict
from recsys_ms.scores.image_features import image_outputs
from recsys_ms.scores.label_embeddings import Float32Array, unit_rows
from recsys_ms.scores.label_encoders import OpenClipEncoder
from recsys_ms.scores.label_weights import EXTRA, fingerprint, folder_digest

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
    def transform(self) -> Any:
        """Makes a tensor (3, height, width) of an image of Pillow."""
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
    # Made before threads ask for it.
    transform = towers.transform
    found = image_outputs(
        pictures.items,
        pictures.origin,
        lambda content: transform(content.image()),
        lambda inputs, names: {"features": towers.encode_images(inputs, names)},
        widths={"features": towers.width},
        batch_size=towers.batch_size,
        cache=cache,
        progress=progress,
        description=f"images by {towers.name}",
    )
    names, kept = [picture.name for picture in pictures.items], set(found.rows)
    return ImageFeatures(
        vectors=found.arrays["features"],
        names=tuple(names[row] for row in found.rows),
        left_out=tuple(name for row, name in enumerate(names) if row not in kept),
        n_computed=found.n_computed,
    )
