"""Operator graphs of modules whose graphs are known, and of libraries' models."""

from collections import Counter
from typing import Any

import networkx as nx
import pytest

from recsys_ms.core.errors import DataError, MissingExtraError

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")

from recsys_ms.architectures.graph import architecture_graph  # noqa: E402

nn = torch.nn


def kinds(graph: "nx.DiGraph[int]") -> list[str]:
    return [graph.nodes[node]["op"] for node in sorted(graph)]


def edges(graph: "nx.DiGraph[int]") -> set[tuple[str, str]]:
    """Edges by kind and number among the nodes of the kind: ``add1`` is the second addition."""
    seen: Counter[str] = Counter()
    names = {}
    for node in sorted(graph):
        kind = graph.nodes[node]["op"]
        names[node] = f"{kind}{seen[kind] or ''}"
        seen[kind] += 1
    return {(names[one], names[other]) for one, other in graph.edges}


def image(channels: int = 3) -> Any:
    return torch.zeros(2, channels, 8, 8)


def test_a_chain() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6, 4),
    )
    graph = architecture_graph(module, image())
    assert kinds(graph) == ["input", "conv", "norm", "activation", "pool", "linear", "output"]
    assert nx.is_directed_acyclic_graph(graph)
    found = {data["op"]: data for _, data in graph.nodes(data=True)}
    conv = found["conv"]
    assert (conv["kernel"], conv["stride"], conv["groups"], conv["ratio"]) == ("3x3", 2, "dense", 1)
    assert conv["shape"] == (2, 6, 4, 4)
    assert found["norm"]["norm"] == "batch"
    assert found["activation"]["activation"] == "relu"
    assert (found["pool"]["pool"], found["pool"]["reach"]) == ("average", "global")
    assert found["linear"]["ratio"] == -0.5


class Residual(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Any) -> Any:
        return torch.relu(self.second(torch.relu(self.first(x))) + x)


def test_a_residual() -> None:
    assert edges(architecture_graph(Residual(), image())) == {
        ("input", "conv"),
        ("conv", "activation"),
        ("activation", "conv1"),
        ("conv1", "add"),
        ("input", "add"),
        ("add", "activation1"),
        ("activation1", "output"),
    }


class Branch(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(4, 2, 1)
        self.wide = nn.Conv2d(4, 4, 3, padding=1, groups=4)

    def forward(self, x: Any) -> Any:
        return torch.cat([self.narrow(x), self.wide(x), x], dim=1)


def test_a_branch() -> None:
    graph = architecture_graph(Branch(), image(4))
    assert edges(graph) == {
        ("input", "conv"),
        ("input", "conv1"),
        ("conv", "concat"),
        ("conv1", "concat"),
        ("input", "concat"),
        ("concat", "output"),
    }
    groups = [data["groups"] for _, data in graph.nodes(data=True) if data["op"] == "conv"]
    assert groups == ["dense", "depthwise"]


class Shared(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5)
        self.tied.weight = self.layer.weight

    def forward(self, x: Any) -> Any:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return self.tied(x)


def test_a_loop_over_shared_weights_is_unrolled() -> None:
    graph = architecture_graph(Shared(), torch.zeros(2, 5))
    assert kinds(graph) == ["input", *["linear", "activation"] * 3, "linear", "output"]
    assert nx.dag_longest_path_length(graph) == 8


class InPlace(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        y = torch.sigmoid(x)
        halves = y.chunk(2, dim=1)
        # Written into a view: the whole has changed.
        halves[0].relu_()
        y.add_(x)
        return y * 2.0


def test_what_is_written_in_place_is_seen_through_every_view() -> None:
    assert edges(architecture_graph(InPlace(), image(4))) == {
        ("input", "activation"),
        ("activation", "activation1"),
        ("activation", "add"),
        ("activation1", "add"),
        ("input", "add"),
        ("add", "scale"),
        ("scale", "output"),
    }
    plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    inplace = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1))
    assert edges(architecture_graph(plain, image())) == edges(architecture_graph(inplace, image()))


class Many(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 9)
        self.table = nn.Parameter(torch.zeros(4))

    def forward(self, x: Any, *, scale: Any) -> Any:
        self.unused(x)
        # Computed from weights alone: a weight.
        bias = torch.exp(self.table) + 1.0
        y = self.layer(x * scale) + bias
        return {"main": y, "others": [torch.relu(y), (x, 3)]}


