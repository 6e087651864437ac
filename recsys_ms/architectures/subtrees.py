"""Words of operator graphs: Weisfeiler-Lehman subtrees, and chains of operators.

A word describes a node and its surroundings (Shervashidze et al., Weisfeiler-Lehman Graph Kernels,
JMLR 2011). It is a 64-bit integer that depends neither on the numbering of the nodes nor on other
graphs, so words of different machines can be compared. A million words collide with probability
3e-8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from recsys_ms.core.configured import check_range
from recsys_ms.core.errors import DataError
from recsys_ms.core.types import IntArray

Words: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class View:
    """How closely operators are described, and how far around them.

    Attributes
    ----------
    traits : tuple of str
        Node attributes that distinguish operators besides their kind.
    depth : int, default 1
        Rounds of relabelling: a word of round ``d`` covers ``d`` steps around a node.
    chain : int, default 1
        Longest chains of operators that are words too: 1, 2 or 3 operators.
    """

    traits: tuple[str, ...] = ()
    depth: int = 1
    chain: int = 1

    def __post_init__(self) -> None:
        check_range(self, "depth", least=0)
        check_range(self, "chain", least=1, most=3)


#: Traits that distinguish layers of one kind.
LAYER: Final = ("groups", "activation", "norm", "kernel")
#: The same places at several levels of detail: architectures of one kind share the coarse words,
#: of one family the fine ones. Chosen on timm by the families of nearest neighbours.
VIEWS: Final = (
    View(),
    View(("norm", "activation", "pool"), chain=3),
    View(LAYER),
    View((*LAYER, "pool", "transposed", "reach", "dilation", "name"), chain=3),
    View((*LAYER, "ratio"), depth=0, chain=2),
)

#: Odd constants of splitmix64 (Steele et al., 2014), one for each place in a word.
_SELF: Final = np.uint64(0x9E3779B97F4A7C15)
_INTO: Final = np.uint64(0xBF58476D1CE4E5B9)
_OUT_OF: Final = np.uint64(0x94D049BB133111EB)


def graph_words(graph: "nx.DiGraph[Any]", views: Sequence[View] = VIEWS) -> Words:
    """Words that occur in a graph, sorted, each once, uint64.

    The graph is one of :func:`~recsys_ms.architectures.graph.architecture_graph`, or any with
    ``op`` on its nodes; ``DataError`` otherwise. Counts of words are left out: they tell how deep a
    model is, which its card says, and neighbours of one family were found less often with them.
    """
    if graph.number_of_nodes() == 0:
        raise DataError("graph: has no node; make it with architecture_graph")
    position = {node: at for at, node in enumerate(graph)}
    ends = np.array([(position[a], position[b]) for a, b in graph.edges], dtype=np.int64)
    source, target = ends.reshape(-1, 2).T
    found = []
    for view in views:
        nodes = graph.nodes(data=True)
        labels = np.array([_label(data, node, view.traits) for node, data in nodes])
        found += _subtrees(labels, source, target, view.depth)
        found += _chains(labels, source, target, view.chain)
    return np.unique(np.concatenate(found))


def _subtrees(labels: Words, source: IntArray, target: IntArray, depth: int) -> list[Words]:
    """Labels of each round.

    A new label is the hash of the old one, of the multiset of labels before the node and of that
    after it. A sum of mixed hashes stands for a multiset, so all nodes are relabelled at once.
    """
    rounds = [labels]
    for _ in range(depth):
        mixed = mix(labels)
        into, out_of = np.zeros_like(labels), np.zeros_like(labels)
        np.add.at(into, target, mixed[source])
        np.add.at(out_of, source, mixed[target])
        labels = mix(labels * _SELF + mix(into) * _INTO + mix(out_of) * _OUT_OF)
        rounds.append(labels)
    return rounds


def _chains(labels: Words, source: IntArray, target: IntArray, longest: int) -> list[Words]:
    """Words of two and three operators in a row."""
    if longest == 1 or source.size == 0:
        return []
    mixed = mix(labels)
    pairs = mix(mixed[source] * _SELF + mixed[target] * _INTO)
    if longest == 2:
        return [pairs]
    # All edges that begin where another ends.
    order = np.argsort(source, kind="stable")
    first = np.searchsorted(source[order], target, side="left")
    n_next = np.searchsorted(source[order], target, side="right") - first
    edge = np.repeat(np.arange(source.size), n_next)
    offset = np.arange(edge.size) - np.repeat(np.cumsum(n_next) - n_next, n_next)
    last = target[order[first[edge] + offset]]
    triples = mixed[source[edge]] * _SELF + mixed[target[edge]] * _INTO + mixed[last] * _OUT_OF
    return [pairs, mix(triples)]


def mix(codes: Words) -> Words:
    """Spread 64-bit integers evenly: the finaliser of splitmix64, a bijection."""
    x = codes ^ (codes >> np.uint64(30))
    x = x * _INTO
    x = x ^ (x >> np.uint64(27))
    x = x * _OUT_OF
    mixed: Words = x ^ (x >> np.uint64(31))
    return mixed


def _label(data: Mapping[str, Any], node: Any, traits: Sequence[str]) -> np.uint64:
    op = data.get("op")
    if not isinstance(op, str):
        raise DataError(f"graph: node {node!r} has no 'op'; make it with architecture_graph")
    return _hashed("\n".join([op, *(f"{name}={data[name]}" for name in traits if name in data)]))


@lru_cache(maxsize=1 << 16)
def _hashed(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little"))
