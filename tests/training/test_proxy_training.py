"""Training of the small CLIP: captions and what they are true of, loss, batches, two real steps."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core.errors import UsageError
from recsys_ms.scores.label_texts import class_texts

pytest.importorskip("torch", reason="the laboratory needs torch (extra embed)")
pytest.importorskip("timm", reason="the laboratory needs timm (extra embed)")
pytest.importorskip("open_clip", reason="the proxy needs open_clip (extra embed)")

import torch
from open_clip.loss import ClipLoss

from recsys_ms.cold_start.proxy import Proxy
from training.proxy.captions import caption_book
from training.proxy.data import Batches, as_pixels, augmented, source_images, standardised
from training.proxy.design import Design, read_design
from training.proxy.export import export, load
from training.proxy.loss import SharedCaptionLoss
from training.proxy.measure import measure
from training.proxy.train import build, design_digest, learning_rate, plateau_digest, train
from training.zoo.tasks import canvas
from training.zoo.tasks.registry import TASKS

pytestmark = pytest.mark.zoo

DESIGN = Path(__file__).resolve().parents[2] / "training" / "proxy" / "proxy.toml"
DRAWN = {task_id: TASKS[task_id].class_names for task_id in ("capitals", "patterns", "scenes")}
KINDS = ("waves", "stripes", "checks", "dots", "lattice", "rings")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


@pytest.fixture(scope="module")
def shipped() -> Design:
    return read_design(DESIGN)


@pytest.fixture(scope="module")
def small(shipped: Design) -> Design:
    """The same on the drawn sources, which need no files, with a smaller tower."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = dict(shipped.model["text_cfg"]) | {"width": 16, "layers": 1}
    return replace(
        shipped,
        model={"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
        data=replace(shipped.data, n_train=60, n_validation=40, n_test=30, n_train_of={}),
        batch={"capitals": 4, "patterns": 6, "scenes": 6},
        training=replace(shipped.training, steps=4, warm_up=1, cool_down=1, checkpoint_every=2),
    )


def test_every_image_has_a_true_caption_and_no_true_one_counts_as_false() -> None:
    book = caption_book(DRAWN)
    rng = np.random.default_rng(0)
    quadrants = {"upper left", "upper right", "lower left", "lower right"}
    n_checked = 0
    for _ in range(50):
        labels = rng.integers(0, len(book.classes), 40)
        captions, truth = book.draw(labels, 0.5, rng)
        assert len(set(captions)) == len(captions)
        assert truth.shape == (40, len(captions))
        assert truth.any(axis=1).all()
        assert truth.any(axis=0).all()
        for column, caption in enumerate(captions):
            words = caption.rstrip(".").replace("-", " ")
            where = [each for each in quadrants if each in words]
            what = [each for each in canvas.SOURCE_SHAPES if f" {each}" in f" {words}"]
            if not where and not what:
                continue
            for (source, name), holds in zip(
                (book.classes[label] for label in labels), truth[:, column], strict=True
            ):
                shape, _, quadrant = name.replace("-", " ").partition(" ")
                fits = (not where or where == [quadrant]) and (not what or what == [shape])
                assert holds == (source == "scenes" and fits), (caption, source, name)
                n_checked += 1
    assert n_checked > 1000


def test_a_factor_is_true_of_every_class_that_has_it() -> None:
    book = caption_book(DRAWN)
    said = {caption: wording.holds for row in book.partial for wording in row
            for caption in wording.captions}  # fmt: skip
    named = {
        caption: {book.classes[place][1] for place in said[caption]}
        for caption in ("a fine pattern", "rings", "a star", "a capital letter")
    }
    assert named["a fine pattern"] == {f"fine {kind}" for kind in KINDS}
    assert named["rings"] == {f"{band} rings" for band in ("coarse", "medium", "fine")}
    assert named["a star"] == {name for name in DRAWN["scenes"] if "star" in name}
    assert named["a capital letter"] == set(DRAWN["capitals"])


def test_photos_of_one_thing_in_two_sets_are_no_negatives() -> None:
    book = caption_book(
        {"cifar10": ("ship", "dog"), "caltech100": ("ketch", "airplanes", "anchor")}
    )
    truth = book.draw(np.arange(5), 0.0, np.random.default_rng(0))[1]
    wanted = np.eye(5, dtype=bool)
    # "a photo of a ship." is true of a ketch; "a photo of a ketch." is not of every ship.
    wanted[2, 0] = True
    assert np.array_equal(truth, wanted)


def test_captions_begin_with_the_prompt_that_a_task_is_embedded_by() -> None:
    book = caption_book(DRAWN | {"caltech100": ("sea_horse", "anchor")})
    for (_, name), wording in zip(book.classes, book.whole, strict=True):
        assert wording.captions[0] == class_texts([0], [name])[0]


def test_loss_of_own_captions_is_that_of_open_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (
        torch.nn.functional.normalize(torch.randn(7, 5, generator=generator), dim=1)
        for _ in range(2)
    )
    scale = torch.tensor(9.0)
    ours = SharedCaptionLoss()(images, texts, scale, torch.eye(7, dtype=torch.bool))
    assert torch.isclose(ours, ClipLoss()(images, texts, scale), atol=1e-6)


def test_loss_of_shared_captions_by_hand() -> None:
    images, texts = torch.eye(3)[:, :2], torch.eye(2)
    images[2] = images[0]
    truth = torch.tensor([[1, 0], [0, 1], [1, 0]], dtype=torch.bool)
    found = SharedCaptionLoss()(images, texts, torch.tensor(2.0), truth)
    image = -np.log(np.exp(2) / (np.exp(2) + 1))
    first = -np.log(np.exp(2) / (2 * np.exp(2) + 1))
    second = -np.log(np.exp(2) / (np.exp(2) + 2))
    assert float(found) == pytest.approx((image + (first + second) / 2) / 2, abs=1e-6)


def test_nothing_of_a_target_is_read(shipped: Design) -> None:
    assert set(shipped.sources) == set(shipped.study.sources)
    assert not set(shipped.sources) & set(shipped.study.targets)
    for target in shipped.study.targets:
        with pytest.raises(UsageError, match="is not a source"):
            source_images(shipped, target, "train")
    with pytest.raises(UsageError, match=r"\['letters'\]; it learns from sources"):
        replace(shipped, batch={"capitals": 3, "letters": 3})


def test_captions_are_made_of_source_names_and_of_words_that_name_no_target(
    shipped: Design,
) -> None:
    study = shipped.study.at_hand()
    book = caption_book({name: study.book.get(name).class_names for name in study.sources})
    own = {word for _, name in book.classes for word in words(name)}
    said = {
        word
        for wordings in (*book.partial, book.whole)
        for wording in wordings
        for caption in wording.captions
        for word in words(caption)
    }
    targets = {
        " ".join(words(name)) for task in study.targets for name in study.book.get(task).class_names
    }
    added = said - own
    expected = {
        *("an", "photo", "of", "the", "small", "cropped", "picture", "drawing", "image", "capital"),
        *("letter", "in", "corner", "pattern", "texture", "with", "shape"),
    } - own  # fmt: skip
    assert added <= expected
    # Some wordings are those of a source whose images may not be on this machine.
    assert added == expected or study != shipped.study
    assert not added & targets


def test_parts_of_a_source_are_disjoint(small: Design) -> None:
    parts = [source_images(small, "scenes", part) for part in ("train", "validation", "test")]
    assert [len(part.images) for part in parts] == [60, 40, 30]
    whole = np.concatenate([part.images for part in parts]).reshape(130, -1)
    assert len(np.unique(whole, axis=0)) == 130


def test_a_batch_can_be_made_again(small: Design) -> None:
    first, again = Batches(small).make(3), Batches(small).make(3)
    assert torch.equal(first.images, again.images)
    assert first.captions == again.captions
    assert not torch.equal(first.images, Batches(small).make(4).images)
    assert first.images.shape == (16, 3, 32, 32)


def test_images_are_varied_as_the_design_says(small: Design) -> None:
    pixels = as_pixels(source_images(small, "scenes", "train").images[:20])
    off = replace(
        small.augmentation,
        **dict.fromkeys(
            ("zoom", "shift", "turn", "contrast", "cast", "gray", "invert", "halve"), 0.0
        ),
    )

    def varied(**changes: float) -> torch.Tensor:
        rng = np.random.default_rng(0)
        return augmented(pixels, replace(off, **changes), [False] * 20, rng)

    # grid_sample interpolates between pixels, here at their centres.
    assert torch.allclose(varied(), pixels, atol=1e-4)
    mirrored = augmented(pixels, off, [True] * 20, np.random.default_rng(0))
    turned = [
        torch.allclose(a, b.flip(2), atol=1e-4) for a, b in zip(mirrored, pixels, strict=True)
    ]
    assert 4 < sum(turned) < 16
    gray = varied(gray=1.0)
    assert torch.allclose(gray, gray.mean(dim=1, keepdim=True).expand_as(gray), atol=1e-5)
    assert torch.allclose(varied(invert=1.0), 1.0 - pixels, atol=1e-4)
    halved = varied(halve=1.0)
    assert (halved[..., 1:] - halved[..., :-1]).abs().mean() < (
        pixels[..., 1:] - pixels[..., :-1]
    ).abs().mean()
    for name in ("zoom", "shift", "turn", "contrast", "cast"):
        changed = varied(**{name: 0.2})
        assert not torch.allclose(changed, pixels, atol=1e-2)
        assert changed.min() >= 0.0
        assert changed.max() <= 1.0


def test_two_steps_end_to_end_and_on_from_a_checkpoint(small: Design, tmp_path: Path) -> None:
    model, seconds = train(small, tmp_path / "whole")
    before = build(small)
    assert seconds > 0.0
    assert not torch.equal(model.visual.conv1.weight, before.visual.conv1.weight)
    assert not torch.equal(model.token_embedding.weight, before.token_embedding.weight)
    # Stopped after the checkpoint of step 2, and gone on with.
    place = tmp_path / "parts"

    class Stop(Exception):
        pass

    class Stopping:
        def track(self, items, *, total, description):
            for item in items:
                if item == 2:
                    raise Stop
                yield item

    with pytest.raises(Stop):
        train(small, place, progress=Stopping())
    assert torch.load(next(place.glob("*.pt")), weights_only=True)["step"] == 2
    resumed, _ = train(small, place)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name

    said = export(small, model, tmp_path / "out", seconds)
    assert said["bytes"] == (tmp_path / "out" / "open_clip_model.safetensors").stat().st_size
    proxy = Proxy(tmp_path / "out")
    images = source_images(small, "scenes", "test").images
    with torch.inference_mode():
        wanted = model.encode_image(standardised(as_pixels(images), small), normalize=True)
    # Matrices are rounded to float16 in the file: 11 bits of each weight.
    np.testing.assert_allclose(proxy.embed_images(images), wanted.numpy(), atol=5e-3)
    figures = measure(small, load(tmp_path / "out"), "validation")
    assert set(figures) == {"capitals", "patterns", "scenes"}
    assert all(0.0 <= each.zero_shot_all <= each.zero_shot <= 1.0 for each in figures.values())


def test_a_longer_training_goes_on_from_a_shorter_one(small: Design, tmp_path: Path) -> None:
    longer = replace(small, training=replace(small.training, steps=6, cool_down=2))
    scratch, _ = train(longer, tmp_path / "scratch")
    train(small, tmp_path / "work")
    assert plateau_digest(small) == plateau_digest(longer)
    place = tmp_path / "work" / f"{plateau_digest(small)[:16]}.pt"
    assert torch.load(place, weights_only=True)["step"] == 2
    seen = []

    class Watching:
        def track(self, items, *, total, description):
            for item in items:
                seen.append(item)
                yield item

    continued, _ = train(longer, tmp_path / "work", progress=Watching())
    assert seen == [2, 3, 4, 5]
    for name, tensor in scratch.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name
    # One that is shorter than what is there begins anew.
    shorter = replace(small, training=replace(small.training, steps=2))
    seen.clear()
    train(shorter, tmp_path / "work", progress=Watching())
    assert seen == [0, 1]


def test_the_learning_rate_rises_stays_and_falls(small: Design) -> None:
    plan = replace(small.training, steps=10, warm_up=4, cool_down=3, learning_rate=4.0)
    rates = [learning_rate(plan, step) for step in range(10)]
    assert rates == [1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 4.0, 3.0, 2.0, 1.0]


def test_a_digest_is_of_what_decides_the_weights(small: Design) -> None:
    digest = design_digest(small)
    assert design_digest(replace(small, seed=1)) != digest
    rare = replace(small.training, checkpoint_every=1)
    assert design_digest(replace(small, training=rare)) == digest


def test_invalid_designs(tmp_path: Path, shipped: Design) -> None:
    text = DESIGN.read_text().replace(
        '"../zoo/study.toml"', f'"{DESIGN.parents[1]}/zoo/study.toml"'
    )
    path = tmp_path / "p.toml"
    for old, new, why in (
        ("seed = 0", "sead = 0", "'seed' is missing"),
        ("steps = ", "stops = ", "unexpected keyword"),
        ("partial = 0.25", "partial = 2.5", "a share"),
        ("[proxy]", "[proxy", "not TOML"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=why):
            read_design(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_design(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="no longer cool_down than steps"):
        replace(shipped.training, cool_down=shipped.training.steps + 1)
    with pytest.raises(UsageError, match="at least 1"):
        replace(shipped.training, steps=0)
