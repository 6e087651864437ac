"""Results of frequent operators on the ``meta`` device, without the Python that torch runs there.

Each gives the shape, type and strides that torch would, or ``None`` where the case is not the plain
one: then torch runs, and raises where arguments do not fit. Tracing takes half as long.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final


def _batch_norm(torch: Any, args: Sequence[Any]) -> Any:
    data, *statistics, training = args[:6]
    if training or not data.dtype.is_floating_point or data.dim() < 2:
        return None
    n_channels = (data.shape[1],)
    if any(one is None for one in statistics[2:]):
        return None
    if any(one is not None and tuple(one.shape) != n_channels for one in statistics):
        return None
    return torch.empty_like(data), data.new_empty(n_channels), data.new_empty(n_channels)


def _layer_norm(torch: Any, args: Sequence[Any]) -> Any:
    data, shape, weight, bias = args[:4]
    first = data.dim() - len(shape)
    normed = tuple(data.shape[max(first, 0) :])
    if not data.dtype.is_floating_point or first < 0 or normed != tuple(shape):
        return None
    if any(one is not None and tuple(one.shape) != normed for one in (weight, bias)):
        return None
    each = data.new_empty((*data.shape[:first], *(1,) * len(shape)))
    # However the data lies in memory.
    return data.new_empty(data.shape), each, each.clone()


def _addmm(torch: Any, args: Sequence[Any]) -> Any:
    summand, one, other = args[:3]
    if one.dim() != 2 or other.dim() != 2 or one.shape[1] != other.shape[0]:
        return None
    wanted = (one.shape[0], other.shape[1])
    fits = _stretches(summand.shape, wanted) and one.dtype == other.dtype == summand.dtype
    return one.new_empty(wanted) if fits else None


def _stretches(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is broadcast to a wanted one."""
    if len(shape) > len(wanted):
        return False
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    return all(size in {1, full} for size, full in pairs)


#: By the name of the operator in ATen; each takes torch and the operator's arguments.
SHORTCUTS: Final[Mapping[str, Callable[[Any, Sequence[Any]], Any]]] = {
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "addmm": _addmm,
}
