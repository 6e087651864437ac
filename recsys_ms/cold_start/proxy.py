"""The proxy: a CLIP that embeds a task without runs by its images and class names.

As in Fennec (Bai et al. 2024, §3.3) a task is described by what a foundation model sees in a few
hundred of its images. Any model of open_clip works; a small one, trained by the project, ships with
the package. It runs when a task enters the catalog, so ranking needs no torch (extra ``embed``).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.cold_start import EMBEDDED, MAX_IMAGES
from recsys_ms.cold_start.pictures import IMAGE_COLUMN, open_pictures
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.files import reason_of, sha256_file
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.types import FloatArray
from recsys_ms.history.embedded import embedded_folder
from recsys_ms.scores.images import image_outputs
from recsys_ms.scores.label_embeddings import Float32Array, unit_rows
from recsys_ms.scores.label_encoders import OpenClipEncoder
from recsys_ms.scores.label_texts import class_texts
from recsys_ms.scores.label_weights import FOLDER, HUB, fingerprint, folder_digest

#: A better proxy for photos, where the hub of weights can be reached.
HUB_DEFAULT: Final = "ViT-B-32=laion2b_s34b_b79k"
_CONFIG_FILE: Final = "open_clip_config.json"


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


@dataclass(frozen=True, slots=True, eq=False)
class TaskEmbedding:
    """Vectors of a task by a proxy.

    Attributes
    ----------
    proxy : str
        Name of the proxy.
    fingerprint : str
        Its digest: vectors of different fingerprints are not comparable.
    images : ndarray of shape (2 * width,), or None
        Mean and standard deviation of the features of its images.
    labels : ndarray of shape (width,), or None
        Mean of the vectors of its class names.
    n_images : int
        Images that were looked at.
    left_out : tuple of str
        Images of the sample that cannot be read.
    """

    proxy: str
    fingerprint: str
    images: FloatArray | None
    labels: FloatArray | None
    n_images: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Name and digest of the proxy, as a card records them."""
        return f"{self.proxy} {self.fingerprint[:12]}"

    def on(self, card: TaskCard) -> TaskCard:
        """The card with these vectors; a vector that is missing here stays as it was.

        Raises
        ------
        DataError
            A vector that stays comes from another proxy.
        """
        stays = (
            self.images is None and card.embedding is not None,
            self.labels is None and card.label_embedding is not None,
        )
        if any(stays) and card.embedding_source != self.source:
            made = "embedding" if stays[0] else "label_embedding"
            raise DataError(
                f"task card {card.task_id!r}: its {made} is from "
                f"{card.embedding_source or 'unknown'}, the new vector from {self.source}; "
                "compute both with one proxy"
            )
        return replace(
            card,
            embedding=card.embedding if self.images is None else tuple(self.images.tolist()),
            label_embedding=card.label_embedding
            if self.labels is None
            else tuple(self.labels.tolist()),
            embedding_source=self.source,
        )


