"""Shapes of the values of an ONNX model, without its weights."""

from math import prod
from typing import Any, Final

from recsys_ms.core.errors import DataError
from recsys_ms.core.optional import require

_EXTRA: Final = "embed"
_PURPOSE: Final = "read an ONNX model"
#: Tensors of more numbers are weights, whose values say nothing about shapes.
_LARGEST_SHAPE: Final = 1024
#: Of inferring shapes and computing sizes from them; every layer may need another.
_MOST_ROUNDS: Final = 64
#: Operators that exporters compute sizes with, which shape inference does not look through.
_OF_SIZES: Final = frozenset(
    {
        *("Constant", "Shape", "Gather", "Concat", "Slice", "Add", "Sub", "Mul", "Div", "Mod"),
        *("Cast", "Unsqueeze", "Squeeze", "Reshape", "Range", "ConstantOfShape"),
        *("Identity", "Min", "Max", "Floor", "Ceil", "Equal", "Where", "Expand", "Neg"),
        "Transpose",
    }
)


def with_shapes(onnx: Any, model: Any, where: str) -> Any:
    """A copy of a model without weights, with the shapes that can be inferred.

    ``where`` names the model in messages; ``DataError`` if it holds no graph.
    """
    if not model.graph.node:
        raise DataError(f"{where}: not an ONNX model, it has no graph; export or copy it again")
    inference: Any = require("onnx.shape_inference", extra=_EXTRA, purpose=_PURPOSE)
    slim = _without_weights(onnx, model)
    if slim.functions:
        inliner: Any = require("onnx.inliner", extra=_EXTRA, purpose=_PURPOSE)
        slim = inliner.inline_local_functions(slim)
    for value in slim.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) and not sizes[0].dim_value:
            sizes[0].dim_value = 1
    for value in slim.graph.output:
        # The exporter's shapes may hold for another number of examples.
        value.type.tensor_type.ClearField("shape")
    for _ in range(_MOST_ROUNDS):
        try:
            slim = inference.infer_shapes(slim, data_prop=True)
        except (inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError):
            # Operators of other domains, or options of a later version: shapes as they were given.
            return slim
        if not _compute_sizes(onnx, slim):
            return slim
    return slim


def _without_weights(onnx: Any, model: Any) -> Any:
    slim = onnx.ModelProto(ir_version=model.ir_version)
    slim.opset_import.extend(model.opset_import)
    slim.functions.extend(model.functions)
    graph, given = slim.graph, model.graph
    graph.name = given.name or "graph"
    graph.node.extend(given.node)
    graph.input.extend(given.input)
    graph.output.extend(given.output)
    graph.value_info.extend(given.value_info)
    for tensor in given.initializer:
        if prod(tensor.dims) <= _LARGEST_SHAPE and not tensor.external_data:
            graph.initializer.append(tensor)
        else:
            # An input with a type says as much of a tensor.
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    graph.sparse_initializer.extend(given.sparse_initializer)
    return slim


def _compute_sizes(onnx: Any, model: Any) -> bool:
    """Replace nodes that depend on constants and known shapes alone; whether there were any."""
    reference: Any = require("onnx.reference", extra=_EXTRA, purpose=_PURPOSE)
    graph = model.graph
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    values = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if prod(tensor.dims) <= _LARGEST_SHAPE and _has_numbers(tensor)
    }
    left, found = [], False
    for node in graph.node:
        given = shapes.get(node.input[0]) if node.op_type == "Shape" else None
        value = None
        if given is not None and all(size > 0 for size in given):
            part = {one.name: one.i for one in node.attribute}
            sizes = given[part.get("start", 0) : part.get("end", len(given))]
            int64 = onnx.TensorProto.INT64
            value = onnx.helper.make_tensor(node.output[0], int64, [len(sizes)], sizes)
        elif node.op_type == "CastLike" and node.input[0] in values:
            value = onnx.numpy_helper.from_array(values[node.input[0]], node.output[0])
        elif node.op_type in _OF_SIZES and all(name in values for name in node.input if name):
            value = _evaluated(onnx, reference, node, values)
        if value is None:
            left.append(node)
            continue
        found = True
        graph.initializer.append(value)
        values[value.name] = onnx.numpy_helper.to_array(value)
    if found:
        _keep(graph.node, left)
        # Shapes that were unknown would stay so.
        _keep(graph.value_info, [v for v in graph.value_info if all(shapes.get(v.name, (0,)))])
    return found


def _keep(messages: Any, kept: list[Any]) -> None:
    copies = [type(message).FromString(message.SerializeToString()) for message in kept]
    del messages[:]
    messages.extend(copies)


def _has_numbers(tensor: Any) -> bool:
    fields = ("raw_data", "int64_data", "int32_data", "float_data", "double_data", "uint64_data")
    return not prod(tensor.dims) or any(len(getattr(tensor, name)) for name in fields)


def _evaluated(onnx: Any, reference: Any, node: Any, values: dict[str, Any]) -> Any:
    """Result of an operator for small known arguments, or ``None``."""
    if any(one.name == "value" and prod(one.t.dims) > _LARGEST_SHAPE for one in node.attribute):
        return None
    known = {name: values[name] for name in node.input if name}
    try:
        result = reference.ReferenceEvaluator(node).run(None, known)[0]
    except (NotImplementedError, RuntimeError, ValueError, TypeError, IndexError, KeyError):
        # Of another version than this one computes: its size stays unknown.
        return None
    if getattr(result, "size", _LARGEST_SHAPE + 1) > _LARGEST_SHAPE:
        return None
    return onnx.numpy_helper.from_array(result, node.output[0])