def test_several_inputs_and_outputs_and_what_is_left_out() -> None:
    graph = architecture_graph(Many(), {"x": torch.zeros(2, 4), "scale": torch.zeros(2, 1)})
    assert edges(graph) == {
        ("input", "mul"),
        ("input1", "mul"),
        ("mul", "linear"),
        ("linear", "shift"),
        ("shift", "activation"),
        ("shift", "output"),
        ("activation", "output"),
        ("input", "output"),
    }
    other = architecture_graph(Branch(), (image(4),))
    assert nx.utils.graphs_equal(other, architecture_graph(Branch(), [image(4)]))


class Attention(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, length, width))


def test_attention_is_one_operator() -> None:
    graph = architecture_graph(Attention(), torch.zeros(2, 5, 8))
    assert kinds(graph) == ["input", "linear", "attention", "linear", "output"]
    assert next(d for _, d in graph.nodes(data=True) if d["op"] == "attention")["heads"] == 2


def test_constants_of_the_code_may_live_anywhere() -> None:
    class Constant(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.ones(3, 1, 1)

        def forward(self, x: Any) -> Any:
            return (x - self.mean) * torch.arange(8.0)

    assert kinds(architecture_graph(Constant(), image())) == ["input", "shift", "scale", "output"]


def test_a_module_is_left_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.1))
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    given = image().requires_grad_()
    architecture_graph(module, given)
    assert [part.training for part in module] == [True, False, True]
    for name, tensor in module.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, before[name])
    # Weights that take no memory are as good.
    with torch.device("meta"):
        huge = nn.Linear(200_000, 200_000)
    assert kinds(architecture_graph(huge, torch.empty(1, 200_000))) == ["input", "linear", "output"]


class Broken(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        raise RuntimeError("out of luck")


class LooksAtValues(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


class Constantly(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return torch.zeros(3)


@pytest.mark.parametrize(
    ("module", "given", "match"),
    [
        (Broken(), image(), "RuntimeError: out of luck"),
        (LooksAtValues(), image(), "it looks at values"),
        (Constantly(), image(), "no output is computed"),
        (nn.Conv2d(4, 4, 1), image(), "example input must be one it takes"),
        (nn.Linear(8, 2), None, "holds no tensor"),
        (nn.Linear(8, 2), {}, "holds no tensor"),
        ("resnet18", image(), "expected a torch.nn.Module"),
    ],
)
def test_modules_that_cannot_be_traced(module: Any, given: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        architecture_graph(module, given)
    if isinstance(module, nn.Module):
        assert module.training


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match="embed"):
        architecture_graph(object(), None)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # Layers as the papers count them: 53 convolutions, and one head.
        ("resnet50", {"conv": 53, "norm": 53, "add": 16, "linear": 1, "pool": 2}),
        ("vit_tiny_patch16_224", {"attention": 12, "norm": 25, "linear": 49, "add": 24}),
        ("convnext_tiny", {"conv": 22, "linear": 37, "scale": 18, "add": 18}),
        ("efficientnet_b0", {"conv": 81, "mul": 16, "add": 9, "linear": 1}),
    ],
)
def test_models_of_timm(name: str, counts: dict[str, int]) -> None:
    timm: Any = pytest.importorskip("timm", reason="timm is not installed (extra embed)")
    with torch.device("meta"):
        model = timm.create_model(name)
    graph = architecture_graph(model, torch.empty(1, *model.pretrained_cfg["input_size"]))
    found = Counter(kinds(graph))
    assert {kind: found[kind] for kind in counts} == counts
    assert nx.is_weakly_connected(graph)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_model_of_transformers_from_its_configuration() -> None:
    transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
    )
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(config)
    graph = architecture_graph(model, {"input_ids": torch.zeros(1, 7, dtype=torch.long)})
    found = Counter(kinds(graph))
    # Of each layer: queries, keys, values, what attention gives, and two of the feed-forward part;
    # then the pooler and the head.
    assert found["attention"] == 2
    assert found["linear"] == 2 * 6 + 2
    assert {d.get("heads") for _, d in graph.nodes(data=True)} == {None, 4}


