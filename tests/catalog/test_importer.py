import pytest

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.importer import expand_cards, import_cards
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.presets import get_preset
from recsys_ms.history.readers.table import replay_row


def read(tmp_path, text, mapping=None, kind="model", name="cards.csv"):
    path = tmp_path / name
    path.write_text(text)
    return import_cards(path, kind=kind, mapping=mapping)[:3]


def preset(shared_data, file, name):
    chosen = get_preset(name)
    path = shared_data / "histories" / "raw" / file
    cards, rejects, n_left_out, _ = import_cards(path, kind=chosen.kind, mapping=chosen.mapping)
    assert (rejects, n_left_out) == ((), 0)
    return cards


def test_columns_with_names_of_fields_need_no_mapping(tmp_path):
    text = (
        "model_id,n_parameters,gmacs,embedding,traits,other\n"
        'a,"1,013,000",0.5,"[1, 2.5]","{\'x\': 1, \'y\': None}",1\n'
        "b,nan,,,,2\n"
    )
    cards, rejects, n_left_out = read(tmp_path, text, FieldMapping(decimal="."))
    assert cards == [
        ModelCard(
            model_id="a", n_parameters=1_013_000, gmacs=0.5, embedding=(1, 2.5), traits={"x": 1}
        ),
        ModelCard(model_id="b"),
    ]
    assert (rejects, n_left_out) == ((), 0)


def test_a_number_of_a_card_is_not_guessed(tmp_path):
    text = 'model_id,gmacs,traits.x\na,"0,5",1\nb,0.5,1\n'
    cards, (reject,), _ = read(tmp_path, text)
    assert [card.model_id for card in cards] == ["b"]
    assert "0.5 with a decimal comma (--decimal ,)" in reject.reason


def test_computed_columns_scale_and_constants_and_traits(tmp_path):
    mapping = FieldMapping(
        map={
            "model_id": "{m}",
            "n_parameters": "{n}",
            "source_accuracy": "{share}",
            "traits.lr": "{lr}",
            "traits.who": "{who}",
        },
        set={"licence": "mit", "traits.from": "me"},
        columns={"n": "millions * 1000000", "share": "accuracy / 100"},
        where="m <> 'drop'",
        missing=("-1",),
    )
    text = "m,millions,accuracy,lr,who\na,305.08,91.5,0.1,x\ndrop,1,1,,\nb,-1,-1.0,,\n"
    cards, rejects, n_left_out = read(tmp_path, text, mapping)
    assert n_left_out == 1
    assert not rejects[1:]
    first = cards[0]
    assert (first.n_parameters, first.source_accuracy) == (305_080_000, 0.915)
    assert (first.licence, dict(first.traits)) == ("mit", {"lr": 0.1, "who": "x", "from": "me"})


def test_a_marker_in_any_field_is_unknown(tmp_path):
    text = "model_id,gmacs,family\na,-1,-1\nb,2,x\n"
    cards, rejects, _ = read(tmp_path, text, FieldMapping(missing=("-1",)))
    assert not rejects
    assert cards[0] == ModelCard(model_id="a")
    assert (cards[1].gmacs, cards[1].family) == (2.0, "x")


def test_rows_that_are_no_cards_are_rejected_as_runs_are(tmp_path):
    text = (
        "model_id,n_parameters,source_accuracy,embedding,traits\n"
        "a,many,,,\n"
        "b,1.5,,,\n"
        "c,,91.3,,\n"
        "d,,,not a list,\n"
        "e,,,,not a dict\n"
        ",1,,,\n"
        "g,-1,,,\n"
        "h,inf,,,\n"
        'i,,,"[""x""]",\n'
        "j\n"
        "k,7,,,\n"
    )
    cards, rejects, _ = read(tmp_path, text)
    assert [card.model_id for card in cards] == ["k"]
    assert [reject.line for reject in rejects] == list(range(2, 12))
    reasons = [reject.reason for reject in rejects]
    for reason, part in zip(
        reasons,
        [
            "expected a number",
            "whole number",
            "divide percent",
            "expected a list",
            "expected a dict",
            "model_id is empty",
            "at least 1",
            "finite",
            "embedding",
            "fields",
        ],
        strict=True,
    ):
        assert part in reason
    assert rejects[0].raw == "a,many,,,"
    with pytest.raises(DataError, match="row of a model, not of a run"):
        replay_row(rejects[0])


def test_what_does_not_fit_is_refused_before_rows_are_read(tmp_path):
    with pytest.raises(UsageError, match=r"--map model_id="):
        read(tmp_path, "model\na\n")
    with pytest.raises(UsageError, match=r"--map task_id="):
        read(tmp_path, "model\na\n", kind="task")
    with pytest.raises(UsageError, match=r"traits\.NAME"):
        read(
            tmp_path, "model\na\n", FieldMapping(map={"model_id": "{model}", "n_params": "{model}"})
        )
    with pytest.raises(UsageError, match="scale a column of cards with an expression"):
        read(tmp_path, "model_id\na\n", FieldMapping(unit="percent"))
    with pytest.raises(UsageError, match="kind 'models'"):
        read(tmp_path, "model_id\na\n", kind="models")


def test_task_cards(tmp_path):
    text = '{"task_id": "t", "n_classes": 2, "class_names": ["a", "b"], "direction": "max"}\n'
    (card,), *_ = read(tmp_path, text, kind="task", name="tasks.jsonl")
    assert (card.n_classes, card.class_names, card.direction) == (2, ("a", "b"), "max")


