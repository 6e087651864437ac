"""Describes operators of ONNX: kinds, traits and costs as for those of torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, TypeAlias

from recsys_ms.architectures.folding import (
    ATTENTION,
    BIASED,
    OPEN,
    ROWS,
    Node,
    vector_detail,
)
from recsys_ms.architectures.operators import by_name, macs_of, traits_of
from recsys_ms.core.types import JsonDict

Shape: TypeAlias = tuple[int, ...]

#: Their output is their input, arranged otherwise (or rounded, where a file is quantised).
ARRANGING: Final = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Cast", "CastLike", "Dropout", "Flatten", "Squeeze"),
        *("Unsqueeze", "Slice", "Split", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"),
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ReverseSequence"),
        *("Optional", "OptionalGetElement", "SplitToSequence", "SequenceAt"),
    }
)
#: Arranging, too: the output holds all inputs.
_WRITING: Final = frozenset({"ScatterND", "ScatterElements", "SequenceConstruct"})
_GATHERING: Final = frozenset({"Gather", "GatherElements", "GatherND"})
#: Their output has none of the data of their input.
ALLOCATING: Final = frozenset(
    {"Shape", "Size", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
)
#: Operators that run other graphs.
BRANCHING: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_ACTIVATIONS: Final = by_name(
    {
        "relu": "Relu",
        "leaky_relu": "LeakyRelu",
        "elu": "Elu Selu",
        "celu": "Celu",
        "gelu": "Gelu FastGelu QuickGelu",
        "sigmoid": "Sigmoid",
        "tanh": "Tanh",
        "hardsigmoid": "HardSigmoid",
        "hardswish": "HardSwish",
        "silu": "Swish",
        "softplus": "Softplus",
        "mish": "Mish",
        "prelu": "PRelu",
        "hardtanh": "Clip",
        "erf": "Erf",
    }
)
_NORMS: Final = by_name(
    {
        "batch": "BatchNormalization",
        "layer": "LayerNormalization SkipLayerNormalization",
        "group": "GroupNormalization",
        "rms": "RMSNormalization SimplifiedLayerNormalization",
    }
)
#: Pools, by the names of their counterparts in torch.
_POOLS: Final = by_name(
    {
        "max_pool2d_with_indices": "MaxPool",
        "amax": "GlobalMaxPool ReduceMax",
        "avg_pool2d": "AveragePool",
        "mean": "GlobalAveragePool ReduceMean",
    }
)
_SUMS: Final = ("Add", "Sub", "Sum")
_PRODUCTS: Final = ("Mul", "Div")
_RECURRENT: Final = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}
_OTHERS: Final = by_name({"resize": "Resize Upsample", "linalg_vector_norm": "ReduceL2"}) | {
    "ReduceSum": "sum"
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator.

    ``kind`` is its ``op_type``. ``inputs`` and ``output`` (the first) are shapes, ``None`` where
    they are not known; ``is_data`` says which inputs hold data, the others being weights.
    ``sources`` are the nodes that the data comes from, ``options`` its attributes.
    """

    kind: str
    inputs: tuple[Shape | None, ...]
    is_data: tuple[bool, ...]
    output: Shape | None
    sources: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def are_known(self) -> bool:
        """Whether the shapes of the first two inputs and of the output are known."""
        return None not in self.inputs[:2] and self.output is not None

    def node(self, op: str, macs: int = 0, detail: str = "", **traits: Any) -> Node:
        """The node of this call."""
        return Node(op, self.kind, self.output or (), self.sources, macs, traits, detail)


def node_of(call: Call) -> Node:
    """The node of an operator that data goes through."""
    describe = _DESCRIBED.get(call.kind)
    if describe is not None:
        return describe(call)
    return call.node(_OTHERS.get(call.kind, call.kind.lower()))


def _convolution(call: Call) -> Node:
    is_transposed = call.kind == "ConvTranspose"
    kernel = call.options.get("kernel_shape")
    shape = call.inputs[1]
    n_axes = len(kernel) if kernel else len(shape or (1, 1)) - 2
    ones = [1] * max(n_axes, 1)
    stride, dilation = call.options.get("strides", ones), call.options.get("dilations", ones)
    if shape is None:
        sizes = "x".join(map(str, kernel or ()))
        return call.node("conv", kernel=sizes, stride=max(stride), dilation=max(dilation))
    # In torch's order: stride, dilation, whether transposed, groups.
    groups = call.options.get("group", 1)
    options = [None, None, None, stride, None, dilation, is_transposed, None, groups]
    given = ("convolution", (call.inputs[0] or (), shape), call.output or (), options)
    return call.node("conv", macs_of(*given) if call.are_known else 0, **traits_of(*given))


