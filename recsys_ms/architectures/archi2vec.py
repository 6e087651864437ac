"""archi2vec: a vector and a cluster for any architecture, from its operator graph alone."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import networkx as nx
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.cluster import KMeans

from recsys_ms.architectures.encoders import Encoder, HashedSvd, ParagraphVectors
from recsys_ms.architectures.karate import KarateVectors
from recsys_ms.architectures.subtrees import VIEWS, View, Words
from recsys_ms.core.configured import check_range
from recsys_ms.core.declared import BAD_VALUE_ERRORS, check_declared, stored_by_others
from recsys_ms.core.errors import ArtifactError, DataError, NotFittedError, UsageError
from recsys_ms.core.files import file_errors, read_regular, write_atomic
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.state import State
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.embedded import embedded_folder

EncoderName: TypeAlias = Literal["pv-dbow", "svd", "karateclub"]
#: An operator graph, or its words (:func:`~recsys_ms.architectures.subtrees.graph_words`).
Architecture: TypeAlias = "nx.DiGraph[Any] | Words"

_ENCODERS: Final[dict[str, type[Encoder]]] = {
    encoder.name: encoder for encoder in (ParagraphVectors, HashedSvd, KarateVectors)
}
_FORMAT: Final = "recsys-ms archi2vec"
_VERSION: Final = 1
_FILE: Final = "archi2vec.safetensors"
#: The embedded one, of every architecture of timm, has 4 MB.
_MOST_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Archi2VecConfig:
    """Options of :class:`Archi2Vec`.

    Attributes
    ----------
    encoder : {"pv-dbow", "svd", "karateclub"}, default "pv-dbow"
        Paragraph vectors as in graph2vec; a truncated SVD of hashed words, which trains nothing;
        karateclub's own graph2vec, where it is installed.
    n_dims : int, default 64
        Length of a vector.
    n_clusters : int, default 64
        Groups of architectures; fewer where there are fewer graphs.
    views : tuple of View
        Levels of detail of the words; ``(View(),)``: kinds of operators alone, without traits.
    seed : int, default 0
        Of training and clustering.

    Raises
    ------
    UsageError
        An invalid value.
    """

    encoder: EncoderName = "pv-dbow"
    n_dims: int = 64
    n_clusters: int = 64
    views: tuple[View, ...] = VIEWS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.encoder not in _ENCODERS:
            names = ", ".join(_ENCODERS)
            raise UsageError(
                f"Archi2VecConfig.encoder: got {self.encoder!r}, expected one of {names}"
            )
        if not self.views:
            raise UsageError("Archi2VecConfig.views: got none, expected at least one View")
        check_range(self, "n_dims", "n_clusters", least=1)


class Archi2Vec:
    """Vectors of architectures (Fennec: Bai et al., 2024; graph2vec: Narayanan et al., 2017).

    A graph's words go through an encoder; vectors have length 1, so that inner products are cosine
    similarities, and fall into clusters by KMeans.

    Parameters
    ----------
    config : Archi2VecConfig, optional
        Options.
    """

    def __init__(self, config: Archi2VecConfig | None = None) -> None:
        self.config = config or Archi2VecConfig()
        self._encoder: Encoder | None = None
        self._centers: FloatArray = np.zeros((0, 0))

    def fit(self, architectures: Iterable[Architecture]) -> Self:
        """Learn words and clusters; a second call forgets the first.

        ``DataError`` for fewer than two architectures, or if none share any word;
        ``MissingExtraError`` if the encoder's library is not installed.
        """
        self.fit_transform(architectures)
        return self

    def fit_transform(self, architectures: Iterable[Architecture]) -> FloatArray:
        """Learn as :meth:`fit`, and give the vectors that :meth:`transform` would give."""
        encoder = _ENCODERS[self.config.encoder]()
        documents = [encoder.prepare(each, self.config.views) for each in architectures]
        if len(documents) < 2:
            raise DataError(f"archi2vec: got {len(documents)} architectures, expected at least 2")
        self._encoder = encoder.fit(documents, self.config.n_dims, self.config.seed)
        vectors = np.stack([self._vector(document) for document in documents])
        known = vectors[np.isfinite(vectors).all(axis=1)]
        n_clusters = min(self.config.n_clusters, len(np.unique(known.round(6), axis=0)))
        kmeans = KMeans(n_clusters, n_init=4, random_state=self.config.seed).fit(known)
        self._centers = kmeans.cluster_centers_
        return vectors

    def transform(self, architectures: Iterable[Architecture]) -> FloatArray:
        """Vectors of architectures, of shape (n_architectures, n_dims) and length 1.

        A row depends on its architecture alone, bit for bit; NaN where nothing of it is known.
        """
        encoder = self._fitted()
        rows = [self._vector(encoder.prepare(each, self.config.views)) for each in architectures]
        return np.array(rows).reshape(-1, self.config.n_dims)

    def clusters(self, vectors: FloatArray) -> IntArray:
        """Cluster of each vector of :meth:`transform`, numbered from 0; -1 where it is NaN."""
        self._fitted()
        # One vector at a time, so that none depends on the others.
        found = [
            ((self._centers - vector) ** 2).sum(axis=1).argmin()
            if np.isfinite(vector).all()
            else -1
            for vector in vectors
        ]
        return np.array(found, dtype=np.int64)

    def save(self, folder: str | Path) -> None:
        """Write ``archi2vec.safetensors`` into a folder: arrays and JSON, no pickle.

        ``StorageError`` if the folder cannot be written.
        """
        encoder = self._fitted()
        state = encoder.state()
        about = {
            "format": _FORMAT,
            "format_version": _VERSION,
            "config": asdict(self.config),
            "encoder": state.values,
        }
        arrays = {f"encoder.{name}": array for name, array in state.arrays.items()}
        arrays["centers"] = self._centers
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_atomic(
            Path(folder) / _FILE, save(whole, {"about": json.dumps(about, sort_keys=True)})
        )

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote; vectors come out the same, bit for bit.

        ``ArtifactError`` for a file that is absent, truncated, or of another or a newer format.
        """
        path = Path(folder) / _FILE
        way_out = "write it with Archi2Vec.save or recsys-ms embed, or embed again"
        caught = (*BAD_VALUE_ERRORS, SafetensorError)
        with file_errors(f"{path}: not archi2vec", way_out, catch=caught, raises=ArtifactError):
            data = read_regular(path, max_bytes=_MOST_BYTES, follow=True)
            arrays = load(data)
            # The header of a safetensors file: its length, then JSON.
            header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
            about: dict[str, Any] = parse_json(header["__metadata__"]["about"], finite=True)
            if about.get("format") != _FORMAT:
                raise ValueError("its header names another format")
            check_declared(about, {**dict.fromkeys(about, Any), "format_version": int})
        if about.get("format_version", 0) > _VERSION:
            raise ArtifactError(
                f"{path}: format version {about['format_version']}, and this recsys-ms reads up to "
                f"{_VERSION}; upgrade recsys-ms"
            )
        with stored_by_others(f"{path}: not archi2vec"):
            config = about["config"]
            views = [View(**{**view, "traits": tuple(view["traits"])}) for view in config["views"]]
            restored = cls(Archi2VecConfig(**{**config, "views": tuple(views)}))
            inner = {k.removeprefix("encoder."): v for k, v in arrays.items() if k != "centers"}
            # Early files have no entry for their arrays.
            values = {**{name: {"array": name} for name in inner}, **about["encoder"]}
            restored._encoder = _ENCODERS[restored.config.encoder].from_state(
                State(values=values, arrays=inner)
            )
            restored._centers = np.array(arrays["centers"], dtype=np.float64)
            n_dims = restored.config.n_dims
            if restored._centers.shape[1:] != (n_dims,) or not np.isfinite(restored._centers).all():
                raise DataError(f"centers has the shape {restored._centers.shape}, or NaN")
        return restored

    @classmethod
    def embedded(cls) -> Self:
        """The one that ships with the package, trained on every architecture of timm."""
        return cls.load(embedded_folder("timm"))

    def _vector(self, document: Any) -> FloatArray:
        vector = self._fitted().encode(document)
        if vector is None:
            return np.full(self.config.n_dims, np.nan)
        return vector / max(float(np.linalg.norm(vector)), np.finfo(float).tiny)

    def _fitted(self) -> Encoder:
        if self._encoder is None:
            raise NotFittedError("archi2vec is not fitted; call fit() or load() first")
        return self._encoder