ARCHITECTURES = [
    ModelCard(model_id="vit", architecture="vit", input_size=384, gmacs=3.0, n_parameters=11),
    ModelCard(
        model_id="vit",
        architecture="vit",
        input_size=224,
        gmacs=1.0,
        n_parameters=10,
        pretrained_domain="in1k",
        licence="mit",
        traits={"speed": 2.0},
    ),
]


def test_cards_of_architectures_are_given_to_their_models_by_input_size():
    sizes = {"vit.a": 384.0, "vit.b": float("nan"), "vit.c": 512}
    by_384, by_smallest, other_size = expand_cards(
        ARCHITECTURES, ["vit.a", "vit.b", "vit.c", "vit.a", "resnet.x"], input_sizes=sizes
    )
    assert (by_384.model_id, by_384.input_size, by_384.gmacs) == ("vit.a", 384, 3.0)
    assert (by_smallest.input_size, by_smallest.gmacs, by_smallest.traits) == (
        224,
        1.0,
        {"speed": 2.0},
    )
    # Multiply-adds of another size would be wrong, parameters are the same to a few percent.
    assert (other_size.model_id, other_size.gmacs, other_size.n_parameters) == ("vit.c", None, 10)
    # What belongs to weights is not passed on to other weights.
    assert by_smallest.pretrained_domain is by_smallest.licence is None


def test_a_card_of_the_very_model_is_passed_on_whole():
    (card,) = expand_cards(ARCHITECTURES, ["vit"])
    assert card == ARCHITECTURES[1]
    (card,) = expand_cards(ARCHITECTURES, ["vit"], input_sizes={"vit": 512})
    assert (card.gmacs, card.input_size, card.licence) == (None, 512, "mit")


@pytest.mark.parametrize("model_id", ["vit@birds", "timm/vit.a_in1k", "owner/vit", "vit.a@b"])
def test_the_architecture_is_what_the_id_says(model_id):
    (card,) = expand_cards(ARCHITECTURES, [model_id])
    assert (card.model_id, card.architecture, card.n_parameters) == (model_id, "vit", 10)
    assert card.licence is None


@pytest.mark.shared_data
def test_transfergraph_models_and_tasks(shared_data):
    folder = "transfergraph"
    cards = preset(shared_data, f"{folder}/model_config_dataset.csv", "transfergraph-models")
    assert len({card.model_id for card in cards}) == 185
    assert sum(card.source_accuracy is None for card in cards) == 34
    assert sum(card.n_parameters is None for card in cards) == 1
    families = {card.model_id: card.family for card in cards}
    more = preset(shared_data, f"{folder}/model_config.csv", "transfergraph-models-all")
    assert len(more) == 231
    assert sum(card.pretrained_domain is None for card in more) == 47
    assert sum(card.architecture is None for card in more) == 3
    # Both files name the families alike, so that their cards can be merged.
    shared = [card for card in more if families.get(card.model_id) and card.family]
    assert len(shared) > 150
    assert all(card.family == families[card.model_id] for card in shared)
    tasks = preset(shared_data, f"{folder}/finetune_dataset_config.csv", "transfergraph-tasks")
    by_id = {card.task_id: card for card in tasks}
    assert len(by_id) == 12
    assert (by_id["flowers"].n_samples, by_id["flowers"].n_classes) == (1020, 10)


@pytest.mark.shared_data
def test_timm_models_get_the_costs_of_their_architectures(shared_data):
    models = Catalog.from_cards(
        models=preset(shared_data, "timm/results-imagenet.csv", "timm-models")
    )
    assert len(models.models) == 1266
    benchmark = preset(
        shared_data, "timm/benchmark-infer-amp-nchw-pt291-cu130-5090.csv", "timm-benchmark"
    )
    assert len(benchmark) == 1627
    assert len({card.model_id for card in benchmark}) == 1282
    expanded = expand_cards(
        benchmark, models.models.index, input_sizes=models.models["input_size"].to_dict()
    )
    catalog = models.with_models(expanded)
    assert len(expanded) == len(catalog.models) == 1266
    for name in ("n_parameters", "gmacs", "macts", "input_size", "pretrained_tag"):
        assert catalog.models[name].notna().all()
    card = catalog.model_card("vit_base_patch16_224.augreg_in21k_ft_in1k")
    assert (card.architecture, card.pretrained_tag) == (
        "vit_base_patch16_224",
        "augreg_in21k_ft_in1k",
    )
    assert card.n_parameters == 86_570_000
    assert 16 < card.gmacs < 18
    largest = catalog.model_card("eva_giant_patch14_336.clip_ft_in1k")
    assert largest.n_parameters == 1_013_010_000, "thousands separators"


@pytest.mark.shared_data
def test_other_presets_of_cards(shared_data):
    metadata = preset(shared_data, "timm/model_metadata-in1k.csv", "timm-metadata")
    assert len({card.pretrained_domain for card in metadata}) == 10
    parc = Catalog.from_cards(
        models=preset(shared_data, "parc_all.csv", "parc-models"),
        tasks=preset(shared_data, "parc_all.csv", "parc-tasks"),
    )
    assert (len(parc.models), len(parc.tasks)) == (71, 7)
    assert parc.model_card("resnet18@nabird").n_layers == 18
    assert parc.model_card("alexnet@nabird").n_layers is None
    assert set(parc.models["family"]) == {"alexnet", "googlenet", "resnet"}
    assert parc.task_card("cub200").n_classes == 200
    spider = preset(shared_data, "spider_multisource_accuracy.csv", "spider-models")
    assert {card.architecture for card in spider} == {"densenet201", "inception_v3", "resnet50"}
    assert len({card.pretrained_domain for card in spider}) == 22
