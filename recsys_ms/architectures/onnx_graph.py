"""Operator graphs of ONNX files, for models whose code is not available."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import networkx as nx

from recsys_ms.architectures.folding import Node, canonical_graph
from recsys_ms.architectures.onnx_operators import (
    ALLOCATING,
    BRANCHING,
    Call,
    Shape,
    arranged,
    node_of,
)
from recsys_ms.architectures.onnx_shapes import with_shapes
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors
from recsys_ms.core.optional import require

_EXTRA: Final = "embed"
_PURPOSE: Final = "read an ONNX model"


def architecture_graph_from_onnx(path_or_model: Any) -> "nx.DiGraph[int]":
    """Operator graph of an ONNX model, as :func:`~.graph.architecture_graph` gives it of a module.

    Weights are not read: external data may be absent. Canonical form is that of modules; operators
    that an exporter has merged stay merged (a batch norm folded into the weights of a convolution).
    A first axis of unknown length counts as one example; a shape that cannot be inferred is ``()``,
    and costs nothing.

    Parameters
    ----------
    path_or_model : str, pathlib.Path or onnx.ModelProto
        A file, or a model as ``onnx`` holds it, which is left as it is.

    Returns
    -------
    networkx.DiGraph
        As for modules; ``name`` is the ``op_type``.

    Raises
    ------
    MissingExtraError
        onnx is not installed (extra ``embed``).
    DataError
        No such file, not an ONNX model, no output that depends on an input, or data that goes
        through ``If``, ``Loop`` or ``Scan``.
    """
    onnx: Any = require("onnx", extra=_EXTRA, purpose=_PURPOSE)
    model, where = _loaded(onnx, path_or_model)
    graph = with_shapes(onnx, model, where).graph
    reader = _Reader(onnx, where)
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    reader.learn_shapes(graph)
    for value in graph.input:
        if value.name not in weights:
            reader.add_input(value.name)
    for node in graph.node:
        reader.read(node)
    outputs = [source for value in graph.output for source in reader.held.get(value.name, ())]
    if not outputs:
        raise DataError(
            f"{where}: no output is computed from an input; expected a model, whose inputs are not "
            "all initialisers"
        )
    return canonical_graph(reader.nodes, outputs)


def _loaded(onnx: Any, path_or_model: Any) -> tuple[Any, str]:
    if isinstance(path_or_model, onnx.ModelProto):
        return path_or_model, "ONNX model"
    if not isinstance(path_or_model, str | Path):
        raise DataError(
            f"got a {type(path_or_model).__name__}, expected the path of an ONNX file or an "
            "onnx.ModelProto"
        )
    path = Path(path_or_model)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an ONNX model")
    message: Any = require("google.protobuf.message", extra=_EXTRA, purpose=_PURPOSE)
    unreadable = (message.DecodeError, UnicodeDecodeError, ValueError)
    what = f"{path}: is not a whole ONNX model"
    with file_errors(what, "export or copy it again", catch=unreadable, raises=DataError):
        return onnx.load(path, load_external_data=False), str(path)


@dataclass(slots=True)
class _Reader:
    """Reads nodes in the order of the file.

    ``nodes`` are the operators that data goes through, ``held`` the nodes whose data a value holds
    (none for weights).
    """

    onnx: Any
    where: str
    nodes: dict[int, Node] = field(default_factory=dict)
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _shapes: dict[str, Shape] = field(default_factory=dict)

    def learn_shapes(self, graph: Any) -> None:
        for value in (*graph.value_info, *graph.input, *graph.output):
            kind = value.type.tensor_type
            sizes = [size.dim_value for size in kind.shape.dim]
            if kind.HasField("shape") and all(size > 0 for size in sizes):
                self._shapes[value.name] = tuple(sizes)
        for tensor in graph.initializer:
            self._shapes[tensor.name] = tuple(tensor.dims)

    def add_input(self, name: str) -> None:
        shape = self._shapes.get(name, ())
        self.nodes[len(self.nodes)] = Node("input", "input", shape)
        self.held[name] = (len(self.nodes) - 1,)

    def read(self, node: Any) -> None:
        """Read one node of the file."""
        sources = self._sources(node.input)
        if node.op_type in BRANCHING:
            if sources or self._sources(_captured(self.onnx, node)):
                name = node.name or node.output[0]
                raise DataError(
                    f"{self.where}: data goes through {node.op_type} {name!r}, which depends on "
                    "values; export the model with fixed shapes, or simplify it (onnxslim)"
                )
        options = {one.name: _value(self.onnx, one) for one in node.attribute}
        if node.op_type == "Constant" and "value" in options:
            self._shapes[node.output[0]] = tuple(options["value"].dims)
        given = [name for name in node.input if name]
        is_data = tuple(bool(self.held.get(name)) for name in given)
        kept = slice(0) if node.op_type in ALLOCATING else arranged(node.op_type, is_data)
        if kept is not None:
            sources = self._sources(given[kept])
        elif sources:
            shapes = tuple(self._shapes.get(name) for name in given)
            output = self._shapes.get(node.output[0])
            call = Call(node.op_type, shapes, is_data, output, sources, options)
            self.nodes[len(self.nodes)] = node_of(call)
            sources = (len(self.nodes) - 1,)
        self.held |= dict.fromkeys(filter(None, node.output), sources)

    def _sources(self, names: Iterable[str]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(s for name in names for s in self.held.get(name, ())))


def _captured(onnx: Any, node: Any) -> Iterator[str]:
    """Names of the values outside that the graphs inside a node read."""
    for option in node.attribute:
        graphs = [option.g] if option.type == onnx.AttributeProto.GRAPH else list(option.graphs)
        for graph in graphs:
            for inner in graph.node:
                yield from inner.input
                yield from _captured(onnx, inner)
            yield from (value.name for value in graph.output)


def _value(onnx: Any, option: Any) -> Any:
    """Value of an attribute; ``None`` where its type is not known."""
    value: Any = onnx.helper.get_attribute_value(option) if option.type else None
    if option.type == onnx.AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
