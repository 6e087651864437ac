"""Meta features of models and tasks, from cards and names."""

from dataclasses import asdict

import numpy as np
import pytest

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.encoding import EncodingConfig
from recsys_ms.catalog.features import ModelFeatureEncoder, TaskFeatureEncoder
from recsys_ms.core.errors import DataError, NotFittedError
from recsys_ms.serving.artifact import load_artifact, save_artifact

MODELS = (
    ModelCard(
        model_id="resnet18.a1_in1k",
        family="resnet",
        n_parameters=11_000_000,
        gmacs=1.8,
        source_accuracy=0.71,
        licence="apache-2.0",
        embedding=(0.0, 1.0),
        traits={"speed": 100.0, "colour": "red"},
    ),
    ModelCard(
        model_id="resnet50.a1_in1k",
        family="resnet",
        n_parameters=25_000_000,
        gmacs=4.1,
        embedding=(1.0, 0.5),
        traits={"speed": 5000.0, "colour": "red"},
    ),
    ModelCard(
        model_id="google/vit-base-patch16-224-in21k",
        family="vit",
        pretrained_domain="imagenet-21k",
        traits={"colour": "blue"},
    ),
    ModelCard(model_id="vit_tiny.augreg_in21k", family="vit", embedding=(1.0, 2.0, 3.0)),
)
IDS = [card.model_id for card in MODELS]
TASKS = (
    TaskCard(task_id="cifar", domain="photo", n_samples=50_000, n_classes=10, difficulty=0.4),
    TaskCard(task_id="eurosat", domain="satellite", n_samples=27_000, n_classes=10, image_size=64),
    TaskCard(task_id="dtd", domain="photo", n_samples=1880, n_classes=47, traits={"shots": 40}),
)
TASK_IDS = [card.task_id for card in TASKS]


@pytest.fixture(name="catalog")
def catalog_fixture():
    return Catalog.from_cards(models=MODELS, tasks=TASKS)


def tree(features, name):
    return features.trees[:, features.tree_names.index(name)]


def test_numbers_are_logarithms_and_unknown_is_nan(catalog):
    features = ModelFeatureEncoder().fit(catalog, IDS).transform(catalog, IDS)
    np.testing.assert_allclose(
        tree(features, "log_n_parameters"),
        np.float32([np.log(11e6), np.log(25e6), np.nan, np.nan]),
    )
    np.testing.assert_allclose(
        tree(features, "log_pretraining_images"),
        np.log(np.float32([1.28e6, 1.28e6, 1.4e7, 1.4e7])),
        rtol=1e-6,
    )
    assert "log_n_parameters=unknown" in features.linear_names


def test_the_name_speaks_where_the_card_is_silent(catalog):
    features = ModelFeatureEncoder().fit(catalog, IDS).transform(catalog, IDS)
    assert {"architecture_word=resnet", "architecture_word=vit", "tag_word=a1"} <= set(
        features.linear_names
    )
    field = dict(zip(features.linear_names, features.linear_fields, strict=True))
    assert field["architecture_word=resnet"] == "architecture"
    assert field["tag_word=a1"] == "pretrained_tag"
    assert field["log_n_parameters"] == "n_parameters"


def test_traits_are_numbers_or_texts_as_training_has_them(catalog):
    encoder = ModelFeatureEncoder(EncodingConfig(min_count=1)).fit(catalog, IDS)
    features = encoder.transform(catalog, IDS)
    # 100 to 5000: more than a factor of 10, so the logarithm.
    np.testing.assert_allclose(
        tree(features, "trait:speed"), np.float32([np.log(100), np.log(5000), np.nan, np.nan])
    )
    assert {"trait:colour=red", "trait:colour=blue"} <= set(features.linear_names)
    later = Catalog.from_cards(
        models=[
            ModelCard(model_id="a", traits={"speed": "fast", "colour": 3.0}),
            ModelCard(model_id="b", traits={"speed": -1.0}),
        ]
    )
    assert np.isnan(tree(encoder.transform(later, ["a", "b"]), "trait:speed")).all()


