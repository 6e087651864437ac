"""Cost and depth of graphs, against sums by hand and timm's own figures."""

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from recsys_ms.architectures.archi2vec import Archi2Vec
from recsys_ms.architectures.facts import architecture_card, graph_depth, graph_macs
from recsys_ms.architectures.graph import architecture_graph
from recsys_ms.architectures.timm_models import describe
from recsys_ms.core.errors import DataError

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")
nn = torch.nn

BENCHMARK = "benchmark-infer-amp-nchw-pt291-cu130-5090.csv"


def macs(module: Any, *shape: int) -> int:
    return graph_macs(architecture_graph(module, torch.empty(shape)))


class Attention(nn.Module):  # type: ignore[misc]
    def forward(self, q: Any, k: Any, v: Any) -> Any:
        return nn.functional.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize(
    ("module", "shape", "wanted"),
    [
        # Numbers out, times what each is a sum of.
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 10, 12), 2 * 8 * 10 * 12 * 3 * 9),
        (nn.Conv2d(8, 8, 3, groups=8), (1, 8, 5, 5), 8 * 9 * 9),
        (nn.Conv2d(8, 4, 2, stride=2, groups=2), (1, 8, 6, 6), 4 * 9 * 4 * 4),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (1, 4, 5, 5), 4 * 25 * 6 * 9),
        (nn.Conv1d(4, 6, 3), (1, 4, 9), 6 * 7 * 4 * 3),
        (nn.Linear(5, 7), (3, 5), 3 * 5 * 7),
        (nn.Linear(5, 7, bias=False), (2, 3, 5), 2 * 3 * 5 * 7),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), (1, 4, 8, 8), 0),
    ],
)
def test_macs_by_hand(module: Any, shape: tuple[int, ...], wanted: int) -> None:
    assert macs(module, *shape) == wanted


def test_macs_of_attention_and_products() -> None:
    q, k, v = (torch.empty(2, 3, n, d) for n, d in ((5, 4), (7, 4), (7, 6)))
    assert graph_macs(architecture_graph(Attention(), (q, k, v))) == 2 * 3 * 5 * 7 * (4 + 6)

    class Product(nn.Module):  # type: ignore[misc]
        def forward(self, a: Any, b: Any) -> Any:
            return a @ b

    given = (torch.empty(2, 5, 4), torch.empty(2, 4, 6))
    assert graph_macs(architecture_graph(Product(), given)) == 2 * 5 * 4 * 6


def test_depth_is_the_longest_way_through_layers() -> None:
    graph: nx.DiGraph[int] = nx.DiGraph()
    ops = ["input", "conv", "norm", "conv", "linear", "add", "output"]
    graph.add_nodes_from((at, {"op": op}) for at, op in enumerate(ops))
    # conv, norm, conv on one way; a linear layer on the other.
    graph.add_edges_from([(0, 1), (1, 2), (2, 3), (3, 5), (0, 4), (4, 5), (5, 6)])
    assert graph_depth(graph) == 2
    assert graph_depth(nx.DiGraph()) == 0


@pytest.mark.zoo
@pytest.mark.parametrize(
    ("name", "depth", "gmacs", "n_parameters"),
    # As their papers and timm's tables have them.
    [("resnet50", 50, 4.11, 25_557_032), ("vgg16", 16, 15.47, 138_357_544)],
)
def test_known_models(name: str, depth: int, gmacs: float, n_parameters: int) -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra embed)")
    found = describe(name).card
    assert found.n_layers == depth
    assert found.gmacs == pytest.approx(gmacs, rel=0.01)
    assert found.n_parameters == n_parameters


@pytest.mark.zoo
def test_a_card_of_ones_own_module() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(1))
    card = architecture_card("ours/tiny", module, torch.empty(1, 3, 8, 8))
    assert card.model_id == "ours/tiny"
    assert card.n_parameters == 3 * 8 * 9 + 8 + 8 * 8 * 9 + 8
    assert card.gmacs == pytest.approx((8 * 36 * 27 + 8 * 16 * 72) / 1e9)
    assert card.n_layers == 2
    assert card.embedding is not None
    assert len(card.embedding) == Archi2Vec.embedded().config.n_dims
    assert np.linalg.norm(card.embedding) == pytest.approx(1, abs=1e-5)
    assert card.cluster is not None
    with pytest.raises(DataError, match="forward raised"):
        architecture_card("ours/tiny", module, torch.empty(1, 4, 8, 8))


@pytest.mark.zoo
@pytest.mark.shared_data
def test_gmacs_agree_with_timms_table(shared_data: Path) -> None:
    """Of every 40th model in the table; of all by the cards that ship (test_embedded_timm)."""
    pytest.importorskip("timm", reason="timm is not installed (extra embed)")
    table = pd.read_csv(shared_data / "histories" / "raw" / "timm" / BENCHMARK, thousands=",")
    ratios = []
    for row in table.sort_values("model").iloc[::40].itertuples():
        found = describe(str(row.model)).card
        if found.input_size == row.infer_img_size and row.infer_gmacs > 0.2:
            ratios.append(found.gmacs / row.infer_gmacs)
    assert len(ratios) > 20
    assert np.mean(np.abs(np.array(ratios) - 1) < 0.05) >= 0.9
