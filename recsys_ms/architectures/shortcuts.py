"""Results of frequent operators on the ``meta`` device, without the Python that torch runs there.

Each gives the shape, type and strides that torch would, or ``None`` where the case is not the plain
one: then torch runs, and raises where arguments do not fit. Tracing takes a third of the time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

#: Operators on each number alone.
_POINTWISE: Final = frozenset(
    {
        *("relu", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh"),
        *("leaky_relu", "elu", "mish", "softplus", "erf", "exp", "neg", "sqrt", "rsqrt"),
    }
)
_PAIRED: Final = frozenset({"add", "sub", "mul", "div"})


def shortcut(torch: Any, name: str, overload: str) -> Callable[[Sequence[Any]], Any] | None:
    """A faster way to run an operator of ATen (its name and overload), or ``None``."""
    plain = name.removesuffix("_")
    is_in_place = plain != name
    if plain in _POINTWISE and overload == "default":
        return _itself if is_in_place else lambda args: _like(torch, args[0])
    if plain in _PAIRED and overload == "Tensor":
        return lambda args: _of_pair(torch, args, is_in_place)
    ways: Mapping[str, Callable[[Any, Sequence[Any]], Any]] = {
        "native_batch_norm": _batch_norm,
        "native_layer_norm": _layer_norm,
        "addmm": _addmm,
    }
    way = ways.get(name) if overload == "default" else None
    return None if way is None else lambda args: way(torch, args)


def attention(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Result of attention, or ``None`` where its arguments are not the plain ones."""
    if len(args) < 3:
        return None
    query, key, value = args[:3]
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    n_axes = query.dim()
    if n_axes != 4 or key.dim() != 4 or value.dim() != 4 or not query.dtype.is_floating_point:
        return None
    leading, n_queries, n_keys = query.shape[:2], query.shape[2], key.shape[2]
    fits = key.shape[:2] == value.shape[:2] == leading and value.shape[2] == n_keys
    fits = fits and query.shape[3] == key.shape[3] and query.dtype == key.dtype == value.dtype
    if mask is not None:
        wanted = (*leading, n_queries, n_keys)
        fits = fits and _stretches(mask.shape, wanted)
    return query.new_empty((*query.shape[:-1], value.shape[-1])) if fits else None


def _itself(args: Sequence[Any]) -> Any:
    return args[0] if args[0].dtype.is_floating_point else None


def _like(torch: Any, tensor: Any) -> Any:
    return torch.empty_like(tensor) if tensor.dtype.is_floating_point else None


def _of_pair(torch: Any, args: Sequence[Any], is_in_place: bool) -> Any:
    one, other = args[:2]
    if not one.dtype.is_floating_point:
        return None
    if isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not _stretches(other.shape, one.shape):
            return None
        # Layouts that disagree are for torch to settle.
        same = one.shape == other.shape and one.stride() == other.stride()
        if not same and not (one.is_contiguous() and one.shape != other.shape):
            return None if not is_in_place else one
    elif isinstance(other, complex):
        return None
    return one if is_in_place else torch.empty_like(one)


def _stretches(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is broadcast to a wanted one."""
    if len(shape) > len(wanted):
        return False
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    return all(size in {1, full} for size, full in pairs)


def _batch_norm(torch: Any, args: Sequence[Any]) -> Any:
    data, *statistics, training = args[:6]
    if training or not data.dtype.is_floating_point or data.dim() < 2:
        return None
    n_channels = (data.shape[1],)
    if any(one is None for one in statistics[2:]):
        return None
    if any(one is not None and tuple(one.shape) != n_channels for one in statistics):
        return None
    return _like(torch, data), data.new_empty(n_channels), data.new_empty(n_channels)


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
