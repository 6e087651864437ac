"""What an operator of ONNX is in an architecture: kinds, traits and costs as for those of torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, TypeAlias

from recsys_ms.architectures.costs import macs_of
from recsys_ms.architectures.folding import (
    ATTENTION,
    BIASED,
    OPEN,
    ROWS,
    Node,
    vector_detail,
)
from recsys_ms.architectures.operators import traits_of

Shape: TypeAlias = tuple[int, ...]

#: What comes out is what goes in, arranged otherwise (or rounded, where a file is quantised).
ARRANGING: Final = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Cast", "CastLike", "Dropout", "Flatten", "Squeeze"),
        *("Unsqueeze", "Slice", "Split", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"),
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ReverseSequence"),
        *("Optional", "OptionalGetElement", "SplitToSequence", "SequenceAt"),
    }
)
#: Arranging, too: what is written goes into what it is written to.
_WRITING: Final = frozenset({"ScatterND", "ScatterElements", "SequenceConstruct"})
#: What comes out has none of the data that goes in.
ALLOCATING: Final = frozenset(
    {"Shape", "Size", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
)
#: Operators that run other graphs.
BRANCHING: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_ACTIVATIONS: Final[Mapping[str, str]] = {
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "Elu": "elu",
    "Selu": "elu",
    "Celu": "celu",
    "Gelu": "gelu",
    "FastGelu": "gelu",
    "QuickGelu": "gelu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSigmoid": "hardsigmoid",
    "HardSwish": "hardswish",
    "Swish": "silu",
    "Softplus": "softplus",
    "Mish": "mish",
    "PRelu": "prelu",
    "Clip": "hardtanh",
    "Erf": "erf",
}
_NORMS: Final[Mapping[str, str]] = {
    "BatchNormalization": "batch",
    "LayerNormalization": "layer",
    "SkipLayerNormalization": "layer",
    "GroupNormalization": "group",
    "InstanceNormalization": "instance",
    "RMSNormalization": "rms",
    "SimplifiedLayerNormalization": "rms",
}
#: Pools, and what torch calls one that is alike.
_POOLS: Final[Mapping[str, str]] = {
    "MaxPool": "max_pool2d_with_indices",
    "GlobalMaxPool": "amax",
    "ReduceMax": "amax",
    "AveragePool": "avg_pool2d",
    "GlobalAveragePool": "mean",
    "ReduceMean": "mean",
}
_SUMS: Final = frozenset({"Add", "Sub", "Sum"})
_PRODUCTS: Final = frozenset({"Mul", "Div"})
_RECURRENT: Final[Mapping[str, str]] = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}
_OTHERS: Final[Mapping[str, str]] = {
    "Concat": "concat",
    "Pad": "pad",
    "Resize": "resize",
    "ReduceL2": "linalg_vector_norm",
    "ReduceSum": "sum",
    "Upsample": "resize",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator.

    Attributes
    ----------
    kind : str
        Its ``op_type``.
    inputs : tuple of (tuple of int or None)
        Shapes, ``None`` where they are not known.
    is_data : tuple of bool
        Which inputs hold data; the others are weights.
    output : tuple of int or None
        Shape of the first output.
    sources : tuple of int
        Nodes that the data comes from.
    options : mapping
        Its attributes.
    """

    kind: str
    inputs: tuple[Shape | None, ...]
    is_data: tuple[bool, ...]
    output: Shape | None
    sources: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def are_known(self) -> bool:
        """Whether the shapes of the first two inputs and of what comes out are known."""
        return None not in self.inputs[:2] and self.output is not None

    @property
    def weights(self) -> Shape | None:
        """Shape of the first input that holds weights."""
        shapes = zip(self.inputs, self.is_data, strict=True)
        return next((shape for shape, is_data in shapes if not is_data), None)


def node_of(call: Call) -> Node:
    """The node of an operator that data goes through."""
    kind = call.kind
    describe = _DESCRIBED.get(kind)
    if describe is not None:
        op, traits, macs, detail = describe(call)
    else:
        op, traits, macs, detail = _OTHERS.get(kind, kind.lower()), {}, 0, ""
    return Node(op, kind, call.output or (), call.sources, macs, traits, detail)


_Described: TypeAlias = tuple[str, Mapping[str, Any], int, str]


def _convolution(call: Call) -> _Described:
    is_transposed = call.kind == "ConvTranspose"
    kernel = call.options.get("kernel_shape")
    shape = call.inputs[1]
    n_axes = len(kernel) if kernel else len(shape or (1, 1)) - 2
    ones = [1] * max(n_axes, 1)
    # In torch's order: stride, dilation, whether transposed, groups.
    stride, dilation = call.options.get("strides", ones), call.options.get("dilations", ones)
    groups = call.options.get("group", 1)
    options = [None, None, None, stride, None, dilation, is_transposed, None, groups]
    if shape is None:
        known = {"kernel": "x".join(map(str, kernel or ()))}
        return "conv", known | {"stride": max(stride), "dilation": max(dilation)}, 0, ""
    data = call.inputs[0] or ()
    traits = traits_of("convolution", (data, shape), call.output or (), options)
    shapes = ((data, shape), call.output or ())
    return "conv", traits, macs_of("convolution", *shapes, options) if call.are_known else 0, ""