def _product(call: Call) -> Node:
    first, second = call.inputs[:2]
    if call.kind == "Gemm":
        first = first[::-1] if first and call.options.get("transA") else first
        second = second[::-1] if second and call.options.get("transB") else second
    macs = prod(call.output) * first[-1] if call.output and first and call.are_known else 0
    if sum(call.is_data[:2]) != 1:
        return call.node("matmul", macs)
    detail = BIASED if len(call.inputs) > 2 else ""
    if not first or not second or min(len(first), len(second)) < 2:
        return call.node("linear", macs, detail)
    traits = traits_of("bmm", (first, second), call.output or (), (), call.is_data[:2])
    return call.node("linear", macs, detail, **traits)


def _instance_norm(call: Call) -> Node:
    # Exporters write a norm of groups as one of each example's groups, of which there is one axis,
    # and its weights after it.
    if call.output is not None and len(call.output) == 3:
        return call.node("norm", detail=OPEN, norm="group")
    return call.node("norm", norm="instance")


def _pool(call: Call) -> Node:
    traits = traits_of(_POOLS[call.kind], (call.inputs[0] or (),), call.output or (), ())
    if call.output is None or call.inputs[0] is None:
        traits["reach"] = "local" if call.kind in {"MaxPool", "AveragePool"} else "global"
    return call.node("pool", **traits)


def _by_number(call: Call) -> Node:
    is_sum = call.kind in _SUMS
    if sum(call.is_data) > 1:
        return call.node("add" if is_sum else "mul")
    shapes = zip(call.inputs, call.is_data, strict=True)
    weights = next((shape for shape, is_data in shapes if not is_data), None)
    detail = "" if weights is None else vector_detail(weights, call.output)
    return call.node("shift" if is_sum else "scale", detail=detail)


def _softmax(call: Call) -> Node:
    axis, shape = call.options.get("axis", -1), call.output
    is_rows = axis == -1 or (shape is not None and axis == len(shape) - 1)
    return call.node("softmax", detail=ROWS if is_rows else "")


def _recurrent(call: Call) -> Node:
    data, n_hidden = call.inputs[0], call.options.get("hidden_size")
    directions = 2 if call.options.get("direction") == "bidirectional" else 1
    names = [str(name).lower() for name in call.options.get("activations", ())]
    cell = "rnn_relu" if call.kind == "RNN" and "relu" in names else _RECURRENT[call.kind]
    traits: JsonDict = {"cell": cell, "layers": 1, "directions": directions}
    if not data or not n_hidden:
        return call.node("recurrent", **traits)
    sizes = ((1, data[-1]), (data[-1], n_hidden * directions))
    traits |= traits_of("mm", sizes, (), (), (True, False))
    gates = {"lstm": 4, "gru": 3}.get(cell, 1) * n_hidden
    matrices = [(gates, data[-1]), (gates, n_hidden)] * directions
    return call.node("recurrent", macs_of(cell, (data, *matrices), (), ()), **traits)


def _attention(call: Call) -> Node:
    query = call.inputs[0]
    heads = call.options.get("q_num_heads") or call.options.get("num_heads")
    heads = heads or (query[1] if query and len(query) == 4 else 1)
    shapes = [shape for shape in call.inputs[:3] if shape is not None]
    is_usual = len(shapes) == 3 and call.output is not None
    macs = macs_of(ATTENTION, shapes, call.output or (), ()) if is_usual else 0
    return call.node("attention", macs, heads=heads)


_DESCRIBED: Final[Mapping[str, Callable[[Call], Node]]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    **dict.fromkeys(_NORMS, lambda call: call.node("norm", norm=_NORMS[call.kind])),
    "InstanceNormalization": _instance_norm,
    **dict.fromkeys(
        _ACTIVATIONS, lambda call: call.node("activation", activation=_ACTIVATIONS[call.kind])
    ),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys((*_SUMS, *_PRODUCTS), _by_number),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    # Data that says which weights: a table. Weights that say which data would be arranging.
    **dict.fromkeys(
        _GATHERING, lambda call: call.node("gather" if call.is_data[0] else "embedding")
    ),
    **dict.fromkeys(_RECURRENT, _recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
}


def arranged(kind: str, is_data: Sequence[bool]) -> slice | None:
    """Inputs that an arranging operator has its data from; ``None`` for any other operator."""
    if kind in _GATHERING:
        # At places that are known beforehand.
        return slice(1) if is_data[0] and not any(is_data[1:]) else None
    if kind in _WRITING:
        return slice(None)
    # The other inputs say where, or of what type.
    return slice(1) if kind in ARRANGING else None
