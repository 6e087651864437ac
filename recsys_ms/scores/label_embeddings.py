"""Label embeddings for EMMS: bases of text encoders, and texts through several of them.

F-labels of Meng et al. (2023), "Foundation Model is Efficient Multimodal Multitask Model Selector":
z_k = F_k(y) / ||F_k(y)|| for the label text y and each foundation model F_k.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recsys_ms.core.errors import DataError, ProbeSetError, UsageError
from recsys_ms.core.optional import require
from recsys_ms.core.types import IntArray
from recsys_ms.scores.label_text_parts import check_texts
from recsys_ms.scores.label_texts import distinct
from recsys_ms.scores.label_weights import EXTRA

Float32Array: TypeAlias = NDArray[np.float32]

_log = logging.getLogger(__name__)

# Norms of float32 rows of any width stay far closer to 1 than this.
_NORM_TOLERANCE: Final = 1e-3


class LabelEncoder(ABC):
    """A foundation model that turns texts into vectors of length 1."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the embeddings, different for each encoder of one EMMS."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers in an embedding."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of what the embeddings depend on: code, weights, vocabulary, pooling."""

    @abstractmethod
    def encode(self, texts: Iterable[str]) -> Float32Array:
        """Embeddings of ``texts``, each independent of the others, of shape (n_texts, width).

        Float32, rows of length 1. ``ProbeSetError`` for no texts, or blank ones.
        """


