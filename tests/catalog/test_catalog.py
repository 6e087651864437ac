import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core.errors import DataError, StorageError, UnknownIdError, UsageError

FULL = ModelCard(
    model_id="vit.a",
    architecture="vit",
    n_parameters=1_013_010_001,
    gmacs=1.5,
    source_accuracy=0.9,
    embedding=(0.5, -1.0),
    traits={"note": "é", "speed": 2.5},
)
TASK = TaskCard(task_id="t", n_classes=3, class_names=("a", "b", "c"), direction="min")
CATALOG = Catalog.from_cards(models=[FULL, ModelCard(model_id="bare")], tasks=[TASK])


def test_unknown_is_a_state_of_its_own():
    row = CATALOG.models.loc["bare"]
    assert math.isnan(row["n_parameters"])
    assert math.isnan(row["gmacs"])
    assert row["architecture"] is None
    assert row["embedding"] is None
    assert row["traits"] == {}
    assert CATALOG.model_card("bare") == ModelCard(model_id="bare")


def test_frames_are_sorted_by_id_and_typed_even_when_empty():
    assert list(CATALOG.models.index) == ["bare", "vit.a"]
    empty = Catalog.empty()
    assert len(empty.models) == len(empty.tasks) == 0
    assert list(empty.models.columns) == list(CATALOG.models.columns)
    assert empty.models["n_parameters"].dtype == np.float64
    assert empty.models.index.name == "model_id"


def test_cards_come_out_as_they_went_in():
    assert CATALOG.model_card("vit.a") == FULL
    assert CATALOG.task_card("t") == TASK


def test_ids_without_a_card():
    assert CATALOG.find_model_card("vit.b") is None
    assert CATALOG.find_task_card("u") is None
    with pytest.raises(UnknownIdError, match=r"did you mean 'vit\.a'"):
        CATALOG.model_card("vit.b")
    with pytest.raises(UnknownIdError, match="task 'zzz' has no card among the 1"):
        CATALOG.task_card("zzz")


@pytest.mark.parametrize("table_format", ["parquet", "jsonl"])
def test_files_round_trip(tmp_path, table_format):
    folder = tmp_path / "new" / "catalog"
    CATALOG.write(folder, table_format=table_format)
    assert sorted(p.name for p in folder.iterdir()) == [
        f"models.{table_format}",
        f"tasks.{table_format}",
    ]
    read = Catalog.read(folder)
    pd.testing.assert_frame_equal(read.models, CATALOG.models)
    pd.testing.assert_frame_equal(read.tasks, CATALOG.tasks)


def test_writing_the_other_format_leaves_one_table(tmp_path):
    CATALOG.write(tmp_path, table_format="jsonl")
    Catalog.empty().write(tmp_path)
    assert len(Catalog.read(tmp_path).models) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models.parquet", "tasks.parquet"]


def test_jsonl_says_only_what_is_known(tmp_path):
    CATALOG.write(tmp_path, table_format="jsonl")
    assert (tmp_path / "models.jsonl").read_text().splitlines()[0] == '{"model_id": "bare"}'


def test_a_missing_table_is_empty_and_a_missing_folder_is_an_error(tmp_path):
    assert len(Catalog.read(tmp_path).models) == 0
    with pytest.raises(DataError, match="no catalog folder"):
        Catalog.read(tmp_path / "absent")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        '{"model_id": "a", "nosuch": 1}',
        '{"gmacs": 1}',
        "[1]",
        '{"model_id": "a", "gmacs": "x"}',
        '{"model_id": "a", "gmacs": -1}',
    ],
)
def test_a_table_that_holds_no_cards(tmp_path, text):
    (tmp_path / "models.jsonl").write_text(text + "\n")
    with pytest.raises(DataError, match=r"models\.jsonl: not a table of cards"):
        Catalog.read(tmp_path)


