"""karateclub's graph2vec as a backend: its words and its training, our file format and inference.

It pins old releases of NumPy and networkx, so it is not a requirement of ours; installed without
its pins, it is the reference that ours is compared with.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Final, Self

import networkx as nx
import numpy as np

from recsys_ms.architectures.encoders import ParagraphVectors
from recsys_ms.architectures.subtrees import LAYER, View, Words
from recsys_ms.core.errors import UsageError
from recsys_ms.core.optional import require
from recsys_ms.core.state import Derived
from recsys_ms.core.types import FloatArray

_ROUNDS: Final = 2


class KarateVectors(ParagraphVectors):
    """``karateclub.Graph2Vec`` on undirected graphs, with its defaults (Rozemberczki et al., 2020).

    Vectors are the maximum of the objective, as for :class:`ParagraphVectors`, with each word once
    (training passes over most repetitions of frequent words); karateclub's own inference is random.
    """

    name: ClassVar[str] = "karateclub"
    #: Vectors of training, as karateclub gives them.
    trained_: Derived[FloatArray]

    def prepare(self, architecture: Any, views: Sequence[View]) -> Any:
        """Undirected graph, nodes numbered from 0, texts as ``feature``, for any views.

        ``UsageError`` for words instead of a graph.
        """
        if not isinstance(architecture, nx.DiGraph):
            raise UsageError("encoder 'karateclub' makes its own words: give graphs, not words")
        plain: nx.Graph[int] = nx.Graph()
        position = {node: at for at, node in enumerate(architecture)}
        for node, data in architecture.nodes(data=True):
            traits = [f"{name}={data[name]}" for name in LAYER if name in data]
            plain.add_node(position[node], feature=" ".join([data["op"], *traits]))
        plain.add_edges_from((position[a], position[b]) for a, b in architecture.edges)
        return plain

    def fit(self, documents: Sequence[Any], n_dims: int, seed: int) -> Self:
        """Train ``karateclub.Graph2Vec``, on one thread so that a seed gives one result."""
        graph2vec = _karateclub("karateclub").Graph2Vec(
            wl_iterations=_ROUNDS, attributed=True, dimensions=n_dims, workers=1, seed=seed
        )
        graph2vec.fit(list(documents))
        self.trained_ = np.asarray(graph2vec.get_embedding(), dtype=np.float64)
        return self.take(graph2vec.model)

    def encode(self, document: Any) -> FloatArray | None:
        """Vector that maximises the objective of a graph's words."""
        hashing = _karateclub("karateclub.utils.treefeatures").WeisfeilerLehmanHashing
        texts = hashing(document, _ROUNDS, True, False).get_graph_features()
        words: Words = np.array([self.code(text) for text in set(texts)], dtype=np.uint64)
        return super().encode(np.sort(words))

    @staticmethod
    def code(text: str) -> int:
        """Integer that stands for a word of karateclub: a label, or a digest."""
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _karateclub(module: str) -> Any:
    return require(
        module,
        purpose="use the encoder 'karateclub'",
        way_out="karateclub pins numpy < 1.23, so install it without its pins: "
        "pip install --no-deps karateclub pygsp, then the packages it still needs",
    )
