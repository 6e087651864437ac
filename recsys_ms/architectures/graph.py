"""The operator graph of a module: the operators on the way of data from input to output."""

from typing import Any

import networkx as nx

from recsys_ms.architectures.folding import (
    BIASED,
    NUMBER,
    ROWS,
    Node,
    canonical_graph,
    vector_detail,
)
from recsys_ms.architectures.operators import kind_of, macs_of, traits_of
from recsys_ms.architectures.tracing import Operation, record


def architecture_graph(module: Any, example_input: Any) -> "nx.DiGraph[int]":
    """Operator graph of a module, as it really runs in evaluation mode.

    The module runs once on the ``meta`` device, so that nothing is computed and no weight is read;
    it may be of any size, on any device, and is left as it is. Its code sees all tensors on the
    processor. Canonical form:

    - operators that only arrange or allocate numbers (views, copies, casts, slices, dropout) are
      left out, and their input stands for their output;
    - tensors computed from weights or constants alone count as weights;
    - an in-place operator is the plain one; its result is seen through every view;
    - attention is one operator, also where the code has two products around a softmax; a recurrent
      layer, or a call of a cell, is one;
    - a linear layer is one operator with its bias, however torch computes it; so is a norm or an
      activation that the code composes of primitive operators, where that is sure;
    - loops are unrolled, shared weights are not nodes, and operators that no output depends on are
      left out.

    ``torch.export`` gives the same graph up to these rules.

    Parameters
    ----------
    module : torch.nn.Module
        Any module, from timm, torchvision, transformers or one's own.
    example_input : tensor, sequence of arguments, or dict of keyword arguments
        Arguments of its forward; only shapes and types count, and the values of whole numbers
        (masks, ids). A module of several inputs wants a tuple or a dict of all of them.

    Returns
    -------
    networkx.DiGraph
        One node an operator, numbered in the order of running, with ``op`` (its kind), ``name``
        (ATen's), ``shape`` (of its output) and traits by kind: ``kernel``, ``stride``,
        ``dilation``, ``groups``, ``ratio`` (logarithm to 2 of channels out over channels in),
        ``norm``, ``activation``, ``pool``, ``reach``, ``heads``, ``cell``, ``layers``,
        ``directions``; and ``macs``, its multiply-adds. Nodes of ``op`` ``input`` and
        ``output`` stand at the ends. Edges are data flow.

    Raises
    ------
    MissingExtraError
        torch is not installed (extra ``embed``).
    DataError
        Not a module, scripted, or not initialised yet; an example input that its forward does not
        take; a forward that raises or reads values of its data; no output that depends on it.
    """
    recording = record(module, example_input)
    nodes = {}
    for n, made in enumerate(recording.operations):
        name, shapes, shape, options = made.name, made.shapes, made.shape, made.options
        op = kind_of(name, made.is_data)
        traits = traits_of(name, shapes, shape, options, made.is_data)
        macs = macs_of(name, shapes, shape, options)
        nodes[n] = Node(op, name, shape, made.sources, macs, traits, _detail(op, made))
    return canonical_graph(nodes, recording.outputs)


def _detail(op: str, operation: Operation) -> str:
    if op in {"scale", "shift"}:
        weights = [
            size
            for size, is_data in zip(operation.shapes, operation.is_data, strict=True)
            if not is_data
        ]
        # Numbers in the code are not among the tensors.
        return vector_detail(weights[0], operation.shape) if weights else NUMBER
    if op == "linear":
        return BIASED if operation.name in {"addmm", "baddbmm", "addmv"} else ""
    if op == "softmax":
        axis = operation.options[1]
        return ROWS if axis in {-1, len(operation.shape) - 1} else ""
    return ""