def test_a_damaged_parquet_table(tmp_path):
    (tmp_path / "models.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(DataError, match=r"models\.parquet"):
        Catalog.read(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be created"):
        CATALOG.write(tmp_path / "file" / "catalog")
    with pytest.raises(UsageError, match="csv"):
        CATALOG.write(tmp_path, table_format="csv")


def test_merging_takes_the_later_known_field():
    later = Catalog.from_cards(
        models=[
            ModelCard(model_id="vit.a", gmacs=9.0, traits={"speed": 3.0, "new": "x"}),
            ModelCard(model_id="other"),
        ]
    )
    merged = CATALOG.merged(later)
    card = merged.model_card("vit.a")
    assert (card.gmacs, card.architecture, card.embedding) == (9.0, "vit", (0.5, -1.0))
    assert card.traits == {"note": "é", "speed": 3.0, "new": "x"}
    assert list(merged.models.index) == ["bare", "other", "vit.a"]
    assert merged.task_card("t") == TASK
    assert CATALOG.model_card("vit.a") == FULL, "the inputs must not change"
    assert later.model_card("vit.a").architecture is None


def test_among_cards_of_one_id_the_first_that_knows_says_it():
    cards = [
        ModelCard(model_id="m", input_size=448),
        ModelCard(model_id="m", input_size=224, gmacs=2.0, n_layers=3, traits={"a": 1.0}),
    ]
    card = CATALOG.with_models(cards).model_card("m")
    # But not what the model costs at another size.
    assert (card.input_size, card.gmacs, card.n_layers) == (448, None, 3)
    assert card.traits == {"a": 1.0}
    over = CATALOG.with_tasks([TaskCard(task_id="t", n_classes=5)]).task_card("t")
    assert (over.n_classes, over.class_names) == (5, ("a", "b", "c"))


def test_frames_of_ones_own():
    frame = pd.DataFrame(
        {"model_id": ["b", "a"], "n_parameters": [5, None], "family": ["x", pd.NA]}
    )
    catalog = Catalog(frame, pd.DataFrame())
    assert list(frame.columns) == ["model_id", "n_parameters", "family"]
    assert catalog.model_card("b").n_parameters == 5
    assert catalog.model_card("a") == ModelCard(model_id="a")
    with pytest.raises(DataError, match="'b' twice"):
        Catalog(pd.concat([frame, frame]), pd.DataFrame())
    with pytest.raises(DataError, match="nosuch"):
        Catalog(frame.assign(nosuch=1), pd.DataFrame())


names = st.text("abc", min_size=1, max_size=2)
cards = st.lists(
    st.builds(
        ModelCard,
        model_id=names,
        architecture=st.none() | names,
        n_parameters=st.none() | st.integers(1, 2**53),
        gmacs=st.none() | st.floats(1e-9, 1e9),
        traits=st.dictionaries(names, names | st.floats(-1, 1), max_size=2),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=25)
@given(cards, cards, cards)
def test_merging_is_associative_with_an_empty_catalog_as_its_unit(a, b, c):
    x, y, z = (Catalog.from_cards(models=some) for some in (a, b, c))
    left, right = x.merged(y).merged(z), x.merged(y.merged(z))
    pd.testing.assert_frame_equal(left.models, right.models)
    pd.testing.assert_frame_equal(x.merged(Catalog.empty()).models, x.models)
    pd.testing.assert_frame_equal(Catalog.empty().merged(x).models, x.models)
    pd.testing.assert_frame_equal(x.merged(x).models, x.models)


def test_costs_at_another_input_size_do_not_stay():
    known = Catalog.from_cards(
        models=[ModelCard(model_id="m", input_size=224, gmacs=4.1, macts=11.0, n_layers=50)]
    )
    larger = known.with_models([ModelCard(model_id="m", input_size=288)]).model_card("m")
    assert (larger.input_size, larger.gmacs, larger.macts, larger.n_layers) == (288, None, None, 50)
    costed = known.with_models([ModelCard(model_id="m", input_size=288, gmacs=6.8)])
    assert costed.model_card("m").gmacs == 6.8
    same = known.with_models([ModelCard(model_id="m", input_size=224)]).model_card("m")
    unsaid = known.with_models([ModelCard(model_id="m", licence="mit")]).model_card("m")
    assert same.gmacs == unsaid.gmacs == 4.1


def test_fields_can_be_forgotten():
    catalog = Catalog.from_cards(
        models=[ModelCard(model_id="m", family="resnet", embedding=(1.0, 2.0), traits={"a": 1.0})],
        tasks=[TaskCard(task_id="t", n_classes=3, embedding=(1.0,), class_names=("x", "y"))],
    )
    less = catalog.without(models=["embedding", "traits"], tasks=["n_classes", "class_names"])
    assert less.model_card("m") == ModelCard(model_id="m", family="resnet")
    assert less.task_card("t") == TaskCard(task_id="t", embedding=(1.0,))
    assert catalog.model_card("m").embedding == (1.0, 2.0)
    scored = catalog.with_scores(ScoreTable.empty().with_scores("t", "m", {"lfc": 0.5}))
    assert scored.without(tasks=["n_classes"]).scores.names == ("lfc",)
    assert scored.without(scores=True).scores.names == ()
    with pytest.raises(UsageError, match="a card has no field 'colour'"):
        catalog.without(tasks=["colour"])
    with pytest.raises(UsageError, match="'model_id'"):
        catalog.without(models=["model_id"])
