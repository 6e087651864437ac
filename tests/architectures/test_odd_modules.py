"""Modules that do what one would rather they did not: traced all the same, or a clear error."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import networkx as nx
import pytest

from recsys_ms.core.errors import DataError

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")

from recsys_ms.architectures.graph import architecture_graph  # noqa: E402

nn = torch.nn


def kinds(graph: "nx.DiGraph[int]") -> list[str]:
    return [graph.nodes[node]["op"] for node in sorted(graph)]


def small() -> Any:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


class Does(nn.Module):  # type: ignore[misc]
    """A module whose forward is a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x * x.max().item(),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: torch.unique(x),
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: x * x.tolist()[0][0],
        lambda x: torch.repeat_interleave(x, x[0].long(), dim=1),
    ],
    ids="mask nonzero item branch unique numpy tolist repeats".split(),
)
def test_what_depends_on_values(function: Callable[[Any], Any]) -> None:
    module = Does(function)
    with pytest.raises(DataError, match=r"Does: its forward raised .*looks at values"):
        architecture_graph(module, torch.ones(2, 4))
    assert module.training


def test_values_of_constants_may_be_looked_at() -> None:
    def positions(x: Any) -> Any:
        steps = torch.arange(x.shape[1], device=x.device)
        mask = steps[None] <= steps[:, None]
        if bool(mask.all()) or int(steps.max().item()) != x.shape[1] - 1:
            raise RuntimeError("wrong values")
        return torch.relu(x[:, steps[steps > 0]])

    assert kinds(architecture_graph(Does(positions), torch.zeros(2, 4, 3))) == [
        *("input", "index", "activation", "output")
    ]


def test_data_written_into_a_constant_is_followed() -> None:
    def fill(x: Any) -> Any:
        whole = torch.zeros(2, 4)
        part = whole[:, :2]
        part.copy_(torch.relu(x[:, :2]))
        whole[:, 2:].add_(torch.tanh(x[:, 2:]))
        return torch.cat([whole, torch.ones(2, 1)], dim=1)

    graph = architecture_graph(Does(fill), torch.zeros(2, 4))
    assert kinds(graph) == ["input", "activation", "activation", "add", "concat", "output"]
    # A part holds what the whole holds.
    assert set(graph.edges) == {(0, 1), (0, 2), (1, 3), (2, 3), (1, 4), (3, 4), (4, 5)}


class Pair(nn.Module):  # type: ignore[misc]
    def forward(self, image: Any, text: Any, *, scale: Any = None) -> Any:
        return image + text


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (torch.zeros(2, 4), r"takes \(image.*, text.*got 1 by position: .*'text'.*as a tuple"),
        ((torch.zeros(2, 4),) * 3, "got 3 by position: too many"),
        ({"image": torch.zeros(2, 4), "words": torch.zeros(2, 4)}, "named image, words: .*'text'"),
    ],
)
def test_wrong_number_of_inputs(given: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        architecture_graph(Pair(), given)
    both = {"image": torch.zeros(2, 4), "text": torch.zeros(4)}
    assert kinds(architecture_graph(Pair(), both)) == ["input", "input", "add", "output"]


def test_no_parameters() -> None:
    assert kinds(architecture_graph(nn.Tanh(), torch.zeros(3))) == ["input", "activation", "output"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.zeros(4, device=x.device),
        lambda x: x + torch.zeros(4, device="cpu"),
        lambda x: x + torch.zeros(4, device="cuda"),
        lambda x: x.to("cuda") + torch.zeros(4, device=torch.device("cuda:1")),
        lambda x: x.cuda() + torch.ones(4).cuda(),
        lambda x: x.to("cpu") + torch.tensor([1.0, 2.0, 3.0, 4.0], device="cuda"),
        lambda x: x.cpu() + torch.ones(4).to(x),
        lambda x: x.to(0, torch.bfloat16) + torch.ones(4, device=0),
        lambda x: x + x.new_ones(4),
    ],
)
def test_tensors_made_on_any_device(function: Callable[[Any], Any]) -> None:
    # No GPU is needed, none is asked for, and code for one is traced all the same.
    assert kinds(architecture_graph(Does(function), torch.zeros(2, 4))) == [
        *("input", "shift", "output")
    ]
    assert not torch.cuda.is_initialized()


def test_weights_on_another_device() -> None:
    # Of weights on a GPU nothing but shape, type and strides is asked for: those on "meta" have no
    # more to give.
    module, moved = small(), small().to("meta")
    graph = architecture_graph(module, torch.zeros(1, 4))
    assert nx.utils.graphs_equal(graph, architecture_graph(moved, torch.zeros(1, 4)))
    assert nx.utils.graphs_equal(
        graph, architecture_graph(module, torch.zeros(1, 4, device="meta"))
    )


@dataclass
class Result:
    main: Any
    other: Any = None
    name: str = "result"


