"""Unlabelled images of a task from folders, files, tables, arrays and data sets, read lazily."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ms.cold_start import MAX_IMAGES
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.files import file_errors
from recsys_ms.scores.images import SUFFIXES, Picture, images_below, sample_of

IMAGE_COLUMN: Final = "image"
_TABLES: Final = (".parquet", ".pq")


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
        chosen = sample_of([each.key for each in self.items], most)
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
        found = images_below(path)
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


def _of_parquet(path: Path, column: str) -> Pictures:
    unreadable = (OSError, pa.ArrowException)
    with file_errors(f"{path}: cannot be read as Parquet", catch=unreadable, raises=DataError):
        file: Any = pq.ParquetFile(path)
    schema = file.schema_arrow
    if column not in schema.names:
        raise DataError(
            f"{path}: no column {column!r}; give the column of the images, one of "
            f"{', '.join(schema.names)}"
        )
    kind = schema.field(column).type
    in_struct = pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]
    if not (in_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"{path}: column {column!r} holds {kind}, expected bytes or a struct with 'bytes'"
        )

    @lru_cache(maxsize=1)
    def values_of(group: int) -> Any:
        try:
            values = file.read_row_group(group, columns=[column]).column(0).combine_chunks()
        except pa.ArrowException as error:
            raise ValueError(f"the row group is damaged ({error})") from error
        return values.field("bytes") if in_struct else values

    def fetch(group: int, row: int) -> bytes:
        data = values_of(group)[row].as_py()
        if not isinstance(data, bytes):
            raise ValueError("the row is empty")
        return data

    groups = range(file.num_row_groups)
    places = [(g, row) for g in groups for row in range(file.metadata.row_group(g).num_rows)]
    if not places:
        raise DataError(f"{path}: no rows, expected at least one image")
    return Pictures(
        str(path),
        tuple(
            Picture(f"{path}, row {n}", str(n), partial(fetch, *place))
            for n, place in enumerate(places)
        ),
    )


def _of_items(source: Any, column: str) -> Pictures:
    def fetch(position: int) -> Any:
        item = source[position]
        if isinstance(item, Mapping):
            return item[column]
        return item[0] if isinstance(item, tuple | list) else item

    def picture(position: int) -> Picture:
        if isinstance(source, list | tuple) and isinstance(source[position], str | Path):
            path = Path(source[position]).expanduser()
            return Picture(str(path), path.as_posix(), path.read_bytes)
        return Picture(f"image {position}", str(position), partial(fetch, position))

    return Pictures(f"{len(source)} images", tuple(map(picture, range(len(source)))))
