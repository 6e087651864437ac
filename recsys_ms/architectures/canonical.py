"""One form for operator graphs, whoever wrote them down: two ways to say one thing look alike."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import networkx as nx

#: What weights of a sum or a product are: one number, one number for every channel (the last
#: axis), and of a linear layer: its bias is in it.
NUMBER: Final = "number"
VECTOR: Final = "vector"
BIASED: Final = "biased"
#: Of a softmax: over the last axis.
ROWS: Final = "rows"
#: Name of attention, written as one operator or taken apart.
ATTENTION: Final = "scaled_dot_product_attention"
#: Operators between scores and softmax that change the scores by what is not data.
_MASKS: Final = frozenset({"shift", "masked_fill", "where"})
#: More steps than this from softmax up to scores have not been seen.
_LONGEST: Final = 6


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph that is being read.

    Attributes
    ----------
    op, name : str
        Kind, and the name that the source has for it.
    shape : tuple of int
        Of what comes out.
    sources : tuple of int
        Nodes whose results it takes.
    macs : int
        Multiply-adds.
    traits : mapping
        By kind.
    detail : str
        What folding needs to know: ``number`` or ``vector`` of a ``scale`` or ``shift``,
        ``biased`` of a ``linear``, ``rows`` of a ``softmax``; else empty.
    """

    op: str
    name: str
    shape: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    macs: int = 0
    traits: Mapping[str, Any] = field(default_factory=dict)
    detail: str = ""


def canonical_graph(nodes: Mapping[int, Node], outputs: Iterable[int]) -> "nx.DiGraph[int]":
    """Graph of what the outputs depend on, in canonical form.

    A vector added to what a linear layer gives is its bias and no operator. Attention that is
    written out (scores, softmax over them, sum of the values) is one operator, with an edge from
    whatever data was added to the scores; numbers that scale queries, keys or scores belong to it.
    A learned vector that scales them, or anything else in between, keeps it apart.

    Parameters
    ----------
    nodes : mapping of int to Node
        Sources come before those that take them.
    outputs : iterable of int
        Nodes that made the outputs.

    Returns
    -------
    networkx.DiGraph
        Nodes keep their numbers; one of ``op`` ``output`` comes last.
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
        if _is_bias(node, folded, users):
            stands_for[number] = sources[0]
            users[sources[0]] = users[number]
            folded[sources[0]] = replace(folded[sources[0]], shape=node.shape, detail=BIASED)
        else:
            folded[number] = _as_attention(node, folded, users)
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


def _is_bias(node: Node, folded: Mapping[int, Node], users: Mapping[int, int]) -> bool:
    if node.op != "shift" or node.detail != VECTOR or len(node.sources) != 1:
        return False
    source = node.sources[0]
    before = folded[source]
    return before.op == "linear" and before.detail != BIASED and users[source] == 1


def _as_attention(node: Node, folded: Mapping[int, Node], users: Mapping[int, int]) -> Node:
    """Attention in the place of its last product, or the node itself."""
    if node.op != "matmul" or len(node.sources) != 2:
        return node
    for weights, values in (node.sources, node.sources[::-1]):
        softmax = folded[weights]
        if softmax.op == "softmax" and softmax.detail == ROWS and users[weights] == 1:
            found = _scores(softmax, folded, users)
            if found is not None:
                scores, biases = found
                queries = (_unscaled(source, folded, users) for source in scores.sources)
                traits = {"heads": softmax.shape[-3] if len(softmax.shape) > 3 else 1}
                sources = tuple(dict.fromkeys((*queries, *biases, values)))
                macs = scores.macs + node.macs
                return Node("attention", ATTENTION, node.shape, sources, macs, traits)
    return node


def _scores(
    softmax: Node, folded: Mapping[int, Node], users: Mapping[int, int]
) -> tuple[Node, list[int]] | None:
    """Product of queries and keys under a softmax, and the data that was added to it."""
    waiting, biases = list(softmax.sources), []
    for _ in range(_LONGEST):
        # Of several sources one leads up to the scores; the others are added to them.
        leading = [s for s in waiting if users[s] == 1 and _leads_up(folded[s])]
        if len(leading) != 1:
            return None
        biases += [source for source in waiting if source != leading[0]]
        node = folded[leading[0]]
        if node.op == "matmul":
            return node, biases
        waiting = list(node.sources)
    return None


def _leads_up(node: Node) -> bool:
    is_number = node.op == "scale" and node.detail == NUMBER
    return is_number or node.op in _MASKS or node.op in {"add", "matmul"}


def _unscaled(source: int, folded: Mapping[int, Node], users: Mapping[int, int]) -> int:
    node = folded[source]
    is_number = node.op == "scale" and node.detail == NUMBER
    return node.sources[0] if is_number and users[source] == 1 else source
