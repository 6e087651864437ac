"""Norms and activations that are written out, against the operators that they are."""

from collections.abc import Callable
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")

from recsys_ms.architectures.graph import architecture_graph  # noqa: E402

nn, functional = torch.nn, torch.nn.functional


class Written(nn.Module):  # type: ignore[misc]
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.weight, self.bias = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))

    def forward(self, x: Any) -> Any:
        return self.function(torch.tanh(x), self.weight, self.bias)


def folded(function: Callable[..., Any]) -> list[tuple[str, str]]:
    """What comes after the first activation, with its trait."""
    graph = architecture_graph(Written(function), torch.zeros(2, 5, 6))
    nodes = [graph.nodes[node] for node in sorted(graph)]
    return [(data["op"], data.get(data["op"], "")) for data in nodes[2:-1]]


def spread(x: Any) -> Any:
    return x.pow(2).mean(-1, keepdim=True) + 1e-6


def centred(x: Any) -> Any:
    return x - x.mean(-1, keepdim=True)


@pytest.mark.parametrize(
    ("function", "norm"),
    [
        (lambda x, w, b: functional.layer_norm(x, (6,), w, b), "layer"),
        (lambda x, w, b: centred(x) / spread(centred(x)).sqrt() * w + b, "two means"),
        (lambda x, w, b: (y := centred(x)) / spread(y).sqrt() * w + b, "layer"),
        (lambda x, w, b: w * ((y := centred(x)) * torch.rsqrt(spread(y))) + b, "layer"),
        (lambda x, w, b: (y := centred(x)) * spread(y).sqrt().reciprocal(), "layer"),
        (lambda x, w, b: centred(x) / (x.var(-1, keepdim=True) + 1e-6).sqrt(), "layer"),
        (lambda x, w, b: functional.rms_norm(x, (6,), w), "rms"),
        (lambda x, w, b: x * torch.rsqrt(spread(x)) * w, "rms"),
        (lambda x, w, b: w * (x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)), "rms"),
    ],
)
def test_norms_that_are_written_out(function: Callable[..., Any], norm: str) -> None:
    if norm == "two means":
        # Computed twice it is two: nothing says that both are the same.
        assert ("norm", "layer") not in folded(function)
    else:
        assert folded(function) == [("norm", norm)]


@pytest.mark.parametrize(
    ("function", "activation"),
    [
        (lambda x, w, b: functional.gelu(x), "gelu"),
        (lambda x, w, b: x * 0.5 * (1.0 + torch.erf(x / 2**0.5)), "gelu"),
        (lambda x, w, b: 0.5 * (x * (torch.erf(x / 2**0.5) + 1.0)), "gelu"),
        (lambda x, w, b: x * (0.5 * (torch.erf(x * 0.7071) + 1.0)), "gelu"),
        (lambda x, w, b: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.044715 * x**3))), "gelu"),
        (lambda x, w, b: x * (1 + torch.tanh(0.8 * (x + 0.044715 * x**3))) * 0.5, "gelu"),
        (lambda x, w, b: x * torch.sigmoid(1.702 * x), "gelu"),
        (lambda x, w, b: x * torch.sigmoid(x), "silu"),
        (lambda x, w, b: x * functional.hardsigmoid(x), "hardswish"),
        (lambda x, w, b: x * torch.tanh(functional.softplus(x)), "mish"),
    ],
)
def test_activations_that_are_written_out(function: Callable[..., Any], activation: str) -> None:
    assert folded(function) == [("activation", activation)]


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        # A gate of something else.
        (lambda x, w, b: x * torch.sigmoid(x @ torch.ones(6, 6)), "linear activation mul"),
        # Used elsewhere too.
        (lambda x, w, b: (x * (y := torch.sigmoid(x)), y), "activation mul"),
        (lambda x, w, b: x * torch.sigmoid(x * w), "scale activation mul"),
        # Over the largest instead of the mean; less the mean of something else.
        (
            lambda x, w, b: x / ((x**2).amax(-1, keepdim=True) + 1e-6).sqrt(),
            "pow pool shift sqrt mul",
        ),
        # A norm of its own keeps what comes after it.
        (lambda x, w, b: functional.layer_norm(x, (6,)) * w + b, "norm scale shift"),
        (lambda x, w, b: x * torch.rsqrt(spread(x)) + torch.ones(5, 6), "norm shift"),
    ],
)
def test_what_is_not_surely_one_operator(function: Callable[..., Any], kinds: str) -> None:
    assert [kind for kind, _ in folded(function)] == kinds.split()
