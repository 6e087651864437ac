"""Unlabelled images of a task from folders, files, tables, arrays and data sets, read lazily."""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_ms.cold_start import MAX_IMAGES
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.optional import require
from recsys_ms.scores.images import SUFFIXES

IMAGE_COLUMN: Final = "image"
_TABLES: Final = (".parquet", ".pq")
_EXTRA: Final = "embed"
_PURPOSE: Final = "read images"


class UnreadableError(DataError):
    """One image cannot be read."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, not yet read.

    Attributes
    ----------
    name : str
        Path or position, for messages.
    key : str
        Decides whether a sample takes it; the same on every machine.
    fetch : callable
        Returns its encoded bytes, an array, a tensor or an image of Pillow.
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

    def image(self) -> Any:
        """Decode it to an RGB image of Pillow, rotated by its EXIF orientation.

        Raises
        ------
        UnreadableError
            Not an image, or a damaged one.
        """
        pillow = require("PIL.Image", extra=_EXTRA, purpose=_PURPOSE)
        ops = require("PIL.ImageOps", extra=_EXTRA, purpose=_PURPOSE)
        if not isinstance(self.data, bytes):
            return pillow.fromarray(self.data).convert("RGB")
        try:
            with pillow.open(io.BytesIO(self.data)) as image:
                return ops.exif_transpose(_eight_bit(pillow, image)).convert("RGB")
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise UnreadableError(f"{self.name}: cannot be read as an image ({error})") from error


@dataclass(frozen=True, slots=True)
class Pictures:
    """Unlabelled images of one task; ``origin`` says in messages where they come from."""

    origin: str
    items: tuple[Picture, ...]

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, most: int = MAX_IMAGES) -> "Pictures":
        """At most ``most`` of them, in their order, chosen by their keys alone."""
        if most < 1:
            raise UsageError(f"max_images is {most}, expected at least 1")
        if len(self.items) <= most:
            return self
        # The order of a digest is as good as chance, and the same on every machine.
        digests = [hashlib.sha256(each.key.encode()).digest() for each in self.items]
        chosen = sorted(sorted(range(len(digests)), key=digests.__getitem__)[:most])
        return Pictures(self.origin, tuple(self.items[row] for row in chosen))


def open_pictures(source: Any, *, column: str = IMAGE_COLUMN) -> Pictures:
    """Find the images of a task without decoding them.

    Parameters
    ----------
    source : str, Path, sequence or data set
        A folder, flat or nested (hidden files are left out); a file of an image; a Parquet file
        with a column of images; a list of paths, of images of Pillow, or of arrays (uint8, or
        floats in [0, 1], of shape (height, width), (height, width, 1) or (height, width, 3)), or
        one array of them; or a data set of torch: with a length and items that are an image, a
        tensor (channels, height, width) in uint8 or [0, 1], a tuple that begins with one of these,
        or a mapping with one at ``column``.
    column : str, default "image"
        Column of the Parquet file (bytes, or a struct with ``bytes``), or key of the items.

    Raises
    ------
    DataError
        The source does not exist, or has no images.
    UsageError
        A source of another kind.
    """
    if isinstance(source, Pictures):
        return source
    if isinstance(source, str | Path):
        return _of_path(Path(source).expanduser(), column)
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")) or isinstance(
        source, Mapping | bytes
    ):
        raise UsageError(
            f"images: got {type(source).__name__}, expected a folder, a Parquet file, a list of "
            "arrays, images or paths, or a data set with a length"
        )
    if len(source) == 0:
        raise DataError("images: got none, expected at least one")
    return _of_items(source, column)


def _of_path(path: Path, column: str) -> Pictures:
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if _is_image(each, path))
        if not found:
            raise DataError(f"{path}: the folder has no images ({', '.join(SUFFIXES)})")
        return Pictures(
            str(path),
            tuple(
                Picture(str(each), each.relative_to(path).as_posix(), each.read_bytes)
                for each in found
            ),
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; give a folder or a Parquet file")
    if path.suffix.lower() in _TABLES:
        return _of_parquet(path, column)
    if path.suffix.lower() in SUFFIXES:
        return Pictures(str(path), (Picture(str(path), path.name, path.read_bytes),))
    raise DataError(f"{path}: not a folder, a Parquet file or an image ({', '.join(SUFFIXES)})")


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


class _ParquetColumn:
    """Images of a Parquet file, a row group at a time."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        try:
            self._file: Any = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
        schema = self._file.schema_arrow
        if column not in schema.names:
            raise DataError(
                f"{path}: no column {column!r}; give the column of the images, one of "
                f"{', '.join(schema.names)}"
            )
        kind = schema.field(column).type
        fields = [field.name for field in kind] if pa.types.is_struct(kind) else []
        self._in_struct = "bytes" in fields
        if not (self._in_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise DataError(
                f"{path}: column {column!r} holds {kind}, expected bytes or a struct with 'bytes'"
            )
        groups = range(self._file.num_row_groups)
        counts = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._ends = np.cumsum(counts)
        self._held: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def get(self, row: int) -> bytes:
        group = int(np.searchsorted(self._ends, row, side="right"))
        if self._held is None or self._held[0] != group:
            try:
                table = self._file.read_row_group(group, columns=[self._column])
            except pa.ArrowException as error:
                raise ValueError(f"the row group is damaged ({error})") from error
            self._held = group, table.column(0).combine_chunks()
        values = self._held[1].field("bytes") if self._in_struct else self._held[1]
        data = values[row - (int(self._ends[group - 1]) if group else 0)].as_py()
        if not isinstance(data, bytes):
            raise ValueError("the row is empty")
        return data


def _of_parquet(path: Path, column: str) -> Pictures:
    table = _ParquetColumn(path, column)
    if len(table) == 0:
        raise DataError(f"{path}: no rows, expected at least one image")
    return Pictures(
        str(path),
        tuple(
            Picture(f"{path}, row {row}", str(row), partial(table.get, row))
            for row in range(len(table))
        ),
    )


def _of_items(source: Any, column: str) -> Pictures:
    def picture(position: int) -> Picture:
        if isinstance(source, list | tuple) and isinstance(source[position], str | Path):
            path = Path(source[position]).expanduser()
            return Picture(str(path), path.as_posix(), path.read_bytes)
        return Picture(f"image {position}", str(position), lambda: _first(source[position], column))

    return Pictures(
        f"{len(source)} images", tuple(picture(position) for position in range(len(source)))
    )


def _first(item: Any, column: str) -> Any:
    """The image of an item of a data set."""
    if isinstance(item, Mapping):
        return item[column]
    return item[0] if isinstance(item, tuple | list) else item


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


def _eight_bit(pillow: Any, image: Any) -> Any:
    """Images of 16 bits a pixel, such as scans: Pillow cuts them off at 255 otherwise."""
    if not image.mode.startswith("I;16"):
        return image
    return pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
