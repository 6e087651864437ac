"""Label embeddings on disk, so that processes that share a folder embed a text once.

A key is the SHA-256 of an encoder's fingerprint and the text, so other weights, another pooling or
another vocabulary never meet an old entry. Texts that are embedded together make one file, which
is written whole and never changed: writers need no lock, and two of them write at worst the same
vector twice.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from recsys_ms.core.files import file_errors, read_arrays, write_arrays
from recsys_ms.scores.label_embeddings import Float32Array, LabelEncoder, check_unit_rows
from recsys_ms.scores.label_text_parts import check_texts

_SUFFIX: Final = ".npz"
# Most texts in a file, and so the most that a killed process loses.
_FILE_ROWS: Final = 1024


class CachedEncoder(LabelEncoder):
    """An encoder that keeps its embeddings on disk.

    Embeddings that are all in the cache are read without loading the model.

    Parameters
    ----------
    encoder : LabelEncoder
        Embeds the texts that are not in the cache.
    folder : str or Path
        The cache: created when first written to, shared by encoders and processes, and free to be
        deleted at any time.

    Notes
    -----
    A file holds keys (n_rows, 32) and vectors (n_rows, width), with a checksum of each array. A
    file that cannot be read or has vectors of another width is damaged: its texts are embedded
    again, and it is removed.
    """

    def __init__(self, encoder: LabelEncoder, folder: str | Path) -> None:
        self.encoder = encoder
        self.folder = Path(folder).expanduser()

    @property
    def name(self) -> str:
        """Name of the encoder."""
        return self.encoder.name

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return self.encoder.width

    @property
    def fingerprint(self) -> str:
        """Digest of the encoder."""
        return self.encoder.fingerprint

    def encode(self, texts: Iterable[str]) -> Float32Array:
        """Embeddings of shape (n_texts, width), from the cache or the encoder.

        ``StorageError`` if the cache cannot be written, ``DataError`` if the encoder did not return
        unit rows of its width (they are not kept).
        """
        given = check_texts(texts)
        key_of = {text: self._key(text) for text in given}
        known, damaged = self._read(set(key_of.values()))
        missing = [text for text, key in key_of.items() if key not in known]
        for start in range(0, len(missing), _FILE_ROWS):
            part = missing[start : start + _FILE_ROWS]
            shape = (len(part), self.width)
            vectors = check_unit_rows(self.encoder.encode(part), shape, self.name)
            keys = [key_of[text] for text in part]
            known.update(zip(keys, vectors, strict=True))
            self._write(b"".join(keys), vectors)
        for path in damaged:
            self._remove(path)
        return np.stack([known[key_of[text]] for text in given])

    @property
    def _directory(self) -> Path:
        # A name that every file system takes, for a fingerprint of any letters.
        return self.folder / hashlib.sha256(self.fingerprint.encode()).hexdigest()[:32]

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.fingerprint}\0{text}".encode()).digest()

    def _read(self, wanted: set[bytes]) -> tuple[dict[bytes, Float32Array], list[Path]]:
        """Those of the wanted vectors that are in the cache, and damaged files."""
        known: dict[bytes, Float32Array] = {}
        damaged = []
        for path in sorted(self._directory.glob(f"[!.]*{_SUFFIX}")):
            if len(known) == len(wanted):
                break
            rows = self._rows(path)
            if rows is None:
                damaged.append(path)
            else:
                known |= {key: vector for key, vector in rows.items() if key in wanted}
        return known, damaged

    def _rows(self, path: Path) -> dict[bytes, Float32Array] | None:
        arrays = read_arrays(path) or {}
        keys, vectors = arrays.get("keys"), arrays.get("vectors")
        if keys is None or vectors is None or vectors.dtype != np.float32:
            return None
        if keys.ndim != 2 or vectors.shape != (len(keys), self.width):
            return None
        return dict(zip(map(bytes, keys), vectors, strict=True))

    def _write(self, keys: bytes, vectors: Float32Array) -> None:
        write_arrays(
            self._directory / f"{hashlib.sha256(keys).hexdigest()[:32]}{_SUFFIX}",
            way_out="pass a folder that is writable and has free space",
            keys=np.frombuffer(keys, dtype=np.uint8).reshape(len(vectors), -1),
            vectors=vectors,
        )

    def _remove(self, path: Path) -> None:
        """Remove a damaged file, unless another process has replaced it since."""
        if self._rows(path) is None:
            with file_errors(f"{path}: is damaged and cannot be removed", "remove it by hand"):
                path.unlink(missing_ok=True)
