"""Shortcuts give what torch gives on the ``meta`` device: shape, type and strides, or nothing."""

import itertools
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")

from recsys_ms.architectures.shortcuts import attention, shortcut  # noqa: E402


def tensor(*shape: int, dtype: Any = None) -> Any:
    return torch.empty(shape, device="meta", dtype=dtype or torch.float32)


#: One shape in many layouts.
LAYOUTS = [
    tensor(2, 4, 6, 6),
    tensor(2, 4, 6, 6).to(memory_format=torch.channels_last),
    tensor(2, 6, 6, 4).permute(0, 3, 1, 2),
    tensor(6, 4, 2, 6).transpose(0, 2),
    tensor(2, 9, 6, 6)[:, 2:6],
    tensor(2, 4, 12, 6)[:, :, ::2],
    tensor(2, 1, 6, 6).expand(2, 4, 6, 6),
    tensor(2, 4, 6, 6, dtype=torch.bfloat16),
]


def described(result: Any) -> list[Any]:
    tensors = result if isinstance(result, tuple | list) else [result]
    # Of statistics only shapes count: nothing is computed from them.
    first = [(tensors[0].shape, tensors[0].dtype, tensors[0].stride())]
    return first + [one.shape for one in tensors[1:]]


def same_as_torch(name: str, overload: str, args: tuple[Any, ...]) -> bool:
    """Whether there was a shortcut; where there was, it must be right."""
    operator = getattr(getattr(torch.ops.aten, name), overload)
    faster = shortcut(torch, name, overload)
    assert faster is not None
    found = faster(args)
    if found is not None:
        assert described(found) == described(operator(*args))
    return found is not None


@pytest.mark.parametrize("x", LAYOUTS)
@pytest.mark.parametrize(
    "name",
    "relu gelu silu sigmoid tanh hardswish hardsigmoid hardtanh leaky_relu elu mish softplus erf "
    "exp neg sqrt rsqrt".split(),
)
def test_pointwise_operators(name: str, x: Any) -> None:
    assert same_as_torch(name, "default", (x,))
    in_place = shortcut(torch, f"{name}_", "default")
    assert in_place is not None
    assert in_place((x,)) is x


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_sums_and_products(name: str) -> None:
    others = [*LAYOUTS, tensor(4, 1, 1), tensor(6), tensor(1, 4, 1, 6), tensor(2, 4, 1, 1)]
    others += [tensor(), tensor(6, dtype=torch.float64), tensor(6, dtype=torch.long), 2, 0.5, 1j]
    others += [tensor(3, 2, 4, 6, 6)]
    found = sum(
        same_as_torch(name, "Tensor", (one, other))
        for one, other in itertools.product([*LAYOUTS, tensor(2, 1, 6, 6)], others)
    )
    # Plain cases are many, and the others are left to torch.
    assert 30 < found < 9 * len(others)
    in_place = shortcut(torch, f"{name}_", "Tensor")
    assert in_place is not None
    assert in_place((LAYOUTS[0], tensor(6))) is LAYOUTS[0]
    # What does not fit is for torch to refuse.
    assert in_place((tensor(6), LAYOUTS[0])) is None
    assert in_place((LAYOUTS[0], tensor(5))) is None


@pytest.mark.parametrize("x", LAYOUTS)
def test_norms(x: Any) -> None:
    one, other = (torch.empty(size, device="meta", dtype=x.dtype) for size in (4, 6))
    assert same_as_torch("native_batch_norm", "default", (x, one, one, one, one, False, 0.1, 1e-5))
    assert same_as_torch("native_layer_norm", "default", (x, [6], other, other, 1e-5))
    assert same_as_torch("native_layer_norm", "default", (x, [6, 6], None, None, 1e-5))
    batch = shortcut(torch, "native_batch_norm", "default")
    layer = shortcut(torch, "native_layer_norm", "default")
    assert batch is not None
    assert layer is not None
    # By the data's own statistics; weights of another width.
    assert batch((x, one, one, one, one, True, 0.1, 1e-5)) is None
    assert batch((x, one, one, None, None, False, 0.1, 1e-5)) is None
    assert batch((x, other, one, one, one, False, 0.1, 1e-5)) is None
    assert layer((x, [4], None, None, 1e-5)) is None
    assert layer((x, [6], one, None, 1e-5)) is None


def test_linear_layers() -> None:
    x, w = tensor(5, 3), tensor(7, 3)
    assert same_as_torch("addmm", "default", (tensor(7), x, w.t()))
    assert same_as_torch("addmm", "default", (tensor(5, 7), x.t().contiguous().t(), w.t()))
    assert not same_as_torch("addmm", "default", (tensor(7), x, w))
    assert not same_as_torch("addmm", "default", (tensor(6), x, w.t()))


def test_attention() -> None:
    whole = torch.nn.functional.scaled_dot_product_attention
    q, k, v = tensor(2, 3, 5, 4), tensor(2, 3, 7, 4), tensor(2, 3, 7, 6)
    turned = tensor(2, 5, 3, 4).transpose(1, 2)
    for args, kwargs in (
        ((q, k, v), {}),
        ((turned, k, v), {"is_causal": True}),
        ((q, k, v, tensor(5, 7)), {}),
        ((q, k, v), {"attn_mask": tensor(2, 1, 1, 7, dtype=torch.bool), "scale": 0.3}),
    ):
        assert described(attention(args, kwargs)) == described(whole(*args, **kwargs))
    assert attention((q, k, v[:, :, :5]), {}) is None
    assert attention((q, k[..., :3], v), {}) is None
    assert attention((q, k, v, tensor(4, 7)), {}) is None
    assert attention((q[0], k[0], v[0]), {}) is None
    # Keys that several heads share.
    assert attention((tensor(2, 6, 5, 4), k, v), {"enable_gqa": True}) is None


def test_other_operators_have_none() -> None:
    assert shortcut(torch, "mean", "dim") is None
    assert shortcut(torch, "mul", "Scalar") is None
    assert shortcut(torch, "relu", "out") is None
    integers = tensor(3, dtype=torch.long)
    for name, overload, args in (
        ("neg", "default", (integers,)),
        ("neg_", "default", (integers,)),
        ("add", "Tensor", (integers, integers)),
    ):
        faster = shortcut(torch, name, overload)
        assert faster is not None
        assert faster(args) is None
