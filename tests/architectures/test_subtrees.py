"""Words of graphs: what they tell apart, and what they must not depend on."""

from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.architectures.subtrees import VIEWS, View, graph_words, mix
from recsys_ms.core.errors import DataError, UsageError


def chain(*ops: str) -> "nx.DiGraph[int]":
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from((at, {"op": op}) for at, op in enumerate(ops))
    graph.add_edges_from((at, at + 1) for at in range(len(ops) - 1))
    return graph


@st.composite
def graphs(draw: Any) -> "nx.DiGraph[int]":
    ops = draw(st.lists(st.sampled_from(["conv", "norm", "add", "pool"]), min_size=1, max_size=9))
    graph: nx.DiGraph[int] = nx.DiGraph()
    for node, op in enumerate(ops):
        graph.add_node(node, op=op, kernel=draw(st.sampled_from(["1x1", "3x3"])))
        graph.add_edges_from((draw(st.integers(0, node - 1)), node) for _ in range(min(node, 2)))
    return graph


@given(graphs(), st.randoms(use_true_random=False))
def test_words_do_not_depend_on_numbering(graph: "nx.DiGraph[int]", random: Any) -> None:
    nodes = list(graph)
    random.shuffle(nodes)
    names = {node: f"n{at}" for at, node in enumerate(nodes)}
    other: nx.DiGraph[str] = nx.DiGraph()
    other.add_nodes_from((names[node], graph.nodes[node]) for node in nodes)
    edges = [(names[a], names[b]) for a, b in graph.edges]
    random.shuffle(edges)
    other.add_edges_from(edges)
    assert np.array_equal(graph_words(graph), graph_words(other))


def subtrees_by_hand(graph: "nx.DiGraph[int]", depth: int) -> set[Any]:
    """Nested tuples instead of hashes: a reference that cannot collide."""
    labels: dict[int, Any] = {node: data["op"] for node, data in graph.nodes(data=True)}
    found = {(0, label) for label in labels.values()}
    for level in range(1, depth + 1):
        labels = {
            node: (
                labels[node],
                tuple(sorted(map(repr, (labels[s] for s in graph.predecessors(node))))),
                tuple(sorted(map(repr, (labels[t] for t in graph.successors(node))))),
            )
            for node in graph
        }
        found |= {(level, label) for label in labels.values()}
    return found


def chains_by_hand(graph: "nx.DiGraph[int]") -> set[tuple[str, ...]]:
    op = {node: data["op"] for node, data in graph.nodes(data=True)}

    def walks() -> Iterator[tuple[str, ...]]:
        for a, b in graph.edges:
            yield op[a], op[b]
            for last in graph.successors(b):
                yield op[a], op[b], op[last]

    return set(walks())


@given(graphs(), st.integers(0, 3))
def test_as_many_words_as_different_subtrees(graph: "nx.DiGraph[int]", depth: int) -> None:
    words = graph_words(graph, [View(depth=depth)])
    assert len(words) == len(subtrees_by_hand(graph, depth))
    assert np.all(words[:-1] < words[1:])


@given(graphs())
def test_as_many_words_as_different_chains(graph: "nx.DiGraph[int]") -> None:
    kinds = len(graph_words(graph, [View(depth=0)]))
    words = graph_words(graph, [View(depth=0, chain=3)])
    assert len(words) == kinds + len(chains_by_hand(graph))


def test_direction_counts() -> None:
    forward, backward = chain("conv", "norm", "add"), chain("add", "norm", "conv")
    assert not np.array_equal(graph_words(forward), graph_words(backward))
    # The kinds are the same, what lies around them is not.
    common = np.intersect1d(graph_words(forward), graph_words(backward))
    assert len(common) == len(graph_words(forward, [View(depth=0)])) == 3


def test_traits_are_told_apart_where_a_view_looks_at_them() -> None:
    one, other = chain("conv", "norm"), chain("conv", "norm")
    one.nodes[0]["kernel"], other.nodes[0]["kernel"] = "3x3", "7x7"
    assert np.array_equal(graph_words(one, [View()]), graph_words(other, [View()]))
    looked = [View(("kernel",))]
    assert not np.array_equal(graph_words(one, looked), graph_words(other, looked))


def test_words_are_the_same_on_every_machine() -> None:
    # Recorded once: the archi2vec that ships knows these words and no others.
    words = graph_words(chain("input", "conv", "norm", "activation", "output"), VIEWS[:1])
    assert len(words) == 10
    assert int(np.bitwise_xor.reduce(words)) == GOLDEN


GOLDEN = 17940598773629610288


def test_mix_is_a_bijection_that_spreads() -> None:
    codes = np.arange(1 << 16, dtype=np.uint64)
    mixed = mix(codes)
    assert len(np.unique(mixed)) == codes.size
    # Every bit is set about as often as not.
    bits = (mixed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02


def test_bad_input() -> None:
    with pytest.raises(DataError, match="no node"):
        graph_words(nx.DiGraph())
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_node(7)
    with pytest.raises(DataError, match="node 7 has no 'op'"):
        graph_words(graph)
    with pytest.raises(UsageError, match="depth"):
        View(depth=-1)
    with pytest.raises(UsageError, match="chain"):
        View(chain=4)
