"""Shortcuts give what torch gives on the ``meta`` device: shape, type and strides, or nothing."""

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")

from recsys_ms.architectures.shortcuts import SHORTCUTS  # noqa: E402


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


def same_as_torch(name: str, args: tuple[Any, ...]) -> bool:
    """Whether the shortcut has a result; where it has, it must be right."""
    found = SHORTCUTS[name](torch, args)
    if found is not None:
        assert described(found) == described(getattr(torch.ops.aten, name).default(*args))
    return found is not None


@pytest.mark.parametrize("x", LAYOUTS)
def test_norms(x: Any) -> None:
    one, other = (torch.empty(size, device="meta", dtype=x.dtype) for size in (4, 6))
    assert same_as_torch("native_batch_norm", (x, one, one, one, one, False, 0.1, 1e-5))
    assert same_as_torch("native_layer_norm", (x, [6], other, other, 1e-5))
    assert same_as_torch("native_layer_norm", (x, [6, 6], None, None, 1e-5))
    batch, layer = SHORTCUTS["native_batch_norm"], SHORTCUTS["native_layer_norm"]
    # By the data's own statistics; weights of another width.
    assert batch(torch, (x, one, one, one, one, True, 0.1, 1e-5)) is None
    assert batch(torch, (x, one, one, None, None, False, 0.1, 1e-5)) is None
    assert batch(torch, (x, other, one, one, one, False, 0.1, 1e-5)) is None
    assert layer(torch, (x, [4], None, None, 1e-5)) is None
    assert layer(torch, (x, [6], one, None, 1e-5)) is None


def test_linear_layers() -> None:
    x, w = tensor(5, 3), tensor(7, 3)
    assert same_as_torch("addmm", (tensor(7), x, w.t()))
    assert same_as_torch("addmm", (tensor(5, 7), x.t().contiguous().t(), w.t()))
    assert not same_as_torch("addmm", (tensor(7), x, w))
    assert not same_as_torch("addmm", (tensor(6), x, w.t()))
