"""Canonical form of operator graphs: different spellings of a layer become one node."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import networkx as nx

from recsys_ms.architectures.folding import Above, Node, absorbed, fused


def canonical_graph(nodes: Mapping[int, Node], outputs: Iterable[int]) -> "nx.DiGraph[int]":
    """Graph of the nodes that the outputs depend on, primitive operators fused (:mod:`.folding`).

    ``nodes`` hold sources before the nodes that take them. Nodes of the graph keep their numbers;
    one of ``op`` ``output`` comes last.
    """
    outputs = tuple(dict.fromkeys(outputs))
    needed = _needed(nodes, outputs)
    users = Counter(source for number in needed for source in nodes[number].sources)
    users.update(outputs)
    folded: dict[int, Node] = {}
    stands_for: dict[int, int] = {}
    for number in sorted(needed):
        node = nodes[number]
        sources = tuple(dict.fromkeys(stands_for.get(s, s) for s in node.sources))
        node = replace(node, sources=sources)
        before = absorbed(node, Above(folded, users))
        if before is not None:
            stands_for[number] = sources[0]
            users[sources[0]] = users[number]
            folded[sources[0]] = before
        else:
            folded[number] = fused(node, Above(folded, users))
    return _built(folded, tuple(dict.fromkeys(stands_for.get(s, s) for s in outputs)))


def _needed(nodes: Mapping[int, Node], outputs: Iterable[int]) -> set[int]:
    """Nodes that an output depends on."""
    needed: set[int] = set()
    waiting = list(outputs)
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            waiting += nodes[number].sources
    return needed


def _built(nodes: Mapping[int, Node], outputs: tuple[int, ...]) -> "nx.DiGraph[int]":
    graph: nx.DiGraph[int] = nx.DiGraph()
    needed = sorted(_needed(nodes, outputs))
    for number in needed:
        node = nodes[number]
        about = {"op": node.op, "name": node.name, "shape": node.shape, "macs": node.macs}
        graph.add_node(number, **about, **node.traits)
        graph.add_edges_from((source, number) for source in node.sources)
    end = needed[-1] + 1
    graph.add_node(end, op="output", name="output", shape=(), macs=0)
    graph.add_edges_from((source, end) for source in outputs)
    return graph
