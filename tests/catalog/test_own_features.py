"""Columns of a user's own: kept as traits, named where they are not, and learned from."""

import json
from pathlib import Path

import numpy as np
import pytest
from warm import warm

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.features import ModelFeatureEncoder
from recsys_ms.catalog.importer import import_cards
from recsys_ms.history.readers.mapping import FieldMapping


def write(folder: Path, text: str, name: str = "models.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_columns_that_no_field_is_made_of_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "model_id,size,gmacs,licence_uri,year,kind\na,5,1,http://x,2020,k\n")
    mapping = FieldMapping(map={"n_parameters": "{m}"}, columns={"m": "size * 1000"}, where="year")
    read = import_cards(path, kind="model", mapping=mapping)
    assert read.not_kept == ("licence_uri", "kind")
    assert read.cards == [ModelCard(model_id="a", n_parameters=5000, gmacs=1.0)]


def test_all_of_them_are_kept_as_numbers_or_texts(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "model_id,year,code,mixed,vector,empty,traits\n"
        "a,2020,007,1,\"[1, 2]\",,{'year': 1999}\n"
        "b,2021,12,x,,,\n"
        "c,n/a,,,,unknown,\n",
    )
    read = import_cards(path, kind="model", traits="all")
    assert [dict(card.traits) for card in read.cards] == [
        {"year": 1999, "code": "007", "mixed": "1"},
        {"year": 2021, "code": "12", "mixed": "x"},
        {},
    ]
    assert read.not_kept == ("vector", "empty")
    assert all(isinstance(card.traits.get("year", 0), int) for card in read.cards)


def test_a_table_without_any_card_says_nothing_of_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "model_id,n_parameters,depth\na,many,18\n")
    read = import_cards(path, kind="model", traits="all")
    assert (read.cards, len(read.rejects), read.not_kept) == ([], 1, ())


def test_task_cards_keep_them_too(tmp_path: Path) -> None:
    path = write(tmp_path, "task_id,sensor,resolution\nt,radar,0.5\n")
    read = import_cards(path, kind="task", traits="all")
    assert read.cards == [TaskCard(task_id="t", traits={"sensor": "radar", "resolution": 0.5})]


@pytest.mark.parametrize("cell", ["", "0", "0.0", "unknown", "N/A", "nan", "None", "-", "?"])
@pytest.mark.parametrize("field", ["n_parameters", "gmacs", "input_size", "n_layers"])
def test_a_size_of_nothing_is_unknown(tmp_path: Path, field: str, cell: str) -> None:
    read = import_cards(write(tmp_path, f"model_id,{field}\na,{cell}\n"), kind="model")
    assert (read.cards, read.rejects) == ([ModelCard(model_id="a")], ())


def test_an_accuracy_of_0_is_known(tmp_path: Path) -> None:
    read = import_cards(write(tmp_path, "model_id,source_accuracy\na,0\n"), kind="model")
    assert read.cards[0].source_accuracy == 0.0


def test_all_that_is_wrong_in_a_row_is_said_at_once(tmp_path: Path) -> None:
    text = "model_id,n_parameters,gmacs,source_accuracy\na,25.6M,-1,91.3\nb,7,1,0.5\n"
    read = import_cards(write(tmp_path, text), kind="model")
    assert [card.model_id for card in read.cards] == ["b"]
    (reject,) = read.rejects
    for part in (
        "n_parameters is '25.6M', expected a number in full",
        "gmacs is '-1', expected a positive number; leave the cell empty where it is unknown",
        "source_accuracy is '91.3'",
    ):
        assert part in reject.reason
    assert "None" not in reject.reason


def test_a_trait_is_a_feature_of_the_model(tmp_path: Path) -> None:
    path = write(tmp_path, "model_id,year,lab\na,2020,x\nb,2021,x\nc,2022,y\nd,2023,y\n")
    catalog = Catalog.from_cards(models=import_cards(path, kind="model", traits="all").cards)
    ids = list("abcd")
    encoded = ModelFeatureEncoder().fit(catalog, ids).transform(catalog, ids)
    assert {"trait:year", "trait:lab"} <= set(encoded.tree_names)
    years = encoded.trees[:, encoded.tree_names.index("trait:year")]
    assert np.argsort(years).tolist() == [0, 1, 2, 3]


def test_the_command_line_names_them_and_lists_every_bad_row(tmp_path: Path) -> None:
    write(tmp_path, "model_id,n_parameters,lab\n" + "".join(f"m{i},-{i},x\n" for i in range(30)))
    done = warm().run("ingest", "models.csv", "--as", "model-cards", "-C", "C", cwd=tmp_path)
    assert done.returncode == 3
    assert "columns not kept: lab; keep them with --traits all" in done.stdout
    assert "models.csv:21:" in done.stderr
    assert "29 rows could not be read as cards (9 more than are shown" in done.stderr
    done = warm().run(
        *("ingest", "models.csv", "--as", "model-cards", "-C", "C", "--traits", "all", "--json"),
        cwd=tmp_path,
    )
    answer = json.loads(done.stdout)
    assert len(answer["rejects"]) == 29
    assert answer["files"]["models.csv"]["not_kept"] == []
    # The good card was taken.
    assert dict(Catalog.read(tmp_path / "C").model_card("m0").traits) == {"lab": "x"}


def test_rows_of_one_id_that_differ_are_told(tmp_path: Path) -> None:
    write(tmp_path, "model_id,n_parameters,family\na,100,\na,200,x\na,100,\nb,1,y\nb,1,y\n")
    done = warm().run("ingest", "models.csv", "--as", "model-cards", "-C", "C", cwd=tmp_path)
    assert done.returncode == 0
    assert "1 id with rows that differ, first: n_parameters of 'a' is 100 and 200" in done.stderr
    card = Catalog.read(tmp_path / "C").model_card("a")
    assert (card.n_parameters, card.family) == (100, "x")
