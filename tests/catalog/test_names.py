"""What names of models say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.names import (
    ModelName,
    name_tokens,
    parse_model_id,
    pretraining_images,
    with_timm_families,
)


@pytest.mark.parametrize(
    ("model_id", "owner", "architecture", "tag"),
    [
        (
            "vit_base_patch16_224.augreg_in21k_ft_in1k",
            None,
            "vit_base_patch16_224",
            "augreg_in21k_ft_in1k",
        ),
        ("google/vit-base-patch16-224", "google", "vit-base-patch16-224", None),
        ("resnet50@imagenet", None, "resnet50", "imagenet"),
        ("levit_128.300ep_in1k", None, "levit_128", "300ep_in1k"),
        ("yolov8.1", None, "yolov8.1", None),
        ("resnet50.", None, "resnet50.", None),
        ("", None, "", None),
    ],
)
def test_an_id_is_split_into_owner_architecture_and_tag(model_id, owner, architecture, tag):
    assert parse_model_id(model_id) == ModelName(owner=owner, architecture=architecture, tag=tag)


def test_tokens_are_whole_pieces_and_their_runs_of_letters():
    assert name_tokens("ResNet50-D") == ("d", "resnet", "resnet50")
    assert name_tokens("vit_base_patch16_224") == ("224", "base", "patch", "patch16", "vit")
    assert name_tokens("---") == ()


@given(st.text())
def test_any_text_is_a_name(text):
    tokens = name_tokens(text)
    assert list(tokens) == sorted(set(tokens))
    parse_model_id(text)
    pretraining_images(text, None)


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("augreg_in21k_ft_in1k", 1.4e7),
        ("google/vit-base-patch16-224-in21k", 1.4e7),
        ("imagenet-1k", 1.28e6),
        ("resnet50@imagenet", 1.28e6),
        ("clip_laion2b_soup_ft_in12k_in1k", 2.3e9),
        ("resnet50@caltech101", None),
        ("inside", None),
    ],
)
def test_the_largest_data_set_that_is_named_counts(text, images):
    assert pretraining_images(text) == images


@pytest.mark.zoo
def test_timm_says_the_family_where_the_card_does_not():
    pytest.importorskip("timm")
    catalog = Catalog.from_cards(
        models=[
            ModelCard(model_id="deit_tiny_patch16_224.fb_in1k"),
            ModelCard(model_id="b", architecture="resnet50"),
            ModelCard(model_id="resnet18.a1_in1k", family="mine"),
            ModelCard(model_id="nobody/knows"),
        ]
    )
    families = with_timm_families(catalog).models["family"]
    assert families["deit_tiny_patch16_224.fb_in1k"] == "deit"
    assert families["b"] == "resnet"
    assert families["resnet18.a1_in1k"] == "mine"
    assert families["nobody/knows"] is None
