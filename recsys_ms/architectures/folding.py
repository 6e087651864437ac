"""Canonical form of operator graphs: different spellings of a layer become one node.

Primitive operators are fused into attention, norm, activation; and biases into linear layers.
Rules are conservative. Each looks upwards from the last operator of a pattern, whose inner results
must not be used elsewhere.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final

import networkx as nx

#: Weights of a sum or a product: one number, or one for every place of the last or another axis.
NUMBER: Final = "number"
VECTOR: Final = "vector"
CHANNELS: Final = "channels"
#: Of a linear layer: its bias is included.
BIASED: Final = "biased"
#: Of a fused norm: its weights are still to come.
OPEN: Final = "open"
#: Of a softmax: over the last axis.
ROWS: Final = "rows"


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph that is being read.

    ``op`` is its kind, ``name`` that at its source, ``shape`` of its output, ``sources`` the nodes
    whose results it takes, ``macs`` its multiply-adds. ``detail`` is for the rules: ``number``,
    ``vector`` or ``channels`` of a ``scale`` or ``shift``, ``biased`` of a ``linear``, ``rows`` of
    a ``softmax``, ``open`` of a ``norm`` or an activation; else empty.
    """

    op: str
    name: str
    shape: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    macs: int = 0
    traits: Mapping[str, Any] = field(default_factory=dict)
    detail: str = ""


#: Name of attention, one operator or fused.
ATTENTION: Final = "scaled_dot_product_attention"
#: Operators between scores and softmax that change the scores without other data.
_MASKS: Final = frozenset({"shift", "masked_fill", "where"})
#: Most steps from softmax up to scores.
_LONGEST: Final = 6
#: Ways from the last product of a norm up to its input: over the root of the mean of squares, or of
#: the variance.
_SPREADS: Final = tuple(
    (*root, f"shift:{NUMBER}", *spread)
    for root in (("rsqrt",), ("sqrt",), ("reciprocal", "sqrt"))
    for spread in (("pool:average", "square"), ("var",))
)
_ONE_MORE: Final = f"shift:{NUMBER}"
_TIMES: Final = f"scale:{NUMBER}"
#: Activations that are their input times a gate: the way up from the gate to the input.
_GATES: Final[Mapping[tuple[str, ...], str]] = {
    ("activation:sigmoid",): "silu",
    ("activation:hardsigmoid",): "hardswish",
    ("activation:tanh", "activation:softplus"): "mish",
    ("activation:sigmoid", _TIMES): "gelu",
    (_ONE_MORE, "activation:erf", _TIMES): "gelu",
    (_TIMES, _ONE_MORE, "activation:erf", _TIMES): "gelu",
}


def vector_detail(weights: tuple[int, ...], shape: tuple[int, ...] | None) -> str:
    """``number``, ``vector``, ``channels`` or "" for weights of this shape in a sum or product.

    ``shape`` is that of the output, ``None`` where it is not known.
    """
    longest = max(weights, default=1)
    if prod(weights) != longest:
        return ""
    if longest == 1:
        return NUMBER
    if len(weights) == 1:
        # However many axes there are, it goes along the last.
        return VECTOR
    if not shape:
        return ""
    return VECTOR if weights[-1] == longest == shape[-1] else CHANNELS


@dataclass(frozen=True, slots=True)
class Above:
    """The fused nodes before an operator, and by how many nodes each is used."""

    nodes: Mapping[int, Node]
    users: Mapping[int, int]

    def up(self, number: int, *steps: str) -> int | None:
        """Node above a chain of operators that are not used elsewhere, or ``None``.

        A step is an ``op``, or ``op:what`` with its detail or the trait of that name; ``square`` is
        a power or a product with itself.
        """
        for step in steps:
            node = self.nodes[number]
            op, _, what = step.partition(":")
            if op == "square":
                fits = node.op in {"pow", "mul"}
            else:
                fits = node.op == op and what in {"", node.detail, node.traits.get(op)}
            if not fits or self.users[number] != 1 or len(node.sources) != 1:
                return None
            number = node.sources[0]
        return number


