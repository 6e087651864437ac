"""``recommend --images``: a folder of pictures, no labels, the embedded history."""

import importlib.util
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.history.embedded import embedded_folder
from recsys_ms.history.interactions import Interactions
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker

ABSENT = [name for name in ("torch", "open_clip") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(bool(ABSENT), reason=f"not installed (extra embed): {ABSENT}"),
]


@pytest.fixture
def run(run_here):
    return partial(run_here, "recommend")


def drawn(task_id, folder):
    """Sixty pictures of a task that the laboratory draws."""
    from PIL import Image

    from training.zoo.tasks.registry import TASKS

    folder.mkdir(exist_ok=True)
    images = TASKS[task_id].sample("test", 60, seed=5, size=64).images
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = embedded_folder()
    runs = pd.read_parquet(folder / "runs.parquet")
    ranker = Ranker(RankerConfig(ranker="nmf")).fit(runs, Catalog.read(folder))
    out = tmp_path_factory.mktemp("rankers") / "nmf"
    ranker.save(out)
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of a source task, which no target shares an image with, and a broken one."""
    folder = drawn("patterns", tmp_path_factory.mktemp("pictures") / "patterns")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_a_folder_of_pictures_is_enough(run, artifact, photos, tmp_path):
    result = run("--artifact", artifact, "--images", photos, "--top", 10, "--json")
    assert result.returncode == 0, result.stderr
    assert "broken.png: left out" in result.stderr
    document = json.loads(result.stdout)
    assert document["task"] == photos.name
    assert not document["known_task"]
    near = [task["task_id"] for task in document["nearest_tasks"]]
    textures = {"materials", "grating-frequency", "grating-orientation", "noise-spectrum", "dtd10"}
    assert set(near) & textures
    assert len(document["models"]) == 10
    first = document["models"][0]
    assert any(near[0] in reason for reason in first["reasons"])
    assert any("pre-trained on" in reason or "test_" in reason for reason in first["reasons"])


def test_images_move_the_answer(run, artifact, photos, tmp_path):
    letters = drawn("capitals", tmp_path / "letters")
    orders = []
    for folder in (photos, letters):
        result = run("--artifact", artifact, "--images", folder, "--top", 60, "--json")
        orders.append([row["model_id"] for row in json.loads(result.stdout)["models"]])
    assert orders[0] != orders[1]
    places = [
        np.mean([order.index(m) for m in order if m.endswith("@patterns")]) for order in orders
    ]
    # Models trained on patterns stand higher for patterns than for letters.
    assert places[0] < places[1]


def test_the_table_names_the_nearest_tasks(run, artifact, photos, tmp_path):
    result = run("--artifact", artifact, "--images", photos, "--top", 2)
    assert result.returncode == 0, result.stderr
    assert "similarity" in result.stdout
    assert "new task" in result.stdout


def test_another_proxy_is_refused(run, artifact, photos, tmp_path):
    """A tiny CLIP of random weights is a proxy, too, and not the ranker's."""
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": 8,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8,
        },
        "text_cfg": {
            "context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1,
        },
    }  # fmt: skip
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    model = open_clip.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    result = run("--artifact", artifact, "--images", photos, "--proxy", folder)
    assert result.returncode == 3
    assert "the ranker's tasks were embedded by embedded" in result.stderr


def test_a_ranker_that_has_seen_no_images_says_so(run, photos, tmp_path):
    runs = Interactions.from_triplets(["a", "a", "b", "b"], ["x", "y"] * 2, [0.1, 0.2, 0.3, 0.4])
    cards = [TaskCard(task_id="a"), replace(TaskCard(task_id="b"), n_classes=3)]
    ranker = Ranker(RankerConfig(ranker="nmf")).fit(runs, Catalog.from_cards(tasks=cards))
    ranker.save(tmp_path / "plain")
    result = run("--artifact", tmp_path / "plain", "--images", photos)
    assert result.returncode == 3
    assert "recsys-ms embed images" in result.stderr


def test_no_task_at_all(run):
    result = run()
    assert result.returncode == 2
    assert "--images PATH" in result.stderr
