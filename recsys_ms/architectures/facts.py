"""Cost and depth of an operator graph, and the card of a module."""

from typing import Any

import networkx as nx

from recsys_ms.architectures.archi2vec import Archi2Vec
from recsys_ms.architectures.graph import architecture_graph
from recsys_ms.catalog.cards import ModelCard
from recsys_ms.core.types import FloatArray, JsonDict

#: Operators with weights that make a network deep, as papers count layers.
_LAYERS = frozenset({"conv", "linear"})


def graph_macs(graph: "nx.DiGraph[Any]") -> int:
    """Multiply-adds of an operator graph, for the example input it was traced with."""
    return sum(int(macs) for _, macs in graph.nodes(data="macs", default=0))


def graph_depth(graph: "nx.DiGraph[Any]") -> int:
    """Most layers with weights (convolutions, linear layers) on a path from input to output."""
    depth: dict[Any, int] = {}
    for node in nx.topological_sort(graph):
        before = max((depth[source] for source in graph.predecessors(node)), default=0)
        depth[node] = before + (graph.nodes[node]["op"] in _LAYERS)
    return max(depth.values(), default=0)


def graph_facts(graph: "nx.DiGraph[Any]", module: Any) -> JsonDict:
    """Fields of a card that a module and its operator graph determine."""
    return {
        "n_parameters": sum(int(weight.numel()) for weight in module.parameters()) or None,
        "gmacs": graph_macs(graph) / 1e9 or None,
        "n_layers": graph_depth(graph) or None,
    }


def cluster_name(cluster: int) -> str | None:
    """Name of a cluster on cards; ``None`` for -1."""
    return None if cluster < 0 else f"archi-{cluster:02d}"


def card_vector(vector: FloatArray) -> tuple[float, ...] | None:
    """A row of ``Archi2Vec.transform`` as cards hold it, to single precision; ``None`` for NaN."""
    kept = vector.astype("float32")
    return None if kept[0] != kept[0] else tuple(map(float, kept))


def architecture_card(
    model_id: str, module: Any, example_input: Any, archi2vec: Archi2Vec | None = None
) -> ModelCard:
    """Card of any module: traced on the ``meta`` device, counted, and embedded among timm's.

    Parameters
    ----------
    model_id : str
        The id that runs use.
    module : torch.nn.Module
        Any module, with weights or without.
    example_input : tensor, sequence of arguments, or dict of keyword arguments
        One example (a batch of 1): multiply-adds are counted for it.
    archi2vec : Archi2Vec, optional
        Default: the one that ships with the package, trained on every architecture of timm.

    Raises
    ------
    DataError
        The module cannot be traced.
    MissingExtraError
        torch is not installed (extra ``embed``).
    """
    graph = architecture_graph(module, example_input)
    embedder = archi2vec or Archi2Vec.embedded()
    vectors = embedder.transform([graph])
    return ModelCard(
        model_id=model_id,
        **graph_facts(graph, module),
        embedding=card_vector(vectors[0]),
        cluster=cluster_name(int(embedder.clusters(vectors)[0])),
    )