def canonical_graph(nodes: Mapping[int, Node], outputs: Iterable[int]) -> "nx.DiGraph[int]":
    """Graph of the nodes that the outputs depend on, primitive operators fused.

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
        before = _absorbed(node, Above(folded, users))
        if before is not None:
            stands_for[number] = sources[0]
            users[sources[0]] = users[number]
            folded[sources[0]] = before
        else:
            folded[number] = _fused(node, Above(folded, users))
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


def _absorbed(node: Node, above: Above) -> Node | None:
    """The operator before with this one included, if this one is its bias, scale or shift."""
    if node.op not in {"shift", "scale"} or len(node.sources) != 1:
        return None
    source = node.sources[0]
    before = above.nodes[source]
    if above.users[source] != 1:
        return None
    is_shift = node.op == "shift"
    if before.op == "linear" and before.detail != BIASED and is_shift and node.detail == VECTOR:
        return replace(before, shape=node.shape, detail=BIASED)
    if before.op == "norm" and before.detail == OPEN and node.detail in {VECTOR, CHANNELS}:
        shape = node.shape or before.shape
        return replace(before, shape=shape, detail="" if is_shift else OPEN)
    if before.op == "activation" and before.detail == OPEN and not is_shift:
        # A factor of one half, which makes the activation complete.
        return replace(before, detail="") if node.detail == NUMBER else None
    return None


def _fused(node: Node, above: Above) -> Node:
    """The fused operator whose pattern ends here; or the node itself."""
    if node.op == "matmul":
        return _attention(node, above) or node
    if node.op == "mul" and len(node.sources) == 2:
        return _norm(node, above) or _activation(node, above) or node
    return node


def _norm(node: Node, above: Above) -> Node | None:
    """A norm without weights: data over their spread, with or without their mean subtracted."""
    for data, spread in (node.sources, node.sources[::-1]):
        for way in _SPREADS:
            found = above.up(spread, *way)
            if found is None:
                continue
            middle = _sum_with(data, above, "pool:average")
            if middle is not None and found in {data, middle}:
                source, norm = middle, "layer"
            elif found == data and way[-1] == "square":
                source, norm = data, "rms"
            else:
                continue
            traits = {"norm": norm}
            return replace(node, op="norm", sources=(source,), traits=traits, detail=OPEN)
    return None


def _sum_with(number: int | None, above: Above, *steps: str) -> int | None:
    """Data in a sum with what a chain of operators makes of them (:meth:`Above.up`), or ``None``.

    So are data less their mean, and ``x + a x³`` as the approximation of GELU has it.
    """
    node = None if number is None else above.nodes[number]
    if node is None or node.op != "add" or len(node.sources) != 2:
        return None
    for data, other in (node.sources, node.sources[::-1]):
        if above.up(other, *steps) == data:
            return data
    return None


def _activation(node: Node, above: Above) -> Node | None:
    """An activation that is its input times a gate."""
    for data, gate in (node.sources, node.sources[::-1]):
        halved = above.up(data, _TIMES)
        for way, name in _GATES.items():
            found = above.up(gate, *way)
            if found is not None and found in {data, halved}:
                is_open = name == "gelu" and way[0] == _ONE_MORE and halved is None
                return _as_activation(node, found, name, OPEN if is_open else "")
        inner = above.up(gate, _ONE_MORE, "activation:tanh", _TIMES)
        cubed = _sum_with(inner, above, _TIMES, "pow")
        if cubed is not None and cubed in {data, halved}:
            return _as_activation(node, cubed, "gelu", "" if cubed == halved else OPEN)
    return None


def _as_activation(node: Node, source: int, name: str, detail: str) -> Node:
    traits = {"activation": name}
    return replace(node, op="activation", sources=(source,), traits=traits, detail=detail)


def _attention(node: Node, above: Above) -> Node | None:
    """Attention whose last product this is."""
    if len(node.sources) != 2:
        return None
    for weights, values in (node.sources, node.sources[::-1]):
        softmax = above.nodes[weights]
        if softmax.op == "softmax" and softmax.detail == ROWS and above.users[weights] == 1:
            found = _scores(softmax, above)
            if found is not None:
                scores, biases = found
                queries = (_unscaled(source, above) for source in scores.sources)
                traits = {"heads": softmax.shape[-3] if len(softmax.shape) > 3 else 1}
                sources = tuple(dict.fromkeys((*queries, *biases, values)))
                macs = scores.macs + node.macs
                return Node("attention", ATTENTION, node.shape, sources, macs, traits)
    return None


def _scores(softmax: Node, above: Above) -> tuple[Node, list[int]] | None:
    """Product of queries and keys before a softmax, and the data that was added to it."""
    waiting, biases = list(softmax.sources), []
    for _ in range(_LONGEST):
        # Of several sources one leads up to the scores; the others are added to them.
        leading = [s for s in waiting if above.users[s] == 1 and _leads_up(above.nodes[s])]
        if len(leading) != 1:
            return None
        biases += [source for source in waiting if source != leading[0]]
        node = above.nodes[leading[0]]
        if node.op == "matmul":
            return node, biases
        waiting = list(node.sources)
    return None


def _is_scaling(node: Node) -> bool:
    return node.op == "scale" and node.detail == NUMBER


def _leads_up(node: Node) -> bool:
    return _is_scaling(node) or node.op in _MASKS or node.op in {"add", "matmul"}


def _unscaled(source: int, above: Above) -> int:
    node = above.nodes[source]
    return node.sources[0] if _is_scaling(node) and above.users[source] == 1 else source
