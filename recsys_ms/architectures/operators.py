"""Describes operators of PyTorch: kind, traits and multiply-adds, from the shapes of their tensors.

Operators that only arrange or allocate numbers are not part of an architecture: their input stands
for their output. Kinds are few, so that different spellings of a layer look alike.
"""

from collections.abc import Mapping, Sequence
from math import log2, prod
from typing import Any, Final, TypeAlias

from recsys_ms.core.types import JsonDict

Shapes: TypeAlias = Sequence[tuple[int, ...]]

#: Views, copies, casts: their output is their input, arranged otherwise.
ARRANGING: Final = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "squeeze"),
        *("unsqueeze", "clone", "detach", "alias", "contiguous", "_to_copy", "to", "as_strided"),
        *("slice", "select", "split", "split_with_sizes", "chunk", "unbind", "flatten", "copy"),
        *("lift_fresh", "lift_fresh_copy", "view_as_real", "view_as_complex", "movedim", "flip"),
        *("dropout", "native_dropout", "resize", "_reshape_alias", "unflatten", "narrow"),
        *("set", "squeeze_copy", "expand_copy", "view_copy", "diagonal", "unfold_copy"),
        *("unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "unfold", "fill"),
        *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
    }
)
#: Their output has the shape of their input, and none of its data.
ALLOCATING: Final = frozenset(
    {
        *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
        *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided", "zero"),
    }
)
#: The first tensor is overwritten by the second.
OVERWRITING: Final = frozenset({"copy", "fill"})
#: Recurrent layers (as many as run at once) and cells: one operator each, not one a step.
RECURRENT: Final = frozenset(
    {
        *("lstm", "gru", "rnn_tanh", "rnn_relu"),
        *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    }
)
#: Kinds of operators with weights in the place of one of their inputs.
_WITH_WEIGHTS: Final = {"add": "shift", "mul": "scale", "matmul": "linear"}


def by_name(names: Mapping[str, str]) -> dict[str, str]:
    """Key of each of the names that stand behind it, separated by spaces."""
    return {name: key for key, several in names.items() for name in several.split()}


_NORMS: Final = by_name(
    {
        "batch": "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm",
        "layer": "native_layer_norm",
        "group": "native_group_norm",
        "rms": "_fused_rms_norm rms_norm",
    }
)
_KINDS: Final = by_name(
    {
        "conv": "convolution _convolution",
        "matmul": "addmm mm bmm baddbmm matmul",
        "norm": " ".join(_NORMS),
        "pool": "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d "
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d "
        "mean amax",
        "add": "add sub rsub",
        "mul": "mul div",
        "concat": "cat stack",
        "softmax": "_softmax _safe_softmax _log_softmax",
        "pad": "constant_pad_nd reflection_pad2d replication_pad2d",
        "resize": "upsample_nearest2d upsample_bilinear2d _upsample_bicubic2d_aa "
        "upsample_bicubic2d",
        "attention": "scaled_dot_product_attention",
        "recurrent": " ".join(RECURRENT),
        "activation": "relu gelu silu sigmoid tanh hardswish hardsigmoid hardtanh leaky_relu elu "
        "mish softplus prelu _prelu_kernel rrelu log_sigmoid glu erf clamp clamp_min relu6 selu "
        "celu",
    }
)


def kind_of(name: str, is_data: Sequence[bool] = ()) -> str:
    """Kind of an operator; its own name where it is not a common one.

    Parameters
    ----------
    name : str
        As ATen has it, without its overload and without the underscore of the in-place form.
    is_data : sequence of bool, optional
        Which of its tensors hold data, the others being weights; all, if it is empty. A sum with
        weights or a number is a ``shift``, a product a ``scale``, a product of matrices ``linear``.
    """
    kind = _KINDS.get(name, name)
    if not is_data or kind not in _WITH_WEIGHTS:
        return kind
    # A summand comes before the two matrices.
    n_data = sum(is_data[-2:] if kind == "matmul" else is_data)
    return _WITH_WEIGHTS[kind] if n_data < 2 else kind


