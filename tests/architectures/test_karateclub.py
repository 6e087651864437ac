"""Our graph2vec beside karateclub's, on graphs of timm. CI: ``uv run --group reference pytest``."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_ms.architectures.archi2vec import Archi2Vec, Archi2VecConfig
from recsys_ms.architectures.graph import architecture_graph
from recsys_ms.architectures.subtrees import graph_words
from recsys_ms.core.errors import MissingExtraError, UsageError

#: Eight families that are far enough apart for two ways of embedding to agree on.
PATTERNS = (
    *("resnet[1235]?d*", "vit_*_patch16_224", "efficientnet_b[0-4]", "convnext_[antsb]*"),
    *("swin_*window7*", "mixer_*", "densenet*", "regnety_0*"),
)
N_EACH = 6

has_karateclub = importlib.util.find_spec("karateclub") is not None
needs_karateclub = pytest.mark.skipif(
    not has_karateclub, reason="karateclub is not installed (uv run --group reference)"
)


@pytest.fixture(scope="module")
def graphs() -> tuple[list[Any], np.ndarray]:
    timm: Any = pytest.importorskip("timm", reason="timm is not installed (extra embed)")
    torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")
    made, families = [], []
    for family, pattern in enumerate(PATTERNS):
        names = sorted(timm.list_models(pattern))[:N_EACH]
        assert len(names) >= 4, pattern
        for name in names:
            with torch.device("meta"):
                model = timm.create_model(name)
            image = torch.empty(1, *model.pretrained_cfg["input_size"])
            made.append(architecture_graph(model, image))
            families.append(family)
    return made, np.array(families)


def nearest(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")


def overlap(one: np.ndarray, other: np.ndarray, n: int = 10) -> float:
    pairs = zip(one[:, :n].tolist(), other[:, :n].tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) / n for a, b in pairs]))


@needs_karateclub
# Raised by libraries that karateclub loads.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_both_find_the_same_neighbours(
    graphs: tuple[list[Any], np.ndarray], record_property: Any, tmp_path: Path
) -> None:
    made, families = graphs
    ours = Archi2Vec(Archi2VecConfig(n_dims=32, n_clusters=8)).fit(made)
    theirs = Archi2Vec(Archi2VecConfig(encoder="karateclub", n_dims=32, n_clusters=8)).fit(made)
    trained = theirs._encoder.trained_  # type: ignore[union-attr]
    found = {
        "ours": nearest(ours.transform(made)),
        "backend": nearest(theirs.transform(made)),
        "karateclub": nearest(trained),
    }
    chance = 10 / (len(made) - 1)
    for name in ("ours", "backend"):
        shared = overlap(found[name], found["karateclub"])
        record_property(f"mean top-10 overlap of {name} with karateclub", shared)
        print(f"mean top-10 overlap of {name} with karateclub: {shared:.3f} (chance {chance:.3f})")
        assert shared > 2 * chance
    same = {k: (families[v[:, :3]] == families[:, None]).mean() for k, v in found.items()}
    print("share of three nearest of one family:", {k: round(float(v), 3) for k, v in same.items()})
    assert same["ours"] > 0.85
    assert same["ours"] >= same["karateclub"] - 0.02
    # Interchangeable: the same file format and the same promises.
    theirs.save(tmp_path)
    loaded = Archi2Vec.load(tmp_path)
    assert np.array_equal(loaded.transform(made[:5]), theirs.transform(made)[:5])
    with pytest.raises(UsageError, match="give graphs"):
        theirs.transform([graph_words(made[0])])


@pytest.mark.skipif(has_karateclub, reason="karateclub is installed")
def test_without_karateclub() -> None:
    torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")
    made = [
        architecture_graph(torch.nn.Linear(n, 2), torch.empty(1, n, device="cpu")) for n in (3, 4)
    ]
    with pytest.raises(MissingExtraError, match="without its pins"):
        Archi2Vec(Archi2VecConfig(encoder="karateclub", n_dims=4)).fit(made)
