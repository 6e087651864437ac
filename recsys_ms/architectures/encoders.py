"""Encoders of the words of a graph as a vector: PV-DBOW as in graph2vec, or a truncated SVD."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Self

import networkx as nx
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from recsys_ms.architectures.subtrees import View, Words, graph_words
from recsys_ms.core.errors import DataError
from recsys_ms.core.optional import require
from recsys_ms.core.state import Derived, Learned, Stateful
from recsys_ms.core.types import FloatArray, IntArray

_TOLERANCE: Final = 1e-8


class Encoder(Stateful, ABC):
    """Words to vectors; a vector depends on its own words and the learned state alone."""

    name: ClassVar[str]

    def prepare(self, architecture: Any, views: Sequence[View]) -> Any:
        """Input of the encoder: the words of a graph, which may be given instead of it."""
        if isinstance(architecture, nx.DiGraph):
            return graph_words(architecture, views)
        return architecture

    @abstractmethod
    def fit(self, documents: Sequence[Any], n_dims: int, seed: int) -> Self:
        """Learn from prepared architectures."""

    @abstractmethod
    def encode(self, document: Any) -> FloatArray | None:
        """Vector of a prepared architecture, shape (n_dims,); ``None`` where nothing is known."""


class ParagraphVectors(Encoder):
    """PV-DBOW with negative sampling (Le & Mikolov, 2014; graph2vec: Narayanan et al., 2017).

    Training is gensim's, on one thread, so that a seed gives one result. A vector is then not that
    of training but the maximum of its own objective with the words held fixed::

        sum_{w in words} log s(u.v_w) + k n/m sum_{w in noise} log s(-u.v_w) - penalty/2 |u|^2

    with ``s`` the logistic function, ``n`` the number of words and ``m`` noise words that stand for
    the noise distribution. It is concave with one maximum: a graph has the same vector whether it
    was trained on or not.

    Parameters
    ----------
    epochs : int, default 30
        Passes over the words.
    n_negative : int, default 5
        Noise words for each word, ``k``.
    """

    name: ClassVar[str] = "pv-dbow"
    #: A word of a single graph does not relate it to others.
    min_graphs: ClassVar[int] = 2
    n_noise: ClassVar[int] = 512
    penalty: ClassVar[float] = 10.0

    epochs: Learned[int]
    n_negative: Learned[int]
    words: Learned[IntArray]
    vectors: Learned[NDArray[np.float32]]
    noise: Learned[IntArray]
    _codes: Derived[Words]

    def __init__(self, epochs: int = 30, n_negative: int = 5) -> None:
        self.epochs, self.n_negative = epochs, n_negative

    def fit(self, documents: Sequence[Any], n_dims: int, seed: int) -> Self:
        """Train word vectors with gensim; ``DataError`` if no two graphs share a word."""
        doc2vec: Any = require(
            "gensim.models.doc2vec", extra="embed", purpose="train vectors of architectures"
        )
        _, n_graphs = np.unique(np.concatenate(documents), return_counts=True)
        if n_graphs.max() < self.min_graphs:
            raise DataError("no two graphs share a word; give more graphs to learn from")
        texts = [
            doc2vec.TaggedDocument([str(word) for word in words.tolist()], [at])
            for at, words in enumerate(documents)
        ]
        trained = doc2vec.Doc2Vec(
            texts,
            dm=0,
            vector_size=n_dims,
            epochs=self.epochs,
            negative=self.n_negative,
            hs=0,
            sample=0,
            min_count=self.min_graphs,
            workers=1,
            seed=seed,
            alpha=0.05,
            min_alpha=0.0005,
        )
        return self.take(trained)

    def take(self, trained: Any) -> Self:
        """Take the word vectors out of a ``gensim`` ``Doc2Vec``."""
        keys = trained.wv.index_to_key
        words = np.array([self.code(key) for key in keys], dtype=np.uint64)
        order = np.argsort(words)
        counts = np.array([trained.wv.get_vecattr(key, "count") for key in keys], dtype=np.float64)
        share = np.cumsum(counts[order] ** trained.ns_exponent)
        middles = (np.arange(self.n_noise) + 0.5) / self.n_noise
        # safetensors has no unsigned 64-bit integers in every version.
        self.words = words[order].view(np.int64)
        self.vectors = trained.syn1neg[order].astype(np.float32)
        self.noise = np.searchsorted(share / share[-1], middles)
        self._derive()
        return self

    def _derive(self) -> None:
        self._codes = self.words.view(np.uint64)

    @staticmethod
    def code(text: str) -> int:
        """Integer that gensim's word stands for."""
        return int(text)

    def encode(self, document: Any) -> FloatArray | None:
        """Vector that maximises the objective of a graph's words."""
        at = np.minimum(np.searchsorted(self._codes, document), len(self._codes) - 1)
        known = self.vectors[at[self._codes[at] == document]]
        if not len(known):
            return None
        rows = np.vstack([known, self.vectors[self.noise]]).astype(np.float64)
        is_known = np.arange(len(rows)) < len(known)
        weights = np.where(is_known, 1.0, self.n_negative * len(known) / self.n_noise)
        # The objective is that of a logistic regression that tells words from noise.
        regression = LogisticRegression(
            C=1 / self.penalty, fit_intercept=False, solver="newton-cholesky", tol=_TOLERANCE
        ).fit(rows, is_known, sample_weight=weights)
        vector: FloatArray = regression.coef_[0]
        return vector


class HashedSvd(Encoder):
    """Words hashed into buckets, weighted by rarity, and a truncated SVD: nothing is trained.

    Bucket ``b`` has the weight log(n_graphs / graphs with b); rows have length 1 before the SVD.
    """

    name: ClassVar[str] = "svd"
    n_buckets: ClassVar[int] = 1 << 15

    weights: Learned[FloatArray]
    components: Learned[NDArray[np.float32]]

    def fit(self, documents: Sequence[Any], n_dims: int, seed: int) -> Self:
        """Decompose the buckets of graphs; ``DataError`` for fewer graphs than dimensions."""
        if len(documents) <= n_dims:
            raise DataError(
                f"{n_dims} dimensions need more than {n_dims} graphs, got {len(documents)}; "
                "lower n_dims or give more graphs"
            )
        rows = [np.unique(self._buckets(words)) for words in documents]
        n_graphs = np.bincount(np.concatenate(rows), minlength=self.n_buckets)
        rarity = np.log(len(rows) / np.maximum(n_graphs, 1))
        self.weights = np.where(n_graphs > 1, rarity, 0.0)
        ends = np.cumsum([0, *(row.size for row in rows)])
        columns = np.concatenate(rows)
        shape = (len(rows), self.n_buckets)
        table = sp.csr_array((self.weights[columns], columns, ends), shape=shape)
        svd = TruncatedSVD(n_dims, algorithm="arpack", random_state=seed).fit(normalize(table))
        self.components = svd.components_.T.astype(np.float32)
        return self

    def encode(self, document: Any) -> FloatArray | None:
        """Project a graph's buckets."""
        buckets = np.unique(self._buckets(document))
        weights = self.weights[buckets]
        if not weights.any():
            return None
        projected: FloatArray = (weights / np.linalg.norm(weights)) @ self.components[buckets]
        return projected.astype(np.float64)

    def _buckets(self, words: Words) -> IntArray:
        return (words % np.uint64(self.n_buckets)).astype(np.int64)
