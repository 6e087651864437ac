"""Operator graphs of ONNX models: built by hand with known answers, and exported from torch."""

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from recsys_ms.core.errors import DataError, MissingExtraError

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed (extra embed)")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from recsys_ms.architectures.onnx_graph import architecture_graph_from_onnx  # noqa: E402

#: What both ways of reading a model must agree on.
COMPARED = ("conv", "linear", "norm", "activation", "pool", "attention", "add", "mul", "concat")


def weight(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def value(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(nodes: list[Any], weights: list[Any], *shape: int | str, out: str = "y") -> Any:
    graph = helper.make_graph(nodes, "g", [value("x", *shape)], [value(out)], weights)
    graph.output[0].type.tensor_type.ClearField("shape")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(kind: str, inputs: str, outputs: str = "y", **options: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **options)


def kinds(graph: "nx.DiGraph[int]") -> list[str]:
    return [graph.nodes[n]["op"] for n in sorted(graph)]


def of_kind(graph: "nx.DiGraph[int]", kind: str) -> dict[str, Any]:
    return next(data for _, data in graph.nodes(data=True) if data["op"] == kind)


def test_a_residual_with_a_shared_weight() -> None:
    nodes = [
        node("Conv", "x w", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b w", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Add", "c x", "y"),
    ]
    graph = architecture_graph_from_onnx(model(nodes, [weight("w", 4, 4, 3, 3)], 2, 4, 8, 8))
    assert kinds(graph) == ["input", "conv", "activation", "conv", "add", "output"]
    assert set(graph.edges) == {(0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (4, 5)}
    conv = of_kind(graph, "conv")
    assert (conv["kernel"], conv["stride"], conv["groups"], conv["ratio"]) == ("3x3", 1, "dense", 0)
    assert (conv["shape"], conv["macs"]) == ((2, 4, 8, 8), 2 * 4 * 8 * 8 * 4 * 9)


def test_branches_of_all_groups() -> None:
    nodes = [
        node("Conv", "x wide", "a", group=4, strides=[2, 2], dilations=[2, 1]),
        node("ConvTranspose", "x up", "b", strides=[2, 2]),
        node("GlobalAveragePool", "a", "c"),
        node("MaxPool", "b", "d", kernel_shape=[2, 2]),
        node("GlobalMaxPool", "d", "e"),
        node("Concat", "c e", "f", axis=1),
        node("Clip", "f low high", "y"),
    ]
    weights = [weight("wide", 8, 1, 3, 3), weight("up", 4, 2, 2, 2), weight("low"), weight("high")]
    graph = architecture_graph_from_onnx(model(nodes, weights, 1, 4, 9, 9))
    assert kinds(graph) == [
        *("input", "conv", "conv", "pool", "pool", "pool", "concat", "activation", "output")
    ]
    wide, up = (data for _, data in graph.nodes(data=True) if data["op"] == "conv")
    assert (wide["groups"], wide["stride"], wide["dilation"], wide["ratio"]) == (
        *("depthwise", 2, 2, 1.0),
    )
    assert (up["transposed"], up["ratio"], up["macs"]) == (True, -1.0, 4 * 81 * 2 * 4)
    pools = [d for _, d in graph.nodes(data=True) if d["op"] == "pool"]
    assert [(d["pool"], d["reach"]) for d in pools] == [
        *(("average", "global"), ("max", "local"), ("max", "global"))
    ]


@pytest.mark.parametrize("options", [{}, {"transB": 1}])
def test_linear_layers(options: dict[str, int]) -> None:
    shape = (12, 6) if options else (6, 12)
    nodes = [
        node("Gemm", "x w b", "a", **options),
        node("MatMul", "a v", "c"),
        node("Add", "b2 c", "d"),
        node("Identity", "d", "e"),
        node("MatMul", "e u", "y"),
    ]
    weights = [weight("w", *shape), weight("b", 12), weight("v", 12, 3), weight("b2", 3)]
    graph = architecture_graph_from_onnx(model(nodes, [*weights, weight("u", 3, 3)], 2, 6))
    assert kinds(graph) == ["input", "linear", "linear", "linear", "output"]
    found = [(d["ratio"], d["macs"]) for _, d in graph.nodes(data=True) if d["op"] == "linear"]
    assert found == [(1.0, 2 * 12 * 6), (-2.0, 2 * 3 * 12), (0.0, 2 * 3 * 3)]


def test_attention_as_exporters_write_it() -> None:
    nodes = [
        node("MatMul", "x wq", "q0"),
        node("MatMul", "x wk", "k0"),
        node("MatMul", "x wv", "v0"),
        *(
            one
            for name in "qkv"
            for one in (
                node("Reshape", f"{name}0 heads", f"{name}1"),
                node("Transpose", f"{name}1", f"{name}2", perm=[0, 2, 1, 3]),
            )
        ),
        node("Transpose", "k2", "k3", perm=[0, 1, 3, 2]),
        node("Sqrt", "scale", "root"),
        node("Mul", "q2 root", "q3"),
        node("Mul", "k3 root", "k4"),
        node("MatMul", "q3 k4", "s"),
        node("Add", "s mask", "t"),
        node("Softmax", "t", "p", axis=-1),
        node("MatMul", "p v2", "y"),
    ]
    weights = [weight(name, 8, 8) for name in ("wq", "wk", "wv")]
    weights += [weight("scale"), weight("mask", 1, 1, 5, 5)]
    weights.append(numpy_helper.from_array(np.array([0, 0, 2, 4]), "heads"))
    graph = architecture_graph_from_onnx(model(nodes, weights, 3, 5, 8))
    assert kinds(graph) == ["input", "linear", "linear", "linear", "attention", "output"]
    attention = of_kind(graph, "attention")
    assert (attention["heads"], attention["macs"]) == (2, 2 * 3 * 2 * 5 * 5 * 4)


def test_norms_and_activations_as_exporters_write_them() -> None:
    nodes = [
        node("ReduceMean", "x", "m", axes=[-1]),
        node("Sub", "x m", "d"),
        node("Pow", "d two", "e"),
        node("ReduceMean", "e", "f", axes=[-1]),
        node("Add", "f eps", "g"),
        node("Sqrt", "g", "h"),
        node("Div", "d h", "i"),
        node("Mul", "i w", "j"),
        node("Add", "j b", "k"),
        # GELU
        node("Div", "k two", "l"),
        node("Erf", "l", "n"),
        node("Add", "n two", "o"),
        node("Mul", "k o", "p"),
        node("Mul", "p two", "q"),
        # SiLU
        node("Sigmoid", "q", "r"),
        node("Mul", "q r", "y"),
    ]
    weights = [weight("two"), weight("eps", 1), weight("w", 6), weight("b", 6)]
    graph = architecture_graph_from_onnx(model(nodes, weights, 2, 6))
    assert [(d["op"], d.get(d["op"])) for _, d in graph.nodes(data=True)] == [
        ("input", None),
        ("norm", "layer"),
        ("activation", "gelu"),
        ("activation", "silu"),
        ("output", None),
    ]


def test_tables_are_embeddings_and_sizes_are_no_data() -> None:
    indices = helper.make_tensor_value_info("x", TensorProto.INT64, [2, 5])
    nodes = [
        node("Gather", "table x", "a"),
        node("Shape", "a", "s"),
        node("ConstantOfShape", "s", "zeros"),
        node("Add", "a zeros", "b"),
        node("Gather", "b first", "y", axis=1),
    ]
    weights = [weight("table", 9, 4), numpy_helper.from_array(np.array(0), "first")]
    graph = helper.make_graph(nodes, "g", [indices], [value("y")], weights)
    read = architecture_graph_from_onnx(helper.make_model(graph))
    assert kinds(read) == ["input", "embedding", "shift", "output"]


def test_large_constants_are_not_worked_out() -> None:
    size = numpy_helper.from_array(np.array([2, 6000]), "size")
    nodes = [node("ConstantOfShape", "size", "zeros"), node("Add", "x zeros", "y")]
    graph = architecture_graph_from_onnx(model(nodes, [size], 2, 6000))
    assert kinds(graph) == ["input", "shift", "output"]


def test_recurrent_layers() -> None:
    nodes = [node("LSTM", "x w r", "y h", hidden_size=8, direction="bidirectional")]
    weights = [weight("w", 2, 32, 4), weight("r", 2, 32, 8)]
    graph = architecture_graph_from_onnx(model(nodes, weights, 7, 3, 4))
    recurrent = of_kind(graph, "recurrent")
    assert (recurrent["cell"], recurrent["directions"], recurrent["ratio"]) == ("lstm", 2, 2.0)
    assert recurrent["macs"] == 7 * 3 * 2 * (32 * 4 + 32 * 8)


def test_a_batch_of_any_size_is_one_example_and_what_is_unknown_costs_nothing() -> None:
    nodes = [node("Conv", "x w", "y")]
    weights = [weight("w", 4, 3, 1, 1)]
    graph = architecture_graph_from_onnx(model(nodes, weights, "batch", 3, 5, 5))
    assert of_kind(graph, "conv")["shape"] == (1, 4, 5, 5)
    graph = architecture_graph_from_onnx(model(nodes, weights, 1, 3, "height", "width"))
    conv = of_kind(graph, "conv")
    assert (conv["shape"], conv["macs"], conv["kernel"]) == ((), 0, "1x1")


def test_local_functions_are_written_out() -> None:
    body = [node("Relu", "a", "b"), node("Relu", "b", "c")]
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    twice = helper.make_function("own", "Twice", ["a"], ["c"], body, opset[:1])
    graph = helper.make_graph([node("Twice", "x", "y")], "g", [value("x", 2)], [value("y", 2)])
    graph.node[0].domain = "own"
    made = helper.make_model(graph, functions=[twice], opset_imports=opset, ir_version=8)
    assert kinds(architecture_graph_from_onnx(made)) == [
        *("input", "activation", "activation", "output")
    ]


def test_control_flow_of_data_is_refused_and_that_of_constants_is_not() -> None:
    def branch(name: str, given: str) -> Any:
        return helper.make_graph([node("Relu", given, name)], name, [], [value(name, 2)])

    def choosing(given: str) -> Any:
        choice = node(
            "If", "choice", "chosen", then_branch=branch("t", given), else_branch=branch("e", given)
        )
        return model(
            [choice, node("Add", "chosen x", "y")],
            [numpy_helper.from_array(np.array(True), "choice"), weight("w", 2)],
            2,
        )

    with pytest.raises(DataError, match=r"goes through If 'chosen'.*with fixed shapes"):
        architecture_graph_from_onnx(choosing("x"))
    assert kinds(architecture_graph_from_onnx(choosing("w"))) == ["input", "shift", "output"]


def test_external_weights_may_be_absent(tmp_path: Path) -> None:
    given = model([node("Conv", "x w", "y")], [weight("w", 64, 3, 7, 7)], 1, 3, 9, 9)
    before = given.SerializeToString()
    plain = architecture_graph_from_onnx(given)
    assert given.SerializeToString() == before
    path = tmp_path / "model.onnx"
    onnx.save(given, path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()
    assert nx.utils.graphs_equal(plain, architecture_graph_from_onnx(path))
    assert nx.utils.graphs_equal(plain, architecture_graph_from_onnx(str(path)))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such file"),
        (b"", "it has no graph"),
        (b"PK\x03\x04 certainly not a protocol buffer" * 9, "not a whole ONNX model"),
        (b"half", "not a whole ONNX model"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes | None, match: str) -> None:
    path = tmp_path / "model.onnx"
    if content == b"half":
        whole = model([node("Conv", "x w", "y")], [weight("w", 4, 3, 1, 1)], 1, 3, 5, 5)
        content = whole.SerializeToString()[: whole.ByteSize() // 2]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        architecture_graph_from_onnx(path)
    assert str(path) in str(caught.value)


def test_things_that_are_no_models() -> None:
    with pytest.raises(DataError, match=r"got a int, expected the path .* or an onnx.ModelProto"):
        architecture_graph_from_onnx(3)
    with pytest.raises(DataError, match="no output is computed from an input"):
        architecture_graph_from_onnx(model([node("Relu", "w", "y")], [weight("w", 2)], 2))


def test_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"onnx is needed.*embed"):
        architecture_graph_from_onnx("model.onnx")


@pytest.fixture
def exporter(request: pytest.FixtureRequest) -> dict[str, Any]:
    torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")
    if request.param == "dynamo":
        pytest.importorskip("onnxscript", reason="torch.onnx needs onnxscript (extra test)")
        return {"dynamo": True, "optimize": False, "verbose": False}
    # Otherwise batch norms are merged into the convolutions before them.
    mode = torch.onnx.TrainingMode.PRESERVE
    return {"dynamo": False, "do_constant_folding": False, "training": mode}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("exporter", "name"),
    [
        ("dynamo", "resnet18"),
        ("dynamo", "vit_tiny_patch16_224"),
        ("dynamo", "convnext_atto"),
        ("legacy", "resnet18"),
        ("legacy", "vit_tiny_patch16_224"),
        # Depthwise convolutions, swish, gates; norms of channels; of groups; windows.
        ("legacy", "efficientnet_b0"),
        ("legacy", "convnext_atto"),
        ("legacy", "poolformer_s12"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("dynamo", "efficientnet_b0"),
                ("dynamo", "poolformer_s12"),
                *product(
                    ("dynamo", "legacy"),
                    ("swin_tiny_patch4_window7_224", "sequencer2d_s", "xcit_nano_12_p16_224"),
                ),
            )
        ),
    ],
    indirect=["exporter"],
)
def test_exported_models_are_read_as_their_modules(
    name: str, exporter: dict[str, Any], tmp_path: Path
) -> None:
    torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")
    timm: Any = pytest.importorskip("timm", reason="timm is not installed (extra embed)")
    from recsys_ms.architectures.graph import architecture_graph

    module = timm.create_model(name).eval()
    x = torch.zeros(1, *module.pretrained_cfg["input_size"])
    path = tmp_path / "model.onnx"
    torch.onnx.export(module, (x,), path, **exporter)
    ours, theirs = architecture_graph(module, x), architecture_graph_from_onnx(path)
    found, expected = Counter(kinds(theirs)), Counter(kinds(ours))
    # A roll of windows is two slices, put together the other way round.
    expected["concat"] += 2 * expected["roll"]
    assert {kind: found[kind] for kind in COMPARED} == {kind: expected[kind] for kind in COMPARED}
    macs = [sum(data["macs"] for _, data in graph.nodes(data=True)) for graph in (ours, theirs)]
    assert macs[0] == macs[1]
    layers = [
        Counter(
            (d["op"], d.get("kernel"), d.get("groups"), d.get("ratio"), d.get("heads"))
            for _, d in graph.nodes(data=True)
            if d["op"] in {"conv", "linear", "attention", "recurrent"}
        )
        for graph in (ours, theirs)
    ]
    assert layers[0] == layers[1]
