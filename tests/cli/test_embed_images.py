"""``recsys-ms embed images`` as a user calls it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.proxy import Proxy

ABSENT = [name for name in ("torch", "open_clip") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(bool(ABSENT), reason=f"not installed (extra embed): {ABSENT}"),
]


@pytest.fixture
def run(photos: Path, run_here, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(photos)
    return run_here


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(6):
        pixels = rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    return tmp_path


def test_images_and_names_on_a_new_card(run, photos: Path) -> None:
    line = ["embed", "images", "photos", "--task", "pets", "-C", "c", "--names", "cat, sea_horse"]
    done = run(*line, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["task_id"], told["proxy"], told["n_images"]) == ("pets", "embedded", 6)
    assert told["left_out"] == ["photos/bad.jpg"]
    assert "bad.jpg" in done.stderr
    seen = Proxy().task_embedding(photos / "photos", ["cat", "sea_horse"])
    assert told["fingerprint"] == seen.fingerprint
    card = Catalog.read(photos / "c").task_card("pets")
    assert card.embedding == tuple(told["embedding"])
    assert card.label_embedding == tuple(told["label_embedding"])
    assert (card.class_names, card.n_classes) == (("cat", "sea_horse"), 2)
    np.testing.assert_allclose(card.embedding, seen.images, atol=1e-6)
    shown = run(*line)
    assert shown.returncode == 0
    assert "pets" in shown.stdout
    assert "256" in shown.stdout


def test_what_the_catalog_knows_stays(run, photos: Path) -> None:
    known = TaskCard(task_id="pets", domain="photos", n_samples=10, traits={"a": 1.0})
    Catalog.from_cards(tasks=[known, TaskCard(task_id="birds")]).write(photos / "c")
    done = run(*("embed", "images", "photos", "-t", "pets", "-o", "c", "--max-images", 3))
    assert done.returncode == 0, done.stderr
    catalog = Catalog.read(photos / "c")
    card = catalog.task_card("pets")
    assert (card.domain, card.n_samples, card.traits) == ("photos", 10, {"a": 1.0})
    assert card.label_embedding is None
    assert card.class_names is None
    assert len(card.embedding or ()) == 2 * Proxy().width
    assert catalog.find_task_card("birds") is not None
    named = run("embed", "images", "-t", "pets", "-C", "c", "--names", "cat,dog")
    assert named.returncode == 0, named.stderr
    again = Catalog.read(photos / "c").task_card("pets")
    assert again.embedding == card.embedding
    assert len(again.label_embedding or ()) == Proxy().width
    # Names that the card knows are embedded without being given again.
    both = run("embed", "images", "photos", "-t", "pets", "-C", "c", "--json")
    assert json.loads(both.stdout)["label_embedding"] == list(again.label_embedding or ())


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        (["images", "photos", "-C", "c"], 2, "--task NAME"),
        (["images", "-C", "c", "-t", "pets"], 2, "--names a,b,c"),
        (["images", "no", "-C", "c", "-t", "pets"], 3, "no such file or folder"),
        (["images", "c.toml", "-C", "c", "-t", "pets"], 3, "not a folder"),
        (["images", "photos", "-C", "c", "-t", "p", "--proxy", "nosuch"], 2, "NAME=TAG"),
        (["images", "photos", "-C", "c", "-t", "p", "--max-images", "0"], 2, "at least 1"),
        (["images", "-C", "c", "-t", "p", "--names", "a,,b"], 3, "blank"),
        (["images", "photos", "-C", "c", "-t", "p", "--device", "nowhere"], 2, "nowhere"),
        (["timm", "photos", "-o", "c"], 2, "takes no PATH"),
        (["timm", "-o", "c", "--task", "x"], 2, "takes no PATH"),
    ],
)
def test_bad_usage(run, photos: Path, line: list[str], code: int, told: str) -> None:
    (photos / "c.toml").write_text("x")
    done = run("embed", *line)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert not done.stdout
    assert not (photos / "c").exists()