def test_an_embedding_of_another_length_is_unknown(catalog):
    features = ModelFeatureEncoder().fit(catalog, IDS).transform(catalog, IDS)
    np.testing.assert_array_equal(
        np.isnan(tree(features, "direction_0")), [False, False, True, True]
    )
    assert "embedding_0002" not in features.linear_names


def test_held_out_cards_change_nothing(catalog):
    train = IDS[:2]
    encoder = ModelFeatureEncoder().fit(catalog, train)
    changed = catalog.with_models(
        [
            ModelCard(
                model_id=IDS[2],
                n_parameters=1,
                family="resnet",
                source_accuracy=0.1,
                traits={"speed": "text", "new": 5.0},
            )
        ]
    )
    again = ModelFeatureEncoder().fit(changed, train)
    np.testing.assert_equal(asdict(encoder.state()), asdict(again.state()))


def test_an_id_without_a_card_is_known_by_name(catalog):
    encoder = ModelFeatureEncoder().fit(catalog, IDS)
    features = encoder.transform(catalog, ["resnet34.a1_in1k", "somebody/unheard-of"])
    hot = features.linear[:, [features.linear_names.index("architecture_word=resnet")]].toarray()
    np.testing.assert_array_equal(hot.ravel(), [1.0, 0.0])
    assert np.isnan(tree(features, "log_n_parameters")).all()


def test_tasks(catalog):
    encoder = TaskFeatureEncoder().fit(catalog, TASK_IDS)
    features = encoder.transform(catalog, [*TASK_IDS, "never heard of"])
    np.testing.assert_allclose(
        tree(features, "log_samples_per_class"),
        np.float32([np.log(5000), np.log(2700), np.log(40), np.nan]),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(tree(features, "domain"), [2, 1, 2, 0])
    by_card = encoder.transform_cards([TASKS[2], TASKS[0]])
    np.testing.assert_array_equal(by_card.linear.toarray(), features.linear.toarray()[[2, 0]])


@pytest.mark.parametrize(
    ("encoder_type", "ids"), [(ModelFeatureEncoder, IDS), (TaskFeatureEncoder, TASK_IDS)]
)
def test_state_survives_a_file(catalog, encoder_type, ids, tmp_path):
    encoder = encoder_type(EncodingConfig(quadratic=True)).fit(catalog, ids)
    save_artifact(encoder.state(), tmp_path / "saved", manifest={})
    restored = encoder_type.from_state(load_artifact(tmp_path / "saved")[0])
    assert restored.config == encoder.config
    ours, theirs = encoder.transform(catalog, ids), restored.transform(catalog, ids)
    assert ours.linear_names == theirs.linear_names
    np.testing.assert_array_equal(ours.linear.toarray(), theirs.linear.toarray())
    np.testing.assert_array_equal(ours.trees, theirs.trees)


@pytest.mark.parametrize("encoder_type", [ModelFeatureEncoder, TaskFeatureEncoder])
def test_misuse_is_refused(catalog, encoder_type):
    with pytest.raises(NotFittedError, match=encoder_type.__name__):
        encoder_type().transform(catalog, ["a"])
    with pytest.raises(NotFittedError, match=encoder_type.__name__):
        encoder_type().state()
    with pytest.raises(DataError, match="at least one row"):
        encoder_type().fit(catalog, [])


def test_an_empty_catalog_still_encodes_names():
    empty = Catalog.empty()
    ids = ["resnet18.a", "resnet50.a", "vit.b", "vit_large.b"]
    features = ModelFeatureEncoder().fit(empty, ids).transform(empty, ids)
    assert "architecture_word=resnet" in features.linear_names
    tasks = TaskFeatureEncoder().fit(empty, ["t"]).transform(empty, ["t", "u"])
    assert tasks.linear.shape == (2, 0)
    assert tasks.trees.shape == (2, 0)