class Proxy(OpenClipEncoder):
    """A CLIP of open_clip, in evaluation mode, loaded when it is first used.

    Parameters
    ----------
    source : str or Path, default "embedded"
        ``"embedded"``, the small CLIP of the package; ``"NAME=TAG"`` or ``"NAME=FILE"``, an
        architecture of open_clip with pre-trained weights (``"ViT-B-32=laion2b_s34b_b79k"``; a tag
        is fetched unless it is in the cache); a folder with ``open_clip_config.json`` and weights,
        or the file of weights in it; or ``"hf-hub:owner/name"``.
    device : str, default "cpu"
        A torch device.
    batch_size : int, default 32
        Images or texts at a time. A vector depends on its batch by the rounding of float32 alone.
    cache : str or Path, optional
        Folder that keeps features of images by their contents and by :attr:`fingerprint`.

    Raises
    ------
    UsageError
        A source that is none of these.
    DataError
        The package was installed without its data.

    Examples
    --------
    >>> proxy = Proxy()                                                   # doctest: +SKIP
    >>> seen = proxy.task_embedding("photos/", ["cat", "dog"])            # doctest: +SKIP
    >>> catalog.with_tasks([seen.on(TaskCard(task_id="pets"))])           # doctest: +SKIP
    """

    def __init__(
        self,
        source: str | Path = EMBEDDED,
        *,
        device: str = "cpu",
        batch_size: int = 32,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__(**_model_of(source), device=device, batch_size=batch_size)
        self._cache = None if cache is None else Path(cache).expanduser()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, architecture and preprocessing, the same on every machine."""
        if self._in_folder:
            # The folder's name does not count.
            model = folder_digest(self._folder)
        else:
            weights = sha256_file(self._checkpoint)
            model = fingerprint("open_clip", "", model=self._model_name, weights=weights)
        preprocessing = json.dumps(dict(self._model.visual.preprocess_cfg), sort_keys=True)
        return fingerprint(type(self).__name__, "", model=model, preprocessing=preprocessing)

    def embed_images(self, pictures: Any, *, progress: Progress = NO_PROGRESS) -> Float32Array:
        """Vectors of the readable images, (n_readable, width), float32 rows of length 1.

        Arguments and errors are those of :meth:`look_at`.
        """
        return self.look_at(pictures, progress=progress).vectors

    def look_at(
        self,
        pictures: Any,
        *,
        max_images: int | None = None,
        column: str = IMAGE_COLUMN,
        progress: Progress = NO_PROGRESS,
    ) -> ImageFeatures:
        """Vectors of images with their names, and the names of those that cannot be read.

        Parameters
        ----------
        pictures : str, Path, sequence or data set
            See :func:`~recsys_ms.cold_start.pictures.open_pictures`.
        max_images : int, optional
            Size of a sample, which depends on paths or positions alone. Default: all images.
        column : str, default "image"
            Where a Parquet file or a mapping holds the image.
        progress : Progress, optional
            Shows batches.

        Raises
        ------
        DataError
            No image can be read, or the weights are damaged.
        """
        given = open_pictures(pictures, column=column)
        if max_images is not None:
            given = given.sample(max_images)
        library = self._require("open_clip.transform")
        settings = library.PreprocessCfg(**self._model.visual.preprocess_cfg)
        transform = library.image_transform_v2(settings, is_train=False)
        found = image_outputs(
            given.items,
            given.origin,
            lambda content: transform(content.image()),
            self._encode_images,
            widths={"features": self.width},
            batch_size=self.batch_size,
            cache=None if self._cache is None else self._cache / self.fingerprint[:32],
            progress=progress,
            description=f"images by {self.name}",
        )
        names, kept = [picture.name for picture in given.items], set(found.rows)
        return ImageFeatures(
            vectors=found.arrays["features"],
            names=tuple(names[row] for row in found.rows),
            left_out=tuple(name for row, name in enumerate(names) if row not in kept),
            n_computed=found.n_computed,
        )

    def embed_texts(self, texts: Iterable[str]) -> Float32Array:
        """Vectors of texts, (n_texts, width), float32 rows of length 1; none may be blank."""
        return self.encode(texts)

    def label_embedding(self, class_names: Sequence[str]) -> FloatArray:
        """Mean over classes of the vectors of "a photo of a NAME.", shape (width,).

        Also what a model card keeps of the data its weights were trained on. ``UsageError`` for no
        names, or one text in the place of a list; ``ProbeSetError`` for a blank name.
        """
        if isinstance(class_names, str) or len(class_names) == 0:
            raise UsageError(f"class_names is {class_names!r}, expected a list of names")
        prompts = class_texts(np.arange(len(class_names)), tuple(class_names))
        mean: FloatArray = self.embed_texts(prompts).mean(axis=0, dtype=np.float64)
        return mean

    def task_embedding(
        self,
        images: Any = None,
        class_names: Sequence[str] | None = None,
        max_images: int = MAX_IMAGES,
        *,
        column: str = IMAGE_COLUMN,
        progress: Progress = NO_PROGRESS,
    ) -> TaskEmbedding:
        """Describe a task by its images, by the names of its classes, or by both.

        Parameters
        ----------
        images, max_images, column, progress
            As for :meth:`look_at`; the sample of images is of 300 by default.
        class_names : sequence of str, optional
            Underscores become spaces.

        Raises
        ------
        UsageError
            Neither images nor names.
        DataError
            No image can be read.
        """
        if images is None and class_names is None:
            raise UsageError(
                "task_embedding: images and class_names are missing; give at least one of them"
            )
        labels = None if class_names is None else self.label_embedding(class_names)
        seen = (
            None
            if images is None
            else self.look_at(images, max_images=max_images, column=column, progress=progress)
        )
        return TaskEmbedding(
            proxy=self.name,
            fingerprint=self.fingerprint,
            images=None if seen is None else mean_and_spread(seen.vectors),
            labels=labels,
            n_images=0 if seen is None else len(seen.vectors),
            left_out=() if seen is None else seen.left_out,
        )

    def _encode_images(self, tensors: list[Any], names: list[str]) -> dict[str, Float32Array]:
        torch = self._require("torch")
        with torch.inference_mode():
            outputs = self._model.encode_image(torch.stack(tensors).to(self.device))
        return {"features": unit_rows(outputs.float().cpu().numpy(), names, self.name)}

    @cached_property
    def _model(self) -> Any:
        try:
            return self._created().eval()
        except DataError as error:
            torch = self._require("torch")
            try:
                torch.zeros(1, device=self.device)
            except (RuntimeError, AssertionError) as refusal:
                raise UsageError(f"device {self.device!r}: {reason_of(refusal)}") from error
            raise


def mean_and_spread(vectors: Float32Array) -> FloatArray:
    """Means of vectors (n_images, width), then standard deviations of the sample, (2 * width,)."""
    exact = vectors.astype(np.float64)
    return np.concatenate([exact.mean(axis=0), exact.std(axis=0)])


def proxy_folder() -> Path:
    """Folder of the small CLIP of the package; a ``DataError`` where its data are missing."""
    return embedded_folder("proxy")


def _model_of(source: str | Path) -> dict[str, Any]:
    """Arguments of :class:`OpenClipEncoder`."""
    text, path = str(source), Path(source).expanduser()
    if source == EMBEDDED:
        return {"model": proxy_folder(), "name": EMBEDDED}
    if path.is_file() and (path.parent / _CONFIG_FILE).is_file():
        path = path.parent
    if path.is_dir():
        return {"model": path}
    if text.startswith((HUB, FOLDER)):
        return {"model": text}
    name, equals, weights = text.partition("=")
    if not (name and equals and weights):
        raise UsageError(
            f"proxy {text!r}: expected 'embedded', NAME=TAG or NAME=FILE such as {HUB_DEFAULT}, or "
            f"a folder with {_CONFIG_FILE} and weights"
        )
    return {"model": name, "pretrained": weights}
