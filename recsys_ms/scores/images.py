"""Images: labelled folders, images of any origin, and running a model on each of them once."""

import hashlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.files import read_arrays, write_arrays
from recsys_ms.core.optional import require
from recsys_ms.core.progress import Progress
from recsys_ms.core.types import IntArray

#: Suffixes of image files.
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
_LOADERS: Final = 4
_LOG = logging.getLogger(__name__)


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
            f"{root}: {len(found)} sub-folders hold images ({', '.join(SUFFIXES)}), expected at "
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


class UnreadableError(DataError):
    """One image cannot be read."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, not yet read.

    ``name`` is a path or position, for messages; ``key`` decides whether a sample takes it, and is
    the same on every machine. ``fetch`` returns encoded bytes, an array, a tensor or an image of
    Pillow.
    """

    name: str
    key: str
    fetch: Callable[[], Any]

    def read(self) -> "Content":
        """Fetch it; an :class:`UnreadableError` where it is missing, or not an image."""
        try:
            return Content(self.name, _plain(self.fetch()))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UnreadableError(f"{self.name}: {' '.join(str(error).split())[:200]}") from error


@dataclass(frozen=True, slots=True)
class Content:
    """A fetched image: an encoded file, or uint8 pixels (height, width) or (height, width, 3)."""

    name: str
    data: bytes | NDArray[np.uint8]

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the contents."""
        if isinstance(self.data, bytes):
            return hashlib.sha256(self.data).hexdigest()
        head = f"pixels {self.data.shape}\n".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.data).tobytes()).hexdigest()

    def image(self, *, as_stored: bool = False) -> Any:
        """Decode it to an RGB image of Pillow.

        It is rotated by its EXIF orientation, and 16 bits a pixel are scaled to 8, unless it is
        taken ``as_stored``. ``UnreadableError`` for another file than an image, or a damaged one.
        """
        pillow = require("PIL.Image", extra="embed", purpose="read images")
        ops = require("PIL.ImageOps", extra="embed", purpose="read images")
        if not isinstance(self.data, bytes):
            return pillow.fromarray(self.data).convert("RGB")
        try:
            with pillow.open(io.BytesIO(self.data)) as image:
                if as_stored:
                    return image.convert("RGB")
                if image.mode.startswith("I;16"):
                    # Scans: Pillow cuts them off at 255 otherwise.
                    image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                return ops.exif_transpose(image).convert("RGB")
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise UnreadableError(f"{self.name}: cannot be read as an image ({error})") from error


@dataclass(frozen=True, slots=True, eq=False)
class ImageOutputs:
    """Outputs of a model for those images that are readable, whose positions are ``rows``.

    ``arrays`` have one row each; ``n_computed`` images were not in the cache.
    """

    rows: list[int]
    arrays: dict[str, NDArray[Any]]
    n_computed: int


def image_outputs(
    pictures: Sequence[Picture],
    origin: str,
    prepare: Callable[[Content], Any],
    run: Callable[[list[Any], list[str]], Mapping[str, NDArray[Any]]],
    *,
    widths: Mapping[str, int | None],
    batch_size: int,
    cache: Path | None,
    progress: Progress,
    description: str,
) -> ImageOutputs:
    """Compute outputs of a model for images, or take them from the cache.

    ``prepare`` makes the model's input of one image, in threads; ``run`` takes a batch of inputs
    and their names, and gives arrays of the names and ``widths`` (``None``: any) wanted. ``cache``
    is a folder for this model alone; it keeps outputs by the contents of the image. ``DataError``
    naming ``origin`` if no image can be read, ``StorageError`` if the cache cannot be written.
    """
    found: dict[int, Mapping[str, Any]] = {}
    reasons: dict[int, str] = {}
    n_computed = 0

    def tried(at: int, action: Callable[..., Any], *given: Any) -> Any:
        try:
            return action(*given)
        except UnreadableError as error:
            reasons[at] = str(error)

    starts = range(0, len(pictures), batch_size)
    with ThreadPoolExecutor(_LOADERS) as pool:
        for start in progress.track(starts, total=len(starts), description=description):
            missing: dict[int, Content] = {}
            # One after another: data sets of torch and Parquet files may not allow several readers.
            for at, picture in enumerate(pictures[start : start + batch_size], start):
                content = tried(at, picture.read)
                if content is not None:
                    kept = None if cache is None else _kept(_place(cache, content), widths)
                    if kept is None:
                        missing[at] = content
                    else:
                        found[at] = kept
            inputs = pool.map(tried, missing, repeat(prepare), missing.values())
            pairs = zip(missing, inputs, strict=True)
            ready = {at: one for at, one in pairs if one is not None}
            if not ready:
                continue
            outputs = run(list(ready.values()), [missing[at].name for at in ready])
            n_computed += len(ready)
            for row, at in enumerate(ready):
                found[at] = {name: array[row] for name, array in outputs.items()}
                if cache is not None:
                    place = _place(cache, missing[at])
                    write_arrays(place, way_out="name another cache", **found[at])
    if not found:
        raise DataError(f"{origin}: none of {len(pictures)} images can be read; {reasons[0]}")
    for at in sorted(reasons):
        _LOG.warning("left out: %s", reasons[at])
    rows = sorted(found)
    arrays = {name: np.stack([found[row][name] for row in rows]) for name in widths}
    return ImageOutputs(rows, arrays, n_computed)


def _place(cache: Path, content: Content) -> Path:
    digest = content.digest
    return cache / digest[:2] / f"{digest}.npz"


def _kept(path: Path, widths: Mapping[str, int | None]) -> Mapping[str, Any] | None:
    """Outputs in a file of the cache; ``None`` for a damaged one, which is then replaced."""
    arrays = read_arrays(path) or {}
    fits = arrays.keys() == widths.keys() and all(
        array.ndim == 1 and widths[name] in (None, array.size) for name, array in arrays.items()
    )
    return arrays if fits else None


def _plain(value: Any) -> bytes | NDArray[np.uint8]:
    """Encoded bytes, or pixels, of what was fetched."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str | Path):
        return Path(value).expanduser().read_bytes()
    if hasattr(value, "detach"):
        array = value.detach().cpu().numpy()
        if array.ndim == 3:
            array = array.transpose(1, 2, 0)
        return _pixels(array, "a tensor (channels, height, width)")
    if hasattr(value, "convert") and hasattr(value, "mode"):
        return np.asarray(value.convert("RGB"))
    return _pixels(np.asarray(value), "an array (height, width, channels)")


def _pixels(array: NDArray[Any], wanted: str) -> NDArray[np.uint8]:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"the shape is {array.shape}, expected {wanted} of 1 or 3 channels")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise ValueError(f"pixels of type {array.dtype}, expected uint8, or floats in [0, 1]")
    if not (np.isfinite(array).all() and array.min() >= 0.0 and array.max() <= 1.0):
        raise ValueError(
            f"pixels from {array.min():.3g} to {array.max():.3g}, expected [0, 1]; leave out "
            "the normalisation"
        )
    return np.rint(array * 255.0).astype(np.uint8)
