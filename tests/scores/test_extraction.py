"""Images of folders and their features by timm, with weights that the test initialises."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core.errors import DataError, StorageError, UsageError
from recsys_ms.scores.images import find_images

MODEL = "test_resnet.r160_in1k"


def picture(path: Path, seed: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra embed)")
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(5):
        picture(tmp_path / "photos" / "cat" / f"{number}.png", number)
        picture(tmp_path / "photos" / "dog" / "deep" / f"{number}.jpg", 10 + number)
    picture(tmp_path / "photos" / "eel" / "0.png", 20)
    (tmp_path / "photos" / "notes.txt").write_text("x")
    (tmp_path / "photos" / "empty").mkdir()
    (tmp_path / "photos" / ".hidden").mkdir()
    (tmp_path / "photos" / "cat" / ".thumb.png").write_bytes(b"x")
    return tmp_path / "photos"


def test_a_folder_with_a_class_a_sub_folder(photos: Path) -> None:
    found = find_images(photos)
    assert found.names == ("cat", "dog", "eel")
    assert found.labels.tolist() == [0] * 5 + [1] * 5 + [2]
    assert found.paths[5] == photos / "dog" / "deep" / "0.jpg"


@pytest.mark.parametrize(("most", "counts"), [(3, [1, 1, 1]), (6, [3, 2, 1]), (99, [5, 5, 1])])
def test_at_most_so_many_evenly(photos: Path, most: int, counts: list[int]) -> None:
    found = find_images(photos, most=most)
    assert np.bincount(found.labels).tolist() == counts
    assert found.paths == find_images(photos, most=most).paths
    assert set(found.paths) <= set(find_images(photos).paths)


def test_folders_that_are_no_probe_sets(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        find_images(tmp_path / "no")
    with pytest.raises(DataError, match="0 sub-folders"):
        find_images(photos / "cat")
    with pytest.raises(UsageError, match="ask for more"):
        find_images(photos, most=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("torch", "timm", "PIL"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (extra embed)")
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(MODEL, pretrained=False, num_classes=7)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(model.state_dict(), path)
    torch.save({"state_dict": model.state_dict()}, path.with_suffix(".pth"))
    return path


def test_features_are_what_the_head_sees(photos: Path, weights: Path) -> None:
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    from recsys_ms.scores.extraction import TimmExtractor

    extractor = TimmExtractor(MODEL, weights, batch_size=4)
    found = extractor.extract(find_images(photos))
    assert (found.n_computed, found.left_out) == (11, ())
    assert found.features.dtype == np.float32
    model = timm.create_model(MODEL, pretrained=False, num_classes=7).eval()
    model.load_state_dict(load_file(weights))
    settings = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**settings, is_training=False)
    with Image.open(found.images.paths[3]) as image, torch.inference_mode():
        maps = model.forward_features(transform(image.convert("RGB"))[None])
        expected = model.forward_head(maps, pre_logits=True)[0].numpy()
        probs = model.forward_head(maps)[0].softmax(0).numpy()
    np.testing.assert_allclose(found.features[3], expected, atol=1e-5)
    assert found.source_probs is not None
    assert found.source_probs.shape == (11, 7)
    np.testing.assert_allclose(found.source_probs[3], probs, atol=1e-5)
    np.testing.assert_allclose(found.source_probs.sum(axis=1), 1.0)
    # One at a time, and from another kind of file: the same.
    single = TimmExtractor(MODEL, weights.with_suffix(".pth"), batch_size=1)
    assert single.fingerprint == extractor.fingerprint
    np.testing.assert_allclose(
        single.extract(find_images(photos)).features, found.features, atol=1e-5
    )


def test_the_cache_goes_by_content_and_weights(photos: Path, weights: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from recsys_ms.scores.extraction import TimmExtractor

    cache = tmp_path / "cache"
    extractor = TimmExtractor(MODEL, weights)
    first = extractor.extract(find_images(photos), cache=cache)
    again = extractor.extract(find_images(photos), cache=cache)
    assert (first.n_computed, again.n_computed) == (11, 0)
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_array_equal(first.source_probs, again.source_probs)
    # Renamed, an image is the same; changed, it is another.
    (photos / "cat" / "0.png").rename(photos / "cat" / "9.png")
    picture(photos / "cat" / "1.png", 99)
    assert extractor.extract(find_images(photos), cache=cache).n_computed == 1
    # A damaged file is computed anew and replaced.
    for path in cache.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:40])
    mended = extractor.extract(find_images(photos), cache=cache)
    assert mended.n_computed == 11
    assert extractor.extract(find_images(photos), cache=cache).n_computed == 0
    state = load_file(weights)
    state["conv1.0.weight"] = state["conv1.0.weight"] + torch.tensor(0.5)
    save_file(state, tmp_path / "other.safetensors")
    other = TimmExtractor(MODEL, tmp_path / "other.safetensors")
    assert other.fingerprint != extractor.fingerprint
    assert other.extract(find_images(photos), cache=cache).n_computed == 11


def test_images_that_cannot_be_read_are_left_out(photos: Path, weights: Path) -> None:
    from recsys_ms.scores.extraction import TimmExtractor

    (photos / "cat" / "2.png").write_bytes(b"no image")
    whole = (photos / "dog" / "deep" / "1.jpg").read_bytes()
    (photos / "dog" / "deep" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    found = TimmExtractor(MODEL, weights).extract(find_images(photos))
    assert {path.name for path in found.left_out} == {"2.png", "1.jpg"}
    assert found.features.shape[0] == len(found.images.paths) == 9
    assert found.images.labels.tolist() == [0] * 4 + [1] * 4 + [2]
    for path in photos.rglob("*.[pj][np]g"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 11"):
        TimmExtractor(MODEL, weights).extract(find_images(photos))


def test_a_cache_that_cannot_be_written(photos: Path, weights: Path, tmp_path: Path) -> None:
    from recsys_ms.scores.extraction import TimmExtractor

    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="another cache"):
        TimmExtractor(MODEL, weights).extract(find_images(photos), cache=tmp_path / "file")


def test_invalid_models_and_weights(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys_ms.scores.extraction import TimmExtractor

    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="does not know it"):
        TimmExtractor("resnet5000", weights)
    with pytest.raises(UsageError, match="batch_size"):
        TimmExtractor(MODEL, weights, batch_size=0)
    with pytest.raises(DataError, match="not available"):
        TimmExtractor("resnet18.a1_in1k")
    with pytest.raises(DataError, match="not weights of 'resnet18'"):
        TimmExtractor("resnet18", weights)
    with pytest.raises(DataError, match="cannot be read as weights"):
        TimmExtractor(MODEL, tmp_path / "no.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match="cannot be read as weights"):
        TimmExtractor(MODEL, tmp_path / "bad.pth")
    with pytest.raises(UsageError, match="device"):
        TimmExtractor(MODEL, weights, device="nothing:3")