class Tuple(NamedTuple):
    main: Any
    other: Any


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"main": y, "none": None, "number": 3},
        lambda y: [None, (y, "text")],
        lambda y: Result(y),
        lambda y: {"deep": [Result(None, other={"deeper": y})]},
        lambda y: Tuple(y, None),
    ],
)
def test_outputs_in_containers(wrap: Callable[[Any], Any]) -> None:
    graph = architecture_graph(Does(lambda x: wrap(torch.relu(x))), torch.zeros(2))
    assert kinds(graph) == ["input", "activation", "output"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_outputs_of_transformers() -> None:
    outputs: Any = pytest.importorskip("transformers.modeling_outputs")
    wrap = Does(lambda x: outputs.BaseModelOutput(last_hidden_state=torch.relu(x)))
    assert kinds(architecture_graph(wrap, torch.zeros(2))) == ["input", "activation", "output"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_modules_are_refused() -> None:
    for module in (
        torch.jit.script(small()),
        torch.jit.trace(small(), torch.zeros(1, 4)),
        nn.Sequential(torch.jit.script(nn.Linear(4, 4)), nn.ReLU()),
    ):
        with pytest.raises(DataError, match=r"scripted by torch.jit.*architecture_graph_from_onnx"):
            architecture_graph(module, torch.zeros(1, 4))


def test_wrapped_modules_are_unwrapped() -> None:
    module = small()
    plain = architecture_graph(module, torch.zeros(1, 4))
    inner = nn.Sequential(torch.compile(module[0]), module[1], torch.compile(module[2]))
    in_place = small()
    in_place.compile()
    in_place[0].compile()
    for wrapped in (
        torch.compile(module),
        nn.DataParallel(module),
        torch.compile(nn.DataParallel(torch.compile(module))),
        inner,
        in_place,
    ):
        assert nx.utils.graphs_equal(plain, architecture_graph(wrapped, torch.zeros(1, 4)))
    assert in_place._compiled_call_impl is not None


def test_parametrized_weights_are_weights() -> None:
    plain = architecture_graph(small(), torch.zeros(1, 4))
    for normed in (
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.orthogonal,
        nn.utils.parametrizations.spectral_norm,
    ):
        module = small()
        normed(module[0])
        names = set(module.state_dict())
        assert nx.utils.graphs_equal(plain, architecture_graph(module, torch.zeros(1, 4)))
        assert set(module.state_dict()) == names
        assert module(torch.zeros(1, 4)).shape == (1, 2)


def test_tied_weights() -> None:
    class Tied(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: Any) -> Any:
            return self.head(self.words(x))

    module = Tied()
    graph = architecture_graph(module, torch.zeros(2, 3, dtype=torch.long))
    assert kinds(graph) == ["input", "embedding", "linear", "output"]
    assert module.head.weight is module.words.weight


@pytest.mark.parametrize(
    ("layer", "traits"),
    [
        (nn.LSTM(4, 8, num_layers=2, bidirectional=True, batch_first=True), ("lstm", 2, 2, 2.0)),
        (nn.LSTM(4, 8, proj_size=4), ("lstm", 1, 1, 0.0)),
        (nn.GRU(4, 4), ("gru", 1, 1, 0.0)),
        (nn.RNN(4, 16, nonlinearity="relu", bias=False), ("rnn_relu", 1, 1, 2.0)),
    ],
)
def test_recurrent_layers_are_one_operator(layer: Any, traits: tuple[Any, ...]) -> None:
    graph = architecture_graph(layer, torch.zeros(9, 5, 4))
    assert kinds(graph) == ["input", "recurrent", "output"]
    node = next(data for _, data in graph.nodes(data=True) if data["op"] == "recurrent")
    assert (node["cell"], node["layers"], node["directions"], node["ratio"]) == traits
    assert node["shape"] == layer(torch.zeros(9, 5, 4))[0].shape
    weights = sum(p.numel() for name, p in layer.named_parameters() if "weight" in name)
    assert node["macs"] == 9 * 5 * weights


def test_recurrent_cells() -> None:
    class Steps(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(4, 8)

        def forward(self, x: Any) -> Any:
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return state

    graph = architecture_graph(Steps(), torch.zeros(2, 3, 4))
    assert kinds(graph) == ["input", *["recurrent"] * 3, "output"]
    macs = [data["macs"] for _, data in graph.nodes(data=True) if data["op"] == "recurrent"]
    assert macs == [2 * (4 * 24 + 8 * 24)] * 3


def test_multihead_attention_takes_its_usual_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    graph = architecture_graph(nn.TransformerEncoder(layer, 2), torch.zeros(1, 3, 8))
    found = Counter(kinds(graph))
    # Of each layer: queries, keys and values at once, what attention gives, two of feed-forward.
    assert (found["attention"], found["linear"], found["norm"], found["add"]) == (2, 8, 4, 4)


def test_checkpoints_and_autocast_change_nothing() -> None:
    from torch.utils.checkpoint import checkpoint

    module = small()
    plain = architecture_graph(module, torch.zeros(1, 4))

    class Wrapped(nn.Module):  # type: ignore[misc]
        def __init__(self, way: str) -> None:
            super().__init__()
            self.module, self.way = module, way

        def forward(self, x: Any) -> Any:
            if self.way == "autocast":
                with torch.autocast(x.device.type, dtype=torch.bfloat16):
                    return self.module(x)
            return checkpoint(self.module, x, use_reentrant=self.way == "reentrant")

    for way in ("autocast", "reentrant", "not reentrant"):
        assert nx.utils.graphs_equal(plain, architecture_graph(Wrapped(way), torch.zeros(1, 4)))
    with torch.autocast("cpu"):
        assert nx.utils.graphs_equal(plain, architecture_graph(module, torch.zeros(1, 4)))


def test_inference_mode_changes_nothing() -> None:
    class Inner(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.LayerNorm(6)
            self.rnn, self.attention = nn.GRU(6, 4), nn.MultiheadAttention(4, 2)

        def forward(self, x: Any) -> Any:
            x = self.norm(self.conv(x))[0]
            x = self.rnn(x)[0]
            return self.attention(x, x, x, need_weights=False)[0]

    module = Inner()
    plain = architecture_graph(module, torch.zeros(1, 3, 8, 8))
    with torch.inference_mode():
        assert nx.utils.graphs_equal(plain, architecture_graph(module, torch.zeros(1, 3, 8, 8)))
    module.forward = torch.inference_mode(module.forward)
    assert nx.utils.graphs_equal(plain, architecture_graph(module, torch.zeros(1, 3, 8, 8)))
    assert kinds(plain) == [
        *("input", "conv", "norm", "recurrent", "linear", "attention", "linear", "output")
    ]


def test_bfloat16_weights() -> None:
    graph = architecture_graph(small().bfloat16(), torch.zeros(1, 4, dtype=torch.bfloat16))
    assert nx.utils.graphs_equal(graph, architecture_graph(small(), torch.zeros(1, 4)))


def test_complex_numbers_and_fourier_transforms() -> None:
    def mix(x: Any) -> Any:
        spectrum = torch.fft.rfft2(x) * torch.ones(1, dtype=torch.complex64)
        return torch.fft.irfft2(spectrum, s=x.shape[-2:])

    graph = architecture_graph(Does(mix), torch.zeros(2, 8, 8))
    assert kinds(graph) == ["input", "_fft_r2c", "scale", "_fft_c2r", "output"]


def test_lazy_modules_are_refused() -> None:
    module = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    with pytest.raises(DataError, match=r"'0\.weight' is not initialised yet; run the module once"):
        architecture_graph(module, torch.zeros(1, 4))
    module(torch.zeros(1, 4))
    assert kinds(architecture_graph(module, torch.zeros(1, 4)))[1] == "linear"


def test_tensors_that_are_not_dense_are_refused() -> None:
    module = nn.Linear(3, 3)
    module.register_buffer("mask", torch.eye(3).to_sparse())
    with pytest.raises(DataError, match="'mask' is a sparse, nested or quantised tensor"):
        architecture_graph(module, torch.zeros(1, 3))
    with pytest.raises(DataError, match="example_input: holds a sparse"):
        architecture_graph(nn.Linear(3, 3), torch.eye(3).to_sparse())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_modules_are_refused() -> None:
    quantised = torch.ao.quantization.quantize_dynamic(small(), {nn.Linear})
    with pytest.raises(DataError, match="Sequential: its forward raised"):
        architecture_graph(quantised, torch.zeros(1, 4))


def test_hooks_run() -> None:
    module = small()
    seen: list[str] = []
    module[0].register_forward_pre_hook(lambda part, args: (torch.tanh(args[0]),))
    module[2].register_forward_hook(lambda part, args, out: seen.append(str(out.device)))
    assert kinds(architecture_graph(module, torch.zeros(1, 4))) == [
        *("input", "activation", "linear", "activation", "linear", "output")
    ]
    assert len(seen) == 1


class Remembers(nn.Module):  # type: ignore[misc]
    """Keeps what it has computed, and raises where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.cache: dict[str, Any] = {}
        self.calls: list[int] = []
        self.fails = False

    def forward(self, x: Any) -> Any:
        self.steps += 1
        self.last = self.cache["last"] = self.layer(x)
        self.calls.append(1)
        self.layer.eval()
        if self.fails:
            raise ValueError("told to")
        return self.last


@pytest.mark.parametrize("fails", [False, True])
def test_a_module_that_remembers_is_put_back(fails: bool) -> None:
    module = Remembers()
    module.fails = fails
    module.layer[1].eval()
    weights = dict(module.named_parameters())
    random = torch.get_rng_state()
    if fails:
        with pytest.raises(DataError, match="ValueError: told to; the example input must be"):
            architecture_graph(module, torch.zeros(2, 4))
    else:
        assert kinds(architecture_graph(module, torch.zeros(2, 4)))[1:3] == ["linear", "norm"]
    assert not hasattr(module, "last")
    assert (module.cache, module.calls, int(module.steps)) == ({}, [], 0)
    assert [part.training for part in module.modules()] == [True, True, True, False, True]
    assert all(weight is weights[name] for name, weight in module.named_parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_twice_the_same_data_is_no_weight() -> None:
    graph = architecture_graph(Does(lambda x: (x * x) @ (x + x).T), torch.zeros(3, 4))
    assert kinds(graph) == ["input", "mul", "add", "matmul", "output"]
