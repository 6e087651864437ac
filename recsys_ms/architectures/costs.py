"""Multiply-adds of an operator, from the shapes of its tensors."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final, TypeAlias

from recsys_ms.architectures.operators import RECURRENT

Shapes: TypeAlias = Sequence[tuple[int, ...]]


def macs_of(name: str, inputs: Shapes, output: tuple[int, ...], options: Sequence[Any]) -> int:
    """Multiply-adds of an operator that multiplies matrices; 0 for every other.

    Convolutions, linear layers, matrix products, both products of attention and recurrent layers
    count, as in the tables of timm; biases, norms and pointwise operators do not. Arguments are
    those of :func:`~recsys_ms.architectures.operators.traits_of`.
    """
    if name in RECURRENT:
        return _of_recurrent(name, inputs)
    count = _COUNTS.get(name)
    return 0 if count is None else count(inputs, output, options)


def _of_convolution(inputs: Shapes, output: tuple[int, ...], options: Sequence[Any]) -> int:
    # Every number of the output (input, where transposed) meets one filter.
    is_transposed = bool(options[6])
    return prod(inputs[0] if is_transposed else output) * prod(inputs[1][1:])


def _of_recurrent(name: str, inputs: Shapes) -> int:
    # Every step meets every matrix of weights once; of a cell, those before are states.
    matrices = [shape for shape in inputs[1:] if len(shape) == 2]
    if name.endswith("_cell"):
        matrices = matrices[-2:]
    return prod(inputs[0][:-1]) * sum(map(prod, matrices))


def _of_product(inputs: Shapes, output: tuple[int, ...], options: Sequence[Any]) -> int:
    # Of addmm and baddbmm the summand comes first.
    return prod(output) * inputs[-2][-1]


def _of_attention(inputs: Shapes, output: tuple[int, ...], options: Sequence[Any]) -> int:
    query, key, value = inputs[:3]
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_COUNTS: Final[Mapping[str, Callable[[Shapes, tuple[int, ...], Sequence[Any]], int]]] = {
    **dict.fromkeys(("convolution", "_convolution"), _of_convolution),
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm"), _of_product),
    "linear": lambda inputs, output, options: prod(output) * inputs[0][-1],
    "scaled_dot_product_attention": _of_attention,
}