def _product(call: Call) -> _Described:
    first, second = call.inputs[:2]
    if call.kind == "Gemm":
        first = first[::-1] if first and call.options.get("transA") else first
        second = second[::-1] if second and call.options.get("transB") else second
    is_linear = sum(call.is_data[:2]) == 1
    traits: Mapping[str, Any] = {}
    if is_linear and first and second and min(len(first), len(second)) > 1:
        traits = traits_of("bmm", (first, second), call.output or (), (), call.is_data[:2])
    macs = prod(call.output) * first[-1] if call.output and first and call.are_known else 0
    detail = BIASED if is_linear and len(call.inputs) > 2 else ""
    return "linear" if is_linear else "matmul", traits, macs, detail


def _norm(call: Call) -> _Described:
    return "norm", {"norm": _NORMS[call.kind]}, 0, ""


def _group_norm(call: Call) -> _Described:
    # Exporters write a norm of groups as one of each example's groups, of which there is one axis,
    # and its weights after it.
    is_of_groups = call.output is not None and len(call.output) == 3
    return (
        "norm",
        {"norm": "group" if is_of_groups else "instance"},
        0,
        OPEN if is_of_groups else "",
    )


def _activation(call: Call) -> _Described:
    return "activation", {"activation": _ACTIVATIONS[call.kind]}, 0, ""


def _pool(call: Call) -> _Described:
    traits = dict(traits_of(_POOLS[call.kind], (call.inputs[0] or (),), call.output or (), ()))
    if call.output is None or call.inputs[0] is None:
        traits["reach"] = "local" if call.kind in {"MaxPool", "AveragePool"} else "global"
    return "pool", traits, 0, ""


def _by_number(call: Call) -> _Described:
    is_sum = call.kind in _SUMS
    if sum(call.is_data) > 1:
        return "add" if is_sum else "mul", {}, 0, ""
    weights = call.weights
    detail = "" if weights is None else vector_detail(weights, call.output)
    return "shift" if is_sum else "scale", {}, 0, detail


def _softmax(call: Call) -> _Described:
    axis, shape = call.options.get("axis", -1), call.output
    is_rows = axis == -1 or (shape is not None and axis == len(shape) - 1)
    return "softmax", {}, 0, ROWS if is_rows else ""


def _gather(call: Call) -> _Described:
    # Data that says which weights: a table. Weights that say which data would be arranging.
    is_table = not call.is_data[0]
    return "embedding" if is_table else "gather", {}, 0, ""


def _recurrent(call: Call) -> _Described:
    data, n_hidden = call.inputs[0], call.options.get("hidden_size")
    directions = 2 if call.options.get("direction") == "bidirectional" else 1
    names = [str(name).lower() for name in call.options.get("activations", ())]
    cell = "rnn_relu" if call.kind == "RNN" and "relu" in names else _RECURRENT[call.kind]
    traits = {"cell": cell, "layers": 1, "directions": directions}
    if not data or not n_hidden:
        return "recurrent", traits, 0, ""
    sizes = ((1, data[-1]), (data[-1], n_hidden * directions))
    ratio = traits_of("mm", sizes, (), (), (True, False))
    gates = {"lstm": 4, "gru": 3}.get(cell, 1) * n_hidden
    matrices = [(gates, data[-1]), (gates, n_hidden)] * directions
    return "recurrent", traits | ratio, macs_of(cell, (data, *matrices), (), ()), ""


def _attention(call: Call) -> _Described:
    query = call.inputs[0]
    heads = call.options.get("q_num_heads") or call.options.get("num_heads")
    heads = heads or (query[1] if query and len(query) == 4 else 1)
    shapes = [shape for shape in call.inputs[:3] if shape is not None]
    is_usual = len(shapes) == 3 and call.output is not None
    macs = macs_of(ATTENTION, shapes, call.output or (), ()) if is_usual else 0
    return "attention", {"heads": heads}, macs, ""


_DESCRIBED: Final[Mapping[str, Callable[[Call], _Described]]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    **dict.fromkeys(_NORMS, _norm),
    "InstanceNormalization": _group_norm,
    **dict.fromkeys(_ACTIVATIONS, _activation),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_SUMS | _PRODUCTS, _by_number),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND"), _gather),
    **dict.fromkeys(_RECURRENT, _recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
}


def arranged(kind: str, is_data: Sequence[bool]) -> slice | None:
    """Which inputs an operator that only arranges has its data from; ``None`` for any other."""
    if kind in {"Gather", "GatherElements", "GatherND"}:
        # At places that are known beforehand.
        return slice(1) if is_data[0] and not any(is_data[1:]) else None
    if kind in _WRITING:
        return slice(None)
    # The others say where, or of what type.
    return slice(1) if kind in ARRANGING else None
