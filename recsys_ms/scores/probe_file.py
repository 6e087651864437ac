"""Reads probe sets from NumPy's ``.npz`` files, without pickle."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys_ms.core.errors import DataError, ProbeSetError
from recsys_ms.core.files import file_errors
from recsys_ms.core.types import IntArray
from recsys_ms.scores.label_embeddings import LabelEmbedding

_EMBEDDING: Final = "label_embedding_"
_UNREADABLE: Final = (
    *(OSError, ValueError, EOFError, AttributeError),
    *(zipfile.BadZipFile, zlib.error),
)
_KNOWN: Final = ("features", "labels", "source_probs", "class_names")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFile:
    """Arrays of a probe file, not checked yet, as :func:`~.score_all.score_all` takes them.

    ``class_names`` holds the name of class ``i`` at position ``i``, ``label_embeddings`` those of
    the arrays ``label_embedding_NAME``.
    """

    features: Any
    labels: Any
    source_probs: Any
    class_names: tuple[str, ...] | None
    label_embeddings: tuple[LabelEmbedding, ...]


def read_probe_file(path: str | Path) -> ProbeFile:
    """Read a ``.npz`` file.

    The arrays ``features`` and ``labels`` are needed, ``source_probs`` and ``class_names``
    optional. ``label_embedding_NAME`` has one row a class, in sorted order of the labels, or one
    row an example; rows are scaled to length 1. ``DataError`` for a missing file, one that is not a
    ``.npz`` of plain arrays, and a missing or unknown array; ``ProbeSetError`` for another number
    of embeddings.
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(f"{source}: no such file")
    with file_errors(
        f"{source}: not a .npz file of plain arrays",
        "write it with numpy.savez(path, features=..., labels=...)",
        catch=_UNREADABLE,
        raises=DataError,
    ):
        if not zipfile.is_zipfile(source):
            raise ValueError("it is not a ZIP archive")
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: _plain_array(file, name) for name in file.files}
    strange = [n for n in arrays if n not in _KNOWN and not n.startswith(_EMBEDDING)]
    missing = [name for name in ("features", "labels") if name not in arrays]
    if missing or strange:
        wanted = f"{', '.join(_KNOWN)} and {_EMBEDDING}NAME"
        fault = f"array {missing[0]!r} is missing" if missing else f"unknown array {strange[0]!r}"
        raise DataError(f"{source}: {fault}; arrays are {wanted}")
    for name in ("labels", "source_probs"):
        if name in arrays and arrays[name].shape[:1] != arrays["features"].shape[:1]:
            raise ProbeSetError(
                f"{source}: features have shape {arrays['features'].shape}, {name} "
                f"{arrays[name].shape}; expected as many rows of both, one an example"
            )
    names = arrays.get("class_names")
    return ProbeFile(
        features=arrays["features"],
        labels=arrays["labels"],
        source_probs=arrays.get("source_probs"),
        class_names=None if names is None else tuple(str(name) for name in names.ravel()),
        label_embeddings=tuple(
            _embedding(name.removeprefix(_EMBEDDING), array, arrays["labels"])
            for name, array in arrays.items()
            if name.startswith(_EMBEDDING)
        ),
    )


def _plain_array(file: Any, name: str) -> Any:
    try:
        return file[name]
    except ValueError as error:
        # NumPy's text advises to allow pickle, which could run code.
        if "allow_pickle" in str(error):
            raise ValueError(f"{name!r} holds Python objects") from error
        raise


def _embedding(name: str, array: Any, labels: Any) -> LabelEmbedding:
    codes: IntArray = np.unique(labels, return_inverse=True)[1].reshape(-1)
    n_classes = int(codes.max(initial=-1)) + 1
    if array.ndim != 2 or array.shape[0] not in (n_classes, codes.size):
        raise ProbeSetError(
            f"label_embedding_{name}: got shape {array.shape}, expected {n_classes} rows (one a "
            f"class) or {codes.size} (one an example)"
        )
    if array.shape[0] != n_classes:
        codes = np.arange(codes.size)
    lengths = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ProbeSetError(f"label_embedding_{name}: expected finite rows that are not zero")
    return LabelEmbedding(name, (array / lengths).astype(np.float32), codes)
