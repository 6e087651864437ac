"""A CLIP as proxy: on a tiny one that the test initialises, and on the one that ships."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cold_start.proxy import Proxy, TaskEmbedding, mean_and_spread, proxy_folder
from recsys_ms.core.errors import DataError, MissingExtraError, ProbeSetError, UsageError
from recsys_ms.scores.label_encoders import OpenClipEncoder

REPOSITORY = Path(__file__).resolve().parents[2]
ABSENT = [name for name in ("torch", "open_clip", "timm") if importlib.util.find_spec(name) is None]
needs_clip = pytest.mark.skipif(bool(ABSENT), reason=f"not installed (extra embed): {ABSENT}")
pytestmark = pytest.mark.zoo

TINY = {
    "embed_dim": 12,
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}


def save_tiny(folder, seed=0, preprocess=None):
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**json.loads(json.dumps(TINY)))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": TINY, "preprocess_cfg": preprocess or {"mean": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    if ABSENT:
        pytest.skip(f"not installed (extra embed): {ABSENT}")
    return save_tiny(tmp_path_factory.mktemp("clip") / "tiny")


def noise(n, side=40, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8))


def test_vectors_are_those_of_open_clip(tiny):
    import open_clip
    import torch
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny}")
    images = noise(5)
    texts = ["a photo of a cat.", "rings", "a drawing of a star in the upper left corner."]
    with torch.no_grad():
        batch = torch.stack([transform(Image.fromarray(each)) for each in images])
        seen = model.eval().encode_image(batch, normalize=True).numpy()
        read = model.encode_text(tokenizer(texts), normalize=True).numpy()
    proxy = Proxy(tiny)
    assert proxy.width == 12
    assert proxy.name == "tiny"
    vectors = proxy.embed_images(images)
    assert vectors.dtype == np.float32
    # Rounding of float32 in products over a few hundred numbers.
    np.testing.assert_allclose(vectors, seen, atol=1e-5)
    np.testing.assert_allclose(proxy.embed_texts(texts), read, atol=1e-5)


def test_a_vector_does_not_depend_on_its_batch(tiny):
    images = noise(7)
    whole = Proxy(tiny, batch_size=7).embed_images(images)
    single = Proxy(tiny, batch_size=1).embed_images(images[::-1])[::-1]
    np.testing.assert_allclose(whole, single, atol=1e-6)
    assert np.array_equal(whole, Proxy(tiny, batch_size=7).embed_images(images))
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-6)


def test_a_task_is_mean_and_spread_of_images_and_mean_of_names(tiny):
    proxy = Proxy(tiny)
    images, names = noise(9), ["cat", "sea_horse", "dog"]
    vectors = proxy.embed_images(images).astype(np.float64)
    prompts = [f"a photo of a {name}." for name in ("cat", "sea horse", "dog")]
    both = proxy.task_embedding(images, names)
    wanted = np.concatenate([vectors.mean(axis=0), vectors.std(axis=0)])
    np.testing.assert_allclose(both.images, wanted, atol=1e-12)
    np.testing.assert_allclose(both.labels, proxy.embed_texts(prompts).mean(axis=0), atol=1e-6)
    assert (both.n_images, both.left_out) == (9, ())
    assert (both.proxy, both.fingerprint) == (proxy.name, proxy.fingerprint)
    assert proxy.task_embedding(images).labels is None
    assert np.array_equal(proxy.task_embedding(class_names=names).labels, both.labels)
    assert np.array_equal(proxy.label_embedding(names), both.labels)
    few = proxy.task_embedding(images, max_images=4)
    assert few.n_images == 4
    assert not np.allclose(few.images, both.images)


def test_spread_is_the_standard_deviation():
    vectors = np.array([[0.0, 1.0], [2.0, 1.0]], dtype=np.float32)
    assert mean_and_spread(vectors).tolist() == [1.0, 1.0, 1.0, 0.0]
    assert mean_and_spread(vectors[:1]).tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("arguments", [(), (None, None), (None, []), (None, "cat")])
def test_a_task_of_nothing(tiny, arguments):
    with pytest.raises(UsageError, match=r"expected a list|at least one of them"):
        Proxy(tiny).task_embedding(*arguments)


def test_blank_names_and_texts(tiny):
    with pytest.raises(ProbeSetError):
        Proxy(tiny).task_embedding(class_names=["cat", " "])
    with pytest.raises(ProbeSetError):
        Proxy(tiny).embed_texts([])


def test_what_cannot_be_read_is_left_out_and_named(tiny, tmp_path, caplog):
    from PIL import Image

    for number, image in enumerate(noise(3)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    seen = Proxy(tiny).task_embedding(tmp_path)
    assert seen.n_images == 2
    assert seen.left_out == (str(tmp_path / "1.png"), str(tmp_path / "3.png"))
    assert "3.png" in caplog.text
    np.testing.assert_allclose(
        seen.images, Proxy(tiny).task_embedding([noise(3)[0], noise(3)[2]]).images, atol=1e-6
    )
    for name in ("0.png", "2.png"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of 4 images can be read; .*0\.png"):
        Proxy(tiny).task_embedding(tmp_path)


def test_features_come_from_the_cache(tiny, tmp_path):
    images = noise(4)
    first = Proxy(tiny, cache=tmp_path / "cache").look_at(images)
    assert first.n_computed == 4
    again = Proxy(tiny, cache=tmp_path / "cache").look_at([*images[::-1], noise(1, seed=9)[0]])
    assert again.n_computed == 1
    assert np.array_equal(again.vectors[:4], first.vectors[::-1])
    for damaged in (tmp_path / "cache").rglob("*.npz"):
        damaged.write_bytes(b"x")
    repaired = Proxy(tiny, cache=tmp_path / "cache").look_at(images)
    assert repaired.n_computed == 4
    assert np.array_equal(repaired.vectors, first.vectors)
    assert Proxy(tiny, cache=tmp_path / "cache").look_at(images).n_computed == 0


def test_a_fingerprint_is_of_weights_and_preparation(tiny, tmp_path):
    fingerprint = Proxy(tiny).fingerprint
    assert len(fingerprint) == 64
    assert Proxy(shutil.copytree(tiny, tmp_path / "renamed")).fingerprint == fingerprint
    assert Proxy(save_tiny(tmp_path / "other", seed=1)).fingerprint != fingerprint
    bright = save_tiny(tmp_path / "bright", preprocess={"mean": [0.1] * 3})
    assert Proxy(bright).fingerprint != fingerprint


def test_architecture_and_file_of_weights(tiny, tmp_path):
    import open_clip

    (tmp_path / "tiny-proxy-test.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-proxy-test.json")
    weights = tiny / "open_clip_model.safetensors"
    named = Proxy(f"tiny-proxy-test={weights}")
    assert named.name == "tiny-proxy-test/open_clip_model"
    texts = ["a photo of a cat."]
    assert np.array_equal(named.embed_texts(texts), Proxy(tiny).embed_texts(texts))
    # Without a configuration beside it, images are prepared as open_clip's default has it.
    assert named.fingerprint != Proxy(tiny).fingerprint
    assert Proxy(weights).fingerprint == Proxy(tiny).fingerprint
    assert np.array_equal(OpenClipEncoder(tiny).encode(texts), Proxy(tiny).embed_texts(texts))


@pytest.mark.parametrize(
    ("source", "error", "why"),
    [
        ("ViT-B-32", UsageError, "expected 'embedded', NAME=TAG"),
        ("=laion2b", UsageError, "expected 'embedded', NAME=TAG"),
        ("no/such/folder", UsageError, "a folder with open_clip_config.json"),
        ("ViT-B-32=no_such_tag", UsageError, "neither a file nor a tag"),
        ("no-such-model=laion2b", UsageError, "does not know this architecture"),
    ],
)
@needs_clip
def test_sources_that_are_no_proxy(source, error, why):
    with pytest.raises(error, match=why):
        _ = Proxy(source).fingerprint


def test_folders_that_are_no_proxy(tiny, tmp_path):
    broken = shutil.copytree(tiny, tmp_path / "broken")
    (broken / "open_clip_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="cannot be read as a model"):
        Proxy(broken).embed_images(noise(1))
    with pytest.raises(UsageError, match="batch_size"):
        Proxy(tiny, batch_size=0)
    with pytest.raises(UsageError, match="device 'nowhere'"):
        Proxy(tiny, device="nowhere").embed_images(noise(1))


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    proxy = Proxy(tmp_path)
    assert proxy.width == 12
    with pytest.raises(MissingExtraError, match=r"recsys-ms\[embed\]"):
        proxy.embed_images(noise(1))


def embedding(width, images=True, labels=True, proxy="p"):
    return TaskEmbedding(
        proxy=proxy,
        fingerprint="f",
        images=np.linspace(0, 1, 2 * width) if images else None,
        labels=np.linspace(-1, 0, width) if labels else None,
    )


def test_vectors_on_a_card():
    card = TaskCard(task_id="birds", domain="photos", traits={"a": 1.0})
    full = embedding(3).on(card)
    assert full.embedding == tuple(np.linspace(0, 1, 6).tolist())
    assert full.label_embedding == (-1.0, -0.5, 0.0)
    assert (full.task_id, full.domain, full.traits) == ("birds", "photos", {"a": 1.0})
    assert card.embedding is None
    assert embedding(3, images=False).on(full).embedding == full.embedding
    assert embedding(3, labels=False).on(card).label_embedding is None
    kept = Catalog.from_cards(tasks=[full]).task_card("birds")
    assert kept == full


def test_vectors_of_two_proxies_do_not_share_a_card():
    card = embedding(3).on(TaskCard(task_id="birds"))
    assert card.embedding_source == "p f"
    with pytest.raises(DataError, match="its label_embedding is from p f, the new vector from q f"):
        embedding(3, labels=False, proxy="q").on(card)
    with pytest.raises(DataError, match="its embedding is from p f, the new vector from q f"):
        embedding(3, images=False, proxy="q").on(card)
    assert embedding(4, proxy="q").on(card).embedding_source == "q f"


@pytest.fixture(scope="module")
def embedded():
    if ABSENT:
        pytest.skip(f"not installed (extra embed): {ABSENT}")
    return Proxy()


@pytest.fixture(scope="module")
def held_out():
    """Images of sources that the small CLIP was not trained on; those of files where they are."""
    if ABSENT:
        pytest.skip(f"not installed (extra embed): {ABSENT}")
    from training.proxy.data import source_images
    from training.proxy.design import read_design

    design = read_design(REPOSITORY / "training" / "proxy" / "proxy.toml")
    there = [name for name in design.sources if not design.study.book.absent(name)]
    return {name: source_images(design, name, "test") for name in there}


def test_the_embedded_proxy_is_small_and_open_clip_reads_it(embedded):
    import open_clip

    files = list(proxy_folder().iterdir())
    assert sum(path.stat().st_size for path in files) < 12_000_000
    assert {"open_clip_config.json", "open_clip_model.safetensors", "MODEL_CARD.md"} <= {
        path.name for path in files
    }
    assert (embedded.name, embedded.width) == ("embedded", 128)
    model = open_clip.create_model(f"local-dir:{proxy_folder()}", require_pretrained=True)
    assert {str(each.dtype) for each in model.parameters()} == {"torch.float32"}
    texts = ["a photo of rings.", "a photo of a ship."]
    alone = OpenClipEncoder(proxy_folder()).encode(texts)
    assert np.array_equal(alone, embedded.embed_texts(texts))


def test_two_halves_of_a_source_are_nearer_than_two_sources(embedded, held_out):
    assert len(held_out) >= 3
    halves = {
        name: [
            embedded.task_embedding(list(half)).images
            for half in (data.images[:150], data.images[150:300])
        ]
        for name, data in held_out.items()
    }
    for name, (first, second) in halves.items():
        others = [each for other, pair in halves.items() if other != name for each in pair]
        nearest = min(np.linalg.norm(first - each) for each in others)
        assert np.linalg.norm(first - second) < 0.5 * nearest, name


def test_names_find_their_images(embedded, held_out):
    """Zero-shot on images that it was not trained on: chance is 1 in 18."""
    data = held_out["patterns"]
    texts = embedded.embed_texts([f"a photo of a {name}." for name in data.class_names])
    found = (embedded.embed_images(data.images[:200]) @ texts.T).argmax(axis=1)
    assert np.mean(found == data.labels[:200]) > 0.5