class TorchEncoder(LabelEncoder):
    """Runs texts through a model in batches; subclasses tokenise and compute."""

    def __init__(self, name: str, batch_size: int, device: str) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size}: expected at least 1")
        self._name = name
        self.batch_size = batch_size
        self.device = device

    @property
    def name(self) -> str:
        """Name of the embeddings."""
        return self._name

    def encode(self, texts: Iterable[str]) -> Float32Array:
        """Embeddings of shape (n_texts, width), rows of length 1."""
        given = check_texts(texts)
        width = self.width
        torch = self._require("torch")
        tokens = self._tokens(given)
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(given)), key=lambda row: len(tokens[row]))
        vectors = np.empty((len(given), width), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                outputs = self._forward(torch, [tokens[row] for row in rows])
                if outputs.shape[1] != width:
                    raise DataError(
                        f"{self.name}: gives embeddings of {outputs.shape[1]} numbers, its "
                        f"configuration says {width}"
                    )
                vectors[rows] = outputs.float().cpu().numpy()
        return unit_rows(vectors, given, self.name)

    def _require(self, module: str) -> Any:
        return require(module, extra=EXTRA, purpose=f"embed with {self.name}")

    def _tell_full(self, n_full: int, n_texts: int, limit: int) -> None:
        """Warn of texts that reach the last position of the model and may have been cut."""
        if n_full:
            _log.warning(
                "%s: %d of %d texts fill the %d tokens that it reads; later ones are cut off",
                self.name,
                n_full,
                n_texts,
                limit,
            )

    @abstractmethod
    def _tokens(self, texts: tuple[str, ...]) -> Sequence[Any]: ...

    @abstractmethod
    def _forward(self, torch: Any, tokens: list[Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class LabelEmbedding:
    """Label embeddings of a probe set by one foundation model: Z = ``vectors[codes]``.

    Attributes
    ----------
    name : str
        Name of the encoder.
    vectors : ndarray of shape (n_distinct, width)
        Embeddings of the distinct label texts, float32, rows of length 1. E in Z = H E.
    codes : ndarray of shape (n_probe,)
        Which of them each example has, int64. H is the one-hot matrix of the codes.

    Raises
    ------
    ProbeSetError
        Arrays of another shape or type, NaN, or codes without a row in ``vectors``.
    """

    name: str
    vectors: Float32Array
    codes: IntArray

    def __post_init__(self) -> None:
        vectors: Any = np.asarray(self.vectors)
        codes: Any = np.asarray(self.codes)
        if vectors.ndim != 2 or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
            raise ProbeSetError(
                f"{self.name}: vectors of shape {vectors.shape} and type {vectors.dtype}, expected "
                "finite float32 of shape (n_distinct, width)"
            )
        if codes.ndim != 1 or codes.dtype.kind != "i" or codes.size == 0:
            raise ProbeSetError(
                f"{self.name}: codes of shape {codes.shape} and type {codes.dtype}, expected "
                "integers of shape (n_probe,)"
            )
        if codes.min() < 0 or codes.max() >= vectors.shape[0]:
            raise ProbeSetError(
                f"{self.name}: codes from {codes.min()} to {codes.max()} for {vectors.shape[0]} "
                "vectors"
            )

    @property
    def n_distinct(self) -> int:
        """Number of distinct label texts."""
        return int(self.vectors.shape[0])

    @property
    def n_probe(self) -> int:
        """Number of examples."""
        return int(self.codes.size)

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return int(self.vectors.shape[1])


def label_embeddings(
    texts: Iterable[str], encoders: Sequence[LabelEncoder]
) -> tuple[LabelEmbedding, ...]:
    """Label texts through each encoder, every distinct text once.

    Parameters
    ----------
    texts : iterable of str, n_probe of them
        Label text of each example, from :mod:`recsys_ms.scores.label_texts`.
    encoders : sequence of LabelEncoder, n_encoders of them
        Foundation models with different names.

    Returns
    -------
    tuple of LabelEmbedding, n_encoders of them
        In the order of ``encoders``, sharing one array of codes.

    Raises
    ------
    ProbeSetError
        No texts, or blank ones.
    UsageError
        No encoder, or two of one name.
    DataError
        An encoder whose vectors are not unit rows of its width.
    """
    names = [encoder.name for encoder in encoders]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or repeated:
        raise UsageError(
            f"encoders: got {names}, expected at least one and no name twice; pass name= to "
            "distinguish encoders of one model"
        )
    unique, codes = distinct(texts)
    codes.flags.writeable = False
    embeddings = []
    for encoder in encoders:
        shape = (len(unique), encoder.width)
        vectors = check_unit_rows(encoder.encode(unique), shape, encoder.name)
        embeddings.append(LabelEmbedding(encoder.name, vectors, codes))
    return tuple(embeddings)


def unit_rows(matrix: Float32Array, texts: Sequence[str], name: str) -> Float32Array:
    """Rows of ``matrix`` divided by their length, float32; lengths are computed in float64.

    ``texts`` are what the rows embed: a ``DataError`` names the one whose row is zero or not
    finite (damaged weights, or weights of another model).
    """
    # einsum makes no second matrix of float64.
    squares = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)
    unusable = ~np.isfinite(squares) | (squares == 0)
    if unusable.any():
        row = int(unusable.argmax())
        raise DataError(
            f"{name}: the embedding of {texts[row]!r} has squared length {squares[row]}, expected "
            "a finite one above 0; load the weights again"
        )
    scaled: Float32Array = (matrix / np.sqrt(squares)[:, None]).astype(np.float32)
    return scaled


def check_unit_rows(vectors: Any, shape: tuple[int, int], name: str) -> Float32Array:
    """Embeddings of an encoder; ``DataError`` if they are not float32 unit rows of ``shape``."""
    if not isinstance(vectors, np.ndarray) or vectors.shape != shape or vectors.dtype != np.float32:
        kind = vectors.dtype if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise DataError(
            f"{name}: got {kind} of shape {np.shape(vectors)}, expected float32 of shape {shape}"
        )
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    # Negated so that NaN is refused too.
    if not (np.abs(norms - 1) <= _NORM_TOLERANCE).all():
        raise DataError(
            f"{name}: got rows of length {norms.min():.4g} to {norms.max():.4g}, expected 1; "
            "divide each embedding by its length"
        )
    return vectors
