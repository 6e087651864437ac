"""The operator graphs of more than forty models, against those of ``torch.export``.

The graph that ``torch.export`` makes is read by code of its own: none of it calls the tracer, and
of the package only the tables of operators and the folding of biases and written-out attention are
shared (test_graph.py tests those on modules whose graphs are known).
"""

import warnings
from collections.abc import Callable
from math import log2, prod
from typing import Any

import pytest

from recsys_ms.architectures.folding import Node, canonical_graph
from recsys_ms.architectures.operators import ALLOCATING, ARRANGING, OVERWRITING, kind_of

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")

from recsys_ms.architectures.graph import architecture_graph  # noqa: E402

nn = torch.nn
pytestmark = [
    # Raised inside torch.export and the libraries whose models are exported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

#: What a view that is written into becomes where nothing is written in place.
SCATTERS = {"slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter"}
#: Operators that stay whole; all else that torch can take apart is taken apart. (Resizing stays one
#: in eager mode too, and is arithmetic on indices for torch.export.)
WHOLE = (
    "scaled_dot_product_attention",
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
    "upsample",
    "rms_norm",
)
NORMS = {
    "_native_batch_norm_legit_no_training": "batch",
    "native_batch_norm": "batch",
    "native_layer_norm": "layer",
    "native_group_norm": "group",
    "_fused_rms_norm": "rms",
    "rms_norm": "rms",
}
WITH_WEIGHTS = {"add": "shift", "mul": "scale", "matmul": "linear"}


def decompositions() -> dict[Any, Any]:
    """Those of operators that never reach a device as one, but for those that stay whole."""
    return {
        operator: how
        for operator, how in torch.export.default_decompositions().items()
        if isinstance(operator, torch._ops.OpOverload)
        and torch._C._dispatch_has_kernel_for_dispatch_key(
            operator.name(), "CompositeImplicitAutograd"
        )
        and not any(name in operator.name() for name in WHOLE)
    }


def exported_graph(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Canonical form of what ``torch.export`` says of a module."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module.eval(), args, kwargs)
        program = program.run_decompositions(decompositions())
    inputs = set(program.graph_signature.user_inputs)
    nodes: dict[int, Node] = {}
    #: Numbers of the operators whose data a node of torch.fx holds; of weights there are none.
    holds: dict[Any, tuple[int, ...]] = {}
    for node in program.graph.nodes:
        name = plain(node)
        # What is overwritten is gone.
        taken = node.args[1:2] if name in OVERWRITING else node.all_input_nodes
        taken = [other for other in taken if name not in ALLOCATING and other in holds]
        sources = tuple(dict.fromkeys(s for other in taken for s in holds[other]))
        if node.op == "output":
            wanted = [n for n in node.all_input_nodes if n.name in results_of(program)]
            return canonical_graph(nodes, [s for other in wanted for s in holds[other]])
        if node.op == "placeholder" and node.name in inputs:
            if isinstance(node.meta.get("val"), torch.Tensor):
                nodes[len(nodes)] = Node("input", "input", sizes(node))
                sources = (len(nodes) - 1,)
        elif sources and "val" in node.meta and name not in ARRANGING | SCATTERS | {"getitem"}:
            tensors = [other for other in node.all_input_nodes if "val" in other.meta]
            weights = [other for other in tensors if not holds[other]]
            op = kind_of(name)
            if op in WITH_WEIGHTS and n_data(op, node, weights) < 2:
                op = WITH_WEIGHTS[op]
            traits, detail = traits_and_detail(op, name, node, weights)
            nodes[len(nodes)] = Node(op, name, sizes(node), sources, 0, traits, detail)
            sources = (len(nodes) - 1,)
        holds[node] = sources
    raise AssertionError("a graph of torch.fx ends with its output")


def n_data(op: str, node: Any, weights: list[Any]) -> int:
    """Arguments that hold data, the same one twice counted twice; of a product its two factors."""
    tensors = [argument for argument in node.args if isinstance(argument, torch.fx.Node)]
    factors = tensors[-2:] if op == "matmul" else tensors
    return sum(argument not in weights for argument in factors)


def results_of(program: Any) -> set[str]:
    return set(program.graph_signature.user_outputs)


def plain(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = schema.name.split("::")[-1]
    return str(name[:-1] if name.endswith("_") and not name.endswith("__") else name)


def first_of(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) else value


def sizes(node: Any) -> tuple[int, ...]:
    return tuple(first_of(node.meta["val"]).shape)


def quarter(after: int, before: int) -> float:
    return round(4 * log2(after / before)) / 4


def traits_and_detail(
    op: str, name: str, node: Any, weights: list[Any]
) -> tuple[dict[str, Any], str]:
    """Traits of a node and what folding needs to know, read from the arguments by their names."""
    names = [argument.name for argument in node.target._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    if op == "conv":
        return of_convolution(given), ""
    if op == "linear" and name == "bmm":
        one, other = sizes(given["self"]), sizes(given["mat2"])
        is_first = given["self"] in weights
        return {"ratio": quarter(one[1], one[2]) if is_first else quarter(other[2], other[1])}, ""
    if op == "linear":
        n_in, n_out = sizes(given["mat2"])
        return {"ratio": quarter(n_out, n_in)}, "biased" if name == "addmm" else ""
    if op in {"shift", "scale"}:
        sizes_of_weights = [sizes(other) for other in weights]
        if all(set(size) <= {1} for size in sizes_of_weights):
            return {}, "number"
        long = tuple(n for n in sizes_of_weights[0] if n > 1)
        is_last = sizes_of_weights[0][-1:] == long == sizes(node)[-1:]
        return {}, "vector" if is_last else "channels" if len(long) == 1 else ""
    if op == "softmax":
        return {}, "rows" if given["dim"] % len(sizes(node)) == len(sizes(node)) - 1 else ""
    if op == "norm":
        return {"norm": NORMS[name]}, ""
    if op == "activation":
        return {"activation": name}, ""
    if op == "attention":
        query = sizes(given["query"])
        return {"heads": query[1] if len(query) == 4 else 1}, ""
    if op == "recurrent":
        return of_recurrent(name, given, node), ""
    return of_pool(name, given, node) if op == "pool" else {}, ""


def of_pool(name: str, given: dict[str, Any], node: Any) -> dict[str, Any]:
    before, after = sizes(given.get("self", given.get("input"))), sizes(node)
    everywhere = len(after) < len(before) or set(after[2:]) <= {1}
    return {
        "pool": "max" if "max" in name else "average",
        "reach": "global" if everywhere else "local",
    }


def of_recurrent(name: str, given: dict[str, Any], node: Any) -> dict[str, Any]:
    return {
        "cell": name,
        "layers": given["num_layers"],
        "directions": 2 if given["bidirectional"] else 1,
        "ratio": quarter(sizes(node)[-1], sizes(given["input"])[-1]),
    }


def of_convolution(given: dict[str, Any]) -> dict[str, Any]:
    n_in, weight = sizes(given["input"])[1], sizes(given["weight"])
    n_out = weight[1] * given["groups"] if given["transposed"] else weight[0]
    dense = "depthwise" if given["groups"] == n_in else "grouped"
    label = {
        "kernel": "x".join(str(size) for size in weight[2:]),
        "stride": max(given["stride"]),
        "dilation": max(given["dilation"]),
        "groups": "dense" if given["groups"] == 1 else dense,
        "ratio": quarter(n_out, n_in),
    }
    return label | ({"transposed": True} if given["transposed"] else {})


def in_order(graph: Any) -> list[tuple[Any, ...]]:
    """Every node's label and where its edges come from, in the order of running.

    Equal lists are an isomorphism written down: the n-th operator stands for the n-th.
    """
    place = {node: n for n, node in enumerate(sorted(graph))}
    listed = []
    for node in sorted(graph):
        label = {k: v for k, v in graph.nodes[node].items() if k not in {"name", "macs"}}
        if label["op"] == "linear":
            # Which axes become the two of a product depends on how the input lies in memory.
            label["shape"] = prod(label["shape"])
        sources = sorted(place[source] for source in graph.predecessors(node))
        listed.append((sorted(label.items()), sources))
    return listed


class Own(nn.Module):  # type: ignore[misc]
    """Writes through views, a loop over shared weights, weights' own arithmetic, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)
        self.rnn = nn.GRU(12, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.scale = nn.Parameter(torch.ones(12))

    def forward(self, x: Any, *, by: Any) -> Any:
        for _ in range(2):
            x = x + torch.relu_(self.layer(x)) * torch.exp(self.scale)
        x, _ = self.rnn(x)
        whole = torch.zeros_like(x)
        whole[:, 1:] = x[:, 1:] * x[:, :-1]
        halves = whole.chunk(2, dim=-1)
        halves[0].mul_(by)
        scores = torch.softmax(whole @ x.transpose(1, 2) / 3.0, dim=-1)
        return {"main": scores @ x, "other": (whole, None, 3)}


def from_timm(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    timm: Any = pytest.importorskip("timm", reason="timm is not installed (extra embed)")
    with torch.device("meta"):
        model = timm.create_model(name)
    size = model.pretrained_cfg["input_size"]
    return model, (torch.empty(1, *size, device="meta"),), {}


def from_torchvision(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    vision: Any = pytest.importorskip("torchvision", reason="torchvision is not installed")
    side = 299 if name == "inception_v3" else 224
    with torch.device("meta"):
        if name == "resnet18_fpn":
            build = vision.models.detection.backbone_utils.resnet_fpn_backbone
            model = build(backbone_name="resnet18", weights=None)
        else:
            given = {"weights_backbone": None} if name in SEGMENTATION else {}
            model = vision.models.get_model(name, weights=None, **given)
    return model, (torch.empty(1, 3, side, side, device="meta"),), {}


SEGMENTATION = {"lraspp_mobilenet_v3_large", "deeplabv3_resnet50"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2}
LAYERS = SMALL | {"num_attention_heads": 4, "intermediate_size": 64}
WORDS = {"vocab_size": 50}
#: Class of the model, of its configuration, what differs from the configuration's defaults.
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", LAYERS | WORDS),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LAYERS | WORDS),
    "gpt2": ("GPT2Model", "GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4} | WORDS),
    "vit": ("ViTForImageClassification", "ViTConfig", LAYERS | {"image_size": 64}),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", LAYERS | {"image_size": 64, "patch_size": 16}),
    "mamba": ("MambaModel", "MambaConfig", SMALL | WORDS | {"state_size": 4}),
}


def from_transformers(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    library: Any = pytest.importorskip("transformers", reason="transformers is not installed")
    model, config, given = TRANSFORMERS[name]
    built = getattr(library, model)(getattr(library, config)(**given, use_cache=False))
    if name in {"vit", "clip"}:
        return built, (), {"pixel_values": torch.zeros(1, 3, 64, 64)}
    return built, (), {"input_ids": torch.zeros(1, 5, dtype=torch.long)}


def own(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    return Own(), (), {"x": torch.zeros(2, 5, 12), "by": torch.zeros(2, 5, 1)}


Builder = Callable[[str], tuple[Any, tuple[Any, ...], dict[str, Any]]]
#: Seconds each; the others run with -m slow.
FAST: list[tuple[Builder, str]] = [
    (own, "own"),
    (from_timm, "resnet18"),
    (from_timm, "convnext_atto"),
    (from_timm, "vit_tiny_patch16_224"),
    (from_torchvision, "lraspp_mobilenet_v3_large"),
    (from_transformers, "bert"),
]
SLOW: list[tuple[Builder, str]] = [
    *(
        (from_timm, name)
        for name in (
            "tf_efficientnetv2_b0 mobilenetv3_small_050 mobilenetv4_conv_small ghostnet_050 "
            "hrnet_w18_small dla34 skresnet18 resnest14d dm_nfnet_f0 regnetx_002 hgnetv2_b0 "
            "repvit_m0_9 starnet_s1 fastvit_t8 mambaout_femto focalnet_tiny_srf pnasnet5large "
            "halonet26t lambda_resnet26t efficientvit_b0 levit_128s mobilevit_xxs gcvit_xxtiny "
            "maxvit_pico_rw_256 swinv2_tiny_window8_256 twins_svt_small xcit_nano_12_p16_224 "
            "cait_xxs24_224 eva02_tiny_patch14_224 beit_base_patch16_224 crossvit_9_240 "
            "mixer_s32_224 gmlp_s16_224 resmlp_12_224 sequencer2d_s convit_tiny tnt_s_patch16_224"
        ).split()
    ),
    *(
        (from_torchvision, name)
        for name in (
            "shufflenet_v2_x0_5 inception_v3 densenet121 swin_t deeplabv3_resnet50 resnet18_fpn"
        ).split()
    ),
    *((from_transformers, name) for name in ("gpt2", "llama", "vit", "clip", "mamba")),
]


@pytest.mark.parametrize(
    ("build", "name"),
    [
        *(pytest.param(*case, id=case[1]) for case in FAST),
        *(pytest.param(*case, id=case[1], marks=pytest.mark.slow) for case in SLOW),
    ],
)
def test_the_graph_is_that_of_torch_export(build: Builder, name: str) -> None:
    model, args, kwargs = build(name)
    ours = architecture_graph(model, kwargs or args)
    theirs = exported_graph(model, args, kwargs)
    assert in_order(ours) == in_order(theirs)