def traits_of(
    name: str,
    inputs: Shapes,
    output: tuple[int, ...],
    options: Sequence[Any],
    is_data: Sequence[bool] = (),
) -> JsonDict:
    """Traits of an operator, by its kind.

    Parameters
    ----------
    name, is_data
        As for :func:`kind_of`.
    inputs, output : shapes
        Of its tensors, weights included, and of its (first) output.
    options : sequence
        All arguments in order; entries of tensors are not read.
    """
    kind = kind_of(name, is_data)
    if kind == "conv":
        return _of_convolution(inputs, options)
    if kind == "linear":
        # The side of the weights that the data does not share is the output.
        first, second = inputs[-2:]
        sides = (second[-1], second[-2]) if is_data[-2] else (first[-2], first[-1])
        return {"ratio": _ratio(*sides)}
    if kind == "norm":
        # Statistics of the data itself: over one example's channel, as torch calls it.
        is_instance = name == "native_batch_norm" and options[5] is True
        return {"norm": "instance" if is_instance else _NORMS[name]}
    if kind == "recurrent":
        return _of_recurrent(name, inputs, output, options)
    if kind == "activation":
        return {"activation": name.strip("_").removesuffix("_kernel")}
    if kind == "pool":
        is_global = len(output) < len(inputs[0]) or all(size == 1 for size in output[2:])
        pooled = "max" if "max" in name else "average"
        return {"pool": pooled, "reach": "global" if is_global else "local"}
    if kind == "attention":
        return {"heads": inputs[0][1] if len(inputs[0]) == 4 else 1}
    return {}


def _of_convolution(inputs: Shapes, options: Sequence[Any]) -> JsonDict:
    weight = inputs[1]
    stride, dilation, transposed, groups = options[3], options[5], options[6], int(options[8])
    n_out, n_in = weight[0], weight[1] * groups
    if transposed:
        n_out, n_in = weight[1] * groups, weight[0]
    if groups == 1:
        grouping = "dense"
    else:
        grouping = "depthwise" if groups == n_in else "grouped"
    return {
        "kernel": "x".join(map(str, weight[2:])),
        "stride": max(map(int, stride)),
        "dilation": max(map(int, dilation)),
        "groups": grouping,
        "ratio": _ratio(n_out, n_in),
        **({"transposed": True} if transposed else {}),
    }


def _of_recurrent(
    name: str, inputs: Shapes, output: tuple[int, ...], options: Sequence[Any]
) -> JsonDict:
    traits = {"cell": name.removesuffix("_cell"), "ratio": _ratio(output[-1], inputs[0][-1])}
    # Of a layer: has biases, layers, dropout, training, bidirectional.
    numbers = [value for value in options if isinstance(value, bool | int | float)]
    is_layer = len(numbers) > 4
    layers, directions = (int(numbers[1]), 1 + bool(numbers[4])) if is_layer else (1, 1)
    return traits | {"layers": layers, "directions": directions}


def _ratio(after: int, before: int) -> float:
    """Logarithm to 2 of output channels over input channels, to a quarter."""
    if after < 1 or before < 1:
        return 0.0
    return round(log2(after / before) * 4) / 4


def macs_of(name: str, inputs: Shapes, output: tuple[int, ...], options: Sequence[Any]) -> int:
    """Multiply-adds of an operator that multiplies matrices; 0 for every other.

    Convolutions, linear layers, matrix products, both products of attention and recurrent layers
    count, as in the tables of timm; biases, norms and pointwise operators do not. Arguments are
    those of :func:`traits_of`.
    """
    kind = kind_of(name)
    if kind == "conv":
        # Every number of the output (input, where transposed) meets one filter.
        return prod(inputs[0] if options[6] else output) * prod(inputs[1][1:])
    if kind == "recurrent":
        # Every step meets every matrix of weights once; of a cell, those before are states.
        matrices = [shape for shape in inputs[1:] if len(shape) == 2]
        matrices = matrices[-2:] if name.endswith("_cell") else matrices
        return prod(inputs[0][:-1]) * sum(map(prod, matrices))
    if kind == "attention":
        query, key, value = inputs[:3]
        return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if name == "linear":
        return prod(output) * inputs[0][-1]
    if kind == "matmul" or name in {"mv", "dot", "addmv"}:
        # Of addmm and baddbmm the summand comes first.
        return prod(output) * inputs[-2][-1]
    return 0