class ByHand(nn.Module):  # type: ignore[misc]
    """Attention written out, in the ways that libraries write it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.bias, self.heat = nn.Parameter(torch.zeros(2, 5, 5)), nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x: Any) -> Any:
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        if self.way == "one operator":
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        else:
            scores = (q * 0.5 if self.way != "scores" else q) @ k.transpose(-2, -1)
            scores = scores / 2.0 if self.way == "scores" else scores
            scores = scores * self.heat if self.way == "learned heat" else scores + self.bias
            scores = scores.softmax(dim=-2 if self.way == "columns" else -1)
            kept = [scores] if self.way == "scores are an output" else []
            y = scores @ v
            if kept:
                return y, kept
        return self.out(y.transpose(1, 2).reshape(n, length, width))


@pytest.mark.parametrize("way", ["queries", "scores"])
def test_attention_written_out_is_attention(way: str) -> None:
    x = torch.zeros(2, 5, 8)
    one, out = architecture_graph(ByHand("one operator"), x), architecture_graph(ByHand(way), x)
    assert kinds(out) == kinds(one) == ["input", "linear", "attention", "linear", "output"]
    assert edges(one) == edges(out)
    for graph in (one, out):
        node = next(data for _, data in graph.nodes(data=True) if data["op"] == "attention")
        assert (node["heads"], node["macs"]) == (2, 2 * 2 * 5 * 5 * 4 * 2)


@pytest.mark.parametrize("way", ["learned heat", "columns", "scores are an output"])
def test_what_is_not_surely_attention_stays_apart(way: str) -> None:
    found = Counter(kinds(architecture_graph(ByHand(way), torch.zeros(2, 5, 8))))
    assert (found["matmul"], found["softmax"], found["attention"]) == (2, 1, 0)


def test_data_added_to_the_scores_leads_into_attention() -> None:
    class Masked(nn.Module):  # type: ignore[misc]
        def forward(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
            scores = (q @ k.mT).masked_fill(mask.relu() > 0, float("-inf")) + mask
            return torch.softmax(scores, -1) @ v

    graph = architecture_graph(Masked(), (*[torch.zeros(2, 3, 4)] * 3, torch.zeros(3, 3)))
    assert {("input2", "attention"), ("input3", "attention")} <= edges(graph)
    assert {("input", "attention"), ("input1", "attention")} <= edges(graph)
    assert "matmul" not in kinds(graph)


def test_a_bias_is_part_of_its_layer_and_nothing_else_is() -> None:
    class Biased(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 6))
            self.bias = nn.Parameter(torch.zeros(6))
            self.places = nn.Parameter(torch.zeros(3, 6))

        def forward(self, x: Any) -> Any:
            y = x @ self.weight + self.bias
            # Positions are not a bias, nor a second vector, nor what is added to one of two uses.
            y = y + self.bias + self.places
            z = y @ self.weight.T
            return z + self.bias[:4], z

    graph = architecture_graph(Biased(), torch.zeros(2, 3, 4))
    assert kinds(graph) == ["input", "linear", "shift", "shift", "linear", "shift", "output"]
    # In a layout that torch computes as a product and a sum, a linear layer is one all the same.
    turned = nn.Sequential(nn.Linear(4, 6), nn.Flatten(0, 1))
    x = torch.zeros(2, 4, 3).transpose(1, 2)
    assert kinds(architecture_graph(turned, x)) == ["input", "linear", "output"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_weights_on_either_side_of_a_product(side: str) -> None:
    class Product(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 8, 4))

        def forward(self, x: Any) -> Any:
            return self.weight @ x if side == "left" else x.mT @ self.weight.mT

    graph = architecture_graph(Product(), torch.zeros(2, 4, 3))
    assert kinds(graph) == ["input", "linear", "output"]
    assert [d["ratio"] for _, d in graph.nodes(data=True) if "ratio" in d] == [1.0]


class Overwrites(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        y = torch.tanh(x)
        left, right = y.chunk(2, dim=1)
        # Through two views, one after the other: the whole holds both.
        left.mul_(x[:, :2])
        right.add_(x[:, 2:])
        whole = y * 1.0
        # All of it anew: nothing of before is left, in no view.
        y.copy_(torch.relu(x))
        return whole, left * 3.0


def test_two_writes_through_views_and_one_of_all() -> None:
    assert edges(architecture_graph(Overwrites(), image(4))) == {
        ("input", "activation"),
        ("activation", "mul"),
        ("input", "mul"),
        ("activation", "add"),
        ("mul", "add"),
        ("input", "add"),
        ("activation", "scale"),
        ("mul", "scale"),
        ("add", "scale"),
        ("input", "activation1"),
        ("activation1", "scale1"),
        ("scale", "output"),
        ("scale1", "output"),
    }
